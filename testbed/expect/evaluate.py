"""One expectation against the evidence of one run: an outcome and the reason for it.

The test is made for each member of the left side by itself, then joined. What has no value (a program that died,
a sample too small, a unit that does not match) ends that member's test with an outcome of its own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

from testbed.expect import compare
from testbed.expect.compare import Found, Result
from testbed.expect.evidence import Evidence, Undecided
from testbed.expect.names import Member, Names, Target, Unknown, matching
from testbed.expect.show import shown
from testbed.expect.syntax import Combined, Literally, Operand, Parsed, Reading, Test, Variable
from testbed.expect.variables import expanded
from testbed.measure import statistics
from testbed.measure.metrics import CALLED_LIKE_UNIT
from testbed.measure.records import SEVERITY, Outcome
from testbed.measure.samples import Dimension, Value
from testbed.measure.statistics import Number

# One member that holds is enough for `any`; if none does, what could not be decided comes before what failed.
_ANY: tuple[Outcome, ...] = ("pass", "error", "inconclusive", "fail", "skip")


class Evaluator:
    """Judges the expectations of one plan against one run."""

    def __init__(self, names: Names, evidence: Evidence) -> None:
        self.names, self.evidence = names, evidence

    def evaluate(self, parsed: Parsed) -> Result:
        """Raises Unknown for a name that stands for nothing."""
        left = self.names.resolve(parsed.metric)
        if parsed.quantifier == "sum of":
            return self._member(left, None, parsed.test)
        results = [self._member(left, member, parsed.test) for member in left.members]
        return compare.joined(results, _ANY if parsed.quantifier == "any" else SEVERITY)

    def _member(self, left: Target, member: Member | None, test: Test) -> Result:
        """`member` None: the sum of all of them is on the left."""
        dimension = None
        try:
            found = self._sum(left) if member is None else self._of(left, member)
            dimension = found.dimension
            outcome, reason = self._test(found, test, left, member)
        except Undecided as why:
            outcome, reason = why.outcome, str(why)
        if outcome == "fail" and dimension != "time":  # times have their own lateness taken off
            late = self.evidence.excuse(self._involved(left, member, test))
            excuse = late or self._until_the_end(left, member, test)
            return ("inconclusive", f"{reason}; {excuse}") if excuse else (outcome, reason)
        return outcome, reason

    def _until_the_end(self, left: Target, member: Member | None, test: Test) -> str:
        """Why it may hold with what links carried until programs that were stopped had ended; "" if it cannot."""
        later, said = self.evidence.last_words(self._involved(left, member, test))
        if not said:
            return ""
        try:
            at_first = self._compared(left, member, test)
            at_last = Evaluator(self.names, later)._compared(left, member, test)
        except Undecided:
            return ""
        if at_last[0] == "pass" or at_first[1] * at_last[1] <= 0:
            return f"{said}, and may have been counted or not: let a `run` wait for what has to be counted"
        return ""

    def _compared(self, left: Target, member: Member | None, test: Test) -> tuple[Outcome, Number]:
        """The outcome, and by how much the left side is more, where `==` compares two counts: else 1."""
        found = self._sum(left) if member is None else self._of(left, member)
        if test.operator == "==" and len(test.operands) == 1 and found.dimension in ("number", "size"):
            right = _alike(self._operand(test.operands[0], left, member), found, left)
            return self._test(found, test, left, member)[0], found.number - right.number
        return self._test(found, test, left, member)[0], 1

    def _involved(self, left: Target, member: Member | None, test: Test) -> Iterator[Member]:
        """Whose values were compared."""
        yield from left.members if member is None else (member,)
        for reading in test.readings():
            target = self.names.resolve(reading.metric)
            if reading.summed:
                yield from target.members
            else:
                yield _only(target) if member is None else matching(member, left.several, target)

    def _test(self, left: Found, test: Test, target: Target, member: Member | None) -> Result:
        right = [_alike(self._operand(operand, target, member), left, target) for operand in test.operands]
        match test.operator:
            case "contains" | "does not contain" | "matches":
                return compare.on_text(left, test.operator, right[0] if right else None, test.regex)
            case "==" | "!=":
                return compare.equality(left, test.operator, right)
            case "between":
                return compare.between(left, *right)
            case "~" if test.tolerance is None:
                return compare.binomial(left, right[0])
            case "~":
                assert test.tolerance is not None
                return compare.around(left, right[0], self._operand(test.tolerance, target, member))
            case _:
                return compare.ordered(left, test.operator, right[0])

    # -- values

    def _of(self, target: Target, member: Member) -> Found:
        samples = self.evidence.value(target, member)
        value, dimension = samples.values[0], samples.dimension
        found = _found(target.shown(member), value, dimension)
        if dimension != "time":
            return found
        late_ns, overdue_ns = self.evidence.lateness_ns(member), self.evidence.overdue_ns(target, member, value)
        return replace(found, late_ns=late_ns, overdue_ns=overdue_ns)

    def _sum(self, target: Target) -> Found:
        parts = [self._of(target, member) for member in target.members]
        dimension = _one_dimension(*parts)
        if dimension == "ratio":
            raise Undecided("error", f"the sum of {target.written} is no ratio: name one, or compare its counts")
        value = _calculated(statistics.total([part.number for part in parts]))
        found = _found(f"the sum of {target.written}", value, dimension)
        late_ns, overdue_ns = sum(part.late_ns for part in parts), sum(part.overdue_ns for part in parts)
        return replace(found, late_ns=late_ns, overdue_ns=overdue_ns)

    def _operand(self, operand: Operand, left: Target, member: Member | None) -> Found:
        match operand:
            case Literally(str() as text):
                quoted = operand.written[0] in "\"'"
                return Found(expanded(self.names, text, member, operand.at) if quoted else text, "text")
            case Literally(Fraction() as number):
                return Found(_whole(number), operand.dimension)
            case Variable():
                text = expanded(self.names, operand.written, member, operand.at)
                return Found(int(text), "number") if re.fullmatch("[0-9]+", text) else Found(text, "text")
            case Reading():
                return self._reading(operand, left, member)
            case Combined():
                return self._combined(operand, left, member)
            case _:
                raise AssertionError(operand)

    def _reading(self, reading: Reading, left: Target, member: Member | None) -> Found:
        target = self.names.resolve(reading.metric)
        if reading.summed:
            found = self._sum(target)
        else:
            found = self._of(target, _only(target) if member is None else matching(member, left.several, target))
        if not reading.written_factor:
            return found
        value = _calculated(found.number * reading.factor)
        late_ns, overdue_ns = math.ceil(found.late_ns * reading.factor), found.overdue_ns * reading.factor
        times = _found(f"{reading.written_factor}{found.name}", value, found.dimension)
        return replace(times, late_ns=late_ns, overdue_ns=overdue_ns)

    def _combined(self, both: Combined, left: Target, member: Member | None) -> Found:
        a, b = (self._operand(operand, left, member) for operand in (both.left, both.right))
        dimension = _one_dimension(a, b)
        value = _calculated(a.number + b.number if both.sign == "+" else a.number - b.number)
        if not (a.says or b.says):
            return Found(value, dimension)
        parts = " and ".join(says for says in (a.says, b.says) if says)
        late_ns = a.late_ns + (b.late_ns if both.sign == "+" else 0)
        overdue_ns = a.overdue_ns + (b.overdue_ns if both.sign == "+" else -b.overdue_ns)
        found = Found(value, dimension, f"{parts}, which makes {shown(value, dimension)}")
        return replace(found, late_ns=late_ns, overdue_ns=overdue_ns)


def _found(name: str, value: Value, dimension: Dimension) -> Found:
    return Found(value, dimension, f"{name} is {shown(value, dimension)}", name)


def _alike(right: Found, left: Found, target: Target) -> Found:
    """A bare number, against a metric that is called like its unit, is in that unit: `client.bytes == 3000000`."""
    dimension, scale = CALLED_LIKE_UNIT.get(target.metric, ("number", 1))
    own = target.kind == "program" and left.dimension == dimension != "number"
    if right.dimension != "number" or not own:
        return right
    return replace(right, value=_whole(right.number * scale), dimension=dimension)


def _only(target: Target) -> Member:
    """Beside a sum on the left, there is no member to match. Raises Unknown."""
    if len(target.members) > 1:
        message = f"`{target.written}` is {len(target.members)} metrics, and the left side is one sum"
        raise Unknown(message, target.at, f"write `sum of {target.written}`")
    return target.members[0]


def _one_dimension(*found: Found) -> Dimension:
    first = found[0]
    for one in found:
        if one.dimension != first.dimension:
            names = f"{first.says or first.shown}, {one.says or one.shown}"
            raise Undecided("error", f"{names}: {compare.mismatch(first.dimension, one.dimension)}")
        if one.dimension in ("text", "status"):
            raise Undecided("error", f"{one.says or one.shown}: a {one.dimension} cannot be calculated with")
    return first.dimension


def _whole(number: Number) -> Value:
    return int(number) if isinstance(number, Fraction) and number.denominator == 1 else number


def _calculated(number: Number) -> Number:
    if isinstance(number, float) and math.isnan(number):
        raise Undecided("inconclusive", "infinite less infinite: too many packets were lost for this calculation")
    return int(number) if isinstance(number, Fraction) and number.denominator == 1 else number
