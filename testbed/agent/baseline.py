"""The baseline of a host: interfaces, routes, neighbours and sysctls set as the plan has them, and read back.

Only what differs is written, so that a host which its engine made right is only looked at. What `ip` would be told
(`*_commands`) and what is wrong (`differences`) are pure functions of what was read.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from testbed.agent import namespaces
from testbed.agent.host import Host
from testbed.errors import CapabilityError, ConditionError

_READ = ("addr show", "route show table main", "neigh show nud permanent")
_PING_RANGE = "net.ipv4.ping_group_range"


def apply(host: Host) -> dict[str, Any]:
    """Make the host's baseline the plan's. Returns what was read back; fills `host.mtus`.

    Raises ConditionError for what is still not as asked, CommandError for what the kernel refused.
    """
    doing = f"setting up {host.name}"
    links = link_commands(host, _read(host))
    namespaces.batch("ip", links, host.netns, doing)
    sysctls = _write_sysctls(host)
    namespaces.batch("ip", table_commands(host, _read(host)), host.netns, doing)
    seen = _read(host) | {"sysctls": sysctls}
    wrong = differences(host, seen)
    if wrong:
        raise ConditionError(f"{host.name} is not as planned: " + "; ".join(wrong))
    host.mtus = {link["ifname"]: link["mtu"] for link in seen["links"]}
    return _readable(seen)


def _read(host: Host) -> dict[str, Any]:
    links, routes, neighbours = namespaces.ask("ip", _READ, host.netns, f"reading the state of {host.name}")
    return {"links": links, "routes": routes, "neighbours": neighbours, "sysctls": {}}


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


def table_commands(host: Host, seen: dict[str, Any]) -> list[str]:
    """Routes of the main table and permanent neighbours: what is too much goes, what is missing comes."""
    extra, missing = _routes(host, seen)
    commands = [f"route del {_route_words(route)} table main" for route in extra]
    for to, dev, src in missing:
        commands.append(f"route add {to} dev {dev}" + (f" src {src}" if src else "") + " table main")
    have = _neighbours(seen)
    want = {(entry.ip, entry.dev): entry.mac for entry in host.neighbours}
    commands += [f"neigh del {ip} dev {dev}" for ip, dev in have if (ip, dev) not in want]
    commands += [
        f"neigh replace {ip} lladdr {mac} nud permanent dev {dev}"
        for (ip, dev), mac in want.items()
        if have.get((ip, dev)) != mac
    ]
    return commands


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
        addresses = {f"{a['local']}/{a['prefixlen']}" for a in _addresses(link, "inet")}
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
        if _no_ipv6(host):
            for address in _addresses(link, "inet6"):
                yield f"IPv6 is to be off and {link['ifname']} has {address['local']}"


def _table_differences(host: Host, seen: dict[str, Any]) -> Iterable[str]:
    extra, missing = _routes(host, seen)
    for route in extra:
        yield f"a route that is not in the plan: {_route_words(route)}"
    for to, dev, src in missing:
        yield f"no route {to} dev {dev}" + (f" src {src}" if src else "")
    want, have = {(entry.ip, entry.dev): entry.mac for entry in host.neighbours}, _neighbours(seen)
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
    """Routes there that should not be, and the other way round. The kernel's own, one a subnet, are right."""
    want = {(_prefix(route.to), route.dev): route.src for route in host.routes}
    own = {
        (str(ipaddress.ip_interface(f"{nic.ip}/{nic.prefix_bits}").network), nic.name): nic.ip for nic in host.nics
    }
    extra, found = [], set()
    for route in seen["routes"]:
        key = (_prefix(route["dst"]), route.get("dev", ""))
        plain = route.get("type", "unicast") == "unicast" and "gateway" not in route
        src = route.get("prefsrc")
        if plain and key in want and key not in found and want[key] in (None, src):
            found.add(key)
        elif not (plain and route.get("protocol") == "kernel" and own.get(key) == src):
            extra.append(route)
    return extra, [(to, dev, src) for (to, dev), src in want.items() if (to, dev) not in found]


def _prefix(text: str) -> str:
    return str(ipaddress.ip_network("0.0.0.0/0" if text == "default" else text))


def _route_words(route: dict[str, Any]) -> str:
    kind = route.get("type", "unicast")
    words = [] if kind == "unicast" else [kind]
    words.append(str(route["dst"]))
    for word, key in (("via", "gateway"), ("dev", "dev"), ("metric", "metric")):
        if key in route:
            words += [word, str(route[key])]
    return " ".join(words)


def _neighbours(seen: dict[str, Any]) -> dict[tuple[str, str], str]:
    return {
        (entry["dst"], entry["dev"]): entry.get("lladdr", "")
        for entry in seen["neighbours"]
        if "PERMANENT" in entry.get("state", ()) and ":" not in entry["dst"]
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


def _readable(seen: dict[str, Any]) -> dict[str, Any]:
    return {
        "interfaces": {
            link["ifname"]: {
                "mac": link["address"],
                "mtu": link["mtu"],
                "addresses": [f"{a['local']}/{a['prefixlen']}" for a in link.get("addr_info", ())],
            }
            for link in seen["links"]
        },
        "routes": [_route_words(route) for route in seen["routes"]],
        "neighbours": {f"{ip} dev {dev}": mac for (ip, dev), mac in _neighbours(seen).items()},
        "sysctls": seen["sysctls"],
    }
