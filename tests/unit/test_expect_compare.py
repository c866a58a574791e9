"""Two values and a test: outcomes and reasons, without a plan or a run; and how values are written for people."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.expect import compare
from testbed.expect.compare import Found
from testbed.expect.evidence import Undecided
from testbed.expect.show import quoted, shown
from testbed.measure.samples import Counts, Dimension, Value

MS = 10**6


def of(value: Value, dimension: Dimension, late_ns: int = 0) -> Found:
    """A metric's value, called x."""
    return Found(value, dimension, f"x is {shown(value, dimension)}", "x", late_ns)


def fixed(value: Value, dimension: Dimension) -> Found:
    return Found(value, dimension)


# ---------------------------------------------------------------- equality


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [
        (of(3, "number"), [fixed(3, "number")], True),
        (of(3, "number"), [fixed(4, "number"), fixed(3, "number")], True),
        (of(Fraction(1, 10), "number"), [fixed(Fraction("0.1"), "number")], True),
        (of("EPERM", "text"), [fixed("EPERM", "text")], True),
        (of("eperm", "text"), [fixed("EPERM", "text")], False),
        (of("SIGKILL", "status"), [fixed(0, "number"), fixed("SIGKILL", "text")], True),
        (of(0, "status"), [fixed("SIGKILL", "text")], False),
        (of(0, "status"), [fixed("0", "text")], False),
        (of(200, "size"), [fixed(200, "size")], True),
        (of(Counts(0, 7), "ratio"), [fixed(Fraction(0), "ratio")], True),
        (of(Counts(7, 7), "ratio"), [fixed(Fraction(1), "ratio")], True),
        (of(Counts(2, 4), "ratio"), [of(Counts(1, 2), "ratio")], True),
    ],
)
def test_equality_is_exact(left: Found, right: list[Found], equal: bool) -> None:
    assert compare.equality(left, "==", right)[0] == ("pass" if equal else "fail")
    assert compare.equality(left, "!=", right)[0] == ("fail" if equal else "pass")


def test_the_reason_says_what_was_seen() -> None:
    three = of(3, "number")
    assert compare.equality(three, "==", [fixed(5, "number")]) == ("fail", "x is 3, not 5")
    assert compare.equality(three, "!=", [fixed(3, "number")]) == ("fail", "x is 3, which it must not be")
    words = [fixed(0, "number"), fixed("SIGKILL", "text")]
    assert compare.equality(of("SIGSEGV", "status"), "==", words) == ("fail", "x is SIGSEGV, not 0 or SIGKILL")
    other = Found(5, "number", "y is 5", "y")
    assert compare.equality(three, "==", [other]) == ("fail", "x is 3; y is 5")
    assert compare.equality(three, "!=", [other]) == ("pass", "x is 3; y is 5")
    assert compare.ordered(three, ">", other) == ("fail", "x is 3, and y is 5")


def test_a_newline_at_the_end_is_pointed_out() -> None:
    outcome, reason = compare.equality(of("ok\n", "text"), "==", [fixed("ok", "text")])
    assert outcome == "fail" and "they differ in the newline at its end" in reason


@pytest.mark.parametrize(
    ("left", "right", "why"),
    [
        (of(3 * MS, "time"), fixed(3 * MS, "time"), "measured, so never equal"),
        (of(10, "rate"), fixed(10, "rate"), "measured, so never equal"),
        (of(Counts(1, 10), "ratio"), fixed(Fraction(1, 10), "ratio"), "0 % or 100 % only"),
        (of(3, "number"), fixed("three", "text"), "a number and a text cannot be compared"),
        (of(3 * MS, "time"), fixed(3, "number"), "as in 20 ms"),
        (of("3", "text"), fixed(3, "number"), 'in quotes, "200"'),
    ],
)
def test_what_cannot_be_equal_is_an_error(left: Found, right: Found, why: str) -> None:
    with pytest.raises(Undecided, match=why) as caught:
        compare.equality(left, "==", [right])
    assert caught.value.outcome == "error"


# ---------------------------------------------------------------- order


@pytest.mark.parametrize(
    ("operator", "holds"), [("<", [True, False, False]), ("<=", [True, True, False]), (">", [False, False, True]),
                            (">=", [False, True, True])],
)  # fmt: skip
def test_order(operator: str, holds: list[bool]) -> None:
    found = [compare.ordered(of(n, "number"), operator, fixed(5, "number"))[0] == "pass" for n in (4, 5, 6)]
    assert found == holds


