"""From the text of one expectation to its syntax. It knows the language and no scenario.

A parser written by hand, one function for each rule of the grammar in docs/expectations.md: a generated one would
say "unexpected token" where a person needs to hear what could stand there.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NoReturn

from testbed.expect.syntax import (
    Combined,
    Dotted,
    Literally,
    Metric,
    OfLink,
    Operand,
    Operator,
    Parsed,
    Quantifier,
    Reading,
    Test,
    Variable,
)
from testbed.measure.samples import Dimension
from testbed.scenario.units import UNITS, UnitError, parse_quantity

_NAME = re.compile(r"[A-Za-z0-9_]+(?:-+[A-Za-z0-9_]+)*", re.ASCII)
_POINT = re.compile(r"\.(?=[A-Za-z_])", re.ASCII)
_ARROW = re.compile(r"\s*->\s*")
_BOTH_WAYS = re.compile(r"\s*<->")
_OVER = re.compile(r"\s+over\s+")
_SPACE = re.compile(r"\s*")
_NUMBER = re.compile(r"[+-]?[0-9](?:[0-9_,:.]*[0-9])?", re.ASCII)
_UNIT = re.compile(r"[ \t]*(%|[A-Za-zµμ][A-Za-z0-9µμ]*(?:/[A-Za-z]+)?)")
_VARIABLE = re.compile(r"\$(?:\{[^}]*\}?|[A-Za-z][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+)*|)", re.ASCII)
_COMPARISON = re.compile(r"[=!<>~≤≥≠≈]+")
_TOLERANCE = re.compile(r"\+/?-|±")
_FOUND = re.compile(r"[A-Za-z0-9_.$-]+|\S+")

_AFTER_A_NUMBER = frozenset("and or x if of over".split())
_WINDOW = frozenset("during after before while from within in at until since".split())
_NOT_YET = "known, not in this version"
_ALSO_WRITTEN = {
    "=": "==", "===": "==", "=~": "~", "~=": "~", "≈": "~", "<>": "!=", "≠": "!=", "=<": "<=", "=>": ">=",
    "≤": "<=", "≥": ">=", "is": "==", "equals": "==", "includes": "contains", "has": "contains",
}  # fmt: skip
_TESTS = "==, !=, <, <=, >, >=, between, ~, contains, does not contain or matches"


class GrammarError(ValueError):
    """Text that is no expectation. `at` is the offset of the place, from 0; `hint` says what to write."""

    def __init__(self, message: str, at: int, hint: str = "") -> None:
        self.at, self.hint = at, hint
        super().__init__(message)


def parse(text: str) -> Parsed:
    """One expectation. Raises GrammarError."""
    return _Parser(text).expectation()


class _Parser:
    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    # -- the rules

    def expectation(self) -> Parsed:
        self.space()
        quantifier = self.quantifier()
        metric = self.metric()
        self.space()
        self.no_window()
        test = self.test()
        self.space()
        if self.word() == "if":
            self.fail(f"`if` is {_NOT_YET}")
        if self.at < len(self.text):
            self.fail(f"expected the end, found {self.found()}", self.after_the_end(test))
        return Parsed(quantifier, metric, test)

    def quantifier(self) -> Quantifier:
        word = self.word()
        if word in ("every", "any") and not self.is_metric():
            self.take(word)
            return "any" if word == "any" else "every"
        return "sum of" if self.sum_of() else "every"

    def sum_of(self) -> bool:
        found = re.compile(r"sum\s+of(?=\s)").match(self.text, self.at)
        if found:
            self.at = found.end()
            self.space()
        return found is not None

    def metric(self) -> Metric:
        at = self.at
        first = self.name("a metric, as in sensor.lost or a->b.dropped")
        if _BOTH_WAYS.match(self.text, self.at):
            self.fail("a metric is of one direction", f"{first} -> ..., and another expectation for the way back")
        arrow = _ARROW.match(self.text, self.at)
        if not arrow:
            return Dotted((first, *self.path(first)), at)
        self.at = arrow.end()
        target = self.name("a host")
        over = _OVER.match(self.text, self.at)
        network = None
        if over:
            self.at = over.end()
            network = self.name("a network")
        return OfLink(first, target, network, self.path(f"{first}->{target}"), at)

    def path(self, owner: str) -> tuple[str, ...]:
        words = []
        while point := _POINT.match(self.text, self.at):
            self.at = point.end()
            words.append(self.name("a metric"))
        if not words:
            hint = f"as in {owner}.sent"
            if self.text[self.at : self.at + 1] == "(":
                hint = "there are no functions here: a metric, a test and a value, as in `client.exit == 0`"
            self.fail(f"expected . and a metric of {owner}, found {self.found()}", hint)
        return tuple(words)

    def test(self) -> Test:
        at = self.at
        operator = self.operator()
        self.space()
        if operator == "matches":
            return Test(operator, at, regex=self.regex())
        if operator in ("contains", "does not contain"):
            return Test(operator, at, (self.text_value(),))
        operands = [self.value()]
        if operator == "between":
            self.keyword("and", "between takes two values, with `and` between them")
            operands.append(self.value())
        elif operator in ("==", "!="):
            while self.word() == "or":
                self.take("or")
                operands.append(self.value())
        tolerance = None
        if found := _TOLERANCE.match(self.text, self.at):
            if operator != "~":
                self.fail(f"{found[0]} belongs to ~, and this is {operator}", "x.delay ~ 40 ms +- 2 ms")
            self.at = found.end()
            self.space()
            tolerance = self.value()
        return Test(operator, at, tuple(operands), tolerance)

    def operator(self) -> Operator:  # noqa: RET503 - `fail` never returns
        sign = _COMPARISON.match(self.text, self.at)
        written = sign[0] if sign else self.word()
        if written == "does":
            found = re.compile(r"does\s+not\s+contain(?![A-Za-z])").match(self.text, self.at)
            if not found:
                self.fail(f"expected `does not contain`, found {self.found()}")
            self.at = found.end()
            return "does not contain"
        for known in ("==", "!=", "<=", ">=", "<", ">", "between", "~", "contains", "matches"):
            if written == known:
                self.at += len(written)
                return known
        meant = _ALSO_WRITTEN.get(written)
        self.fail(f"expected a test, found {self.found()}", f"did you mean {meant}?" if meant else _TESTS)

    def value(self) -> Operand:
        left = self.term()
        self.space()
        while (sign := self.text[self.at : self.at + 1]) in ("+", "-") and not _TOLERANCE.match(
            self.text, self.at
        ):
            self.at += 1
            self.space()
            left = Combined(left, "+" if sign == "+" else "-", self.term())
            self.space()
        return left

    def term(self) -> Operand:
        sign = self.text[self.at : self.at + 1]
        if sign in ('"', "'"):
            return self.quoted()
        if sign == "$":
            return self.variable()
        if self.sum_of():
            return Reading(self.metric(), summed=True)
        if self.is_metric():
            return Reading(self.metric())
        if _NUMBER.match(self.text, self.at):
            return self.quantity()
        at = self.at
        word = self.name('a value: a number, a word, a "text", a $variable or a metric')
        return Literally(word, "text", word, at)

    def text_value(self) -> Operand:
        if self.text[self.at : self.at + 1] in ('"', "'"):
            return self.quoted()
        if self.text[self.at : self.at + 1] == "$":
            return self.variable()
        word = self.word()
        if not word or self.is_metric() or word[0].isdigit():
            self.fail(f"expected a text in quotes, found {self.found()}", 'x.stdout contains "done"')
        at = self.at
        self.take(word)
        return Literally(word, "text", word, at)

    def quantity(self) -> Operand:
        at = self.at
        number = self.expect(_NUMBER)
        unit = _UNIT.match(self.text, self.at)
        if unit and unit[1] not in _AFTER_A_NUMBER:
            self.at = unit.end()
        written = self.text[at : self.at]
        try:
            dimension = parse_quantity(written).dimension
        except UnitError as problem:
            self.fail(str(problem), problem.hint or "a text stands in quotes", at)
        plain = unit is None or unit[1] in _AFTER_A_NUMBER
        exact = Fraction(number) * (Fraction(1) if plain or unit is None else UNITS[unit[1]][1])
        return self.share(exact, dimension, written, at)

    def share(self, exact: Fraction, dimension: str, written: str, at: int) -> Operand:
        """`N % of metric` and `N x metric`; otherwise the number is a value by itself."""
        after = self.at
        self.space()
        word = self.word()
        if (dimension, word) in (("ratio", "of"), ("number", "x")):
            self.take(word)
            summed = self.sum_of()
            if not self.is_metric():
                self.fail(f"expected a metric, found {self.found()}")
            return Reading(self.metric(), summed, exact, f"{written} {word} ")
        self.at = after
        return Literally(exact, _DIMENSIONS.get(dimension, "number"), written, at)

    def quoted(self) -> Literally:
        at, quote = self.at, self.text[self.at]
        found = re.compile(rf"{quote}((?:[^{quote}\\]|\\.)*){quote}", re.DOTALL).match(self.text, at)
        if not found:
            self.fail(f"the text that begins here has no closing {quote}")
        self.at = found.end()
        return Literally(_unescape(found[1]), "text", found[0], at)

    def variable(self) -> Variable:
        found = self.expect(_VARIABLE)
        if found == "$" or (found.startswith("${") and not found.endswith("}")):
            self.fail(
                "expected the name of a variable after $", "$name $index $ip $seed $HOST.ip", self.at - len(found)
            )
        return Variable(found, self.at - len(found))

    def regex(self) -> str:
        at = self.at
        found = re.compile(r"/((?:[^/\\]|\\.)*)/", re.DOTALL).match(self.text, at)
        if not found:
            self.fail(
                f"expected a regular expression between slashes, found {self.found()}", "x.stdout matches /ok+/"
            )
        self.at = found.end()
        pattern = found[1].replace("\\/", "/")
        try:
            re.compile(pattern, re.MULTILINE)
        except (re.error, OverflowError, RecursionError) as problem:
            self.fail(f"the regular expression is not valid: {problem}", "", at)
        return pattern

    # -- the words

    def space(self) -> None:
        self.at = _SPACE.match(self.text, self.at).end()  # type: ignore[union-attr]  # it matches nothing, too

    def word(self) -> str:
        """The word that stands here, without taking it; "" for none."""
        found = _NAME.match(self.text, self.at)
        return found[0] if found else ""

    def take(self, word: str) -> None:
        self.at += len(word)
        self.space()

    def name(self, what: str) -> str:
        word = self.word()
        if not word:
            self.fail(f"expected {what}, found {self.found()}")
        self.at += len(word)
        return word

    def keyword(self, word: str, why: str) -> None:
        self.space()
        if self.word() != word:
            self.fail(f"expected `{word}`, found {self.found()}", why)
        self.take(word)

    def expect(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self.text, self.at)
        assert found is not None, "looked at before"
        self.at = found.end()
        return found[0]

    def is_metric(self) -> bool:
        """Does a metric begin here? A name, and then a point with a word after it, or an arrow."""
        found = _NAME.match(self.text, self.at)
        if not found:
            return False
        end = found.end()
        return any(pattern.match(self.text, end) for pattern in (_POINT, _ARROW, _BOTH_WAYS))

    def no_window(self) -> None:
        if self.word() in _WINDOW:
            self.fail(f"a window of time is {_NOT_YET}", "the test stands right after the metric")

    def found(self) -> str:
        rest = self.text[self.at :].lstrip()
        found = _FOUND.match(rest)
        return f"`{found[0][:40]}`" if found else "the end"

    def after_the_end(self, test: Test) -> str:
        if self.word() == "or":
            return "`or` stands between the values of == and !=; otherwise write two expectations"
        if self.word() == "and":
            return "write two expectations"
        if any(isinstance(one, Literally) and one.dimension == "text" for one in test.operands):
            return "a text of several words stands in quotes"
        return ""

    def fail(self, message: str, hint: str = "", at: int | None = None) -> NoReturn:
        raise GrammarError(message, self.at if at is None else at, hint)


_DIMENSIONS: dict[str, Dimension] = {"time": "time", "rate": "rate", "size": "size", "ratio": "ratio"}
_ESCAPES = {"n": "\n", "t": "\t"}


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", lambda found: _ESCAPES.get(found[1], found[1]), text, flags=re.DOTALL)
