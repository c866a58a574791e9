"""Which flow a frame belongs to and what it is called: frames built here byte by byte."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.conditions.flow import Labels, raw_key

ADDRESSES = bytes.fromhex("0242c6120003 0242c6120002")


def ip4(
    protocol: int, payload: bytes, options: bytes = b"", fragment: int = 0, source: bytes = b"\xc6\x12\x00\x02"
) -> bytes:
    """`fragment`: the flags and offset field (0x2000: more follow; low bits: offset in 8 bytes)."""
    words = 5 + len(options) // 4
    length = 4 * words + len(payload)
    header = struct.pack(
        ">BBHHHBBH4s4s", 0x40 | words, 0, length, 9, fragment, 64, protocol, 0, source, b"\xc6\x12\x00\x03"
    )
    return ADDRESSES + b"\x08\x00" + header + options + payload


def ip6(following: int, payload: bytes) -> bytes:
    return (
        ADDRESSES + b"\x86\xdd" + struct.pack(">IHBB", 6 << 28, len(payload), following, 64) + bytes(32) + payload
    )


def ports(source: int, target: int) -> bytes:
    return struct.pack(">HH", source, target) + bytes(16)


def echo(kind: int, identifier: int, number: int) -> bytes:
    return struct.pack(">BBHHH", kind, 0, 0, identifier, number) + bytes(56)


@pytest.mark.parametrize(
    ("frame", "label"),
    [
        (ip4(17, ports(40000, 9000)), "udp *1>9000"),
        (ip4(17, ports(9000, 40000)), "udp 9000>*1"),
        (ip4(17, ports(5000, 9000)), "udp 5000>9000"),
        (ip4(17, ports(40000, 50000)), "udp *1>*"),
        (ip4(17, ports(32767, 61000)), "udp 32767>61000"),
        (ip4(17, ports(32768, 60999)), "udp *1>*"),
        (ip4(6, ports(40000, 80)), "tcp *1>80"),
        (ip4(132, ports(40000, 80)), "sctp *1>80"),
        (ip4(33, ports(1, 2)), "dccp 1>2"),
        (ip4(136, ports(1, 2)), "udplite 1>2"),
        (ip4(17, ports(40000, 9000), options=bytes(8)), "udp *1>9000"),
        (ip4(17, ports(40000, 9000), fragment=0x2000), "udp *1>9000"),  # the first fragment has the ports
        (ip4(17, ports(40000, 9000), fragment=0x20B9), "frag udp"),
        (ip4(17, ports(40000, 9000), fragment=0x00B9), "frag udp"),
        (ip4(6, ports(40000, 9000), fragment=0x0001), "frag tcp"),
        (ip4(47, b"", fragment=0x0001), "frag 47"),
        (ip4(17, ports(40000, 9000), fragment=0x4000), "udp *1>9000"),  # do not fragment
        (ip4(17, b"\x00\x01"), "ip 17"),  # no room for ports
        (ip4(47, bytes(8)), "ip 47"),
        (ip4(58, bytes(8)), "ip 58"),  # ICMPv6 in IPv4 is no ICMP
        (ip4(1, echo(8, 77, 1)), "icmp echo *1"),
        (ip4(1, echo(0, 77, 1)), "icmp echo reply *1"),
        (ip4(1, echo(3, 0, 0)), "icmp error"),
        (ip4(1, echo(11, 0, 0)), "icmp error"),
        (ip4(1, echo(13, 5, 0)), "icmp 13"),
        (ADDRESSES + b"\x08\x00\x45", "ip broken"),
        (ip6(17, ports(40000, 9000)), "udp6 *1>9000"),
        (ip6(6, ports(40000, 80)), "tcp6 *1>80"),
        (ip6(58, echo(128, 77, 1)), "icmp6 echo *1"),
        (ip6(58, echo(129, 77, 1)), "icmp6 echo reply *1"),
        (ip6(58, echo(1, 0, 0)), "icmp6 error"),
        (ip6(1, echo(8, 0, 0)), "ip6 1"),
        (ip6(253, bytes(8)), "ip6 253"),
        (ip6(59, b""), "ip6 59"),  # nothing follows (RFC 8200, section 4.7)
        (ip6(44, bytes((253, 0, 0, 9)) + bytes(4) + bytes(8)), "frag6 253"),
        (ip6(0, bytes((17, 0)) + bytes(6) + ports(40000, 9000)), "udp6 *1>9000"),
        (ip6(60, bytes((17, 1)) + bytes(14) + ports(40000, 9000)), "udp6 *1>9000"),
        (ip6(51, bytes((17, 1)) + bytes(10) + ports(40000, 9000)), "udp6 *1>9000"),
        (ip6(44, bytes((17, 9, 0, 1)) + bytes(4) + ports(40000, 9000)), "udp6 *1>9000"),
        (ip6(44, bytes((17, 0, 5, 0xA8)) + bytes(4) + ports(40000, 9000)), "frag6 udp"),
        (ip6(0, bytes((17, 9)) + bytes(6)), "ip6 17"),  # the header promises more than there is
        (ip6(0, b"\x11"), "ip6 broken"),
        (ADDRESSES + b"\x86\xdd\x60", "ip6 broken"),
        (ADDRESSES + b"\x88\xcc" + bytes(46), "ether 0x88cc"),
        (ADDRESSES + b"\x81\x00" + bytes(46), "ether 0x8100"),
        (ADDRESSES, "ether 0x"),
    ],
)
def test_labels(frame: bytes, label: str) -> None:
    assert Labels().label(raw_key(frame)) == label


def test_order_of_appearance_is_counted_per_protocol_and_other_port() -> None:
    labels = Labels()
    frames = [
        ip4(17, ports(40002, 9000)),
        ip4(17, ports(40001, 9000)),
        ip4(17, ports(40001, 9001)),
        ip4(6, ports(40009, 9000)),
        ip4(6, ports(9000, 40009)),
        ip4(17, ports(40000, 9000)),
        ip4(1, echo(8, 500, 1)),
        ip4(1, echo(8, 400, 1)),
    ]
    assert [labels.label(raw_key(frame)) for frame in frames] == [
        "udp *1>9000",
        "udp *2>9000",
        "udp *1>9001",
        "tcp *1>9000",
        "tcp 9000>*1",
        "udp *3>9000",
        "icmp echo *1",
        "icmp echo *2",
    ]


def test_what_varies_within_a_flow_does_not_make_another() -> None:
    one = ip4(17, ports(40000, 9000) + b"one", source=b"\x0a\x00\x00\x01")
    other = ip4(17, ports(40000, 9000) + b"another", options=bytes(4), source=b"\x0a\x00\x00\x02")
    assert raw_key(one) == raw_key(other)
    assert raw_key(ip4(1, echo(8, 77, 1))) == raw_key(ip4(1, echo(8, 77, 2)))
    assert raw_key(ip4(1, echo(3, 1, 1))) == raw_key(ip4(1, echo(12, 2, 2)))  # all errors are one flow


any_frame = st.one_of(
    st.builds(lambda tail: ADDRESSES + tail, st.binary(max_size=90)),
    st.builds(
        lambda p, body, f: ip4(p, body, fragment=f),
        st.integers(0, 255),
        st.binary(max_size=40),
        st.integers(0, 0xFFFF),
    ),
    st.builds(ip6, st.integers(0, 255), st.binary(max_size=60)),
    st.builds(
        lambda p, a, b: ip4(p, ports(a, b)), st.sampled_from([6, 17]), st.integers(0, 65535), st.integers(0, 65535)
    ),
)


@given(st.lists(any_frame, max_size=40))
def test_no_frame_is_too_strange_and_no_two_flows_share_a_label(frames: list[bytes]) -> None:
    labels, seen = Labels(), dict[bytes, str]()
    for frame in frames:
        key = raw_key(frame)
        if key not in seen:
            seen[key] = labels.label(key)
    assert len(set(seen.values())) == len(seen)