def test_a_ratio_is_compared_exactly() -> None:
    """As floats, 0.12 is less than 12 of 100."""
    assert compare.ordered(of(Counts(12, 100), "ratio"), "<=", fixed(Fraction("0.12"), "ratio"))[0] == "pass"
    assert compare.ordered(of(Counts(12, 100), "ratio"), "<", fixed(Fraction("0.12"), "ratio"))[0] == "fail"


def test_words_have_no_order_and_a_signal_is_no_number() -> None:
    with pytest.raises(Undecided, match="words have no order"):
        compare.ordered(of("a", "text"), "<", fixed("b", "text"))
    outcome = compare.ordered(of("SIGKILL", "status"), "<", fixed(5, "number"))
    assert outcome == ("fail", "x is SIGKILL, which is no number")


def test_an_infinite_delay_is_above_every_bound_however_late_the_network() -> None:
    lost = of(math.inf, "time", late_ns=10**12)
    assert compare.ordered(lost, "<", fixed(10**15, "time"))[0] == "fail"
    assert compare.ordered(lost, ">", fixed(10**15, "time")) == ("pass", "x is infinite (a lost packet)")


LATE = st.integers(0, 1000)


@given(st.integers(0, 2000), st.integers(0, 2000), LATE, st.sampled_from(["<", "<="]))
def test_lateness_excuses_an_upper_bound_and_never_makes_it_pass(
    value: int, bound: int, late: int, op: str
) -> None:
    outcome, _ = compare.ordered(of(value, "time", late), op, fixed(bound, "time"))
    holds = compare.COMPARE[op]
    if holds(value, bound):
        assert outcome == "pass"
    else:
        assert outcome == ("inconclusive" if holds(value - late, bound) else "fail")


@given(st.integers(0, 2000), st.integers(0, 2000), LATE, st.sampled_from([">", ">="]))
def test_lateness_is_no_excuse_for_a_lower_bound(value: int, bound: int, late: int, op: str) -> None:
    outcome, _ = compare.ordered(of(value, "time", late), op, fixed(bound, "time"))
    assert outcome == ("pass" if compare.COMPARE[op](value, bound) else "fail")


def test_on_the_right_it_is_the_other_way_round() -> None:
    right = Found(50, "time", "y is 50 ns", "y", late_ns=20)
    assert compare.ordered(of(40, "time"), ">", right)[0] == "inconclusive"
    assert compare.ordered(of(20, "time"), ">", right)[0] == "fail"
    assert compare.ordered(of(60, "time"), "<", right)[0] == "fail"


def test_windows_include_both_ends() -> None:
    low, high = fixed(40, "time"), fixed(48, "time")
    assert [compare.between(of(n, "time"), low, high)[0] for n in (39, 40, 48, 49)] == [
        "fail",
        "pass",
        "pass",
        "fail",
    ]
    assert compare.between(of(49, "time", late_ns=1), low, high)[0] == "inconclusive"
    assert compare.between(of(39, "time", late_ns=5), low, high)[0] == "fail"
    middle, width = fixed(44, "time"), fixed(4, "time")
    found = [compare.around(of(n, "time"), middle, width)[0] for n in (39, 40, 48, 49)]
    assert found == ["fail", "pass", "pass", "fail"]
    assert compare.around(of(39, "time"), middle, width)[1] == "x is 39 ns, not 44 ns +- 4 ns"
    with pytest.raises(Undecided, match="not below zero"):
        compare.around(of(39, "time"), middle, fixed(-1, "time"))


# ---------------------------------------------------------------- ~


@pytest.mark.parametrize(
    ("counts", "p", "outcome", "reason"),
    [
        (Counts(203, 2000), "0.1", "pass", "10.15 % (203 of 2,000); 99.9999 % interval 7.151 % to 13.8 %"),
        (Counts(138, 2000), "0.1", "pass", "interval"),
        (Counts(269, 2000), "0.1", "pass", "interval"),
        (Counts(137, 2000), "0.1", "fail", "with 10 % it would be so far off once in"),
        (Counts(270, 2000), "0.1", "fail", "with 10 % it would be so far off once in"),
        (
            Counts(20, 200),
            "0.1",
            "inconclusive",
            "200 are too few to tell 10 % from 5 % or 20 %: 1,489 are needed",
        ),
        (Counts(180, 200), "0.9", "inconclusive", "tell 90 % from 95 % or 80 %: 1,489 are needed"),
        (Counts(1800, 2000), "0.9", "pass", "interval"),
        (Counts(200, 200), "0.1", "fail", "so far off once in"),  # a small sample can still reject
        (Counts(0, 0), "0.1", "inconclusive", "0 are too few"),
        (Counts(0, 10**6), "0.5", "fail", "more runs than anyone can count"),
    ],
)
def test_the_three_steps(counts: Counts, p: str, outcome: str, reason: str) -> None:
    found = compare.binomial(of(counts, "ratio"), fixed(Fraction(p), "ratio"))
    assert found[0] == outcome and reason in found[1], found


