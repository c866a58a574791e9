"""What is on the wire, as this host sees it: a packet socket that takes a copy of every IP packet (packet(7)).

It needs CAP_NET_RAW. A packet socket stands below IP, so it sees what other sockets never do: handshakes,
acknowledgements, each fragment, what is refused. A link's own interfaces (w0, lo) are left out, so that each
packet is seen once: one that leaves when the link lets it go, one that arrives when it is there. How a packet is
read is in `frames_packet`.
"""

from __future__ import annotations

import argparse
import socket
import struct
import sys
from collections.abc import Iterator
from typing import Any

from testbed.programs._cli import port
from testbed.programs._errors import Failed, doing, opening
from testbed.programs._life import run
from testbed.programs._serving import receive_until_sigterm
from testbed.programs.frames_packet import PROTOCOLS, Packet, parse

ETH_P_ALL = 0x0003  # include/uapi/linux/if_ether.h
PACKET_STATISTICS = 6  # include/uapi/linux/if_packet.h; reading it gives (packets, dropped)
SOL_PACKET = 263
NOT_THE_WIRE = ("lo", "w0")
RECEIVE_BUFFER_BYTES = 8 << 20
FIRST = 3  # so many packets are told in words


class Watch:
    """What was seen. `protocol` and `port`: nothing else counts; a later fragment, which has no port, does."""

    def __init__(self, protocol: int | None, port: int | None) -> None:
        self.protocol, self.port = protocol, port
        self.seen: list[tuple[str, Packet]] = []
        self.missed = 0

    def add(self, outgoing: bool, packet: Packet | None) -> None:
        if packet is None or self.protocol not in (None, packet.protocol):
            return
        if self.port is None or (packet.ports and self.port in packet.ports) or packet.fragment_offset:
            self.seen.append(("out" if outgoing else "in", packet))

    def records(self) -> Iterator[dict[str, Any]]:
        for direction, packet in self.seen:
            record: dict[str, Any] = {"direction": direction, "protocol": packet.name}
            if packet.ports:
                record["source_port"], record["destination_port"] = packet.ports
            if packet.flags:
                record["flags"] = packet.flags
            record["payload_bytes"] = packet.payload_bytes
            if packet.fragment_offset is not None:
                record["fragment_offset_bytes"] = packet.fragment_offset
            yield record
        packets = [packet for _, packet in self.seen]
        yield {
            "packets": len(packets),
            "protocols": ", ".join(sorted({packet.name for packet in packets})) or "none",
            "packets_in": sum(direction == "in" for direction, _ in self.seen),
            "packets_out": sum(direction == "out" for direction, _ in self.seen),
            "with_ports": sum(packet.ports is not None for packet in packets),
            "without_ports": sum(packet.ports is None for packet in packets),
            "later_fragments": sum(bool(packet.fragment_offset) for packet in packets),
            "begins": ", ".join(packet.flags or packet.name for packet in packets[:FIRST]) or "nothing",
            "missed": self.missed,
        }


def packet_socket(device: str | None) -> socket.socket:
    """A packet socket on that interface, or on all of them. Raises Failed, EPERM without NET_RAW.

    One that is for a single interface is opened for no protocol, and so takes nothing until `bind` says both what
    and where: else it would hold packets of other interfaces from before (packet(7)).
    """
    with opening("a packet socket", "packet sockets"):
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0 if device else socket.htons(ETH_P_ALL))
    try:
        with doing(f"watching {device or 'every interface'}"):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            if device:
                sock.bind((device, ETH_P_ALL))
    except Failed:
        sock.close()
        raise
    return sock


def watch(sock: socket.socket, book: Watch) -> None:
    """Never returns: SIGTERM ends it. `missed` are the packets that found no room in the socket."""
    try:
        receive_until_sigterm(sock, lambda: _book(*sock.recvfrom(1 << 16, socket.MSG_DONTWAIT), book))
    finally:
        book.missed = struct.unpack("@II", sock.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))[1]


def _book(data: bytes, address: tuple[Any, ...], book: Watch) -> None:
    device, ethertype, kind = address[:3]
    if device not in NOT_THE_WIRE and kind != socket.PACKET_OTHERHOST:
        book.add(kind == socket.PACKET_OUTGOING, parse(ethertype, data))


def main(argv: list[str] | None = None) -> int:
    """The command `frames`. Returns the exit status: 0 done, 1 a socket error; wrong arguments exit with 2."""
    arguments = _parser().parse_args(argv)
    book = Watch(arguments.protocol, arguments.port)

    def work() -> None:
        with packet_socket(arguments.device) as sock:
            watch(sock, book)

    return run("frames watch", work, book.records)


def _protocol(text: str) -> int:
    if text in PROTOCOLS:
        return PROTOCOLS[text]
    if text.isascii() and text.isdecimal() and int(text) < 256:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not {', '.join(PROTOCOLS)} or a number below 256")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="frames", description="What is on the wire, packet by packet.")
    modes = parser.add_subparsers(dest="mode", required=True, metavar="watch")
    watch = modes.add_parser("watch", help="look at every packet until SIGTERM; needs CAP_NET_RAW")
    watch.add_argument("--protocol", type=_protocol, metavar="NAME", help="tcp, udp, icmp, icmp6 or a number")
    watch.add_argument("--port", type=port, metavar="N", help="only what comes from it or goes to it")
    watch.add_argument("--device", metavar="NAME", help="one interface; default: all")
    return parser


if __name__ == "__main__":
    sys.exit(main())
