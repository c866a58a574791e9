"""What programs said and what not: dead before a word (fail), well and silent (error), or never begun (neither).

Each row changes one program of the good run and asks one thing of it.
"""

from __future__ import annotations

import pytest

from tests.judge.stored_run import BACK, METER_BACK, METER_OUT, OTHER_OUT, OUT, Case, Row, Table, good_run

judged = Table()

# ---------------------------------------------------------------- dead before it reported, or silent


@judged("fail", "sensor-1.sensor ended with status 1 before it reported `lost`")
def crashed_before_it_reported(run: Case) -> None:
    run.program("sensor-1").exit, run.program("sensor-1").stdout = 1, b""
    run.expect("sensor-1.exit == 1", "sensor-1.lost == 138")


@judged("fail", "did not end within its timeout of 20 s and was stopped before it reported `lost`")
def timed_out_before_it_reported(run: Case) -> None:
    run.program("sensor-1").exit, run.program("sensor-1").stdout = "timeout", b""
    run.expect("sensor-1.exit == timeout", "sensor-1.lost == 138")


@judged("pass", "sensor-1.lost is 138")
def crashed_when_it_had_reported(run: Case) -> None:
    run.program("sensor-1").exit = 1
    run.expect("sensor-1.exit == 1", "sensor-1.lost == 138")


@judged("error", "sensor-1 never reported `lost`; it reported nothing")
def ended_well_and_silent(run: Case) -> None:
    run.program("sensor-1").stdout = b"all done\n"
    run.expect("sensor-1.lost == 138")


@judged("error", "sensor-1 never reported `lost`; it reported last, sent, delay; did you mean `last`?")
def ended_well_and_said_something_else(run: Case) -> None:
    run.reports("sensor-1", {"last": 4, "sent": 5, "delay_ms": 3})
    run.expect("sensor-1.lost == 138")


@judged("error", "collector never reported `stored`; it reported received, payload")
def a_server_that_we_stopped_and_that_was_silent(run: Case) -> None:
    run.program("collector").exit = "SIGTERM"
    run.expect("collector.stored == 1")


@judged("fail", "meter.gauge ended with status 1 before it reported `level`")
def a_foreign_program_that_crashed_before_it_printed(run: Case) -> None:
    run.program("meter.gauge").exit, run.program("meter.gauge").stdout = 1, b"oh\n"
    run.expect("meter.gauge.exit == 1", "meter.gauge.level.max < 1 s")


@judged("error", r"meter.gauge.level: nothing in its output matches /level (\d+)/")
def a_foreign_program_that_never_printed_it(run: Case) -> None:
    run.program("meter.gauge").stdout = b"oh\n"
    run.expect("meter.gauge.level.max < 1 s")


@judged("pass", "meter.gauge.level.count is 0")
def how_often_it_printed_is_a_count_even_if_never(run: Case) -> None:
    run.program("meter.gauge").stdout = b"oh\n"
    run.expect("meter.gauge.level.count == 0")


@judged("error", "meter.gauge.mood: nothing in its output matches state.mood")
def a_record_without_the_path_that_the_file_names(run: Case) -> None:
    run.reports("meter.gauge", {"state": {"colour": "red"}}, {"mood": "calm"})
    run.expect("meter.gauge.mood == calm")


# ---------------------------------------------------------------- reports that are no values


@judged("error", "`fast` is a text, and the name says time")
def a_word_where_a_time_should_be(run: Case) -> None:
    run.reports("sensor-1", {"pace_ms": "fast"})
    run.expect("sensor-1.pace < 1 s")


@judged("error", "139 of 138 is no ratio with its counts")
def more_than_all_of_them(run: Case) -> None:
    run.reports("sensor-1", {"loss_ratio": {"count": 139, "of": 138}})
    run.expect("sensor-1.loss_ratio ~ 30 %")


@judged("error", "it was reported as number and as text")
def a_number_and_then_a_word(run: Case) -> None:
    run.reports("sensor-1", {"mood": 3}, {"mood": "calm"})
    run.expect("sensor-1.mood.count == 2")


@judged("error", "sensor-1 never reported `lost`")
def lines_that_are_no_json(run: Case) -> None:
    run.program("sensor-1").stdout = b'{"lost": 138\n[{"lost": 138}]\n{"lost": NaN}\nx {"lost": 138}\n'
    run.expect("sensor-1.lost == 138")


@judged("pass", "sensor-1.lost is 138")
def a_record_between_anything_else(run: Case) -> None:
    run.program("sensor-1").stdout = b'\xff\xfe{\n  {"lost": 138}  \r\n{"a":\n'
    run.expect("sensor-1.lost == 138")


@judged("inconclusive", "0 of 0")
def a_ratio_of_nothing(run: Case) -> None:
    run.reports("sensor-1", {"loss_ratio": {"count": 0, "of": 0}})
    run.expect("sensor-1.loss_ratio < 40 %")


@judged("error", "~ needs a tolerance")
def a_ratio_without_its_counts(run: Case) -> None:
    run.reports("sensor-1", {"loss_ratio": 0.3})
    run.expect("sensor-1.loss_ratio ~ 30 %")


@judged("fail", "30.0001 %, not <= 30 %")
def a_ratio_is_compared_exactly(run: Case) -> None:
    run.reports("sensor-1", {"loss_ratio": 0.300001})
    run.expect("sensor-1.loss_ratio <= 30 %")


