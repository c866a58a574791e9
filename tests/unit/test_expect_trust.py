"""Ledgers as the shaper makes them are believed, whatever the condition; and no frame can be moved in one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.conditions.condition import Condition
from testbed.conditions.fate import Stream
from testbed.conditions.shape import HOLD_NS, Shaper, held
from testbed.expect.trust import ledger_disagrees
from testbed.measure.records import Frame
from testbed.plan.types import Plan
from tests.judge.good_run import plan_of

MS = 10**6
FLOW = "udp *1>9000"
PLAN = plan_of()
LINK = PLAN.links[0].id


def planned(condition: Condition) -> Plan:
    return replace(PLAN, links=(replace(PLAN.links[0], condition=condition),))


def crossing(condition: Condition, arrivals: list[tuple[int, int]]) -> list[Frame]:
    """What the wire writes of frames of one flow: (nanoseconds after the one before, size). Sent when due."""
    shaper, held, found = Shaper(condition), dict[int, list[int]](), list[Frame]()
    in_ns = 1000 * MS
    for k, (draws, (gap_ns, size)) in enumerate(zip(Stream(PLAN.seed, LINK, FLOW), arrivals, strict=False)):
        in_ns += gap_ns
        fate = shaper.decide(draws, size, in_ns)
        for copy, (cause, due_ns) in enumerate([(fate.cause, fate.due_ns), *fate.copies]):
            if fate.ticket is not None and due_ns is not None:
                held.setdefault(fate.ticket, []).append(len(found))
            found.append(Frame(in_ns, LINK, FLOW, k, size, cause, bool(copy), due_ns, due_ns))
        for ticket, due_ns in fate.released:
            for place in held.pop(ticket):
                frame = found[place]
                assert frame.due_ns is not None
                leaves_ns = max(due_ns, frame.due_ns - HOLD_NS) if frame.copy else due_ns
                found[place] = frame._replace(due_ns=leaves_ns, sent_ns=leaves_ns)
    return sorted(found, key=lambda frame: (frame.in_ns, frame.k, frame.copy))


def _conditions() -> Iterator[st.SearchStrategy[Condition]]:
    common = {
        "delay_ns": st.integers(0, 20 * MS),
        "jitter_ns": st.integers(0, 5 * MS),
        "jitter_distribution": st.sampled_from(["uniform", "normal"]),
        "jitter_order": st.sampled_from(["free", "kept"]),
        "loss_ratio": st.sampled_from([0.0, 0.1, 0.5]),
        "duplicate_ratio": st.sampled_from([0.0, 0.2]),
        "reorder_ratio": st.sampled_from([0.0, 0.2]),
        "reorder_by_packets": st.integers(0, 3),
    }
    rate = st.integers(10_000, 10**8)
    yield st.builds(Condition, **common)
    yield st.builds(Condition, **common, rate_bit_s=rate)
    yield st.builds(Condition, **common, rate_bit_s=rate, queue_packets=st.integers(0, 5))
    yield st.builds(Condition, **common, rate_bit_s=rate, queue_bytes=st.integers(0, 5000))
    yield st.builds(Condition, **common, rate_bit_s=rate, queue_ns=st.integers(0, 20 * MS))


CONDITIONS = st.one_of(*_conditions())
ARRIVALS = st.lists(st.tuples(st.integers(0, 3 * MS), st.integers(60, 1514)), min_size=1, max_size=60)


@settings(max_examples=200, deadline=None)
@given(CONDITIONS, ARRIVALS)
def test_whatever_the_shaper_decides_is_believed(condition: Condition, arrivals: list[tuple[int, int]]) -> None:
    ledger = crossing(condition, arrivals)
    assert ledger_disagrees(planned(condition), ledger) == []


@settings(max_examples=200, deadline=None)
@given(CONDITIONS, ARRIVALS, st.data())
def test_no_frame_is_due_earlier_or_much_later(
    condition: Condition, arrivals: list[tuple[int, int]], data: st.DataObject
) -> None:
    ledger = crossing(condition, arrivals)
    sent = [place for place, frame in enumerate(ledger) if frame.cause is None]
    if not sent:
        return
    place = data.draw(st.sampled_from(sent))
    frame = ledger[place]
    assert frame.due_ns is not None
    early_ns = frame.in_ns + max(0, condition.delay_ns - 5 * condition.jitter_ns) - 1
    ledger[place] = frame._replace(due_ns=early_ns, sent_ns=early_ns)
    assert "before its condition allows" in ledger_disagrees(planned(condition), ledger)[0]
    without_end = condition.rate_bit_s is not None and (
        condition.queue_packets is condition.queue_bytes is condition.queue_ns is None
    )
    if not without_end and condition.jitter_order == "free":
        late_ns = frame.due_ns + 10**11
        ledger[place] = frame._replace(due_ns=late_ns, sent_ns=late_ns)
        assert "after its condition says" in ledger_disagrees(planned(condition), ledger)[0]


@settings(max_examples=200, deadline=None)
@given(CONDITIONS, ARRIVALS, st.integers(0, 10**9))
def test_with_another_seed_the_same_ledger_is_not_believed_if_it_says_anything_random(
    condition: Condition, arrivals: list[tuple[int, int]], seed: int
) -> None:
    """Only what the ledger shows can contradict: a link without dice has the same fates under every seed."""
    ledger = crossing(condition, arrivals)
    other = replace(planned(condition), seed=seed)
    shown = [(frame.cause == "loss", frame.copy) for frame in ledger]
    again = [(f.cause == "loss", f.copy) for f in _thrown(condition, arrivals, seed)]
    if shown != again:
        assert ledger_disagrees(other, ledger)


def _thrown(condition: Condition, arrivals: list[tuple[int, int]], seed: int) -> list[Frame]:
    from testbed.conditions.shape import duplicated, lost

    found = []
    for k, (draws, _) in enumerate(zip(Stream(seed, LINK, FLOW), arrivals, strict=False)):
        found.append(Frame(0, LINK, FLOW, k, 0, "loss" if lost(draws, condition) else None, False, None, None))
        if duplicated(draws, condition):
            found.append(Frame(0, LINK, FLOW, k, 0, None, True, None, None))
    return found


# ---------------------------------------------------------------- where order is kept

IN_ORDER = Condition(delay_ns=20 * MS, jitter_ns=5 * MS, jitter_order="kept")
SLOWLY = replace(IN_ORDER, rate_bit_s=8_000_000, queue_packets=50)
HOLDING = replace(IN_ORDER, reorder_ratio=0.3, reorder_by_packets=2)
A_MS_APART = [(MS, 100)] * 40


def moved(ledger: list[Frame], k: int, by_ns: int) -> list[Frame]:
    return [
        frame._replace(due_ns=frame.due_ns + by_ns, sent_ns=frame.sent_ns + by_ns)
        if frame.k == k and frame.due_ns and frame.sent_ns
        else frame
        for frame in ledger
    ]


@pytest.mark.parametrize("condition", [IN_ORDER, HOLDING], ids=["plain", "holding"])
def test_where_order_is_kept_no_frame_can_be_moved_by_a_nanosecond(condition: Condition) -> None:
    """Without a rate there is one moment for each frame that is not held, and no other is believed."""
    ledger, plan = crossing(condition, A_MS_APART), planned(condition)
    dice = [draws for draws, _ in zip(Stream(PLAN.seed, LINK, FLOW), A_MS_APART, strict=False)]
    free = [f.k for f in ledger if not held(dice[f.k], condition)]
    assert ledger_disagrees(plan, ledger) == [] and len(free) > 20
    assert all(ledger_disagrees(plan, moved(ledger, k, by_ns)) for k in free for by_ns in (-1, 1))


def test_with_a_rate_a_frame_cannot_be_due_before_an_earlier_one_or_wait_longer_than_the_queue_is() -> None:
    ledger, plan = crossing(SLOWLY, A_MS_APART), planned(SLOWLY)
    assert ledger_disagrees(plan, ledger) == []
    together = [b.k for a, b in pairwise(ledger) if a.due_ns == b.due_ns]
    assert len(together) > 5
    for k in together:
        (reason,) = ledger_disagrees(plan, moved(ledger, k, -1))
        assert "before" in reason
    assert ledger_disagrees(plan, moved(ledger, 39, 60 * MS))


def test_where_order_is_kept_nobody_leaves_before_an_earlier_one() -> None:
    ledger, plan = crossing(IN_ORDER, A_MS_APART), planned(IN_ORDER)
    late = [f._replace(sent_ns=(f.due_ns or 0) + 30 * MS) if f.k == 10 else f for f in ledger]
    (reason,) = ledger_disagrees(plan, late)
    gap_ns = (late[10].sent_ns or 0) - (late[11].sent_ns or 0)
    assert reason.endswith(f"number 11 of udp *1>9000 left {gap_ns} ns before an earlier one")
    assert ledger_disagrees(planned(replace(IN_ORDER, jitter_order="free")), late), (
        "nor is it what free jitter makes"
    )


def test_what_free_jitter_makes_is_not_believed_of_a_link_that_keeps_order() -> None:
    free = replace(IN_ORDER, jitter_order="free")
    assert "before an earlier one" in ledger_disagrees(planned(IN_ORDER), crossing(free, A_MS_APART))[0]
    assert "after its condition says" in ledger_disagrees(planned(free), crossing(IN_ORDER, A_MS_APART))[0]
