"""What the ledger says of one link, against the definitions written out a second, slow way."""

from __future__ import annotations

import math
import random
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.measure.link_metrics import LINK_METRICS, LinkFrames, by_link
from testbed.measure.records import Frame
from testbed.measure.samples import Counts, Samples

LINK = "a->b over lan"


def frame(k: int, cause: str | None = None, delay_ns: int = 10, copy: bool = False, link: str = LINK) -> Frame:
    in_ns = 1000 + 100 * k
    out = None if cause else in_ns + delay_ns
    return Frame(in_ns, link, "udp *1>9", k, 100 + k, cause, copy, out, out)


def value(frames: list[Frame], name: str) -> object:
    found = LinkFrames(frames).samples(name)
    return found.values[0] if len(found.values) == 1 else list(found.values)


MIXED = [
    frame(0),
    frame(1, "loss"),
    frame(2, "queue"),
    frame(3, delay_ns=350),  # overtaken by 4 and 5
    frame(4),
    frame(5),
    frame(5, delay_ns=40, copy=True),
    frame(6, "loss"),
    frame(6, "queue", copy=True),
    frame(7, "unasked"),
    frame(8),
]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sent", 9),
        ("delivered", 5),
        ("dropped", 3),
        ("queue_dropped", 1),
        ("duplicated", 1),
        ("reordered", 1),
        ("bytes", 100 + 103 + 104 + 105 + 108),
        ("loss_ratio", Counts(3, 9)),
        ("loss_period", [2, 1]),
        ("one_way_delay", [10, math.inf, math.inf, 350, 10, 10, math.inf, 10]),
    ],
)
def test_each_metric(name: str, expected: object) -> None:
    assert value(MIXED, name) == expected
    assert (
        value(random.Random(1).sample(MIXED, len(MIXED)), name) == expected
    )  # the order of the records is nothing


def test_every_metric_of_a_silent_link_is_nothing() -> None:
    silent = {name: LinkFrames([]).samples(name).values for name in LINK_METRICS}
    assert silent == {
        **{name: [0] for name in LINK_METRICS},
        "loss_ratio": [Counts(0, 0)],
        "loss_period": [],
        "one_way_delay": [],
    }


def test_what_the_wire_lost_is_counted_by_itself() -> None:
    assert LinkFrames(MIXED).unasked == 1 and LinkFrames([]).unasked == 0


def test_an_unknown_metric_is_refused() -> None:
    with pytest.raises(KeyError):
        LinkFrames([]).samples("latency")


def test_links_are_told_apart() -> None:
    ledger = [frame(0), frame(0, "loss", link="b->a over lan"), frame(1)]
    found = by_link(ledger)
    assert {link: frames.samples("sent") for link, frames in found.items()} == {
        LINK: Samples("number", [2]),
        "b->a over lan": Samples("number", [1]),
    }


@given(st.lists(st.integers(0, 1000), max_size=40))
def test_reordered_is_rfc_4737s_singleton(delays: list[int]) -> None:
    frames = [frame(k, delay_ns=delay) for k, delay in enumerate(delays)]
    arrivals = sorted(range(len(frames)), key=lambda k: (frames[k].sent_ns, k))
    slow = sum(any(earlier > k for earlier in arrivals[:place]) for place, k in enumerate(arrivals))
    assert value(frames, "reordered") == slow


@given(st.lists(st.sampled_from([None, "loss", "queue"]), max_size=40))
def test_the_counts_add_up(causes: list[str | None]) -> None:
    frames = LinkFrames([frame(k, cause) for k, cause in enumerate(causes)])
    count = {name: frames.samples(name).values[0] for name in ("sent", "delivered", "dropped")}
    assert count["sent"] == len(causes) == count["delivered"] + count["dropped"]  # type: ignore[operator]
    periods = frames.samples("loss_period").values
    assert sum(periods) == count["dropped"]  # type: ignore[arg-type]
    assert len(periods) == sum(key for key, _ in groupby(cause is not None for cause in causes))


# ---------------------------------------------------------------- the end of the run


def counted(until_ns: int | None, *frames: Frame) -> list[int]:
    """Which frames of the list the metrics see."""
    seen = LinkFrames(frames, until_ns).frames
    return [number for number, one in enumerate(frames) if one in seen]


END = 1500


@pytest.mark.parametrize(
    ("frames", "seen"),
    [
        ([frame(0, delay_ns=500)], [0]),
        ([frame(0, delay_ns=501)], []),
        ([frame(0), frame(5, delay_ns=0)], [0, 1]),
        ([frame(0), frame(6)], [0]),
        ([frame(0), frame(5, "loss"), frame(6, "loss")], [0, 1]),
        ([frame(0), frame(1, "loss"), frame(2, delay_ns=900), frame(3, "loss"), frame(4, "queue")], [0, 1]),
        ([frame(2, delay_ns=900), frame(3), frame(3, delay_ns=900, copy=True)], [1]),
        ([frame(0), frame(1, "unasked"), frame(7, "unasked")], [0, 1]),
    ],
    ids=[
        "left at the last moment",
        "left after it",
        "came in and left at the last moment",
        "came in later",
        "dropped before and after",
        "dropped before and behind one that is under way",
        "overtook one that is under way, and a copy that is",
        "lost by the wire",
    ],
)
def test_what_is_under_way_at_the_end_counts_nowhere(frames: list[Frame], seen: list[int]) -> None:
    assert counted(END, *frames) == seen
    assert counted(None, *frames) == list(range(len(frames))), "where no end is on record"


def test_with_loss_the_end_favours_neither_those_that_are_lost_nor_the_others() -> None:
    """Half of the frames are lost, and each is under way for a tenth of the run: the ratio stays one half."""
    dice = random.Random(1)
    frames = [frame(k, dice.choice([None, "loss"]), delay_ns=20_000) for k in range(2000)]
    (ratio,) = LinkFrames(frames, 1000 + 100 * 1999).samples("loss_ratio").values
    assert isinstance(ratio, Counts) and 1795 <= ratio.of <= 1805
    assert abs(ratio.ratio - 0.5) < 0.04
