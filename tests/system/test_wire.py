"""The wire between real hosts, as root and as an ordinary user: what passes, when, and what the ledger says of it.

`wire_lab.py` makes the hosts and the traffic; everything is judged here, against the pure functions that the wire
itself uses (so the wire must apply them, frame by frame) and against what sockets saw (so they must be right).
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import testbed
from testbed.conditions.condition import Condition
from testbed.conditions.fate import FATE_VERSION, draws
from testbed.conditions.shape import HOLD_NS, Shaper, duplicated, lost
from testbed.measure.records import Frame
from tests.conftest import missing

MS = 1_000_000
SEED = 7  # what wire_lab asks for
NOBODY = "65534"
AB = "a->b over lan"
Experiment = Callable[..., dict[str, Any]]


def launcher(who: str) -> list[str]:
    """What to put before the lab's own arguments, or a named skip."""
    become: list[str] = []
    candidates = [sys.executable]
    if who == "root" and os.geteuid() != 0:
        missing("root", "the tests run as an ordinary user")
    if who == "user":
        if os.geteuid() == 0:
            become = ["setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--"]
            candidates = ["/usr/bin/python3", "/usr/local/bin/python3"]  # sys.executable may lie in root's home
        tried = subprocess.run([*become, "unshare", "-Urn", "true"], capture_output=True, text=True, check=False)
        if tried.returncode:
            missing("user namespaces", tried.stderr.strip())
    test = "import sys; sys.exit(sys.version_info < (3, 11))"
    for python in candidates:
        command = [*become, python, "-IS", "-c", test]
        if Path(python).exists() and subprocess.run(command, capture_output=True, check=False).returncode == 0:
            return [*become, "unshare", *(["-Urn"] if who == "user" else ["-n"]), python, "-ISB"]
    missing("user namespaces", "no Python 3.11 that an ordinary user may run")
    raise AssertionError("not reached")


