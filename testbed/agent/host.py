"""What the agent knows of a host: who it is, how to get in, and what its baseline has to be. Plain data."""

from __future__ import annotations

import os
import select
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from testbed.agent import namespaces
from testbed.errors import EngineError


@dataclass(frozen=True)
class Nic:
    name: str
    network: str
    ip: str
    prefix_bits: int
    mac: str
    ip6: str | None = None  # on a dual network
    prefix6_bits: int | None = None


@dataclass(frozen=True)
class Route:
    to: str
    dev: str
    src: str | None = None


@dataclass(frozen=True)
class Neighbour:
    ip: str
    mac: str
    dev: str


@dataclass
class Host:
    name: str
    pid: int  # of its holder
    nics: tuple[Nic, ...]
    routes: tuple[Route, ...]
    neighbours: tuple[Neighbour, ...]
    sysctls: dict[str, str]
    congestion: str = "machine"  # TCP's algorithm
    holder: int = -1  # a descriptor of that process, which cannot come to mean another one
    netns: int = -1  # a descriptor
    pid_ns: tuple[int, int] = (0, 0)
    mtus: dict[str, int] = field(default_factory=dict)  # by interface, as read back

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Host:
        """Raises KeyError or TypeError for what is not a host of the `hosts` request."""
        return cls(
            name=data["name"],
            pid=data["pid"],
            nics=tuple(Nic(**nic) for nic in data["interfaces"]),
            routes=tuple(Route(**route) for route in data["routes"]),
            neighbours=tuple(Neighbour(**neighbour) for neighbour in data["neighbours"]),
            sysctls=dict(data["sysctls"]),
            congestion=data["congestion"],
        )

    def open(self) -> None:
        """Hold its network namespace open. Raises EngineError if its holder is gone or closed to us."""
        try:
            self.holder = os.pidfd_open(self.pid)
            self.netns = namespaces.open_network(self.pid)
            self.pid_ns = namespaces.identity(self.pid, "pid")
        except OSError as problem:
            self.close()
            raise EngineError(
                f"entering {self.name} (process {self.pid}): {problem}. Its holder has ended, or this agent may "
                "not look into it"
            ) from problem

    def close(self) -> None:
        for descriptor in (self.holder, self.netns):
            if descriptor >= 0:
                os.close(descriptor)
        self.holder = self.netns = -1

    @property
    def gone(self) -> str:
        """Why nothing can run in it any more; "" while the process that holds it lives."""
        if self.holder < 0 or not ended([self]):
            return ""
        return (
            f"host {self.name} has gone: the process that held it open ({self.pid}) has ended, and all of its "
            "programs with it; look for who stopped it, or whether this machine ran out of memory"
        )

    @property
    def dual(self) -> bool:
        return any(nic.ip6 for nic in self.nics)

    def nic_of(self, network: str) -> Nic | None:
        return next((nic for nic in self.nics if nic.network == network), None)


def ended(hosts: Iterable[Host]) -> bool:
    """Whether the process that holds one of these has ended. One look at all of them: there may be a thousand."""
    poll = select.poll()  # select(2) knows no descriptor beyond 1,023
    for host in hosts:
        poll.register(host.holder, select.POLLIN)
    return bool(poll.poll(0))
