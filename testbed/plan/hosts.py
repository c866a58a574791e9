"""What every host is given: interfaces, routes, names, neighbours, kernel settings, capabilities."""

from __future__ import annotations

import posixpath
from ipaddress import IPv4Interface, IPv6Interface
from itertools import chain

from testbed.plan.types import CONGESTION, Host, Interface, Mount, Neighbour, Network, Route
from testbed.scenario.addresses import Addresses
from testbed.scenario.model import CONGESTION_SYSCTL
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
# Of `all` and of every interface: what a new network namespace has from the machine's first one, and what decides
# which packets a host takes (devinet_init_net in net/ipv4/devinet.c). Here as in a kernel that nobody has set up.
INTERFACE = {
    "rp_filter": "0",  # else what comes in by one interface and is answered by another is dropped in silence
    "accept_local": "0",
    "route_localnet": "0",
    "arp_filter": "0",
    "arp_ignore": "0",
    "drop_unicast_in_l2_multicast": "0",
}
# Of a host on a dual network, in this order: `all` changes the others. What appears later, such as the way to the
# wire, has no IPv6.
SYSCTLS6 = {
    "net.ipv6.conf.all.disable_ipv6": "0",
    "net.ipv6.conf.default.disable_ipv6": "1",
    "net.ipv6.conf.all.forwarding": "0",
    "net.ipv6.conf.all.accept_dad": "0",  # the interface's own is not enough: the larger of the two counts
}
DUAL_INTERFACE = {
    "disable_ipv6": "0",
    "accept_ra": "0",  # nor does such a host solicit routers
    "autoconf": "0",
    "accept_dad": "0",  # an address that is being checked cannot be bound for a second
    "addr_gen_mode": "1",  # none: the agent sets the link-local address, so that it is the same on every engine
}
# What Docker gives a container by default (moby: oci/caps/defaults.go), without NET_RAW.
FOREIGN_CAPABILITIES = (
    "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL "
    "AUDIT_WRITE"
).split()
Names = tuple[tuple[str, tuple[str, ...]], ...]  # /etc/hosts: (address, names)
GROUP_ROUTES = ("224.0.0.0/4", "255.255.255.255/32")  # multicast and limited broadcast, on the first interface
GROUP_ROUTE6 = "ff00::/8"  # on the first interface of a dual network
LINK_LOCAL = "fe80::/64"


def forwards(host: Host) -> bool:
    """Whether its kernel passes on what comes for others."""
    return any(
        value != "0" and name.replace("/", ".").rpartition(".")[2] in ("ip_forward", "forwarding", "mc_forwarding")
        for name, value in host.sysctls.items()
    )


def networks(there: Topology, addresses: Addresses) -> tuple[Network, ...]:
    return tuple(
        Network(
            name,
            str(addresses.subnets[name]),
            str(addresses.gateway(name)),
            _text(addresses.subnets6.get(name)),
            _text(addresses.gateway6(name)),
        )
        for name in there.networks
    )


def _text(address: object) -> str | None:
    return None if address is None else str(address)


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
        prefix_bits = addresses.subnets[network].prefixlen
        ip6 = addresses.of6(member.name, network)
        prefix6_bits = None if ip6 is None else addresses.subnets6[network].prefixlen
        made.append(Interface(f"eth{number}", network, str(ip), prefix_bits, mac, _text(ip6), prefix6_bits))
    return tuple(made)


def _host(member: Member, own: tuple[Interface, ...], names: Names, neighbours: tuple[Neighbour, ...]) -> Host:
    written = member.written
    foreign = written.image is not None or written.build is not None
    given = [*(FOREIGN_CAPABILITIES if foreign else ()), *written.cap_add]
    asked = {str(name): str(value) for name, value in written.sysctls.items()}
    congestion = asked.pop(CONGESTION_SYSCTL, CONGESTION)  # the agent has more ways than the sysctl
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
        sysctls=sysctls(own) | asked,
        capabilities=tuple(dict.fromkeys(str(one) for one in given if one not in written.cap_drop)),
        volumes=tuple((str(one.source), str(one.path)) for one in written.volumes if not one.directory),
        mounts=tuple(
            Mount(posixpath.normpath(one.source), posixpath.normpath(one.path))
            for one in written.volumes
            if one.directory
        ),
        programs=tuple(program_id for program_id, _ in member.programs()),
        congestion=str(written.congestion or congestion).strip(),
    )


