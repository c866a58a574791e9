"""Datagrams of the Network Systems family, IDP, with headers of one's own: a server that echoes and a client.

What a raw socket of the Internet family lets a program do with the header of IP, 4.3BSD's idp(4) let it do with
that of IDP. The socket is in `ns.sockets`; both ends need the capability NET_RAW.
"""

from __future__ import annotations

import argparse
import itertools
import socket
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from testbed.programs._cli import host_and_port, listed, number, port, size_bytes, time_ns, within
from testbed.programs._errors import doing
from testbed.programs._life import run
from testbed.programs._ns import opened, server_socket, talking
from testbed.programs._sending import pattern
from testbed.programs._serving import receive_until_sigterm
from testbed.programs.ns.packets import IDP_BYTES, LARGEST_DATAGRAM, SEQUENCED_PACKET, Idp
from testbed.programs.ns.sockets import IdpSocket

_byte = within(number, 0, 255)


class Headers:
    """The headers that came, as samples."""

    def __init__(self) -> None:
        self.seen: list[Idp] = []

    def records(self) -> Iterator[dict[str, Any]]:
        for header in self.seen:
            yield {"packet_type": header.packet_type, "transport_control": header.transport_control}


class Echo:
    """Every datagram goes back to where it came from, under its own header with the two ends changed over."""

    def __init__(self, plain: bool = False) -> None:
        self.plain, self.headers = plain, Headers()
        self.received = self.payload_bytes = 0

    def work(self, arguments: argparse.Namespace) -> None:
        """Until SIGTERM, and then what is still in the socket. Raises Failed."""
        with server_socket(IdpSocket, arguments) as sock:
            receive_until_sigterm(sock.raw, lambda: self.answer(sock))

    def answer(self, sock: IdpSocket) -> None:
        data, peer = sock.recvfrom(socket.MSG_DONTWAIT)
        answer = data
        if not self.plain:
            header, data = Idp.unpack(data), data[IDP_BYTES:]
            self.headers.seen.append(header)
            answer = replace(header, destination=header.source, source=header.destination).pack() + data
        self.received += 1
        self.payload_bytes += len(data)
        with doing("answering"):
            sock.sendto(answer, peer)

    def records(self) -> Iterator[dict[str, Any]]:
        yield from self.headers.records()
        yield {"received": self.received, "payload_bytes": self.payload_bytes}


class Send:
    """One datagram at a time: the next leaves when the last has come back, or is given up."""

    def __init__(self) -> None:
        self.headers = Headers()
        self.sent = self.received = self.corrupted = 0

    def work(self, arguments: argparse.Namespace) -> None:
        sock = opened(IdpSocket)
        with talking(sock, Idp, arguments) as peer:
            types = itertools.cycle(arguments.write_types or [0])
            for n in range(arguments.count):
                data = pattern(n, arguments.size)
                header = b""
                if arguments.write_types is not None:  # all of it is ours, but for length and checksum
                    prototype = sock.header_to(peer, next(types))
                    header = replace(prototype, transport_control=arguments.transport_control).pack()
                sock.sendto(header + data, peer)
                self.sent += 1
                self._answer(sock, data, arguments.read_headers)

    def _answer(self, sock: IdpSocket, data: bytes, with_header: bool) -> None:
        try:
            answer, _ = sock.recvfrom()
        except TimeoutError:  # lost, which is what a datagram may be
            return
        if with_header:
            self.headers.seen.append(Idp.unpack(answer))
            answer = answer[IDP_BYTES:]
        if answer == data:
            self.received += 1
        else:
            self.corrupted += 1

    def records(self) -> Iterator[dict[str, Any]]:
        yield from self.headers.records()
        lost = self.sent - self.received - self.corrupted
        yield {"sent": self.sent, "received": self.received, "corrupted": self.corrupted, "lost": lost}


def main(argv: list[str] | None = None) -> int:
    """The command `idp`. Returns the exit status: 0 done, 1 a socket error; wrong arguments exit with 2."""
    arguments = _parser().parse_args(argv)
    if arguments.mode == "echo":
        echo = Echo(arguments.plain)
        return run("idp echo", lambda: echo.work(arguments), echo.records)
    send = Send()
    return run("idp send", lambda: send.work(arguments), send.records)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="idp", description="IDP datagrams with headers of one's own.")
    modes = parser.add_subparsers(dest="mode", required=True, metavar="echo|send")
    echo = modes.add_parser("echo", help="send every datagram back under its own header, until SIGTERM")
    echo.add_argument("--port", type=port, required=True, metavar="N", help="the NS socket number; 0: any")
    echo.add_argument("--plain", action="store_true", help="ask for no headers and write none")
    send = modes.add_parser("send", help="send datagrams to `idp echo` and count what comes back")
    send.add_argument("to", type=host_and_port, metavar="HOST:PORT")
    send.add_argument("--count", type=number, required=True, metavar="N", help="how many")
    send.add_argument("--size", type=_size, default=64, metavar="SIZE", help="of each; default 64B")
    types = send.add_mutually_exclusive_group()
    types.add_argument("--default-type", type=_type, metavar="N", help="the packet type: SO_DEFAULT_HEADERS")
    types.add_argument(
        "--write-types", type=listed(_type), metavar="N,...", help="in turn, one with each: SO_HEADERS_ON_OUTPUT"
    )
    send.add_argument(
        "--transport-control", type=_byte, default=0, metavar="N", help="in a written header; default 0"
    )
    send.add_argument("--read-headers", action="store_true", help="of what comes back: SO_HEADERS_ON_INPUT")
    send.add_argument("--timeout", type=time_ns, default=10**9, metavar="TIME", help="for each; default 1s")
    for mode in (echo, send):
        mode.add_argument("--bind", default="0.0.0.0", metavar="IP", help="default: every IPv4 address")
    return parser


def _size(text: str) -> int:
    if size_bytes(text) > LARGEST_DATAGRAM:
        raise argparse.ArgumentTypeError(f"{text!r} is more than {LARGEST_DATAGRAM}B")
    return size_bytes(text)


def _type(text: str) -> int:
    if _byte(text) == SEQUENCED_PACKET:
        raise argparse.ArgumentTypeError(f"packets of type {SEQUENCED_PACKET} are SPP's")
    return _byte(text)


if __name__ == "__main__":
    sys.exit(main())
