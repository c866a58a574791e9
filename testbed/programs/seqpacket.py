"""SOCK_SEQPACKET within a host: connections as with a stream, but what is sent as one record is received as one.

A server that echoes records and a client that sends them, over AF_UNIX; and `where`, which asks this kernel which
families offer the type at all. For the same between hosts, see `sctp`.
"""

from __future__ import annotations

import argparse
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any

from testbed.programs._cli import number, size_bytes, time_ns
from testbed.programs._errors import Failed, doing, error_name
from testbed.programs._life import run
from testbed.programs._sending import pattern
from testbed.programs._serving import say_ready

TYPES = {"seqpacket": socket.SOCK_SEQPACKET, "stream": socket.SOCK_STREAM, "datagram": socket.SOCK_DGRAM}
NAMES = {int(kind): name for name, kind in TYPES.items()}
LARGEST_RECORD = 1 << 14
IN_FLIGHT = 8  # records: so few fit into the socket buffers, and neither end ever waits for the other to read
AF_NS = 6  # the number in 4.3BSD's <sys/socket.h>; Linux never had this family and gave the number to NET/ROM
WHAT_TO_TRY = {
    "EADDRINUSE": "the path is there already: a server leaves it behind, remove it before the next one starts",
    "ECONNREFUSED": "the path is there, but nobody listens",
    "ENOENT": "no server has bound that path",
    "EPROTOTYPE": "the server has another type of socket",
}
FAMILIES = {
    "unix": (socket.AF_UNIX, 0),
    "sctp": (socket.AF_INET, socket.IPPROTO_SCTP),
    "tcp": (socket.AF_INET, socket.IPPROTO_TCP),
    "ns": (AF_NS, 0),
}


