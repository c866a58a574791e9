"""The run that all others are spoiled from passes, in memory and from disk; else their failing shows nothing."""

from __future__ import annotations

from pathlib import Path

from testbed.judge import judge
from testbed.results import Results
from tests.judge.stored_run import METER_BACK, METER_OUT, OUT, good_run, stored


def test_the_good_run_passes_with_every_verdict_shown() -> None:
    judgement = good_run().judged
    assert judgement.outcome == "pass", judgement
    assert judgement.counts == {"pass": 12}
    assert [v.text for v in judgement.verdicts if v.implied] == [
        "collector.collector gets ready within 10 s and lives to the end",
        "sensor-1.sensor exits 0 within 20 s",
        "sensor-2.sensor exits 0 within 20 s",
        "meter.gauge exits 0 within 1 min",
        "meter.lamp exits 0 within 1 min",
    ]
    assert judgement.verdicts[-1].because == "each of them sends 450"
    assert judgement.verdicts[-1].line == good_run().plan.expectations[-1].line > 0


def test_it_has_what_the_others_spoil() -> None:
    case = good_run()
    assert case.find(OUT, "loss") and case.find(METER_OUT, copy=True) and case.find(METER_BACK, "queue")
    late = [f for f in case.ledger if f.link == METER_OUT and f.due_ns and f.due_ns - f.in_ns > 6_000_000]
    assert late, "no frame was held back"


def test_it_is_judged_from_disk_as_from_memory(tmp_path: Path) -> None:
    case = good_run()
    results = stored(case, tmp_path)
    assert judge(*Results(results.path).load()) == case.judged


def test_judging_changes_nothing() -> None:
    case, other = good_run(), good_run()
    assert case.judged == case.judged
    assert case == other
