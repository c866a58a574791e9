"""What a metric is once it was read: samples of one dimension, in base units, and the aggregates of them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from testbed.measure import statistics
from testbed.measure.statistics import Number

Dimension = Literal["time", "rate", "size", "ratio", "number", "text", "status"]

AGGREGATES = ("count", "sum", "min", "mean", "median", "p90", "p95", "p99", "max", "sd", "first", "last")
NEED_NUMBERS = frozenset(AGGREGATES) - {"count", "first", "last"}
PERCENTILE = re.compile(r"p([1-9][0-9])")


@dataclass(frozen=True)
class Counts:
    """A ratio with what it was counted from: `count` of `of`."""

    count: int
    of: int

    @property
    def ratio(self) -> Fraction:
        """Raises ZeroDivisionError if nothing was counted."""
        return Fraction(self.count, self.of)


Value = int | float | Fraction | str | Counts


@dataclass(frozen=True)
class Samples:
    """In the order in which they were taken. Times are ns, rates bit/s, sizes bytes, ratios 0..1.

    `text` holds words as well. A `status` is how a program ended: a number, or a word if a signal or its timeout
    ended it. What is no whole number is an exact Fraction, so that 0.12 is 12 %; a float is infinite (the delay of
    a packet that was lost) or a standard deviation.
    """

    dimension: Dimension
    values: Sequence[Value]


class TooFew(ValueError):
    """The aggregate needs more samples than there are."""


def numbers(samples: Samples) -> list[Number]:
    """All samples as numbers. Raises TypeError for words, ZeroDivisionError for a ratio of nothing."""
    found: list[Number] = []
    for value in samples.values:
        if isinstance(value, str):
            raise TypeError(f"`{value}` is a word")
        found.append(value.ratio if isinstance(value, Counts) else value)
    return found


def aggregate(samples: Samples, name: str) -> Samples:
    """One of AGGREGATES of the samples, as one sample.

    Lost packets: min, median, quantiles and max take their delay as infinite (RFC 7679, section 4; they count as
    samples); sum, mean and sd are of those that arrived (RFC 6049, section 4.2: the mean of finite delays).
    Raises TooFew, and TypeError for an aggregate of words that needs numbers.
    """
    if name == "count":
        return Samples("number", [len(samples.values)])
    if name in ("first", "last"):
        if not samples.values:
            raise TooFew(f".{name} needs a sample, and there is none")
        return Samples(samples.dimension, [samples.values[0 if name == "first" else -1]])
    return Samples(samples.dimension, [_of_numbers(numbers(samples), name)])


def _of_numbers(values: list[Number], name: str) -> Number:
    finite = [value for value in values if value != math.inf]
    if name == "sum":
        return statistics.total(finite)
    need = {"mean": 1, "sd": 2}.get(name)
    if need is not None:
        if len(finite) < need:
            raise TooFew(f".{name} needs {need} {_word(need)}, and there {_is(len(finite))}")
        return statistics.mean(finite) if name == "mean" else statistics.standard_deviation(finite)
    percentile = PERCENTILE.fullmatch(name)
    need = statistics.samples_for_quantile(int(percentile[1])) if percentile else 1
    if len(values) < need:
        raise TooFew(f".{name} needs {need:,} {_word(need)}, and there {_is(len(values))}")
    ordered = sorted(values)
    if percentile:
        return statistics.quantile(ordered, int(percentile[1]))
    return {"min": ordered[0], "max": ordered[-1], "median": statistics.median(ordered)}[name]


def _word(n: int) -> str:
    return "sample" if n == 1 else "samples"


def _is(n: int) -> str:
    return "is none" if n == 0 else f"is {n}" if n == 1 else f"are {n:,}"
