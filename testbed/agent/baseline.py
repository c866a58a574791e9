"""The baseline of a host: interfaces, routes, neighbours and sysctls set as the plan has them, and read back.

Of links, addresses and routes only what differs is written. What `ip` is told (`*_commands`), what is added
(`additions`) and what is wrong (`differences`) are pure functions of what was read.

IPv6 is wholly the agent's, because a kernel gives itself addresses and speaks up unasked: the sysctls come first
and make it quiet, then each interface of a dual network gets its address and the link-local one of its MAC, both
valid at once.
"""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from testbed.agent import congestion, kernel, namespaces
from testbed.agent.host import Host, Nic
from testbed.errors import CapabilityError, ConditionError

_GROUPS6, _GROUPS6_METRIC = "ff00::/8", 1  # the kernel's own routes have 256
_OWN_ROUTES_S = 20.0
_PING_RANGE = "net.ipv4.ping_group_range"


def apply(host: Host) -> dict[str, Any]:
    """Make the host's baseline the plan's. Returns what was read back; fills `host.mtus`.

    Raises ConditionError for what is still not as asked, CommandError for what the kernel refused.
    """
    doing = f"setting up {host.name}"
    with kernel.of(host.netns, doing) as now:
        seen = _read(now, host)
        links = link_commands(host, seen)
        namespaces.batch("ip", links, host.netns, doing)
        sysctls = _write_sysctls(host)
        if host.dual:
            namespaces.batch("ip", address_commands(host, _read(now, host)), host.netns, doing)
            await_own_routes(host, lambda: now.routes(socket.AF_INET6, kernel.LOCAL))
        if links or host.dual:
            seen = _read(now, host)
        namespaces.batch("ip", removals(host, seen), host.netns, doing)
        now.add(*additions(host, seen))
        seen = _read(now, host, neighbours=True)
        if foreign := removals(host, seen):
            namespaces.batch("ip", foreign, host.netns, doing)
            seen = _read(now, host, neighbours=True)
        seen["sysctls"] = sysctls
        wrong = differences(host, seen)
        if wrong:
            raise ConditionError(f"{host.name} is not as planned: " + "; ".join(wrong))
        algorithm = congestion.settle(host, now)  # last: it may be a part of the routes
    host.mtus = {link["ifname"]: link["mtu"] for link in seen["links"]}
    return _readable(host, seen) | {"congestion": algorithm}


def _read(now: kernel.Kernel, host: Host, neighbours: bool = False) -> dict[str, Any]:
    links, routes = now.addresses(), now.routes(socket.AF_INET, kernel.MAIN)
    if host.dual:
        main = now.routes(socket.AF_INET6, kernel.MAIN)
        routes += [route | {"dst": "::/0"} if route["dst"] == "default" else route for route in main]
        local = now.routes(socket.AF_INET6, kernel.LOCAL)
        routes += [route for route in local if route["dst"] == _GROUPS6]
    families = (socket.AF_INET, socket.AF_INET6) if host.dual else (socket.AF_INET,)
    known = now.permanent_neighbours(*families) if neighbours else []
    return {"links": links, "routes": routes, "neighbours": known, "sysctls": {}}


def link_commands(host: Host, seen: dict[str, Any]) -> list[str]:
    """Names, addresses of the hardware, and up. The engine gave each interface its IP: that is how it is found."""
    by_ip = _interfaces_by_ip(seen)
    commands, renamed = [], []
    taken = {link["ifname"] for link in seen["links"]}
    for number, nic in enumerate(host.nics):
        link = by_ip.get(nic.ip)
        if link is None:
            have = ", ".join(sorted(f"{ip} on {link['ifname']}" for ip, link in by_ip.items())) or "none"
            raise ConditionError(f"{host.name} has no interface with {nic.ip} for {nic.network}; it has {have}")
        name = link["ifname"]
        if name != nic.name:
            aside = next(f"tmp{n}" for n in range(number, 10_000) if f"tmp{n}" not in taken)
            taken.add(aside)
            commands += [f"link set dev {name} down", f"link set dev {name} name {aside}"]
            renamed.append(f"link set dev {aside} name {nic.name}")
    commands += renamed  # two names may have been swapped, so all step aside first
    for nic in host.nics:
        link = by_ip[nic.ip]
        if link["address"] != nic.mac:
            commands.append(f"link set dev {nic.name} address {nic.mac}")
        if link["ifname"] != nic.name or "UP" not in link["flags"]:
            commands.append(f"link set dev {nic.name} up")
    if not any(link["ifname"] == "lo" and "UP" in link["flags"] for link in seen["links"]):
        commands.append("link set dev lo up")
    return commands


