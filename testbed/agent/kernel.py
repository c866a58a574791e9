"""What the kernel holds of a network namespace, in the words of `ip -j -d -s` and `tc -j -s`, and adding to it.

The same words, so that a person can compare, and a test does. Source of the numbers: linux/rtnetlink.h, if_link.h,
if_addr.h, neighbour.h, pkt_cls.h, gen_stats.h and tc_act/tc_mirred.h.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from testbed.agent import netlink
from testbed.agent.netlink import BESIDE, ONLY_NEW, REPLACE, Questions, Request, attribute, attributes, text, u32
from testbed.errors import EngineError

_RTM_NEWROUTE, _RTM_DELROUTE, _RTM_NEWNEIGH = 24, 25, 28
_RTM_GETLINK, _RTM_GETADDR, _RTM_GETROUTE, _RTM_GETNEIGH, _RTM_GETQDISC, _RTM_GETTFILTER = 18, 22, 26, 30, 38, 46
MAIN, LOCAL = 254, 255  # tables of routes
SIDES = {"egress": 0xFFFFFFF3, "ingress": 0xFFFFFFF2}  # the two hooks of a clsact qdisc, as parents of filters

_IFINFO = struct.Struct("=BxHiII")  # family, type, index, flags, change
_IFADDR = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_ROUTE = struct.Struct("=BBBBBBBBI")  # family, bits of destination, ..., table, protocol, scope, type, flags
_NEIGH = struct.Struct("=BxxxiHBB")  # family, index, state, flags, type
_TC = struct.Struct("=BxxxiIII")  # family, index, handle, parent, info
_INSTRUCTION = struct.Struct("=HBBI")

_LINK_FLAGS = {1: "UP", 1 << 3: "LOOPBACK", 1 << 7: "NOARP", 1 << 16: "LOWER_UP"}
_ADDRESS_FLAGS = {0x08: "dadfailed", 0x40: "tentative"}
_PERMANENT = 0x80
_CLONED = 0x200  # RTM_F_CLONED: an entry of a cache and no route
_ROUTE_TYPES = (
    "unspec unicast local broadcast anycast multicast blackhole unreachable prohibit throw nat xresolve".split()
)
_ROUTE_PROTOCOLS = {0: "unspec", 1: "redirect", 2: "kernel", 3: "boot", 4: "static", 9: "ra", 16: "dhcp"}
_UNICAST, _LOCAL, _MULTICAST = (_ROUTE_TYPES.index(kind) for kind in ("unicast", "local", "multicast"))
_BOOT, _UNIVERSE, _LINK = 3, 0, 253  # RTPROT_BOOT, as `ip route add` has it, and two scopes
_FAMILIES = (socket.AF_INET, socket.AF_INET6)
_PRIORITY, _METRICS = 6, 8  # RTA_
_OF_A_ROUTE = (1, 4, 5, _PRIORITY, 7, 15, 20)  # RTA_DST, _OIF, _GATEWAY, _PRIORITY, _PREFSRC, _TABLE, _PREF
_CONGCTL = 16  # RTAX_CC_ALGO
_ETH_P_ALL = 0x0003
_DIRECT_ACTION = 1
_CONTROL = {0: "pass", 1: "reclassify", 2: "drop", 3: "pipe", 4: "stolen", 7: "redirect"}
_MIRRED = {
    1: ("redirect", "egress"),
    2: ("mirror", "egress"),
    3: ("redirect", "ingress"),
    4: ("mirror", "ingress"),
}


class Route(NamedTuple):
    """One to be added, to what is on the link."""

    to: str  # "224.0.0.0/4"
    dev: str
    src: str | None = None
    table: int = MAIN
    multicast: bool = False
    metric: int | None = None


class Neighbour(NamedTuple):
    """A permanent one to be added, or put in the place of another."""

    ip: str
    mac: str
    dev: str


@contextmanager
def of(netns: int | None, doing: str) -> Iterator[Kernel]:
    """What the network namespace of that descriptor holds; None: where we are. Raises EngineError, OSError."""
    with netlink.asked(netns, doing) as questions:
        yield Kernel(questions)


class Kernel:
    """Answers of one network namespace. The names of its interfaces are read once."""

    def __init__(self, questions: Questions) -> None:
        self._ask, self._do = questions.dump, questions.do
        self._names: dict[int, str] = {}

    def links(self) -> list[dict[str, Any]]:
        """Every interface: ifindex, ifname, flags, mtu, address, master, gso_max_segs, stats64."""
        found = [_link(body) for body in self._ask(_RTM_GETLINK, _IFINFO.pack(0, 0, 0, 0, 0))]
        self._names = {link["ifindex"]: link["ifname"] for link in found}
        for link in found:
            if "master" in link:
                link["master"] = self._name(link["master"])
        return found

    def addresses(self) -> list[dict[str, Any]]:
        """`links`, each with its addresses in `addr_info`."""
        links = self.links()
        by_index: dict[int, dict[str, Any]] = {link["ifindex"]: link | {"addr_info": []} for link in links}
        for body in self._ask(_RTM_GETADDR, _IFADDR.pack(0, 0, 0, 0, 0)):
            family, bits, flags, _, index = _IFADDR.unpack_from(body)
            values = attributes(body, _IFADDR.size)
            local = values.get(2, values.get(1))  # IFA_LOCAL, IFA_ADDRESS
            if local is None or index not in by_index:
                continue
            flags = u32(values[8]) if 8 in values else flags
            address = {"family": _family(family), "local": _ip(family, local), "prefixlen": bits}
            address |= {word: True for flag, word in _ADDRESS_FLAGS.items() if flags & flag}
            by_index[index]["addr_info"].append(address)
        return list(by_index.values())

    def routes(self, family: int, table: int) -> list[dict[str, Any]]:
        """Of AF_INET or AF_INET6: type, dst, dev, gateway, metric, prefsrc, protocol."""
        self._need_names()
        return [self._route(body) for body in self._routes(family) if _table(body) == table]

    def tcp_routes(self) -> list[dict[str, Any]]:
        """What a connection can take, of both families, also within the host; `metrics` where it has a congctl."""
        self._need_names()
        return [self._route(body) for family in _FAMILIES for body in self._routes(family) if _for_tcp(body)]

    def choose_congestion(self, algorithm: str) -> None:
        """Have each of them say `congctl`; all else of a route stays. Raises EngineError.

        Those of IPv6 go and come again. To be replaced means nothing there: several interfaces have fe80::/64, and
        what the kernel itself puts into the table `local` has a metric that no other can have, and comes first.
        """
        requests = []
        for family in _FAMILIES:
            for body in filter(_for_tcp, self._routes(family)):
                what = f"having the route to {self._route(body)['dst']} say congctl {algorithm}"
                again = _with_congestion(body, algorithm)
                if family == socket.AF_INET:
                    requests.append(Request(_RTM_NEWROUTE, REPLACE, again, what))
                else:
                    requests.append(Request(_RTM_DELROUTE, 0, _told(body, {}), what))
                    requests.append(Request(_RTM_NEWROUTE, BESIDE, again, what))
        self._do(requests)

    def _routes(self, family: int) -> list[bytes]:
        bodies = self._ask(_RTM_GETROUTE, _ROUTE.pack(family, 0, 0, 0, 0, 0, 0, 0, 0))
        return [body for body in bodies if body[0] == family and not _ROUTE.unpack_from(body)[-1] & _CLONED]

    def _route(self, body: bytes) -> dict[str, Any]:
        family, bits, _, _, _, protocol, _, kind, _ = _ROUTE.unpack_from(body)
        values = attributes(body, _ROUTE.size)
        route: dict[str, Any] = {
            "type": _word(_ROUTE_TYPES, kind),
            "dst": _destination(family, values.get(1), bits),
            "protocol": _ROUTE_PROTOCOLS.get(protocol, str(protocol)),
        }
        if 4 in values:
            route["dev"] = self._name(u32(values[4]))
        if 5 in values:
            route["gateway"] = _ip(family, values[5])
        elif 18 in values:  # RTA_VIA: a gateway of another family
            route["gateway"] = values[18].hex()
        if 6 in values:
            route["metric"] = u32(values[6])
        if 7 in values:
            route["prefsrc"] = _ip(family, values[7])
        if _CONGCTL in (metrics := attributes(values.get(_METRICS, b""))):
            route["metrics"] = [{"congestion": text(metrics[_CONGCTL])}]
        return route

    def add(self, routes: Iterable[Route], neighbours: Iterable[Neighbour]) -> None:
        """Raises EngineError naming what the kernel refuses, also a route that is there already."""
        self._need_names()
        indexes = {name: index for index, name in self._names.items()}
        requests = [
            Request(_RTM_NEWROUTE, ONLY_NEW, _new_route(route, indexes), f"adding {route}") for route in routes
        ]
        for neighbour in neighbours:
            body = _new_neighbour(neighbour, indexes)
            requests.append(Request(_RTM_NEWNEIGH, REPLACE, body, f"adding {neighbour}"))
        self._do(requests)

    def permanent_neighbours(self, *families: int) -> list[dict[str, Any]]:
        """Of AF_INET, AF_INET6: dst, dev, lladdr, state.

        The kernel looks through the neighbours of all its namespaces to answer, so it is not asked without need.
        """
        self._need_names()
        found = []
        bodies = [
            body for family in families for body in self._ask(_RTM_GETNEIGH, _NEIGH.pack(family, 0, 0, 0, 0))
        ]
        for body in bodies:
            family, index, state, _, _ = _NEIGH.unpack_from(body)
            values = attributes(body, _NEIGH.size)
            if state & _PERMANENT and 1 in values and family in families:
                neighbour = {"dst": _ip(family, values[1]), "dev": self._name(index), "state": ["PERMANENT"]}
                found.append(neighbour | ({"lladdr": _mac(values[2])} if 2 in values else {}))
        return found

    def qdiscs(self) -> list[dict[str, Any]]:
        """Of every interface: kind, dev."""
        self._need_names()
        found = []
        for body in self._ask(_RTM_GETQDISC, _TC.pack(0, 0, 0, 0, 0)):
            found.append(
                {"kind": text(attributes(body, _TC.size)[1]), "dev": self._name(_TC.unpack_from(body)[1])}
            )
        return found

    def filters(self, devices: Iterable[str]) -> list[list[dict[str, Any]]]:
        """Of the clsact hooks of these interfaces, in the order of `SIDES` each; nothing where there is no clsact.

        Raises EngineError, also for an interface that is not there.
        """
        self._need_names()
        indexes = {name: index for index, name in self._names.items()}
        found = []
        for dev in devices:
            if dev not in indexes:
                raise EngineError(f"reading the filters of {dev}: there are only {', '.join(indexes)}")
            for parent in SIDES.values():
                bodies = self._ask(_RTM_GETTFILTER, _TC.pack(0, indexes[dev], 0, parent, 0))
                found.append([self._filter(body) for body in bodies])
        return found

    def _filter(self, body: bytes) -> dict[str, Any]:
        _, _, handle, _, info = _TC.unpack_from(body)
        values = attributes(body, _TC.size)
        protocol = socket.ntohs(info & 0xFFFF)
        kind = text(values[1])
        entry: dict[str, Any] = {
            "protocol": "all" if protocol == _ETH_P_ALL else f"{protocol:#06x}",
            "pref": info >> 16,
            "kind": kind,
            "chain": u32(values[11]) if 11 in values else 0,
        }
        if 2 in values and handle:
            entry["options"] = self._bpf(handle, attributes(values[2])) if kind == "bpf" else {}
        return entry

    def _bpf(self, handle: int, values: dict[int, bytes]) -> dict[str, Any]:
        options: dict[str, Any] = {"handle": f"{handle:#x}"}
        if 5 in values:
            fields = ("code", "jt", "jf", "k")
            instructions = [dict(zip(fields, line, strict=True)) for line in _INSTRUCTION.iter_unpack(values[5])]
            options["bytecode"] = {"length": len(instructions), "insns": instructions}
        if 8 in values and u32(values[8]) & _DIRECT_ACTION:
            options["direct-action"] = True
        if 1 in values:
            ordered = sorted(attributes(values[1]).items())
            options["actions"] = [{"order": order, **self._action(attributes(body))} for order, body in ordered]
        return options

    def _action(self, values: dict[int, bytes]) -> dict[str, Any]:
        kind = text(values[1])
        action: dict[str, Any] = {"kind": kind, "stats": _stats(attributes(values.get(4, b"")))}
        parameters = attributes(values.get(2, b"")).get(2)
        if kind == "mirred" and parameters is not None:
            _, _, control, _, _, what, index = struct.unpack_from("=IIiiiiI", parameters)
            does, direction = _MIRRED.get(what, (str(what), ""))
            action |= {"mirred_action": does, "direction": direction, "to_dev": self._name(index)}
            action["control_action"] = {"type": _CONTROL.get(control, str(control))}
        return action

    def _need_names(self) -> None:
        if not self._names:
            self.links()

    def _name(self, index: int) -> str:
        return self._names.get(index, f"if{index}")


def _new_route(route: Route, indexes: Mapping[str, int]) -> bytes:
    to = ipaddress.ip_network(route.to)
    family = socket.AF_INET if to.version == 4 else socket.AF_INET6
    kind = _MULTICAST if route.multicast else _UNICAST
    scope = _LINK if to.version == 4 else _UNIVERSE
    body = _ROUTE.pack(family, to.prefixlen, 0, 0, route.table, _BOOT, scope, kind, 0)
    body += attribute(1, to.network_address.packed) if to.prefixlen else b""
    body += attribute(4, struct.pack("=I", indexes.get(route.dev, 0)))
    body += attribute(7, socket.inet_pton(family, route.src)) if route.src else b""
    return body + (attribute(6, struct.pack("=I", route.metric)) if route.metric is not None else b"")


def _table(body: bytes) -> int:
    values = attributes(body, _ROUTE.size)
    return u32(values[15]) if 15 in values else int(_ROUTE.unpack_from(body)[4])


def _for_tcp(body: bytes) -> bool:
    return _ROUTE.unpack_from(body)[7] in (_UNICAST, _LOCAL) and _table(body) in (MAIN, LOCAL)


def _with_congestion(body: bytes, algorithm: str) -> bytes:
    values = attributes(body, _ROUTE.size)
    metrics = attributes(values.get(_METRICS, b"")) | {_CONGCTL: algorithm.encode() + b"\0"}
    more = {_METRICS: b"".join(attribute(*metric) for metric in sorted(metrics.items()))}
    if body[0] == socket.AF_INET6 and not u32(values[_PRIORITY]):  # 0 would be taken for "not said"
        more[_PRIORITY] = struct.pack("=I", 1)
    return _told(body, more)


def _told(body: bytes, more: dict[int, bytes]) -> bytes:
    """A route as the kernel told it, to be told to the kernel."""
    *head, _ = _ROUTE.unpack_from(body)
    values = attributes(body, _ROUTE.size)
    kept = {kind: values[kind] for kind in _OF_A_ROUTE if kind in values} | more
    return _ROUTE.pack(*head, 0) + b"".join(attribute(*one) for one in kept.items())


def _new_neighbour(neighbour: Neighbour, indexes: Mapping[str, int]) -> bytes:
    family = socket.AF_INET6 if ":" in neighbour.ip else socket.AF_INET
    body = _NEIGH.pack(family, indexes.get(neighbour.dev, 0), _PERMANENT, 0, 0)
    body += attribute(1, socket.inet_pton(family, neighbour.ip))
    return body + attribute(2, bytes.fromhex(neighbour.mac.replace(":", "")))


def _link(body: bytes) -> dict[str, Any]:
    _, _, index, flags, _ = _IFINFO.unpack_from(body)
    values = attributes(body, _IFINFO.size)
    link: dict[str, Any] = {
        "ifindex": index,
        "ifname": text(values[3]),
        "flags": [word for flag, word in _LINK_FLAGS.items() if flags & flag],
        "mtu": u32(values[4]),
    }
    if 1 in values:
        link["address"] = _mac(values[1])
    if 10 in values:
        link["master"] = u32(values[10])
    if 40 in values:
        link["gso_max_segs"] = u32(values[40])
    if 23 in values:
        received, sent, _, _, _, _, received_dropped, sent_dropped = struct.unpack_from("=8Q", values[23])
        link["stats64"] = {
            "rx": {"packets": received, "dropped": received_dropped},
            "tx": {"packets": sent, "dropped": sent_dropped},
        }
    return link


def _stats(values: dict[int, bytes]) -> dict[str, int]:
    """TCA_STATS_BASIC, _QUEUE and, where there is one, _PKT64: the same count, and it never wraps."""
    stats = {}
    if 1 in values:
        stats["packets"] = struct.unpack_from("=QI", values[1])[1]
    if 8 in values:
        stats["packets"] = struct.unpack_from("=Q", values[8])[0]
    if 3 in values:
        stats["overlimits"] = struct.unpack_from("=5I", values[3])[4]
    return stats


def _family(number: int) -> str:
    return {int(socket.AF_INET): "inet", int(socket.AF_INET6): "inet6"}.get(number, str(number))


def _ip(family: int, data: bytes) -> str:
    return socket.inet_ntop(family, data)


def _mac(data: bytes) -> str:
    return data.hex(":")


def _destination(family: int, data: bytes | None, bits: int) -> str:
    if data is None:
        return "default" if bits == 0 else f"?/{bits}"
    return _ip(family, data) if bits == len(data) * 8 else f"{_ip(family, data)}/{bits}"


def _word(words: list[str], number: int) -> str:
    return words[number] if number < len(words) else str(number)
