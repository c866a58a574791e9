"""The one thread of the wire: when to read, when to send, when to sleep, and how to wake in time.

`select` counts in microseconds where `epoll` rounds to milliseconds. The kernel wakes a sleeper late, so the
loop wakes early and looks at the clock until the frame is due. How early follows from how late the kernel was
before: a fixed 150 us made nothing more punctual than 60 us did, took twice the processor time, and an ordinary
user's wire was then preempted for it. With one processor, looking at the clock would only keep the others from
it: there the loop does not.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable

from testbed.agent.wire_path import LEDGER_WRITE_BYTES, Path

EARLY_NS = 60_000  # wake so much before a frame is due, at first
LEAST_EARLY_NS, MOST_EARLY_NS = 10_000, 150_000
EARLIER_NS, LATER_NS = 3_800, 200  # steps up and down; their ratio settles where 95 % of wakings are early enough
QUIET_NS = 50_000_000  # drained: nothing pending, and nothing came in for so long
TAKE_A_TURN, SEND_A_TURN = 32, 256  # the ring has room for thousands; what is due has not the time
CONTROL_EVERY_NS = 5_000_000  # how often a busy loop looks for requests
BUSY_PAUSE_S = 0.000_05
IDLE_LEDGER_BYTES = 64 << 10
LONGEST_SLEEP_S = 1.0


class Drain:
    """A wish to be told when nothing is under way any more, or that it is not so by `deadline_ns`."""

    def __init__(self, deadline_ns: int, done: Callable[[bool, int], None]) -> None:
        self.deadline_ns, self.done = deadline_ns, done


class Loop:
    """Runs `path` until `on_input` returns False. `on_input` is called when `control_fd` can be read."""

    def __init__(self, path: Path, control_fd: int, on_input: Callable[[], bool]) -> None:
        self.drain: Drain | None = None
        self._path, self._control_fd, self._on_input = path, control_fd, on_input
        self._early_ns = EARLY_NS if len(os.sched_getaffinity(0)) > 1 else 0
        self._next_control_ns = 0

    def run(self) -> None:
        path = self._path
        while True:
            taken = path.take(TAKE_A_TURN)
            sent = path.send_due(SEND_A_TURN)
            if sent < 0:
                time.sleep(BUSY_PAUSE_S)
            if self.drain:
                self._look_at_drain()
            path.write_ledger(LEDGER_WRITE_BYTES)
            timeout_s = 0.0 if taken or sent else self._spare_time_s()
            if (timeout_s or time.monotonic_ns() >= self._next_control_ns) and not self._wait(timeout_s):
                return

    def _spare_time_s(self) -> float:
        """How long to sleep; 0 if there is work. Looks at the clock itself for the last moment before a frame."""
        path, clock = self._path, time.monotonic_ns
        due_ns = path.next_due_ns()
        if due_ns is None:
            path.write_ledger(IDLE_LEDGER_BYTES)
            return 0.01 if self.drain else LONGEST_SLEEP_S
        gap_ns = due_ns - clock() - self._early_ns
        if gap_ns > 0:
            if gap_ns > 1_000_000:
                path.write_ledger(IDLE_LEDGER_BYTES)
            return min(gap_ns / 1e9, 0.01 if self.drain else LONGEST_SLEEP_S)
        ready = path.ready
        while clock() < due_ns and not ready():
            pass
        return 0.0

    def _wait(self, timeout_s: float) -> bool:
        """Sleep until a frame or a request comes, or the time is over. False at the end of input."""
        ring_fd = self._path.ring_fd()
        fds = [self._control_fd] if ring_fd is None else [ring_fd, self._control_fd]
        wake_ns = time.monotonic_ns() + int(timeout_s * 1e9)
        readable, _, _ = select.select(fds, [], [], timeout_s)
        now_ns = time.monotonic_ns()
        self._next_control_ns = now_ns + CONTROL_EVERY_NS
        if timeout_s and not readable and self._early_ns:
            step_ns = EARLIER_NS if now_ns - wake_ns > self._early_ns else -LATER_NS
            self._early_ns = min(max(self._early_ns + step_ns, LEAST_EARLY_NS), MOST_EARLY_NS)
        return self._control_fd not in readable or self._on_input()

    def _look_at_drain(self) -> None:
        """Answer the drain if it is over. What is pending after its time is dropped, and on record."""
        drain, path = self.drain, self._path
        assert drain is not None
        now_ns = time.monotonic_ns()
        quiet = now_ns - path.last_frame_ns >= QUIET_NS and not path.ready()
        if path.pending == 0 and quiet:
            left = 0
        elif now_ns >= drain.deadline_ns:
            left = path.abandon()
        else:
            return
        self.drain = None
        path.write_ledger(end=True)
        drain.done(left == 0 and quiet, left)