def address_commands(host: Host, seen: dict[str, Any]) -> list[str]:
    """IPv6 addresses of a dual host: what is not planned, or is not valid yet, goes; what is missing comes."""
    wanted = {nic.name: _ipv6_of(nic) for nic in host.nics}
    gone, come = [], []
    for link in seen["links"]:
        missing = wanted.get(link["ifname"], set())
        for address in _addresses(link, "inet6") if link["ifname"] != "lo" else ():
            if _written(address) in missing and not _not_valid(address):
                missing = missing - {_written(address)}
            else:
                gone.append(f"addr del {_written(address)} dev {link['ifname']}")
        come += [f"addr add {address} dev {link['ifname']} nodad" for address in sorted(missing)]
    return gone + come


def await_own_routes(host: Host, local: Callable[[], list[dict[str, Any]]]) -> None:
    """Until every IPv6 address of the host can be reached from within.

    The kernel gives such an address its route later, from a work queue (net/ipv6/addrconf.c, addrconf_dad_work),
    and on a busy machine much later. `local` reads that table. Raises ConditionError for one that never comes.
    """
    wanted = {(address.split("/")[0], nic.name) for nic in host.nics for address in _ipv6_of(nic)}
    deadline = time.monotonic() + _OWN_ROUTES_S
    while missing := wanted - {(route["dst"], route.get("dev")) for route in local() if route["type"] == "local"}:
        if time.monotonic() > deadline:
            named = ", ".join(f"{address} on {dev}" for address, dev in sorted(missing))
            raise ConditionError(f"{host.name}: the kernel has no route to its own {named}")
        time.sleep(0.002)


def link_local(mac: str) -> str:
    """The address of an interface by its MAC alone: fe80::/64 and the modified EUI-64 (RFC 4291, appendix A)."""
    raw = bytes.fromhex(mac.replace(":", ""))
    identifier = bytes((raw[0] ^ 2, *raw[1:3], 0xFF, 0xFE, *raw[3:]))
    return str(ipaddress.IPv6Address(b"\xfe\x80" + bytes(6) + identifier))


def _ipv6_of(nic: Nic) -> set[str]:
    return {f"{nic.ip6}/{nic.prefix6_bits}", f"{link_local(nic.mac)}/64"} if nic.ip6 else set()


def _written(address: dict[str, Any]) -> str:
    return f"{address['local']}/{address['prefixlen']}"


def _not_valid(address: dict[str, Any]) -> str:
    """Why an address cannot be used; "" if it can."""
    return next((word for word in ("dadfailed", "tentative") if address.get(word)), "")


def removals(host: Host, seen: dict[str, Any]) -> list[str]:
    """Routes of the main table and permanent neighbours that are too much."""
    extra, _ = _routes(host, seen)
    commands = [f"route del {_route_words(route)} table {_table(route['dst'])}" for route in extra]
    want = {(entry.ip, entry.dev) for entry in host.neighbours}
    return commands + [f"neigh del {ip} dev {dev}" for ip, dev in _neighbours(host, seen) if (ip, dev) not in want]


def additions(host: Host, seen: dict[str, Any]) -> tuple[list[kernel.Route], list[kernel.Neighbour]]:
    """Routes and permanent neighbours that are missing, or are there with another value."""
    _, missing = _routes(host, seen)
    routes = [
        kernel.Route(to, dev, src, kernel.LOCAL, multicast=True, metric=_GROUPS6_METRIC)
        if to == _GROUPS6
        else kernel.Route(to, dev, src)
        for to, dev, src in missing
    ]
    have = _neighbours(host, seen)
    return routes, [
        kernel.Neighbour(entry.ip, entry.mac, entry.dev)
        for entry in host.neighbours
        if have.get((entry.ip, entry.dev)) != entry.mac
    ]


