"""What the ledger says of one link: the metrics of RFC 7679, 7680, 3357 and 4737, counted frame by frame.

What is counted ends when programs are told to stop: nobody is sure to receive what is under way then, so it is
neither delivered nor lost, and in no metric. Nor is a frame that was dropped behind the first of these: of two
that came in one after the other, the link would else count the one that it lost and not the one that it did not.

A link's frames are sorted once; each metric is then a pass over them. Copies (made by `duplicate`) count for
`duplicated` and for nothing else: a packet that arrived twice was delivered once (RFC 5560).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import groupby
from typing import Literal

from testbed.measure.records import Frame
from testbed.measure.samples import Counts, Dimension, Samples
from testbed.measure.statistics import quantile

LINK_METRICS: dict[str, Dimension] = {
    "sent": "number",
    "delivered": "number",
    "dropped": "number",
    "queue_dropped": "number",
    "duplicated": "number",
    "reordered": "number",
    "bytes": "size",
    "loss_ratio": "ratio",
    "loss_period": "number",
    "one_way_delay": "time",
}
MANY_SAMPLES = frozenset({"loss_period", "one_way_delay"})

_DROPPED = ("loss", "queue")


class LinkFrames:
    """The frames of one link until a moment. What the wire lost by itself ("unasked") is in `sent` alone."""

    def __init__(self, frames: Iterable[Frame], until_ns: int | None = None) -> None:
        self.frames = list(frames) if until_ns is None else _until(list(frames), until_ns)

    @cached_property
    def originals(self) -> list[Frame]:
        """Without copies, in the order in which they were sent into the link."""
        return sorted((f for f in self.frames if not f.copy), key=lambda f: (f.in_ns, f.k))

    @cached_property
    def delivered(self) -> list[Frame]:
        """The originals that arrived, in the order of sending."""
        return [f for f in self.originals if f.cause is None]

    @property
    def unasked(self) -> int:
        """Frames, copies too, that the wire itself lost."""
        return sum(f.cause == "unasked" for f in self.frames)

    def lateness_p99_ns(self) -> int:
        """How long after they were due its frames left, at the 99th percentile; 0 if none left."""
        late = sorted(f.sent_ns - f.due_ns for f in self.frames if f.sent_ns is not None and f.due_ns is not None)
        return int(quantile(late, 99)) if late else 0

    @cached_property
    def latest_ns(self) -> int:
        """How long after it was due the latest of its frames left; 0 if none left."""
        late = (f.sent_ns - f.due_ns for f in self.frames if f.sent_ns is not None and f.due_ns is not None)
        return max(late, default=0)

    def samples(self, name: str) -> Samples:
        """One of LINK_METRICS. Raises KeyError for another name."""
        dimension = LINK_METRICS[name]
        if name in MANY_SAMPLES:
            return Samples(dimension, self._delays("sent_ns") if name == "one_way_delay" else self._loss_periods())
        if name == "loss_ratio":
            return Samples(dimension, [Counts(self._dropped(), len(self.originals))])
        return Samples(dimension, [self._count(name)])

    def due_samples(self, name: str) -> Samples:
        """The same had every frame left when it was due."""
        if name != "one_way_delay":
            return self.samples(name)
        return Samples(LINK_METRICS[name], self._delays("due_ns"))

    def _count(self, name: str) -> int:
        match name:
            case "sent":
                return len(self.originals)
            case "delivered":
                return len(self.delivered)
            case "dropped":
                return self._dropped()
            case "queue_dropped":
                return sum(f.cause == "queue" for f in self.originals)
            case "duplicated":
                return sum(f.copy and f.cause is None for f in self.frames)
            case "reordered":
                return self._reordered()
            case _:
                return sum(f.size_bytes for f in self.delivered)

    def _dropped(self) -> int:
        return sum(f.cause in _DROPPED for f in self.originals)

    def _reordered(self) -> int:
        """RFC 4737, section 3.3: a packet is reordered if one that was sent after it arrived before it."""
        arrivals = sorted((f.sent_ns or 0, number) for number, f in enumerate(self.delivered))
        count, following = 0, 0
        for _, number in arrivals:
            if number < following:
                count += 1
            else:
                following = number + 1
        return count

    def _loss_periods(self) -> list[int]:
        """RFC 3357, section 4: the lengths of the runs of consecutive losses, in packets."""
        fates = groupby(f.cause in _DROPPED for f in self.originals)
        return [sum(1 for _ in period) for lost, period in fates if lost]

    def _delays(self, until: Literal["sent_ns", "due_ns"]) -> list[int | float]:
        """RFC 7679: one sample a packet, infinite for one that was lost. What the wire lost is not known."""
        return list(self._each_delay(until))

    def _each_delay(self, until: Literal["sent_ns", "due_ns"]) -> Iterator[int | float]:
        for frame in self.originals:
            if frame.cause is None and (left_ns := getattr(frame, until)) is not None:
                yield left_ns - frame.in_ns
            elif frame.cause in _DROPPED:
                yield math.inf


def _until(frames: list[Frame], until_ns: int) -> list[Frame]:
    """Without those that were under way then or came in later, and those that were dropped behind them."""
    beyond = [frame.in_ns for frame in frames if frame.sent_ns is not None and frame.sent_ns > until_ns]
    first_ns = min(beyond, default=until_ns + 1)
    return [
        frame
        for frame in frames
        if (frame.in_ns < min(first_ns, until_ns + 1) if frame.sent_ns is None else frame.sent_ns <= until_ns)
    ]


def by_link(ledger: Iterable[Frame], until_ns: int | None = None) -> dict[str, LinkFrames]:
    """The whole ledger, one pass: link id -> its frames until that moment."""
    lists: defaultdict[str, list[Frame]] = defaultdict(list)
    for frame in ledger:
        lists[frame.link].append(frame)
    return {link: LinkFrames(frames, until_ns) for link, frames in lists.items()}
