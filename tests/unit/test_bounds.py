"""How long a frame may stay in a link: no frame of the shaper stays longer, and one stays as long as it may."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from testbed.conditions.bounds import longest_stay_ns, longest_wait_ns
from testbed.conditions.condition import Condition
from testbed.conditions.fate import Draws
from testbed.conditions.shape import HOLD_NS, Shaper
from tests.unit.test_expect_trust import ARRIVALS, CONDITIONS, crossing

MS, S = 10**6, 10**9
SMALL, FULL = 60, 1514
KBIT = 8_000  # one byte in a millisecond
PLAIN = Draws(*[2**64 - 1] * 6)


@pytest.mark.parametrize(
    ("condition", "stay_ns"),
    [
        (Condition(), 0),
        (Condition(delay_ns=20 * MS), 20 * MS),
        (Condition(delay_ns=20 * MS, jitter_ns=2 * MS), 22 * MS),
        (Condition(delay_ns=20 * MS, jitter_ns=2 * MS, jitter_distribution="normal"), 28 * MS),
        (Condition(delay_ns=5 * MS, reorder_ratio=0.1, reorder_by_packets=2), 5 * MS + HOLD_NS),
        (Condition(reorder_ratio=0.1), 0),
        (Condition(rate_bit_s=KBIT, queue_packets=0), FULL * MS),
        (Condition(rate_bit_s=KBIT, queue_packets=20), 21 * FULL * MS),
        (Condition(rate_bit_s=KBIT, queue_packets=20, delay_ns=7), 21 * FULL * MS + 7),
        (Condition(rate_bit_s=KBIT, queue_ns=3 * S), 3 * S + FULL * MS),
        (Condition(rate_bit_s=KBIT, queue_bytes=10_000), (10_000 + 2 * FULL) * MS + 10_000),
        (Condition(rate_bit_s=KBIT), None),
    ],
)
def test_every_limit_counts(condition: Condition, stay_ns: int | None) -> None:
    assert longest_stay_ns(condition, FULL) == stay_ns


@settings(max_examples=200, deadline=None)
@given(CONDITIONS, ARRIVALS)
def test_nothing_stays_longer(condition: Condition, arrivals: list[tuple[int, int]]) -> None:
    most_ns = longest_stay_ns(condition, max(size for _, size in arrivals))
    stays = [f.due_ns - f.in_ns for f in crossing(condition, arrivals) if f.due_ns is not None]
    assert most_ns is None or all(stay <= most_ns for stay in stays)


@pytest.mark.parametrize(
    "condition",
    [
        Condition(rate_bit_s=KBIT, queue_packets=20),
        Condition(rate_bit_s=KBIT, queue_bytes=20 * FULL),
        Condition(rate_bit_s=KBIT, queue_ns=20 * FULL * MS),
    ],
)
def test_a_full_queue_makes_the_last_frame_wait_so_long(condition: Condition) -> None:
    shaper = Shaper(condition)
    dues = [fate.due_ns for _ in range(50) if (fate := shaper.decide(PLAIN, FULL, 0)).due_ns is not None]
    assert len(dues) == 21
    wait_ns, longest_ns = dues[-1] - FULL * MS, longest_wait_ns(condition, FULL)
    assert longest_ns is not None
    assert wait_ns <= longest_ns <= wait_ns + FULL * MS + 20 * FULL