@judged("error", "sensor-1.lost has 2 samples: say which value is meant, as in sensor-1.lost.max")
def two_reports_where_one_is_meant(run: Case) -> None:
    run.reports("sensor-1", {"lost": 138}, {"lost": 139})
    run.expect("sensor-1.lost == 138")


# ---------------------------------------------------------------- never begun


@judged("inconclusive", "meter.lamp was never started: meter.gauge ended with status 1")
def kept_from_starting_by_one_that_ended_badly(run: Case) -> None:
    run.program("meter.gauge").exit = 1
    run.never_started("meter.lamp")
    run.expect("meter.gauge.exit == 1", "meter.lamp.brightness > 0")


@judged("inconclusive", "meter.lamp was never started: meter.gauge was not started either")
def kept_from_starting_by_one_that_was_kept_too(run: Case) -> None:
    run.never_started("meter.gauge")
    run.never_started("meter.lamp")
    run.expect("meter.lamp.duration < 1 s")


@judged("inconclusive", "meter.lamp was never started: meter.gauge ended with status 1")
def asked_for_the_output_of_one_that_was_kept_from_starting(run: Case) -> None:
    run.program("meter.gauge").exit = 1
    run.never_started("meter.lamp")
    run.expect("meter.gauge.exit == 1", 'meter.lamp.stdout contains "on"')


@judged("inconclusive", "meter.lamp was never started: meter.gauge ended with status 1")
def asked_for_what_one_that_never_started_did_not_say(run: Case) -> None:
    """It said nothing at all: that shows nothing."""
    run.program("meter.gauge").exit = 1
    run.never_started("meter.lamp")
    run.expect("meter.gauge.exit == 1", "meter.lamp.stderr does not contain Traceback")


@judged("fail", "meter.lamp.lives is 0, not 1")
def asked_whether_it_lived(run: Case) -> None:
    run.never_started("meter.lamp")
    run.expect("meter.lamp.lives == 1")


# ---------------------------------------------------------------- the network excuses


def problem(run: Case, outcome: str, who: str) -> None:
    run.records.proof.problems.append((outcome, who, "the ring was full"))


@judged("inconclusive", "sensor-1.lost is 138, not 1; the ring was full")
def failed_beside_a_link_that_lost_frames_by_itself(run: Case) -> None:
    problem(run, "inconclusive", BACK)
    run.expect("sensor-1.lost == 1")


@judged("fail", "sensor-2.lost is 125, not 1")
def failed_beside_links_that_did_not(run: Case) -> None:
    problem(run, "inconclusive", BACK)
    run.expect("sensor-2.lost == 1")


@judged("error", "sensor-2.lost is 125, not 1; on a network not proven: the ring was full")
def failed_on_a_network_that_is_not_as_asked_anywhere(run: Case) -> None:
    problem(run, "error", METER_OUT)
    run.expect("sensor-2.lost == 1")


@judged("inconclusive", "the wire itself lost 1 frame on meter->collector over lan")
def a_copy_that_the_wire_itself_lost(run: Case) -> None:
    run.change(run.find(METER_OUT, copy=True), cause="unasked", sent_ns=None)
    run.expect("meter->collector.duplicated == 10")


@judged("error", "sensor-1 never reported `nonsense`")
def an_error_is_not_excused(run: Case) -> None:
    problem(run, "inconclusive", "")
    run.expect("sensor-1.nonsense == 1")


@pytest.mark.parametrize("row", judged.rows, ids=lambda row: row.name)
def test_the_last_verdict_is(row: Row) -> None:
    run = good_run()
    row.spoil(run)
    verdict = run.judged.verdicts[-1]
    assert verdict.outcome == row.outcome and row.reason in verdict.reason, verdict


@pytest.mark.parametrize("row", judged.rows, ids=lambda row: row.name)
def test_the_run_is_no_better_than_its_last_verdict(row: Row) -> None:
    order = ["fail", "error", "inconclusive", "pass"]
    run = good_run()
    row.spoil(run)
    assert order.index(run.judged.outcome) <= order.index(row.outcome)


# ---------------------------------------------------------------- which verdicts a lost frame touches


@pytest.mark.parametrize(
    ("lossy", "touched"),
    [
        (OUT, {OUT, "sensor-1", "collector"}),
        (BACK, {BACK, "sensor-1", "collector"}),
        (METER_BACK, {METER_BACK, "meter", "collector"}),
        ("sensor-1", {OUT, BACK, "sensor-1", "collector"}),
        ("", {OUT, BACK, OTHER_OUT, METER_BACK, "sensor-1", "sensor-2", "meter", "collector"}),
    ],
)
def test_what_a_lost_frame_leaves_undecided_is_its_link_and_the_programs_at_its_ends(
    lossy: str, touched: set[str]
) -> None:
    asked = {
        OUT: "sensor-1->collector.sent == 450",
        BACK: "collector->sensor-1.sent == 312",
        OTHER_OUT: "sensor-2->collector.sent == 450",
        METER_BACK: "collector->meter.sent == 60",
        "sensor-1": "sensor-1.sent == 450",
        "sensor-2": "sensor-2.kernel.UdpInDatagrams == 102",
        "meter": "meter.gauge.mood == calm",
        "collector": "collector.received == 637",
    }
    run = good_run()
    problem(run, "inconclusive", lossy)
    run.expect(*asked.values())
    found = dict(zip(asked, run.judged.verdicts[-len(asked) :], strict=True))
    assert {who for who, verdict in found.items() if verdict.outcome == "inconclusive"} == touched
    assert {verdict.outcome for who, verdict in found.items() if who not in touched} <= {"pass"}
    assert run.judged.outcome == "inconclusive"
