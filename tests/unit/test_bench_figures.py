"""A figure says whether it met its aim, and the table says what was not measured."""

from __future__ import annotations

import pytest

from benchmarks.figures import Figure, Skipped, alternately, table


@pytest.mark.parametrize(
    ("figure", "met", "aim"),
    [
        (Figure("x", 3.0, "s", "y", 2.0, most=1.5), True, "<= 1.5 x"),
        (Figure("x", 3.1, "s", "y", 2.0, most=1.5), False, "<= 1.5 x"),
        (Figure("x", 80.0, "/s", least=80), True, ">= 80 /s"),
        (Figure("x", 79.0, "/s", least=80), False, ">= 80 /s"),
        (Figure("x", 79.0, "/s"), None, ""),
    ],
)
def test_an_aim_is_met_or_missed(figure: Figure, met: bool | None, aim: str) -> None:
    assert (figure.met, figure.aim) == (met, aim)


def test_the_table_has_every_row() -> None:
    rows = [Figure("a run", 0.512, "s", "imports", 0.256, most=1.5), Skipped("a peer", "not installed")]
    head, figure, skipped = table(rows).splitlines()
    assert head.split() == ["what", "ours", "beside", "theirs", "ratio", "aim"]
    assert figure.split() == [
        "a",
        "run",
        "0.512",
        "s",
        "imports",
        "0.256",
        "s",
        "2.00",
        "x",
        "<=",
        "1.5",
        "x",
        "missed",
    ]
    assert skipped.split("  ")[0] == "a peer" and "not measured: not installed" in skipped


def test_what_is_compared_is_measured_in_turns() -> None:
    order: list[str] = []

    def measure(name: str, values: list[float]) -> float:
        order.append(name)
        return values.pop(0)

    ours, theirs = [3.0, 1.0, 2.0], [30.0, 10.0, 20.0]
    found = alternately(3, lambda: measure("ours", ours), lambda: measure("theirs", theirs))
    assert found == [2.0, 20.0]
    assert order == ["ours", "theirs"] * 3
