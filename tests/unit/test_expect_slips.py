"""Expectations that are none, rewritten to what was meant; other tools' names for what a program reports."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.expect.grammar import GrammarError, parse
from testbed.expect.slips import called, hint, meant
from testbed.measure.link_metrics import LINK_METRICS
from testbed.measure.metrics import BUILT_IN

MEANT = [
    ("a.exit = 0", "a.exit == 0"),
    ("a.exit=0", "a.exit == 0"),
    ("a.exit === 0", "a.exit == 0"),
    ("a.exit is 0", "a.exit == 0"),
    ("a.exit is not 0", "a.exit != 0"),
    ("not a.exit == 0", "a.exit != 0"),
    ("assert a.exit == 0", "a.exit == 0"),
    ("0 == a.exit", "a.exit == 0"),
    ("5 ms < a.duration", "a.duration > 5 ms"),
    ("1 <= a.lost <= 5", "a.lost between 1 and 5"),
    ("a.lost in [1, 5]", "a.lost between 1 and 5"),
    ("a.lost => 3", "a.lost >= 3"),
    ("a.lost at most 3", "a.lost <= 3"),
    ("a.duration less than 3 s", "a.duration < 3 s"),
    ('a["exit"] == 0', "a.exit == 0"),
    ('a.stdout.contains("done")', 'a.stdout contains "done"'),
    ('"done" in a.stdout', 'a.stdout contains "done"'),
    ("a.stdout =~ /done/", "a.stdout matches /done/"),
    ("a.stdout matches done", "a.stdout matches /done/"),
    ('a.stdout does not contains "x"', ""),
    ("a=>b.dropped == 0", "a->b.dropped == 0"),
    ("a --> b.dropped == 0", "a->b.dropped == 0"),
    ("b<-a.dropped == 0", "a->b.dropped == 0"),
    ("a", ""),
    ("", ""),
    ("a.lost * 2 == 4", ""),
    ('assert a.lost == 0, "lost some"', "a.lost == 0"),
    ("a.exit == 0;", "a.exit == 0"),
    ("a.exit == 0.", "a.exit == 0"),
    ("a.exit == 0 // well", "a.exit == 0"),
    ("{{ a.exit }} == 0", "a.exit == 0"),
    ("$a.exit == 0", "a.exit == 0"),
    ("${a.exit} == 0", "a.exit == 0"),
    ("a/exit == 0", "a.exit == 0"),
    ("a:exit == 0", "a.exit == 0"),
    ("expect(a.exit).toBe(0)", "a.exit == 0"),
    ('expect(a.stdout).toContain("hi")', 'a.stdout contains "hi"'),
    ("expect(a.lost).toBeLessThan(5)", "a.lost < 5"),
    ("expect(a.whole).toBeTruthy()", "a.whole == yes"),
    ("a.exit.should.equal(0)", "a.exit == 0"),
    ("assertEquals(0, a.exit)", "a.exit == 0"),
    ("assertEqual(a.exit, 0)", "a.exit == 0"),
    ("avg(a.round_trip_delay) < 50 ms", "a.round_trip_delay.mean < 50 ms"),
    ("p99(a.round_trip_delay) < 50 ms", "a.round_trip_delay.p99 < 50 ms"),
    ("max a.round_trip_delay < 50 ms", "a.round_trip_delay.max < 50 ms"),
    ("max of a.round_trip_delay < 50 ms", "a.round_trip_delay.max < 50 ms"),
    ("a.round_trip_delay.median() < 50 ms", "a.round_trip_delay.median < 50 ms"),
    ("a.round_trip_delay.percentile(99) < 50 ms", "a.round_trip_delay.p99 < 50 ms"),
    ("sum(a.lost) == 0", "sum of a.lost == 0"),
    ("sum a.lost == 0", "sum of a.lost == 0"),
    ("a.whole", "a.whole == yes"),
    ("!a.whole", "a.whole == no"),
    ("a.exit", "a.exit == 0"),
    ("a exits 0", "a.exit == 0"),
    ("a exits with 3", "a.exit == 3"),
    ("a succeeds", "a.exit == 0"),
    ('a.stdout.startswith("x")', "a.stdout matches /^x/"),
    ('a.stdout starts with "a/b"', r"a.stdout matches /^a\/b/"),
    ('a.stdout ends with "."', r"a.stdout matches /\.$/"),
    ('a.stdout matches r"hel+o"', "a.stdout matches /hel+o/"),
    ("a.lost + a.received == 100", "a.lost == 100 - a.received"),
    ("a.received - a.lost > 3", "a.received > a.lost + 3"),
    ("a.lost < a.received * 2", "a.lost < 2 x a.received"),
    ("a.exit == 0 or a.exit == 1", "a.exit == 0 or 1"),
    ("a.received == 1,000", "a.received == 1000"),
    ("a.received == 1_000", "a.received == 1000"),
    ("a.loss_ratio = 5 % ± 1 %", "a.loss_ratio ~ 5 % +- 1 %"),
    ("a.loss_ratio ~= 5 %", "a.loss_ratio ~ 5 %"),
    ("a.lost ~= 5", ""),
    ("a.stderr is empty", 'a.stderr == ""'),
    ("a.stdout is not empty", 'a.stdout != ""'),
    ('"x" not in a.stdout', 'a.stdout does not contain "x"'),
    ("len(a.stdout) > 0", ""),
    ("a.lost -eq 0", "a.lost == 0"),
    ("len(a.b)", ""),
    ("a fails", ""),
    ("works", ""),
]


@pytest.mark.parametrize(("text", "right"), MEANT)
def test_what_was_meant_is_proposed_whole(text: str, right: str) -> None:
    assert meant(text) == ([right] if right else [])
    assert hint(text, "else") == (f"write `{right}`" if right else "else")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a.exit == 0 and b.exit == 0", ["a.exit == 0", "b.exit == 0"]),
        ("a.exit = 0 && b.exit is 0", ["a.exit == 0", "b.exit == 0"]),
        ("a <-> b.dropped == 0", ["a->b.dropped == 0", "b->a.dropped == 0"]),
    ],
)
def test_two_in_one_are_written_each_by_itself(text: str, parts: list[str]) -> None:
    assert meant(text) == parts
    assert hint(text, "").split("\n")[1:] == [f"  - {part}" for part in parts]


@given(st.text("ab.->=<!~&[]\"'/ 059%msexitlosnador$", max_size=40))
def test_what_is_proposed_is_an_expectation(text: str) -> None:
    try:
        parse(text)
    except GrammarError:
        for one in meant(text):
            parse(one)


@pytest.mark.parametrize(
    ("word", "known", "name"),
    [
        ("exit_code", BUILT_IN, "exit"),
        ("returncode", BUILT_IN, "exit"),
        ("exit-status", BUILT_IN, "exit"),
        ("output", BUILT_IN, "stdout"),
        ("lost", LINK_METRICS, "dropped"),
        ("latency", LINK_METRICS, "one_way_delay"),
        ("received", LINK_METRICS, "delivered"),
        ("delay", ["round_trip_delay"], "round_trip_delay"),
        ("dropped", LINK_METRICS, ""),  # it is known
        ("xyz", LINK_METRICS, ""),
    ],
)
def test_a_word_of_other_tools_names_what_is_known_here(word: str, known: list[str], name: str) -> None:
    assert called(word, known) == (f"did you mean `{name}`?" if name else "")
