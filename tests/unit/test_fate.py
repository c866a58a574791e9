"""The dice: exact numbers, the same by both ways in, and as random as exact tests can tell."""

from __future__ import annotations

import struct
from collections import Counter
from hashlib import shake_128
from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from testbed.conditions.condition import Condition
from testbed.conditions.fate import BLOCK, FATE_VERSION, RANGE, Draws, Stream, draws
from testbed.conditions.shape import duplicated, held, jitter_ns, lost

LINK, FLOW = "sensor->collector over lan", "udp *1>9000"


def within(count: int, of: int, ratio: float, error: float = 1e-9) -> bool:
    """Whether the exact binomial distribution allows this count: it errs once in 1/error."""
    return bool(binom.ppf(error / 2, of, ratio) <= count <= binom.isf(error / 2, of, ratio))


def sample(count: int, seed: int = 1, link: str = LINK, flow: str = FLOW) -> list[Draws]:
    return list(islice(Stream(seed, link, flow), count))


def test_these_numbers_never_change_within_a_version() -> None:
    """A stored run is judged by drawing again. Whoever must change these must raise FATE_VERSION."""
    assert FATE_VERSION == 1
    assert draws(7, LINK, FLOW, 0) == Draws(
        loss=13119012462572007306,
        duplicate=16239350394146357298,
        delay=15653820814836033260,
        reorder=2091151932395577053,
        spare_1=14718895069580182843,
        spare_2=8325774255509804053,
    )
    assert draws(7, LINK, FLOW, 1_000_003).loss == 5004141620344847112


def test_the_numbers_are_shake_128_of_the_key_and_the_block() -> None:
    words = [b"testbed fate 1", b"7", LINK.encode(), FLOW.encode()]
    key = b"".join(struct.pack("<I", len(word)) + word for word in words)
    for k in (0, 1, 15, 16, 31, 32, 5000):
        block, place = divmod(k, 16)
        data = shake_128(key + struct.pack("<Q", block)).digest(16 * 6 * 8)
        assert draws(7, LINK, FLOW, k) == struct.unpack_from("<6Q", data, place * 48)


@given(st.integers(), st.text(max_size=30), st.text(max_size=30), st.integers(0, 3 * BLOCK))
def test_a_stream_gives_what_draws_gives(seed: int, link: str, flow: str, k: int) -> None:
    stream = Stream(seed, link, flow)
    first = [next(stream) for _ in range(k)]
    assert first == [draws(seed, link, flow, number) for number in range(k)]
    assert next(iter(stream)) == draws(seed, link, flow, k)  # the fast way goes on where the other stopped
    assert next(stream) == draws(seed, link, flow, k + 1)


def test_a_packet_before_the_first_is_refused() -> None:
    with pytest.raises(ValueError, match="numbered from 0"):
        draws(1, LINK, FLOW, -1)


@given(
    st.tuples(st.integers(0, 99), st.text("ab1>", max_size=4), st.text("ab1>", max_size=4)),
    st.tuples(st.integers(0, 99), st.text("ab1>", max_size=4), st.text("ab1>", max_size=4)),
)
def test_other_keys_give_other_numbers(one: tuple[int, str, str], other: tuple[int, str, str]) -> None:
    assert (draws(*one, 0) == draws(*other, 0)) == (one == other)


