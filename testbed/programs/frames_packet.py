"""What `frames` reads out of an IP packet: protocol, ports, flags, how much payload, whole or a fragment."""

from __future__ import annotations

import struct
from dataclasses import dataclass

ETH_P_IP, ETH_P_IPV6 = 0x0800, 0x86DD  # include/uapi/linux/if_ether.h
PROTOCOLS = {"icmp": 1, "tcp": 6, "udp": 17, "icmp6": 58}
NAMES = {number: name for name, number in PROTOCOLS.items()}
WITH_PORTS = (6, 17, 33, 132, 136)  # TCP, UDP, DCCP, SCTP, UDP-Lite: all begin with the two ports
HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION = 0, 43, 44, 60  # RFC 8200, section 4
NEIGHBOURS_AND_MEMBERS = (*range(130, 138), 143)  # ICMPv6: discovery and MLD, which IPv6 cannot do without
FLAGS = ("FIN", "SYN", "RST", "PSH", "ACK", "URG")  # from the lowest bit (RFC 9293, section 3.1)


@dataclass(frozen=True)
class Packet:
    """One IP packet. `fragment_offset` is in bytes; None: it is whole."""

    protocol: int
    payload_bytes: int  # behind the transport header, or behind IP's where that is unknown
    ports: tuple[int, int] | None = None  # source, destination
    flags: str | None = None
    fragment_offset: int | None = None

    @property
    def name(self) -> str:
        return NAMES.get(self.protocol, str(self.protocol))


def parse(ethertype: int, data: bytes) -> Packet | None:
    """A packet from its IP header on. None: it is no IP, or cut short, or ICMPv6's own housekeeping."""
    try:
        if ethertype == ETH_P_IP:
            length, fragment, protocol = struct.unpack_from("!H2xHxB", data, 2)
            more, offset = fragment & 0x2000, (fragment & 0x1FFF) * 8
            return _transport(protocol, data[(data[0] & 15) * 4 : length], offset if more or offset else None)
        if ethertype == ETH_P_IPV6:
            length, protocol = struct.unpack_from("!HB", data, 4)
            return _behind_extensions(protocol, data[40 : 40 + length])
    except (struct.error, IndexError):
        pass
    return None


def _behind_extensions(protocol: int, rest: bytes) -> Packet | None:
    offset = None
    while protocol in (HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION):
        if protocol == FRAGMENT:
            offset = struct.unpack_from("!H", rest, 2)[0] & 0xFFF8
        protocol, rest = rest[0], rest[8 if protocol == FRAGMENT else 8 + 8 * rest[1] :]
    if protocol == PROTOCOLS["icmp6"] and not offset and rest[0] in NEIGHBOURS_AND_MEMBERS:
        return None
    return _transport(protocol, rest, offset)


def _transport(protocol: int, rest: bytes, offset: int | None) -> Packet:
    """What follows IP. Only the first fragment of a packet has a transport header, and with it ports."""
    if offset:
        return Packet(protocol, len(rest), fragment_offset=offset)
    ports = struct.unpack_from("!HH", rest) if protocol in WITH_PORTS else None
    flags, header = None, 0
    if protocol == PROTOCOLS["tcp"]:
        header = (rest[12] >> 4) * 4
        names = [name for bit, name in enumerate(FLAGS) if rest[13] >> bit & 1]
        flags = "+".join(names) or "none"
    elif protocol in (PROTOCOLS["udp"], PROTOCOLS["icmp"]):
        header = 8
    return Packet(protocol, len(rest) - header, ports, flags, offset)
