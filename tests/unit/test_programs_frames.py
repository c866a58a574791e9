"""Packets as they lie on the wire, and what `frames` makes of them."""

from __future__ import annotations

import socket
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.programs.frames import ETH_P_ALL, Watch, main, packet_socket
from testbed.programs.frames_packet import ETH_P_IP, ETH_P_IPV6, Packet, parse
from tests.unit.test_programs_docs import documented, keys

UDP = struct.pack("!HHHH", 40000, 9000, 8 + 5, 0) + b"hello"
SYN_ACK = struct.pack("!HHIIBBHHH", 23, 40001, 7, 8, 6 << 4, 0x12, 0, 0, 0) + bytes(4)


def ipv4(protocol: int, rest: bytes, offset: int = 0, more: bool = False, options: bytes = b"") -> bytes:
    fragment = (0x2000 if more else 0) | offset // 8
    head = 0x45 + len(options) // 4
    length = 20 + len(options) + len(rest)
    return (
        struct.pack("!BBHHHBBH4s4s", head, 0, length, 1, fragment, 64, protocol, 0, b"\1", b"\2") + options + rest
    )


def ipv6(protocol: int, rest: bytes) -> bytes:
    return struct.pack("!IHBB16s16s", 6 << 28, len(rest), protocol, 64, b"\1", b"\2") + rest


ROWS: dict[str, tuple[int, bytes, Packet | None]] = {
    "udp": (ETH_P_IP, ipv4(17, UDP), Packet(17, 5, (40000, 9000))),
    "behind IP's options": (ETH_P_IP, ipv4(17, UDP, options=bytes(4)), Packet(17, 5, (40000, 9000))),
    "padded by Ethernet": (ETH_P_IP, ipv4(17, UDP) + bytes(13), Packet(17, 5, (40000, 9000))),
    "tcp, with an option of its own": (ETH_P_IP, ipv4(6, SYN_ACK), Packet(6, 0, (23, 40001), "SYN+ACK")),
    "icmp has no ports": (ETH_P_IP, ipv4(1, bytes(8) + b"abc"), Packet(1, 3)),
    "a protocol of one's own": (ETH_P_IP, ipv4(253, b"abc"), Packet(253, 3)),
    "a first fragment has ports": (ETH_P_IP, ipv4(17, UDP, 0, True), Packet(17, 5, (40000, 9000), None, 0)),
    "a later one has none": (ETH_P_IP, ipv4(17, UDP, 1480, True), Packet(17, 13, fragment_offset=1480)),
    "the last one": (ETH_P_IP, ipv4(17, b"abc", 2960), Packet(17, 3, fragment_offset=2960)),
    "IPv6": (ETH_P_IPV6, ipv6(17, UDP), Packet(17, 5, (40000, 9000))),
    "behind an extension": (ETH_P_IPV6, ipv6(0, b"\x11\0" + bytes(6) + UDP), Packet(17, 5, (40000, 9000))),
    "a later fragment of IPv6": (
        ETH_P_IPV6, ipv6(44, struct.pack("!BBHI", 17, 0, 1448, 1) + b"abc"), Packet(17, 3, fragment_offset=1448),
    ),
    "an echo over IPv6": (ETH_P_IPV6, ipv6(58, b"\x80" + bytes(7)), Packet(58, 8)),
    "neighbour discovery": (ETH_P_IPV6, ipv6(58, b"\x87" + bytes(23)), None),
    "ARP": (0x0806, bytes(28), None),
    "cut short": (ETH_P_IP, ipv4(6, SYN_ACK[:10]), None),
    "nothing": (ETH_P_IP, b"", None),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_a_packet_is_read(name: str) -> None:
    ethertype, data, packet = ROWS[name]
    assert parse(ethertype, data) == packet


@given(st.sampled_from([ETH_P_IP, ETH_P_IPV6, 0x0806]), st.binary(max_size=120))
def test_no_bytes_are_too_much(ethertype: int, data: bytes) -> None:
    parse(ethertype, data)


def summary(book: Watch) -> dict[str, Any]:
    return list(book.records())[-1]


def test_what_was_seen_is_told_packet_by_packet_and_in_sum() -> None:
    book = Watch(None, None)
    for outgoing, name in (
        (True, "udp"),
        (False, "a later one has none"),
        (False, "tcp, with an option of its own"),
    ):
        book.add(outgoing, parse(*ROWS[name][:2]))
    first, second, third, last = book.records()
    assert first == {
        "direction": "out", "protocol": "udp", "source_port": 40000, "destination_port": 9000, "payload_bytes": 5,
    }  # fmt: skip
    assert second == {"direction": "in", "protocol": "udp", "payload_bytes": 13, "fragment_offset_bytes": 1480}
    assert third["flags"] == "SYN+ACK" and third["payload_bytes"] == 0
    assert last == {
        "packets": 3, "protocols": "tcp, udp", "packets_in": 2, "packets_out": 1, "with_ports": 2,
        "without_ports": 1, "later_fragments": 1, "begins": "udp, udp, SYN+ACK", "missed": 0,
    }  # fmt: skip
    assert documented("frames watch") == keys(book.records())


@pytest.mark.parametrize(
    ("protocol", "port", "seen"),
    [(None, None, 3), (17, None, 2), (6, None, 1), (1, None, 0), (None, 9000, 2), (None, 23, 2), (None, 9, 1)],
)
def test_a_filter_lets_through_what_it_names_and_fragments_that_could_be(
    protocol: int | None, port: int | None, seen: int
) -> None:
    book = Watch(protocol, port)
    for name in ("udp", "a later one has none", "tcp, with an option of its own", "ARP"):
        book.add(False, parse(*ROWS[name][:2]))
    assert summary(book)["packets"] == seen


def test_nothing_seen_is_said() -> None:
    told = summary(Watch(None, None))
    assert (told["begins"], told["protocols"]) == ("nothing", "none")


@pytest.mark.parametrize(
    ("device", "expected"),
    [
        ("eth0", [(socket.AF_PACKET, socket.SOCK_DGRAM, 0), ("eth0", ETH_P_ALL)]),
        (None, [(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))]),
    ],
)
def test_of_one_interface_nothing_else_is_taken_before(
    device: str | None, expected: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[Any, ...]] = []

    class Recorded:
        def __init__(self, *arguments: int) -> None:
            calls.append(arguments)

        def setsockopt(self, *_: int) -> None: ...

        def bind(self, address: tuple[str, int]) -> None:
            calls.append(address)

    monkeypatch.setattr(socket, "socket", Recorded)
    packet_socket(device)
    assert calls == expected


@pytest.mark.parametrize("word", ["tcpp", "256", "-1", ""])
def test_a_protocol_that_is_none_is_refused(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["watch", "--protocol", word])
    assert "icmp6 or a number below 256" in capsys.readouterr().err
