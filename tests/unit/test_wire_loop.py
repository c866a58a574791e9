"""When the wire sleeps, wakes and looks around: with a clock that only moves when the test lets it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from testbed.agent import wire_loop
from testbed.agent.wire_loop import Drain, Loop

CONTROL, RING = 0, 5
MS = 1_000_000
Found = tuple[list[int], list[int], list[int]]
Seen = list[tuple[str, float]]


class Machine:
    """Clock, `select`, `sleep` and a path in one. `late_ns`: how late this kernel wakes a sleeper."""

    def __init__(self) -> None:
        self.now, self.late_ns = 10**12, 0
        self.seen: Seen = []  # what the loop did: ("select", seconds), ("pause", seconds)
        self.readable: list[int] = []  # what the next select finds
        self.due: list[int] = []
        self.sent: list[int] = []  # how late each frame left
        self.work_ns = 0  # what a turn costs
        self.arrivals = 0
        self.busy = 0  # so many sends find the port busy
        self.last_frame_ns = self.read_until_ns = self.written = self.ended = 0
        self.over_ns = 1 << 63
        self.left = 0

    # time and select

    def monotonic_ns(self) -> int:
        self.now += 100
        return self.now

    def sleep(self, seconds: float) -> None:
        self.seen.append(("pause", seconds))
        self.now += int(seconds * 1e9) + self.late_ns

    def select(self, fds: list[int], _w: list[int], _x: list[int], timeout: float) -> Found:
        if timeout:
            self.seen.append(("select", timeout))
        found = [fd for fd in fds if fd in self.readable]
        self.readable = []
        if timeout and not found:
            self.now += int(timeout * 1e9) + self.late_ns
        return found, [], []

    # the path

    def take(self, most: int) -> int:
        taken = min(most, self.arrivals)
        self.arrivals -= taken
        if taken:
            self.now += self.work_ns
        return taken

    def send_due(self, most: int) -> int:
        if self.busy:
            self.busy -= 1
            return -1
        gone = [due for due in self.due if due <= self.now]
        self.due = [due for due in self.due if due > self.now]
        self.sent += [self.now - due for due in gone]
        return len(gone)

    def next_due_ns(self) -> int | None:
        return min(self.due, default=None)

    def ready(self) -> bool:
        return self.arrivals > 0

    def ring_fd(self) -> int | None:
        return RING

    def write_ledger(self, at_least: int = 0, end: bool = False) -> None:
        self.ended += end

    @property
    def pending(self) -> int:
        return len(self.due)

    def abandon(self) -> int:
        left, self.due = len(self.due), []
        return left


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    monkeypatch.setattr(wire_loop, "time", made)
    monkeypatch.setattr(wire_loop, "select", made)
    monkeypatch.setattr(wire_loop.os, "sched_getaffinity", lambda _: {0, 1})
    return made


def run(machine: Machine, until: Callable[[], bool], wish: Drain | None = None) -> Loop:
    """Run the loop until something is true, which is then its end of input."""

    original, loop = machine.take, Loop(machine, CONTROL, lambda: False)  # type: ignore[arg-type]
    loop.drain = wish

    def take(most: int) -> int:
        if until():
            machine.readable = [CONTROL]
        return original(most)

    machine.take = take  # type: ignore[method-assign]
    loop.run()
    return loop


def test_it_wakes_before_a_frame_is_due_and_sends_it_not_before(machine: Machine) -> None:
    machine.due = [machine.now + 20 * MS]
    run(machine, lambda: bool(machine.sent))
    assert machine.seen[0] == ("select", pytest.approx(0.020 - 60e-6, abs=2e-6))
    assert 0 <= machine.sent[0] < 1000  # looked at the clock for the last 60 us


@pytest.mark.parametrize(("late_us", "low", "high"), [(100, 96, 106), (1, 9, 11), (5000, 149, 151)])
def test_it_wakes_as_early_as_the_kernel_is_late(machine: Machine, late_us: int, low: int, high: int) -> None:
    """Within limits: a kernel that is very late cannot be made up for by looking at the clock all the time."""
    machine.late_ns = late_us * 1000
    for _ in range(1200):
        machine.due.append(machine.now + (len(machine.due) + 1) * 20 * MS)
    loop = run(machine, lambda: len(machine.sent) == 1200)
    assert low * 1000 <= loop._early_ns <= high * 1000
    if late_us < 150:
        late = sorted(machine.sent[600:])
        assert late[int(0.9 * len(late))] < 2000  # nine of ten leave in time, to two microseconds


def test_with_one_processor_it_never_looks_at_the_clock(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire_loop.os, "sched_getaffinity", lambda _: {0})
    machine.late_ns = 50_000
    machine.due = [machine.now + n * 20 * MS for n in range(1, 50)]
    loop = run(machine, lambda: len(machine.sent) == 49)
    assert loop._early_ns == 0
    assert all(late >= 48_000 for late in machine.sent)


def test_a_frame_that_comes_in_ends_the_look_at_the_clock(machine: Machine) -> None:
    machine.due = [machine.now + 50_000]
    machine.work_ns = 1000
    original = machine.ready
    calls = iter(range(10))

    def ready() -> bool:
        if next(calls, 9) == 3:
            machine.arrivals = 1
        return original()

    machine.ready = ready  # type: ignore[method-assign]
    run(machine, lambda: bool(machine.sent))
    assert machine.arrivals == 0


def test_when_a_waking_a_frame_takes_most_of_the_time_it_works_in_turns(machine: Machine) -> None:
    """A frame every 40 us, 30 us of work each: woken by each of them, it would be awake for most of the time."""
    start, came = machine.now, 0
    machine.work_ns = 30_000
    idle = machine.select

    def until() -> bool:
        nonlocal came
        new = (machine.now - start) // 40_000 - came
        came, machine.arrivals = came + new, machine.arrivals + new
        return machine.now >= start + 200 * MS

    def woken_by_arrivals(fds: list[int], w: list[int], x: list[int], timeout: float) -> Found:
        if timeout and CONTROL not in machine.readable:
            machine.seen.append(("select", timeout))
            machine.now += 40_000 - (machine.now - start) % 40_000
            return [RING], [], []
        return idle(fds, w, x, timeout)

    machine.select = woken_by_arrivals  # type: ignore[method-assign]
    run(machine, until)
    later = [what for what, _ in machine.seen[len(machine.seen) // 2 :]]
    assert later.count("pause") > 100
    assert came - machine.arrivals > 4900  # nothing was left behind for it


def test_it_sleeps_again_when_the_rush_is_over(machine: Machine) -> None:
    machine.arrivals, machine.work_ns = 3200, 300_000
    end = machine.now + 2000 * MS
    loop = run(machine, lambda: machine.now >= end)
    assert loop._awake < 0.5
    assert machine.seen[0][0] == "pause" and machine.seen[-1] == ("select", 1.0)


def test_requests_are_heard_in_a_rush(machine: Machine) -> None:
    machine.arrivals, machine.work_ns = 10**9, 1 * MS
    start = machine.now
    run(machine, lambda: True)
    assert machine.now - start < 7 * MS


def test_a_busy_port_is_given_a_moment(machine: Machine) -> None:
    machine.busy = 3
    run(machine, lambda: machine.busy == 0)
    assert machine.seen[:3] == [("pause", 0.000_05)] * 3


def drain(machine: Machine, deadline_ms: int, answer_ms: int = 10**6) -> tuple[list[tuple[bool, int, int]], Drain]:
    """A wish, and its answers: over, frames left, how many milliseconds it took."""
    given: list[tuple[bool, int, int]] = []
    start = machine.now

    def done(over: bool, left: int) -> None:
        given.append((over, left, (machine.now - start) // MS))

    return given, Drain(start + deadline_ms * MS, done, start + answer_ms * MS)


def test_drained_means_nothing_pending_and_50_ms_of_silence(machine: Machine) -> None:
    given, wish = drain(machine, 3000)
    machine.due = [machine.now + 30 * MS]
    machine.last_frame_ns = machine.now
    loop = run(machine, lambda: bool(given), wish)
    ((drained, left, took_ms),) = given
    assert (drained, left, machine.ended, loop.drain) == (True, 0, 1, None)
    assert 50 <= took_ms < 62


def test_after_its_time_what_is_pending_is_abandoned(machine: Machine) -> None:
    given, wish = drain(machine, 300)
    machine.due = [machine.now + 1000 * MS] * 3
    run(machine, lambda: bool(given), wish)
    ((over, left, took_ms),) = given
    assert (over, left, machine.ended, machine.due) == (True, 3, 1, [])
    assert 300 <= took_ms < 312


def never_silent(machine: Machine, given: list[tuple[bool, int, int]]) -> Callable[[], bool]:
    def until() -> bool:
        machine.last_frame_ns = machine.read_until_ns = machine.now
        return bool(given)

    return until


def test_hosts_that_never_fall_silent_are_heard_until_the_time_is_over(machine: Machine) -> None:
    given, wish = drain(machine, 300)
    run(machine, never_silent(machine, given), wish)
    assert given[0][:2] == (True, 0) and machine.ended == 1
    assert given[0][2] >= 300


def test_once_nothing_is_let_in_any_more_nobody_has_to_be_silent(machine: Machine) -> None:
    given, wish = drain(machine, 10_000)
    machine.due = [machine.now + 500 * MS]
    machine.over_ns = machine.now + 200 * MS
    run(machine, never_silent(machine, given), wish)
    ((over, left, took_ms),) = given
    assert (over, left, machine.ended) == (True, 0, 1)
    assert 500 <= took_ms < 512, "what was let in before leaves when it is due"


def test_who_waits_hears_now_and_then_that_it_is_not_over(machine: Machine) -> None:
    given, wish = drain(machine, 60_000, answer_ms=500)
    machine.due = [machine.now + 30_000 * MS] * 2
    loop = run(machine, lambda: bool(given), wish)
    ((over, left, took_ms),) = given
    assert (over, left, machine.ended, loop.drain) == (False, 2, 0, None)
    assert 500 <= took_ms < 512 and len(machine.due) == 2
