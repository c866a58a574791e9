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


ONE_LINE = [case for case in CASES if case.expected.count("@") == case.expected.count("\n|") == 1]


@pytest.mark.parametrize("case", ONE_LINE, ids=lambda case: case.name)
def test_pasting_the_line_that_is_shown_mends_the_file(case: Case) -> None:
    [problem] = check(case.text, "talk.yaml")
    lines = case.text.split("\n")
    lines[problem.line - 1] = problem.hint.split("\n")[1]
    if problem.code not in ("key-missing", "key-order", "shape", "link-form"):  # in place of several, or beside
        assert [str(left) for left in check("\n".join(lines), "talk.yaml")] == []


def test_the_cases_are_many_and_each_has_a_name_of_its_own() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 100
