"""What every host is given: interfaces, routes, names, neighbours, kernel settings, capabilities."""

from __future__ import annotations

from ipaddress import IPv4Interface

from testbed.plan.types import Host, Interface, Neighbour, Network, Route
from testbed.scenario.addresses import Addresses
from testbed.scenario.topology import Member, Topology

# The same on every engine, whatever the machine's own settings are: a new network namespace inherits some of them.
SYSCTLS = {
    "net.ipv4.ip_forward": "0",  # first: changing it resets others. A host on two networks is no router
    "net.ipv4.ip_unprivileged_port_start": "1024",
    "net.ipv4.ping_group_range": "1 0",  # nobody
    "net.ipv4.ip_local_port_range": "32768 60999",
    "net.ipv4.tcp_no_metrics_save": "1",  # or one connection's losses would shape the next one
    "net.ipv4.tcp_rmem": "4096 131072 6291456",
    "net.ipv4.tcp_wmem": "4096 16384 4194304",
    "net.ipv6.conf.all.disable_ipv6": "1",
    "net.ipv6.conf.default.disable_ipv6": "1",
}
# What Docker gives a container by default (moby: oci/caps/defaults.go), without NET_RAW.
FOREIGN_CAPABILITIES = (
    "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL "
    "AUDIT_WRITE"
).split()
Names = tuple[tuple[str, tuple[str, ...]], ...]  # /etc/hosts: (address, names)
GROUP_ROUTES = ("224.0.0.0/4", "255.255.255.255/32")  # multicast and limited broadcast, on the first interface


def networks(there: Topology, addresses: Addresses) -> tuple[Network, ...]:
    return tuple(
        Network(name, str(addresses.subnets[name]), str(addresses.gateway(name))) for name in there.networks
    )


def hosts(there: Topology, addresses: Addresses) -> tuple[Host, ...]:
    interfaces = {name: _interfaces(member, addresses) for name, member in there.hosts.items()}
    alike = dict.fromkeys(member.networks for member in there.hosts.values())
    names = {networks: _names(networks, there, interfaces) for networks in alike}
    neighbours = _Neighbours(there, interfaces)
    return tuple(
        _host(member, interfaces[member.name], names[member.networks], neighbours.of(member.name))
        for member in there.hosts.values()
    )


def _interfaces(member: Member, addresses: Addresses) -> tuple[Interface, ...]:
    made = []
    for number, network in enumerate(member.networks):
        ip = addresses.of[member.name, network]
        mac = ":".join(f"{byte:02x}" for byte in b"\x02\x42" + ip.packed)
        made.append(Interface(f"eth{number}", network, str(ip), addresses.subnets[network].prefixlen, mac))
    return tuple(made)


def _host(member: Member, own: tuple[Interface, ...], names: Names, neighbours: tuple[Neighbour, ...]) -> Host:
    written = member.written
    foreign = written.image is not None or written.build is not None
    given = [*(FOREIGN_CAPABILITIES if foreign else ()), *written.cap_add]
    return Host(
        name=member.name,
        group=member.group,
        index=member.index,
        image=None if written.image is None else str(written.image),
        build=None if written.build is None else str(written.build),
        interfaces=own,
        names=names,
        routes=_routes(own),
        neighbours=neighbours,
        sysctls={**SYSCTLS, **{str(name): str(value) for name, value in written.sysctls.items()}},
        capabilities=tuple(dict.fromkeys(str(one) for one in given if one not in written.cap_drop)),
        volumes=tuple((str(volume), str(path)) for volume, path in written.volumes),
        programs=tuple(program_id for program_id, _ in member.programs()),
    )


def _names(mine: tuple[str, ...], there: Topology, interfaces: dict[str, tuple[Interface, ...]]) -> Names:
    """/etc/hosts of the hosts on the networks `mine`.

    A name is the address on the first shared network, or where none is shared the first address: so that isolation
    is seen as a packet that does not arrive, and not as a name that is not known.
    """
    lines: list[tuple[str, tuple[str, ...]]] = [("127.0.0.1", ("localhost",))]
    for other in there.hosts:
        theirs = interfaces[other]
        on = {interface.network: interface for interface in theirs}
        main = next((on[network] for network in mine if network in on), theirs[0] if theirs else None)
        for interface in theirs:
            full = f"{other}.{interface.network}"
            lines.append((interface.ip, (other, full) if interface is main else (full,)))
    return tuple(lines)


def _routes(interfaces: tuple[Interface, ...]) -> tuple[Route, ...]:
    """The whole table. No default route: what is not connected is unreachable."""
    made = []
    for interface in interfaces:
        subnet = IPv4Interface(f"{interface.ip}/{interface.prefix_bits}").network
        made.append(Route(str(subnet), interface.name, interface.ip))
    if interfaces:
        made += [Route(to, interfaces[0].name) for to in GROUP_ROUTES]
    return tuple(made)


class _Neighbours:
    """Permanent entries for every other host on the same network. What hosts have in common is made once."""

    def __init__(self, there: Topology, interfaces: dict[str, tuple[Interface, ...]]) -> None:
        self._interfaces = interfaces
        self._on: dict[str, list[Interface]] = {network: [] for network in there.on}
        self._place: dict[tuple[str, str], int] = {}
        self._everyone: dict[tuple[str, str], tuple[Neighbour, ...]] = {}
        for host, own in interfaces.items():
            for interface in own:
                self._place[host, interface.network] = len(self._on[interface.network])
                self._on[interface.network].append(interface)

    def of(self, host: str) -> tuple[Neighbour, ...]:
        made: tuple[Neighbour, ...] = ()
        for interface in self._interfaces[host]:
            everyone = self._all(interface.network, interface.name)
            here = self._place[host, interface.network]
            made += everyone[:here] + everyone[here + 1 :]
        return made

    def _all(self, network: str, dev: str) -> tuple[Neighbour, ...]:
        if (network, dev) not in self._everyone:
            self._everyone[network, dev] = tuple(Neighbour(one.ip, one.mac, dev) for one in self._on[network])
        return self._everyone[network, dev]
