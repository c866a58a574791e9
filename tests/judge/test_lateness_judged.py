"""What a late wire excuses: an upper bound on time that was just missed, and what a program counted or said.

The wire can only add delay, and it is on record by how much. What is compared with the ledger is never excused.
"""

from __future__ import annotations

import re

import pytest

from testbed.expect.evidence import EXCUSED_NS
from tests.judge.stored_run import BACK, METER_OUT, MS, OTHER_OUT, OUT, START_NS, Case, good_run

MICROSECOND = 1000
WAY, TRIP = "collector->sensor-1.one_way_delay.max", "sensor-1.round_trip_delay.max"  # 20.024 ms, 40.048 ms


def late(run: Case, **p99_us: int) -> None:
    """Lateness of the way out, of the way back, of the meter's way out, of the canary; of all others none.

    And how long the programs of three hosts waited for a processor: the client's, its server's, another's.
    """
    hosts = {"cpu": "sensor-1", "cpu_peer": "collector", "cpu_other": "sensor-2"}
    run.records.proof.end["cpu_wait_p99_ns"] = {
        host: p99_us.pop(name, 0) * MICROSECOND for name, host in hosts.items()
    }
    for link in run.plan.links:
        run.lateness(link.id, 0)
    run.records.proof.canary_p99_ns = p99_us.pop("canary", 0) * MICROSECOND
    names = {"out": OUT, "back": BACK, "meter": METER_OUT, "other": OTHER_OUT}
    for name, us in p99_us.items():
        run.lateness(names[name], us * MICROSECOND)


