"""What links carry after programs are told to stop counts nowhere; what was due before must be there."""

from __future__ import annotations

import re

from tests.judge.stored_run import MS, OTHER_OUT, OUT, PACKETS, START_NS, Case, good_run


def ends_in_the_middle(run: Case) -> None:
    """The last `run` ends 300 ms after the start, and servers are told to stop 20 ms later."""
    for record in run.records.programs.values():
        if record.kind == "run":
            record.ended_ns = START_NS + 300 * MS
    run.records.stopping_ns = START_NS + 321 * MS


def test_the_good_run_has_an_end_and_passes() -> None:
    run = good_run()
    assert run.records.stopping_ns is not None
    assert run.judged.outcome == "pass", run.judged


def test_what_comes_later_is_in_no_metric_and_is_not_lost() -> None:
    run = good_run()
    ends_in_the_middle(run)
    stop_ns = START_NS + 321 * MS
    mine = [f for f in run.ledger if f.link == OUT]
    first = next(
        f.k for f in mine if f.sent_ns is not None and f.sent_ns > stop_ns
    )  # one a millisecond, none overtakes
    delivered = sum(f.sent_ns is not None and f.sent_ns <= stop_ns for f in mine)
    assert 300 <= first <= 310 and delivered < first
    run.expect(
        f"sensor-1->collector.sent == {first}",
        f"sensor-1->collector.delivered == {delivered}",
        f"sensor-1->collector.dropped == {first - delivered}",
        f"sensor-1->collector.one_way_delay.count == {first}",
        "collector->sensor-1.dropped == 0",
    )
    assert [v.outcome for v in run.judged.verdicts if not v.implied] == ["pass"] * 5, run.judged


def test_what_should_have_been_delivered_before_and_was_not_leaves_both_ends_undecided() -> None:
    run = good_run()
    at = run.find(OUT, nth=100)
    run.change(at, sent_ns=(run.records.stopping_ns or 0) + 1)
    run.expect("sensor-1.sent == 450", "sensor-1.sent == 449", "sensor-2.sent == 449")
    holds, fails, elsewhere = run.judged.verdicts[-3:]
    assert (holds.outcome, fails.outcome, elsewhere.outcome) == ("inconclusive", "inconclusive", "fail")
    assert "1 frame that was in sensor-1->collector" in fails.reason


def test_a_run_that_was_cut_short_owes_nothing_to_what_was_under_way() -> None:
    run = good_run()
    run.records.fail = "the run was not over within its timeout of 1 s: x"
    run.records.stopping_ns = START_NS + 300 * MS
    run.expect(f"{OTHER_OUT.partition(' over')[0]}.sent >= 1")
    assert [v.outcome for v in run.judged.verdicts if not v.implied] == ["pass"], run.judged


def test_records_without_an_end_count_everything() -> None:
    """As those of versions before it was on record."""
    run = good_run()
    run.records.stopping_ns = None
    run.expect(f"sensor-1->collector.sent == {PACKETS}")
    assert run.judged.outcome == "pass", run.judged


def test_what_servers_say_while_they_are_stopped_may_have_been_counted_or_not() -> None:
    """A device that sends for ever and who collects it are told to stop at once: nobody can say who was first."""
    run = good_run()
    ends_in_the_middle(run)
    all_of_it = "sensor-1->collector.delivered + sensor-2->collector.delivered"
    run.expect(
        f"collector.received == {all_of_it}",
        f"collector.received <= {all_of_it}",
        f"collector.received == {all_of_it} + 1000",
        f"collector.received == {all_of_it} - 1",
        f"collector.received >= {all_of_it}",
        f"collector.received >= {all_of_it} + 1000",
    )
    found = [v for v in run.judged.verdicts if not v.implied]
    assert [v.outcome for v in found] == ["inconclusive", "inconclusive", "fail", "fail", "pass", "fail"], found
    assert re.search("[0-9]+ frames left .* while programs were being stopped", found[0].reason), found


def test_where_nothing_was_said_while_servers_were_stopped_a_wrong_count_is_wrong() -> None:
    run = good_run()
    run.expect("collector.received == sensor-1->collector.delivered")
    assert [v.outcome for v in run.judged.verdicts if not v.implied] == ["fail"], run.judged
