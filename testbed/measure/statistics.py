"""Numbers about numbers: quantiles of samples, and the exact binomial test with its interval and its power.

Standard library only, no approximations by the normal law: a probability here is a sum of binomial terms, each
exact to about 1e-14 of its own size, from the largest one outward until what is left cannot matter. That holds
for n up to 10**7 and far into the tails, where a verdict at 1e-6 is decided.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction

from testbed.errors import counted

ALPHA = 1e-6  # the two-sided level at which `~` rejects
POWER = 0.99  # the probability with which it must reject half and twice the value
CONFIDENCE = 1 - ALPHA  # of the interval that goes with the test

Number = int | float | Fraction


# ---------------------------------------------------------------- samples


def quantile(ordered: Sequence[Number], percent: int) -> Number:
    """The nearest-rank quantile of sorted samples: the smallest that at least `percent` % of them do not exceed.

    It is always one of the samples, so an infinite one (a lost packet, RFC 7679 section 4.1) needs no special
    rule. Raises ValueError without samples.
    """
    if not ordered or not 0 < percent <= 100:
        raise ValueError(f"no {percent} % quantile of {counted(len(ordered), 'sample')}")
    rank = -(-percent * len(ordered) // 100)
    return ordered[rank - 1]


def samples_for_quantile(percent: int) -> int:
    """How many samples a quantile needs to say something: 10 beyond it, so 100 for p90 and 1,000 for p99."""
    return -(-10 * 100 // (100 - percent))


def median(ordered: Sequence[Number]) -> Number:
    """The middle one of sorted samples; of an even number, the mean of the two in the middle (RFC 7679, 4.2)."""
    if not ordered:
        raise ValueError("no median of 0 samples")
    half, odd = divmod(len(ordered), 2)
    if odd or ordered[half] == ordered[half - 1]:
        return ordered[half]
    return _quotient(ordered[half - 1] + ordered[half], 2)


def mean(samples: Sequence[Number]) -> Number:
    """The arithmetic mean. Whole numbers are summed exactly. Raises ValueError without samples."""
    if not samples:
        raise ValueError("no mean of 0 samples")
    return _quotient(total(samples), len(samples))


def total(samples: Sequence[Number]) -> Number:
    """The sum, without the error that adding floats one by one builds up."""
    if any(isinstance(sample, float) for sample in samples):
        return math.fsum(samples)
    return sum(samples)


def standard_deviation(samples: Sequence[Number]) -> float:
    """Of the sample (divided by n - 1). Raises ValueError for fewer than two samples."""
    if len(samples) < 2:
        raise ValueError(f"no standard deviation of {counted(len(samples), 'sample')}")
    middle = mean(samples)
    return math.sqrt(math.fsum((sample - middle) ** 2 for sample in samples) / (len(samples) - 1))


def _quotient(value: Number, by: int) -> Number:
    if isinstance(value, float):
        return value / by
    exact = Fraction(value) / by
    return int(exact) if exact.denominator == 1 else exact


# ---------------------------------------------------------------- the binomial law


def binomial_pmf(x: int, n: int, p: float) -> float:
    """The probability of exactly x successes in n trials (C. Loader's form, which does not cancel for large n)."""
    if not 0 <= x <= n:
        return 0.0
    if p <= 0 or p >= 1:
        return 1.0 if x == (0 if p <= 0 else n) else 0.0
    if x == 0:
        return math.exp(n * math.log1p(-p))
    if x == n:
        return math.exp(n * math.log(p))
    exponent = (
        _stirling_error(n)
        - _stirling_error(x)
        - _stirling_error(n - x)
        - _deviance(x, n * p)
        - _deviance(n - x, n * (1 - p))
    )
    return math.exp(exponent) * math.sqrt(n / (2 * math.pi * x * (n - x)))


def _stirling_error(n: int) -> float:
    """log n! less Stirling's formula for it."""
    if n <= 15:
        return math.lgamma(n + 1) - (n + 0.5) * math.log(n) + n - 0.5 * math.log(2 * math.pi)
    square = n * n
    return (1 / 12 - (1 / 360 - (1 / 1260 - (1 / 1680 - 1 / 1188 / square) / square) / square) / square) / n


def _deviance(x: float, expected: float) -> float:
    """x log(x / expected) + expected - x, computed without cancellation when both are close."""
    difference = x - expected
    if abs(difference) >= 0.1 * (x + expected):
        return x * math.log(x / expected) - difference
    v = difference / (x + expected)
    value, term, k = difference * v, 2 * x * v, 1
    while True:
        term *= v * v
        k += 2
        following = value + term / k
        if following == value:
            return value
        value = following


def at_most(x: int, n: int, p: float) -> float:
    """The probability of x successes or fewer in n trials."""
    if x < 0:
        return 0.0
    if x >= n or p <= 0:
        return 1.0
    if p >= 1:
        return 0.0
    return _down_from(x, n, p) if x <= n * p else 1.0 - _up_from(x + 1, n, p)


def at_least(x: int, n: int, p: float) -> float:
    """The probability of x successes or more in n trials."""
    if x <= 0:
        return 1.0
    if x > n or p <= 0:
        return 0.0
    if p >= 1:
        return 1.0
    return _up_from(x, n, p) if x >= n * p else 1.0 - _down_from(x - 1, n, p)


def _down_from(x: int, n: int, p: float) -> float:
    """The terms at x and below, for x at or below the mean: each is smaller than the one before it."""
    term = value = binomial_pmf(x, n, p)
    odds = (1 - p) / p
    for k in range(x, 0, -1):
        term *= k / (n - k + 1) * odds
        value += term
        if term <= value * 1e-17:
            break
    return min(value, 1.0)


def _up_from(x: int, n: int, p: float) -> float:
    """The terms at x and above, for x at or above the mean."""
    term = value = binomial_pmf(x, n, p)
    odds = p / (1 - p)
    for k in range(x, n):
        term *= (n - k) / (k + 1) * odds
        value += term
        if term <= value * 1e-17:
            break
    return min(value, 1.0)


# ---------------------------------------------------------------- the test


def two_sided(x: int, n: int, p: float) -> float:
    """The p-value of x of n under probability p: twice the smaller tail, both with x in them, at most 1.

    Of the several things that are called two-sided this is the one whose interval is Clopper and Pearson's: p is
    rejected exactly when it lies outside. Each side errs with half the level at most.
    """
    if not 0 <= x <= n:
        raise ValueError(f"{x} of {n} is no count")
    return min(1.0, 2 * min(at_most(x, n, p), at_least(x, n, p)))


def acceptance(n: int, p: float, alpha: float = ALPHA) -> tuple[int, int]:
    """The smallest and the largest x that `two_sided` does not reject at `alpha`."""
    middle = min(n, int(n * p))
    low, high = -1, middle  # the first is rejected (or is no count), the second is not
    if at_most(middle, n, p) <= alpha / 2:  # cannot be: the median is within one of the mean
        raise ValueError(f"no x of {n} is accepted under {p} at {alpha}")
    while high - low > 1:
        x = (low + high) // 2
        low, high = (x, high) if at_most(x, n, p) <= alpha / 2 else (low, x)
    smallest = high
    low, high = middle, n + 1
    while high - low > 1:
        x = (low + high) // 2
        low, high = (low, x) if at_least(x, n, p) <= alpha / 2 else (x, high)
    return smallest, low


def rejects(n: int, p: float, truth: float, alpha: float = ALPHA) -> float:
    """The probability that `two_sided` rejects p at `alpha` after n trials of probability `truth`: its power."""
    smallest, largest = acceptance(n, p, alpha)
    return min(1.0, at_most(smallest - 1, n, truth) + at_least(largest + 1, n, truth))


def power(n: int, p: float) -> float:
    """The smaller of the probabilities with which the test of p rejects half and twice the value.

    The value is p, or 1 - p where that is smaller: 99 % of packets delivered is the same as 1 % lost.
    """
    value = min(p, 1 - p)
    if n < 1 or not value > 0:
        return 0.0
    return min(rejects(n, value, value / 2), rejects(n, value, min(1.0, 2 * value)))


def needed(p: float) -> int:
    """The n from which on `power` never again falls below POWER: 1,489 at 10 %. Raises ValueError for 0 and 1.

    Counts are whole numbers, so power does not rise smoothly with n: each time the rejected range grows by one
    it jumps, and sinks until the next jump. A smaller n can be enough by luck (1,465 to 1,468 are, 1,469 is not);
    advice has to hold for whoever takes a few more.
    """
    value = min(p, 1 - p)
    if not value > 0:
        raise ValueError(f"{p} is not between 0 and 1")
    enough, streak, rejected = 1, 0, 0
    start = _first_rejecting(0, value, 1)
    # Twice the value is further away than half, so half decides; `power` looks at both and has the last word.
    while streak < 40:  # teeth in a row that hold to their end; the end grows by far more than the teeth differ
        following = _first_rejecting(rejected + 1, value, start)
        if power(following - 1, value) >= POWER:
            streak += 1
        else:
            streak, enough = 0, following
        start, rejected = following, rejected + 1
    return enough


def _first_rejecting(x: int, p: float, start: int) -> int:
    """The smallest n of which x successes or fewer are rejected as too few."""
    low, high = start - 1, max(2 * start, 16)
    while at_most(x, high, p) > ALPHA / 2:
        low, high = high, 2 * high
    while high - low > 1:
        n = (low + high) // 2
        low, high = (n, high) if at_most(x, n, p) > ALPHA / 2 else (low, n)
    return high


def clopper_pearson(x: int, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The exact interval for the probability behind x of n: all p that the test at 1 - confidence does not reject.

    Raises ValueError if x of n is no count of anything.
    """
    if n < 1 or not 0 <= x <= n:
        raise ValueError(f"{x} of {n} is no count")
    side = (1 - confidence) / 2
    low = 0.0 if x == 0 else _solve(lambda p: at_least(x, n, p) > side, 0.0, x / n)
    high = 1.0 if x == n else _solve(lambda p: at_most(x, n, p) <= side, x / n, 1.0)
    return low, high


def _solve(beyond: Callable[[float], bool], low: float, high: float) -> float:
    """Where `beyond` turns from false to true between low and high."""
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high) or high - low < 1e-13 * high:
            break
        low, high = (low, middle) if beyond(middle) else (middle, high)
    return (low + high) / 2