ROWS: dict[str, tuple[str, dict[str, int], str, str]] = {
    # what is shown -> (expectation, lateness in us, outcome, reason)
    "a bound that holds is a pass however late": (f"{WAY} <= 20.024 ms", {"back": 9000}, "pass", "20.024 ms"),
    "missed without lateness": (f"{WAY} <= 20 ms", {}, "fail", "is 20.024 ms, not <= 20 ms"),
    "missed by less than the lateness": (f"{WAY} <= 20 ms", {"back": 25}, "inconclusive", "late by 25 us"),
    "missed by just the lateness": (f"{WAY} <= 20 ms", {"back": 24}, "inconclusive", "late by 24 us"),
    "missed by more than the lateness": (f"{WAY} <= 20 ms", {"back": 23}, "fail", "is 20.024 ms, not <= 20 ms"),
    "an open bound, missed by just the lateness": (f"{WAY} < 20 ms", {"back": 24}, "fail", "not < 20 ms"),
    "the lateness of another link": (f"{WAY} <= 20 ms", {"out": 900, "other": 900}, "fail", "not <= 20 ms"),
    "the canary is not a link's": (f"{WAY} <= 20 ms", {"canary": 900}, "fail", "not <= 20 ms"),
    "a window missed at its upper end": (f"{WAY} between 19 ms and 20 ms", {"back": 30}, "inconclusive", "30 us"),
    "a window missed by more": (f"{WAY} between 18 ms and 19 ms", {"back": 30}, "fail", "not between 18 ms and"),
    "a tolerance missed upwards": (f"{WAY} ~ 19 ms +- 1 ms", {"back": 30}, "inconclusive", "late by 30 us"),
    "a round trip is late both ways": (f"{TRIP} <= 40 ms", {"out": 24, "back": 24}, "inconclusive", "by 48 us"),
    "a round trip later than both": (f"{TRIP} <= 40 ms", {"out": 24, "back": 23}, "fail", "not <= 40 ms"),
    "a round trip is not late on others' links": (f"{TRIP} <= 40 ms", {"other": 90, "meter": 90}, "fail", ""),
    "a program that waited for a processor": (f"{TRIP} <= 40 ms", {"cpu": 48}, "inconclusive", "by 48 us"),
    "a peer that waited for one": (f"{TRIP} <= 40 ms", {"cpu_peer": 48}, "inconclusive", "by 48 us"),
    "wait and wire together": (f"{TRIP} <= 40 ms", {"cpu": 20, "cpu_peer": 20, "out": 8}, "inconclusive", "48 us"),
    "wait and wire, not enough": (f"{TRIP} <= 40 ms", {"cpu": 20, "cpu_peer": 20, "out": 7}, "fail", "not <="),
    "somebody else waited": (f"{TRIP} <= 40 ms", {"cpu_other": 9000}, "fail", "not <= 40 ms"),
    "the wire does not wait for programs": (f"{WAY} <= 20 ms", {"cpu": 900, "cpu_peer": 900}, "fail", "not <="),
    "a lower bound": (f"{WAY} >= 20.025 ms", {"back": 9000}, "fail", "is 20.024 ms, not >= 20.025 ms"),
    "a window missed at its lower end": (f"{WAY} between 20.1 ms and 21 ms", {"back": 9000}, "fail", "not betw"),
    "a tolerance missed downwards": (f"{WAY} ~ 22 ms +- 1 ms", {"back": 9000}, "fail", "not 22 ms +- 1 ms"),
    "a count": ("sensor-1.lost <= 137", {"out": 9000, "back": 9000}, "fail", "is 138, not <= 137"),
    "a ratio": ("sensor-1->collector.loss_ratio <= 30 %", {"out": 9000}, "fail", "30.6667 %"),
    "a delay that is infinite": (
        "sensor-1->collector.one_way_delay.max < 1 s", {"out": 9000}, "fail", "infinite (a lost packet)",
    ),
    "late on the right side of a lower bound": (
        f"sensor-1->collector.one_way_delay.min >= {WAY}", {"back": 4}, "inconclusive", "late by 4 us",
    ),
    "late on the wrong side of a lower bound": (
        f"sensor-1->collector.one_way_delay.min >= {WAY}", {"out": 900}, "fail", "is 20.024 ms",
    ),
    "late, and taken twice": (f"sensor-1.duration >= 12.511 x {TRIP}", {"out": 9, "back": 9}, "inconclusive", ""),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_lateness_excuses_of_times_an_upper_bound_and_nothing_else(name: str) -> None:
    text, p99_us, outcome, reason = ROWS[name]
    run = good_run()
    late(run, **p99_us)
    run.expect(text)
    verdict = run.judged.verdicts[-1]
    assert verdict.outcome == outcome and reason in verdict.reason, verdict


def test_where_no_link_is_watched_the_canary_speaks_for_the_machine() -> None:
    run = good_run()
    late(run, canary=1000)
    run.expect("meter.lamp.duration < 1 ms")  # the lamp took 1 ms; its host's links were punctual
    before = run.judged.verdicts[-1]
    assert before.outcome == "fail"
    run.unlink()
    after = run.judged.verdicts[-1]
    assert after.outcome == "inconclusive" and "late by 1 ms" in after.reason


def test_a_verdict_that_lateness_leaves_open_says_what_to_change() -> None:
    run = good_run()
    run.expect(f"{WAY} <= 20 ms")
    assert "try a less busy machine, a `rate` on the link, or a wider bound" in run.judged.reason
    assert run.judged.outcome == "inconclusive"


# ---------------------------------------------------------------- a delay that is only lateness

AWAY = "sensor-1->collector.one_way_delay.median"  # 20 ms, and here 5 ms late


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        (f"{AWAY} >= 20 ms", "pass"),
        (f"{AWAY} >= 20.001 ms", "inconclusive"),
        (f"{AWAY} > 24.9 ms", "inconclusive"),
        (f"{AWAY} > 27 ms", "fail"),
        (f"{AWAY} between 24 ms and 26 ms", "inconclusive"),
        (f"{AWAY} ~ 25 ms +- 1 ms", "inconclusive"),
        (f"{AWAY} <= 26 ms", "pass"),
        (f"{AWAY} >= 1.2 x collector->sensor-1.one_way_delay.min", "inconclusive"),
        (f"collector->sensor-1.one_way_delay.min < {AWAY} - 1 ms", "inconclusive"),
        ("sensor-1->collector.one_way_delay.max >= 1 s", "pass"),  # a lost one, infinite however late the others
        ("sensor-1->collector.one_way_delay.count >= 450", "pass"),
        ("sum of sensor->collector.one_way_delay.median >= 42 ms", "inconclusive"),
    ],
)
def test_a_bound_on_a_links_delay_that_only_lateness_meets_is_undecided(text: str, outcome: str) -> None:
    """Or a saboteur that takes the delay away would pass where the machine is late enough."""
    run = good_run()
    run.ledger[:] = [
        f._replace(sent_ns=f.due_ns + 5 * MS) if f.link == OUT and f.sent_ns is not None and f.due_ns else f
        for f in run.ledger
    ]
    run.recount()
    run.lateness(OUT, 0)  # what is known frame by frame needs no bound
    run.expect(text)
    verdict = run.judged.verdicts[-1]
    assert verdict.outcome == outcome, verdict
    if outcome == "inconclusive" and "~" not in text and "between" not in text:
        assert re.search(r"does not hold without the 5(\.023)? ms by which this machine was late", verdict.reason)
        assert "try a less busy machine" in verdict.reason


# ---------------------------------------------------------------- timers that ran out


def delayed(run: Case, link: str, late_ms: float, nth: int = 20) -> None:
    """One frame leaves so late."""
    at = run.find(link, nth=nth)
    run.change(at, sent_ns=(run.ledger[at].due_ns or 0) + int(late_ms * MS))


EXCUSES = "a timer may have run out over that: try a less busy machine"
LATE_ENOUGH = EXCUSED_NS / MS + 1


