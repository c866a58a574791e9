"""The filters' programs, run on paper against what they are meant to say."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.agent import bpf

A, B, C = "02:42:c6:12:00:02", "02:42:c6:12:00:03", "0e:00:00:00:00:01"
BROADCAST, MULTICAST_4, MULTICAST_6 = "ff:ff:ff:ff:ff:ff", "01:00:5e:01:02:03", "33:33:00:00:00:01"
ARP, IPV4, IPV6 = 0x0806, 0x0800, 0x86DD


def frame(target: str, kind: int = IPV4, payload: bytes = bytes(60), source: str = A) -> bytes:
    return bytes.fromhex((target + source).replace(":", "")) + struct.pack("!H", kind) + payload


def ipv4(protocol: int) -> bytes:
    return bytes(9) + bytes([protocol]) + bytes(40)


def icmpv6(kind: int) -> bytes:
    return bytes(6) + bytes([58]) + bytes(33) + bytes([kind]) + bytes(20)


def mld(kind: int) -> bytes:
    """With the hop-by-hop header that every MLD message has."""
    return bytes(6) + bytes([0]) + bytes(33) + bytes([58]) + bytes(7) + bytes([kind]) + bytes(20)


@pytest.mark.parametrize(
    ("what", "taken"),
    [
        (frame(B), True),
        (frame(C), True),
        (frame(A), False),
        (frame("02:42:c6:12:00:04"), False),
        (frame("0e:00:c6:12:00:03"), False),  # the first half of one peer, the second of another
        (frame(B, IPV6), True),
        (frame(B, 0x88CC), True),
        (frame(B, ARP), False),
        (frame(BROADCAST, ARP), False),
        (frame(BROADCAST), True),
        (frame(MULTICAST_4, IPV4, ipv4(17)), True),
        (frame(MULTICAST_4, IPV4, ipv4(2)), False),
        (frame(B, IPV4, ipv4(2)), True),
        (frame(MULTICAST_6, IPV6, icmpv6(128)), True),
        *[(frame(MULTICAST_6, IPV6, icmpv6(n)), n not in range(133, 138)) for n in (132, 133, 135, 137, 138)],
        *[(frame(B, IPV6, icmpv6(n)), n not in range(133, 138)) for n in (132, 133, 135, 137, 138)],
        *[
            (frame(MULTICAST_6, IPV6, mld(n)), n not in (130, 131, 132, 143))
            for n in (129, 130, 131, 132, 143, 144)
        ],
        (frame(B, IPV6, mld(143)), True),
    ],
)
def test_what_goes_to_the_wire(what: bytes, taken: bool) -> None:
    assert bpf.run(bpf.to_the_wire([B, C]), what) == (bpf.MATCH if taken else bpf.NO_MATCH)


def test_what_the_wire_gave_back_does_not_go_to_it_again() -> None:
    assert bpf.run(bpf.to_the_wire([B]), frame(B), bpf.PACKET_OTHERHOST) == bpf.NO_MATCH


MACS = st.tuples(st.sampled_from(["02:42", "02:43", "0e:00"]), st.binary(min_size=4, max_size=4)).map(
    lambda pair: f"{pair[0]}:{pair[1].hex(':')}"
)


@given(st.sets(MACS, max_size=300), MACS)
def test_exactly_the_peers_match_however_many(peers: set[str], other: str) -> None:
    program = bpf.to_the_wire(peers)
    for mac in (*sorted(peers)[:3], *sorted(peers)[-3:], other):
        assert bpf.run(program, frame(mac)) == (bpf.MATCH if mac in peers else bpf.NO_MATCH)


@given(MACS, MACS)
def test_source_filter(wanted: str, other: str) -> None:
    program = bpf.from_source(wanted)
    assert bpf.run(program, frame(B, source=wanted), bpf.PACKET_OTHERHOST) == bpf.MATCH
    assert bpf.run(program, frame(B, source=other)) == (bpf.MATCH if other == wanted else bpf.NO_MATCH)


@given(st.sets(MACS, max_size=300))
def test_every_jump_stays_inside(peers: set[str]) -> None:
    program = bpf.to_the_wire(peers)
    for at, line in enumerate(program):
        if line.code == bpf.JA:
            assert at + 1 + line.k < len(program)
        elif line.code != bpf.RET:
            assert at + 1 + max(line.jt, line.jf) < len(program)
    assert program[-1].code == bpf.RET


def test_text_is_as_tc_prints_it() -> None:
    assert bpf.text(bpf.DROP_ALL) == "1,6 0 0 2"
    assert (
        bpf.text(bpf.from_source(B)) == "6,40 0 0 6,21 0 3 578,32 0 0 8,21 0 1 3323068419,6 0 0 4294967295,6 0 0 0"
    )


def test_a_load_beyond_the_end_matches_nothing() -> None:
    assert bpf.run(bpf.from_source(B), b"short") == bpf.NO_MATCH


def test_too_many_peers_for_one_filter() -> None:
    peers = [f"02:42:00:00:{n >> 8:02x}:{n & 255:02x}" for n in range(985)]
    bpf.to_the_wire(peers[:970])
    with pytest.raises(ValueError, match="do not fit into one filter"):
        bpf.to_the_wire(peers)


@pytest.mark.parametrize("mac", ["02:42:00:00:01", "not an address"])
def test_a_bad_address(mac: str) -> None:
    with pytest.raises(ValueError):
        bpf.to_the_wire([mac])
