"""The wire's data path with a ring and ports of memory: what passes, what is dropped, what is on record."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path as FilePath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.agent import wire_path
from testbed.agent.rings import Arrival, slot_bytes_for
from testbed.agent.wire_link import Lateness, LinkSpec
from testbed.agent.wire_path import Path
from testbed.conditions.condition import Condition
from testbed.conditions.fate import Stream
from testbed.conditions.shape import HOLD_NS, held, lost
from testbed.measure.ledger import decode
from testbed.measure.records import Frame

MS = 1_000_000
MACS = {name: bytes((2, 0x42, 198, 18, 0, number)) for number, name in enumerate("abc", 2)}
IFINDEX = {"h0": 10, "h1": 11, "h2": 12}


class FakeRing:
    def __init__(self, slot_bytes: int) -> None:
        self.slot_bytes, self.waiting, self.closed = slot_bytes, list[Arrival](), False

    def ready(self) -> bool:
        return bool(self.waiting)

    def fileno(self) -> int:
        return 99

    def read(self, most: int) -> list[Arrival]:
        out, self.waiting = self.waiting[:most], self.waiting[most:]
        return out

    def drops(self) -> int:
        return 3

    def close(self) -> None:
        self.closed = True


class FakePort:
    def __init__(self, device: str) -> None:
        self.ifindex, self.sent, self.errors = IFINDEX[device], list[bytes](), list[int]()

    def send(self, frame: bytes) -> int:
        if self.errors:
            raise OSError(self.errors.pop(0), "no")
        self.sent.append(frame)
        return len(frame)

    def close(self) -> None: ...


class Bench:
    """A path, its ring and ports, and a ledger in a file."""

    def __init__(self, ledger: FilePath) -> None:
        self.ports: dict[str, FakePort] = {}
        self.rings: list[FakeRing] = []
        self._ledger = ledger
        self.fd = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.path = Path(self.fd)

    def port(self, device: str) -> FakePort:
        self.ports[device] = port = FakePort(device)
        return port

    def ring(self, slot_bytes: int) -> FakeRing:
        self.rings.append(FakeRing(slot_bytes))
        return self.rings[-1]

    def apply(self, links: dict[str, Condition], hosts: str = "ab", seed: int = 7, max_frame: int = 1514) -> None:
        specs = [
            LinkSpec(
                f"{link} over lan", link[0], link[-1], "lan", MACS[link[0]], MACS[link[-1]], condition, max_frame
            )
            for link, condition in links.items()
        ]
        self.path.apply(seed, {name: f"h{number}" for number, name in enumerate(hosts)}, specs)

    def arrive(self, frame: bytes, device: str = "h0", ago_ns: int = 0, whole: bool = True, size: int = 0) -> None:
        stamp = time.time_ns() - ago_ns
        self.rings[-1].waiting.append(Arrival(IFINDEX[device], stamp, frame, size or len(frame), whole))

    def turn(self) -> None:
        while self.path.take(32):
            pass
        while self.path.send_due(32):
            pass

    def settle(self) -> list[Frame]:
        deadline = time.monotonic() + 5
        while self.path.pending and time.monotonic() < deadline:
            self.turn()
        self.path.write_ledger(end=True)
        return decode(self._ledger.read_bytes())


@pytest.fixture
def bench(tmp_path: FilePath, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    made = Bench(tmp_path / "ledger")
    monkeypatch.setattr(wire_path, "Port", made.port)
    monkeypatch.setattr(wire_path, "RxRing", made.ring)
    yield made
    os.close(made.fd)


def udp(to: bytes, source: bytes, number: int = 0, port: int = 40000) -> bytes:
    header = bytes((0x45, 0, 0, 32, 0, 0, 0, 0, 64, 17)) + bytes(10)
    return (
        to
        + source
        + b"\x08\x00"
        + header
        + port.to_bytes(2, "big")
        + b"\x23\x28"
        + bytes(4)
        + number.to_bytes(4, "big")
    )


def causes(frames: list[Frame]) -> list[str | None]:
    return [frame.cause for frame in frames]


def test_a_frame_passes_unchanged_and_is_on_record(bench: Bench) -> None:
    bench.apply({"a->b": Condition()})
    frame = udp(MACS["b"], MACS["a"])
    bench.arrive(frame)
    bench.turn()
    assert bench.ports["h0"].sent == [frame]
    (record,) = bench.settle()
    assert record[1:7] == ("a->b over lan", "udp *1>9000", 0, 46, None, False)
    assert record.due_ns == record.in_ns and record.sent_ns is not None and record.sent_ns >= record.in_ns
    assert bench.path.links["a->b over lan"].counts.to_json()["sent"] == 1


def test_fates_are_those_of_the_dice_flow_by_flow(bench: Bench) -> None:
    condition = Condition(loss_ratio=0.3)
    bench.apply({"a->b": condition})
    for number in range(300):  # two flows that take turns: neither shifts the other
        bench.arrive(udp(MACS["b"], MACS["a"], number, 40000 + number % 2))
    bench.turn()
    ledger = bench.settle()
    for flow in ("udp *1>9000", "udp *2>9000"):
        stream = Stream(7, "a->b over lan", flow)
        expected = {k for k in range(150) if lost(next(stream), condition)}
        assert {f.k for f in ledger if f.flow == flow and f.cause == "loss"} == expected
    assert (
        len(bench.ports["h0"].sent)
        == sum(f.cause is None for f in ledger)
        == bench.path.links["a->b over lan"].counts.sent
    )


@pytest.mark.parametrize(
    ("to", "source", "device", "why"),
    [
        ("c", "a", "h0", "a receiver that no link names"),
        ("b", "c", "h0", "a source that no link names"),
        ("b", "a", "h1", "a source on another host's device"),
    ],
)
def test_what_no_link_claims_is_dropped_and_counted(
    bench: Bench, to: str, source: str, device: str, why: str
) -> None:
    bench.apply({"a->b": Condition()}, hosts="ab")
    bench.arrive(udp(MACS[to], MACS[source]), device)
    bench.turn()
    host = bench.path.hosts["a" if device == "h0" else "b"]
    assert (host.frames_in, host.unknown) == (1, 1), why
    assert bench.settle() == [] and not bench.ports["h0"].sent and not bench.ports["h1"].sent


def test_a_frame_from_a_device_of_nobody_is_dropped_and_counted(bench: Bench) -> None:
    bench.apply({"a->b": Condition()})
    bench.arrive(udp(MACS["b"], MACS["a"]), "h2")
    bench.arrive(b"short")
    bench.turn()
    assert (bench.path.stray, bench.path.hosts["a"].unknown) == (1, 1)
    assert bench.settle() == []


def test_a_group_frame_becomes_one_copy_a_receiver_each_with_its_own_fate(bench: Bench) -> None:
    bench.apply({"a->b": Condition(loss_ratio=1.0), "a->c": Condition(), "b->c": Condition()}, hosts="ab")
    group = udp(bytes.fromhex("01005e000101"), MACS["a"])
    bench.arrive(group)
    bench.turn()
    assert bench.ports["h0"].sent == [MACS["c"] + group[6:]] and not bench.ports["h1"].sent
    assert {(f.link, f.cause) for f in bench.settle()} == {("a->b over lan", "loss"), ("a->c over lan", None)}


def test_the_wire_that_has_no_conditions_passes_nothing(bench: Bench) -> None:
    assert bench.path.take(32) == 0 and bench.path.send_due(32) == 0 and not bench.path.ready()


def test_refused_conditions_leave_nothing_in_force(bench: Bench) -> None:
    bench.apply({"a->b": Condition()})
    for links, hosts, seed, says in [
        ({"a->b": Condition(loss_ratio=2)}, "ab", 7, "link a->b over lan: loss_ratio is 2"),
        ({"c->b": Condition()}, "ab", 7, "no device is given for its source c"),
        ({"a->b": Condition()}, "ab", 8, "the seed cannot change from 7 to 8"),
        ({"a->b": Condition(rate_bit_s=0)}, "ab", 7, "rate_bit_s"),
    ]:
        with pytest.raises(ValueError, match=says):
            bench.apply(links, hosts, seed)
        bench.arrive(udp(MACS["b"], MACS["a"]))
        bench.turn()
    assert bench.path.hosts["a"].unknown == 4
    assert not bench.ports["h0"].sent


def test_two_links_with_the_same_addresses_are_refused(bench: Bench) -> None:
    def spec(link: str, source: str = "a", source_mac: str = "a", target: str = "b") -> LinkSpec:
        return LinkSpec(link, source, target, "lan", MACS[source_mac], MACS[target], Condition(), 1514)

    devices = {"a": "h0", "b": "h1"}
    for specs, says in [
        ([spec("one"), spec("two")], "links one and two have the same two hardware addresses"),
        ([spec("one"), spec("one", target="c")], "two links have the same id"),
        ([spec("one"), spec("two", source="b", target="c")], "its source address also belongs to a"),
    ]:
        with pytest.raises(ValueError, match=says):
            bench.path.apply(1, devices, specs)


def test_a_change_keeps_counting_where_it_was_and_lets_what_is_under_way_arrive(bench: Bench) -> None:
    bench.apply({"a->b": Condition(delay_ns=5 * MS)})
    bench.arrive(udp(MACS["b"], MACS["a"], 0))
    bench.apply({"a->b": Condition(loss_ratio=1.0)})  # reads the ring first: the frame came under the old state
    bench.arrive(udp(MACS["b"], MACS["a"], 1))
    bench.turn()
    ledger = bench.settle()
    assert [(f.k, f.cause) for f in sorted(ledger, key=lambda f: f.k)] == [(0, None), (1, "loss")]
    assert len(bench.rings) == 1
    assert bench.path.condition("a->b over lan") == {"loss_ratio": 1.0}


def test_a_link_that_is_not_in_force_has_no_condition(bench: Bench) -> None:
    bench.apply({"a->b": Condition(), "b->a": Condition(delay_ns=1)})
    assert bench.path.condition("a->b over lan") == {}
    bench.apply({"b->a": Condition(delay_ns=1)})
    assert bench.path.condition("a->b over lan") is None
    assert bench.path.condition("b->a over lan") == {"delay_ns": 1}


def test_what_is_under_way_on_a_link_whose_host_is_gone_is_on_record(bench: Bench) -> None:
    bench.apply({"a->b": Condition(delay_ns=MS)})
    bench.arrive(udp(MACS["b"], MACS["a"]))
    bench.apply({}, hosts="")
    assert causes(bench.settle()) == ["unasked"]
    assert bench.path.tx_errors == 1


def test_larger_frames_get_a_ring_with_larger_slots(bench: Bench) -> None:
    bench.apply({"a->b": Condition()}, max_frame=1514)
    bench.apply({"a->b": Condition()}, max_frame=9014)
    assert [(ring.slot_bytes, ring.closed) for ring in bench.rings] == [(2048, True), (16384, False)]
    assert bench.path.ring_drops() == 6  # those of the ring that was closed are not forgotten


def test_a_frame_that_did_not_come_in_whole_is_lost_unasked(bench: Bench) -> None:
    bench.apply({"a->b": Condition(loss_ratio=1.0)})
    bench.arrive(udp(MACS["b"], MACS["a"]), whole=False, size=3000)
    bench.turn()
    (record,) = bench.settle()
    assert (record.cause, record.size_bytes, record.k) == ("unasked", 3000, 0)
    assert bench.path.too_large == 1


def test_memory_is_bounded_and_says_so(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire_path, "MOST_PENDING_BYTES", 1000)
    bench.apply({"a->b": Condition(delay_ns=MS)})
    for number in range(4):
        bench.arrive(udp(MACS["b"], MACS["a"], number))
    bench.turn()
    assert causes(bench.settle()) == ["unasked", None, None, None]
    bench.arrive(udp(MACS["b"], MACS["a"], 4))  # there is room again
    bench.turn()
    assert causes(bench.settle())[4:] == [None]


def test_an_impossible_age_is_counted_and_replaced(bench: Bench) -> None:
    bench.apply({"a->b": Condition()})
    before = time.monotonic_ns()
    bench.arrive(udp(MACS["b"], MACS["a"]), ago_ns=5 * 10**9)
    bench.arrive(udp(MACS["b"], MACS["a"]), ago_ns=-5 * 10**9)
    bench.turn()
    assert bench.path.bad_age == 2
    assert all(before <= record.in_ns <= time.monotonic_ns() for record in bench.settle())


def test_what_came_in_while_the_wire_stood_still_keeps_its_age(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a wire that was stopped for seconds would call itself punctual, and a bound on time fail for it."""
    bench.apply({"a->b": Condition(delay_ns=MS)})
    bench.turn()
    came_ns = time.monotonic_ns()
    bench.arrive(udp(MACS["b"], MACS["a"]))
    bench.arrive(udp(MACS["b"], MACS["a"]), ago_ns=3600 * 10**9)  # an hour before the ring was last empty
    monotonic_ns, time_ns = time.monotonic_ns, time.time_ns
    monkeypatch.setattr(time, "monotonic_ns", lambda: monotonic_ns() + 5 * 10**9)
    monkeypatch.setattr(time, "time_ns", lambda: time_ns() + 5 * 10**9)
    bench.turn()
    first, second = bench.settle()
    assert (bench.path.bad_age, first.k, second.k) == (1, 0, 1)
    assert came_ns <= first.in_ns < came_ns + 4 * 10**9
    assert second.in_ns >= came_ns + 5 * 10**9
    assert bench.path.links["a->b over lan"].counts.lateness.most_ns >= 4 * 10**9


