"""IDP and SPP as bytes: vectors worked out by hand from XNSS 028112, and what must be refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.programs.ns.packets import (
    END_OF_MESSAGE,
    IDP_BYTES,
    LARGEST_DATA,
    LARGEST_DATAGRAM,
    NO_CHECKSUM,
    SEQUENCED_PACKET,
    SPP_BYTES,
    Address,
    BadPacket,
    Idp,
    Spp,
    checksum,
    decode,
    encode,
)

CLIENT = Address(0, bytes.fromhex("0200c6120003"), 0x8001)
SERVER = Address(7, bytes.fromhex("0200c6120002"), 0x07D0)


@pytest.mark.parametrize(
    ("words", "total"),
    [
        ("", 0),
        ("0001", 2),  # 0 + 1, cycled left by one
        ("0001 0001", 6),  # (2 + 1) cycled
        ("8000", 1),  # the highest bit comes round
        ("8000 8000", 3),  # 1 + 8000 = 8001, cycled: 0003
        ("7fff 8000", 0xFFFE),  # 7fff -> fffe; + 8000 is 1_7ffe, carry: 7fff; cycled
        ("0001 0002 0003", 22),  # 2; 2 + 2 = 4, 8; 8 + 3 = 11, 22
        ("0003 0002 0001", 34),  # 6; 8, 16; 17, 34: other than the same words in another order
        ("7fff 0001", 0),  # 7fff -> fffe; + 1 = ffff, cycled ffff: minus zero, which means none, becomes zero
    ],
)
def test_the_checksum_adds_and_cycles(words: str, total: int) -> None:
    assert checksum(bytes.fromhex(words)) == total


def test_a_header_of_idp_is_these_thirty_bytes() -> None:
    header = Idp(5, SERVER, CLIENT, transport_control=3, length=0x2A, checksum=0x1234)
    assert header.pack().hex(" ", 2) == (
        "1234 002a 0305 0000 0007 0200 c612 0002 07d0 0000 0000 0200 c612 0003 8001"
    )
    assert Idp.unpack(header.pack()) == header
    assert IDP_BYTES == 30


def test_a_header_of_spp_is_these_twelve_bytes() -> None:
    header = Spp(END_OF_MESSAGE, 254, 0x1001, 0x2002, 3, 4, 19)
    assert header.pack().hex(" ", 2) == "10fe 1001 2002 0003 0004 0013"
    assert Spp.unpack(header.pack()) == header
    assert SPP_BYTES == 12


def test_the_sizes_are_those_of_the_standard() -> None:
    assert (LARGEST_DATAGRAM, LARGEST_DATA) == (546, 534)


def test_a_whole_packet_worked_out_by_hand() -> None:
    """All fields zero but the length, 31, and one byte of data, which is padded to a word.

    001f cycled is 003e; thirteen words of zero cycle it thirteen times more: 003e = 0000_0000_0011_1110 moved left
    by 13 is 1100_0000_0000_0111; + 4100 is 1_0107, carry: 0108; cycled: 0210.
    """
    packet = encode(Idp(), b"A")
    assert packet == bytes.fromhex("0210 001f") + bytes(26) + b"A\0"
    assert decode(packet) == (Idp(length=31, checksum=0x0210), b"A")


def test_what_a_network_added_behind_a_packet_is_no_part_of_it() -> None:
    packet = encode(Idp(20), b"abcd")
    assert decode(packet + bytes(14))[1] == b"abcd"


def test_a_packet_without_a_checksum_is_taken_as_it_is() -> None:
    packet = NO_CHECKSUM.to_bytes(2, "big") + encode(Idp(20), b"abcd")[2:-1] + b"x"
    assert decode(packet)[1] == b"abcx"


@pytest.mark.parametrize(
    ("packet", "why"),
    [
        (b"", "0 bytes are no IDP header"),
        (bytes(29), "29 bytes are no IDP header"),
        (bytes(30), "a packet of 0 bytes, of which 30 came"),
        (encode(Idp(), b"abcd")[:-1], "a packet of 34 bytes, of which 33 came"),
        (encode(Idp(), b"abc")[:-1], "a packet of 33 bytes, of which 33 came"),  # the padding is missing
        (encode(Idp(), b"abc")[:-1] + b"x", "checksum"),  # the padding is altered
    ],
)
def test_what_is_no_packet_is_refused(packet: bytes, why: str) -> None:
    with pytest.raises(BadPacket, match=why):
        decode(packet)


def test_too_much_for_a_packet_is_refused() -> None:
    assert len(encode(Idp(), bytes(LARGEST_DATAGRAM))) == 576
    with pytest.raises(ValueError, match="do not fit"):
        encode(Idp(), bytes(LARGEST_DATAGRAM + 1))


def test_too_little_for_a_header_of_spp_is_refused() -> None:
    with pytest.raises(BadPacket, match="11 bytes are no SPP header"):
        Spp.unpack(bytes(11))


addresses = st.builds(
    Address, st.integers(0, 2**32 - 1), st.binary(min_size=6, max_size=6), st.integers(0, 0xFFFF)
)


@given(st.integers(0, 255), addresses, addresses, st.integers(0, 255), st.binary(max_size=LARGEST_DATAGRAM))
def test_what_is_packed_is_unpacked(kind: int, to: Address, by: Address, hops: int, data: bytes) -> None:
    header, found = decode(encode(Idp(kind, to, by, hops), data))
    assert (header.packet_type, header.destination, header.source, header.transport_control) == (
        kind,
        to,
        by,
        hops,
    )
    assert found == data


@given(st.binary(min_size=1, max_size=60), st.integers(0, 10_000))
def test_one_altered_bit_is_seen(data: bytes, which: int) -> None:
    packet = bytearray(encode(Idp(SEQUENCED_PACKET, SERVER, CLIENT), data))
    which %= 8 * (len(packet) - 4)
    packet[4 + which // 8] ^= 1 << which % 8  # not in the checksum, nor in the length
    with pytest.raises(BadPacket, match="checksum"):
        decode(bytes(packet))
