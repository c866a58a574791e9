"""What a beginner gets wrong is said once, at its place, with what to write; `beginners.txt` has the cases."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.cli import _problems
from testbed.scenario import check
from tests.unit.beginners import Case, cases, said

CASES = cases()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_one_clear_problem_at_its_place_with_what_to_write(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "talk.yaml"
    path.write_text(case.text, encoding="utf-8")
    problems = _problems(path)
    assert said(problems) == case.expected, "\n".join(map(str, problems))
    assert all(problem.line > 0 and problem.column > 0 for problem in problems)
    assert all(problem.code and "not YAML" not in problem.message for problem in problems)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_same_with_the_line_ends_and_the_mark_of_other_systems(case: Case) -> None:
    found = said(check(case.text, "talk.yaml"))
    assert said(check(case.text.replace("\n", "\r\n"), "talk.yaml")) == found
    assert said(check("\ufeff" + case.text, "talk.yaml")) == found


def test_the_cases_are_many_and_each_has_a_name_of_its_own() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 100