@pytest.mark.parametrize(
    ("late", "outcome"),
    [
        ({}, "fail"),
        ({OUT: LATE_ENOUGH}, "inconclusive"),
        ({BACK: LATE_ENOUGH}, "inconclusive"),
        ({OUT: 50}, "inconclusive"),  # and 24 us on the way back
        ({OUT: 49.9}, "fail"),
        ({OUT: 26, BACK: 26}, "inconclusive"),
        ({OTHER_OUT: 90, METER_OUT: 90}, "fail"),
    ],
    ids=["none", "there", "back", "there, and a little back", "not enough", "both together", "of others"],
)
@pytest.mark.parametrize(
    "text",
    [
        "sensor-1.lost <= 137",
        "sensor-1.lost == 5",
        "sensor-1.loss_ratio ~ 10 %",
        "sensor-1.round_trip_delay.count == 450",
        "sensor-1.state == bad",
        "sensor-1.stdout contains nothing",
        "sensor-1.kernel.TcpRetransSegs > 0",
        "sensor-1.sent <= 90 % of sensor-1.lost",
    ],
)
def test_what_a_program_counted_or_said_is_undecided_if_frames_of_its_host_were_late(
    text: str, late: dict[str, float], outcome: str
) -> None:
    run = good_run()
    for link, ms in late.items():
        delayed(run, link, ms)
    run.expect(text)
    verdict = run.judged.verdicts[-1]
    assert verdict.outcome == outcome, verdict
    assert (EXCUSES in verdict.reason) is (outcome == "inconclusive")


@pytest.mark.parametrize(
    "text",
    [
        "sensor-1.lost == sensor->collector.delivered",
        "sensor-1.sent == 1 + sensor-1->collector.sent",
        "sensor-1->collector.dropped == 0",
        "sensor-1->collector.loss_ratio ~ 50 %",
        "sensor-1->collector.delivered <= sensor-1.lost",
        "sensor-1.sent <= sum of sensor->collector.delivered - 1000",
        "sensor-1.round_trip_delay.min >= 41 ms",
    ],
)
def test_what_is_compared_with_the_ledger_and_a_lower_bound_on_time_have_no_such_excuse(text: str) -> None:
    run = good_run()
    for link in (OUT, BACK):
        delayed(run, link, 300)
    run.expect(text)
    assert run.judged.verdicts[-1].outcome == "fail", run.judged.verdicts[-1]


def test_lateness_takes_nothing_from_what_holds() -> None:
    run = good_run()
    delayed(run, OUT, 30)
    delayed(run, BACK, 30)
    run.expect("sensor-1.lost == 138", "sensor-1.sent == 450")
    assert run.judged.outcome == "pass", run.judged


@pytest.mark.parametrize(
    ("exit", "outcome"),
    [(1, "inconclusive"), ("SIGSEGV", "fail"), ("timeout", "fail"), ("flood", "fail"), ("SIGKILL", "fail")],
)
def test_a_program_may_end_by_itself_because_of_a_late_wire_and_in_no_other_way(
    exit: int | str, outcome: str
) -> None:
    """As ping does, whose timer ran out: implied, written out, and of what it did not come to report."""
    run = good_run()
    delayed(run, OUT, LATE_ENOUGH)
    program = run.program("sensor-1")
    program.exit, program.stdout = exit, b""
    run.expect("sensor-1.lost == 138")
    implied = run.verdict("sensor-1.sensor exits 0")
    assert (implied.outcome, EXCUSES in implied.reason) == (outcome, outcome == "inconclusive")
    assert run.judged.verdicts[-1].outcome == outcome
    run.expect("sensor-1.exit == 0")
    assert run.judged.verdicts[-1].outcome == outcome


def test_a_server_that_gave_up_by_itself_is_excused_too() -> None:
    run = good_run()
    collector = run.program("collector")
    collector.exit, collector.stopped = 1, False
    assert run.verdict("collector.collector gets ready").outcome == "fail"
    delayed(run, OUT, LATE_ENOUGH)
    assert run.verdict("collector.collector gets ready").outcome == "inconclusive"


def test_of_a_group_only_those_who_were_late_are_excused() -> None:
    run = good_run()
    delayed(run, OUT, LATE_ENOUGH)
    run.expect("every sensor.lost == 1", "any sensor.lost == 1", "sum of sensor.lost == 1", "sensor-2.lost == 1")
    every, some, total, other = run.judged.verdicts[-4:]
    assert [v.outcome for v in (every, some, total, other)] == ["fail", "inconclusive", "inconclusive", "fail"]
    assert EXCUSES not in every.reason, "sensor-2 has failed on a punctual wire"


def test_what_was_late_after_the_end_excuses_nothing() -> None:
    run = good_run()
    run.records.stopping_ns = START_NS + 505 * MS
    at = run.find(BACK, nth=-1)
    run.change(at, in_ns=START_NS + 506 * MS, due_ns=START_NS + 526 * MS, sent_ns=START_NS + 700 * MS)
    run.records.ledger = sorted(run.ledger, key=lambda f: (f.in_ns, f.link, f.flow, f.k, f.copy))
    run.expect("sensor-1.lost == 1")
    assert run.judged.verdicts[-1].outcome == "fail", run.judged
