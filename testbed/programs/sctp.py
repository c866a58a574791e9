"""SOCK_SEQPACKET between hosts: SCTP in its one-to-many style (RFC 6458, section 3), for kernels that have it.

One socket of the server serves every peer, and nobody calls connect or accept: an association comes up with the
first record that is sent to an address. `echo` sends records back, `send` sends them and compares. A record that
does not fit into the receiver's buffer is not cut short as with AF_UNIX, it arrives in pieces, and MSG_EOR is with
the last one.
"""

from __future__ import annotations

import argparse
import errno
import select
import socket
import struct
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from testbed.programs._cli import add_server_arguments, host_and_port
from testbed.programs._errors import doing, opening
from testbed.programs._life import run
from testbed.programs._records import IN_FLIGHT, Book, add_buffer_argument, add_record_arguments
from testbed.programs._serving import receive_until_sigterm

# include/uapi/linux/sctp.h and linux/socket.h; Python has no names for these
SCTP_NODELAY, SCTP_EVENTS = 3, 11
ASSOCIATION_EVENTS = bytes([0, 1])  # struct sctp_event_subscribe: not data_io, but association changes
MSG_NOTIFICATION = 0x8000
SCTP_ASSOC_CHANGE = 0x8001
ASSOC_CHANGE = struct.Struct("=HHIHHHHi")  # type, flags, length, state, error, streams out and in, association
ROOM_WITHIN_S = 0.01
COMM_UP, COMM_LOST, RESTART, SHUTDOWN_COMP, CANT_STR_ASSOC = range(5)
WHAT_TO_TRY = {
    "ENOSYS": "the kernel cannot load the digest of SCTP's cookie; net.sctp.cookie_hmac_alg=none does without one",
    "ETIMEDOUT": "--timeout sets how long to wait",
    "ECONNREFUSED": "no SCTP socket listens there",
    "EADDRINUSE": "another program has this port",
    "EAI_NONAME": "in a host of the testbed, names come from /etc/hosts alone",
}


class Reader:
    """Whole records out of a socket: pieces are put together, changes of associations handed on."""

    def __init__(self, sock: socket.socket, buffer_bytes: int, changed: Callable[[int], None]) -> None:
        self.sock, self.changed = sock, changed
        self.buffer_bytes = max(buffer_bytes, ASSOC_CHANGE.size)  # notifications come through the same buffer
        self.pieces = 0  # receives that were not the end of their record
        self._parts: defaultdict[tuple[Any, ...], bytes] = defaultdict(bytes)

    def record(self, wait: bool = True) -> tuple[bytes, tuple[Any, ...]]:
        """The next record and its sender. Raises OSError; without `wait`, BlockingIOError if none is whole yet."""
        while True:
            data, _, flags, peer = self.sock.recvmsg(self.buffer_bytes, 0, 0 if wait else socket.MSG_DONTWAIT)
            if flags & MSG_NOTIFICATION:
                kind, _, _, state, *_ = ASSOC_CHANGE.unpack(data[: ASSOC_CHANGE.size])
                if kind == SCTP_ASSOC_CHANGE:
                    self.changed(state)
                continue
            self._parts[peer] += data
            if flags & socket.MSG_EOR:
                return self._parts.pop(peer), peer
            self.pieces += 1


