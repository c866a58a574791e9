"""Which rule of `links` wins for each direction of each pair. Pure: the plan asks, and so does the check."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial

from testbed.errors import counted
from testbed.scenario.fields import did_you_mean
from testbed.scenario.linkkeys import LinkKey
from testbed.scenario.source import Hint, Report
from testbed.scenario.topology import Topology

Direction = tuple[str, str, str]  # source, target, network

HOST_HOST, HOST_GROUP, GROUP_GROUP, NETWORK = 3, 2, 1, 0
MOST_LINKS = 50_000  # directions: what can be checked and planned in half a second


@dataclass
class Won:
    """The rule in force for a direction, and the less specific ones that named it too."""

    rule: LinkKey
    specificity: int
    overruled: list[LinkKey] = field(default_factory=list)


def resolve(there: Topology, rules: list[LinkKey], report: Report) -> dict[Direction, Won]:
    """Every direction that a rule names, in the order of the file; the most specific rule wins whole.

    Problems go to `report(at, message, hint)`: a rule that names no one, hosts that share no network or several,
    two equally specific rules for one direction, more than MOST_LINKS directions: those beyond it are left out.
    """
    found: dict[Direction, Won] = {}
    clashes: set[tuple[LinkKey, LinkKey]] = set()
    for rule in rules:
        specificity = _specificity(there, rule)
        for direction in _directions(there, rule, report):
            before = found.get(direction)
            if before is None:
                if len(found) == MOST_LINKS:
                    message = f"`{rule}`: more than {MOST_LINKS:,} links, the most that a scenario may have"
                    report(rule.mark, message, "name fewer hosts, or put them into more networks", "link")
                    return found
                found[direction] = Won(rule, specificity)
            elif specificity > before.specificity:
                found[direction] = Won(rule, specificity, [*before.overruled, before.rule])
            elif specificity < before.specificity:
                before.overruled.append(rule)
            elif (before.rule, rule) not in clashes:
                clashes.add((before.rule, rule))
                source, target, network = direction
                message = f"`{rule}` and `{before.rule}` both set {source} -> {target} over {network}"
                report(
                    rule.mark, message, "neither is more specific: leave one, or name the hosts themselves", "link"
                )
    return found


def _specificity(there: Topology, rule: LinkKey) -> int:
    if not rule.a:
        return NETWORK
    hosts = sum(name in there.hosts and name not in there.groups for name in (rule.a, rule.b))
    return (GROUP_GROUP, HOST_GROUP, HOST_HOST)[hosts]


def _directions(there: Topology, rule: LinkKey, report: Report) -> Iterable[Direction]:
    hint: Hint
    if rule.network is not None and rule.network not in there.on:
        if not rule.a and rule.network in there.names():
            others = [name for name in there.names() if name != rule.network]
            other = others[0] if len(others) == 1 else "all"
            hint = f"write `{rule} <-> {other}`, or one way `{rule} -> {other}`"
            report(rule.mark, f"`{rule}` is a host, and a link has two ends", hint, "link-form")
        else:
            known = [*there.on, *(there.names() if not rule.a else ())]
            hint = partial(did_you_mean, rule.network, known, f"networks: {_list(there.on)}")
            if rule.network == "all" and not rule.a:
                hint = "every pair, both ways, is `all <-> all`"
            if not rule.a and (ends := _two_hosts(there, rule.network)):
                hint = f"both ways it is `{ends[0]} <-> {ends[1]}`, one way `{ends[0]} -> {ends[1]}`"
            report(rule.mark, f"`{rule}` names no one: there is no network `{rule.network}`", hint, "link-end")
        return []
    if not rule.a:
        members = there.on[str(rule.network)]
        if len(members) < 2:
            report(
                rule.mark, f"`{rule}` names no one: the network has {counted(len(members), 'host')}", "", "link"
            )
        return ((a, b, str(rule.network)) for a, b in itertools.permutations(members, 2))
    sides = there.members(rule.a), there.members(rule.b)
    for name, side in zip((rule.a, rule.b), sides, strict=True):
        if side is None:
            hint = partial(did_you_mean, name, there.names(), f"hosts: {_list([*there.names(), 'all'])}")
            if name in ("any", "every", "everyone", "everybody"):
                hint = "every host is `all`"
            report(rule.mark, f"`{rule}` names no one: there is no host `{name}`", hint, "link-end")
    if sides[0] is None or sides[1] is None:
        return []
    return _pairs(there, rule, sides[0], sides[1], report)


def _pairs(
    there: Topology, rule: LinkKey, left: tuple[str, ...], right: tuple[str, ...], report: Report
) -> list[Direction]:
    made: dict[Direction, None] = {}
    everyone = "all" in (rule.a, rule.b)
    for a, b in itertools.product(left, right):
        if a == b:
            continue
        if len(made) > MOST_LINKS:
            break
        if not (there.hosts[a].networks and there.hosts[b].networks):
            continue  # that one of them is nowhere was said of it
        shared = there.shared(a, b)
        if rule.network is not None:
            if rule.network in shared:
                _add(made, a, b, rule.network, rule.both)
            elif not everyone:
                off = a if rule.network not in there.hosts[a].networks else b
                report(rule.mark, f"`{rule}`: {off} is not on {rule.network}", _where(there, a, b), "link")
                return []
        elif len(shared) == 1:
            _add(made, a, b, shared[0], rule.both)
        elif shared:
            hint = " or ".join(f"`{rule} over {network}`" for network in shared)
            report(rule.mark, f"`{rule}`: {a} and {b} share several networks", f"say which: {hint}", "link")
            return []
        elif not everyone:
            report(rule.mark, f"`{rule}`: {a} and {b} share no network", _where(there, a, b), "link")
            return []
    nowhere = not all(there.hosts[name].networks for name in (*left, *right))
    if not made and not nowhere:
        report(rule.mark, f"`{rule}` names no one: no two different hosts share a network there", "", "link")
    return list(made)


def _two_hosts(there: Topology, name: str) -> tuple[str, str] | None:
    """`client-server` as the two hosts that it is made of."""
    parts = name.split("-")
    splits = (("-".join(parts[:i]), "-".join(parts[i:])) for i in range(1, len(parts)))
    return next(((a, b) for a, b in splits if a in there.names() and b in there.names()), None)


def _list(names: Iterable[str]) -> str:
    return ", ".join([*names][:20])


def _add(made: dict[Direction, None], a: str, b: str, network: str, both: bool) -> None:
    made[a, b, network] = None
    if both:
        made[b, a, network] = None


def _where(there: Topology, a: str, b: str) -> str:
    """Where both are, and how one would get from one to the other. Hosts do not forward: each step is a link."""
    where = "; ".join(f"{name} is on {', '.join(there.hosts[name].networks) or 'none'}" for name in (a, b))
    if there.shared(a, b):
        return where
    steps = path(there, a, b)
    if not steps:
        return f"{where}; nothing connects them"
    return f"{where}; the way between them: {' - '.join(steps)}, a link for each network"


def path(there: Topology, a: str, b: str) -> list[str]:
    """The shortest way from host to host, hosts and networks in turn; [] if there is none."""
    before: dict[str, tuple[str, str]] = {a: ("", "")}
    waiting, seen_networks = deque([a]), set()
    while waiting:
        host = waiting.popleft()
        if host == b:
            steps = [b]
            while before[host][0]:
                host, network = before[host]
                steps = [host, network, *steps]
            return steps
        for network in there.hosts[host].networks:
            if network in seen_networks:
                continue
            seen_networks.add(network)
            for other in there.on[network]:
                if other not in before:
                    before[other] = (host, network)
                    waiting.append(other)
    return []
