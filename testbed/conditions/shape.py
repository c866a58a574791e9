"""What a condition makes of one frame: drawn numbers, size and time go in, a fate comes out. No clock, no I/O.

The order in which a frame meets the parts of a condition:

1. loss. A lost frame ends here: it takes no place in the queue, is not duplicated and overtakes nobody.
2. rate and queue. One transmitter sends one frame at a time, 8 x size / rate seconds each (rounded up to a
   whole nanosecond). A frame that finds it busy waits in the queue, first in, first out; one that finds it idle
   never meets the queue's limit. The queue is what waits: the frame under transmission is not in it. A frame is
   dropped (cause "queue") if `queue_packets` frames wait already, or if it would have to wait longer than
   `queue_ns`, or if the waiting bytes would become more than `queue_bytes`. A rate without a limit has a queue
   without end.
3. duplicate. One extra copy enters the same queue right behind the frame. It is not drawn for again: its delay,
   jitter and holding are the frame's own. It has its own place in the queue, or finds none.
4. delay and jitter, counted from the end of the transmission. Jitter is drawn anew for every frame and may
   change their order, with a rate as without one: uniform in -jitter..+jitter, or normal with sigma = jitter, cut
   at 4 sigma. The sum is never negative. With `jitter_order` "kept" a frame that would leave before an earlier one
   of its link, or before that one's copy, leaves right behind it.
5. reorder. A frame that is due is held back until `reorder_by_packets` later frames have left, 100 ms at most.
   Lost, dropped and held frames do not count as overtaking, and a copy does not count a second time. Holding is
   not jitter: also where order is kept, those behind a held frame do not wait for it longer than it would have
   been in the link without being held.

`lost`, `duplicated` and `jitter_ns` are functions of the drawn numbers alone, so that a judge can ask them
again.
"""

from __future__ import annotations

from collections import deque
from statistics import NormalDist
from typing import NamedTuple

from testbed.conditions.condition import Condition
from testbed.conditions.fate import RANGE, Draws

HOLD_NS = 100_000_000  # a held frame leaves then at the latest
NORMAL_LIMIT = 4  # sigmas

_NORMAL = NormalDist()


def lost(draws: Draws, condition: Condition) -> bool:
    """Whether the dice lose the frame."""
    return draws.loss < _threshold(condition.loss_ratio)


def duplicated(draws: Draws, condition: Condition) -> bool:
    """Whether the dice give the frame a copy. A lost frame gets none."""
    return draws.duplicate < _threshold(condition.duplicate_ratio) and not lost(draws, condition)


def held(draws: Draws, condition: Condition) -> bool:
    """Whether the dice hold the frame back for others to overtake. A lost frame is not held."""
    by = condition.reorder_by_packets
    return by > 0 and draws.reorder < _threshold(condition.reorder_ratio) and not lost(draws, condition)


def jitter_ns(draws: Draws, condition: Condition) -> int:
    """What to add to the delay, in nanoseconds; at least -delay."""
    most = condition.jitter_ns
    if not most:
        return 0
    if condition.jitter_distribution == "uniform":
        offset = draws.delay * (2 * most + 1) // RANGE - most
    else:
        sigmas = _NORMAL.inv_cdf(((draws.delay >> 12) + 0.5) / (RANGE >> 12))  # 52 bits: never 0, never 1
        offset = round(most * max(-NORMAL_LIMIT, min(NORMAL_LIMIT, sigmas)))
    return max(offset, -condition.delay_ns)


class Departure(NamedTuple):
    """The end of a copy: dropped for a cause, or due at a time."""

    cause: str | None
    due_ns: int | None


class Release(NamedTuple):
    """A frame held earlier leaves at `due_ns`, behind whatever else is due then.

    Its copy leaves with it, or HOLD_NS before the copy's own `due_ns` where that is later.
    """

    ticket: int
    due_ns: int


class Fate(NamedTuple):
    """What becomes of one frame."""

    cause: str | None  # None: it leaves; "loss"; "queue"
    due_ns: int | None  # when it has to leave; of a held frame: the latest moment
    copies: tuple[Departure, ...] = ()  # none or one
    ticket: int | None = None  # not None: held; a later fate may release this ticket before `due_ns`
    released: tuple[Release, ...] = ()  # frames that this one's leaving sets free


_LOST = Fate("loss", None)


class _Held:
    __slots__ = ("due_ns", "last_ns", "missing", "ticket")

    def __init__(self, ticket: int, due_ns: int, missing: int) -> None:
        self.ticket, self.due_ns, self.missing = ticket, due_ns, missing
        self.last_ns = due_ns  # when the last of those that overtook it leaves


