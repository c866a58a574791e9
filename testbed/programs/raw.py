"""Raw sockets: packets of a protocol of one's own, straight over IP.

RFC 3692 leaves the protocol numbers 253 and 254 to whoever experiments. A packet has no port: every raw socket
on the host that asked for its protocol gets a copy. Over IPv4 what arrives begins with the IP header, and the
sender may write that header too (IP_HDRINCL). Over IPv6 no header arrives, and the kernel can do a checksum
(IPV6_CHECKSUM). Raw sockets need the capability NET_RAW. See raw(7), ipv6(7), and RFC 3542, section 3.
"""

from __future__ import annotations

import argparse
import socket
import struct
import sys
import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import Any

from testbed.programs._cli import number, size_bytes, time_ns, within
from testbed.programs._errors import doing, opening
from testbed.programs._life import run
from testbed.programs._sending import pattern, sleep_until
from testbed.programs._serving import receive_until_sigterm
from testbed.programs._sockets import IP_VERSION, enlarge_receive_buffer, look_up

IPV4_HEADER = struct.Struct("!BBHHHBBH4s4s")  # RFC 791, section 3.1


def raw_socket(of: str, protocol: int, checksum_offset: int | None) -> tuple[socket.socket, tuple[Any, ...]]:
    """A raw socket of the family of that host or address, and the address. Raises Failed: EPERM without NET_RAW.

    With an offset into the payload, the kernel fills in the checksum there when it sends, and drops what has a
    wrong one there when it receives: over IPv6 only.
    """
    family, address = look_up(of, None, socket.SOCK_RAW)
    version = IP_VERSION[family]
    with opening(f"a raw {version} socket", f"raw {version} sockets"):
        sock = socket.socket(family, socket.SOCK_RAW, protocol)
    if checksum_offset is not None:
        with doing(f"asking the kernel for a checksum at {checksum_offset}"):
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_CHECKSUM, checksum_offset)
    return sock, address


def ipv4_header(source: IPv4Address, target: IPv4Address, protocol: int, ttl: int, identification: int) -> bytes:
    """The kernel fills in the checksum and the length, and the source and the identification if these are 0."""
    first = 4 << 4 | IPV4_HEADER.size // 4  # the version, and the header's length in words of four bytes
    rest = ttl, protocol, 0, source.packed, target.packed
    return IPV4_HEADER.pack(first, 0, 0, identification, 0, *rest)


class Receiver:
    """Takes every packet of one protocol that comes to the host. One call of recvmsg is one packet."""

    def __init__(self, checksum_offset: int | None = None) -> None:
        self.checksum = slice(0, 0) if checksum_offset is None else slice(checksum_offset, checksum_offset + 2)
        self.packets: list[dict[str, Any]] = []
        self.truncated = self.corrupted = self.payload_bytes = 0

    def work(self, arguments: argparse.Namespace) -> None:
        """Until SIGTERM, and then what is still in the socket. With `late`, nothing before. Raises Failed."""
        sock, address = raw_socket(arguments.bind, arguments.protocol, arguments.checksum)
        with sock:
            with doing(f"binding {arguments.bind}"):
                sock.bind(address)
            enlarge_receive_buffer(sock)
            receive_until_sigterm(sock, lambda: self._take(sock, arguments.buffer), arguments.late)

    def _take(self, sock: socket.socket, buffer_bytes: int) -> None:
        packet, _, flags, source = sock.recvmsg(buffer_bytes, 0, socket.MSG_DONTWAIT)
        self.arrived(sock.family, packet, bool(flags & socket.MSG_TRUNC), source[0])

    def arrived(self, family: int, packet: bytes, truncated: bool, source: str) -> None:
        record: dict[str, Any] = {"packet_bytes": len(packet), "header_bytes": 0, "source": source}
        if family == socket.AF_INET:
            record["header_bytes"] = 4 * (packet[0] & 15)
            record |= {"identification": int.from_bytes(packet[4:6]), "time_to_live": packet[8]}
        payload = packet[record["header_bytes"] :]
        self.packets.append(record)
        self.payload_bytes += len(payload)
        self.truncated += truncated
        sent = bytearray(pattern(payload[0] if payload else 0, len(payload)))
        sent[self.checksum] = payload[self.checksum]  # what the kernel wrote there, and has checked
        self.corrupted += payload != sent

    def records(self) -> Iterator[dict[str, Any]]:
        yield from self.packets
        yield {
            "received": len(self.packets),
            "payload_bytes": self.payload_bytes,
            "truncated": self.truncated,
            "corrupted": self.corrupted,
        }


