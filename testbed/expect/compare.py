"""Two values, a test, and what comes of it. No plan and no records: values come in, an outcome goes out."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from testbed.expect.evidence import Undecided
from testbed.expect.show import percent, quoted, shown
from testbed.measure import statistics
from testbed.measure.records import LESS_BUSY, SEVERITY, Outcome
from testbed.measure.samples import Counts, Dimension, Value
from testbed.measure.statistics import Number

Result = tuple[Outcome, str]

COMPARE: dict[str, Callable[[Number, Number], bool]] = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
_LISTED = 4  # members of a group whose values a reason lists


@dataclass(frozen=True)
class Found:
    """A value on one side of a test. `name` and `says` tell what it is of: "" for one that stands in the file."""

    value: Value
    dimension: Dimension
    says: str = ""
    name: str = ""
    late_ns: int = 0  # by how much the network's own lateness may have made a time longer
    overdue_ns: Number = 0  # and by how much it has, where that is known: on a link, which knows when all was due

    @property
    def number(self) -> Number:
        """Raises Undecided for a word and for a ratio of nothing."""
        if isinstance(self.value, str):
            raise Undecided("error", f"{self.says or self.shown}: not a number")
        if not isinstance(self.value, Counts):
            return self.value
        if self.value.of == 0:
            raise Undecided("inconclusive", f"{self.says}: a ratio of nothing; see that something is counted")
        return self.value.ratio

    @property
    def shown(self) -> str:
        return shown(self.value, self.dimension)


def comparable(a: Dimension, b: Dimension) -> bool:
    """One dimension; and how a program ended is a number or a word."""
    return a == b or ("status" in (a, b) and {a, b} <= {"status", "number", "text"})


def mismatch(a: Dimension, b: Dimension) -> str:
    """What is wrong with comparing the two, and what to write instead."""
    hint = ""
    if "number" in (a, b):
        unit = {"time": "20 ms", "rate": "10 Mbit/s", "size": "200 B", "ratio": "10 %"}.get(
            b if a == "number" else a
        )
        hint = f"; a unit is missing, as in {unit}" if unit else '; a text of digits is written in quotes, "200"'
    return f"a {a} and a {b} cannot be compared{hint}"


def equality(left: Found, operator: str, right: Sequence[Found]) -> Result:
    """`==`: equal to one of them. `!=`: to none of them."""
    for one in right:
        _same_dimension(left, one)
        if left.dimension in ("time", "rate"):
            raise Undecided("error", f"{left.says}: measured, so never equal; write ~ with +-, or between")
        if left.dimension == "ratio" and not one.says and one.value not in (0, 1):
            raise Undecided("error", f"{left.says}: a ratio is equal to 0 % or 100 % only; write ~")
    equal = any(_plain(left) == _plain(one) for one in right)
    if equal == (operator == "=="):
        return "pass", _both(left, right)
    if len(right) > 1 or not right[0].says:
        listed = " or ".join(one.shown for one in right)
        newline = isinstance(left.value, str) and any(left.value.rstrip("\n") == one.value for one in right)
        hint = "; they differ in the newline at its end: use contains or matches" if newline and not equal else ""
        reason = f"{left.says}, {'which it must not be' if equal else f'not {listed}'}{hint}"
        return "fail", reason
    return "fail", _both(left, right)


def ordered(left: Found, operator: str, right: Found) -> Result:
    """`<`, `<=`, `>`, `>=`. A bound on a time is tested again with the lateness taken off.

    An upper bound that fails, with what may have made it late. A bound that holds, with what is known to have: a
    late machine must not stand in for the delay that a file asks for.
    """
    _same_dimension(left, right)
    if left.dimension == "text":
        raise Undecided("error", f"{left.says}: words have no order; use ==, contains or matches")
    if left.dimension == "status" and isinstance(left.value, str):
        return "fail", f"{left.says}, which is no number"
    a, b = left.number, right.number
    if COMPARE[operator](a, b):
        holds = _both(left, [right])
        if left.dimension != "time" or COMPARE[operator](a - left.overdue_ns, b - right.overdue_ns):
            return "pass", holds
        late_ns = max(left.overdue_ns, right.overdue_ns)
        return "inconclusive", (
            f"{holds}; it does not hold without the {shown(late_ns, 'time')} by which this machine was late: try "
            f"{LESS_BUSY}, or a `rate` on the link"
        )
    reason = f"{left.says}, and {right.says}" if right.says else f"{left.says}, not {operator} {right.shown}"
    if left.dimension == "time":
        late = left if operator in ("<", "<=") else right
        spared = (a - late.late_ns, b) if late is left else (a, b - late.late_ns)
        if COMPARE[operator](*spared):
            return "inconclusive", (
                f"{reason}; this machine may have made it late by {shown(late.late_ns, 'time')}: try "
                f"{LESS_BUSY}, a `rate` on the link, or a wider bound"
            )
    return "fail", reason


def between(left: Found, low: Found, high: Found) -> Result:
    """Both ends included."""
    return _window(left, low, high, f"between {low.shown} and {high.shown}")


def around(left: Found, middle: Found, tolerance: Found) -> Result:
    """`~ middle +- tolerance`: a window, for what has no counts."""
    for one in (middle, tolerance):
        _same_dimension(left, one)
    width = tolerance.number
    if width < 0:
        raise Undecided("error", f"+- {tolerance.shown}: a tolerance is not below zero")
    low = Found(middle.number - width, left.dimension, late_ns=middle.late_ns)
    high = Found(middle.number + width, left.dimension)
    return _window(left, low, high, f"{middle.shown} +- {tolerance.shown}")


def _window(left: Found, low: Found, high: Found, wanted: str) -> Result:
    results = [ordered(left, ">=", low), ordered(left, "<=", high)]
    outcome, reason = min(results, key=lambda result: SEVERITY.index(result[0]))
    if outcome == "fail":
        return outcome, f"{left.says}, not {wanted}"
    return outcome, reason if outcome == "inconclusive" else _both(left, [low, high])


def binomial(left: Found, right: Found) -> Result:
    """`~ p` on a ratio with its counts: reject, or know that there were too few, or pass with the interval."""
    if not isinstance(left.value, Counts):
        raise Undecided("error", f"{left.says}: without its counts, ~ needs a tolerance, as in `~ 10 % +- 1 %`")
    _same_dimension(left, right)
    p = float(right.number)
    if not 0 < p < 1:
        raise Undecided("error", f"~ {right.shown}: 0 % and 100 % are exact; write ==")
    x, n = left.value.count, left.value.of
    if n and (chance := statistics.two_sided(x, n, p)) <= statistics.ALPHA:
        return "fail", f"{left.says}; with {right.shown} it would be so far off once in {_once_in(chance)}"
    if statistics.power(n, p) < statistics.POWER:
        few = min(p, 1 - p)
        others = [few / 2, 2 * few] if few == p else [1 - few / 2, 1 - 2 * few]
        told = " or ".join(percent(other) for other in others)
        return "inconclusive", (
            f"{left.says}; {n:,} are too few to tell {right.shown} from {told}: "
            f"{statistics.needed(p):,} are needed"
        )
    low, high = statistics.clopper_pearson(x, n)
    return "pass", f"{left.says}; 99.9999 % interval {low * 100:.4g} % to {high * 100:.4g} %"


def on_text(left: Found, operator: str, right: Found | None, regex: str = "") -> Result:
    """`contains`, `does not contain` and `matches`; the reason quotes the line where it was found."""
    text = text_of(left)
    if right is None:
        match = re.search(regex, text, re.MULTILINE)
        at, wanted = (match.start() if match else -1), f"/{regex}/"
    else:
        at, wanted = text.find(text_of(right)), quoted(text_of(right))
    if at < 0:
        return ("pass" if operator == "does not contain" else "fail"), f"{left.says}, without {wanted}"
    line = text[text.rfind("\n", 0, at) + 1 :].partition("\n")[0]
    return ("fail" if operator == "does not contain" else "pass"), f"{left.name} has the line {quoted(line)}"


def text_of(found: Found) -> str:
    """Raises Undecided for a number."""
    if isinstance(found.value, str):
        return found.value
    if found.dimension == "status" or not found.says:
        return str(found.value)
    raise Undecided("error", f"{found.says}: a {found.dimension}, and contains and matches are for text")


def joined(results: Sequence[Result], order: Sequence[Outcome]) -> Result:
    """The members' results as one: the first outcome of `order` that is among them, and whose it is."""
    outcome = min((result[0] for result in results), key=order.index)
    reasons = [reason for found, reason in results if found == outcome]
    if len(results) == 1:
        return outcome, reasons[0]
    listed = "; ".join(reasons[:_LISTED])
    more = f"; and {len(reasons) - _LISTED} more" if len(reasons) > _LISTED else ""
    share = "all" if len(reasons) == len(results) else str(len(reasons))
    return outcome, f"{share} of {len(results)}: {listed}{more}"


def _same_dimension(left: Found, right: Found) -> None:
    if not comparable(left.dimension, right.dimension):
        against = right.says or right.shown
        raise Undecided("error", f"{left.says}, against {against}: {mismatch(left.dimension, right.dimension)}")


def _plain(found: Found) -> Value:
    return found.number if isinstance(found.value, Counts) else found.value


def _both(left: Found, right: Sequence[Found]) -> str:
    return "; ".join(says for says in (left.says, *(one.says for one in right)) if says)


def _once_in(chance: float) -> str:
    return f"{1 / chance:.1e} runs" if chance > 1e-300 else "more runs than anyone can count"
