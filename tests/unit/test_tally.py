"""Many outcomes as one, and the last line that says how many ran and why the others did not."""

from __future__ import annotations

import pytest

from testbed.measure.records import EXIT_STATUS, Outcome
from testbed.tally import Ended, last_line, merged


@pytest.mark.parametrize(
    ("outcomes", "one"),
    [
        (["pass", "pass"], "pass"),
        (["pass", "skip", "skip"], "pass"),
        (["skip", "skip"], "skip"),
        (["skip", "inconclusive", "pass"], "inconclusive"),
        (["inconclusive", "error"], "error"),
        (["error", "fail", "pass", "skip"], "fail"),
    ],
)
def test_many_outcomes_are_one(outcomes: list[Outcome], one: Outcome) -> None:
    assert merged(outcomes) == merged(reversed(outcomes)) == one
    assert last_line([Ended("a", outcome) for outcome in outcomes]).startswith(f"{one}: ")


def test_every_outcome_has_its_place() -> None:
    assert {merged([outcome]) for outcome in EXIT_STATUS} == set(EXIT_STATUS)  # type: ignore[list-item]


def test_the_last_line_counts() -> None:
    ended = [Ended("a", "pass"), Ended("b", "fail", "x"), Ended("c", "pass")]
    assert last_line(ended) == "fail: 1 fail, 2 pass"
    assert last_line(ended, "b is odd") == "fail: 1 fail, 2 pass; b is odd"
    assert last_line([]) == "nothing was run"


def test_what_was_skipped_is_named_by_reason_with_one_command_for_all() -> None:
    ended = [
        Ended("a", "pass", "all 2 verdicts hold"),
        Ended("b", "skip", "no command nginx: apt-get install nginx"),
        Ended("c", "skip", "no command dig, nsd: apt-get install bind9-dnsutils nsd"),
        Ended("d", "skip", "no command nginx: apt-get install nginx"),
        Ended("e", "skip", "it requires sctp"),
    ]
    assert last_line(ended) == (
        "pass: 1 pass, 4 skip; 1 of 5 ran, skipped: b, d (no command nginx); c (no command dig, nsd); "
        "e (it requires sctp); to run them too: apt-get install bind9-dnsutils nginx nsd"
    )


def test_one_run_that_was_skipped_has_said_why_itself() -> None:
    assert last_line([Ended("a", "skip", "it requires sctp")]) == "skip: 1 skip"