@pytest.mark.parametrize("ratio", [0.0001, 0.01, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("seed", [1, 7, 2**70])
def test_each_purpose_happens_as_often_as_asked(seed: int, ratio: float) -> None:
    numbers = sample(60_000, seed)
    condition = Condition(loss_ratio=ratio)
    assert within(sum(lost(each, condition) for each in numbers), len(numbers), ratio)
    for purpose in range(len(Draws._fields)):
        assert within(sum(each[purpose] < ratio * RANGE for each in numbers), len(numbers), ratio)


def test_numbers_fill_their_range_evenly() -> None:
    numbers = sample(64_000)
    for purpose in range(len(Draws._fields)):
        for shift in (60, 30, 0):  # the highest bits, some in the middle, the lowest
            bins = Counter(each[purpose] >> shift & 15 for each in numbers)
            assert all(within(bins[number], len(numbers), 1 / 16, 1e-10) for number in range(16))


def test_purposes_neighbours_flows_links_and_seeds_are_independent() -> None:
    """Two things of probability 1/4 each happen together once in 16."""
    numbers = sample(64_000)
    yes = [[each[purpose] < RANGE // 4 for each in numbers] for purpose in range(len(Draws._fields))]
    both = [sum(map(min, one, other)) for n, one in enumerate(yes) for other in yes[:n]]
    both += [sum(a and b for a, b in pairwise(one)) for one in yes]
    strangers = [sample(64_000, flow="udp *2>9000"), sample(64_000, link="x->y over lan"), sample(64_000, seed=2)]
    both += [sum(a and b.loss < RANGE // 4 for a, b in zip(yes[0], others, strict=True)) for others in strangers]
    assert len(both) == 24
    for count in both:
        assert within(count, len(numbers), 1 / 16, 1e-10)


@given(st.integers(0, 10**6), st.floats(0, 1), st.floats(0, 1))
def test_what_a_lower_ratio_loses_a_higher_one_loses_too(k: int, one: float, other: float) -> None:
    low, high = sorted((one, other))
    numbers = draws(3, LINK, FLOW, k)
    assert lost(numbers, Condition(loss_ratio=high)) or not lost(numbers, Condition(loss_ratio=low))


@given(st.integers(0, 10**6))
def test_nothing_and_everything_are_exact(k: int) -> None:
    numbers = draws(3, LINK, FLOW, k)
    assert not lost(numbers, Condition(loss_ratio=0.0))
    assert lost(numbers, Condition(loss_ratio=1.0))
    assert duplicated(numbers, Condition(duplicate_ratio=1.0))
    assert held(numbers, Condition(reorder_ratio=1.0, reorder_by_packets=1))
    assert not held(numbers, Condition(reorder_ratio=1.0, reorder_by_packets=0))


def test_the_last_and_the_first_number_at_the_edges() -> None:
    least, most = Draws(0, 0, 0, 0, 0, 0), Draws(*(6 * (RANGE - 1,)))
    assert lost(least, Condition(loss_ratio=2.0**-64)) and not lost(most, Condition(loss_ratio=1 - 2.0**-53))
    for distribution, limit in (("uniform", 1000), ("normal", 4000)):
        jittered = Condition(delay_ns=10_000, jitter_ns=1000, jitter_distribution=distribution)
        assert (jitter_ns(least, jittered), jitter_ns(most, jittered)) == (-limit, limit)


def test_a_lost_packet_is_neither_duplicated_nor_held() -> None:
    least = Draws(0, 0, 0, 0, 0, 0)
    everything = Condition(loss_ratio=0.5, duplicate_ratio=0.5, reorder_ratio=0.5, reorder_by_packets=2)
    assert lost(least, everything)
    assert not duplicated(least, everything) and not held(least, everything)


@given(
    st.integers(0, RANGE - 1),
    st.integers(0, 10**10),
    st.integers(0, 10**10),
    st.sampled_from(["uniform", "normal"]),
)
def test_jitter_stays_in_its_range_and_time_never_runs_back(
    number: int, delay: int, jitter: int, distribution: str
) -> None:
    condition = Condition(delay_ns=delay, jitter_ns=jitter, jitter_distribution=distribution)
    offset = jitter_ns(Draws(0, 0, number, 0, 0, 0), condition)
    assert -delay <= offset
    assert abs(offset) <= (jitter if distribution == "uniform" else 4 * jitter)


@pytest.mark.parametrize("distribution", ["uniform", "normal"])
def test_jitter_has_the_distribution_that_was_asked_for(distribution: str) -> None:
    """At points of the cumulative distribution, by the exact binomial test."""
    condition = Condition(delay_ns=10**9, jitter_ns=10**6, jitter_distribution=distribution)
    offsets = [jitter_ns(each, condition) for each in sample(60_000)]
    points = (
        {-0.5: 0.25, 0.0: 0.5, 0.5: 0.75} if distribution == "uniform" else {-1: 0.158655, 0: 0.5, 2: 0.977250}
    )
    for sigmas, below in points.items():
        assert within(sum(offset < sigmas * 10**6 for offset in offsets), len(offsets), below)


@pytest.mark.parametrize("jitter", [1, 2])
def test_a_jitter_of_few_nanoseconds_is_even(jitter: int) -> None:
    offsets = Counter(jitter_ns(each, Condition(delay_ns=9, jitter_ns=jitter)) for each in sample(30_000))
    assert set(offsets) == set(range(-jitter, jitter + 1))
    assert all(within(count, 30_000, 1 / (2 * jitter + 1)) for count in offsets.values())
