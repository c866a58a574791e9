"""What the names in an expectation stand for in a plan: programs, kernels and links, one by one.

A group means each of its hosts. Everything here is known before a run; what a metric's value is, is not.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from testbed.expect import slips
from testbed.expect.syntax import Dotted, Metric, OfLink, Parsed
from testbed.measure.link_metrics import LINK_METRICS
from testbed.measure.metrics import BUILT_IN
from testbed.measure.samples import AGGREGATES
from testbed.plan.types import Host, Link, Plan, Program
from testbed.scenario.fields import did_you_mean


class Unknown(Exception):
    """A name that stands for nothing, or for more than one thing. `at` is an offset into the text."""

    def __init__(self, message: str, at: int, hint: str = "") -> None:
        self.at, self.hint = at, hint
        super().__init__(message)


@dataclass(frozen=True)
class Member:
    """One thing that a metric is of: a program, a host's kernel, or one direction of one pair."""

    label: str
    hosts: tuple[str, ...]  # (source, target) of a link
    program: Program | None = None
    link: Link | None = None

    @property
    def host(self) -> str:
        """The host whose `$name`, `$index` and `$ip` are meant: of a link, the one that sends."""
        return self.hosts[0]


@dataclass(frozen=True)
class Target:
    """A metric of one or several members."""

    kind: Literal["program", "kernel", "link"]
    members: tuple[Member, ...]
    metric: str
    aggregate: str | None
    several: frozenset[str]  # the hosts of the members that differ from member to member
    written: str = field(compare=False)
    at: int = field(compare=False)

    def shown(self, member: Member) -> str:
        """How one member's metric is called in a message."""
        path = self.metric if self.aggregate is None else f"{self.metric}.{self.aggregate}"
        between = ".kernel." if self.kind == "kernel" else "."
        return f"{member.label}{between}{path}"


