"""Which flow an Ethernet frame belongs to, and how that flow is called. Pure: bytes in, names out.

Packets are numbered within a flow, so that a second flow on the same link shifts nothing in the first. A flow is
a protocol and its ports in one direction of one pair. Ports that the kernel picks differ from run to run; their
order of first appearance does not, so the label holds that: "udp *1>9000" is the first sender from an
ephemeral port to port 9000 on this link.

What has no ports gets the plainest name that keeps kinds apart: "icmp error", "icmp echo *1" (by identifier),
"frag udp" (all later fragments of UDP datagrams; the first fragment has the ports and goes with its flow),
"ip 47", "ether 0x88cc". IPv6 has a 6: "udp6 *1>9000", "icmp6 error", "frag6 udp".
"""

from __future__ import annotations

EPHEMERAL = range(32768, 61000)  # `ip_local_port_range` of every host

_NAMES = {1: "icmp", 6: "tcp", 17: "udp", 33: "dccp", 58: "icmp6", 132: "sctp", 136: "udplite"}
_WITH_PORTS = frozenset((6, 17, 33, 132, 136))
_KINDS = {
    1: {0: "echo reply", 8: "echo", 3: "error", 4: "error", 5: "error", 11: "error", 12: "error"},
    58: {129: "echo reply", 128: "echo", 1: "error", 2: "error", 3: "error", 4: "error"},
}
_ERROR = 255  # stands for every kind of error: they are one flow
_SKIPPED_HEADERS = frozenset((0, 43, 51, 60))  # hop by hop, routing, authentication, destination options
_FRAGMENT_HEADER = 44

_PORTS4, _ICMP4, _FRAGMENT4, _OTHER4 = b"\x40", b"\x41", b"\x42", b"\x43"
_PORTS6, _ICMP6, _FRAGMENT6, _OTHER6 = b"\x60", b"\x61", b"\x62", b"\x63"
_PLAIN4 = b"\x08\x00\x45"  # IPv4 whose header has no options
_ETHER, _BROKEN4, _BROKEN6 = b"\x00", b"\x4f", b"\x6f"


def raw_key(frame: bytes) -> bytes:
    """What tells one flow from another in the frame's own numbers: a kind, the protocol, the ports.

    Never raises: a frame too short for what its header promises gets a key of its own kind.
    """
    plain = len(frame) >= 38 and frame[12:15] == _PLAIN4 and frame[23] in _WITH_PORTS
    if plain and not (frame[20] & 0x1F or frame[21]):
        return _PORTS4 + frame[23:24] + frame[34:38]  # nearly every frame, so without the detours below
    kind = frame[12:14]
    if kind == b"\x08\x00":
        if len(frame) < 34:
            return _BROKEN4
        start = 14 + 4 * (frame[14] & 15)
        if frame[20] & 0x1F or frame[21]:
            return _FRAGMENT4 + frame[23:24]
        return _transport(frame, frame[23], start, 1, (_PORTS4, _ICMP4, _OTHER4))
    if kind == b"\x86\xdd":
        return _key6(frame)
    return _ETHER + kind


def _transport(frame: bytes, protocol: int, start: int, icmp: int, families: tuple[bytes, bytes, bytes]) -> bytes:
    """`protocol` has its header at `start`; `icmp` is the number that means ICMP under this version of IP."""
    ports, errands, other = families
    if protocol in _WITH_PORTS and len(frame) >= start + 4:
        return ports + bytes((protocol,)) + frame[start : start + 4]
    if protocol == icmp and len(frame) >= start + 8:
        kind = frame[start]
        word = _KINDS[icmp].get(kind, "")
        identifier = frame[start + 4 : start + 6] if word.startswith("echo") else b""
        return errands + bytes((protocol, _ERROR if word == "error" else kind)) + identifier
    return other + bytes((protocol,))


def _key6(frame: bytes) -> bytes:
    if len(frame) < 54:
        return _BROKEN6
    header, at = frame[20], 54
    while header in _SKIPPED_HEADERS or header == _FRAGMENT_HEADER:
        if len(frame) < at + 8:
            return _BROKEN6
        following, words = frame[at], frame[at + 1]
        if header == _FRAGMENT_HEADER:
            if frame[at + 2] or frame[at + 3] & 0xF8:
                return _FRAGMENT6 + bytes((following,))
            words = 0
        at += 4 * (words + 2) if header == 51 else 8 * (words + 1)
        header = following
    return _transport(frame, header, at, 58, (_PORTS6, _ICMP6, _OTHER6))


class Labels:
    """The names of one link's flows, by order of first appearance. Ask once for each new key, then keep it."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}

    def label(self, key: bytes) -> str:
        """The label of a flow whose `raw_key` was not seen on this link before."""
        family, name = key[:1], _name(key)
        if family in (_PORTS4, _PORTS6):
            source, target = int.from_bytes(key[2:4], "big"), int.from_bytes(key[4:6], "big")
            return self._ports(name, source, target)
        if family in (_ICMP4, _ICMP6) and len(key) == 5:
            return f"{name} *{self._order(name)}"
        return name

    def _ports(self, name: str, source: int, target: int) -> str:
        """An ephemeral port becomes * and its order among flows with the same protocol and other port."""
        if source in EPHEMERAL:
            other = "*" if target in EPHEMERAL else str(target)
            return f"{name} *{self._order(f'{name} *>{other}')}>{other}"
        if target in EPHEMERAL:
            return f"{name} {source}>*{self._order(f'{name} {source}>*')}"
        return f"{name} {source}>{target}"

    def _order(self, among: str) -> int:
        self._seen[among] = order = self._seen.get(among, 0) + 1
        return order


def _name(key: bytes) -> str:
    family, six = key[:1], "6" if key[0] >= 0x60 else ""
    if family == _ETHER:
        return f"ether 0x{key[1:].hex()}"
    if family in (_BROKEN4, _BROKEN6):
        return f"ip{six} broken"
    protocol = _NAMES.get(key[1])
    if family in (_FRAGMENT4, _FRAGMENT6):
        return f"frag{six} {protocol or key[1]}"
    if family in (_OTHER4, _OTHER6):
        return f"ip{six} {key[1]}"
    if family in (_ICMP4, _ICMP6):
        word = "error" if key[2] == _ERROR else _KINDS[key[1]].get(key[2], str(key[2]))
        return f"{protocol} {word}"
    return f"{protocol}{six}"
