"""The probe's counts, each exact, against peers that lose, double, swap and alter on purpose."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.programs import datagram
from testbed.programs.datagram_client import (
    HEADER,
    SO_TIMESTAMPNS,
    TIMESPEC,
    Probe,
    _receive,
    _receive_until,
    probe,
)
from testbed.programs.datagram_server import Echo

MS = 10**6


def summary(book: Probe) -> dict[str, Any]:
    return list(book.records())[-1]


def samples(book: Probe, key: str) -> list[Any]:
    return [record[key] for record in book.records() if key in record and "sent" not in record]


def booked(numbers: range, size: int = 32) -> Probe:
    """A book in which all of these were sent, the n-th at n ms."""
    book = Probe(5, size)
    book.sent_ns = {n: n * MS for n in numbers}
    return book


def come_back(book: Probe, n: int, now_ns: int = 10**9) -> None:
    book.arrived(book.datagram(n, book.sent_ns[n]), now_ns)


# ---------------------------------------------------------------- the book


def test_a_datagram_has_its_size_and_starts_with_id_number_and_time() -> None:
    data = Probe(5, 100).datagram(7, 123)
    assert len(data) == 100
    assert HEADER.unpack_from(data) == (5, 7, 123)


def test_when_all_came_back() -> None:
    book = booked(range(4))
    for n in range(4):
        come_back(book, n, n * MS + 2_500_000)
    assert samples(book, "round_trip_delay_ms") == [2.5, 2.5, 2.5, 2.5]
    assert samples(book, "loss_period") == []
    assert summary(book) == {
        "id": 5,
        "sent": 4,
        "unsent": 0,
        "received": 4,
        "lost": 0,
        "duplicated": 0,
        "reordered": 0,
        "corrupted": 0,
        "errors": 0,
        "send_lateness_ms": 0.0,
        "loss_ratio": {"count": 0, "of": 4},
        "reordered_ratio": {"count": 0, "of": 4},
        "duplicate_ratio": {"count": 0, "of": 4},
    }


def test_when_nothing_came_back_there_is_no_ratio_of_what_came_back() -> None:
    book = booked(range(3))
    assert summary(book)["loss_ratio"] == {"count": 3, "of": 3}
    assert not {"reordered_ratio", "duplicate_ratio"} & set(summary(book))
    assert "loss_ratio" not in summary(Probe(0, 32))


def test_loss_periods_are_runs_of_consecutive_losses() -> None:
    book = booked(range(10))
    for n in (1, 4, 5, 8):
        come_back(book, n)
    assert book.loss_periods() == [1, 2, 2, 1]
    assert summary(book)["lost"] == 6


def test_a_number_that_was_never_sent_does_not_part_two_losses() -> None:
    book = booked(range(5))
    del book.sent_ns[2]
    come_back(book, 0)
    come_back(book, 4)
    assert book.loss_periods() == [2]


def test_reordered_is_what_comes_after_a_higher_number() -> None:
    book = booked(range(6))
    for n in (0, 3, 1, 2, 5, 4):  # RFC 4737: 1, 2 and 4 come too late; 3 and 5 are merely early
        come_back(book, n)
    assert book.reordered == 3
    assert summary(book)["reordered_ratio"] == {"count": 3, "of": 6}


def test_a_second_copy_is_duplicated_and_neither_reordered_nor_a_sample_of_delay() -> None:
    book = booked(range(3))
    for n in (0, 1, 0, 0, 2, 2):
        come_back(book, n)
    assert (summary(book)["received"], summary(book)["duplicated"], book.reordered) == (3, 3, 0)
    assert summary(book)["duplicate_ratio"] == {"count": 2, "of": 3}
    assert len(samples(book, "round_trip_delay_ms")) == 3


def altered(data: bytes) -> Iterator[bytes]:
    yield b""
    yield data[:-1]
    yield data + b"\0"
    yield data[:-1] + bytes([data[-1] ^ 1])
    yield HEADER.pack(6, 0, 0) + data[HEADER.size :]  # another probe's
    yield HEADER.pack(5, 99, 0) + data[HEADER.size :]  # a number that was never sent
    yield HEADER.pack(5, 0, 1) + data[HEADER.size :]  # another time


@pytest.mark.parametrize("which", range(7))
def test_what_was_altered_is_corrupted_and_counts_as_lost(which: int) -> None:
    book = booked(range(1))
    book.arrived(list(altered(book.datagram(0, 0)))[which], 10**9)
    assert (summary(book)["corrupted"], summary(book)["received"], summary(book)["lost"]) == (1, 0, 1)


@given(
    st.integers(0, 30).flatmap(
        lambda n: st.tuples(st.just(n), st.lists(st.integers(0, max(n - 1, 0)), max_size=60))
    )
)
def test_the_counts_agree_with_their_definitions(case: tuple[int, list[int]]) -> None:
    sent, arrivals = case
    arrivals = arrivals if sent else []
    book = booked(range(sent))
    for n in arrivals:
        come_back(book, n)
    first = list(dict.fromkeys(arrivals))
    result = summary(book)
    assert result["sent"] == sent
    assert result["received"] == len(first)
    assert result["lost"] == sent - len(first) == sum(book.loss_periods())
    assert result["duplicated"] == len(arrivals) - len(first)
    assert result["reordered"] == sum(any(earlier > n for earlier in first[:i]) for i, n in enumerate(first))
    assert len(samples(book, "round_trip_delay_ms")) == len(first)


# ---------------------------------------------------------------- over real sockets

Behaviour = Callable[[int, bytes], list[bytes]]


@contextmanager
def peer(behaviour: Behaviour) -> Iterator[socket.socket]:
    """A connected socket whose peer on loopback answers datagram n with what `behaviour(n, data)` says."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))

        def serve() -> None:
            while data_and_from := server.recvfrom(65536):
                data, client = data_and_from
                if data == b"stop":
                    return
                for answer in behaviour(HEADER.unpack_from(data)[1], data):
                    server.sendto(answer, client)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.connect(server.getsockname())
                yield client
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stopper:
                stopper.sendto(b"stop", server.getsockname())
            thread.join()


