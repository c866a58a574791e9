"""The classic BPF programs of the filters: assembled, written as `tc` wants them, and run on paper.

Pure: nothing here touches a kernel. Classic and not extended BPF, because an ordinary user's namespace may load it
(net/sched/cls_bpf.c); opcodes and ancillary loads are those of linux/filter.h.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Instruction(NamedTuple):
    code: int
    jt: int
    jf: int
    k: int


Program = tuple[Instruction, ...]

LD_WORD, LD_HALF, LD_BYTE = 0x20, 0x28, 0x30  # A = what lies at the absolute offset k of the frame
JA, JEQ, JGT, JGE, JSET, RET = 0x05, 0x15, 0x25, 0x35, 0x45, 0x06
PACKET_TYPE = 0xFFFFF004  # SKF_AD_OFF + SKF_AD_PKTTYPE

PACKET_HOST, PACKET_OTHERHOST = 0, 3  # of a frame on its way out: our own, and one that the wire gave back
PACKET_OUTGOING = 4  # for packet sockets: one that leaves
MATCH, NO_MATCH = 0xFFFFFFFF, 0
SHOT = 2  # TC_ACT_SHOT, what a direct-action filter returns to drop
MAX_INSTRUCTIONS = 2000  # `tc` 6.1 builds its message in 16 KiB, at 8 bytes an instruction

_ARP, _IPV4, _IPV6 = 0x0806, 0x0800, 0x86DD
_IGMP, _ICMPV6, _HOP_BY_HOP = 2, 58, 0
_NEIGHBOUR_FIRST, _NEIGHBOUR_LAST = 133, 137  # router and neighbour discovery, redirect
_MLD = (130, 131, 132, 143)
_FRAGMENT, _IS_FRAGMENT = 44, 0x3FFF  # the next header of IPv6; offset and "more follow" of IPv4
_FOR_BRIDGES = 0x0180C200  # 01:80:c2:00:00:00 to 0f: no bridge forwards these (IEEE 802.1D, 7.12.6)

DROP_ALL: Program = (Instruction(RET, 0, 0, SHOT),)


class _Assembler:
    """Instructions with names for the places that they jump to, forwards only, as the kernel demands."""

    def __init__(self) -> None:
        self._lines: list[tuple[int, str | None, str | None, int]] = []
        self._labels: dict[str, int] = {}

    def load(self, code: int, offset: int) -> None:
        self._lines.append((code, None, None, offset))

    def jump(self, code: int, k: int, yes: str | None = None, no: str | None = None) -> None:
        """None is the next instruction."""
        self._lines.append((code, yes, no, k))

    def skip_to(self, label: str) -> None:
        """Any distance, where a conditional jump reaches 255 instructions."""
        self._lines.append((JA, label, None, 0))

    def give(self, value: int) -> None:
        self._lines.append((RET, None, None, value))

    def label(self, name: str) -> None:
        self._labels[name] = len(self._lines)

    def program(self) -> Program:
        def distance(here: int, label: str | None) -> int:
            return 0 if label is None else self._labels[label] - here - 1

        done = []
        for here, (code, yes, no, k) in enumerate(self._lines):
            if code == JA:
                done.append(Instruction(JA, 0, 0, distance(here, yes)))
            else:
                done.append(Instruction(code, distance(here, yes), distance(here, no), k))
        if any(not 0 <= step <= 255 for line in done for step in (line.jt, line.jf)):
            raise AssertionError("a conditional jump of more than 255 instructions")
        return tuple(done)


def to_the_wire(macs: Iterable[str]) -> Program:
    """Match what a host sends itself (and not what the wire gave back) to one of `macs` or to a group.

    ARP and neighbour discovery never match: losing one would be paid by the next packet, and delaying one doubles
    the first round trip. Nor do IGMP and MLD, which are for the switch. Raises ValueError for a bad address or for
    more addresses than fit into one filter.
    """
    code = _Assembler()
    code.load(LD_BYTE, PACKET_TYPE)
    code.jump(JEQ, PACKET_HOST, no="pass")
    code.load(LD_HALF, 12)
    code.jump(JEQ, _ARP, yes="pass")
    code.jump(JEQ, _IPV6, no="address")
    code.load(LD_BYTE, 20)
    code.jump(JEQ, _ICMPV6, no="address")
    code.load(LD_BYTE, 54)
    code.jump(JGE, _NEIGHBOUR_FIRST, no="address")
    code.jump(JGT, _NEIGHBOUR_LAST, no="pass")
    code.label("address")
    code.load(LD_BYTE, 0)
    code.jump(JSET, 1, no="unicast")
    _group(code)
    code.label("match")
    code.give(MATCH)
    code.label("pass")
    code.give(NO_MATCH)
    code.label("unicast")
    _one_of(code, macs, 0)
    program = code.program()
    if len(program) > MAX_INSTRUCTIONS:
        raise ValueError(f"{len(program)} instructions do not fit into one filter, which takes {MAX_INSTRUCTIONS}")
    return program


def from_source(mac: str) -> Program:
    """Match the frames with that source address, which the wire gives back to the host it read them from."""
    code = _Assembler()
    _source(code, mac)
    code.give(MATCH)
    code.label("pass")
    code.give(NO_MATCH)
    return code.program()


def leaving_to(macs: Iterable[str], own: str) -> Program:
    """For a packet socket: match what leaves from `own` to one of `macs`, fragments left out."""
    code = _Assembler()
    code.load(LD_BYTE, PACKET_TYPE)
    code.jump(JEQ, PACKET_OUTGOING, no="pass")
    _whole(code)
    _source(code, own)
    code.skip_to("unicast")
    code.label("pass")
    code.give(NO_MATCH)
    code.label("unicast")
    _one_of(code, macs, 0)
    return code.program()


def leaving_to_all(own: str) -> Program:
    """For a packet socket: match what leaves from `own` to a group that bridges forward to, fragments left out."""
    code = _Assembler()
    code.load(LD_BYTE, PACKET_TYPE)
    code.jump(JEQ, PACKET_OUTGOING, no="pass")
    code.load(LD_BYTE, 0)
    code.jump(JSET, 1, no="pass")
    _forwarded(code)
    _whole(code)
    _source(code, own)
    code.give(MATCH)
    code.label("pass")
    code.give(NO_MATCH)
    return code.program()


def arriving_from(macs: Iterable[str]) -> Program:
    """For a packet socket: match what arrives from `macs` for this host or a group, as those above count it."""
    code = _Assembler()
    code.load(LD_BYTE, PACKET_TYPE)
    code.jump(JGE, PACKET_OTHERHOST, yes="pass")
    _forwarded(code)
    _whole(code)
    code.skip_to("source")
    code.label("pass")
    code.give(NO_MATCH)
    code.label("source")
    _one_of(code, macs, 6)
    return code.program()


def _source(code: _Assembler, mac: str) -> None:
    """Fall through for what comes from that address, else on to "pass"."""
    high, low = _halves(mac)
    code.load(LD_HALF, 6)
    code.jump(JEQ, high, no="pass")
    code.load(LD_WORD, 8)
    code.jump(JEQ, low, no="pass")


def _whole(code: _Assembler) -> None:
    """Fall through for what is no fragment, else on to "pass"."""
    code.load(LD_HALF, 12)
    code.jump(JEQ, _IPV4, no="no ipv4")
    code.load(LD_HALF, 20)
    code.jump(JSET, _IS_FRAGMENT, yes="pass", no="whole")
    code.label("no ipv4")
    code.jump(JEQ, _IPV6, no="whole")
    code.load(LD_BYTE, 20)
    code.jump(JEQ, _FRAGMENT, yes="pass")
    code.label("whole")


def _forwarded(code: _Assembler) -> None:
    """Fall through for an address that bridges forward to, else on to "pass"."""
    code.load(LD_WORD, 0)
    code.jump(JEQ, _FOR_BRIDGES, no="forwarded")
    code.load(LD_HALF, 4)
    code.jump(JGE, 0x10, no="pass")
    code.label("forwarded")


def _group(code: _Assembler) -> None:
    """Fall through for a group frame that goes to the wire."""
    code.load(LD_HALF, 12)
    code.jump(JEQ, _IPV4, no="not ipv4")
    code.load(LD_BYTE, 23)
    code.jump(JEQ, _IGMP, yes="pass", no="match")
    code.label("not ipv4")
    code.jump(JEQ, _IPV6, no="match")
    code.load(LD_BYTE, 20)
    code.jump(JEQ, _HOP_BY_HOP, no="match")
    code.load(LD_BYTE, 54)
    code.jump(JEQ, _ICMPV6, no="match")
    code.load(LD_BYTE, 62)
    for kind in _MLD:
        code.jump(JEQ, kind, yes="pass")


def _one_of(code: _Assembler, macs: Iterable[str], at: int) -> None:
    """Match one of these at that place of the frame, else nothing.

    The first two bytes are compared once for all the addresses that share them, then the other four in turn.
    """
    by_high: dict[int, list[int]] = {}
    for high, low in sorted({_halves(mac) for mac in macs}):
        by_high.setdefault(high, []).append(low)
    for high, lows in by_high.items():
        after = f"after {high}"
        code.load(LD_HALF, at)
        code.jump(JEQ, high, yes=f"in {high}")
        code.skip_to(after)
        code.label(f"in {high}")
        code.load(LD_WORD, at + 2)
        for low in lows:
            code.jump(JEQ, low, no=f"not {high} {low}")
            code.give(MATCH)
            code.label(f"not {high} {low}")
        code.label(after)
    code.give(NO_MATCH)


def _halves(mac: str) -> tuple[int, int]:
    raw = bytes.fromhex(mac.replace(":", ""))
    if len(raw) != 6:
        raise ValueError(f"{mac!r} is not an Ethernet address")
    return int.from_bytes(raw[:2], "big"), int.from_bytes(raw[2:], "big")


def text(program: Program) -> str:
    """`N,code jt jf k,...`, as tc-bpf(8) reads and prints it."""
    return ",".join([str(len(program)), *(" ".join(map(str, line)) for line in program)])


def run(program: Program, frame: bytes, packet_type: int = PACKET_HOST) -> int:
    """What the kernel would return for this frame: a load from beyond its end returns 0 at once."""
    at = accumulator = 0
    while True:
        code, jt, jf, k = program[at]
        at += 1
        if code == RET:
            return k
        if code == JA:
            at += k
        elif code in (LD_WORD, LD_HALF, LD_BYTE):
            width = {LD_WORD: 4, LD_HALF: 2, LD_BYTE: 1}[code]
            if k == PACKET_TYPE:
                accumulator = packet_type
            elif k + width > len(frame):
                return NO_MATCH
            else:
                accumulator = int.from_bytes(frame[k : k + width], "big")
        else:
            tests = {
                JEQ: accumulator == k,
                JGT: accumulator > k,
                JGE: accumulator >= k,
                JSET: bool(accumulator & k),
            }
            at += jt if tests[code] else jf
