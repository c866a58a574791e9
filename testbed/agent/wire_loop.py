"""The one thread of the wire: when to read, when to send, when to sleep, and how to wake in time.

`select` counts in microseconds where `epoll` rounds to milliseconds. The kernel wakes a sleeper late, so the
loop wakes early and looks at the clock until the frame is due. How early follows from how late the kernel was
before: a fixed 150 us made nothing more punctual than 60 us did, took twice the processor time, and an ordinary
user's wire was then preempted for it. With one processor, looking at the clock would only keep the others from
it: there the loop does not.

All this costs a waking a frame. Where that keeps the loop awake for most of the time, it takes turns instead: it
sleeps for a moment, whatever is due, and then does all there is. With a real-time schedule it would otherwise
fill a processor, be throttled for it by the kernel, and keep the programs under test waiting.
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
MOST_AWAKE = 0.5  # of the time; above, the loop takes turns
AWAKE_OVER_NS = 10_000_000  # the time over which that is a mean
PAUSE_S = 0.000_05
IDLE_LEDGER_BYTES = 64 << 10
ONE_S_NS = 1_000_000_000  # the longest sleep


class Drain:
    """A wish to be told when nothing is under way any more. By `deadline_ns` it has to be so.

    `done` is called with whether it is, and how many frames were dropped for it (or are pending, if it is not yet
    so by `answer_ns`).
    """

    def __init__(self, deadline_ns: int, done: Callable[[bool, int], None], answer_ns: int) -> None:
        self.deadline_ns, self.done, self.answer_ns = deadline_ns, done, answer_ns


class Loop:
    """Runs `path` until `on_input` returns False. `on_input` is called when `control_fd` can be read."""

    def __init__(self, path: Path, control_fd: int, on_input: Callable[[], bool]) -> None:
        self.drain: Drain | None = None
        self._path, self._control_fd, self._on_input = path, control_fd, on_input
        self._early_ns = EARLY_NS if len(os.sched_getaffinity(0)) > 1 else 0
        self._next_control_ns = 0
        self._woke_ns = time.monotonic_ns()
        self._awake = 0.0

    def run(self) -> None:
        path, clock = self._path, time.monotonic_ns
        while True:
            taken = path.take(TAKE_A_TURN)
            sent = path.send_due(SEND_A_TURN)
            if self.drain:
                self._look_at_drain()
            path.write_ledger(LEDGER_WRITE_BYTES)
            if sent < 0:
                self._pause()
            elif not (taken or sent) and not self._rest():
                return
            if clock() >= self._next_control_ns and not self._sleep(0.0):
                return

    def _rest(self) -> bool:
        """Nothing to do: sleep, or look at the clock for the last moment before a frame is due. False: the end."""
        if self._awake > MOST_AWAKE:
            self._pause()
            return True
        path, clock = self._path, time.monotonic_ns
        due_ns = path.next_due_ns()
        gap_ns = ONE_S_NS if due_ns is None else due_ns - clock() - self._early_ns
        if due_ns is None or gap_ns > 0:
            if gap_ns > 1_000_000:
                path.write_ledger(IDLE_LEDGER_BYTES)
            return self._sleep(min(gap_ns, 10_000_000 if self.drain else ONE_S_NS) / 1e9)
        ready = path.ready
        while clock() < due_ns and not ready():
            pass
        return True

    def _pause(self) -> None:
        """Sleep for a moment, whatever happens in it."""
        before_ns = time.monotonic_ns()
        time.sleep(PAUSE_S)
        self._note_sleep(before_ns, time.monotonic_ns())

    def _sleep(self, timeout_s: float) -> bool:
        """Sleep until a frame or a request comes, or the time is over. False at the end of input."""
        ring_fd = self._path.ring_fd()
        fds = [self._control_fd] if ring_fd is None else [ring_fd, self._control_fd]
        before_ns = time.monotonic_ns()
        readable, _, _ = select.select(fds, [], [], timeout_s)
        now_ns = time.monotonic_ns()
        self._note_sleep(before_ns, now_ns)
        self._next_control_ns = now_ns + CONTROL_EVERY_NS
        if timeout_s and not readable and self._early_ns:
            late_ns = now_ns - before_ns - int(timeout_s * 1e9)
            step_ns = EARLIER_NS if late_ns > self._early_ns else -LATER_NS
            self._early_ns = min(max(self._early_ns + step_ns, LEAST_EARLY_NS), MOST_EARLY_NS)
        return self._control_fd not in readable or self._on_input()

    def _note_sleep(self, before_ns: int, now_ns: int) -> None:
        """Keep the mean of how much of the time the loop is awake."""
        whole_ns = max(1, now_ns - self._woke_ns)
        awake = (before_ns - self._woke_ns) / whole_ns
        self._awake += (awake - self._awake) * whole_ns / (whole_ns + AWAKE_OVER_NS)
        self._woke_ns = now_ns

    def _look_at_drain(self) -> None:
        """Answer the drain. What is pending after its time is dropped, and on record.

        It is over when nothing is pending and nothing came in for a while, or nothing is let in any more.
        """
        drain, path = self.drain, self._path
        assert drain is not None
        now_ns = time.monotonic_ns()
        quiet = now_ns - path.last_frame_ns >= QUIET_NS and not path.ready()
        over = path.pending == 0 and (quiet or path.read_until_ns > path.over_ns)
        if not over and now_ns < min(drain.deadline_ns, drain.answer_ns):
            return
        self.drain = None
        left = path.pending
        if over or now_ns >= drain.deadline_ns:
            over, left = True, path.abandon()
            path.write_ledger(end=True)
        drain.done(over, left)
