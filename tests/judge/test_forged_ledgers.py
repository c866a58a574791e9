"""Forged ledgers: each is forged in one way, on links of every kind, and rejected for that alone, never as `fail`.

Where the wire's counts would give a forgery away, they are forged as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.expect.trust import distrust
from testbed.judge import judge
from testbed.measure.records import Frame
from testbed.results import Results
from tests.judge.stored_run import (
    BACK,
    METER_BACK,
    METER_OUT,
    MS,
    OTHER_OUT,
    OUT,
    PACKETS,
    Case,
    Row,
    Table,
    good_run,
    stored,
)

rejected = Table()

# ---------------------------------------------------------------- the ledger against the dice


@rejected("error", "has the cause queue, and the dice lose it")
def a_loss_that_is_called_a_drop_of_the_queue(run: Case) -> None:
    run.change(run.find(OUT, "loss"), cause="queue")


@rejected("error", "has the cause loss, and the dice let it pass")
def a_loss_on_a_link_without_loss(run: Case) -> None:
    run.change(run.find(BACK), cause="loss", due_ns=None, sent_ns=None)


@rejected("error", "and the dice")
def a_flow_under_another_name(run: Case) -> None:
    run.records.ledger = [f._replace(flow="udp *9>9000") if f.link == OUT else f for f in run.ledger]


# ---------------------------------------------------------------- the ledger against the conditions


@rejected("error", "before its condition allows")
def jitter_that_the_dice_did_not_draw(run: Case) -> None:
    at = run.find(METER_OUT)
    run.change(at, due_ns=run.ledger[at].in_ns + 4 * MS - 1)


@rejected("error", "after its condition says")
def held_back_for_longer_than_the_longest_hold(run: Case) -> None:
    held = [i for i, f in enumerate(run.ledger) if f.link == METER_OUT and (f.due_ns or 0) - f.in_ns > 6 * MS]
    later_ns = run.ledger[held[0]].in_ns + 200 * MS
    run.change(held[0], due_ns=later_ns, sent_ns=later_ns)


@rejected("error", "was due 1 ns before its condition allows")
def due_before_the_rate_lets_it_through(run: Case) -> None:
    at = run.find(METER_BACK)
    transmission_ns = 8 * 142 * 100
    run.change(at, due_ns=run.ledger[at].in_ns + transmission_ns - 1)


@rejected("error", "the copy of number")
def a_copy_due_before_its_original_could_be(run: Case) -> None:
    at = run.find(METER_OUT, copy=True)
    run.change(at, due_ns=run.ledger[at].in_ns)


@rejected("error", "has the cause unasked and no time")
def lost_by_the_wire_and_sent(run: Case) -> None:
    run.change(run.find(OUT), cause="unasked")


@rejected("error", "came in before the run began or after it ended")
def the_ledger_of_another_time(run: Case) -> None:
    hour = 3_600_000_000_000
    for at, frame in enumerate(list(run.ledger)):
        due_ns = None if frame.due_ns is None else frame.due_ns + hour
        sent_ns = None if frame.sent_ns is None else frame.sent_ns + hour
        run.change(at, in_ns=frame.in_ns + hour, due_ns=due_ns, sent_ns=sent_ns)


@rejected("error", "a copy is not drawn for again")
def a_copy_that_the_dice_lost(run: Case) -> None:
    run.change(run.find(METER_OUT, copy=True), cause="loss", due_ns=None, sent_ns=None)
    run.recount()


@rejected("error", "with another size than its original")
def a_copy_of_another_size(run: Case) -> None:
    run.change(run.find(METER_OUT, copy=True), size_bytes=99_999)


@rejected("error", "ns before an earlier one")
def order_that_was_to_be_kept(run: Case) -> None:
    (link,) = (link for link in run.plan.links if link.id == METER_OUT)
    kept = replace(link, condition=replace(link.condition, jitter_order="kept"))
    run.plan = replace(run.plan, links=tuple(kept if one is link else one for one in run.plan.links))
    run.records.proof.start["conditions"]["links"][METER_OUT] = {"condition": kept.condition.to_json()}


# ---------------------------------------------------------------- the ledger against itself


@rejected("error", "number 1 of udp *1>9000 is the first that is there")
def a_flow_that_does_not_begin_at_zero(run: Case) -> None:
    (at,) = (i for i, f in enumerate(run.ledger) if (f.link, f.k) == (OUT, 0))
    del run.ledger[at]
    run.recount()


# ---------------------------------------------------------------- the ledger against the wire's own counts


@rejected("error", "325 frames left, and the wire counted 324")
def more_sent_than_the_wire_counted(run: Case) -> None:
    run.records.proof.end["links"][OTHER_OUT]["sent"] -= 1


@rejected("error", "frames ended by loss, and the wire counted 7")
def other_losses_than_the_wire_counted(run: Case) -> None:
    run.records.proof.end["links"][OTHER_OUT]["loss"] = 7


@rejected("error", "frames ended by queue, and the wire counted 31")
def other_drops_of_the_queue_than_the_wire_counted(run: Case) -> None:
    run.records.proof.end["links"][METER_BACK]["queue"] += 1


@rejected("error", "0 frames ended by unasked, and the wire counted 2")
def losses_of_the_wire_that_the_ledger_hides(run: Case) -> None:
    run.records.proof.end["links"][OUT]["unasked"] = 2


@rejected("error", f"the ledger of {OUT} is cut off: 0 frames entered, and the wire counted 450")
def no_line_of_one_link(run: Case) -> None:
    run.records.ledger = [f for f in run.ledger if f.link != OUT]


@rejected("error", "the latest frame left 9000000 ns late, and the wire counted 24000 ns")
def lateness_that_would_excuse_a_failure(run: Case) -> None:
    at = run.find(OUT)
    run.change(at, sent_ns=(run.ledger[at].due_ns or 0) + 9 * MS)
    run.records.proof.end["links"][OUT]["lateness_max_ns"] = 24_000


# ---------------------------------------------------------------- when the run was over


@rejected("error", "servers were stopped before sensor-2.sensor had ended")
def an_end_that_came_before_the_end(run: Case) -> None:
    run.records.stopping_ns = (run.program("sensor-2").ended_ns or 0) - 1


# ---------------------------------------------------------------- whose records these are


@rejected("error", "asked {'loss_ratio': 0.25")
def a_plan_with_another_condition(run: Case) -> None:
    links = [
        replace(link, condition=replace(link.condition, loss_ratio=0.25)) if link.id == METER_BACK else link
        for link in run.plan.links
    ]
    run.plan = replace(run.plan, links=tuple(links))
    run.records.ledger = [f for f in run.ledger if f.link != METER_BACK]
    run.recount()


@pytest.mark.parametrize("row", rejected.rows, ids=lambda row: row.name)
def test_what_is_forged_in_one_way_is_rejected_for_that_alone(row: Row) -> None:
    run = good_run()
    row.spoil(run)
    doubts = distrust(run.plan, run.records)
    assert len(doubts) == 1, doubts
    assert row.reason in doubts[0]
    assert (run.judged.outcome, run.judged.reason, run.judged.verdicts) == (row.outcome, doubts[0], ())


@pytest.mark.parametrize("row", rejected.rows, ids=lambda row: row.name)
def test_it_is_rejected_from_disk_too(row: Row, tmp_path: Path) -> None:
    run = good_run()
    row.spoil(run)
    judgement = judge(*Results(stored(run, tmp_path).path).load())
    assert judgement.outcome == row.outcome and row.reason in judgement.reason


# ---------------------------------------------------------------- any frame at all

LOSSY = [i for i, frame in enumerate(good_run().ledger) if frame.link in (OUT, OTHER_OUT)]


def taken_out(run: Case, at: int) -> None:
    del run.ledger[at]


def put_in_twice(run: Case, at: int) -> None:
    run.ledger.insert(at, Frame(*run.ledger[at]))


def lost_or_found(run: Case, at: int) -> None:
    frame = run.ledger[at]
    due_ns = frame.in_ns + 20 * MS if frame.cause else None
    run.ledger[at] = frame._replace(cause=None if frame.cause else "loss", due_ns=due_ns, sent_ns=due_ns)


def numbered_anew(run: Case, at: int) -> None:
    run.ledger[at] = run.ledger[at]._replace(k=run.ledger[at].k + 1)


def moved_to_another_flow(run: Case, at: int) -> None:
    run.ledger[at] = run.ledger[at]._replace(flow="udp *1>9001")


def made_punctual(run: Case, at: int) -> None:
    run.ledger[at] = run.ledger[at]._replace(due_ns=run.ledger[at].in_ns, sent_ns=run.ledger[at].in_ns)


WAYS = [taken_out, put_in_twice, lost_or_found, numbered_anew, moved_to_another_flow, made_punctual]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(LOSSY), st.sampled_from(WAYS))
def test_no_frame_of_a_lossy_link_can_be_touched_without_being_noticed(at: int, way: Callable[..., None]) -> None:
    """But one: a flow's last frame is taken out unseen if the wire's counts are forged too."""
    run = good_run()
    last = way is taken_out and run.ledger[at].k == PACKETS - 1
    way(run, at)
    if not last:
        run.recount()
    assert run.judged.outcome == "error", (run.judged, run.ledger[at])


# ---------------------------------------------------------------- everything at once


def test_another_seed_in_plan_and_records_alike_contradicts_every_link_with_dice() -> None:
    run = good_run()
    run.plan, run.records.seed = replace(run.plan, seed=8), 8
    doubts = distrust(run.plan, run.records)
    assert sorted(doubt.partition(" cannot")[0] for doubt in doubts) == [
        f"the ledger of {link}" for link in sorted([OUT, OTHER_OUT, METER_OUT])
    ]
    assert run.judged.reason == "; ".join(doubts)


def test_an_empty_ledger_is_believed_where_nothing_was_sent() -> None:
    run = good_run()
    run.records.ledger = []
    run.recount()
    run.expect("sensor->collector.sent == 0")
    assert run.judged.outcome == "pass", run.judged
