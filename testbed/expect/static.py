"""What is wrong with expectations before anything runs. Only what is certain is refused.

What a foreign program reports is not known beforehand, so nothing is said about its metrics; the judge does that
when they are there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

from testbed.errors import Problem
from testbed.expect import compare, slips
from testbed.expect.grammar import GrammarError, parse
from testbed.expect.names import Names, Target, Unknown, matching
from testbed.expect.own_programs import Known, reported_by
from testbed.expect.syntax import Combined, Literally, Operand, Parsed, Reading, Test, Variable, literals, position
from testbed.expect.variables import expanded
from testbed.measure import statistics
from testbed.measure.link_metrics import LINK_METRICS
from testbed.measure.link_metrics import MANY_SAMPLES as MANY_OF_LINK
from testbed.measure.metrics import BUILT_IN
from testbed.measure.samples import NEED_NUMBERS, Dimension
from testbed.plan.types import Expectation, Plan, Program
from testbed.scenario.fields import did_you_mean
from testbed.scenario.source import Text, mark_of
from testbed.scenario.units import UNITS


def problems(plan: Plan) -> list[Problem]:
    """Everything wrong with the plan's expectations, in the order of the file."""
    names = Names(plan)
    return [problem for expectation in plan.expectations for problem in _problems_of(names, expectation)]


def malformed(texts: Iterable[str], file: str) -> list[Problem]:
    """What is wrong with expectations whatever they are about: all that can be said where there is no plan."""
    found = []
    for text in texts:
        try:
            parse(str(text))
        except GrammarError as wrong:
            column = text.first_column + wrong.at if isinstance(text, Text) and text.first_column else 1
            hint = slips.hint(str(text), wrong.hint)
            found.append(Problem(file, mark_of(text).line, column, str(wrong), hint, code="expect-form"))
    return found


def notes(plan: Plan) -> list[str]:
    """How much each `~` must count for a verdict: what an author should know before the run."""
    found = []
    for expectation in plan.expectations:
        try:
            parsed = parse(expectation.text)
        except GrammarError:
            continue
        operand = parsed.test.operands[0] if parsed.test.operator == "~" else None
        if (
            parsed.test.tolerance is None
            and isinstance(operand, Literally)
            and isinstance(operand.value, Fraction)
        ):
            p = float(operand.value)
            if 0 < p < 1:
                found.append(f"{parsed.metric} ~ {operand.written} needs {statistics.needed(p):,} packets or more")
    return found


class _Fault(Exception):
    """Something wrong at an offset of the text."""

    def __init__(self, message: str, at: int, hint: str = "") -> None:
        self.message, self.at, self.hint = message, at, hint
        super().__init__(message)


def _problems_of(names: Names, expectation: Expectation) -> Iterator[Problem]:
    def problem(message: str, at: int, hint: str, code: str = "expect") -> Problem:
        column = expectation.column + at if expectation.column else 1  # a text of several lines has no columns
        return Problem(names.plan.file, expectation.line, column, message, hint, code=code)

    try:
        parsed = parse(expectation.text)
    except GrammarError as wrong:
        yield problem(str(wrong), wrong.at, slips.hint(expectation.text, wrong.hint), "expect-form")
        return
    faults = _Checker(names, parsed).faults()
    yield from dict.fromkeys(problem(fault.message, fault.at, fault.hint) for fault in faults)


@dataclass(frozen=True)
class _Kind:
    """What is known of a value before the run. `dimension` None: nothing. `least`, `most`: what it can be."""

    dimension: Dimension | None
    counts: bool | None = None  # a ratio with its counts
    least: Fraction | None = None
    most: Fraction | None = None


