"""ICMP: an echo request written by hand, over a raw socket, and what comes back.

The peer is any host: its kernel answers. ICMP knows no ports. What tells one asker's echoes from another's is an
identifier in the message, and since a raw socket gets a copy of every ICMP message that comes to the host, the
asker itself has to look at it. Raw sockets need the capability NET_RAW (raw(7)).
"""

from __future__ import annotations

import argparse
import os
import socket
import struct
import sys
import time
from collections.abc import Iterator
from typing import Any

from testbed.programs._cli import number, size_bytes, time_ns
from testbed.programs._errors import doing, opening
from testbed.programs._life import run
from testbed.programs._sending import pattern
from testbed.programs._sockets import IP_VERSION, look_up, readable_by

HEADER = struct.Struct("!BBHHH")  # type, code, checksum, identifier, sequence number: RFC 792, RFC 4443 section 4
LARGEST_PAYLOAD = 65507  # 65,535 less the IPv4 and ICMP headers
MOST = 1 << 16
PROTOCOL = {socket.AF_INET: socket.IPPROTO_ICMP, socket.AF_INET6: socket.IPPROTO_ICMPV6}
REQUEST = {socket.AF_INET: 8, socket.AF_INET6: 128}  # the type of an echo request
REPLY = {socket.AF_INET: 0, socket.AF_INET6: 129}


def checksum(data: bytes) -> int:
    """The Internet checksum, RFC 1071. It is 0 of what already holds its right checksum."""
    data += b"\0" * (len(data) % 2)
    total = sum(int.from_bytes(data[i : i + 2]) for i in range(0, len(data), 2))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


class Echo:
    """What was asked and what came back. It knows no socket and no clock."""

    family = socket.AF_INET

    def __init__(self, identifier: int, size: int, wrong_checksum: bool = False) -> None:
        self.identifier, self.size, self.wrong = identifier, size, wrong_checksum
        self.sent_ns: list[int] = []
        self.delays_ns: dict[int, int] = {}  # by sequence number
        self.header_bytes: int | None = None
        self.corrupted = 0

    def request(self, sequence: int, now_ns: int) -> bytes:
        """The message, without an IP header: the kernel writes that one. Booked as sent."""
        self.sent_ns.append(now_ns)
        payload = pattern(sequence, self.size)
        unchecked = HEADER.pack(REQUEST[self.family], 0, 0, self.identifier, sequence) + payload
        if self.family == socket.AF_INET6:
            return unchecked  # the kernel fills the checksum in, always (RFC 3542, section 3.1)
        return unchecked[:2] + struct.pack("!H", checksum(unchecked) ^ self.wrong) + unchecked[4:]

    def arrived(self, packet: bytes, now_ns: int) -> None:
        """Book a packet if it is a reply to us. Over IPv4 it begins with its IP header, over IPv6 it has none."""
        start = 4 * (packet[0] & 15) if self.family == socket.AF_INET else 0
        message = packet[start:]
        if len(message) < HEADER.size:
            return
        kind, _, _, identifier, sequence = HEADER.unpack_from(message)
        if kind != REPLY[self.family] or identifier != self.identifier or sequence >= len(self.sent_ns):
            return  # another's: the socket gets them all
        if message[HEADER.size :] != pattern(sequence, self.size):
            self.corrupted += 1
            return
        self.header_bytes = start
        self.delays_ns.setdefault(sequence, now_ns - self.sent_ns[sequence])

    def records(self) -> Iterator[dict[str, Any]]:
        yield from ({"round_trip_delay_ms": delay_ns / 1e6} for delay_ns in self.delays_ns.values())
        sent, received = len(self.sent_ns), len(self.delays_ns)
        summary: dict[str, Any] = {
            "sent": sent,
            "received": received,
            "lost": sent - received,
            "corrupted": self.corrupted,
        }
        if sent:
            summary["loss_ratio"] = {"count": sent - received, "of": sent}
        if self.header_bytes is not None:
            summary["header_bytes"] = self.header_bytes
        yield summary


def ask(sock: socket.socket, book: Echo, count: int, interval_ns: int, timeout_ns: int) -> None:
    """Send `count` requests at a steady pace over a connected raw socket, book the replies, wait for the last."""
    start_ns = time.monotonic_ns()
    for n in range(count):
        while readable_by(start_ns + n * interval_ns, sock):
            _receive(sock, book)
        with doing(f"sending echo request {n}"):
            sock.send(book.request(n, time.monotonic_ns()))
    deadline_ns = time.monotonic_ns() + timeout_ns
    while len(book.delays_ns) < count and readable_by(deadline_ns, sock):
        _receive(sock, book)


def _receive(sock: socket.socket, book: Echo) -> None:
    with doing("receiving"):
        packet = sock.recv(65536)
    book.arrived(packet, time.monotonic_ns())


def main(argv: list[str] | None = None) -> int:
    """The command `icmp`. Returns the exit status: 0 done, 1 a socket error; wrong arguments exit with 2."""
    arguments = _parser().parse_args(argv)
    book = Echo(os.getpid() & 0xFFFF, arguments.size, arguments.wrong_checksum)

    def work() -> None:
        family, address = look_up(arguments.to, None, socket.SOCK_RAW)
        version = IP_VERSION[family]
        with opening(f"a raw {version} socket", f"raw {version} sockets"):
            sock = socket.socket(family, socket.SOCK_RAW, PROTOCOL[family])
        with sock:
            if arguments.bind:
                with doing(f"binding {arguments.bind}"):
                    sock.bind((arguments.bind, 0))
            with doing(f"connecting to {arguments.to}"):  # so that nobody else's packets come; nothing is sent
                sock.connect(address)
            book.family = family
            ask(sock, book, arguments.count, arguments.interval, arguments.timeout)

    return run("icmp echo-request", work, book.records)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="icmp", description="ICMP over a raw socket.")
    modes = parser.add_subparsers(dest="mode", required=True, metavar="echo-request")
    echo = modes.add_parser("echo-request", help="ask a host's kernel for echoes and count what comes back")
    echo.add_argument("to", metavar="HOST")
    echo.add_argument("--count", type=_count, required=True, metavar="N", help="how many")
    echo.add_argument("--interval", type=time_ns, default=10**7, metavar="TIME", help="between two; default 10ms")
    echo.add_argument("--size", type=_size, default=56, metavar="SIZE", help="of the payload; default 56B")
    echo.add_argument("--timeout", type=time_ns, default=10**9, metavar="TIME", help="after the last; default 1s")
    echo.add_argument("--bind", metavar="IP", help="the address to send from")
    echo.add_argument("--wrong-checksum", action="store_true", help="which over IPv4 makes the peer drop them")
    return parser


def _count(text: str) -> int:
    count = number(text)
    if count > MOST:
        raise argparse.ArgumentTypeError(f"{text!r} is more than the {MOST} that sequence numbers can tell apart")
    return count


def _size(text: str) -> int:
    size = size_bytes(text)
    if size > LARGEST_PAYLOAD:
        raise argparse.ArgumentTypeError(f"{text!r} is more than {LARGEST_PAYLOAD}B")
    return size


if __name__ == "__main__":
    sys.exit(main())