def sysctls(interfaces: tuple[Interface, ...]) -> dict[str, str]:
    """What our own host has. IPv6 is off but on interfaces of dual networks."""
    made = dict(SYSCTLS)
    for place in ("all", *(interface.name for interface in interfaces)):
        made |= {f"net.ipv4.conf.{place}.{name}": value for name, value in INTERFACE.items()}
    if not any(interface.ip6 for interface in interfaces):
        return made
    made |= SYSCTLS6
    for interface in interfaces:
        own = DUAL_INTERFACE if interface.ip6 else {"disable_ipv6": "1"}
        made |= {f"net.ipv6.conf.{interface.name}.{name}": value for name, value in own.items()}
    return made


def _names(mine: tuple[str, ...], there: Topology, interfaces: dict[str, tuple[Interface, ...]]) -> Names:
    """/etc/hosts of the hosts on the networks `mine`.

    A name is the address on the first shared network, or where none is shared the first address: so that isolation
    is seen as a packet that does not arrive, and not as a name that is not known. The same goes for IPv6, which
    comes after IPv4; a host without it has none of it in its file.
    """
    six = any(there.networks[network].dual for network in mine)
    lines: list[tuple[str, tuple[str, ...]]] = [("127.0.0.1", ("localhost",))]
    lines += [("::1", ("localhost",))] if six else []
    for other in there.hosts:
        theirs = interfaces[other]
        on = {interface.network: interface for interface in theirs}
        main = next((on[network] for network in mine if network in on), theirs[0] if theirs else None)
        for interface in theirs:
            full = f"{other}.{interface.network}"
            lines.append((interface.ip, (other, full) if interface is main else (full,)))
        theirs6 = [interface for interface in theirs if six and interface.ip6]
        main6 = next((on[network] for network in mine if network in on and on[network].ip6), None)
        main6 = main6 or next(iter(theirs6), None)
        for interface in theirs6:
            full = f"{other}.{interface.network}"
            lines.append((interface.ip6 or "", (other, full) if interface is main6 else (full,)))
    return tuple(lines)


def _routes(interfaces: tuple[Interface, ...]) -> tuple[Route, ...]:
    """The whole table. No default route: what is not connected is unreachable."""
    made = []
    for interface in interfaces:
        subnet = IPv4Interface(f"{interface.ip}/{interface.prefix_bits}").network
        made.append(Route(str(subnet), interface.name, interface.ip))
    if interfaces:
        made += [Route(to, interfaces[0].name) for to in GROUP_ROUTES]
    dual = [interface for interface in interfaces if interface.ip6]
    for interface in dual:
        subnet6 = IPv6Interface(f"{interface.ip6}/{interface.prefix6_bits}").network
        made += [Route(str(subnet6), interface.name), Route(LINK_LOCAL, interface.name)]
    if dual:
        made.append(Route(GROUP_ROUTE6, dual[0].name))
    return tuple(made)


class _Neighbours:
    """Permanent entries for every other host on the same network. What hosts have in common is made once."""

    def __init__(self, there: Topology, interfaces: dict[str, tuple[Interface, ...]]) -> None:
        self._interfaces = interfaces
        self._on: dict[str, list[Interface]] = {network: [] for network in there.on}
        self._place: dict[tuple[str, str], int] = {}
        self._everyone: dict[tuple[str, str], tuple[tuple[Neighbour, ...], ...]] = {}
        for host, own in interfaces.items():
            for interface in own:
                self._place[host, interface.network] = len(self._on[interface.network])
                self._on[interface.network].append(interface)

    def of(self, host: str) -> tuple[Neighbour, ...]:
        made: list[Neighbour] = []
        for interface in self._interfaces[host]:
            everyone = self._all(interface.network, interface.name)
            here = self._place[host, interface.network]
            made += chain.from_iterable(everyone[:here] + everyone[here + 1 :])
        return tuple(made)

    def _all(self, network: str, dev: str) -> tuple[tuple[Neighbour, ...], ...]:
        """By host on that network, in the order of `_place`."""
        if (network, dev) not in self._everyone:
            self._everyone[network, dev] = tuple(
                tuple(Neighbour(ip, one.mac, dev) for ip in (one.ip, one.ip6) if ip) for one in self._on[network]
            )
        return self._everyone[network, dev]
