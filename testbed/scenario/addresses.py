"""Subnets for networks and addresses for hosts. Pure in the scenario and in what is taken."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from testbed.errors import counted
from testbed.scenario.source import Report
from testbed.scenario.topology import Topology

POOL = IPv4Network("198.18.0.0/15")  # for benchmarks between networks: RFC 2544, appendix C.2.2
USUAL_PREFIX = 24
POOL6 = IPv6Network("2001:2::/48")  # for the same: RFC 5180, section 8, with erratum 1752
PREFIX6 = 64


@dataclass(frozen=True)
class Addresses:
    subnets: dict[str, IPv4Network]
    of: dict[tuple[str, str], IPv4Address]  # (host, network)
    subnets6: dict[str, IPv6Network]  # of the dual networks

    def gateway(self, network: str) -> IPv4Address:
        """The first address. No host has it."""
        return self.subnets[network].network_address + 1

    def gateway6(self, network: str) -> IPv6Address | None:
        """The first address of a dual network."""
        return self.subnets6[network].network_address + 1 if network in self.subnets6 else None

    def of6(self, host: str, network: str) -> IPv6Address | None:
        """The same place in the subnet as the host's IPv4 address has in its own; None: it has none."""
        if network not in self.subnets6 or (host, network) not in self.of:
            return None
        place = int(self.of[host, network]) - int(self.subnets[network].network_address)
        return self.subnets6[network].network_address + place

    def seen_from(self, there: Topology, viewer: str | None, host: str) -> IPv4Address | None:
        """Its address on the first network shared with `viewer`, else its first one; None: it has none."""
        shared = there.shared(viewer, host) if viewer else ()
        networks = shared or there.hosts[host].networks
        return self.of.get((host, networks[0])) if networks else None

    def seen6_from(self, there: Topology, viewer: str, host: str) -> IPv6Address | None:
        """The same of IPv6: on the first shared network that is dual, else on the host's first dual one."""
        networks = (*there.shared(viewer, host), *there.hosts[host].networks)
        return next((ip for network in networks if (ip := self.of6(host, network)) is not None), None)


def allocate(there: Topology, taken: Iterable[str], report: Report) -> Addresses:
    """Explicit subnets as they are, for the others the next free ones of the pool, a /24 or what the hosts need.

    Dual networks get the next free /64 of the IPv6 pool, too. `taken` holds subnets of both versions in CIDR form.
    Problems are reported at the network or address that has them, or at the scenario (None) when a pool has no
    room.
    """
    used, used6 = _by_version(taken)
    subnets: dict[str, IPv4Network] = {}
    for name, network in there.networks.items():
        if network.subnet is None:
            continue
        subnet = IPv4Network(network.subnet)
        for other, one in subnets.items():
            if subnet.overlaps(one):
                report(network.subnet, f"{subnet} of {name} overlaps {one} of {other}", "")
        if any(subnet.overlaps(one) for one in used):
            report(
                network.subnet, f"{subnet} of {name} is in use on this machine", "leave `subnet` out or change it"
            )
        if _room(subnet) < len(there.on[name]):
            hosts = len(there.on[name])
            report(
                network.subnet,
                f"{subnet} has room for {counted(_room(subnet), 'host')}, and {name} has {hosts}",
                "",
            )
        subnets[name] = subnet
    blocked = [*used, *subnets.values()]
    start = int(POOL.network_address)
    for name in there.networks:
        if name in subnets:
            continue
        prefix = _prefix(len(there.on[name]))
        found = _next_free(start, prefix, blocked)
        if found is None:
            report(None, f"no room in {POOL} for the network {name}", "fewer networks, or a `subnet` of their own")
            continue
        subnets[name] = found
        start = int(found.broadcast_address) + 1
    in_order = {name: subnets[name] for name in there.networks if name in subnets}
    return Addresses(in_order, _hosts(there, in_order, report), _subnets6(there, used6, report))


def _by_version(subnets: Iterable[str]) -> tuple[list[IPv4Network], list[IPv6Network]]:
    networks = [ipaddress.ip_network(text, strict=False) for text in sorted(subnets)]
    return (
        [network for network in networks if isinstance(network, IPv4Network)],
        [network for network in networks if isinstance(network, IPv6Network)],
    )


def _subnets6(there: Topology, used: list[IPv6Network], report: Report) -> dict[str, IPv6Network]:
    """A /64 for each dual network, in file order."""
    made: dict[str, IPv6Network] = {}
    free = (subnet for subnet in POOL6.subnets(new_prefix=PREFIX6) if not any(map(subnet.overlaps, used)))
    for name, network in there.networks.items():
        if network.dual:
            found = next(free, None)
            if found is None:
                report(None, f"no room in {POOL6} for the network {name}", "fewer networks with `ip: dual`")
                break
            made[name] = found
    return made


def _room(subnet: IPv4Network) -> int:
    """Without the network's own address, the broadcast address and the gateway."""
    return subnet.num_addresses - 3


def _prefix(hosts: int) -> int:
    return min(USUAL_PREFIX, 32 - (hosts + 2).bit_length())


def _next_free(start: int, prefix: int, blocked: list[IPv4Network]) -> IPv4Network | None:
    """The first aligned block at or after `start` that overlaps nothing. Jumps over what is in the way."""
    size = 1 << (32 - prefix)
    at = -(-start // size) * size
    while at + size - 1 <= int(POOL.broadcast_address):
        block = IPv4Network((at, prefix))
        ends = [int(one.broadcast_address) for one in blocked if one.overlaps(block)]
        if not ends:
            return block
        at = -(-(max(ends) + 1) // size) * size
    return None


def _hosts(there: Topology, subnets: dict[str, IPv4Network], report: Report) -> dict[tuple[str, str], IPv4Address]:
    """Addresses that the file sets first, then the others from .2 upwards in file order."""
    made: dict[tuple[str, str], IPv4Address] = {}
    for network, subnet in subnets.items():
        given = _given(there, network, subnet, report)
        used = set(given.values())
        free = (address for n in range(2, subnet.num_addresses - 1) if (address := subnet[n]) not in used)
        for host in there.on[network]:
            found = given.get(host) or next(free, None)
            if found is not None:
                made[host, network] = found
    return made


def _given(there: Topology, network: str, subnet: IPv4Network, report: Report) -> dict[str, IPv4Address]:
    made: dict[str, IPv4Address] = {}
    owners: dict[IPv4Address, str] = {}
    for host in there.on[network]:
        member = there.hosts[host]
        attachment = member.written.networks.get(network)
        if attachment is None or attachment.address is None:
            continue
        at, address = attachment.address, IPv4Address(attachment.address)
        if there.networks[network].subnet is None:
            report(
                at, f"{address}: {network} has no `subnet` of its own", f"networks: {{{network}: {{subnet: ...}}}}"
            )
        elif address not in subnet or address in (subnet.network_address, subnet.broadcast_address, subnet[1]):
            hint = f"from {subnet[2]} to {subnet[-2]}; {subnet[1]} is the gateway's"
            report(at, f"{address} is no host's address in {subnet}", hint)
        elif member.group is not None:
            report(at, f"{address} would be that of every {member.group}", "a group gets its addresses by itself")
        elif address in owners:
            report(at, f"{address} is that of {owners[address]} already", "")
        else:
            owners[address] = host
            made[host] = address
    return made
