"""How late a process that sleeps 1 ms at a time wakes: what this machine does to any program's sense of time."""

from __future__ import annotations

import select
import time
from collections.abc import Sequence

SLEEP_S = 0.001
_STEPS = 10_000  # what is later than so many steps counts as that


class Lateness:
    """Counts of times by steps of `step_ns`, which do not grow with the run."""

    def __init__(self, step_ns: int) -> None:
        self._step_ns = step_ns
        self._counts: dict[int, int] = {}

    def add(self, late_ns: int) -> None:
        step = min(-(-max(late_ns, 0) // self._step_ns), _STEPS)
        self._counts[step] = self._counts.get(step, 0) + 1

    def p99_ns(self) -> int:
        """The 99th percentile, rounded up to a step; 0 without a sample."""
        left = sum(self._counts.values()) // 100  # this many may be later
        for step in sorted(self._counts, reverse=True):
            left -= self._counts[step]
            if left < 0:
                return step * self._step_ns
        return 0


class Canary:
    """Sleeps while it waits for input."""

    def __init__(self) -> None:
        self.late = Lateness(step_ns=10_000)

    def wait(self, descriptors: Sequence[int]) -> list[int]:
        """Those that are ready within a millisecond; a sleep that was cut short is no sample."""
        before = time.monotonic_ns()
        ready = select.select(descriptors, [], [], SLEEP_S)[0]
        if not ready:
            self.late.add(time.monotonic_ns() - before - int(SLEEP_S * 1e9))
        return ready
