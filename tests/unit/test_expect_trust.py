"""Ledgers as the shaper makes them are believed, whatever the condition; and no frame can be moved in one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.conditions.condition import Condition
from testbed.conditions.fate import Stream
from testbed.conditions.shape import HOLD_NS, Shaper
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
    if not without_end:
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
