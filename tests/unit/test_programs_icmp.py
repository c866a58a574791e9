"""The echo request byte by byte, which replies count, and the counts, against a peer that answers as it likes."""

from __future__ import annotations

import socket
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.programs.icmp import HEADER, Echo, ask, checksum, main
from tests.unit.test_programs_docs import documented, keys

MS = 10**6
IP_HEADER = bytes([0x45]) + bytes(19)


def summary(book: Echo) -> dict[str, Any]:
    return list(book.records())[-1]


def reply(request: bytes, kind: int = 0) -> bytes:
    """What a kernel answers: the request with another type, behind an IP header."""
    return IP_HEADER + bytes([kind]) + request[1:]


# ---------------------------------------------------------------- the message


def test_the_checksum_is_that_of_the_example_in_rfc_1071() -> None:
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xDDF2 ^ 0xFFFF
    assert checksum(b"\x01") == 0x0100 ^ 0xFFFF  # an odd byte is the upper half of a word


@given(st.binary(max_size=300).filter(lambda data: len(data) % 2 == 0))
def test_what_holds_its_checksum_sums_up_to_nothing(data: bytes) -> None:
    assert checksum(data + checksum(data).to_bytes(2)) == 0


def test_a_request_over_ipv4() -> None:
    book = Echo(identifier=0x1234, size=5)
    first, second = book.request(0, 0), book.request(1, 0)
    assert second[:2] + second[4:] == bytes.fromhex("0800" + "1234" + "0001" + "0102030405")
    assert checksum(first) == checksum(second) == 0


def test_a_request_with_a_wrong_checksum() -> None:
    assert checksum(Echo(0x1234, 5, wrong_checksum=True).request(0, 0)) != 0


def test_over_ipv6_the_type_is_another_one_and_the_checksum_is_left_to_the_kernel() -> None:
    book = Echo(identifier=0x1234, size=2)
    book.family = socket.AF_INET6
    assert book.request(3, 0) == bytes.fromhex("8000" + "0000" + "1234" + "0003" + "0304")


# ---------------------------------------------------------------- what comes back


def test_what_was_asked_and_answered_is_counted() -> None:
    book = Echo(identifier=7, size=16)
    requests = [book.request(n, n * MS) for n in range(4)]
    for n in (0, 2, 2):  # the second copy of a reply counts for nothing
        book.arrived(reply(requests[n]), n * MS + 2_500_000)
    assert list(book.records()) == [
        {"round_trip_delay_ms": 2.5},
        {"round_trip_delay_ms": 2.5},
        {
            "sent": 4,
            "received": 2,
            "lost": 2,
            "corrupted": 0,
            "loss_ratio": {"count": 2, "of": 4},
            "header_bytes": 20,
        },
    ]
    assert documented("icmp echo-request") == keys(book.records()) | {"error"}


def test_replies_of_others_and_requests_are_not_ours() -> None:
    book = Echo(identifier=7, size=16)
    request = book.request(0, 0)
    book.arrived(reply(Echo(8, 16).request(0, 0)), MS)  # another's identifier
    book.arrived(reply(Echo(7, 16).request(9, 0)), MS)  # a number that was not asked
    book.arrived(reply(request, kind=8), MS)  # our own request, as loopback shows it
    book.arrived(reply(request, kind=3), MS)  # an error
    book.arrived(IP_HEADER + b"\0\0", MS)
    assert (summary(book)["received"], summary(book)["corrupted"]) == (0, 0)


@pytest.mark.parametrize("altered", [b"", b"x", bytes(17)])
def test_a_reply_with_another_payload_is_corrupted_and_lost(altered: bytes) -> None:
    book = Echo(identifier=7, size=16)
    book.arrived(reply(book.request(0, 0)[: HEADER.size] + altered), MS)
    assert (summary(book)["corrupted"], summary(book)["lost"]) == (1, 1)


def test_the_ip_header_before_a_reply_is_as_long_as_it_says() -> None:
    book = Echo(identifier=7, size=16)
    book.arrived(bytes([0x46]) + bytes(23) + reply(book.request(0, 0))[20:], MS)
    assert (summary(book)["received"], summary(book)["header_bytes"]) == (1, 24)


def test_over_ipv6_a_reply_has_no_header_before_it() -> None:
    book = Echo(identifier=7, size=16)
    book.family = socket.AF_INET6
    book.arrived(bytes([129]) + book.request(0, 0)[1:], MS)
    assert (summary(book)["received"], summary(book)["header_bytes"]) == (1, 0)


def test_when_nothing_was_sent_there_is_no_ratio() -> None:
    assert list(Echo(7, 16).records()) == [{"sent": 0, "received": 0, "lost": 0, "corrupted": 0}]


# ---------------------------------------------------------------- over a socket


@pytest.mark.parametrize("answered", [{0, 1, 2, 3, 4}, {0, 3}, set()])
def test_the_replies_that_come_are_booked(answered: set[int]) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)

    def peer() -> None:
        for n in range(5):
            request = theirs.recv(100)
            if n in answered:
                theirs.send(reply(request))

    book, thread = Echo(7, 16), threading.Thread(target=peer)
    with ours, theirs:
        thread.start()
        ask(ours, book, count=5, interval_ns=MS, timeout_ns=10**10 if len(answered) == 5 else 200 * MS)
        thread.join()
    assert set(book.delays_ns) == answered
    assert summary(book)["sent"] == 5


def test_a_kernel_answers(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP).close()
    except PermissionError:
        pytest.skip("raw sockets need the capability NET_RAW")
    assert main("echo-request 127.0.0.1 --count 3 --interval 1ms --bind 127.0.0.1".split()) == 0
    assert '"received": 3, "lost": 0, "corrupted": 0' in capsys.readouterr().out
    assert main("echo-request 127.0.0.1 --count 2 --interval 1ms --timeout 50ms --wrong-checksum".split()) == 0
    assert '"received": 0, "lost": 2' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("", "required: echo-request"),
        ("echo-request server", "required: --count"),
        ("echo-request server --count 65537", "'65537' is more than the 65536"),
        ("echo-request server --count 1 --size 65508B", "'65508B' is more than 65507B"),
    ],
)
def test_wrong_arguments_say_what_is_wrong(words: str, complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(words.split())
    assert complaint in capsys.readouterr().err