class Echo:
    """A server: one connection after the other, every record goes back as far as it fitted into the buffer."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(
            ("connections", "received", "payload_bytes", "truncated", "ended", "errors"), 0
        )

    def serve(self, listener: socket.socket, buffer_bytes: int) -> None:
        """Never returns: SIGTERM ends it. Raises Failed."""
        while True:
            with doing("accepting a connection"):
                connection, _ = listener.accept()
            self.counts["connections"] += 1
            with connection:
                try:
                    self._talk(connection, buffer_bytes)
                except OSError:  # one client that went away is no reason to leave the others
                    self.counts["errors"] += 1

    def _talk(self, connection: socket.socket, buffer_bytes: int) -> None:
        while True:
            record, _, flags, _ = connection.recvmsg(buffer_bytes)  # one call is one record, never a part of two
            if not record:  # end of file. So a record of no bytes at all could not be told from it
                self.counts["ended"] += 1
                return
            self.counts["received"] += 1
            self.counts["payload_bytes"] += len(record)
            self.counts["truncated"] += bool(flags & socket.MSG_TRUNC)  # the rest of the record is gone
            connection.sendall(record)

    def records(self) -> Iterator[dict[str, Any]]:
        yield self.counts


class Book:
    """What a client sent and what came back, in order. It knows no socket; `sctp` keeps one too."""

    def __init__(self, sizes: list[int], count: int) -> None:
        self.sizes, self.count = sizes, count
        self.sent = self.intact = self.shortened = self.corrupted = 0
        self.extra: dict[str, Any] = {}

    @property
    def received(self) -> int:
        return self.intact + self.shortened + self.corrupted

    def record(self, n: int) -> bytes:
        """The n-th; the sizes take turns."""
        return pattern(n, self.sizes[n % len(self.sizes)])

    def arrived(self, data: bytes) -> None:
        """The n-th that comes back is compared with the n-th that was sent: its bytes, its order, its borders."""
        expected = self.record(self.received)
        if data == expected:
            self.intact += 1
        elif data and expected.startswith(data):
            self.shortened += 1
        else:
            self.corrupted += 1

    def conclude(self) -> None:
        """A record cut short is something to measure; a missing or foreign one is not. Raises Failed."""
        if self.intact + self.shortened != self.count:
            raise Failed("EBADMSG", f"of {self.count} records, {self.intact} came back as they were sent")

    def records(self) -> Iterator[dict[str, Any]]:
        names = ("sent", "received", "intact", "shortened", "corrupted")
        whole = "yes" if self.intact == self.count else "no"
        yield {**self.extra, **{name: getattr(self, name) for name in names}, "whole": whole}


def send(sock: socket.socket, book: Book) -> None:
    """Send every record over a connected socket, read what comes back, close one way, wait for the end of file.

    Raises Failed.
    """
    with doing("sending and receiving records"):
        while book.received < book.count:
            if book.sent < min(book.count, book.received + IN_FLIGHT):
                sock.sendall(book.record(book.sent))
                book.sent += 1
                continue
            data = sock.recv(2 * LARGEST_RECORD)
            if not data:
                raise EOFError(f"the peer closed after {book.received} of {book.count} records")
            book.arrived(data)
        sock.shutdown(socket.SHUT_WR)
        book.extra["end_of_file"] = "no" if sock.recv(2 * LARGEST_RECORD) else "yes"
    book.conclude()


def where(kind: socket.SocketKind) -> Iterator[dict[str, Any]]:
    """Ask the kernel for a socket of that type in each family: offered, or refused with an error. socket(2).

    Of one that was offered, its type is what the kernel says afterwards: SO_TYPE, socket(7).
    """
    answers: dict[str, Any] = {}
    for name, (family, protocol) in FAMILIES.items():
        try:
            with socket.socket(family, kind, protocol) as sock:
                its_type = sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
            answers |= {name: "offered", f"{name}_type": NAMES.get(its_type, str(its_type))}
        except OSError as problem:
            answers |= {name: "refused", f"{name}_error": error_name(problem)}
    yield answers


def main(argv: list[str] | None = None) -> int:
    """The command `seqpacket`. Returns the exit status: 0 done, 1 a socket error; wrong arguments exit with 2."""
    arguments = _parser().parse_args(argv)
    kind = TYPES[arguments.type]
    if arguments.mode == "where":
        return run("seqpacket where", lambda: None, lambda: where(kind))
    if arguments.mode == "echo":
        echo = Echo()
        return run("seqpacket echo", lambda: _serve(echo, kind, arguments), echo.records)
    book = Book(arguments.sizes, arguments.count)
    return run("seqpacket send", lambda: _send(book, kind, arguments), book.records)


def _serve(echo: Echo, kind: socket.SocketKind, arguments: argparse.Namespace) -> None:
    with socket.socket(socket.AF_UNIX, kind) as listener:
        with doing(f"binding {arguments.path}", WHAT_TO_TRY):
            listener.bind(arguments.path)
        if arguments.no_listen:
            say_ready()
            while True:
                time.sleep(3600)
        with doing("listening"):
            listener.listen()
        say_ready()
        echo.serve(listener, arguments.buffer)


def _send(book: Book, kind: socket.SocketKind, arguments: argparse.Namespace) -> None:
    with socket.socket(socket.AF_UNIX, kind) as sock:
        sock.settimeout(arguments.timeout / 1e9)
        with doing(f"connecting to {arguments.path}", WHAT_TO_TRY):
            sock.connect(arguments.path)
        send(sock, book)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="seqpacket", description="SOCK_SEQPACKET: records, within a host.")
    modes = parser.add_subparsers(dest="mode", required=True, metavar="echo|send|where")
    echo = modes.add_parser("echo", help="serve: send every record back, until SIGTERM")
    client = modes.add_parser("send", help="send records to `seqpacket echo` and compare what comes back")
    kinds = modes.add_parser("where", help="which families offer this type of socket here")
    for mode in (echo, client):
        mode.add_argument("path", metavar="PATH", help="of the server's socket")
    for mode in (echo, client, kinds):
        types = ("seqpacket", "stream") if mode is not kinds else tuple(TYPES)
        mode.add_argument("--type", choices=types, default="seqpacket", help="another type, to see the difference")
    add_buffer_argument(echo)
    echo.add_argument("--no-listen", action="store_true", help="bind only: whoever connects is refused")
    add_record_arguments(client)
    return parser


def add_buffer_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--buffer", type=record_size, default=LARGEST_RECORD, metavar="SIZE", help="of each receive; default 16KiB"
    )


def add_record_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--count", type=number, required=True, metavar="N", help="how many records")
    parser.add_argument("--sizes", type=_sizes, required=True, metavar="SIZE,…", help="of records, taking turns")
    parser.add_argument("--timeout", type=time_ns, default=30 * 10**9, metavar="TIME", help="of each wait; 30s")


def record_size(text: str) -> int:
    size = size_bytes(text)
    if not 0 < size <= LARGEST_RECORD:
        raise argparse.ArgumentTypeError(f"{text!r} is not from 1B to {LARGEST_RECORD}B")
    return size


def _sizes(text: str) -> list[int]:
    return [record_size(part) for part in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