class Names:
    """The names of one plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.hosts = {host.name: host for host in plan.hosts}
        self.group_of = {name: group for group, names in plan.groups.items() for name in names}
        self.networks = {network.name for network in plan.networks}
        self.links: dict[tuple[str, str], list[Link]] = {}
        for link in plan.links:
            self.links.setdefault((link.source, link.target), []).append(link)

    def resolve(self, metric: Metric) -> Target:
        """Raises Unknown."""
        return self._link(metric) if isinstance(metric, OfLink) else self._dotted(metric)

    def members_of(self, name: str) -> tuple[str, ...] | None:
        """The hosts that a host's or a group's name, or `all`, stands for."""
        if name in self.plan.groups:
            return self.plan.groups[name]
        if name in self.hosts:
            return (name,)
        return tuple(self.hosts) if name == "all" else None

    # -- programs and kernels

    def _dotted(self, metric: Dotted) -> Target:
        words = metric.words
        hosts = self.members_of(words[0]) if words[0] != "all" else None
        if hosts is not None and words[1] == "kernel":
            if len(words) != 3:
                raise Unknown(
                    f"`{metric}`: a counter's name is one word", metric.at, "client.kernel.UdpInDatagrams"
                )
            kernels = tuple(Member(host, (host,)) for host in hosts)
            return Target("kernel", kernels, words[2], None, self._several(kernels), str(metric), metric.at)
        programs, path = self._programs(metric, hosts)
        if not path:
            raise Unknown(f"`{metric}` is a program: which of its metrics is meant?", metric.at, f"{metric}.exit")
        name, aggregate = self._path(path, str(metric), metric.at)
        members = tuple(Member(self.label(program), (program.host,), program) for program in programs)
        return Target("program", members, name, aggregate, self._several(members), str(metric), metric.at)

    def label(self, program: Program) -> str:
        """What a message calls it: `client` if that is its host's only program and called like it, else its id."""
        alone = len(self.hosts[program.host].programs) == 1
        return program.host if alone and program.name in (program.host, self._owner(program.host)) else program.id

    def _programs(self, metric: Dotted, hosts: tuple[str, ...] | None) -> tuple[list[Program], tuple[str, ...]]:
        words = metric.words
        of_hosts = [p for p in self.plan.programs if hosts is not None and p.host in hosts]
        if hosts is not None and len(words) > 1:
            by_both = [p for p in of_hosts if p.name == words[1]]
            if by_both and (len(words) > 2 or words[1] not in BUILT_IN):
                return by_both, words[2:]
        named = [p for p in self.plan.programs if p.name == words[0]]
        owners = {self._owner(p.host) for p in named}
        if len(owners) > 1 and words[0] in owners:
            named = [p for p in named if self._owner(p.host) == words[0]]
        elif len(owners) > 1:
            full = " or ".join(f"{owner}.{metric}" for owner in sorted(owners))
            raise Unknown(f"`{words[0]}` is a program of {len(owners)} hosts", metric.at, f"write {full}")
        if named:
            return named, words[1:]
        if hosts is not None and of_hosts and len(of_hosts) == len(hosts):
            return of_hosts, words[1:]
        raise self._no_program(metric, hosts, of_hosts)

    def _owner(self, host: str) -> str:
        return self.group_of.get(host, host)

    def _no_program(self, metric: Dotted, hosts: tuple[str, ...] | None, of_hosts: list[Program]) -> Unknown:
        first, second = metric.words[0], metric.words[1]
        if hosts is None:
            known = list(dict.fromkeys([*self.hosts, *self.plan.groups, *(p.name for p in self.plan.programs)]))
            message = f"`{first}` is no program and no host"
            return Unknown(message, metric.at, did_you_mean(first, known) or f"there are {', '.join(known)}")
        at = metric.at + len(first) + 1
        if not of_hosts:
            return Unknown(f"`{first}` runs no program", metric.at, f"{first}.kernel.COUNTER is what it has")
        names = list(dict.fromkeys(p.name for p in of_hosts))
        close = did_you_mean(second, [*names, "kernel"])
        hint = f"{close + ' ' if close else ''}it runs {', '.join(names)}, and has {first}.kernel"
        return Unknown(f"`{second}` is no program of {first}, which runs several", at, hint)

    # -- links

    def _link(self, metric: OfLink) -> Target:
        sources, targets = self._end(metric.source, metric.at), self._end(metric.target, metric.at)
        if metric.network is not None and metric.network not in self.networks:
            known = sorted(self.networks)
            hint = did_you_mean(metric.network, known) or f"there are {', '.join(known)}"
            raise Unknown(f"there is no network `{metric.network}`", metric.at, hint)
        pairs = [(a, b) for a in sources for b in targets if a != b]
        if not pairs:
            raise Unknown(f"`{metric.source}->{metric.target}` leads from a host to itself", metric.at)
        members = [member for a, b in pairs for member in self._direction(metric, a, b)]
        if not members:
            raise Unknown(self._unlinked(metric, *pairs[0]), metric.at, self._paths(pairs[0]))
        name, aggregate = self._path(metric.path, str(metric), metric.at)
        if name not in LINK_METRICS:
            close = slips.called(name, LINK_METRICS) or did_you_mean(name, LINK_METRICS)
            hint = close or f"a link has {', '.join(LINK_METRICS)}"
            raise Unknown(f"`{name}` is no metric of a link", metric.at, hint)
        return Target("link", tuple(members), name, aggregate, self._several(members), str(metric), metric.at)

    def _end(self, name: str, at: int) -> tuple[str, ...]:
        hosts = self.members_of(name)
        if hosts is None:
            known = [*self.hosts, *self.plan.groups]
            hint = did_you_mean(name, known) or f"there are {', '.join(known)}"
            raise Unknown(f"there is no host `{name}`", at, hint)
        return hosts

    def _direction(self, metric: OfLink, a: str, b: str) -> list[Member]:
        links = [one for one in self.links.get((a, b), []) if metric.network in (None, one.network)]
        if len(links) > 1:
            shared = [one.network for one in links]
            raise Unknown(
                f"{a} and {b} share {len(shared)} networks",
                metric.at,
                "write " + " or ".join(f"{metric.source}->{metric.target} over {network}" for network in shared),
            )
        over = f" over {metric.network}" if metric.network else ""
        return [Member(f"{a}->{b}{over}", (a, b), link=one) for one in links]

    def _unlinked(self, metric: OfLink, a: str, b: str) -> str:
        shared = set(networks_of(self.hosts[a])) & set(networks_of(self.hosts[b]))
        if metric.network in shared or (metric.network is None and shared):
            return f"the link from {a} to {b} was not watched in this plan: what crossed it is not on record"
        if metric.network is not None:
            return f"no link leads from {metric.source} to {metric.target} over {metric.network}"
        return f"{metric.source} and {metric.target} share no network, so no link leads from {a} to {b}"

    def _paths(self, pair: tuple[str, str]) -> str:
        on = [f"{name} is on {', '.join(networks_of(self.hosts[name])) or 'none'}" for name in pair]
        return "; ".join(on)

    # -- paths

    def _path(self, path: tuple[str, ...], written: str, at: int) -> tuple[str, str | None]:
        """(metric, aggregate). A lone word is a metric, even if it is called `count`."""
        if len(path) == 1:
            return path[0], None
        if len(path) == 2 and path[1] in AGGREGATES:
            return path[0], path[1]
        close = slips.called(path[-1], AGGREGATES) or did_you_mean(path[-1], AGGREGATES)
        hint = close or f"aggregates are {' '.join(AGGREGATES)}"
        raise Unknown(f"`{path[-1]}` in `{written}` is no aggregate", at, hint)

    def _several(self, members: Iterable[Member]) -> frozenset[str]:
        """The hosts by which members differ, and those of groups: they tell which member belongs to which."""
        sets = [set(member.hosts) for member in members]
        common = set.intersection(*sets) if len(sets) > 1 else set()
        everyone = set().union(*sets)
        return frozenset(host for host in everyone if host not in common or host in self.group_of)


def networks_of(host: Host) -> list[str]:
    return [interface.network for interface in host.interfaces]


def matching(left: Member, left_several: frozenset[str], right: Target) -> Member:
    """The member on the right that belongs to one on the left. Raises Unknown if that is not exactly one."""
    if len(right.members) == 1:
        return right.members[0]
    own = set(left.hosts)
    candidates = [m for m in right.members if m.hosts == left.hosts]
    if len(candidates) != 1:
        candidates = [m for m in right.members if set(m.hosts) == own]
    if len(candidates) != 1:
        tell = own & left_several or own
        candidates = [m for m in right.members if set(m.hosts) & tell]
    if len(candidates) == 1:
        return candidates[0]
    raise Unknown(
        f"`{right.written}` is {len(right.members)} metrics"
        + (f", {len(candidates)} of them of {left.label}" if candidates else f", none of them of {left.label}"),
        right.at,
        f"write `sum of {right.written}`",
    )


def exits_named(names: Names, expectations: Iterable[Parsed]) -> frozenset[str]:
    """The programs whose `.exit` an expectation names: what is implied of them is switched off."""
    named: set[str] = set()
    for parsed in expectations:
        for reading in parsed.readings():
            try:
                target = names.resolve(reading.metric)
            except Unknown:
                continue
            if target.kind == "program" and target.metric == "exit":
                named |= {member.program.id for member in target.members if member.program}
    return frozenset(named)