class _Checker:
    def __init__(self, names: Names, parsed: Parsed) -> None:
        self.names, self.parsed = names, parsed
        self.found: list[_Fault] = []

    def faults(self) -> list[_Fault]:
        """All of one expectation. What depends on a name that is wrong is not looked at."""
        for reading in self.parsed.readings():
            self._guarded(partial(self._metric, reading))
        for operand in (*self.parsed.test.operands, self.parsed.test.tolerance):
            for literal in literals(operand):
                self._guarded(partial(self._variables, literal))
        if not self.found:
            self._guarded(self._members)
        if not self.found:
            self._guarded(self._test)
        return self.found

    def _guarded(self, check: Callable[[], None]) -> None:
        try:
            check()
        except Unknown as unknown:
            self.found.append(_Fault(str(unknown), unknown.at, unknown.hint))
        except _Fault as fault:
            self.found.append(fault)

    # -- names

    def _metric(self, reading: Reading) -> None:
        target = self.names.resolve(reading.metric)
        if target.kind == "kernel" or (target.metric in BUILT_IN and target.kind == "program"):
            self._aggregated(target, self._builtin(target), many=False)
            return
        if target.kind == "link":
            self._aggregated(target, LINK_METRICS[target.metric], target.metric in MANY_OF_LINK)
            return
        for member in target.members:
            assert member.program is not None
            known = self._own(member.program)
            if known is None or _declares(member.program, target.metric):
                continue
            if target.metric not in known:
                names = sorted(known)
                known_here = [*names, *BUILT_IN]
                hint = slips.called(target.metric, known_here) or did_you_mean(target.metric, known_here)
                what = (
                    f"{member.label} runs {' '.join(member.program.argv[:2])}, which reports no `{target.metric}`"
                )
                raise _Fault(what, target.at, hint or f"it reports {', '.join(names)}")
            self._aggregated(target, known[target.metric].dimension, known[target.metric].many)

    def _builtin(self, target: Target) -> Dimension:
        return "number" if target.kind == "kernel" else BUILT_IN[target.metric]

    def _own(self, program: Program) -> dict[str, Known] | None:
        return reported_by(program, self.names.hosts[program.host])

    def _aggregated(self, target: Target, dimension: Dimension, many: bool) -> None:
        if many and target.aggregate is None:
            raise _Fault(
                f"`{target.written}` has many samples: which value is meant?",
                target.at,
                f"as in {target.written}.p99 or {target.written}.max",
            )
        if dimension in ("text", "status") and target.aggregate in NEED_NUMBERS:
            raise _Fault(f"`{target.metric}` is a {dimension}: .{target.aggregate} is for numbers", target.at)

    def _variables(self, literal: Literally | Variable) -> None:
        quoted = isinstance(literal, Literally) and literal.written[:1] in ("'", '"')
        if quoted or isinstance(literal, Variable):
            text = literal.value if isinstance(literal, Literally) else literal.written
            left = self.names.resolve(self.parsed.metric)
            members = (None,) if self.parsed.quantifier == "sum of" else left.members
            for member in members:
                expanded(self.names, str(text), member, literal.at)

    def _members(self) -> None:
        """Every metric on the right must be one for each member of the left."""
        left, *right = self.parsed.readings()
        target = self.names.resolve(left.metric)
        for reading in right:
            if reading.summed:
                continue
            other = self.names.resolve(reading.metric)
            if left.summed:
                if len(other.members) > 1:
                    message = f"`{other.written}` is {len(other.members)} metrics, and the left side is one sum"
                    raise _Fault(message, other.at, f"write `sum of {other.written}`")
                continue
            for member in target.members:
                matching(member, target.several, other)

    # -- tests

    def _test(self) -> None:
        parsed, test = self.parsed, self.parsed.test
        for reading in parsed.readings():
            self._summed(reading)
        left = self._kind(self.names.resolve(parsed.metric))
        operands = [self._operand(operand) for operand in test.operands]
        if test.operator in ("contains", "does not contain", "matches"):
            self._text(left, test)
            return
        for operand, kind in zip(test.operands, operands, strict=True):
            self._same(left, kind, position(operand))
        if left.dimension == "text" and test.operator not in ("==", "!="):
            raise _Fault(
                f"`{test.operator}` is for numbers, and {parsed.metric} is text", test.at, "== or contains"
            )
        if test.operator in ("==", "!="):
            self._equal(left, test, operands)
        elif test.operator == "~":
            self._about(left, test, operands[0])
        else:
            self._cannot_fail(left, test, operands)

    def _summed(self, reading: Reading) -> None:
        dimension = self._kind(self.names.resolve(reading.metric)).dimension
        if reading.summed and dimension in ("text", "status", "ratio"):
            raise _Fault(f"the sum of {reading.metric} means nothing: it is a {dimension}", reading.metric.at)

    def _text(self, left: _Kind, test: Test) -> None:
        if left.dimension not in (None, "text", "status"):
            raise _Fault(f"`{test.operator}` is for text, and {self.parsed.metric} is a {left.dimension}", test.at)
        empty = [o for o in test.operands if isinstance(o, Literally) and o.value == ""]
        if (empty and test.operator == "contains") or (test.operator == "matches" and not test.regex):
            raise _Fault("this cannot fail: every text contains an empty one", test.at)

    def _equal(self, left: _Kind, test: Test, operands: list[_Kind]) -> None:
        if left.dimension in ("time", "rate"):
            raise _Fault(
                f"`{test.operator}` on a measured {left.dimension}: no two measurements are equal",
                test.at,
                "write `~ VALUE +- VALUE`, `between` or a bound",
            )
        for operand in test.operands:
            ratio = isinstance(operand, Literally) and operand.dimension == "ratio" and operand.value
            if ratio not in (False, 0, 1):
                raise _Fault("a ratio is equal to 0 % or 100 % only", test.at, "write ~, which is a test")
            if left.dimension == "status" and _is_no_status(operand):
                hint = f"as in `{self.parsed.metric} {test.operator} 0`"
                raise _Fault("a status is a number, or a signal as in SIGKILL", position(operand), hint)
        readings = [o for o in test.operands if isinstance(o, Reading) and not o.written_factor]
        if any(str(one.metric) == str(self.parsed.metric) and not one.summed for one in readings):
            raise _Fault("both sides are the same metric", test.at)
        impossible = all(_outside(left, kind) for kind in operands)
        if impossible and operands:
            can = "fail" if test.operator == "!=" else "hold"
            raise _Fault(f"this cannot {can}: {self.parsed.metric} is never {_written(test.operands)}", test.at)

    def _about(self, left: _Kind, test: Test, value: _Kind) -> None:
        if test.tolerance is not None:
            self._same(left, self._operand(test.tolerance), position(test.tolerance))
            return
        metric, operand = self.parsed.metric, test.operands[0]
        if left.counts is False or left.dimension not in (None, "ratio"):
            raise _Fault(f"{metric} has no counts, so ~ needs a tolerance", test.at, "as in `~ 40 ms +- 2 ms`")
        if value.dimension not in (None, "ratio"):
            raise _Fault(
                f"~ tests a ratio against a ratio, not against a {value.dimension}", position(operand), "10 %"
            )
        if isinstance(operand, Literally) and isinstance(operand.value, Fraction) and not 0 < operand.value < 1:
            raise _Fault(
                f"~ {operand.written} is no test: 0 % and 100 % are exact", test.at, f"== {operand.written}"
            )

    def _cannot_fail(self, left: _Kind, test: Test, operands: list[_Kind]) -> None:
        """A bound that nothing can be beyond, or nothing within."""
        metric = self.parsed.metric
        same = [o for o in test.operands if isinstance(o, Reading) and not o.written_factor and not o.summed]
        if any(str(one.metric) == str(metric) for one in same):
            raise _Fault("both sides are the same metric", test.at)
        if test.operator == "between":
            low, high = operands[0].least, operands[1].most
            fixed = [isinstance(o, Literally) for o in test.operands]
            if all(fixed) and low is not None and high is not None and low > high:
                raise _Fault("this cannot hold: the first value of between is the larger one", test.at)
            holds = _always(left, ">=", operands[0]) and _always(left, "<=", operands[1])
            never = _never(left, ">=", operands[0]) or _never(left, "<=", operands[1])
        else:
            holds, never = _always(left, test.operator, operands[0]), _never(left, test.operator, operands[0])
        if holds or never:
            bound = f"at least {left.least}" if left.most is None else "from 0 % to 100 %"
            raise _Fault(f"this cannot {'fail' if holds else 'hold'}: {metric} is always {bound}", test.at)

    def _same(self, left: _Kind, right: _Kind, at: int) -> None:
        if left.dimension and right.dimension and not compare.comparable(left.dimension, right.dimension):
            raise _Fault(f"{self.parsed.metric}: {compare.mismatch(left.dimension, right.dimension)}", at)

    # -- kinds

    def _kind(self, target: Target) -> _Kind:
        if target.aggregate == "count":
            return _Kind("number", False, Fraction(0))
        if target.kind == "link":
            kind = _Kind(LINK_METRICS[target.metric], target.metric == "loss_ratio", Fraction(0))
        elif target.kind == "kernel" or target.metric in BUILT_IN:
            dimension = self._builtin(target)
            kind = _Kind(dimension, False, None if dimension in ("text", "status") else Fraction(0))
        else:
            kind = self._program_kind(target)
        if target.aggregate is not None and target.aggregate not in ("first", "last"):
            kind = _Kind(kind.dimension, False if kind.dimension else None, kind.least)
        bounded = kind.dimension == "ratio" and kind.least is not None and target.aggregate in (None, "max", "min")
        return _Kind(kind.dimension, kind.counts, kind.least, Fraction(1) if bounded else None)

    def _program_kind(self, target: Target) -> _Kind:
        kinds = set()
        for member in target.members:
            assert member.program is not None
            known = self._own(member.program)
            declared = next((m for m in member.program.metrics if m.name == target.metric), None)
            if declared is not None:
                dimension = UNITS[declared.unit][0] if declared.unit else None
                kinds.add(_Kind("number" if dimension == "packets" else dimension, None))
            elif known is not None and target.metric in known:
                one = known[target.metric]
                kinds.add(_Kind(one.dimension, one.counts, None if one.dimension == "text" else Fraction(0)))
            else:
                kinds.add(_Kind(None))
        return kinds.pop() if len(kinds) == 1 else _Kind(None)

    def _operand(self, operand: Operand) -> _Kind:
        if isinstance(operand, Literally):
            value = operand.value if isinstance(operand.value, Fraction) else None
            return _Kind(operand.dimension, False, value, value)
        if isinstance(operand, Reading):
            kind = self._kind(self.names.resolve(operand.metric))
            return _Kind(kind.dimension, kind.counts)
        if isinstance(operand, Combined):
            left, right = self._operand(operand.left), self._operand(operand.right)
            if left.dimension and right.dimension and left.dimension != right.dimension:
                raise _Fault(compare.mismatch(left.dimension, right.dimension), position(operand.right))
            return _Kind(left.dimension or right.dimension)
        return _Kind(None)


