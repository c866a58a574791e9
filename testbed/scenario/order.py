"""What each program waits for, and the order that follows. Programs are meant by name, ids are `host.program`."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from testbed.scenario.fields import did_you_mean, short
from testbed.scenario.model import Program
from testbed.scenario.source import Hint, Report
from testbed.scenario.topology import Topology


@dataclass(frozen=True)
class Started:
    """One program of one host and what it waits for: (program id, "ready" | "started" | "ended")."""

    id: str
    program: Program
    after: tuple[tuple[str, str], ...]


def programs(there: Topology) -> dict[str, Program]:
    """Every program by id, hosts in file order, programs in file order."""
    return {program_id: program for host in there.hosts.values() for program_id, program in host.programs()}


def meant(there: Topology, name: str) -> tuple[list[str], str, Hint]:
    """(ids, "", "") that `name`, `host.name` or `group.name` stands for; else ([], why not, a hint)."""
    host, point, program = name.partition(".")
    if point:
        members = there.members(host)
        found = [f"{one}.{program}" for one in members or () if program in there.hosts[one].written.programs]
        return (found, "", "") if found else _none(there, name)
    owners: dict[str, list[str]] = {}
    for member in there.hosts.values():
        if name in member.written.programs:
            owners.setdefault(member.group or member.name, []).append(f"{member.name}.{name}")
    if len(owners) == 1:
        return next(iter(owners.values())), "", ""
    if owners:
        choice = " or ".join(f"{owner}.{name}" for owner in owners)
        return [], f"`{name}` is a program of {', '.join(owners)}", f"write {choice}"
    members = there.members(name)
    if not members:
        return _none(there, name)
    own = list(there.hosts[members[0]].written.programs)
    if len(own) == 1 and name != "all":
        return [f"{one}.{own[0]}" for one in members], "", ""
    hint = f"write {' or '.join(f'{name}.{one}' for one in own)}" if own else "it has no program"
    return [], f"`{name}` is a host, not a program", hint


def _none(there: Topology, name: str) -> tuple[list[str], str, Hint]:
    def hint() -> str:
        names = list(dict.fromkeys(program for host in there.hosts.values() for program in host.written.programs))
        full = [f"{owner}.{program}" for owner in there.names() for program in _of(there, owner)]
        return did_you_mean(name, names) or did_you_mean(name, full, f"programs: {', '.join(names[:20])}")

    return [], f"there is no program `{short(name)}`", hint


def _of(there: Topology, owner: str) -> list[str]:
    members = there.members(owner) or ()
    return list(there.hosts[members[0]].written.programs) if members else []


def start_order(there: Topology, report: Report) -> list[Started]:
    """Programs in an order that keeps every `after`, else in file order. Cycles are reported, with their paths."""
    known = programs(there)
    serves = [program_id for program_id, program in known.items() if program.serves]
    waits = {program_id: _after(there, known, program_id, serves, report) for program_id in known}
    ids = _sorted(waits)
    left = dict.fromkeys(known)
    for program_id in ids:
        del left[program_id]
    if left:
        _report_cycles(known, {program_id: waits[program_id] for program_id in left}, report)
    return [Started(one, known[one], tuple(waits[one].items())) for one in (*ids, *left)]


def _report_cycles(known: dict[str, Program], waits: dict[str, dict[str, str]], report: Report) -> None:
    """One for each cycle of those that are left, as far as they have no program in common; five at most."""
    for _ in range(5):
        if not waits:
            return
        circle = _cycle(waits)
        default = [one for one in circle if known[one].after is None]
        hint = f"{default[0]} has no `after`, so it waits for every `serve`: give it one" if default else ""
        at = next((known[one].at("after") for one in circle if known[one].wrote("after")), known[circle[0]].mark)
        report(at, f"programs wait for each other: {' -> '.join([*circle, circle[0]])}", hint)
        rest = {one: after for one, after in waits.items() if one not in circle}
        rest = {one: {other: "" for other in after if other in rest} for one, after in rest.items()}
        free = set(_sorted(rest))
        waits = {one: after for one, after in rest.items() if one not in free}


def _after(
    there: Topology, known: dict[str, Program], program_id: str, serves: list[str], report: Report
) -> dict[str, str]:
    program = known[program_id]
    if program.after is None:
        return {} if program.serves else dict.fromkeys(serves, "ready")
    made: dict[str, str] = {}
    for name, state in program.after.items():
        found, why, hint = meant(there, name)
        if not found:
            report(name, f"after: {why}", hint, "program-unknown")
        for one in found:
            serves_it = known[one].serves
            if state == "ready" and not serves_it:
                report(name, f"after: {one} is a `run` and never gets ready", "did you mean `ended`?")
            elif state == "ended" and serves_it:
                report(name, f"after: {one} is a `serve` and lives to the end", "did you mean `ready`?")
            made[one] = state or ("ready" if serves_it else "ended")
    return made


def _sorted(waits: dict[str, dict[str, str]]) -> list[str]:
    """Kahn's algorithm, always taking the first in file order; programs in or behind a cycle are left out."""
    place = {program_id: index for index, program_id in enumerate(waits)}
    names = list(waits)
    missing = {program_id: len(after) for program_id, after in waits.items()}
    followers: dict[str, list[str]] = {program_id: [] for program_id in waits}
    for program_id, after in waits.items():
        for one in after:
            followers[one].append(program_id)
    free = [place[program_id] for program_id, count in missing.items() if count == 0]
    heapq.heapify(free)
    ordered = []
    while free:
        one = names[heapq.heappop(free)]
        ordered.append(one)
        for follower in followers[one]:
            missing[follower] -= 1
            if missing[follower] == 0:
                heapq.heappush(free, place[follower])
    return ordered


def _cycle(waits: dict[str, dict[str, str]]) -> list[str]:
    """One cycle: from the first program on, each waits for the next. Every program here waits for one here."""
    at = next(iter(waits))
    seen: dict[str, int] = {}
    while at not in seen:
        seen[at] = len(seen)
        at = next(one for one in waits[at] if one in waits)
    return list(seen)[seen[at] :]
