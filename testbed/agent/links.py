"""The links of a machine: every condition brought into force, read back, and proven again at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Any

from testbed.agent import bpf, filters, kernel, namespaces, proof, uplink
from testbed.agent.filters import Filter
from testbed.agent.host import Host
from testbed.agent.link_process import WireProcess
from testbed.agent.wires import Wires
from testbed.conditions.bounds import longest_stay_ns
from testbed.conditions.condition import Condition
from testbed.errors import ConditionError

ETHERNET_HEADER_BYTES = 14
_OPEN_S = 3.0  # so long after the programs' end kernels may go on with what was not acknowledged
_LATE_S = 3.0  # a frame that leaves later than this will never leave
_NO_END_S = 3600.0  # where a queue has no end
_SETTLE_S = 1.0
LEDGER_CHUNK = 1 << 19


@dataclass(frozen=True)
class Wanted:
    """A whole state, decided: what the wire is told, what is filtered where, what whoever asked is told."""

    seed: int
    links: dict[str, dict[str, Any]]  # by id, with those that only group frames need
    asked: frozenset[str]
    filters: dict[str, tuple[Filter, ...]]  # by source host
    devices: dict[str, tuple[str, ...]]  # by host, what frames of links pass
    conditions: dict[str, Condition]

    @cached_property
    def demand(self) -> proof.Demand:
        return proof.Demand(
            filters=self.filters,
            links={link: link if link in self.asked else data["source"] for link, data in self.links.items()},
            conditions={link: condition.to_json() for link, condition in self.conditions.items()},
            devices=self.devices,
        )

    @cached_property
    def longest_stay_s(self) -> float:
        """How long a frame may rightly stay in the wire."""
        stays = [
            longest_stay_ns(condition, self.links[link]["max_frame"])
            for link, condition in self.conditions.items()
        ]
        return max((_NO_END_S if stay is None else stay / 1e9 for stay in stays), default=0.0)


def decide(seed: int, links: Sequence[Mapping[str, Any]], hosts: Mapping[str, Host]) -> Wanted:
    """Pure. Raises ConditionError for a link that does not fit the hosts.

    A group frame cannot be split by receiver in a filter, so as soon as one pair of a host on a network goes
    through the wire, all its group frames there do, and the wire needs a link to every host on that network. Those
    that nobody asked for do nothing.
    """
    by_id: dict[str, dict[str, Any]] = {}
    conditions: dict[str, Condition] = {}
    for link in links:
        source, target = _ends(link, hosts)
        try:
            conditions[link["id"]] = Condition.from_json(link["condition"])
        except (ValueError, TypeError) as problem:
            raise ConditionError(f"{link['id']}: {problem}") from problem
        by_id[link["id"]] = _for_wire(link["id"], source, target, link["network"], link["condition"])
    asked = frozenset(by_id)
    targets: dict[tuple[str, str], set[str]] = {}
    for data in by_id.values():
        targets.setdefault((data["source"], data["network"]), set()).add(data["target"])
    for (near, network), reached in sorted(targets.items()):
        for name, host in hosts.items():
            if name != near and name not in reached and host.nic_of(network):
                link_id = f"{near}->{name} over {network}"
                by_id[link_id] = _for_wire(link_id, hosts[near], host, network, {})
                conditions[link_id] = Condition()
    return Wanted(seed, by_id, asked, _filters(by_id, asked, hosts), _devices(by_id, asked, hosts), conditions)


def _ends(link: Mapping[str, Any], hosts: Mapping[str, Host]) -> tuple[Host, Host]:
    ends = []
    for name, mac in ((link["source"], link["source_mac"]), (link["target"], link["target_mac"])):
        host = hosts.get(name)
        nic = host.nic_of(link["network"]) if host else None
        if host is None or nic is None:
            raise ConditionError(f"{link['id']}: this agent knows no host {name} on {link['network']}")
        if nic.mac != mac:
            raise ConditionError(f"{link['id']}: {name} has {nic.mac} on {link['network']} and not {mac}")
        ends.append(host)
    return ends[0], ends[1]


def _for_wire(link_id: str, source: Host, target: Host, network: str, condition: dict[str, Any]) -> dict[str, Any]:
    near, far = source.nic_of(network), target.nic_of(network)
    assert near is not None and far is not None
    return {
        "id": link_id,
        "source": source.name,
        "target": target.name,
        "network": network,
        "source_mac": near.mac,
        "target_mac": far.mac,
        "condition": condition,
        "max_frame": source.mtus.get(near.name, 1500) + ETHERNET_HEADER_BYTES,
    }


def _filters(
    links: Mapping[str, dict[str, Any]], asked: frozenset[str], hosts: Mapping[str, Host]
) -> dict[str, tuple[Filter, ...]]:
    peers: dict[tuple[str, str], list[str]] = {}
    for link_id in sorted(asked):
        link = links[link_id]
        peers.setdefault((link["source"], link["network"]), []).append(link["target_mac"])
    found: dict[str, list[Filter]] = {}
    for (source, network), macs in sorted(peers.items()):
        nic = hosts[source].nic_of(network)
        assert nic is not None
        mine = found.setdefault(source, [])
        try:
            out = bpf.text(bpf.to_the_wire(macs))
        except ValueError as problem:
            raise ConditionError(f"the filter of {source} on {network}: {problem}") from problem
        back = bpf.text(bpf.from_source(nic.mac))
        number = 1 + sum(f.dev == uplink.NAME for f in mine)
        mine += [
            Filter(nic.name, "egress", 1, out, uplink.NAME),
            Filter(uplink.NAME, "ingress", number, back, nic.name),
        ]
    return {source: tuple(mine) for source, mine in found.items()}


def _devices(
    links: Mapping[str, dict[str, Any]], asked: frozenset[str], hosts: Mapping[str, Host]
) -> dict[str, tuple[str, ...]]:
    passed: dict[str, set[str]] = {}
    for link_id in asked:
        link = links[link_id]
        passed.setdefault(link["source"], set()).add(uplink.NAME)
        for name in (link["source"], link["target"]):
            nic = hosts[name].nic_of(link["network"])
            assert nic is not None
            passed.setdefault(name, set()).add(nic.name)
    return {host: tuple(sorted(devices)) for host, devices in sorted(passed.items())}


class Links:
    """The one state of links that a machine has, and the wire that applies it."""

    def __init__(self, start_wire: Callable[[], WireProcess] = WireProcess) -> None:
        self._start_wire = start_wire
        self._wires: Wires | None = None
        self._wanted: Wanted | None = None
        self._hosts: Mapping[str, Host] = {}
        self._touched: dict[str, str] = {}  # host -> name of its w0's other end, in the wire's namespace
        self._start: proof.Moment | None = None
        self._offsets: dict[str, int] = {}
        self._draining: tuple[int, int] | None = None  # when the wire is shut, and when it has to be empty
        self._counts: dict[str, dict[str, Any]] | None = None  # of each link, once it is empty

    def prepare(self, wires: int) -> None:
        """Start so many wires, while other things are done; without this there is one, when it is needed."""
        if self._wires is None:
            self._wires = Wires(self._start_wire, wires)

    def set(self, wanted: Wanted, hosts: Mapping[str, Host]) -> dict[str, Any]:
        """Make the state of every link what is wanted. Returns what the wire and the kernel hold afterwards.

        Raises ConditionError naming the host or link that is not in force, CapabilityError where the kernel lacks
        a part, CommandError.
        """
        self._hosts, self._wanted, self._start = hosts, wanted, None
        self._draining = self._counts = None
        for host in [name for name in self._touched if name not in wanted.filters]:
            self._clear(host)
        if not wanted.links and self._wires is None:
            return {"links": {}, "hosts": {}}
        if self._wires is None:
            self._wires = Wires(self._start_wire, 1)
        self._wires.await_ready()
        self._connect(wanted.filters, self._wires)
        held = self._tell(self._wires, wanted)
        for host in wanted.filters:
            self._filter(host)
        moment = self._baseline(self._wires, wanted)
        problems = proof.not_in_force(wanted.demand, None, moment)
        if problems:
            raise ConditionError("; ".join(text for _, _, text in problems))
        self._start = moment
        return {
            "links": {link: held["links"][link] for link in wanted.links if link in wanted.asked},
            "hosts": {host: view.to_json() for host, view in moment.views.items()},
            "wire": {key: value for key, value in held.items() if key != "links"},
        }

    def _connect(self, hosts: Iterable[str], wires: Wires) -> None:
        taken = {int(peer[1:]) for peer in self._touched.values()}
        free = (number for number in count() if number not in taken)
        made: dict[int, list[str]] = {}
        for host in hosts:
            if host in self._touched:
                continue
            peer = f"h{next(free)}"
            self._touched[host] = peer  # before: half of it may be there when it goes wrong
            pid = wires.of(host).pid
            uplink.create(self._hosts[host].netns, pid, peer, f"connecting {host} to the wire")
            made.setdefault(pid, []).append(peer)
        for pid, peers in made.items():
            uplink.raise_ends(peers, pid)

    def _tell(self, wires: Wires, wanted: Wanted) -> dict[str, Any]:
        held = wires.conditions(wanted.seed, self._touched, wanted.links.values())
        for link, condition in wanted.conditions.items():
            has = held.get("links", {}).get(link)
            if has is None or Condition.from_json(has) != condition:
                raise ConditionError(f"{link} is not in force: asked {condition.to_json()}, the wire holds {has}")
        extra = set(held["links"]) - set(wanted.links)
        if extra:
            raise ConditionError(f"the wire holds links that nobody asked for: {', '.join(sorted(extra))}")
        return held

    def _devices(self, host: str) -> list[str]:
        return [*(nic.name for nic in self._hosts[host].nics), uplink.NAME]

    def _filter(self, host: str) -> None:
        assert self._wanted is not None
        devices, doing = self._devices(host), f"filtering what {host} sends"
        netns, wanted = self._hosts[host].netns, self._wanted.filters[host]
        seen = filters.read(devices, netns, doing)
        filters.write(filters.commands(devices, wanted, seen), "tc", netns, doing)

    def _view(self, host: str) -> proof.View:
        doing, netns = f"reading back the filters of {host}", self._hosts[host].netns
        with kernel.of(netns, doing) as now:
            links = {link["ifname"]: link for link in now.links()}
            devices = [dev for dev in self._devices(host) if dev in links and host in self._touched]
            seen = filters.parse(devices, now.filters(devices))
        offload = uplink.NAME in links and uplink.has_checksum_offload(netns)
        return proof.View(tuple(seen), links, offload)

    def _moment(self, wires: Wires, hosts: Sequence[str], before: proof.Moment | None = None) -> proof.Moment:
        """Read `hosts` anew; the others are as they were `before`. The filters first: the wire is behind them."""
        views = dict(before.views) if before else {}
        views |= {host: self._view(host) for host in hosts}
        return proof.Moment(views, wires.report())

    def _baseline(self, wires: Wires, wanted: Wanted) -> proof.Moment:
        """The first moment. Counts that differ already, and stay so, are what later ones are compared with."""
        moment = self._moment(wires, list(wanted.devices))
        deadline = time.monotonic() + _SETTLE_S
        while (left := proof.unread({}, moment)) and time.monotonic() < deadline:
            time.sleep(0.01)
            moment = self._moment(wires, list(left), moment)
            if proof.unread({}, moment) == left:
                break
        self._offsets = proof.unread({}, moment)
        return moment

    def lost(self) -> str:
        """Why no condition is in force any more: how the wire ended; "" while it lives, or none is needed."""
        return self._wires.death() if self._wires is not None else ""

    def under_way(self, before_ns: int) -> dict[str, Any]:
        """Of what had come into a link by then: how many `frames` have not left, and how long that may go on.

        `due_in_s`: until the last of them is due; `left_in_s`: until all of them have left for certain, because
        the wire is never that late; `stay_s`: how long a frame may rightly stay in a link.
        """
        if self._wanted is None or not self._wanted.links or self._wires is None:
            return {"frames": 0, "due_in_s": 0.0, "left_in_s": 0.0, "stay_s": 0.0}
        frames, due_ns = self._wires.under_way(before_ns)
        now_ns = time.monotonic_ns()
        stay_s = self._wanted.longest_stay_s
        left_in_s = stay_s + _LATE_S - (now_ns - before_ns) / 1e9
        due_in_s = max(0.0, (due_ns - now_ns) / 1e9)
        return {"frames": frames, "due_in_s": due_in_s, "left_in_s": left_in_s, "stay_s": stay_s}

    def drain(self, wait_s: float) -> bool:
        """Whether the links are empty, and what passed them is on record; False after `wait_s`: ask again.

        Raises ConditionError.
        """
        if self._wanted is None or not self._wanted.links or self._wires is None or self._counts is not None:
            return True
        if self._draining is None:
            shut_ns = time.monotonic_ns() + int(_OPEN_S * 1e9)
            self._draining = shut_ns, shut_ns + int((self._wanted.longest_stay_s + _LATE_S) * 1e9)
        self._counts = self._wires.drain(*self._draining, wait_s)
        return self._counts is not None

    def check(self) -> dict[str, Any]:
        """The proof: `problems` is empty if every condition was in force and no frame was lost by accident."""
        nothing: dict[str, Any] = {"hosts": {}, "links": {}, "ring": {}}
        if self._wanted is None or not self._wanted.links:
            return {"problems": [], **nothing}
        if self._wires is None or self._start is None:
            text = "no condition is in force: the last attempt to set them failed"
            return {"problems": [("error", "", text)], **nothing}
        try:
            problems, moment = self._prove(self._wires, self._wanted, self._start)
        except ConditionError as problem:
            return {"problems": [("error", "", f"the conditions are not in force: {problem}")], **nothing}
        reported = moment.report.get("links", {})
        return {
            "problems": problems,
            "hosts": {h: v.to_json() | moment.report["hosts"].get(h, {}) for h, v in moment.views.items()},
            "links": {link: reported[link] for link in sorted(self._wanted.asked) if link in reported},
            "ring": dict(moment.report.get("ring", {})),
        }

    def _prove(
        self, wires: Wires, wanted: Wanted, start: proof.Moment
    ) -> tuple[list[proof.Problem], proof.Moment]:
        while not self.drain(1.0):
            pass
        counts, self._draining, self._counts = self._counts or {}, None, None
        moment = self._moment(wires, list(wanted.devices))
        problems = proof.not_in_force(wanted.demand, start, moment)
        deadline = time.monotonic() + _SETTLE_S
        while not problems and (left := proof.unread(self._offsets, moment)) and time.monotonic() < deadline:
            time.sleep(0.01)
            moment = self._moment(wires, list(left), moment)
            problems = proof.not_in_force(wanted.demand, start, moment)
        moment = moment.counted(counts)
        broken = {who for _, who, _ in problems}
        lost = proof.lost_frames(wanted.demand, start, moment, self._offsets)
        return problems + [problem for problem in lost if problem[1] not in broken], moment

    def ledger(self, offset: int) -> tuple[bytes, int | None]:
        """A piece of the ledger, and where the next one begins; None: that was the last."""
        piece = self._wires.ledger(offset, LEDGER_CHUNK) if self._wires is not None else b""
        return piece, offset + len(piece) if piece else None

    def _clear(self, host: str) -> None:
        doing, netns = f"undoing the conditions of {host}", self._hosts[host].netns
        with kernel.of(netns, doing) as now:
            clsact = {entry["dev"] for entry in now.qdiscs() if entry["kind"] == "clsact"}
        hooks = clsact.intersection(self._devices(host))
        namespaces.batch("tc", [f"qdisc del dev {dev} clsact" for dev in sorted(hooks)], netns, doing)
        uplink.remove(netns, doing)
        del self._touched[host]

    def undo(self) -> list[str]:
        """Remove all that was made, however far it came; returns what went wrong on the way."""
        troubles = []
        for host in list(self._touched):
            try:
                self._clear(host)
            except Exception as problem:  # whatever it is, the next host is cleaned up too
                troubles.append(str(problem))
        if self._wires is not None:
            self._wires.close()
            self._wires = None
        self._wanted = self._start = None
        return troubles