@pytest.fixture(params=["root", "user"])
def lab(request: pytest.FixtureRequest) -> Iterator[Experiment]:
    """Runs an experiment of `wire_lab` and returns what it saw, the ledger as frames."""
    command = launcher(request.param)
    with tempfile.TemporaryDirectory() as name:  # pytest's own directories are closed to other users
        home = Path(name)
        home.chmod(0o755)
        package = Path(testbed.__file__).parent
        shutil.copytree(package, home / "testbed", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(Path(__file__).with_name("wire_lab.py"), home)
        yield experiments(command, home)


def experiments(command: list[str], home: Path) -> Experiment:
    def run(experiment: str, **arguments: Any) -> dict[str, Any]:
        done = subprocess.run(
            [*command, str(home / "wire_lab.py"), experiment, json.dumps(arguments)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0 and not done.stderr, done.stderr
        evidence: dict[str, Any] = json.loads(done.stdout)
        evidence["ledger"] = [Frame(*fields) for fields in evidence["ledger"] or ()]
        return evidence

    return run


def prove(evidence: dict[str, Any]) -> None:
    """The ledger, the wire's counts and the kernel's count of redirected frames are three views of one thing."""
    report, ledger = evidence["report"], evidence["ledger"]
    end = evidence["drain"]
    assert (end["over"], end["pending"], end["ledger_bytes"]) == (True, 0, evidence["ledger_bytes"])
    assert {n for what, n in report["ring"].items() if what != "tx_busy"} == {0}, report["ring"]
    for host, counts in report["hosts"].items():
        assert counts == {"frames_in": evidence["matched"][host], "unknown": 0}
    for link, counts in report["links"].items():
        mine = [f for f in ledger if f.link == link]
        assert counts == end["links"][link] | {"condition": counts["condition"]}
        assert counts["frames"] == sum(not f.copy for f in mine)
        assert counts["sent"] == sum(f.cause is None for f in mine)
        for cause in ("loss", "queue", "unasked"):
            assert counts[cause] == sum(f.cause == cause for f in mine)
        assert counts["unasked"] == 0
        assert counts["lateness_p50_ns"] <= counts["lateness_p99_ns"] <= counts["lateness_max_ns"]
    for frame in ledger:
        if frame.cause is None:
            assert frame.in_ns <= frame.due_ns <= frame.sent_ns  # type: ignore[operator]
        else:
            assert frame.due_ns is None and frame.sent_ns is None


def prove_fates(ledger: list[Frame], link: str, condition: Condition) -> None:
    """Draw and decide again, from the times of entry alone: every cause and due time must come out the same."""
    mine = [f for f in ledger if f.link == link]
    entered = sorted((f for f in mine if not f.copy), key=lambda f: (f.in_ns, f.flow, f.k))
    by_flow = defaultdict(list)
    for frame in entered:
        by_flow[frame.flow].append(frame.k)
    assert all(numbers == list(range(len(numbers))) for numbers in by_flow.values())
    shaper, expected, tickets = Shaper(condition), {}, {}
    for frame in entered:
        fate = shaper.decide(draws(SEED, link, frame.flow, frame.k), frame.size_bytes, frame.in_ns)
        expected[frame.flow, frame.k, False] = (fate.cause, fate.due_ns)
        for copy in fate.copies:
            expected[frame.flow, frame.k, True] = (copy.cause, copy.due_ns)
        tickets[fate.ticket] = (frame.flow, frame.k)
        for release in fate.released:
            flow, k = tickets[release.ticket]
            expected[flow, k, False] = (None, release.due_ns)
            if (flow, k, True) in expected:
                due = expected[flow, k, True][1]
                expected[flow, k, True] = (None, max(release.due_ns, due - HOLD_NS))
    assert {(f.flow, f.k, f.copy): (f.cause, f.due_ns) for f in mine} == expected


def delays(evidence: dict[str, Any]) -> list[int]:
    """One way, from the sender's call to the receiver's, sorted."""
    return sorted(at - evidence["sent"][number] for number, at in evidence["got"])


def excuse(evidence: dict[str, Any]) -> float:
    """How much later than due the middle one may be seen here: other tests and programs share the processors."""
    return float(5 * MS + 2 * evidence["report"]["links"][AB]["lateness_p99_ns"])


def numbers(evidence: dict[str, Any]) -> list[int]:
    return [number for number, _ in evidence["got"]]


def test_a_delay_is_a_delay(lab: Experiment) -> None:
    """Physics below; above, the smallest within a tolerance, and the wire's own lateness explains the rest."""
    evidence = lab("probe", links={"a->b": {"delay_ns": 20 * MS}}, count=300)
    prove(evidence)
    prove_fates(evidence["ledger"], AB, Condition(delay_ns=20 * MS))
    assert numbers(evidence) == list(range(300)) and evidence["damaged"] == 0
    one_way = delays(evidence)
    assert one_way[0] >= 20 * MS
    assert one_way[0] < 21 * MS
    assert statistics.median(one_way) < 20 * MS + excuse(evidence)
    due = {f.k: f.due_ns for f in evidence["ledger"]}
    assert all(at > due[number] for number, at in evidence["got"])


def test_the_control_without_conditions_loses_and_delays_nothing(lab: Experiment) -> None:
    evidence = lab("probe", links={"a->b": {}}, count=300)
    prove(evidence)
    assert numbers(evidence) == list(range(300)) and evidence["damaged"] == 0
    assert delays(evidence)[0] < 1 * MS
    assert statistics.median(delays(evidence)) < excuse(evidence)
    assert {f.due_ns - f.in_ns for f in evidence["ledger"]} == {0}


def test_what_the_wire_sends_passes_no_queue_of_the_kernel(lab: Experiment) -> None:
    """A queue that drops everything stands in for the one that an interface has when it has just come up."""
    evidence = lab("probe", links={"a->b": {}}, count=20, qdisc="pfifo limit 0")
    prove(evidence)
    assert numbers(evidence) == list(range(20))


def test_exactly_the_predicted_datagrams_are_lost(lab: Experiment) -> None:
    condition = Condition(loss_ratio=0.1)
    evidence = lab("probe", links={"a->b": condition.to_json()}, count=2000, gap_us=500)
    prove(evidence)
    expected = [k for k in range(2000) if not lost(draws(SEED, AB, "udp *1>9000", k), condition)]
    assert numbers(evidence) == expected
    assert 100 < 2000 - len(expected) < 320
    assert evidence["answer"]["ok"] == {
        "links": {AB: {"loss_ratio": 0.1}},
        "slot_bytes": 2048,
        "fate": FATE_VERSION,
    }


def test_flows_are_drawn_for_one_by_one(lab: Experiment) -> None:
    """Two sockets take turns; each loses what it would have lost alone."""
    condition = Condition(loss_ratio=0.2)
    evidence = lab("probe", links={"a->b": condition.to_json()}, count=600, senders=2)
    prove(evidence)
    for place in (0, 1):
        flow = f"udp *{place + 1}>9000"
        expected = [2 * k + place for k in range(300) if not lost(draws(SEED, AB, flow, k), condition)]
        assert [number for number in numbers(evidence) if number % 2 == place] == expected


def test_duplicates_are_the_predicted_ones(lab: Experiment) -> None:
    condition = Condition(duplicate_ratio=0.1, loss_ratio=0.1, delay_ns=2 * MS)
    evidence = lab("probe", links={"a->b": condition.to_json()}, count=500)
    prove(evidence)
    prove_fates(evidence["ledger"], AB, condition)
    dice = {k: draws(SEED, AB, "udp *1>9000", k) for k in range(500)}
    expected = Counter({k: 1 + duplicated(d, condition) for k, d in dice.items() if not lost(d, condition)})
    assert Counter(numbers(evidence)) == expected
    assert 2 in expected.values()


@pytest.mark.parametrize("distribution", ["uniform", "normal"])
def test_jitter_is_the_drawn_one(lab: Experiment, distribution: str) -> None:
    condition = Condition(delay_ns=10 * MS, jitter_ns=2 * MS, jitter_distribution=distribution)
    evidence = lab("probe", links={"a->b": condition.to_json()}, count=300)
    prove(evidence)
    prove_fates(evidence["ledger"], AB, condition)
    one_way = delays(evidence)
    assert one_way[0] >= (8 if distribution == "uniform" else 2) * MS
    assert 9 * MS < statistics.median(one_way) < 10 * MS + excuse(evidence)
    assert sorted(numbers(evidence)) == list(range(300)) != numbers(evidence)  # jitter may reorder, and does


@pytest.mark.parametrize("order", ["free", "kept"])
@pytest.mark.parametrize("rate_bit_s", [None, 20_000_000])
def test_jitter_keeps_the_order_if_it_is_told_to_with_a_rate_and_without(
    lab: Experiment, rate_bit_s: int | None, order: str
) -> None:
    shape = Condition(delay_ns=10 * MS, jitter_ns=5 * MS, jitter_order=order, rate_bit_s=rate_bit_s)
    condition = replace(shape, duplicate_ratio=0.2)
    evidence = lab("probe", links={"a->b": condition.to_json()}, count=300, gap_us=500)
    prove(evidence)
    prove_fates(evidence["ledger"], AB, condition)
    got = numbers(evidence)
    assert set(got) == set(range(300))
    assert (got == sorted(got)) is (order == "kept")


def test_packets_are_overtaken_as_asked(lab: Experiment) -> None:
    condition = Condition(delay_ns=5 * MS, reorder_ratio=0.1, reorder_by_packets=3, duplicate_ratio=0.05)
    evidence = lab("probe", links={"a->b": condition.to_json()}, count=400)
    prove(evidence)
    prove_fates(evidence["ledger"], AB, condition)
    assert numbers(evidence) == [f.k for f in evidence["ledger"]]  # the ledger's order is the order of sending
    displaced = [later - k for k, later in enumerate(map(numbers(evidence).index, range(400)))]
    assert max(displaced) >= 3


def test_a_rate_is_neither_exceeded_nor_missed(lab: Experiment) -> None:
    condition = Condition(rate_bit_s=10_000_000, queue_ns=400 * MS, delay_ns=MS)
    evidence = lab("probe", links={"a->b": condition.to_json()}, count=3000, size=1000, gap_us=200)
    prove(evidence)
    prove_fates(evidence["ledger"], AB, condition)
    sent = [f for f in evidence["ledger"] if f.cause is None]
    assert numbers(evidence) == [f.k for f in sent]
    dropped = [f for f in evidence["ledger"] if f.cause == "queue"]
    assert len(dropped) > 500
    # From when the queue is full, the link has always something to send. Before that, the sender may have paused.
    busy = [n for n, f in enumerate(sent) if dropped[0].in_ns <= f.in_ns <= dropped[-1].in_ns]
    first, last = busy[0], busy[-1]
    size_bits = 8e9 * sum(f.size_bytes for f in sent[first + 1 : last + 1])
    assert size_bits / (sent[last].due_ns - sent[first].due_ns) == pytest.approx(10_000_000, rel=0.002)
    seen_ns = evidence["got"][last][1] - evidence["got"][first][1]
    assert size_bits / seen_ns == pytest.approx(10_000_000, rel=0.05)
    assert max(f.due_ns - f.in_ns for f in sent) <= 402 * MS  # its delay, its transmission, and the queue's limit


def test_group_frames_reach_each_receiver_by_its_own_fate(lab: Experiment) -> None:
    condition = Condition(loss_ratio=0.3)
    evidence = lab("group", links={"a->b": condition.to_json()})
    prove(evidence)
    for what, port in (("broadcast", 9000), ("multicast", 9001)):
        flow = f"udp *1>{port}"
        expected = [k for k in range(200) if not lost(draws(SEED, AB, flow, k), condition)]
        assert evidence["got"][f"b {what}"] == expected
    assert evidence["got"]["c broadcast"] == list(range(200))
    assert evidence["got"]["c multicast"] == []  # it has not joined
    assert evidence["direct"] == 200  # c to b, which no link names
    assert {f.link for f in evidence["ledger"]} == {AB, "a->c over lan"}


def test_a_stream_arrives_whole_through_loss_and_delay(lab: Experiment) -> None:
    link = {"loss_ratio": 0.05, "delay_ns": 2 * MS}
    evidence = lab("stream", links={"a->b": link, "b->a": link}, size=2 << 20)
    prove(evidence)
    assert evidence["hashes"][0] == evidence["hashes"][1]
    for direction, flow in ((AB, "tcp *1>9000"), ("b->a over lan", "tcp 9000>*1")):
        mine = [f for f in evidence["ledger"] if f.link == direction]
        assert {f.flow for f in mine} == {flow}
        prove_fates(evidence["ledger"], direction, Condition.from_json(link))
        assert max(f.size_bytes for f in mine) <= 1514  # real packets, no super-packets
    assert evidence["report"]["links"][AB]["loss"] > 30


def test_a_fast_stream_arrives_whole(lab: Experiment) -> None:
    evidence = lab("stream", links={"a->b": {"delay_ns": MS}}, size=32 << 20)
    prove(evidence)
    assert evidence["hashes"][0] == evidence["hashes"][1]


def test_fragments_pass_and_are_flows_of_their_own(lab: Experiment) -> None:
    evidence = lab("probe", links={"a->b": {"delay_ns": 2 * MS}}, count=50, size=4000)
    prove(evidence)
    assert numbers(evidence) == list(range(50)) and evidence["damaged"] == 0
    assert Counter(f.flow for f in evidence["ledger"]) == {"udp *1>9000": 50, "frag udp": 100}


def test_large_frames_pass_where_the_ring_was_told(lab: Experiment) -> None:
    evidence = lab("probe", links={"a->b": {}}, count=50, size=8900, mtu=9000, max_frame=9014)
    prove(evidence)
    assert evidence["answer"]["ok"]["slot_bytes"] == 16384
    assert numbers(evidence) == list(range(50)) and evidence["damaged"] == 0
    assert {f.size_bytes for f in evidence["ledger"]} == {8942}


def test_frames_larger_than_announced_are_lost_unasked(lab: Experiment) -> None:
    evidence = lab("probe", links={"a->b": {}}, count=10, size=8900, mtu=9000)
    assert numbers(evidence) == []
    assert {(f.cause, f.size_bytes) for f in evidence["ledger"]} == {("unasked", 8942)}
    assert evidence["report"]["ring"]["too_large"] == evidence["report"]["links"][AB]["unasked"] == 10


def test_errors_of_icmp_have_a_flow_and_a_fate(lab: Experiment) -> None:
    evidence = lab("refused", links={"a->b": {}, "b->a": {"delay_ns": 30 * MS}}, patience_s=10)
    prove(evidence)
    assert [kind for kind, _ in evidence["answers"]] == 3 * ["ConnectionRefusedError"]
    assert min(took for _, took in evidence["answers"]) >= 30 * MS
    assert {f.flow for f in evidence["ledger"] if f.link == "b->a over lan"} == {"icmp error"}
    evidence = lab("refused", links={"b->a": {"loss_ratio": 1.0}}, patience_s=0.2)
    assert [kind for kind, _ in evidence["answers"]] == 3 * ["TimeoutError"]
    assert {f.cause for f in evidence["ledger"]} == {"loss"}


@pytest.mark.parametrize("how", ["killed", "end of input", "refused", "another pair only"])
def test_without_conditions_in_force_nothing_passes(lab: Experiment, how: str) -> None:
    evidence = lab("closed", links={"a->b": {"delay_ns": 100 * MS}}, how=how)
    assert evidence["before"] == 50
    assert numbers_after(evidence) == []
    if how == "end of input":  # what was under way is on record, and the record is whole
        assert evidence["answer"] == 0
        assert Counter(f.cause for f in evidence["ledger"]) == {None: 50, "unasked": 50}
    elif how == "killed":
        assert evidence["answer"] == -9
    else:
        assert evidence["report"]["hosts"]["a"] == {"frames_in": 100, "unknown": 50}
    if how == "refused":
        error = evidence["answer"]["error"]
        assert error["kind"] == "condition" and "link a->b over lan: loss_ratio is 2" in error["message"]


def numbers_after(evidence: dict[str, Any]) -> list[int]:
    """Datagrams that were sent when nothing was in force any more, or were still under way."""
    return [number for number in evidence["got"] if number >= 50]


def test_after_its_ring_overflowed_the_link_works_again_and_loses_nothing(lab: Experiment) -> None:
    """Full while it is being read: where the kernel and the wire write to the same slots at the same time."""
    evidence = lab("flooded", links={"a->b": {}}, flood=300_000)
    report, sent = evidence["report"], 300_500
    assert evidence["got"] == list(range(500)), "afterwards"
    assert report["ring"]["rx_drops"] > 0
    assert report["hosts"]["a"]["frames_in"] + report["ring"]["rx_drops"] == evidence["matched"]["a"] == sent
    assert report["links"][AB]["frames"] == report["links"][AB]["sent"] == report["hosts"]["a"]["frames_in"]


def test_what_does_not_leave_in_time_is_on_record_when_the_drain_is_over(lab: Experiment) -> None:
    evidence = lab("undrained", links={"a->b": {"delay_ns": 10_000 * MS}})
    assert evidence["early"] == {"frames": 0, "due_ns": 0}
    assert evidence["way"]["frames"] == 20
    assert (evidence["asked_again"]["over"], evidence["asked_again"]["pending"]) == (False, 20)
    assert evidence["shut"] == 7, "nothing is let in, and it is counted"
    assert (evidence["first"]["over"], evidence["first"]["pending"]) == (True, 20)
    assert 300 * MS <= evidence["took"] < 3000 * MS
    assert evidence["report"]["links"][AB]["unasked"] == 20
    first, second = ([Frame(*fields) for fields in ledger] for ledger in evidence["ledgers"])
    assert [(f.k, f.cause) for f in first] == [(k, "unasked") for k in range(20)]
    assert evidence["way"]["due_ns"] == max(f.due_ns or 0 for f in first)
    assert all(f.due_ns == f.in_ns + 10_000 * MS and f.sent_ns is None for f in first)
    assert (evidence["second"]["over"], evidence["second"]["pending"]) == (True, 5)
    assert [f.k for f in second] == list(range(25))
    kinds = [answer["error"]["kind"] for answer in evidence["wrong"]]
    assert kinds == ["engine", "engine", "engine", "engine", "engine"]
    assert [answer["id"] for answer in evidence["wrong"][3:]] == [None, None]
    assert "no such request: 'dance'" in evidence["wrong"][0]["error"]["message"]
