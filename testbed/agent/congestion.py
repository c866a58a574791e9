"""TCP's congestion control in a host: the inherited one where that is right, else the sysctl, else its routes.

A new network namespace begins with the one of the machine's first (net/ipv4/tcp_ipv4.c, tcp_sk_init). Another one
can be set there only if the machine has it among `tcp_allowed_congestion_control`; else it is EPERM, for root as
well (net/ipv4/tcp_cong.c, tcp_set_default_congestion_control). The `congctl` of a route knows no such limit: a
socket takes it when it connects, or is accepted, by that route (tcp_ca_dst_init, tcp_ca_openreq_child). So it also
takes the place of what a program chose by TCP_CONGESTION before that; what one chooses afterwards holds.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from testbed.agent import counters, kernel, namespaces
from testbed.agent.host import Host
from testbed.agent.proof import Problem
from testbed.errors import CapabilityError, ConditionError

MACHINE = "machine"  # leave alone what was inherited
INHERITED, SYSCTL, ROUTES = "inherited", "sysctl", "routes"  # how it is in force
_SYSCTLS = Path("/proc/sys/net/ipv4")
_REFUSED = (errno.EPERM, errno.EACCES, errno.EROFS)


def settle(host: Host, now: kernel.Kernel) -> dict[str, str]:
    """Bring the host's algorithm into force, its addresses and routes being there, and read it back.

    Returns {asked, inherited, in_force, by}. Raises CapabilityError if this kernel lacks it, ConditionError if it
    is not in force afterwards.
    """
    asked = host.congestion
    with namespaces.inside(host.netns):
        inherited = _read("tcp_congestion_control")
        refused = "" if asked in (inherited, MACHINE) else _write(host.name, asked)
        found = _read("tcp_congestion_control")
    by = INHERITED if found == inherited else SYSCTL
    if refused:
        now.choose_congestion(asked)
        by, found = ROUTES, asked
    wrong = differences(asked, found, by, now.tcp_routes())
    if wrong:
        raise ConditionError(f"{host.name}: TCP was to use {asked}: " + "; ".join(wrong))
    return {"asked": asked, "inherited": inherited, "in_force": found, "by": by}


def differences(asked: str, found: str, by: str, routes: Iterable[Mapping[str, Any]]) -> list[str]:
    """What is not as asked, of the sysctl as it was found, or of every route that a connection may take."""
    if asked not in (found, MACHINE):
        return [f"net.ipv4.tcp_congestion_control is {found}"]
    wanted = asked if by == ROUTES else None
    said = [(route, route.get("metrics", [{}])[0].get("congestion")) for route in routes]
    return [
        f"the route to {route['dst']} dev {route.get('dev')} says {has or 'nothing'}"
        for route, has in said
        if has != wanted
    ]


def problems(settled: Mapping[str, Mapping[str, str]], hosts: Mapping[str, Host]) -> list[Problem]:
    """Hosts in which TCP may have used another one than asked, because programs changed routes that say it.

    `settled` has the answers of `settle`. Only a host that had a connection is looked at. Raises EngineError.
    """
    found: list[Problem] = []
    for name in (name for name, said in settled.items() if said["by"] == ROUTES and not hosts[name].gone):
        seen = counters.read(hosts[name])
        if not any(seen.get(f"Tcp{kind}Opens", 0) for kind in ("Active", "Passive")):
            continue
        asked = settled[name]["asked"]
        with kernel.of(hosts[name].netns, f"reading back the routes of {name}") as now:
            wrong = differences(asked, asked, ROUTES, now.tcp_routes())
        if wrong:
            inherited = settled[name]["inherited"]
            text = (
                f"TCP was to use {asked} in {name}, which its routes say here, and one that a program made does "
                f"not: {'; '.join(wrong)}. There it is {inherited}: write `ip route add … congctl {asked}`, or "
                "`congestion: machine` for the host"
            )
            found.append(("error", name, text))
    return found


def _write(host: str, algorithm: str) -> str:
    """Set the sysctl. Returns why that is refused, or "". Raises CapabilityError for what the kernel lacks."""
    refused = ""
    try:
        (_SYSCTLS / "tcp_congestion_control").write_text(
            algorithm
        )  # loads its module, if root of the machine asks
    except OSError as problem:
        if problem.errno not in (*_REFUSED, errno.ENOENT):
            raise ConditionError(
                f"{host}: setting TCP's congestion control to {algorithm}: {problem}"
            ) from problem
        refused = str(problem)
    available = _read("tcp_available_congestion_control").split()
    if algorithm not in available:
        raise CapabilityError(
            f"host {host} has `congestion: {algorithm}`, and this kernel has only {', '.join(available)}; try "
            f"`modprobe tcp_{algorithm}` as root, or `congestion: {available[0]}`"
        )
    return refused


def _read(name: str) -> str:
    return (_SYSCTLS / name).read_text().strip()
