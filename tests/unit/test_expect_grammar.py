"""The language of `expect`: what each form means, and what is said of text that is none."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.expect.grammar import GrammarError, parse
from testbed.expect.syntax import Combined, Dotted, Literally, OfLink, Operand, Parsed, Reading, Variable, position
from testbed.plan.links import references

MS = 10**6


def right(text: str) -> Operand:
    (operand,) = parse(text).test.operands
    return operand


# ---------------------------------------------------------------- the left side


@pytest.mark.parametrize(
    ("text", "quantifier", "metric"),
    [
        ("sensor.lost == 1", "every", Dotted(("sensor", "lost"), 0)),
        ("every sensor.lost == 1", "every", Dotted(("sensor", "lost"), 6)),
        ("any sensor-2.probe.lost == 1", "any", Dotted(("sensor-2", "probe", "lost"), 4)),
        ("sum of sensor.lost == 1", "sum of", Dotted(("sensor", "lost"), 7)),
        ("  sum  of\tsensor.lost == 1", "sum of", Dotted(("sensor", "lost"), 10)),
        ("a.kernel.TcpRetransSegs == 1", "every", Dotted(("a", "kernel", "TcpRetransSegs"), 0)),
        ("a->b.sent == 1", "every", OfLink("a", "b", None, ("sent",), 0)),
        ("a-1 -> b-2 over lan-3.sent.max == 1", "every", OfLink("a-1", "b-2", "lan-3", ("sent", "max"), 0)),
        ("any a->b.sent == 1", "any", OfLink("a", "b", None, ("sent",), 4)),
        # the words of the language are also good names
        ("any.exit == 0", "every", Dotted(("any", "exit"), 0)),
        ("any -> sum.sent == 0", "every", OfLink("any", "sum", None, ("sent",), 0)),
        ("every every.exit == 0", "every", Dotted(("every", "exit"), 6)),
        ("over->over over over.sent == 0", "every", OfLink("over", "over", "over", ("sent",), 0)),
        ("4ever.exit == 0", "every", Dotted(("4ever", "exit"), 0)),
    ],
)
def test_what_is_measured(text: str, quantifier: str, metric: object) -> None:
    parsed = parse(text)
    assert (parsed.quantifier, parsed.metric) == (quantifier, metric)


# ---------------------------------------------------------------- the tests


@pytest.mark.parametrize("operator", ["==", "!=", "<", "<=", ">", ">=", "~", "contains", "does not contain"])
def test_each_test_with_one_value(operator: str) -> None:
    for text in (f"a.b {operator} yes", f"a.b  {operator}  yes "):
        test = parse(text).test
        assert (test.operator, [o.value for o in test.operands if isinstance(o, Literally)]) == (operator, ["yes"])


def test_a_sign_needs_no_space() -> None:
    assert parse("a.b<=3").test.operator == "<=" and parse("a.b==3").test.operands == (
        Literally(Fraction(3), "number", "3", 5),
    )


def test_several_values_of_equality() -> None:
    test = parse('a.exit == 0 or SIGKILL or "or"').test
    assert [o.value for o in test.operands if isinstance(o, Literally)] == [0, "SIGKILL", "or"]
    assert len(parse("a.exit != 0 or 1").test.operands) == 2


def test_between_has_two_values() -> None:
    test = parse("a.b between 40 ms and b.c + 8 ms").test
    assert test.operator == "between"
    assert test.operands[0] == Literally(Fraction(40 * MS), "time", "40 ms", 12)
    assert isinstance(test.operands[1], Combined)


@pytest.mark.parametrize("sign", ["+-", " +- ", "±", " ±", "+/-"])
def test_a_tolerance(sign: str) -> None:
    test = parse(f"a.b ~ 40 ms{sign}2 ms").test
    assert isinstance(test.operands[0], Literally) and isinstance(test.tolerance, Literally)
    assert (test.operands[0].value, test.tolerance.value) == (40 * MS, 2 * MS)
    assert parse("a.b ~ 10 %").test.tolerance is None


@pytest.mark.parametrize(
    ("written", "regex"),
    [
        ("/ok+$/", "ok+$"),
        (r"/a\/b/", "a/b"),
        (r"/\d+ \"x\"/", r"\d+ \"x\""),
        ("/^/", "^"),
        ("/a b == c/", "a b == c"),
    ],
)
def test_a_regex_stands_between_slashes(written: str, regex: str) -> None:
    assert parse(f"a.stdout matches {written}").test.regex == regex


# ---------------------------------------------------------------- values


@pytest.mark.parametrize(
    ("written", "value", "dimension"),
    [
        ("3", 3, "number"), ("-3", -3, "number"), ("1.5", Fraction(3, 2), "number"),
        ("0.1", Fraction(1, 10), "number"), ("100 packets", 100, "number"),
        ("20 ms", 20 * MS, "time"), ("20ms", 20 * MS, "time"), ("0.1 us", 100, "time"),
        ("2 min", 120 * 10**9, "time"), ("10 Mbit/s", 10**7, "rate"),
        ("64 KiB", 65536, "size"), ("200 kB", 200_000, "size"), ("0 B", 0, "size"),
        ("10 %", Fraction(1, 10), "ratio"), ("0.1%", Fraction(1, 1000), "ratio"),
        ("yes", "yes", "text"), ("SIGKILL", "SIGKILL", "text"), ("not-ready_2", "not-ready_2", "text"),
        ('"a b"', "a b", "text"), ("'a \"b\"'", 'a "b"', "text"), (r'"a\n\"\\"', 'a\n"\\', "text"),
        ('""', "", "text"), ('"200"', "200", "text"), ('"a->b.c == 5"', "a->b.c == 5", "text"),
    ],
)  # fmt: skip
def test_a_value_that_stands_in_the_file_is_exact(written: str, value: object, dimension: str) -> None:
    operand = right(f"a.b == {written}")
    assert isinstance(operand, Literally)
    assert (operand.value, operand.dimension, operand.written) == (value, dimension, written)


@pytest.mark.parametrize("written", ["$name", "$collector.ip", "$collector.back-haul.ip4", "${name}", "$seed"])
def test_variables(written: str) -> None:
    assert right(f"a.b == {written}") == Variable(written, 7)
    assert right(f"a.b contains {written}") == Variable(written, 13)


@pytest.mark.parametrize(
    ("written", "reading"),
    [
        ("c.d", Reading(Dotted(("c", "d"), 7))),
        ("sum of c.d", Reading(Dotted(("c", "d"), 14), True)),
        ("50 % of c.d", Reading(Dotted(("c", "d"), 15), False, Fraction(1, 2), "50 % of ")),
        ("2 x c.d", Reading(Dotted(("c", "d"), 11), False, Fraction(2), "2 x ")),
        ("1.5x c.d", Reading(Dotted(("c", "d"), 12), False, Fraction(3, 2), "1.5 x ")),
        ("0.1 % of sum of c.d", Reading(Dotted(("c", "d"), 23), True, Fraction(1, 1000), "0.1 % of ")),
        ("c->d over e.f.max", Reading(OfLink("c", "d", "e", ("f", "max"), 7))),
    ],
)
def test_a_metric_as_a_value(written: str, reading: Reading) -> None:
    assert right(f"a.b == {written}") == reading


def test_sums_bind_from_the_left() -> None:
    operand = right("a.b == c.d - 3 +e.f -1")
    assert isinstance(operand, Combined) and operand.sign == "-"
    assert isinstance(operand.left, Combined) and operand.left.sign == "+"
    assert operand.left.left == Combined(
        Reading(Dotted(("c", "d"), 7)), "-", Literally(Fraction(3), "number", "3", 13)
    )
    assert position(operand) == 7


def test_every_metric_is_found_where_it_stands() -> None:
    parsed = parse("a.b ~ c.d + 10 % of e->f.g +- 2 x h.i")
    assert [str(reading.metric) for reading in parsed.readings()] == ["a.b", "c.d", "e->f.g", "h.i"]


# ---------------------------------------------------------------- what is no expectation

WRONG = [
    # text, the part that is pointed at, what is said, what is advised
    ("", "", "expected a metric", ""),
    ("   ", "", "expected a metric", ""),
    ("== 5", "== 5", "expected a metric, as in sensor.lost or a->b.dropped, found `==`", ""),
    ("lost == 5", " == 5", "expected . and a metric of lost, found `==`", "as in lost.sent"),
    ("a->b == 5", " == 5", "expected . and a metric of a->b", "a->b.sent"),
    ("a <-> b.sent == 5", " <->", "a metric is of one direction", "another expectation for the way back"),
    ("a-> .sent == 5", ".sent", "expected a host", ""),
    ("a.b = 5", "= 5", "expected a test, found `=`", "did you mean ==?"),
    ("a.b =< 5", "=< 5", "expected a test, found `=<`", "did you mean <=?"),
    ("a.b ≥ 5", "≥ 5", "expected a test", "did you mean >=?"),
    ("a.b is 5", "is 5", "expected a test, found `is`", "did you mean ==?"),
    ("a.b", "", "expected a test, found the end", "=="),
    ("a.b does contain x", "does", "expected `does not contain`", ""),
    ("a.b ==", "", "expected a value", ""),
    ("a.b == 10 Mbps", "10 Mbps", "`Mbps` is no unit", "Mbit/s"),
    ("a.b == 10 lightyears", "10 light", "is no unit", "Mbit/s"),
    ("a.b == 1:30", "1:30", "is no quantity", "90 s"),
    ("a.b == 1,000", "1,000", "is no quantity", "without separators"),
    ("a.b == 0.5 ns", "0.5 ns", "not a whole number of ns", ""),
    ("a.b == two words", "words", "expected the end, found `words`", "in quotes"),
    ('a.b == "open', '"open', "has no closing", ""),
    ("a.b < 5 or 6", "or 6", "expected the end, found `or`", "== and !="),
    ("a.b < 5 and a.b > 3", "and", "expected the end", "write two expectations"),
    ("a.b between 5", "", "expected `and`, found the end", "two values"),
    ("a.b between 5 or 6", "or 6", "expected `and`, found `or`", "two values"),
    ("a.b < 5 +- 1", "+- 1", "+- belongs to ~", "40 ms +- 2 ms"),
    ("a.b ~ 5 +-", "", "expected a value", ""),
    ("a.b contains 5", "5", "expected a text in quotes", 'contains "done"'),
    ("a.b contains c.d", "c.d", "expected a text in quotes", ""),
    ("a.b matches ok", "ok", "expected a regular expression between slashes", "matches /ok+/"),
    ("a.b matches /(/", "/(/", "the regular expression is not valid", ""),
    ("a.b matches /a/ i", "i", "expected the end", ""),
    ("a.b == $", "$", "expected the name of a variable", "$name"),
    ("a.b == ${name", "${name", "expected the name of a variable", ""),
    ("a.b == 10 % of 5", "5", "expected a metric", ""),
    ("a.b == 2 x 5", "5", "expected a metric", ""),
    ("a.b == 5 +", "", "expected a value", ""),
    ("sum of 5 == 3", " == 3", "expected . and a metric of 5", ""),
    ("a.b during 3 s == 5", "during", "a window of time is known, not in this version", ""),
    ("a.b == 5 if c == 3", "if c", "`if` is known, not in this version", ""),
    ("a.b == c.d e.f", "e.f", "expected the end, found `e.f`", ""),
]


@pytest.mark.parametrize(("text", "at", "message", "hint"), WRONG, ids=[row[0] for row in WRONG])
def test_what_is_wrong_is_said_with_its_place(text: str, at: str, message: str, hint: str) -> None:
    with pytest.raises(GrammarError) as caught:
        parse(text)
    wrong = caught.value
    assert text[wrong.at :].startswith(at) and (at or wrong.at == len(text))
    assert message in str(wrong) and hint in wrong.hint


@given(st.text())
def test_any_text_is_an_expectation_or_is_refused_with_a_place_inside(text: str) -> None:
    try:
        parse(text)
    except GrammarError as wrong:
        assert 0 <= wrong.at <= len(text)


TOKENS = st.sampled_from(
    "every any sum of a b-1 . -> over lan .sent .max == != < <= ~ between and or contains does not matches /x/ "
    '"t" $name 5 10 % ms x + - +- if during ('.split()
)


@given(st.lists(TOKENS, max_size=12), st.sampled_from(["", " "]))
def test_any_heap_of_its_own_words_is_an_expectation_or_is_refused(tokens: list[str], between: str) -> None:
    text = between.join(tokens)
    try:
        parsed = parse(text)
    except GrammarError as wrong:
        assert 0 <= wrong.at <= len(text)
    else:
        assert isinstance(parsed, Parsed) and list(parsed.readings())


# ---------------------------------------------------------------- the planner reads the same links


def links_of(parsed: Parsed) -> Iterator[tuple[str, str, str | None]]:
    for reading in parsed.readings():
        if isinstance(reading.metric, OfLink):
            yield reading.metric.source, reading.metric.target, reading.metric.network


NAMES = st.from_regex(r"[a-z][a-z0-9]{0,3}(-[0-9])?", fullmatch=True)
ARROWS = st.sampled_from(["->", " -> ", "-> "])
LINKS = st.builds(
    lambda a, arrow, b, over: f"{a}{arrow}{b}{over}.dropped",
    NAMES, ARROWS, NAMES, st.one_of(st.just(""), NAMES.map(lambda name: f" over {name}")),
)  # fmt: skip
METRICS = st.one_of(LINKS, st.builds(lambda a, b: f"{a}.{b}.sent", NAMES, NAMES))
VALUES = st.one_of(
    METRICS,
    METRICS.map(lambda metric: f"sum of {metric}"),
    METRICS.map(lambda metric: f"50 % of {metric}"),
    METRICS.map(lambda metric: f"{metric} + 3"),
    st.sampled_from(["5", "20 ms", "yes", '"a->b.sent"', '"x" or "c->d over e.sent"', "$name"]),
)


@given(st.sampled_from(["", "any ", "sum of ", "every "]), METRICS, st.sampled_from(["==", "!="]), VALUES)
def test_the_planner_watches_exactly_the_links_that_are_named(
    quantifier: str, metric: str, operator: str, value: str
) -> None:
    text = f"{quantifier}{metric} {operator} {value}"
    assert sorted(references(text), key=str) == sorted(links_of(parse(text)), key=str)


def test_the_planner_sees_no_links_in_texts_and_regexes() -> None:
    for text in ('a.stdout contains "b->c.sent"', "a.stdout matches /b->c.sent/"):
        assert not list(references(text)) and not list(links_of(parse(text)))
