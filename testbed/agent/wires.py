"""The wires of a machine: each carries what some of the hosts send, and together they answer as one.

A frame passes one wire, its sender's, and its fate is the seed's: nothing has to be agreed between them. More of
them carry more where there are processors for them; elsewhere they only keep each other from being punctual.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from testbed.agent.link_process import WireProcess
from testbed.errors import ConditionError

_ANSWER_S = 30.0


class Wires:
    def __init__(self, start: Callable[[], WireProcess], number: int) -> None:
        """So many of them, at once and not awaited: starting one takes a tenth of a second. Raises OSError."""
        self._wires: list[WireProcess] = []
        self._number_of: dict[str, int] = {}  # by sending host; for good, because its counts are there
        self._sizes: list[int] | None = None  # of each one's ledger, since they were closed
        self._counts: dict[str, dict[str, Any]] = {}  # of each link, as the last round of a drain had them
        try:
            for _ in range(number):
                self._wires.append(start())
        except BaseException:
            self.close()
            raise

    def await_ready(self) -> None:
        """Until they serve. Raises ConditionError."""
        for wire in self._wires:
            wire.await_ready()

    def death(self) -> str:
        """How those ended that did, in words; "" while all of them live."""
        return "; ".join(filter(None, (wire.death() for wire in self._wires)))

    def of(self, host: str) -> WireProcess:
        """The one that carries what this host sends."""
        if host not in self._number_of:
            carry = Counter(self._number_of.values())
            self._number_of[host] = min(range(len(self._wires)), key=carry.__getitem__)
        return self._wires[self._number_of[host]]

    def conditions(
        self, seed: int, devices: Mapping[str, str], links: Iterable[Mapping[str, Any]]
    ) -> dict[str, Any]:
        """The whole state. Returns what they hold. Raises ConditionError: then nothing passes of what is wrong."""
        requests: list[dict[str, Any]] = [{"seed": seed, "hosts": {}, "links": []} for _ in self._wires]
        for host, device in devices.items():
            self.of(host)
            requests[self._number_of[host]]["hosts"][host] = device
        for link in links:
            requests[self._number_of[link["source"]]]["links"].append(link)
        self._sizes = None
        answers = self._ask("conditions", requests)
        slot_bytes = max(answer["slot_bytes"] for answer in answers)
        return {**answers[0], "links": _joined(answers, "links"), "slot_bytes": slot_bytes, "wires": len(answers)}

    def report(self) -> dict[str, Any]:
        """As one wire's: of all hosts and links, and the sums of what their rings lost."""
        answers = self._ask("report", [{} for _ in self._wires])
        ring: Counter[str] = Counter()
        for answer in answers:
            ring.update(answer["ring"])
        return {"hosts": _joined(answers, "hosts"), "links": _joined(answers, "links"), "ring": dict(ring)}

    def under_way(self, before_ns: int) -> tuple[int, int]:
        """Of what had come in by then, how many frames have not left, and when the last is due; or 0, 0."""
        answers = self._ask("under_way", [{"before_ns": before_ns} for _ in self._wires])
        return sum(answer["frames"] for answer in answers), max(answer["due_ns"] for answer in answers)

    def drain(self, shut_ns: int, deadline_ns: int, wait_s: float) -> dict[str, dict[str, Any]] | None:
        """Close the ledgers as soon as nothing is under way. Returns each link's counts; None: not yet, ask again.

        What comes in after `shut_ns` is not let in, so that who goes on for ever cannot prolong it; what is under
        way at `deadline_ns` is lost. Of several wires, until a round finds nothing new: what one delivers late is
        answered through another.
        """
        request = {"shut_ns": shut_ns, "deadline_ns": deadline_ns, "wait_s": wait_s}
        answers = self._ask("drain", [request for _ in self._wires], wait_s + _ANSWER_S)
        counts, before = _joined(answers, "links"), self._counts
        over = all(answer["over"] for answer in answers)
        if not over or (len(answers) > 1 and counts != before and time.monotonic_ns() < deadline_ns):
            self._counts = counts
            return None
        self._counts, self._sizes = {}, [answer["ledger_bytes"] for answer in answers]
        self._ask("resume", [{} for _ in self._wires])
        return counts

    def _ask(
        self, do: str, requests: Sequence[Mapping[str, Any]], wait_s: float = _ANSWER_S
    ) -> list[dict[str, Any]]:
        """All of them at once. Every answer is read, also behind an error, or the next would be wrong."""
        answers, problems = [], []
        told = []
        for wire, request in zip(self._wires, requests, strict=True):
            try:
                wire.tell(do, **request)
                told.append(wire)
            except ConditionError as problem:
                problems.append(problem)
        for wire in told:
            try:
                answers.append(wire.answer(do, wait_s))
            except ConditionError as problem:
                problems.append(problem)
        if problems:
            raise problems[0]
        return answers

    def ledger(self, offset: int, length: int) -> bytes:
        """A piece of their ledgers, one after another; empty at the end. Also when they are dead."""
        if self._sizes is None:  # nobody closed them: what is there at this moment
            self._sizes = [wire.ledger_bytes for wire in self._wires]
        for wire, size in zip(self._wires, self._sizes, strict=True):
            if offset < size:
                return wire.ledger(offset, min(length, size - offset))
            offset -= size
        return b""

    def close(self) -> None:
        for wire in self._wires:
            with suppress(OSError):
                wire.close()
        self._wires.clear()


def _joined(answers: Iterable[Mapping[str, Any]], key: str) -> dict[str, Any]:
    return {name: value for answer in answers for name, value in answer[key].items()}
