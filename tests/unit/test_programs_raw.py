"""What a raw socket sends and gets, on loopback where the tests may open one, and without a socket where not."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Any

import pytest

from testbed.programs import _serving, raw
from testbed.programs._sending import pattern
from testbed.programs.raw import Receiver, Sender, ipv4_header, main
from tests.unit.test_programs_docs import documented, keys

HERE, THERE = IPv4Address("198.18.0.2"), IPv4Address("198.18.0.3")
IN4, IN6 = socket.AF_INET, socket.AF_INET6


def summary(book: Receiver) -> dict[str, Any]:
    return list(book.records())[-1]


# ---------------------------------------------------------------- the header


def test_the_header_is_written_field_by_field() -> None:
    header = ipv4_header(HERE, THERE, protocol=253, ttl=7, identification=4660)
    assert header.hex(" ") == "45 00 00 00 12 34 00 00 07 fd 00 00 c6 12 00 02 c6 12 00 03"


# ---------------------------------------------------------------- what arrives


def test_over_ipv4_a_packet_begins_with_its_header() -> None:
    book = Receiver()
    book.arrived(IN4, ipv4_header(HERE, THERE, 253, 7, 4660) + pattern(3, 100), False, "198.18.0.2")
    packet = {"packet_bytes": 120, "header_bytes": 20, "source": "198.18.0.2"}
    assert list(book.records()) == [
        {**packet, "identification": 4660, "time_to_live": 7},
        {"received": 1, "payload_bytes": 100, "truncated": 0, "corrupted": 0},
    ]
    assert documented("raw receive") == keys(book.records()) | {"error"}
    assert documented("raw send") == keys(Sender().records()) | {"error"}


def test_a_header_with_options_is_longer() -> None:
    book = Receiver()
    header = bytes([0x46]) + ipv4_header(HERE, THERE, 253, 64, 1)[1:] + bytes(4)
    book.arrived(IN4, header + pattern(0, 10), False, "198.18.0.2")
    assert (book.packets[0]["header_bytes"], book.payload_bytes, book.corrupted) == (24, 10, 0)


def test_over_ipv6_there_is_no_header() -> None:
    book = Receiver()
    book.arrived(IN6, pattern(3, 100), False, "2001:2::2")
    assert list(book.records()) == [
        {"packet_bytes": 100, "header_bytes": 0, "source": "2001:2::2"},
        {"received": 1, "payload_bytes": 100, "truncated": 0, "corrupted": 0},
    ]


@pytest.mark.parametrize("payload", [b"\x05\x07", pattern(0, 9)[:-1] + b"x", b"\0\0"])
def test_what_nobody_here_wrote_is_corrupted(payload: bytes) -> None:
    book = Receiver()
    book.arrived(IN6, payload, False, "2001:2::2")
    assert summary(book)["corrupted"] == 1


@pytest.mark.parametrize("payload", [b"", pattern(9, 1), pattern(9, 2), pattern(9, 3)])
def test_a_checksum_that_was_asked_for_corrupts_nothing(payload: bytes) -> None:
    book = Receiver(checksum_offset=2)
    book.arrived(IN6, payload[:2] + b"\xab\xcd"[: max(0, len(payload) - 2)] + payload[4:], False, "2001:2::2")
    assert summary(book)["corrupted"] == 0


def test_what_was_cut_off_is_truncated_and_the_rest_of_it_is_right() -> None:
    book = Receiver()
    book.arrived(IN6, pattern(3, 100)[:30], True, "2001:2::2")
    assert summary(book) == {"received": 1, "payload_bytes": 30, "truncated": 1, "corrupted": 0}


# ---------------------------------------------------------------- over raw sockets

Talk = Callable[..., tuple[dict[str, Any], list[dict[str, Any]]]]


@pytest.fixture
def talk(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Talk:
    """Runs `raw receive` and, when it is ready, `raw send`; returns the records of the sender and the receiver."""
    try:
        socket.socket(IN4, socket.SOCK_RAW, 253).close()
    except PermissionError:
        pytest.skip("raw sockets need the capability NET_RAW")

    def talk(sending: str, receiving: str = "", to: str = "127.0.0.1") -> Any:
        sent: list[int] = []

        def send_and_stop() -> None:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # it is for the receiver, the main thread
            words = ["send", to, "--protocol", "253", *sending.split()]
            arguments = raw._parser().parse_args(words)
            sock, address = raw.raw_socket(to, 253, arguments.checksum)
            with sock:
                sender = Sender()
                sender.work(sock, address, arguments)
                sock.settimeout(10)
                for _ in range(sender.sent):  # it gets a copy of each: so the receiver has got its own by now
                    sock.recv(1 << 16)
            sent.append(sender.sent)
            os.kill(os.getpid(), signal.SIGTERM)

        thread = threading.Thread(target=send_and_stop)
        monkeypatch.setattr(_serving, "say_ready", thread.start)
        before = signal.getsignal(signal.SIGTERM)
        try:
            status = main(["receive", "--protocol", "253", "--bind", to, *receiving.split()])
        finally:
            signal.signal(signal.SIGTERM, before)
            thread.join()
        *packets, last = map(json.loads, capsys.readouterr().out.splitlines())
        assert status == 0
        return {**last, "sent": sent[0]}, packets

    return talk


def test_every_packet_arrives_with_the_header_of_the_kernel(talk: Talk) -> None:
    last, packets = talk("--count 20 --size 100B")
    assert last == {"sent": 20, "received": 20, "payload_bytes": 2000, "truncated": 0, "corrupted": 0}
    assert {(p["packet_bytes"], p["header_bytes"], p["source"]) for p in packets} == {(120, 20, "127.0.0.1")}


def test_every_packet_arrives_with_a_header_of_its_own(talk: Talk) -> None:
    last, packets = talk("--count 3 --own-header --source 127.9.9.9 --time-to-live 7 --identification 4660")
    assert (last["received"], last["corrupted"]) == (3, 0)
    assert [(p["source"], p["time_to_live"], p["identification"]) for p in packets] == [("127.9.9.9", 7, 4660)] * 3


def test_the_kernel_fills_in_what_a_header_leaves_to_it(talk: Talk) -> None:
    _, packets = talk("--count 1 --own-header")
    assert packets[0]["source"] == "127.0.0.1"
    assert packets[0]["identification"] != 0


@pytest.mark.parametrize("when", ["", "--late"])
def test_a_short_buffer_cuts_off_and_the_next_receive_is_the_next_packet(talk: Talk, when: str) -> None:
    last, packets = talk("--count 5 --size 100B", f"--buffer 30B {when}")
    assert last == {"sent": 5, "received": 5, "payload_bytes": 50, "truncated": 5, "corrupted": 0}
    assert [p["packet_bytes"] for p in packets] == [30] * 5


@pytest.fixture
def ipv6() -> None:
    try:
        with socket.socket(IN6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        pytest.skip("no IPv6 loopback on this machine")


def test_over_ipv6_the_kernel_writes_and_checks_a_checksum(talk: Talk, ipv6: None) -> None:
    last, packets = talk("--count 4 --size 100B --checksum 2", "--checksum 2", "::1")
    assert last == {"sent": 4, "received": 4, "payload_bytes": 400, "truncated": 0, "corrupted": 0}
    assert packets == [{"packet_bytes": 100, "header_bytes": 0, "source": "::1"}] * 4


def test_over_ipv6_a_wrong_checksum_is_dropped_by_who_asked_for_it_alone(talk: Talk, ipv6: None) -> None:
    assert talk("--count 4", "--checksum 2", "::1")[0]["received"] == 0
    assert talk("--count 4", "", "::1")[0]["received"] == 4
    assert talk("--count 4 --checksum 2", "", "::1")[0]["corrupted"] == 4  # the kernel wrote two bytes into each


# ---------------------------------------------------------------- the command line


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("", "required: receive|send"),
        ("receive", "required: --protocol"),
        ("receive --protocol 256", "'256' is not from 1 to 255"),
        ("receive --protocol 253 --buffer 19B", "'19B' is not from 20 to 65536"),
        ("send server --protocol 253", "required: --count"),
        ("send server --protocol 253 --count 1 --time-to-live 0", "'0' is not from 1 to 255"),
        ("send server --protocol 253 --count 1 --source server", "invalid IPv4Address value: 'server'"),
    ],
)
def test_wrong_arguments_say_what_is_wrong(words: str, complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(words.split())
    assert complaint in capsys.readouterr().err
