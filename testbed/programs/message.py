"""UDP as it is without a connection: one socket sends messages to anybody, one receives them from anybody.

A UDP socket needs no connection: every datagram is given its destination (`sendto`) and comes with its source. One
that is connected all the same sends to its peer alone, hears it alone, and is told when nobody listens there. One
send is one datagram, and one receive is one datagram: whole, or cut to the buffer and marked as cut.
"""

from __future__ import annotations

import argparse
import hashlib
import select
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from testbed.programs._cli import add_server_arguments, host_and_port, number, port, size_bytes, time_ns
from testbed.programs._errors import doing, error_name
from testbed.programs._life import run
from testbed.programs._sending import pattern
from testbed.programs._serving import receive_until_sigterm
from testbed.programs._sockets import server_socket

LARGEST_SIZE = 65535  # what the length field of UDP can say; IPv4 carries 65,507 bytes of payload
IP_MTU_DISCOVER, IP_PMTUDISC_DO = 10, 2  # include/uapi/linux/in.h, ip(7); Python 3.11 has no names for them


class Messages:
    """Datagrams in their order: each one's size, and one SHA-256 over all sizes and contents."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self._sha256 = hashlib.sha256()

    def add(self, data: bytes) -> None:
        self.sizes.append(len(data))
        self._sha256.update(struct.pack("!I", len(data)) + data)  # the size too: a boundary elsewhere is seen

    def digest(self) -> str:
        return self._sha256.hexdigest()


class Receiver:
    """Takes datagrams into a buffer of that size. What does not fit is gone, and MSG_TRUNC says so."""

    def __init__(self, buffer_bytes: int) -> None:
        self.buffer_bytes = buffer_bytes
        self.messages = Messages()
        self.truncated = 0
        self.peers: set[Any] = set()

    def serve(self, sock: socket.socket) -> None:
        """Until SIGTERM, and then what is still in the socket. Raises Failed.

        An empty datagram is a message like others, and not the end.
        """
        receive_until_sigterm(sock, lambda: self.receive(sock))

    def receive(self, sock: socket.socket) -> None:
        data, _, flags, peer = sock.recvmsg(self.buffer_bytes, 0, socket.MSG_DONTWAIT)
        self.messages.add(data)
        self.truncated += bool(flags & socket.MSG_TRUNC)
        self.peers.add(peer)

    def records(self) -> Iterator[dict[str, Any]]:
        yield from ({"message_bytes": size} for size in self.messages.sizes)
        yield {
            "received": len(self.messages.sizes),
            "truncated": self.truncated,
            "payload_bytes": sum(self.messages.sizes),
            "peers": len(self.peers),
            "digest": self.messages.digest(),
        }


class Sender:
    """Sends from one socket and hears what comes back to it, from whomever, errors too."""

    def __init__(self) -> None:
        self.messages = Messages()
        self.unsent = self.received = 0
        self.peers: set[Any] = set()
        self.errors: Counter[str] = Counter()

    def send(self, sock: socket.socket, data: bytes, to: tuple[Any, ...] | None) -> None:
        """`to` is None on a connected socket. It may get the error of an earlier datagram in place of sending."""
        try:
            if to is None:
                sock.send(data)
            else:
                sock.sendto(data, to)
        except OSError as problem:
            self.unsent += 1
            self.errors[error_name(problem)] += 1
        else:
            self.messages.add(data)

    def hear_until(self, deadline_ns: int, sock: socket.socket) -> None:
        """Only a connected socket is told of an ICMP error (net/ipv4/udp.c); IP_RECVERR, ip(7), is for others."""
        while select.select([sock], [], [], max(0, deadline_ns - time.monotonic_ns()) / 1e9)[0]:
            try:
                _, peer = sock.recvfrom(LARGEST_SIZE, socket.MSG_DONTWAIT)
                self.received += 1
                self.peers.add(peer)
            except BlockingIOError:  # select(2), BUGS
                continue
            except OSError as problem:
                self.errors[error_name(problem)] += 1

    def records(self) -> Iterator[dict[str, Any]]:
        yield from ({"error": name} for name in self.errors)
        yield {
            "sent": len(self.messages.sizes),
            "unsent": self.unsent,
            "payload_bytes": sum(self.messages.sizes),
            "received": self.received,
            "peers": len(self.peers),
            "errors": self.errors.total(),
            "digest": self.messages.digest(),
        }


# ---------------------------------------------------------------- the command line


def main(argv: list[str] | None = None) -> int:
    """The command `message`. Returns the exit status: 0 done, 1 a socket error; wrong arguments exit with 2."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.mode == "receive":
        receiver = Receiver(arguments.buffer)
        return run("message receive", lambda: _receive(receiver, arguments), receiver.records)
    if arguments.connect and len(arguments.to) > 1:
        parser.error("--connect takes one HOST:PORT: a socket has one peer at a time")
    sender = Sender()
    return run("message send", lambda: _send(sender, arguments), sender.records)