def test_a_peer_that_does_everything_wrong_is_counted_to_the_last_datagram() -> None:
    held: list[bytes] = []

    def behaviour(n: int, data: bytes) -> list[bytes]:
        if n in (2, 3, 6):  # lost, in periods of 2 and 1
            return []
        if n == 8:  # comes three times
            return [data] * 3
        if n == 10:  # held back until 12 has gone
            held.append(data)
            return []
        if n == 12:
            return [data, held.pop()]
        if n == 14:  # altered on the way, so lost as well
            return [data[:-1] + bytes([data[-1] ^ 0xFF])]
        return [data]

    book = Probe(3, 64)
    with peer(behaviour) as client:
        probe(client, book, count=20, interval_ns=0, timeout_ns=300 * MS)
    result = summary(book)
    assert result["sent"] == 20
    assert result["received"] == 16
    assert result["lost"] == 4
    assert result["loss_ratio"] == {"count": 4, "of": 20}
    assert samples(book, "loss_period") == [2, 1, 1]
    assert result["duplicated"] == 2
    assert result["reordered"] == 1
    assert result["corrupted"] == 1
    assert result["errors"] == result["unsent"] == 0
    assert len(samples(book, "round_trip_delay_ms")) == 16
    assert all(delay > 0 for delay in samples(book, "round_trip_delay_ms"))


@pytest.mark.parametrize("size", [HEADER.size, 1472, datagram.LARGEST_DATAGRAM])
def test_every_size_that_is_allowed_goes_there_and_back(size: int) -> None:
    book = Probe(0, size)
    with peer(lambda n, data: [data] if len(data) == size else []) as client:
        probe(client, book, count=3, interval_ns=MS, timeout_ns=300 * MS)
    assert (summary(book)["received"], summary(book)["corrupted"]) == (3, 0)


def test_a_port_that_nobody_has_is_an_error_by_name_and_all_is_lost() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        address = free.getsockname()
    book = Probe(0, 64)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(address)
        probe(client, book, count=5, interval_ns=MS, timeout_ns=50 * MS)
    assert (summary(book)["sent"], summary(book)["unsent"], summary(book)["lost"]) == (5, 0, 5)
    assert samples(book, "error") == ["ECONNREFUSED"]
    assert summary(book)["errors"] > 0


def test_what_the_kernel_does_not_take_is_unsent_and_not_lost() -> None:
    client, other_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    other_end.close()
    book = Probe(0, 64)
    with client:
        probe(client, book, count=3, interval_ns=0, timeout_ns=0)
    assert (summary(book)["sent"], summary(book)["unsent"], summary(book)["lost"]) == (0, 3, 0)
    assert samples(book, "loss_period") == []
    assert summary(book)["errors"] == 6  # each was tried twice


# ---------------------------------------------------------------- pace