def differences(host: Host, seen: dict[str, Any]) -> list[str]:
    """Each thing that is not as the plan has it: what was asked, and what is there."""
    return [*_link_differences(host, seen), *_table_differences(host, seen), *_sysctl_differences(host, seen)]


def _link_differences(host: Host, seen: dict[str, Any]) -> Iterable[str]:
    by_name = {link["ifname"]: link for link in seen["links"]}
    for nic in host.nics:
        link = by_name.get(nic.name)
        if link is None:
            yield f"no interface {nic.name}: there are {', '.join(by_name)}"
            continue
        addresses = {_written(address) for address in _addresses(link, "inet")}
        if addresses != {f"{nic.ip}/{nic.prefix_bits}"}:
            has = ", ".join(sorted(addresses)) or "no address"
            yield f"{nic.name} was to have {nic.ip}/{nic.prefix_bits} and has {has}"
        if link["address"] != nic.mac:
            yield f"{nic.name} was to have {nic.mac} and has {link['address']}"
    for link in seen["links"]:
        if "UP" not in link["flags"] and link["ifname"] in {"lo", *(nic.name for nic in host.nics)}:
            yield f"{link['ifname']} is not up"
        if link["ifname"] not in {nic.name for nic in host.nics} and link["ifname"] != "lo":
            for address in _addresses(link, "inet"):
                yield f"{link['ifname']} has {address['local']}, which is not in the plan"
        if host.dual:
            yield from _ipv6_differences(host, link)
        elif _no_ipv6(host):
            for address in _addresses(link, "inet6"):
                yield f"IPv6 is to be off and {link['ifname']} has {address['local']}"


def _ipv6_differences(host: Host, link: dict[str, Any]) -> Iterable[str]:
    name = link["ifname"]
    wanted = next((_ipv6_of(nic) for nic in host.nics if nic.name == name), set())
    found = _addresses(link, "inet6") if name != "lo" else []
    have = {_written(address) for address in found}
    if have != wanted:
        asked, has = (", ".join(sorted(some)) or "no IPv6 address" for some in (wanted, have))
        yield f"{name} was to have {asked} and has {has}"
    for address in found:
        if _not_valid(address):
            yield f"{address['local']} of {name} is {_not_valid(address)}"


def _table_differences(host: Host, seen: dict[str, Any]) -> Iterable[str]:
    extra, missing = _routes(host, seen)
    for route in extra:
        yield f"a route that is not in the plan: {_route_words(route)}"
    for to, dev, src in missing:
        yield f"no route {to} dev {dev}" + (f" src {src}" if src else "")
    want, have = {(entry.ip, entry.dev): entry.mac for entry in host.neighbours}, _neighbours(host, seen)
    for ip, dev in sorted(want.keys() | have.keys()):
        if want.get((ip, dev)) != have.get((ip, dev)):
            yield (
                f"neighbour {ip} dev {dev} was to be {want.get((ip, dev), 'absent')} "
                f"and is {have.get((ip, dev), 'absent')}"
            )


def _sysctl_differences(host: Host, seen: dict[str, Any]) -> Iterable[str]:
    for name, value in host.sysctls.items():
        found = seen["sysctls"].get(name)
        if found is None or found.split() != value.split():
            yield f"{name} was to be {value!r} and is {found!r}"