def test_the_age_of_a_frame_counts_against_its_delay(bench: Bench) -> None:
    bench.apply({"a->b": Condition(delay_ns=500 * MS)})
    bench.arrive(udp(MACS["b"], MACS["a"]), ago_ns=495 * MS)
    bench.turn()
    (record,) = bench.settle()
    assert record.due_ns == record.in_ns + 500 * MS
    assert record.sent_ns is not None and record.sent_ns >= record.due_ns


def test_frames_of_one_link_keep_the_order_of_the_ring(bench: Bench) -> None:
    """Stamps may differ by a hair from the order in the ring; equal delays must not turn that into reordering."""
    bench.apply({"a->b": Condition(delay_ns=MS)})
    for number, ago in enumerate((0, 5_000, 3_000, 9_000)):
        bench.arrive(udp(MACS["b"], MACS["a"], number), ago_ns=ago)
    bench.turn()
    assert [record.k for record in bench.settle()] == [0, 1, 2, 3]
    assert [frame[-1] for frame in bench.ports["h0"].sent] == [0, 1, 2, 3]


def test_a_busy_port_is_offered_the_frame_again(bench: Bench) -> None:
    bench.apply({"a->b": Condition()})
    bench.ports["h0"].errors = [errno.ENOBUFS, errno.EAGAIN]
    for number in range(3):
        bench.arrive(udp(MACS["b"], MACS["a"], number))
    assert bench.path.take(32) == 3
    assert [bench.path.send_due(32) for _ in range(3)] == [-1, -1, 3]
    assert [frame[-1] for frame in bench.ports["h0"].sent] == [0, 1, 2]
    assert bench.path.tx_busy == 2 and causes(bench.settle()) == [None, None, None]


