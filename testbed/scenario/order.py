"""What each program waits for, and the order that follows. Programs are meant by name, ids are `host.program`."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import dataclass

from testbed.scenario.fields import did_you_mean, short
from testbed.scenario.model import Program
from testbed.scenario.source import mark_of
from testbed.scenario.topology import Topology

Report = Callable[[object, str, str], None]


@dataclass(frozen=True)
class Started:
    """One program of one host and what it waits for: (program id, "ready" | "started" | "ended")."""

    id: str
    program: Program
    after: tuple[tuple[str, str], ...]


def programs(there: Topology) -> dict[str, Program]:
    """Every program by id, hosts in file order, programs in file order."""
    return {program_id: program for host in there.hosts.values() for program_id, program in host.programs()}


def meant(there: Topology, name: str) -> tuple[list[str], str]:
    """The ids that `name`, `host.name` or `group.name` stands for; else [] and why not."""
    host, point, program = name.partition(".")
    if point:
        members = there.members(host)
        found = [f"{one}.{program}" for one in members or () if program in there.hosts[one].written.programs]
        return found, "" if found else f"there is no program `{short(name)}`"
    owners: dict[str, list[str]] = {}
    for member in there.hosts.values():
        if name in member.written.programs:
            owners.setdefault(member.group or member.name, []).append(f"{member.name}.{name}")
    if len(owners) == 1:
        return next(iter(owners.values())), ""
    if owners:
        return (
            [],
            f"`{name}` is a program of {', '.join(owners)}: write {' or '.join(f'{o}.{name}' for o in owners)}",
        )
    members = there.members(name)
    if members:
        own = list(there.hosts[members[0]].written.programs)
        if len(own) == 1:
            return [f"{one}.{own[0]}" for one in members], ""
        choice = f": write {' or '.join(f'{name}.{one}' for one in own)}" if own else ", and it has no program"
        return [], f"`{name}` is a host{choice}"
    return [], f"there is no program `{short(name)}`"


def start_order(there: Topology, report: Report) -> list[Started]:
    """Programs in an order that keeps every `after`, else in file order. A cycle is reported, with its path."""
    known = programs(there)
    serves = [program_id for program_id, program in known.items() if program.serve is not None]
    waits = {program_id: _after(there, known, program_id, serves, report) for program_id in known}
    ids = _sorted(waits)
    if len(ids) < len(known):
        left = [program_id for program_id in known if program_id not in set(ids)]
        circle = _cycle({program_id: waits[program_id] for program_id in left})
        default = [i for i in circle if "after" not in known[i].model_fields_set and known[i].run is not None]
        hint = f"{default[0]} has no `after`, so it waits for every `serve`: give it one" if default else ""
        at = next((known[i].at("after") for i in circle if known[i].wrote("after")), mark_of(known[circle[0]]))
        report(at, f"programs wait for each other: {' -> '.join([*circle, circle[0]])}", hint)
        ids += left
    return [Started(program_id, known[program_id], tuple(waits[program_id].items())) for program_id in ids]


def _after(
    there: Topology, known: dict[str, Program], program_id: str, serves: list[str], report: Report
) -> dict[str, str]:
    program = known[program_id]
    if program.after is None:
        return dict.fromkeys(serves, "ready") if program.run is not None else {}
    made: dict[str, str] = {}
    for name, state in program.after.items():
        found, why = meant(there, name)
        if not found:
            names = dict.fromkeys(i.split(".")[1] for i in known)
            report(name, f"after: {why}", did_you_mean(name, [*names, *known], f"programs: {', '.join(names)}"))
        for one in found:
            serves_it = known[one].serve is not None
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