class Echo:
    """A server for all its peers at once, out of one socket."""

    def __init__(self) -> None:
        self.received = self.payload_bytes = self.errors = 0
        self.peers: set[tuple[Any, ...]] = set()
        self.changes: Counter[int] = Counter()
        self.reader: Reader | None = None

    def work(self, arguments: argparse.Namespace) -> None:
        """Raises Failed."""
        with _socket() as sock:
            with doing(f"binding {arguments.bind} port {arguments.port}", WHAT_TO_TRY):
                sock.bind((arguments.bind, arguments.port))
            if arguments.port == 0:
                print(f"port {sock.getsockname()[1]}", file=sys.stderr, flush=True)
            self.serve(sock, arguments.buffer)

    def serve(self, sock: socket.socket, buffer_bytes: int) -> None:
        """Until SIGTERM, and then what is still in the socket. Raises Failed."""
        self.reader = reader = Reader(sock, buffer_bytes, lambda state: self.changes.update([state]))
        with doing("listening", WHAT_TO_TRY):
            sock.listen()  # to take associations; there is no accept
        receive_until_sigterm(sock, lambda: self.answer(sock, reader))

    def answer(self, sock: socket.socket, reader: Reader) -> None:
        """The next record. Raises BlockingIOError if there is none, or no room to answer it yet."""
        if not select.select([], [sock], [], ROOM_WITHIN_S)[1]:  # else SIGTERM would wait in sendto for a peer
            raise BlockingIOError
        record, peer = reader.record(wait=False)
        self.received += 1
        self.payload_bytes += len(record)
        self.peers.add(peer)
        try:
            sock.sendto(record, peer)
        except OSError:  # one peer that went away is no reason to leave the others
            self.errors += 1

    def records(self) -> Iterator[dict[str, Any]]:
        yield {
            "received": self.received,
            "payload_bytes": self.payload_bytes,
            "peers": len(self.peers),
            "associations": self.changes[COMM_UP],
            "pieces": self.reader.pieces if self.reader else 0,
            "errors": self.errors,
        }


def send(sock: socket.socket, address: tuple[Any, ...], book: Book, buffer_bytes: int) -> None:
    """Send every record to the address and read what comes back. Raises Failed."""
    reader = Reader(sock, buffer_bytes, _still_there)
    with doing(f"sending records to {address[0]} port {address[1]} and receiving them", WHAT_TO_TRY):
        while book.received < book.count:
            if book.sent < min(book.count, book.received + IN_FLIGHT):
                sock.sendto(book.record(book.sent), address)  # the first one sets the association up
                book.sent += 1
            else:
                book.arrived(reader.record()[0])
    book.extra["pieces"] = reader.pieces
    book.conclude()


def _still_there(state: int) -> None:
    """A client has one association, and without it nothing will come any more. Raises OSError."""
    if state == CANT_STR_ASSOC:
        raise ConnectionRefusedError(errno.ECONNREFUSED, "the association did not come up")
    if state in (COMM_LOST, SHUTDOWN_COMP):
        raise ConnectionResetError(errno.ECONNRESET, "the association is gone")


def main(argv: list[str] | None = None) -> int:
    """The command `sctp`. Returns the exit status: 0 done, 1 a socket error; wrong arguments exit with 2."""
    arguments = _parser().parse_args(argv)
    if arguments.mode == "echo":
        echo = Echo()
        return run("sctp echo", lambda: echo.work(arguments), echo.records)
    book = Book(arguments.sizes, arguments.count)
    return run("sctp send", lambda: _send(book, arguments), book.records)


def _send(book: Book, arguments: argparse.Namespace) -> None:
    host, port = arguments.to
    with _socket() as sock:
        with doing(f"looking up {host}"):
            address = socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_DGRAM)[0][4]
        if arguments.bind is not None:
            with doing(f"binding {arguments.bind}"):
                sock.bind((arguments.bind, 0))
        sock.settimeout(arguments.timeout / 1e9)
        send(sock, address, book, arguments.buffer)


def _socket() -> socket.socket:
    """A one-to-many SCTP socket that tells of its associations. Raises Failed."""
    with opening("an SCTP socket", "SCTP"):
        sock = socket.socket(socket.AF_INET, socket.SOCK_SEQPACKET, socket.IPPROTO_SCTP)
    sock.setsockopt(socket.IPPROTO_SCTP, SCTP_NODELAY, 1)  # a record must not wait for more to send
    sock.setsockopt(socket.IPPROTO_SCTP, SCTP_EVENTS, ASSOCIATION_EVENTS)
    return sock


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sctp", description="SCTP, one-to-many: records between hosts.")
    modes = parser.add_subparsers(dest="mode", required=True, metavar="echo|send")
    echo = modes.add_parser("echo", help="serve: send every record back to its peer, until SIGTERM")
    add_server_arguments(echo)
    client = modes.add_parser("send", help="send records to `sctp echo` and compare what comes back")
    client.add_argument("to", type=host_and_port, metavar="HOST:PORT")
    client.add_argument("--bind", metavar="IP", help="the address to send from")
    add_record_arguments(client)
    for mode in (echo, client):
        add_buffer_argument(mode)
    return parser


if __name__ == "__main__":
    sys.exit(main())
