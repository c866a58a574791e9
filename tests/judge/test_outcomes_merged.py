"""Which outcome wins when there are several, and what a file that must not pass makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import pytest

from testbed.expect.evaluate import Evaluator
from testbed.measure.records import EXIT_STATUS, SEVERITY
from tests.judge.stored_run import OUT, Case, good_run

TEXTS = {
    "fail": "sensor-1.lost == 1",
    "error": "sensor-1.nonsense == 1",
    "inconclusive": "meter.gauge.level.p99 < 1 s",
    "pass": "sensor-1.lost == 138",
}
SUBSETS = [set(some) for n in range(1, 5) for some in combinations(TEXTS, n)]


@pytest.mark.parametrize("outcomes", SUBSETS, ids=lambda some: "+".join(sorted(some)))
def test_the_worst_verdict_is_the_outcome(outcomes: set[str]) -> None:
    """fail > error > inconclusive > pass. What is implied of the five programs passes in all of them."""
    run = good_run()
    run.expect(*(text for outcome, text in TEXTS.items() if outcome in outcomes))
    judgement = run.judged
    assert judgement.counts == {
        outcome: (outcome in outcomes) + (5 if outcome == "pass" else 0) for outcome in [*outcomes, "pass"]
    }
    assert judgement.outcome == next(one for one in TEXTS if one in {*outcomes, "pass"})


def test_the_order_is_that_of_the_format_and_every_outcome_has_its_status() -> None:
    assert SEVERITY == ("fail", "error", "inconclusive", "pass", "skip")
    assert EXIT_STATUS == {"pass": 0, "fail": 1, "error": 3, "skip": 4, "inconclusive": 5}


def test_the_reason_is_of_the_first_of_the_worst_and_says_how_many_more() -> None:
    run = good_run()
    run.expect("meter.gauge.level.p99 < 1 s", "sensor-1.lost == 1", "sensor-1.lost == 2", "sensor-1.lost == 3")
    assert run.judged.reason == "sensor-1.lost == 1: sensor-1.lost is 138, not 1 (and 2 more)"


def unlit() -> Case:
    """One program says that it cannot do its part here; all others do theirs."""
    run = good_run()
    run.reports("meter.lamp", {"unsupported": "no mains here"})
    run.expect(TEXTS["pass"])
    return run


def test_a_program_that_cannot_do_this_here_makes_a_skip_of_what_would_pass() -> None:
    run = unlit()
    assert run.judged.outcome == "skip" and "meter.lamp says: no mains here" in run.judged.reason
    assert run.verdict("meter.lamp exits").outcome == "skip"
    assert run.verdict(TEXTS["pass"]).outcome == "pass"


def test_it_hides_no_crash_of_another_program_no_broken_expectation_and_no_fault_of_the_network() -> None:
    run = unlit()
    run.records.proof.problems.append(("inconclusive", OUT, "the ring was full"))
    assert run.judged.outcome == "inconclusive"
    run.expect("sensor-1.lost is 138")
    outcomes = [run.judged.outcome]
    run.program("meter.gauge").exit = "SIGSEGV"
    run.records.proof.problems.clear()
    assert [*outcomes, run.judged.outcome] == ["error", "fail"]


# ---------------------------------------------------------------- ends:


def ending_as(outcome: str) -> Case:
    """A run that ends so, with a reason that has its own name in it."""
    run = good_run()
    match outcome:
        case "fail":
            run.program("sensor-1").exit = 3
        case "error":
            run.records.error = "the agent died"
        case "inconclusive":
            run.records.proof.problems.append(("inconclusive", OUT, "the ring was full"))
        case "skip":
            run.records.skip = "no Docker here"
    return run


REASON = {"fail": "ended with status 3", "error": "the agent died", "inconclusive": "the ring was full"}


@pytest.mark.parametrize("wanted", REASON)
@pytest.mark.parametrize("actual", [*REASON, "pass", "skip"])
def test_a_file_that_must_not_pass(wanted: str, actual: str) -> None:
    run = ending_as(actual)
    before = run.judged
    assert before.outcome == actual
    run.ends(wanted, REASON[wanted])
    after = run.judged
    assert after.verdicts == before.verdicts
    assert before.reason in after.reason
    if actual == wanted:
        assert after.outcome == "pass" and f"ended as {wanted}, as the file says" in after.reason
    elif actual == "skip":
        assert after.outcome == "skip"
    else:
        assert after.outcome == (actual if actual in ("error", "inconclusive") else "fail")
        assert f"it ended as {actual}" in after.reason


@pytest.mark.parametrize("wanted", REASON)
def test_it_must_not_pass_for_another_reason(wanted: str) -> None:
    run = ending_as(wanted)
    run.ends(wanted, "the moon was full")
    assert run.judged.outcome == "fail"
    assert f"ends as {wanted} because of 'the moon was full'; but the reason was: " in run.judged.reason


def test_the_reason_may_be_that_of_any_verdict_which_ended_so() -> None:
    run = ending_as("fail")
    run.program("sensor-2").exit = "SIGSEGV"
    run.ends("fail", "was ended by SIGSEGV")
    assert "SIGSEGV" not in good_run().judged.reason and run.judged.outcome == "pass"


def test_the_reason_of_a_verdict_that_ended_otherwise_is_none() -> None:
    run = ending_as("fail")
    run.ends("fail", "sensor-2.sensor ended with status 0")
    assert run.judged.outcome == "fail"


# ---------------------------------------------------------------- a judge that breaks


@pytest.fixture
def crashing(monkeypatch: pytest.MonkeyPatch) -> Iterator[Case]:
    """A good run, and an evaluator that crashes at the second of three expectations."""
    right = Evaluator.evaluate

    def evaluate(self: Evaluator, parsed: object) -> object:
        if "sensor-2" in str(parsed):
            raise ZeroDivisionError("a defect of ours")
        return right(self, parsed)  # type: ignore[arg-type]

    monkeypatch.setattr(Evaluator, "evaluate", evaluate)
    run = good_run()
    run.expect("sensor-1.lost == 138", "sensor-2.lost == 125", "sensor-1.sent == 450")
    yield run


def test_a_crash_in_one_verdict_is_the_error_of_that_one(crashing: Case) -> None:
    judgement = crashing.judged
    assert [v.outcome for v in judgement.verdicts[-3:]] == ["pass", "error", "pass"]
    assert "a defect of ours" in judgement.verdicts[-2].reason and judgement.verdicts[-2].line == 91
    assert judgement.outcome == "error"


def test_a_crash_hides_no_fail(crashing: Case) -> None:
    crashing.program("sensor-1").exit = 3
    assert crashing.judged.outcome == "fail"


def test_a_crash_outside_every_verdict_is_an_error_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> list[str]:
        raise KeyError("a defect of ours")

    monkeypatch.setattr("testbed.judge.distrust", broken)
    judgement = good_run().judged
    assert (judgement.outcome, judgement.verdicts) == ("error", ())
    assert "the judge itself failed" in judgement.reason and "a defect of ours" in judgement.reason
