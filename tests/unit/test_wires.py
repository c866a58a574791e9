"""Several wires that answer as one, with wires that are no processes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import pytest

from testbed.agent.wires import Wires
from testbed.errors import ConditionError

LINKS = [{"id": f"{source}->z", "source": source, "condition": {"delay_ns": 1}} for source in "abc"]
DEVICES = {"a": "h0", "b": "h1", "c": "h2"}


class Stub:
    """Holds what it is told; `dead` and `refuses` are what a test makes of it."""

    def __init__(self, number: int) -> None:
        self.pid, self.told, self.unread = number, [], 0  # type: ignore[var-annotated]
        self.closed = self.dead = self.refuses = False
        self.late = self.slow = 0  # rounds that find something new, and those that come to no end
        self.bytes = b"ledger of %d;" % number

    def tell(self, do: str, **arguments: Any) -> None:
        if self.dead:
            raise ConditionError(f"wire {self.pid} ended")
        self.told.append((do, arguments))
        self.unread += 1

    def answer(self, do: str, wait_s: float) -> dict[str, Any]:
        self.unread -= 1
        if self.refuses:
            raise ConditionError(f"wire {self.pid} refused {do}")
        links = {link["id"]: link["condition"] for link in self.told[0][1]["links"]}
        rounds = len([1 for told, _ in self.told if told == "drain"])
        if do == "drain" and self.late and rounds > 1 + self.slow:
            self.late -= 1
            self.bytes += b"later;"
        if do == "drain":
            links = {link: {"frames": len(self.bytes)} for link in links}
        if do == "under_way":
            return {"frames": self.pid, "due_ns": 100 - self.pid}
        if do == "resume":
            return {}
        return {
            "conditions": {"links": links, "slot_bytes": 2048, "fate": 1},
            "report": {"links": links, "hosts": {str(self.pid): {}}, "ring": {"rx_drops": self.pid}},
            "drain": {"over": rounds > self.slow, "links": links, "ledger_bytes": len(self.bytes)},
        }[do]

    @property
    def ledger_bytes(self) -> int:
        return len(self.bytes)

    def ledger(self, offset: int, length: int) -> bytes:
        return self.bytes[offset : offset + length]

    def close(self) -> None:
        self.closed = True


def started(number: int) -> tuple[Wires, list[Stub]]:
    stubs: list[Stub] = []

    def start() -> Any:
        stubs.append(Stub(len(stubs)))
        return stubs[-1]

    wires = Wires(start, number)
    wires.conditions(7, DEVICES, LINKS)
    return wires, stubs


def drained(wires: Wires) -> dict[str, dict[str, Any]]:
    far_ns = time.monotonic_ns() + 10**12
    while True:
        counts = wires.drain(far_ns, far_ns, 1.0)
        if counts is not None:
            return counts


def asked(stub: Stub) -> tuple[Mapping[str, str], list[str]]:
    _, arguments = stub.told[0]
    return arguments["hosts"], [link["id"] for link in arguments["links"]]


def test_each_host_is_carried_by_one_and_the_fewest_go_first() -> None:
    wires, stubs = started(2)
    assert [asked(stub) for stub in stubs] == [
        ({"a": "h0", "c": "h2"}, ["a->z", "c->z"]),
        ({"b": "h1"}, ["b->z"]),
    ]
    assert [wires.of(host).pid for host in "abcd"] == [0, 1, 0, 1]


def test_they_answer_as_one() -> None:
    wires, _ = started(3)
    everything = {link["id"]: link["condition"] for link in LINKS}
    assert wires.conditions(7, DEVICES, LINKS) == {"links": everything, "slot_bytes": 2048, "fate": 1, "wires": 3}
    assert wires.report() == {"links": everything, "hosts": {"0": {}, "1": {}, "2": {}}, "ring": {"rx_drops": 3}}
    assert drained(wires) == {link: {"frames": 12} for link in everything}
    assert wires.under_way(7) == (0 + 1 + 2, 100)


def test_their_ledgers_are_read_one_after_another_and_only_as_far_as_they_were_closed() -> None:
    wires, stubs = started(2)
    drained(wires)
    stubs[0].bytes += b"later"
    data, piece = b"", b"-"
    while piece:
        piece = wires.ledger(len(data), 5)
        data += piece
    assert data == b"ledger of 0;ledger of 1;"


def test_several_drain_until_a_round_finds_nothing_new() -> None:
    wires, stubs = started(2)
    stubs[1].late = 2  # what the other one delivers meanwhile is answered through it
    drained(wires)
    assert [sum(do == "drain" for do, _ in stub.told) for stub in stubs] == [4, 4]
    assert [stub.told[-1][0] for stub in stubs] == ["resume", "resume"]
    assert wires.ledger(0, 100) == b"ledger of 0;"
    assert wires.ledger(12, 100) == b"ledger of 1;later;later;"


def test_one_that_is_not_empty_yet_keeps_all_of_them_shut() -> None:
    wires, stubs = started(2)
    stubs[1].slow = 2
    far_ns = time.monotonic_ns() + 10**12
    assert wires.drain(far_ns, far_ns, 0.5) is None
    assert wires.drain(far_ns, far_ns, 0.5) is None
    assert "resume" not in [do for stub in stubs for do, _ in stub.told]
    assert drained(wires)
    assert stubs[0].told[1] == ("drain", {"shut_ns": far_ns, "deadline_ns": far_ns, "wait_s": 0.5})


def test_after_the_deadline_what_is_found_is_the_end() -> None:
    wires, stubs = started(2)
    stubs[1].late = 10**6
    assert wires.drain(0, time.monotonic_ns() - 1, 0.5) is not None


@pytest.mark.parametrize("trouble", ["dead", "refuses"])
def test_after_a_trouble_with_one_the_answers_of_the_others_are_not_taken_for_the_next(trouble: str) -> None:
    wires, stubs = started(3)
    setattr(stubs[1], trouble, True)
    with pytest.raises(ConditionError, match="wire 1"):
        wires.report()
    assert [stub.unread for stub in stubs] == [0, 0, 0]
    assert wires.ledger(0, 100) == b"ledger of 0;", "what is on record stays readable"


def test_one_that_does_not_start_leaves_none() -> None:
    stubs: list[Stub] = []

    def start() -> Any:
        if stubs:
            raise OSError("no more processes")
        stubs.append(Stub(0))
        return stubs[0]

    with pytest.raises(OSError, match="no more"):
        Wires(start, 2)
    assert stubs[0].closed