class Sender:
    """Sends packets of one protocol. Whether any arrives it does not learn."""

    def __init__(self) -> None:
        self.sent = self.payload_bytes = 0

    def work(self, sock: socket.socket, address: tuple[Any, ...], arguments: argparse.Namespace) -> None:
        """Raises Failed."""
        header = b""
        if arguments.own_header:
            with doing("asking the kernel to let us write the IP header"):
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_HDRINCL, 1)
            own = arguments.protocol, arguments.time_to_live, arguments.identification
            header = ipv4_header(arguments.source, IPv4Address(address[0]), *own)
        start_ns = time.monotonic_ns()
        for n in range(arguments.count):
            sleep_until(start_ns + n * arguments.interval)
            with doing(f"sending packet {n}"):
                sock.sendto(header + pattern(n, arguments.size), address)
            self.sent += 1
            self.payload_bytes += arguments.size

    def records(self) -> Iterator[dict[str, Any]]:
        yield {"sent": self.sent, "payload_bytes": self.payload_bytes}


def main(argv: list[str] | None = None) -> int:
    """The command `raw`. Returns the exit status: 0 done, 1 a socket error; wrong arguments exit with 2."""
    arguments = _parser().parse_args(argv)
    if arguments.mode == "send":
        sender = Sender()

        def send() -> None:
            sock, address = raw_socket(arguments.to, arguments.protocol, arguments.checksum)
            with sock:
                sender.work(sock, address, arguments)

        return run("raw send", send, sender.records)
    receiver = Receiver(arguments.checksum)
    return run("raw receive", lambda: receiver.work(arguments), receiver.records)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="raw", description="Raw sockets: a protocol of one's own over IP.")
    modes = parser.add_subparsers(dest="mode", required=True, metavar="receive|send")
    octet, number16, chosen = within(number, 1, 255), within(number, 0, 65535), IPv4Address(0)

    receive = modes.add_parser("receive", help="take every packet of a protocol, until SIGTERM")
    receive.add_argument("--bind", default="0.0.0.0", metavar="IP", help="default: every IPv4 address")
    buffer = within(size_bytes, IPV4_HEADER.size, 65536)
    receive.add_argument("--buffer", type=buffer, default=65536, metavar="SIZE", help="of one receive")
    receive.add_argument("--late", action="store_true", help="let all packets wait until SIGTERM")

    send = modes.add_parser("send", help="send packets of a protocol")
    send.add_argument("to", metavar="HOST")
    send.add_argument("--count", type=number, required=True, metavar="N", help="how many to send")
    size = within(size_bytes, 0, 65535 - IPV4_HEADER.size)
    send.add_argument("--size", type=size, default=64, metavar="SIZE", help="of the payload; default 64B")
    send.add_argument("--interval", type=time_ns, default=0, metavar="TIME", help="between two; default: none")
    send.add_argument("--own-header", action="store_true", help="write the IPv4 header, with these three:")
    send.add_argument("--source", type=IPv4Address, default=chosen, metavar="IP", help="default: the kernel's")
    send.add_argument("--time-to-live", type=octet, default=64, metavar="N", help="default 64")
    send.add_argument("--identification", type=number16, default=0, metavar="N", help="default: the kernel's")
    for mode in (receive, send):
        mode.add_argument("--protocol", type=octet, required=True, metavar="N", help="as in 253 and 254")
        mode.add_argument("--checksum", type=number16, metavar="OFFSET", help="the kernel does it; IPv6 only")
    return parser


if __name__ == "__main__":
    sys.exit(main())