class Shaper:
    """The state of one link: when the transmitter is free, who waits, who is held.

    Raises ValueError if the condition contradicts itself.
    """

    def __init__(self, condition: Condition) -> None:
        check(condition)
        self.condition = condition
        self._loss = _threshold(condition.loss_ratio)
        self._duplicate = _threshold(condition.duplicate_ratio)
        self._reorder = _threshold(condition.reorder_ratio) if condition.reorder_by_packets else 0
        self._free_ns = 0  # when the transmitter ends what it has
        self._waiting: deque[tuple[int, int]] = deque()  # (when its transmission begins, size)
        self._waiting_bytes = 0
        self._kept = condition.jitter_order == "kept"
        self._last_ns = 0  # where order is kept: when the latest frame or copy so far is due, held or not
        self._held: list[_Held] = []
        self._tickets = 0

    def decide(self, draws: Draws, size_bytes: int, now_ns: int) -> Fate:
        """The fate of a frame that comes in now. `now_ns` must not go back from one call to the next."""
        if draws.loss < self._loss:
            return _LOST
        condition = self.condition
        wait_ns = condition.delay_ns
        if condition.jitter_ns:
            wait_ns += jitter_ns(draws, condition)
        through_ns = now_ns if condition.rate_bit_s is None else self._transmit(size_bytes, now_ns)
        due_ns = None if through_ns is None else self._in_turn(through_ns + wait_ns)
        copies: tuple[Departure, ...] = ()
        if draws.duplicate < self._duplicate:
            copies = (self._copy(size_bytes, now_ns, wait_ns),)
        if due_ns is None:
            return Fate("queue", None, copies)
        if draws.reorder < self._reorder:
            self._tickets += 1
            self._held.append(_Held(self._tickets, due_ns, condition.reorder_by_packets))
            copies = tuple(Departure(c.cause, c.due_ns and c.due_ns + HOLD_NS) for c in copies)
            return Fate(None, due_ns + HOLD_NS, copies, self._tickets)
        return Fate(None, due_ns, copies, None, self._overtaken(due_ns, now_ns) if self._held else ())

    def _copy(self, size_bytes: int, now_ns: int, wait_ns: int) -> Departure:
        if self.condition.rate_bit_s is None:
            return Departure(None, self._in_turn(now_ns + wait_ns))
        through_ns = self._transmit(size_bytes, now_ns)
        if through_ns is None:
            return Departure("queue", None)
        return Departure(None, self._in_turn(through_ns + wait_ns))

    def _in_turn(self, due_ns: int) -> int:
        """Not before what is due already, where order is kept."""
        if not self._kept:
            return due_ns
        self._last_ns = max(self._last_ns, due_ns)
        return self._last_ns

    def _transmit(self, size_bytes: int, now_ns: int) -> int | None:
        """When the frame's last bit is out, or None if the queue has no place."""
        rate = self.condition.rate_bit_s
        assert rate is not None
        start_ns = max(self._free_ns, now_ns)
        waiting = self._waiting
        while waiting and waiting[0][0] <= now_ns:
            self._waiting_bytes -= waiting.popleft()[1]
        if start_ns > now_ns:
            if self._full(size_bytes, start_ns - now_ns):
                return None
            waiting.append((start_ns, size_bytes))
            self._waiting_bytes += size_bytes
        self._free_ns = start_ns - (-8_000_000_000 * size_bytes // rate)
        return self._free_ns

    def _full(self, size_bytes: int, wait_ns: int) -> bool:
        condition = self.condition
        if condition.queue_packets is not None:
            return len(self._waiting) >= condition.queue_packets
        if condition.queue_bytes is not None:
            return self._waiting_bytes + size_bytes > condition.queue_bytes
        return condition.queue_ns is not None and wait_ns > condition.queue_ns

    def _overtaken(self, due_ns: int, now_ns: int) -> tuple[Release, ...]:
        """A frame leaves at `due_ns`: count it for all that are held, and say who is free."""
        released, staying = [], []
        for one in self._held:
            latest_ns = one.due_ns + HOLD_NS
            if latest_ns <= now_ns:
                continue  # left by itself
            if due_ns < latest_ns:
                one.missing -= 1
                one.last_ns = max(one.last_ns, due_ns)
            if one.missing:
                staying.append(one)
            else:
                released.append(Release(one.ticket, one.last_ns))
        self._held = staying
        return tuple(released)


def check(condition: Condition) -> None:
    """Raises ValueError, naming the field, if the condition cannot be what anybody meant."""
    c = condition
    for name in ("loss_ratio", "duplicate_ratio", "reorder_ratio"):
        if not 0 <= getattr(c, name) <= 1:
            raise ValueError(f"{name} is {getattr(c, name)}, not between 0 and 1")
    for name in ("delay_ns", "jitter_ns", "reorder_by_packets", "queue_packets", "queue_ns", "queue_bytes"):
        if (getattr(c, name) or 0) < 0:
            raise ValueError(f"{name} is negative: {getattr(c, name)}")
    if c.jitter_distribution not in ("uniform", "normal"):
        raise ValueError(f"jitter_distribution is {c.jitter_distribution!r}, not uniform or normal")
    if c.jitter_order not in ("free", "kept"):
        raise ValueError(f"jitter_order is {c.jitter_order!r}, not free or kept")
    if c.rate_bit_s is not None and c.rate_bit_s <= 0:
        raise ValueError(f"rate_bit_s is {c.rate_bit_s}, not above 0")
    limits = [n for n in ("queue_packets", "queue_ns", "queue_bytes") if getattr(c, n) is not None]
    if len(limits) > 1:
        raise ValueError(f"more than one limit of the queue: {', '.join(limits)}")
    if limits and c.rate_bit_s is None:
        raise ValueError(f"{limits[0]} without rate_bit_s: nothing ever waits")


def _threshold(ratio: float) -> int:
    """How many of the 2**64 numbers mean yes: exact, because the factor is a power of two."""
    return int(ratio * RANGE)
