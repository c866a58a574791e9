"""Quantiles, the exact binomial test, its interval and its power: against exact fractions and against scipy."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from testbed.measure import statistics

PROBABILITIES = st.one_of(
    st.floats(1e-6, 1 - 1e-6),
    st.floats(-6, -0.1).map(lambda exponent: 10**exponent),
    st.sampled_from([0.5, 0.1, 0.01, 0.001, 0.9, 0.99]),
)


def exact_tail(x: int, n: int, p: Fraction) -> Fraction:
    """P(X <= x), with no rounding at all."""
    return sum((math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(x + 1)), Fraction(0))


# ---------------------------------------------------------------- the binomial law


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 60).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))), PROBABILITIES)
def test_small_tails_are_exact_to_fourteen_digits(counts: tuple[int, int], p: float) -> None:
    n, x = counts
    below, above = exact_tail(x, n, Fraction(p)), 1 - exact_tail(x - 1, n, Fraction(p))
    assert statistics.at_most(x, n, p) == pytest.approx(float(below), rel=1e-12, abs=0)
    assert statistics.at_least(x, n, p) == pytest.approx(float(above), rel=1e-12, abs=0)
    assert statistics.binomial_pmf(x, n, p) == pytest.approx(float(below + above - 1), rel=1e-12, abs=0)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 10**7), PROBABILITIES, st.floats(-9, 9))
def test_tails_agree_with_scipy_up_to_ten_million(n: int, p: float, sigmas: float) -> None:
    x = min(n, max(0, round(n * p + sigmas * math.sqrt(n * p * (1 - p)))))
    # scipy itself turns p into 1 - p on its way and is good to about nine digits where p is tiny
    assert statistics.at_most(x, n, p) == pytest.approx(stats.binom.cdf(x, n, p), rel=1e-8, abs=0)
    assert statistics.at_least(x, n, p) == pytest.approx(stats.binom.sf(x - 1, n, p), rel=1e-8, abs=0)


def test_a_tail_of_a_large_n_of_rare_events_is_exact() -> None:
    n, p, x = 2226608, 1.2811016904684016e-05, 4
    with localcontext() as context:
        context.prec = 50
        q = 1 - Decimal(p)
        exact = sum(math.comb(n, k) * Decimal(p) ** k * q ** (n - k) for k in range(x + 1))
    assert statistics.at_most(x, n, p) == pytest.approx(float(exact), rel=1e-13, abs=0)


def test_the_ends_of_the_law() -> None:
    assert statistics.at_most(-1, 5, 0.5) == 0 and statistics.at_most(5, 5, 0.5) == 1
    assert statistics.at_least(0, 5, 0.5) == 1 and statistics.at_least(6, 5, 0.5) == 0
    assert statistics.at_most(0, 5, 0.0) == 1 and statistics.at_least(1, 5, 0.0) == 0
    assert statistics.at_most(4, 5, 1.0) == 0 and statistics.at_least(5, 5, 1.0) == 1
    assert statistics.binomial_pmf(0, 5, 0.0) == 1 and statistics.binomial_pmf(5, 5, 1.0) == 1
    assert statistics.binomial_pmf(6, 5, 0.5) == 0


# ---------------------------------------------------------------- the test and its interval


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 10**6), PROBABILITIES, st.floats(-7, 7))
def test_the_p_value_is_twice_the_smaller_tail(n: int, p: float, sigmas: float) -> None:
    x = min(n, max(0, round(n * p + sigmas * math.sqrt(n * p * (1 - p)))))
    less = stats.binomtest(x, n, p, "less").pvalue
    greater = stats.binomtest(x, n, p, "greater").pvalue
    assert statistics.two_sided(x, n, p) == pytest.approx(min(1.0, 2 * min(less, greater)), rel=1e-8, abs=0)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 10**6).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))))
def test_the_interval_is_clopper_and_pearsons(counts: tuple[int, int]) -> None:
    n, x = counts
    low, high = statistics.clopper_pearson(x, n, 0.95)
    theirs = stats.binomtest(x, n).proportion_ci(0.95, "exact")
    assert low == pytest.approx(theirs.low, rel=1e-9, abs=1e-12)
    assert high == pytest.approx(theirs.high, rel=1e-9, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(10, 20000), st.floats(0.01, 0.99), st.floats(-8, 8))
def test_the_interval_holds_exactly_what_the_test_does_not_reject(n: int, p: float, sigmas: float) -> None:
    x = min(n, max(0, round(n * p + sigmas * math.sqrt(n * p * (1 - p)))))
    low, high = statistics.clopper_pearson(x, n)
    assert statistics.two_sided(x, n, p) <= statistics.ALPHA or low <= p <= high
    if x > 0:
        assert statistics.two_sided(x, n, low * (1 - 1e-9)) <= statistics.ALPHA
        assert statistics.two_sided(x, n, low * (1 + 1e-9)) > statistics.ALPHA
    if x < n:
        assert statistics.two_sided(x, n, high * (1 + 1e-9)) <= statistics.ALPHA
        assert statistics.two_sided(x, n, high * (1 - 1e-9)) > statistics.ALPHA


def test_counts_that_are_none_are_refused() -> None:
    for x, n in ((3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="no count"):
            statistics.two_sided(x, n, 0.5)
        with pytest.raises(ValueError, match="no count"):
            statistics.clopper_pearson(x, n)
    with pytest.raises(ValueError, match="no count"):
        statistics.clopper_pearson(0, 0)


@pytest.mark.parametrize(("n", "p"), [(1, 0.5), (20, 0.1), (1489, 0.1), (2000, 0.1), (16020, 0.01), (10**6, 0.3)])
def test_what_is_accepted_ends_where_the_p_value_falls_below_alpha(n: int, p: float) -> None:
    smallest, largest = statistics.acceptance(n, p)
    for x, accepted in ((smallest, True), (largest, True), (smallest - 1, False), (largest + 1, False)):
        if 0 <= x <= n:
            assert (statistics.two_sided(x, n, p) > statistics.ALPHA) == accepted


# ---------------------------------------------------------------- calibration: exact sums, no simulation


@pytest.mark.parametrize("p", [0.5, 0.3, 0.1, 0.01, 0.001, 0.9, 0.99])
@pytest.mark.parametrize("factor", [1, 1.37, 4])
def test_a_true_value_is_rejected_at_most_once_in_a_million(p: float, factor: float) -> None:
    n = int(statistics.needed(p) * factor)
    smallest, largest = statistics.acceptance(n, p)
    false_alarm = stats.binom.cdf(smallest - 1, n, p) + stats.binom.sf(largest, n, p)
    assert false_alarm <= 1e-6
    assert statistics.rejects(n, p, p) == pytest.approx(false_alarm, rel=1e-7)
    assert false_alarm > 1e-7  # the level is used: a test that never rejects has no false alarms either


@pytest.mark.parametrize("p", [0.5, 0.3, 0.1, 0.01, 0.001, 0.9, 0.99])
def test_half_and_twice_are_rejected_with_99_percent_at_the_needed_n_and_ever_after(p: float) -> None:
    value, n = min(p, 1 - p), statistics.needed(p)
    for more in (n, n + 1, n + 7, int(n * 1.001), int(n * 1.01), int(n * 1.1), 2 * n):
        smallest, largest = statistics.acceptance(more, value)
        for truth in (value / 2, min(1.0, 2 * value)):
            power = stats.binom.cdf(smallest - 1, more, truth) + stats.binom.sf(largest, more, truth)
            assert power >= 0.99, (more, truth)
    assert statistics.power(n - 1, p) < 0.99


@pytest.mark.parametrize("p", [0.5, 0.45, 0.3, 0.2, 0.1])
def test_no_n_above_the_needed_one_falls_short(p: float) -> None:
    n = statistics.needed(p)
    assert all(statistics.power(more, p) >= statistics.POWER for more in range(n, 3 * n))


def test_needed_numbers() -> None:
    assert [statistics.needed(p) for p in (0.5, 0.1, 0.05, 0.01, 0.001)] == [195, 1489, 3107, 16020, 160464]
    assert statistics.needed(0.9) == statistics.needed(0.1)
    assert statistics.needed(1e-5) == 16049266
    for p in (0.0, 1.0):
        with pytest.raises(ValueError, match="not between 0 and 1"):
            statistics.needed(p)


@pytest.mark.parametrize(("p", "n"), [(0.1, 1478), (0.01, 15911), (0.001, 159350)])
def test_the_sizes_that_the_format_names_are_enough(p: float, n: int) -> None:
    assert statistics.power(n, p) >= 0.99


def test_half_is_the_harder_one_so_the_search_may_follow_it() -> None:
    for p in (0.5, 0.4, 0.3, 0.1, 0.01):
        for n in (statistics.needed(p) // 2, statistics.needed(p), 2 * statistics.needed(p)):
            assert statistics.rejects(n, p, p / 2) <= statistics.rejects(n, p, min(1.0, 2 * p)) + 1e-12


def test_no_packets_have_no_power() -> None:
    assert statistics.power(0, 0.1) == 0
    assert statistics.power(10, 0.1) == pytest.approx(0, abs=1e-3)


# ---------------------------------------------------------------- samples


@given(st.lists(st.integers(-(10**9), 10**9), min_size=1), st.integers(1, 100))
def test_a_quantile_is_the_smallest_sample_that_covers_its_share(samples: list[int], percent: int) -> None:
    ordered = sorted(samples)
    value = statistics.quantile(ordered, percent)
    assert value in samples
    assert 100 * sum(s <= value for s in samples) >= percent * len(samples)
    smaller = [s for s in samples if s < value]
    assert 100 * len(smaller) < percent * len(samples)


def test_quantiles_take_infinite_samples_as_they_are() -> None:
    samples = [*range(1, 91), *[math.inf] * 10]
    assert statistics.quantile(samples, 90) == 90
    assert statistics.quantile(samples, 91) == math.inf
    assert statistics.median([1, math.inf, math.inf]) == math.inf
    assert statistics.median([1, 2, math.inf]) == 2


def test_how_many_samples_a_quantile_needs() -> None:
    assert [statistics.samples_for_quantile(p) for p in (90, 95, 99, 50)] == [100, 200, 1000, 20]


def test_means_and_medians_are_exact() -> None:
    assert statistics.mean([1, 2]) == Fraction(3, 2)
    assert statistics.mean([10**18, 10**18 + 2]) == 10**18 + 1
    assert statistics.median([1, 2, 4, 9]) == 3
    assert statistics.median([1, 4, 9]) == 4
    assert statistics.total([Fraction(1, 10)] * 10) == 1
    assert statistics.total([0.1] * 10) == 1.0


def test_the_standard_deviation_is_of_the_sample() -> None:
    assert statistics.standard_deviation([2, 4, 4, 4, 5, 5, 7, 9]) == pytest.approx(2.1380899352993947)


@pytest.mark.parametrize(
    "call",
    [
        lambda: statistics.mean([]),
        lambda: statistics.median([]),
        lambda: statistics.quantile([], 50),
        lambda: statistics.quantile([1], 0),
        lambda: statistics.standard_deviation([1]),
    ],
)
def test_what_has_no_value_is_refused(call: object) -> None:
    assert callable(call)
    with pytest.raises(ValueError, match="no "):
        call()