def _declares(program: Program, name: str) -> bool:
    return any(metric.name == name for metric in program.metrics)


_STATUS = re.compile(r"[0-9]+|SIG[A-Z0-9+]+|timeout|flood")


def _is_no_status(operand: Operand) -> bool:
    text = isinstance(operand, Literally) and operand.dimension == "text"
    return text and isinstance(operand, Literally) and not _STATUS.fullmatch(str(operand.value))


def _always(left: _Kind, operator: str, right: _Kind) -> bool:
    """Whether no value that the left side can have breaks the bound."""
    if right.least is None or right.least != right.most:
        return False
    if operator in (">", ">="):
        return left.least is not None and compare.COMPARE[operator](left.least, right.least)
    return left.most is not None and compare.COMPARE[operator](left.most, right.least)


def _never(left: _Kind, operator: str, right: _Kind) -> bool:
    """Whether every value that the left side can have breaks it."""
    if right.least is None or right.least != right.most:
        return False
    if operator in ("<", "<="):
        return left.least is not None and not compare.COMPARE[operator](left.least, right.least)
    return left.most is not None and not compare.COMPARE[operator](left.most, right.least)


def _outside(left: _Kind, right: _Kind) -> bool:
    return _never(left, "<=", right) or _never(left, ">=", right)


def _written(operands: tuple[Operand, ...]) -> str:
    return " or ".join(o.written for o in operands if isinstance(o, Literally))
