"""What a saboteur's run shows, and what it does not where the machine was late."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from testbed.measure.records import LESS_BUSY, Judgement, Outcome, Verdict
from testbed.proving import RUNS, prove
from testbed.scenario import Scenario, parse

TEXT = """testbed: 1
hosts: {a: {run: x}}
fails_when: {it is another: {hosts: {a: {run: y}}}}
"""


def judged(outcome: Outcome, *undecided: str) -> Judgement:
    verdicts = [Verdict("inconclusive", "a.lost == 0", reason) for reason in undecided]
    return Judgement(outcome, "as it went", tuple(verdicts))


LATE = judged("inconclusive", f"a.lost is 3; try {LESS_BUSY}")
LATE_AND_SILENT = judged("error", f"a.lost is 3; try {LESS_BUSY}")
FEW = judged("inconclusive", "1,450 are too few")


def proven(*ends: Judgement) -> tuple[list[Outcome], int, Sequence[str]]:
    """The outcomes, how many runs it took, and what was said, where the runs with the saboteur end so."""
    left, said = [judged("pass"), *ends], []

    def run(what: str, one: Scenario) -> Judgement:
        return left.pop(0)

    ended, _ = prove(parse(TEXT, "s.yaml"), TEXT, "s.yaml", run, said.append)
    return [one.outcome for one in ended], 1 + len(ends) - len(left), said


@pytest.mark.parametrize("late", [LATE, LATE_AND_SILENT])
def test_a_run_for_which_the_machine_was_late_is_made_again_and_that_is_said(late: Judgement) -> None:
    outcomes, runs, said = proven(late, judged("fail"), judged("pass"))
    assert (outcomes, runs) == (["pass", "pass"], 3)
    assert [line.partition(":")[0] for line in said if line.startswith("again")] == ["again, 1 of 2"]
    assert proven(late, judged("pass"), judged("fail"))[:2] == (["pass", "fail"], 3), "and it may be found missing"


def test_not_for_ever() -> None:
    assert proven(*[LATE] * (RUNS + 1))[:2] == (["pass", "inconclusive"], 1 + RUNS)


def test_what_is_undecided_for_another_reason_or_decided_all_the_same_is_run_once() -> None:
    assert proven(FEW, judged("fail"))[:2] == (["pass", "inconclusive"], 2)
    assert proven(judged("fail", f"late: try {LESS_BUSY}"), judged("pass"))[:2] == (["pass", "pass"], 2)
    assert proven(judged("error"), judged("fail"))[:2] == (["pass", "error"], 2)