@pytest.mark.parametrize(
    ("left", "right", "why"),
    [
        (of(Fraction(1, 10), "ratio"), fixed(Fraction(1, 10), "ratio"), "without its counts, ~ needs a tolerance"),
        (of(3, "number"), fixed(3, "number"), "~ needs a tolerance"),
        (of(Counts(1, 2), "ratio"), fixed(Fraction(0), "ratio"), "0 % and 100 % are exact; write =="),
        (of(Counts(1, 2), "ratio"), fixed(Fraction(1), "ratio"), "write =="),
        (of(Counts(1, 2), "ratio"), fixed(Fraction(1, 2), "number"), "cannot be compared"),
    ],
)
def test_what_is_no_test_is_an_error(left: Found, right: Found, why: str) -> None:
    with pytest.raises(Undecided, match=why) as caught:
        compare.binomial(left, right)
    assert caught.value.outcome == "error"


# ---------------------------------------------------------------- text


def test_the_reason_quotes_the_line_that_was_found() -> None:
    out = of("first\nthe second line\nthird\n", "text")
    has = ("pass", 'x has the line "the second line"')
    assert compare.on_text(out, "contains", fixed("second", "text")) == has
    assert compare.on_text(out, "matches", None, r"^the \w+ line$") == has
    outcome, reason = compare.on_text(out, "does not contain", fixed("second", "text"))
    assert (outcome, reason) == ("fail", has[1])
    outcome, reason = compare.on_text(out, "contains", fixed("fourth", "text"))
    assert outcome == "fail" and reason == 'x is "first\\nthe second line\\nthird\\n", without fourth'
    assert compare.on_text(out, "does not contain", fixed("fourth", "text"))[0] == "pass"
    assert compare.on_text(out, "matches", None, "^second")[0] == "fail"


def test_text_tests_are_for_text() -> None:
    with pytest.raises(Undecided, match="contains and matches are for text"):
        compare.on_text(of(5, "number"), "contains", fixed("5", "text"))
    assert compare.on_text(of("SIGKILL", "status"), "contains", fixed("KILL", "text"))[0] == "pass"


# ---------------------------------------------------------------- groups


def test_members_join_to_the_first_outcome_of_the_order() -> None:
    order = ("fail", "error", "inconclusive", "pass", "skip")
    assert compare.joined([("pass", "a")], order) == ("pass", "a")
    assert compare.joined([("pass", "a"), ("fail", "b"), ("error", "c")], order) == ("fail", "1 of 3: b")
    assert compare.joined([("pass", "a"), ("pass", "b")], order) == ("pass", "all of 2: a; b")
    many = [("fail", str(n)) for n in range(10)]
    assert compare.joined(many, order) == ("fail", "all of 10: 0; 1; 2; 3; and 6 more")


# ---------------------------------------------------------------- how values are written


@pytest.mark.parametrize(
    ("value", "dimension", "text"),
    [
        (203, "number", "203"),
        (1234567, "number", "1,234,567"),
        (Fraction(1, 3), "number", "0.3333333333"),
        (40_125_000, "time", "40.125 ms"),
        (Fraction(40_125_001, 2), "time", "20.0625 ms"),
        (math.inf, "time", "infinite (a lost packet)"),
        (10**7, "rate", "10 Mbit/s"),
        (1.5e7, "rate", "15 Mbit/s"),
        (65536, "size", "64 KiB"),
        (0, "size", "0 B"),
        (0.25, "time", "0.25 ns"),
        (Fraction(1, 8), "ratio", "12.5 %"),
        (Counts(203, 2000), "ratio", "10.15 % (203 of 2,000)"),
        (Counts(0, 0), "ratio", "nothing (0 of 0)"),
        ("SIGKILL", "status", "SIGKILL"),
        ("yes", "text", "yes"),
        ("two words\n", "text", '"two words\\n"'),
        ('a "b" \\ \x07', "text", '"a \\"b\\" \\\\ \\x07"'),
        ("", "text", '""'),
    ],
)
def test_values_are_written_for_people(value: Value, dimension: Dimension, text: str) -> None:
    assert shown(value, dimension) == text


def test_a_long_text_is_cut_and_says_how_long_it_is() -> None:
    text = quoted("word " * 1000)
    assert text.endswith('"... (5,000 characters)') and len(text) < 160