def _receive(receiver: Receiver, arguments: argparse.Namespace) -> None:
    with server_socket(socket.SOCK_DGRAM, arguments.bind, arguments.port) as sock:
        if arguments.peer is not None:
            host, its_port = arguments.peer
            with doing(f"connecting to {host} port {its_port}"):  # sends nothing; what others sent before stays
                sock.connect((host, its_port))
        receiver.serve(sock)


def _send(sender: Sender, arguments: argparse.Namespace) -> None:
    addresses = []
    for host, its_port in arguments.to:
        with doing(f"looking up {host}"):
            family, _, _, _, address = socket.getaddrinfo(host, its_port, type=socket.SOCK_DGRAM)[0]
        addresses.append(address)
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        if arguments.bind is not None or arguments.port:
            with doing(f"binding {arguments.bind or 'any address'} port {arguments.port}"):
                sock.bind((arguments.bind or "", arguments.port))
        if arguments.dont_fragment:
            sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
        if arguments.connect:
            with doing(f"connecting to {host} port {its_port}"):
                sock.connect(addresses[0])
        n = 0
        for _ in range(arguments.count):
            for size in arguments.sizes:
                for address in addresses:
                    sender.send(sock, pattern(n, size), None if arguments.connect else address)
                n += 1
                sender.hear_until(time.monotonic_ns() + arguments.interval, sock)
        sender.hear_until(time.monotonic_ns() + arguments.timeout, sock)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="message", description="UDP sockets: messages to and from anybody.")
    modes = parser.add_subparsers(dest="mode", required=True, metavar="receive|send")

    receive = modes.add_parser("receive", help="take every datagram that comes, until SIGTERM")
    add_server_arguments(receive)
    receive.add_argument(
        "--buffer", type=_buffer_size, default=LARGEST_SIZE, metavar="SIZE", help="of one receive; default 65535B"
    )
    receive.add_argument(
        "--peer", type=host_and_port, metavar="HOST:PORT", help="connect the socket to it, and so hear nobody else"
    )

    send = modes.add_parser("send", help="send messages from one socket, and hear what comes back to it")
    send.add_argument("to", type=host_and_port, nargs="+", metavar="HOST:PORT", help="every message goes to each")
    send.add_argument(
        "--sizes", type=_sizes, default=[64], metavar="SIZE,...", help="one message each; default 64B"
    )
    send.add_argument("--count", type=number, default=1, metavar="N", help="how often, all of them; default 1")
    send.add_argument("--interval", type=time_ns, default=0, metavar="TIME", help="after each; default: none")
    send.add_argument(
        "--timeout", type=time_ns, default=5 * 10**8, metavar="TIME", help="to listen on; default 500ms"
    )
    send.add_argument("--bind", metavar="IP", help="the address to send from")
    send.add_argument("--port", type=port, default=0, metavar="N", help="the port to send from; default: any")
    send.add_argument("--connect", action="store_true", help="connect the socket to HOST:PORT first")
    send.add_argument("--dont-fragment", action="store_true", help="refuse what is larger than the MTU")
    return parser


def _sizes(text: str) -> list[int]:
    sizes = [size_bytes(part) for part in text.split(",")]
    if max(sizes) > LARGEST_SIZE:
        raise argparse.ArgumentTypeError(f"{text!r} has more than {LARGEST_SIZE}B")
    return sizes


def _buffer_size(text: str) -> int:
    size = size_bytes(text)
    if not size:
        raise argparse.ArgumentTypeError(f"{text!r} holds nothing")
    return size


if __name__ == "__main__":
    sys.exit(main())