def test_nobody_waits_for_a_port_that_stayed_busy(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.apply({"a->b": Condition(), "b->a": Condition()})
    with monkeypatch.context() as patched:
        patched.setattr(wire_path, "GIVE_UP_NS", 0)
        bench.ports["h0"].errors = [errno.ENOBUFS]
        bench.arrive(udp(MACS["b"], MACS["a"], 0))
        bench.turn()
    bench.ports["h0"].errors = [errno.ENOBUFS]
    bench.arrive(udp(MACS["b"], MACS["a"], 1))
    bench.arrive(udp(MACS["a"], MACS["b"], 2), "h1")
    assert (bench.path.take(32), bench.path.send_due(32)) == (2, 1)
    assert [frame[-1] for frame in bench.ports["h1"].sent] == [2]
    bench.arrive(udp(MACS["b"], MACS["a"], 3))
    bench.turn()
    bench.ports["h0"].errors = [errno.ENOBUFS]  # it took one: it is waited for again
    bench.arrive(udp(MACS["b"], MACS["a"], 4))
    assert (bench.path.take(32), bench.path.send_due(32), bench.path.send_due(32)) == (1, -1, 1)
    assert [frame[-1] for frame in bench.ports["h0"].sent] == [3, 4]
    assert sorted((f.link[0], f.k) for f in bench.settle() if f.cause == "unasked") == [("a", 0), ("a", 1)]


@pytest.mark.parametrize("number", [errno.ENETDOWN, errno.EMSGSIZE])
def test_a_port_that_refuses_loses_the_frame_unasked(bench: Bench, number: int) -> None:
    bench.apply({"a->b": Condition()})
    bench.ports["h0"].errors = [number]
    bench.arrive(udp(MACS["b"], MACS["a"], 0))
    bench.arrive(udp(MACS["b"], MACS["a"], 1))
    bench.turn()
    assert causes(bench.settle()) == ["unasked", None]
    assert bench.path.tx_errors == 1 and bench.path.links["a->b over lan"].counts.unasked == 1


def test_a_port_that_stays_busy_loses_the_frame_unasked(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire_path, "GIVE_UP_NS", 0)
    bench.apply({"a->b": Condition()})
    bench.ports["h0"].errors = [errno.EAGAIN]
    bench.arrive(udp(MACS["b"], MACS["a"]))
    bench.turn()
    assert causes(bench.settle()) == ["unasked"]
    assert (bench.path.tx_busy, bench.path.tx_errors) == (1, 1)


def test_abandoning_puts_all_that_was_under_way_on_record(bench: Bench) -> None:
    everything = Condition(delay_ns=10**10, duplicate_ratio=1.0, reorder_ratio=1.0, reorder_by_packets=1)
    bench.apply({"a->b": everything})
    for number in range(3):
        bench.arrive(udp(MACS["b"], MACS["a"], number))
    bench.turn()
    assert bench.path.pending == 6 and bench.path.abandon() == 6 and bench.path.pending == 0
    assert [(f.k, f.copy, f.cause) for f in bench.settle()] == [
        (k, c, "unasked") for k in range(3) for c in (False, True)
    ]
    counts = bench.path.links["a->b over lan"].counts
    assert (counts.frames, counts.unasked, counts.sent) == (3, 6, 0)


def test_copies_are_sent_and_recorded(bench: Bench) -> None:
    bench.apply({"a->b": Condition(duplicate_ratio=1.0)})
    bench.arrive(udp(MACS["b"], MACS["a"]))
    bench.turn()
    assert len(bench.ports["h0"].sent) == 2
    assert [(f.k, f.copy) for f in bench.settle()] == [(0, False), (0, True)]


def test_held_frames_leave_after_those_that_overtook_them(bench: Bench) -> None:
    condition = Condition(reorder_ratio=0.2, reorder_by_packets=2)
    bench.apply({"a->b": condition})
    stream = Stream(7, "a->b over lan", "udp *1>9000")
    holding = [held(next(stream), condition) for _ in range(60)]
    for number in range(60):
        bench.arrive(udp(MACS["b"], MACS["a"], number))
    bench.turn()
    expected, waiting = [], list[list[int]]()
    for number, hold in enumerate(holding):  # the rule, written a second time
        if hold:
            waiting.append([number, 2])
            continue
        expected.append(number)
        for one in waiting:
            one[1] -= 1
        expected += [one[0] for one in waiting if not one[1]]
        waiting = [one for one in waiting if one[1]]
    assert sum(holding) > 5
    assert [frame[-1] for frame in bench.ports["h0"].sent] == expected
    ledger = bench.settle()  # the last ones leave by themselves
    late = [f for f in ledger if f.due_ns == f.in_ns + HOLD_NS]
    assert [f.k for f in late] == [one[0] for one in waiting]
    assert sorted(f.k for f in ledger) == list(range(60))


def test_counts_add_up(bench: Bench) -> None:
    condition = Condition(
        loss_ratio=0.1,
        duplicate_ratio=0.2,
        reorder_ratio=0.1,
        reorder_by_packets=2,
        rate_bit_s=10**8,
        queue_packets=5,
    )
    bench.apply({"a->b": condition})
    for number in range(500):
        bench.arrive(udp(MACS["b"], MACS["a"], number))
    bench.turn()
    ledger = bench.settle()
    report = bench.path.links["a->b over lan"].counts.to_json()
    assert report["frames"] == 500 == sum(not f.copy for f in ledger)
    assert report["sent"] == len(bench.ports["h0"].sent) == sum(f.cause is None for f in ledger)
    for cause in ("loss", "queue", "unasked"):
        assert report[cause] == sum(f.cause == cause for f in ledger)
    assert report["queue"] > 0 and report["loss"] > 0


# -- parts


@given(st.lists(st.integers(0, 2**42), min_size=1, max_size=200))
def test_lateness_is_an_upper_bound_one_eighth_wide(values: list[int]) -> None:
    late = Lateness()
    for value in values:
        late.add(value)
    ordered = sorted(values)
    assert late.most_ns == ordered[-1]
    for q in (0.01, 0.5, 0.99, 1.0):
        exact = ordered[max(0, -int(-q * len(ordered) // 1) - 1)]
        assert exact <= late.quantile(q) <= max(exact * 9 / 8, 16) or exact >= 2**40


def test_lateness_of_nothing_is_nothing() -> None:
    assert Lateness().quantile(0.99) == 0


@pytest.mark.parametrize(
    ("frame", "slot"), [(0, 2048), (1514, 2048), (1982, 2048), (1983, 16384), (9014, 16384), (65549, 131072)]
)
def test_slots_hold_the_frame_and_what_the_kernel_puts_before_it(frame: int, slot: int) -> None:
    assert slot_bytes_for(frame) == slot


def test_there_is_a_largest_slot() -> None:
    with pytest.raises(ValueError, match="larger than any slot"):
        slot_bytes_for(200_000)


LINK: dict[str, Any] = {
    "id": "a->b over lan",
    "source": "a",
    "target": "b",
    "network": "lan",
    "source_mac": "02:42:c6:12:00:02",
    "target_mac": "02:42:c6:12:00:03",
    "condition": {"loss_ratio": 0.1},
    "max_frame": 1514,
}


def test_a_link_of_a_request() -> None:
    spec = LinkSpec.from_json(LINK)
    assert (spec.source_mac, spec.target_mac, spec.condition) == (MACS["a"], MACS["b"], Condition(loss_ratio=0.1))


@pytest.mark.parametrize(
    "change",
    [
        {"condition": {"los_ratio": 0.1}},
        {"source_mac": "02:42"},
        {"source_mac": "zz:42:c6:12:00:02"},
        {"target_mac": "01:00:5e:00:00:01"},
        {"target_mac": 7},
        {"max_frame": "big"},
        {"condition": None},
    ],
)
def test_a_link_that_makes_no_sense_is_refused_by_name(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="link a->b over lan: "):
        LinkSpec.from_json(LINK | change)


def test_a_link_that_lacks_a_part_is_refused() -> None:
    with pytest.raises(ValueError, match=r"link a->b over lan: missing .*target_mac"):
        LinkSpec.from_json({k: v for k, v in LINK.items() if k != "target_mac"})
