"""An expectation as data: what `grammar` makes of the text. `at` is an offset into that text, from 0."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from testbed.measure.samples import Dimension

Quantifier = Literal["every", "any", "sum of"]
Operator = Literal[
    "==", "!=", "<", "<=", ">", ">=", "between", "~", "contains", "does not contain", "matches"
]  # fmt: skip


@dataclass(frozen=True)
class Dotted:
    """`sensor.lost`, `host.program.delay.max`, `host.kernel.COUNTER`: which of them it is, the plan knows."""

    words: tuple[str, ...]
    at: int

    def __str__(self) -> str:
        return ".".join(self.words)


@dataclass(frozen=True)
class OfLink:
    """`a->b.dropped`, `a->b over lan.one_way_delay.p99`."""

    source: str
    target: str
    network: str | None
    path: tuple[str, ...]
    at: int

    def __str__(self) -> str:
        over = f" over {self.network}" if self.network else ""
        return f"{self.source}->{self.target}{over}.{'.'.join(self.path)}"


Metric = Dotted | OfLink


@dataclass(frozen=True)
class Literally:
    """A number with or without unit, a word or a text. Numbers are exact and in base units."""

    value: Fraction | str
    dimension: Dimension
    written: str
    at: int


@dataclass(frozen=True)
class Variable:
    """`$name`: stands for text or a number that the plan knows."""

    written: str
    at: int


@dataclass(frozen=True)
class Reading:
    """A metric as a value: `x.sent`, `sum of x.sent`, `90 % of x.sent` (factor 9/10), `2 x x.sent`."""

    metric: Metric
    summed: bool = False
    factor: Fraction = Fraction(1)
    written_factor: str = ""


@dataclass(frozen=True)
class Combined:
    """`left + right` or `left - right`."""

    left: Operand
    sign: Literal["+", "-"]
    right: Operand


Operand = Literally | Variable | Reading | Combined


@dataclass(frozen=True)
class Test:
    """`operator` and its operands: one; two for `between`; several for `==` and `!=` with `or`.

    `tolerance` belongs to `~`. `regex` belongs to `matches`, which has no operands.
    """

    __test__ = False  # pytest would take the name for a test class

    operator: Operator
    at: int
    operands: tuple[Operand, ...] = ()
    tolerance: Operand | None = None
    regex: str = ""

    def readings(self) -> Iterator[Reading]:
        """Every metric on the right."""
        for operand in (*self.operands, self.tolerance):
            yield from _readings(operand)


@dataclass(frozen=True)
class Parsed:
    """One expectation. No quantifier means `every`: a group's members must all hold."""

    quantifier: Quantifier
    metric: Metric
    test: Test

    def readings(self) -> Iterator[Reading]:
        """Every metric that is named, the left one first."""
        yield Reading(self.metric, self.quantifier == "sum of")
        yield from self.test.readings()


def _readings(operand: Operand | None) -> Iterator[Reading]:
    if isinstance(operand, Reading):
        yield operand
    elif isinstance(operand, Combined):
        yield from _readings(operand.left)
        yield from _readings(operand.right)


def literals(operand: Operand | None) -> Iterator[Literally | Variable]:
    """Everything in an operand that is no metric."""
    if isinstance(operand, Literally | Variable):
        yield operand
    elif isinstance(operand, Combined):
        yield from literals(operand.left)
        yield from literals(operand.right)


def position(operand: Operand) -> int:
    """Where it begins in the text."""
    if isinstance(operand, Reading):
        return operand.metric.at
    return position(operand.left) if isinstance(operand, Combined) else operand.at