def _interfaces_by_ip(seen: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {a["local"]: link for link in seen["links"] for a in _addresses(link, "inet") if link["ifname"] != "lo"}


def _addresses(link: dict[str, Any], family: str) -> list[dict[str, Any]]:
    return [a for a in link.get("addr_info", ()) if a.get("family") == family and "local" in a]


def _no_ipv6(host: Host) -> bool:
    return host.sysctls.get("net.ipv6.conf.all.disable_ipv6") == "1"


def _routes(host: Host, seen: dict[str, Any]) -> tuple[list[dict[str, Any]], list[tuple[str, str, str | None]]]:
    """Routes there that should not be, and the other way round. The kernel's own, one a subnet, are right.

    Among them is one for IPv6 multicast on every interface, without which nothing could be sent through that one.
    Where a program names no interface, the lowest metric decides, and that is the planned one's.
    """
    want = {(_prefix(route.to), route.dev): route.src for route in host.routes}
    own: dict[tuple[str, str], str | None] = {
        (str(ipaddress.ip_interface(f"{nic.ip}/{nic.prefix_bits}").network), nic.name): nic.ip for nic in host.nics
    }
    if host.dual:
        own[str(ipaddress.IPv6Network("::1")), "lo"] = None
    extra, found = [], set()
    for route in seen["routes"]:
        key = (_prefix(route["dst"]), route.get("dev", ""))
        src, kernels = route.get("prefsrc"), route.get("protocol") == "kernel"
        if key[0] == _GROUPS6:
            if kernels:
                continue
            plain = route.get("metric") == _GROUPS6_METRIC and "gateway" not in route
        else:
            plain = route.get("type", "unicast") == "unicast" and "gateway" not in route
        if plain and key in want and key not in found and want[key] in (None, src):
            found.add(key)
        elif not (plain and kernels and key in own and own[key] == src):
            extra.append(route)
    return extra, [(to, dev, src) for (to, dev), src in want.items() if (to, dev) not in found]


def _prefix(text: str) -> str:
    return str(ipaddress.ip_network("0.0.0.0/0" if text == "default" else text))


def _table(to: str) -> str:
    """IPv6 finds a route for every multicast address in the table `local`, before it looks into `main`."""
    return "local" if to == _GROUPS6 else "main"


def _route_words(route: dict[str, Any]) -> str:
    kind = route.get("type", "unicast")
    words = [] if kind == "unicast" else [kind]
    words.append(str(route["dst"]))
    for word, key in (("via", "gateway"), ("dev", "dev"), ("metric", "metric")):
        if key in route:
            words += [word, str(route[key])]
    return " ".join(words)


def _neighbours(host: Host, seen: dict[str, Any]) -> dict[tuple[str, str], str]:
    return {
        (entry["dst"], entry["dev"]): entry.get("lladdr", "")
        for entry in seen["neighbours"]
        if "PERMANENT" in entry.get("state", ()) and (host.dual or ":" not in entry["dst"])
    }


def _write_sysctls(host: Host) -> dict[str, str]:
    """Returns the values as they are afterwards, absent ones left out."""
    foreign = [name for name in host.sysctls if not name.startswith("net.")]
    if foreign:
        raise CapabilityError(
            f"{host.name}: sysctls: {', '.join(foreign)} is not of the network namespace, the only part "
            "of /proc/sys that a host has of its own on every engine"
        )
    with namespaces.inside(host.netns):
        return {
            name: found for name, value in host.sysctls.items() if (found := _set(host, name, value)) is not None
        }


def _set(host: Host, name: str, value: str) -> str | None:
    path = Path("/proc/sys") / (name if "/" in name else name.replace(".", "/"))
    try:
        found = path.read_text().strip()
    except FileNotFoundError:
        absent_is_right = name.startswith("net.ipv6.") and name.endswith(".disable_ipv6") and value == "1"
        return value if absent_is_right and not Path("/proc/sys/net/ipv6").exists() else None
    if found.split() == value.split() or (name == _PING_RANGE and _is_closed(value) and _ping_is_refused()):
        return value
    try:
        path.write_text(value)
    except OSError as problem:
        raise ConditionError(
            f"{host.name}: {name} is {found!r} and was to be {value!r}; writing it: {problem}. The agent needs a "
            "/proc/sys that it may write, or an engine that sets the value when it makes the host"
        ) from problem
    return path.read_text().strip()


def _is_closed(group_range: str) -> bool:
    low, high = map(int, group_range.split())
    return low > high


def _ping_is_refused() -> bool:
    """In an ordinary user's namespace the groups of the range have no numbers, so it can be neither written nor
    read: `1 0`, the kernel's default, shows as `65534 65534`. Trying it out asks the same question.
    """
    try:
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP).close()
    except PermissionError:
        return True
    return False


def _readable(host: Host, seen: dict[str, Any]) -> dict[str, Any]:
    return {
        "interfaces": {
            link["ifname"]: {
                "mac": link["address"],
                "mtu": link["mtu"],
                "addresses": [_written(address) for address in link.get("addr_info", ())],
            }
            for link in seen["links"]
        },
        "routes": [_route_words(route) for route in seen["routes"]],
        "neighbours": {f"{ip} dev {dev}": mac for (ip, dev), mac in _neighbours(host, seen).items()},
        "sysctls": seen["sysctls"],
    }
