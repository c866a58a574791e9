"""What a condition does with time, size and order: exact cases first, then what must hold for all of them."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.conditions.condition import Condition
from testbed.conditions.fate import RANGE, Draws
from testbed.conditions.shape import (
    HOLD_NS,
    Departure,
    Fate,
    Release,
    Shaper,
    check,
    duplicated,
    held,
    jitter_ns,
    lost,
)

NOTHING = Draws(RANGE - 1, RANGE - 1, RANGE // 2, RANGE - 1, 0, 0)  # happens to this packet, and no jitter
LOSE, DOUBLE, HOLD = NOTHING._replace(loss=0), NOTHING._replace(duplicate=0), NOTHING._replace(reorder=0)
MS = 1_000_000
T = 10**12  # now


# -- exact


def test_the_empty_condition_changes_nothing() -> None:
    assert Shaper(Condition()).decide(NOTHING, 1514, T) == Fate(None, T)


def test_delay_and_jitter_are_added() -> None:
    condition = Condition(delay_ns=20 * MS, jitter_ns=2 * MS)
    shaper = Shaper(condition)
    assert shaper.decide(NOTHING, 100, T).due_ns == T + 20 * MS
    assert shaper.decide(NOTHING._replace(delay=0), 100, T).due_ns == T + 18 * MS
    assert shaper.decide(NOTHING._replace(delay=RANGE - 1), 100, T).due_ns == T + 22 * MS


def test_a_jitter_above_the_delay_never_sends_into_the_past() -> None:
    shaper = Shaper(Condition(delay_ns=1 * MS, jitter_ns=5 * MS))
    assert shaper.decide(NOTHING._replace(delay=0), 100, T).due_ns == T


def test_a_lost_packet_takes_no_place_in_the_queue_and_has_no_copy() -> None:
    shaper = Shaper(Condition(loss_ratio=0.5, duplicate_ratio=1.0, rate_bit_s=8_000_000, queue_packets=0))
    assert shaper.decide(LOSE._replace(duplicate=0), 1000, T) == Fate("loss", None)
    assert shaper.decide(NOTHING, 1000, T).due_ns == T + 1 * MS  # the transmitter was idle


def test_rate_is_one_frame_after_the_other() -> None:
    shaper = Shaper(Condition(rate_bit_s=8_000_000, delay_ns=5 * MS))  # 1000 bytes take 1 ms
    assert [shaper.decide(NOTHING, 1000, T).due_ns for _ in range(3)] == [T + 6 * MS, T + 7 * MS, T + 8 * MS]
    assert shaper.decide(NOTHING, 500, T + 10 * MS).due_ns == T + 15 * MS + MS // 2


def test_transmission_is_rounded_up() -> None:
    assert Shaper(Condition(rate_bit_s=3)).decide(NOTHING, 1, T).due_ns == T + 2_666_666_667


def test_the_queue_counts_who_waits_and_not_who_is_sent() -> None:
    shaper = Shaper(Condition(rate_bit_s=8_000_000, queue_packets=2))
    assert [shaper.decide(NOTHING, 1000, T).cause for _ in range(5)] == [None, None, None, "queue", "queue"]
    assert shaper.decide(NOTHING, 1000, T + 1 * MS - 1).cause == "queue"
    assert shaper.decide(NOTHING, 1000, T + 1 * MS).due_ns == T + 4 * MS  # one went from waiting to sending


def test_a_queue_of_time() -> None:
    shaper = Shaper(Condition(rate_bit_s=8_000_000, queue_ns=2 * MS))
    fates = [shaper.decide(NOTHING, 1000, T) for _ in range(4)]
    assert [fate.cause for fate in fates] == [None, None, None, "queue"]  # the third waits for exactly 2 ms
    assert shaper.decide(NOTHING, 1000, T + 1 * MS - 1).cause == "queue"
    assert shaper.decide(NOTHING, 1000, T + 1 * MS).cause is None


def test_a_queue_of_bytes() -> None:
    shaper = Shaper(Condition(rate_bit_s=8_000_000, queue_bytes=1500))
    sizes = [1000, 1000, 501, 500, 1]
    assert [shaper.decide(NOTHING, size, T).cause for size in sizes] == [None, None, "queue", None, "queue"]
    assert shaper.decide(NOTHING, 1000, T + 1 * MS).cause is None  # the first of the waiting is sent now


def test_a_frame_larger_than_the_queue_passes_an_idle_transmitter_only() -> None:
    shaper = Shaper(Condition(rate_bit_s=8_000_000, queue_bytes=10))
    assert [shaper.decide(NOTHING, 1000, T).cause for _ in range(2)] == [None, "queue"]


def test_a_copy_takes_its_own_place_behind_its_frame() -> None:
    shaper = Shaper(Condition(duplicate_ratio=0.5, rate_bit_s=8_000_000, queue_packets=2, delay_ns=MS))
    assert shaper.decide(DOUBLE, 1000, T) == Fate(None, T + 2 * MS, (Departure(None, T + 3 * MS),))
    assert shaper.decide(DOUBLE, 1000, T) == Fate(None, T + 4 * MS, (Departure("queue", None),))
    assert shaper.decide(DOUBLE, 1000, T) == Fate("queue", None, (Departure("queue", None),))


def test_a_copy_has_the_jitter_of_its_frame() -> None:
    shaper = Shaper(Condition(duplicate_ratio=0.5, delay_ns=20 * MS, jitter_ns=5 * MS))
    fate = shaper.decide(DOUBLE._replace(delay=0), 1000, T)
    assert fate.due_ns == T + 15 * MS and fate.copies == (Departure(None, T + 15 * MS),)


def test_a_held_packet_leaves_behind_the_last_that_overtook_it() -> None:
    shaper = Shaper(Condition(delay_ns=MS, reorder_ratio=0.5, reorder_by_packets=2))
    assert shaper.decide(HOLD, 100, T) == Fate(None, T + MS + HOLD_NS, (), 1)
    assert shaper.decide(NOTHING, 100, T + 5 * MS) == Fate(None, T + 6 * MS)
    assert shaper.decide(NOTHING, 100, T + 9 * MS) == Fate(None, T + 10 * MS, released=(Release(1, T + 10 * MS),))
    assert shaper.decide(NOTHING, 100, T + 9 * MS).released == ()


def test_lost_dropped_and_held_packets_overtake_nobody() -> None:
    shaper = Shaper(
        Condition(reorder_ratio=0.5, reorder_by_packets=1, loss_ratio=0.5, rate_bit_s=8000, queue_packets=1)
    )
    assert shaper.decide(HOLD, 1, T).ticket == 1
    assert shaper.decide(HOLD, 1, T).ticket == 2
    assert shaper.decide(LOSE, 1, T).released == ()
    assert shaper.decide(NOTHING, 1, T) == Fate("queue", None)
    due = T + 4 * MS  # the third to be sent, a millisecond each
    assert shaper.decide(NOTHING, 1, T + 3 * MS) == Fate(None, due, released=(Release(1, due), Release(2, due)))


def test_a_copy_does_not_overtake_a_second_time() -> None:
    shaper = Shaper(Condition(reorder_ratio=0.5, reorder_by_packets=2, duplicate_ratio=0.5))
    shaper.decide(HOLD, 1, T)
    assert shaper.decide(DOUBLE, 1, T + 1).released == ()
    assert shaper.decide(DOUBLE, 1, T + 2).released == (Release(1, T + 2),)


def test_a_held_packet_is_not_released_before_it_is_due() -> None:
    """With jitter a later packet may be due earlier; one that waits for less than its own delay was not held."""
    shaper = Shaper(Condition(delay_ns=50 * MS, jitter_ns=40 * MS, reorder_ratio=0.5, reorder_by_packets=1))
    shaper.decide(HOLD._replace(delay=RANGE - 1), 1, T)
    fate = shaper.decide(NOTHING._replace(delay=0), 1, T)
    assert fate.due_ns == T + 10 * MS and fate.released == (Release(1, T + 90 * MS),)


def test_nobody_is_held_longer_than_the_limit() -> None:
    shaper = Shaper(Condition(reorder_ratio=0.5, reorder_by_packets=1))
    assert shaper.decide(HOLD, 1, T).due_ns == T + HOLD_NS
    assert shaper.decide(NOTHING, 1, T + HOLD_NS).released == ()  # it has left by itself
    shaper = Shaper(Condition(reorder_ratio=0.5, reorder_by_packets=1, delay_ns=MS, jitter_ns=MS))
    shaper.decide(HOLD, 1, T)
    late = NOTHING._replace(delay=RANGE - 1)
    assert shaper.decide(late, 1, T + HOLD_NS - MS // 2).released == ()  # leaves after it: that is no overtaking


def test_the_copy_of_a_held_packet_is_held_with_it() -> None:
    shaper = Shaper(Condition(reorder_ratio=0.5, reorder_by_packets=1, duplicate_ratio=0.5, rate_bit_s=8_000_000))
    fate = shaper.decide(HOLD._replace(duplicate=0), 1000, T)
    assert fate == Fate(None, T + MS + HOLD_NS, (Departure(None, T + 2 * MS + HOLD_NS),), 1)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (Condition(loss_ratio=1.01), "loss_ratio is 1.01"),
        (Condition(duplicate_ratio=-0.1), "duplicate_ratio"),
        (Condition(reorder_ratio=2), "reorder_ratio"),
        (Condition(loss_ratio=float("nan")), "loss_ratio is nan"),
        (Condition(delay_ns=-1), "delay_ns is negative"),
        (Condition(jitter_ns=-1), "jitter_ns"),
        (Condition(jitter_distribution="pareto"), "'pareto', not uniform or normal"),
        (Condition(jitter_order="strict"), "'strict', not free or kept"),
        (Condition(rate_bit_s=0), "rate_bit_s is 0"),
        (
            Condition(rate_bit_s=1, queue_packets=1, queue_ns=1),
            "more than one limit of the queue: queue_packets, queue_ns",
        ),
        (Condition(rate_bit_s=1, queue_bytes=-1), "queue_bytes is negative"),
        (Condition(queue_bytes=1), "queue_bytes without rate_bit_s"),
    ],
)
def test_a_condition_that_contradicts_itself_is_refused(wrong: Condition, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        check(wrong)
    with pytest.raises(ValueError, match=says):
        Shaper(wrong)


# -- for all conditions and packets


class Packet(NamedTuple):
    draws: Draws
    size: int
    now: int


class Record(NamedTuple):
    """One end of one packet, after all releases: what the ledger would say."""

    number: int
    cause: str | None
    copy: bool
    due: int | None


ratios = st.sampled_from([0.0, 0.1, 0.5, 1.0])
times = st.integers(0, 30 * MS)


@st.composite
def conditions(draw: st.DrawFn, **fixed: object) -> Condition:
    limit = draw(
        st.sampled_from(
            [{}, {"queue_packets": 3}, {"queue_ns": 2 * MS}, {"queue_bytes": 4000}, {"queue_packets": 0}]
        )
    )
    rate = draw(st.sampled_from([None, 1_000_000, 8_000_000, 10**9]))
    made = Condition(
        delay_ns=draw(times),
        jitter_ns=draw(times),
        jitter_distribution=draw(st.sampled_from(["uniform", "normal"])),
        jitter_order=draw(st.sampled_from(["free", "kept"])),
        loss_ratio=draw(ratios),
        duplicate_ratio=draw(ratios),
        reorder_ratio=draw(ratios),
        reorder_by_packets=draw(st.integers(0, 4)),
        rate_bit_s=rate,
        **(limit if rate else {}),
    )
    return replace(made, **fixed)  # type: ignore[arg-type]


@st.composite
def traffic(draw: st.DrawFn) -> list[Packet]:
    now, packets = T, []
    numbers = st.one_of(st.sampled_from([0, RANGE - 1]), st.integers(0, RANGE - 1))
    for _ in range(draw(st.integers(0, 25))):
        now += draw(st.sampled_from([0, 1, 1000, MS, 5 * MS, 60 * MS]))
        dice = Draws(*(draw(numbers) for _ in Draws._fields))
        packets.append(Packet(dice, draw(st.integers(60, 1514)), now))
    return packets


def play(condition: Condition, packets: list[Packet]) -> list[Record]:
    """What the wire does with the fates: one record a packet and copy, held ones under their last due time."""
    shaper, records = Shaper(condition), list[Record]()
    waiting: dict[int, list[int]] = {}  # ticket -> places in records
    for number, (dice, size, now) in enumerate(packets):
        fate = shaper.decide(dice, size, now)
        first = len(records)
        records.append(Record(number, fate.cause, False, fate.due_ns))
        records += [Record(number, copy.cause, True, copy.due_ns) for copy in fate.copies]
        if fate.ticket is not None:
            waiting[fate.ticket] = [place for place in range(first, len(records)) if records[place].cause is None]
        for release in fate.released:
            for place in waiting.pop(release.ticket):
                record = records[place]
                assert record.due is not None and release.due_ns < record.due
                due = max(release.due_ns, record.due - HOLD_NS) if record.copy else release.due_ns
                records[place] = record._replace(due=due)
    return records


@given(conditions(), traffic())
def test_every_packet_ends_once_and_its_copy_when_the_dice_say_so(
    condition: Condition, packets: list[Packet]
) -> None:
    records = play(condition, packets)
    assert [r.number for r in records if not r.copy] == list(range(len(packets)))
    assert {r.number for r in records if r.cause == "loss"} == {
        n for n, p in enumerate(packets) if lost(p.draws, condition)
    }
    copies = [r.number for r in records if r.copy]
    assert copies == [n for n, p in enumerate(packets) if duplicated(p.draws, condition)]
    assert all((r.due is None) == (r.cause is not None) for r in records)
    if condition.rate_bit_s is None:
        assert not any(r.cause == "queue" for r in records)


@given(conditions(), traffic())
def test_the_same_packets_have_the_same_fate_twice(condition: Condition, packets: list[Packet]) -> None:
    assert play(condition, packets) == play(condition, packets)


@given(conditions(), traffic())
def test_nothing_leaves_before_physics_allows(condition: Condition, packets: list[Packet]) -> None:
    for record in play(condition, packets):
        if record.due is not None:
            packet = packets[record.number]
            own = 8 * 10**9 * packet.size / condition.rate_bit_s if condition.rate_bit_s else 0
            offset = jitter_ns(packet.draws, condition)
            assert record.due >= packet.now + own + condition.delay_ns + offset


@given(conditions(delay_ns=0, jitter_ns=0, reorder_ratio=0.0), traffic())
def test_under_a_rate_packets_leave_in_order_and_never_faster(condition: Condition, packets: list[Packet]) -> None:
    """Between any two departures there was time for all that left after the first, up to the second."""
    gone = [(r.due, packets[r.number].size) for r in play(condition, packets) if r.due is not None]
    assert [due for due, _ in gone] == sorted(due for due, _ in gone)
    if condition.rate_bit_s is None:
        return
    for first in range(len(gone)):
        size = 0
        for due, more in gone[first + 1 :]:
            size += more
            assert 8 * 10**9 * size <= condition.rate_bit_s * (due - gone[first][0])


@given(conditions(delay_ns=0, jitter_ns=0, reorder_ratio=0.0, loss_ratio=0.0), traffic())
def test_the_transmitter_never_rests_while_somebody_waits(condition: Condition, packets: list[Packet]) -> None:
    """A packet that got through left one transmission after the packet before it, or after it came."""
    if condition.rate_bit_s is None:
        return
    free = 0
    for record in play(condition, packets):
        if record.due is not None:
            packet = packets[record.number]
            free = max(free, packet.now) + -(-8 * 10**9 * packet.size // condition.rate_bit_s)
            assert record.due == free


@given(conditions(delay_ns=0, jitter_ns=0, reorder_ratio=0.0, loss_ratio=0.0, duplicate_ratio=0.0), traffic())
def test_the_queue_holds_what_it_may_and_no_less(condition: Condition, packets: list[Packet]) -> None:
    """Recount the queue from outside, at each arrival, from the departures alone."""
    if condition.rate_bit_s is None:
        return
    records = play(condition, packets)
    for number, packet in enumerate(packets):
        before = [
            (records[n].due - -(-8 * 10**9 * packets[n].size // condition.rate_bit_s), packets[n].size)  # type: ignore[operator]
            for n in range(number)
            if records[n].due is not None
        ]
        waiting = [size for start, size in before if start > packet.now]
        ends = [r.due for r in records[:number] if r.due is not None]
        wait = max(0, max(ends, default=0) - packet.now)
        full = wait > 0 and (
            (condition.queue_packets is not None and len(waiting) >= condition.queue_packets)
            or (condition.queue_bytes is not None and sum(waiting) + packet.size > condition.queue_bytes)
            or (condition.queue_ns is not None and wait > condition.queue_ns)
        )
        assert (records[number].cause == "queue") == full


@given(conditions(jitter_ns=0, rate_bit_s=None, queue_packets=None, queue_ns=None, queue_bytes=None), traffic())
def test_a_held_packet_is_overtaken_by_as_many_as_asked(condition: Condition, packets: list[Packet]) -> None:
    """Or by fewer, and then it waited for its 100 ms."""
    records = [r for r in play(condition, packets) if not r.copy]
    for number, packet in enumerate(packets):
        due = records[number].due
        if due is None:
            continue
        free = packet.now + condition.delay_ns
        if not held(packet.draws, condition):
            assert due == free
            continue
        later = [
            records[n].due
            for n in range(number + 1, len(packets))
            if records[n].due is not None and not held(packets[n].draws, condition)
        ]
        in_time = [d for d in later if d is not None and d < free + HOLD_NS]
        if len(in_time) >= condition.reorder_by_packets:
            assert due == in_time[condition.reorder_by_packets - 1]
        else:
            assert due == free + HOLD_NS


# where order is kept

EARLY, LATE = (Draws(RANGE - 1, RANGE - 1, number, RANGE - 1, 0, 0) for number in (0, RANGE - 1))
TWIN = Draws(RANGE - 1, 0, 0, RANGE - 1, 0, 0)  # early, with a copy
HELD_LATE = Draws(RANGE - 1, RANGE - 1, RANGE - 1, 0, 0, 0)
KEPT = Condition(delay_ns=20 * MS, jitter_ns=5 * MS, jitter_order="kept")


def test_who_would_overtake_leaves_right_behind() -> None:
    shaper = Shaper(KEPT)
    assert shaper.decide(LATE, 100, T).due_ns == T + 25 * MS
    assert shaper.decide(EARLY, 100, T + MS).due_ns == T + 25 * MS
    assert shaper.decide(EARLY, 100, T + 15 * MS).due_ns == T + 30 * MS, "it had nobody to wait for"
    free = Shaper(replace(KEPT, jitter_order="free"))
    assert [free.decide(LATE, 100, T).due_ns, free.decide(EARLY, 100, T + MS).due_ns] == [T + 25 * MS, T + 16 * MS]


def test_with_a_rate_it_is_the_same() -> None:
    condition = replace(KEPT, rate_bit_s=8_000_000)  # 100 us for 100 bytes
    kept, free = Shaper(condition), Shaper(replace(condition, jitter_order="free"))
    assert [kept.decide(LATE, 100, T).due_ns, kept.decide(EARLY, 100, T).due_ns] == [T + 25_100_000] * 2
    dues = [free.decide(LATE, 100, T).due_ns, free.decide(EARLY, 100, T).due_ns]
    assert dues == [T + 25_100_000, T + 15_200_000], "free is free, also behind a rate"


def test_a_copy_has_its_turn_behind_its_frame_and_before_the_next() -> None:
    shaper = Shaper(replace(KEPT, duplicate_ratio=0.5, rate_bit_s=8_000_000))
    shaper.decide(LATE, 100, T)
    assert shaper.decide(TWIN, 100, T + MS) == Fate(None, T + 25_100_000, (Departure(None, T + 25_100_000),))
    shaper = Shaper(replace(KEPT, duplicate_ratio=0.5, rate_bit_s=8_000))  # 100 ms for 100 bytes
    assert shaper.decide(TWIN, 100, T) == Fate(None, T + 115 * MS, (Departure(None, T + 215 * MS),))
    assert shaper.decide(EARLY, 10, T).due_ns == T + 225 * MS


def test_who_is_held_is_overtaken_and_makes_others_wait_only_for_its_jitter() -> None:
    shaper = Shaper(replace(KEPT, reorder_ratio=0.5, reorder_by_packets=2))
    assert shaper.decide(HELD_LATE, 100, T) == Fate(None, T + 25 * MS + HOLD_NS, (), 1)
    assert shaper.decide(EARLY, 100, T + MS).due_ns == T + 25 * MS
    fate = shaper.decide(EARLY, 100, T + 30 * MS)
    assert (fate.due_ns, fate.released) == (T + 45 * MS, (Release(1, T + 45 * MS),))


@given(conditions(jitter_order="kept", reorder_ratio=0.0), traffic())
def test_where_order_is_kept_nobody_is_due_before_an_earlier_one(
    condition: Condition, packets: list[Packet]
) -> None:
    dues = [record.due for record in play(condition, packets) if record.due is not None]
    assert dues == sorted(dues)


@given(conditions(jitter_order="kept", reorder_ratio=0.0, duplicate_ratio=0.0), traffic())
def test_keeping_order_makes_a_frame_no_later_than_the_latest_before_it_would_be(
    condition: Condition, packets: list[Packet]
) -> None:
    kept, free = play(condition, packets), play(replace(condition, jitter_order="free"), packets)
    assert [r.cause for r in kept] == [r.cause for r in free]
    latest = 0
    for mine, other in zip(kept, free, strict=True):
        if other.due is not None:
            latest = max(latest, other.due)
            assert mine.due == latest
