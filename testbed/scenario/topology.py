"""Who is there: every single host, the groups, and which networks they are on. No addresses yet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from testbed.scenario.model import Host, Network, Program, Scenario


@dataclass(frozen=True)
class Member:
    """One host as it will exist; `written` is what the file says of it or of its group."""

    name: str
    group: str | None
    index: int
    written: Host
    networks: tuple[str, ...]

    def programs(self) -> Iterator[tuple[str, Program]]:
        """(id, program) of each, in file order."""
        for name, program in self.written.programs.items():
            yield f"{self.name}.{name}", program


@dataclass(frozen=True)
class Topology:
    hosts: dict[str, Member]
    groups: dict[str, tuple[str, ...]]
    networks: dict[str, Network]
    on: dict[str, tuple[str, ...]]  # network -> its hosts, in file order

    def members(self, name: str) -> tuple[str, ...] | None:
        """The hosts that a name stands for: a host, a group or `all`. None: there is no such name."""
        if name == "all":
            return tuple(self.hosts)
        if name in self.groups:
            return self.groups[name]
        return (name,) if name in self.hosts else None

    def shared(self, a: str, b: str) -> tuple[str, ...]:
        """The networks that both are on, in the order of `a`."""
        theirs = set(self.hosts[b].networks)
        return tuple(network for network in self.hosts[a].networks if network in theirs)

    def names(self) -> list[str]:
        return [*self.hosts, *self.groups]


def topology(scenario: Scenario) -> Topology:
    """Groups into members, hosts onto networks. Names that do not exist are left out: `semantics` reports them."""
    networks = {str(name): network for name, network in scenario.networks.items()}
    networks = networks or {"lan": Network.model_construct()}
    hosts: dict[str, Member] = {}
    groups: dict[str, tuple[str, ...]] = {}
    on: dict[str, list[str]] = {name: [] for name in networks}
    for name, written in ((str(name), _with_its_program(name, host)) for name, host in scenario.hosts.items()):
        mine = tuple(str(network) for network in written.networks if network in networks)
        if not written.networks and len(networks) == 1:
            mine = tuple(networks)
        names = [name] if written.count is None else [f"{name}-{i}" for i in range(1, written.count + 1)]
        if written.count is not None:
            groups[name] = tuple(names)
        for index, host in enumerate(names, 1):
            hosts[host] = Member(host, name if written.count is not None else None, index, written, mine)
            for network in mine:
                on[network].append(host)
    return Topology(hosts, groups, networks, {name: tuple(members) for name, members in on.items()})


def _with_its_program(name: str, host: Host) -> Host:
    """What an image serves by itself is a program called like the host, as if written there."""
    if (host.image is None and host.build is None) or host.programs or host.wrote("programs"):
        return host
    return host.model_copy(update={"programs": {name: Program.the_images_own(host.mark)}})
