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
GROUP_ROUTES = ("224.0.0.0/4", "255.255.255.255/32")  # multicast and limited broadcast, on the first interface


def networks(there: Topology, addresses: Addresses) -> tuple[Network, ...]:
    return tuple(
        Network(name, str(addresses.subnets[name]), str(addresses.gateway(name))) for name in there.networks
    )


def hosts(there: Topology, addresses: Addresses) -> tuple[Host, ...]:
    interfaces = {name: _interfaces(member, addresses) for name, member in there.hosts.items()}
    return tuple(_host(there, member, interfaces) for member in there.hosts.values())


def _interfaces(member: Member, addresses: Addresses) -> tuple[Interface, ...]:
    made = []
    for number, network in enumerate(member.networks):
        ip = addresses.of[member.name, network]
        mac = ":".join(f"{byte:02x}" for byte in b"\x02\x42" + ip.packed)
        made.append(Interface(f"eth{number}", network, str(ip), addresses.subnets[network].prefixlen, mac))
    return tuple(made)


def _host(there: Topology, member: Member, interfaces: dict[str, tuple[Interface, ...]]) -> Host:
    written = member.written
    foreign = written.image is not None or written.build is not None
    given = [*(FOREIGN_CAPABILITIES if foreign else ()), *written.cap_add]
    own = interfaces[member.name]
    return Host(
        name=member.name,
        group=member.group,
        index=member.index,
        image=None if written.image is None else str(written.image),
        build=None if written.build is None else str(written.build),
        interfaces=own,
        names=_names(member, there, interfaces),
        routes=_routes(own),
        neighbours=_neighbours(member, there, interfaces),
        sysctls={**SYSCTLS, **{str(name): str(value) for name, value in written.sysctls.items()}},
        capabilities=tuple(dict.fromkeys(str(one) for one in given if one not in written.cap_drop)),
        volumes=tuple((str(volume), str(path)) for volume, path in written.volumes),
        programs=tuple(program_id for program_id, _ in member.programs()),
    )


def _names(
    member: Member, there: Topology, interfaces: dict[str, tuple[Interface, ...]]
) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """/etc/hosts: a name is the address on the first shared network, or where none is shared the first address.

    So that isolation is seen as a packet that does not arrive, and not as a name that is not known.
    """
    lines: list[tuple[str, tuple[str, ...]]] = [("127.0.0.1", ("localhost",))]
    mine = [interface.network for interface in interfaces[member.name]]
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


def _neighbours(
    member: Member, there: Topology, interfaces: dict[str, tuple[Interface, ...]]
) -> tuple[Neighbour, ...]:
    made = []
    for own in interfaces[member.name]:
        for other in there.on[own.network]:
            if other != member.name:
                theirs = next(one for one in interfaces[other] if one.network == own.network)
                made.append(Neighbour(theirs.ip, theirs.mac, own.name))
    return tuple(made)