class SlowWorld:
    """A clock that moves only in `select`, which wakes 0.3 ms late, and in `send`, which takes 0.1 ms."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_ns = 0
        self.sent: list[bytes] = []
        monkeypatch.setattr(time, "monotonic_ns", lambda: self.now_ns)
        monkeypatch.setattr(select, "select", self.select)

    def select(self, reading: list[Any], _w: list[Any], _x: list[Any], timeout_s: float) -> tuple[list[Any], ...]:
        if timeout_s:
            self.now_ns += round(timeout_s * 1e9) + 300_000
        return [], [], []

    def setsockopt(self, *_: int) -> None: ...

    def send(self, data: bytes) -> None:
        self.now_ns += 100_000
        self.sent.append(data)


def test_lateness_does_not_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    world = SlowWorld(monkeypatch)
    book = Probe(0, 64)
    probe(world, book, count=1000, interval_ns=MS, timeout_ns=50 * MS)  # type: ignore[arg-type]
    assert [book.sent_ns[n] for n in range(1000)] == [0] + [n * MS + 300_000 for n in range(1, 1000)]
    assert book.late_ns == 300_000
    assert world.now_ns == 999 * MS + 300_000 + 100_000 + 50 * MS + 300_000  # the wait follows the last
    assert len(world.sent) == 1000


def test_a_probe_that_is_behind_catches_up_and_says_how_far_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    world = SlowWorld(monkeypatch)
    book = Probe(0, 64)
    probe(world, book, count=100, interval_ns=1000, timeout_ns=0)  # type: ignore[arg-type]
    times = [book.sent_ns[n] for n in range(100)]
    assert {later - earlier for earlier, later in pairwise(times)} == {100_000}  # back to back
    assert summary(book)["send_lateness_ms"] == (99 * 100_000 - 99 * 1000) / 1e6


def test_echoes_are_read_also_when_there_is_no_time_to_wait() -> None:
    book = Probe(0, 64)
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ends[0] as client, ends[1] as server:
        book.sent_ns[0] = 0
        server.send(book.datagram(0, 0))
        _receive_until(0, client, book)
        assert summary(book)["received"] == 1
        assert not select.select([client], [], [], 0)[0]


# ---------------------------------------------------------------- when a datagram arrived


class Stamped:
    """A socket with one datagram that carries this ancillary data."""

    def __init__(self, *ancillary: tuple[int, int, bytes]) -> None:
        self.ancillary = list(ancillary)

    def recvmsg(self, *_: int) -> tuple[bytes, list[tuple[int, int, bytes]], int, None]:
        return b"data", self.ancillary, 0, None


def stamp(wall_ns: int) -> tuple[int, int, bytes]:
    return socket.SOL_SOCKET, SO_TIMESTAMPNS, TIMESPEC.pack(*divmod(wall_ns, 10**9))


@pytest.mark.parametrize(
    ("ancillary", "arrived_ns"),
    [
        ([], 777 * MS),
        ([stamp(5_000 * MS)], 777 * MS),
        ([stamp(4_998 * MS)], 775 * MS),
        ([stamp(4_000 * MS + 1)], 777 * MS - 10**9 + 1),
        ([stamp(4_000 * MS)], 777 * MS),  # a second old: the wall clock was set
        ([stamp(5_001 * MS)], 777 * MS),  # from the future: the same
        ([(socket.SOL_SOCKET, 99, stamp(4_998 * MS)[2])], 777 * MS),
        ([(socket.SOL_SOCKET, SO_TIMESTAMPNS, b"short")], 777 * MS),
    ],
)
def test_the_kernels_stamp_is_put_on_the_monotonic_clock(
    monkeypatch: pytest.MonkeyPatch, ancillary: list[tuple[int, int, bytes]], arrived_ns: int
) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 5_000 * MS)
    monkeypatch.setattr(time, "monotonic_ns", lambda: 777 * MS)
    assert _receive(Stamped(*ancillary)) == (b"data", arrived_ns)  # type: ignore[arg-type]


def test_a_pause_between_the_two_clocks_never_makes_a_delay_shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0]

    def later(by_ns: int) -> int:
        clock[0] += 50 * MS  # we are kept waiting before each reading
        return clock[0] + by_ns

    monkeypatch.setattr(time, "time_ns", lambda: later(0))
    monkeypatch.setattr(time, "monotonic_ns", lambda: later(0))
    assert _receive(Stamped(stamp(10 * MS)))[1] >= 10 * MS  # type: ignore[arg-type]


def test_the_kernel_does_stamp_what_the_probe_receives(monkeypatch: pytest.MonkeyPatch) -> None:
    real_ns = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: real_ns() + 10**8)  # every stamp looks 100 ms older
    book = Probe(0, 64)
    with peer(lambda n, data: [data]) as client:
        probe(client, book, count=1, interval_ns=0, timeout_ns=300 * MS)
    assert samples(book, "round_trip_delay_ms")[0] < 0


# ---------------------------------------------------------------- the echo server


class OneBadPeer:
    """Three datagrams from two peers; the one at port 2 cannot be answered."""

    def __init__(self) -> None:
        self.waiting = [(b"ab", ("p", 1)), (b"cde", ("p", 2)), (b"f", ("p", 1))]
        self.answered: list[tuple[bytes, tuple[str, int]]] = []

    def recvfrom(self, _size: int, _flags: int) -> tuple[bytes, tuple[str, int]]:
        return self.waiting.pop(0)

    def sendto(self, data: bytes, peer: tuple[str, int]) -> None:
        if peer == ("p", 2):
            raise OSError(101, "Network is unreachable")
        self.answered.append((data, peer))


def test_a_peer_that_cannot_be_answered_does_not_stop_the_server() -> None:
    sock, echo = OneBadPeer(), Echo()
    while sock.waiting:
        echo.answer(sock)  # type: ignore[arg-type]
    assert sock.answered == [(b"ab", ("p", 1)), (b"f", ("p", 1))]
    assert list(echo.records()) == [
        {"error": "ENETUNREACH"},
        {"received": 3, "echoed": 2, "payload_bytes": 6, "peers": 2, "errors": 1},
    ]
