"""Is every condition in force, and has no frame got lost on the way to it? Pure comparison of what was read.

A thing that is missing or changed is an `error`: the network was not the one that was asked for. A frame that the
wire itself lost is `inconclusive`: the network was right, and what was measured on it is not.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from testbed.agent import uplink
from testbed.agent.filters import Filter, Seen, differences
from testbed.errors import counted

Problem = tuple[str, str, str]  # outcome, link id or host or "", text


@dataclass(frozen=True)
class View:
    """One host as the kernel shows it at one moment."""

    filters: tuple[Seen, ...]  # of its interfaces and of w0; of a source only
    links: Mapping[str, dict[str, Any]]  # every interface, as `kernel.links` shows it
    checksum_offload: bool = False  # of w0

    @property
    def sent_to_wire(self) -> int:
        """Frames that the egress filters counted on their way to the wire."""
        return sum(seen.packets for seen in self.filters if seen.filter.side == "egress")

    def drops(self, dev: str) -> tuple[int, int]:
        """Of the interface, on receiving and on sending."""
        stats = self.links.get(dev, {}).get("stats64", {})
        return stats.get("rx", {}).get("dropped", 0), stats.get("tx", {}).get("dropped", 0)

    def to_json(self) -> dict[str, Any]:
        return {
            "sent_to_wire": self.sent_to_wire,
            "filters": [{"is": str(seen.filter), "packets": seen.packets} for seen in self.filters],
            "dropped": {dev: dict(zip(("received", "sent"), self.drops(dev), strict=True)) for dev in self.links},
        }


@dataclass(frozen=True)
class Moment:
    """Everything that is read when a proof is taken."""

    views: Mapping[str, View]  # by host: sources and targets
    report: Mapping[str, Any]  # the wire's; see its protocol

    def frames_in(self, host: str) -> int:
        return int(self.report.get("hosts", {}).get(host, {}).get("frames_in", 0))

    def counted(self, links: Mapping[str, Mapping[str, int]]) -> Moment:
        """The same with these counts of each link: those of the moment when the ledger was closed."""
        held = self.report.get("links", {})
        return Moment(self.views, {**self.report, "links": {link: {**held[link], **links[link]} for link in held}})

    def ring(self, name: str) -> int:
        return int(self.report.get("ring", {}).get(name, 0))


@dataclass(frozen=True)
class Demand:
    """What has to be there.

    `links`: whom a problem of each names, the link itself or a source host where nobody asked for the link.
    """

    filters: Mapping[str, tuple[Filter, ...]]  # by source host
    links: Mapping[str, str]
    conditions: Mapping[str, dict[str, Any]] = field(default_factory=dict)  # by link
    devices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # by host, what frames of links pass


def not_in_force(demand: Demand, start: Moment | None, now: Moment) -> list[Problem]:
    """What is missing or changed. `start` None: nothing to compare counters and interface numbers with yet."""
    problems: list[Problem] = []
    for host, wanted in demand.filters.items():
        view = now.views[host]
        wrong = uplink.wrong(view.links.get(uplink.NAME), view.checksum_offload)
        wrong += differences(wanted, (seen.filter for seen in view.filters))
        wrong += _changed_interfaces({f.dev for f in wanted}, start.views[host] if start else None, view)
        problems += [("error", host, f"the conditions of {host} are not in force: {text}") for text in wrong]
    held = now.report.get("links", {})
    problems += [
        ("error", who, f"{link} is not in force: the wire does not hold it")
        for link, who in demand.links.items()
        if link not in held
    ]
    problems += [
        ("error", demand.links[link], f"{link} is not in force: asked {asked}, the wire holds {has}")
        for link, asked in demand.conditions.items()
        if link in held and (has := held[link].get("condition")) != asked
    ]
    return problems


def _changed_interfaces(devices: Iterable[str], start: View | None, now: View) -> Iterable[str]:
    for dev in sorted({*devices, uplink.NAME}):
        link = now.links.get(dev)
        if link is None:
            if dev != uplink.NAME:  # of which it is said elsewhere
                yield f"{dev} is missing"
        elif start is not None and dev in start.links and link["ifindex"] != start.links[dev]["ifindex"]:
            yield f"{dev} was replaced by another interface of that name"
        elif "UP" not in link["flags"]:
            yield f"{dev} is down"


def unread(offsets: Mapping[str, int], now: Moment) -> dict[str, int]:
    """By host, frames that its filters counted and the wire has not read; negative if it read more. No zeros.

    `offsets` is what the difference was when the conditions came into force.
    """
    left = {
        host: view.sent_to_wire - now.frames_in(host) - offsets.get(host, 0) for host, view in now.views.items()
    }
    return {host: n for host, n in left.items() if n}


def lost_frames(demand: Demand, start: Moment, now: Moment, offsets: Mapping[str, int]) -> list[Problem]:
    """What the wire, its rings or an interface lost, and counts that contradict each other."""
    problems: list[Problem] = []
    missing = unread(offsets, now)
    ring_drops = now.ring("rx_drops") - start.ring("rx_drops")
    if ring_drops:
        problems.append(_lost("", ring_drops, "its receive ring was full"))
    for host, n in missing.items():
        if n < 0:
            more = counted(-n, "frame")
            text = f"the wire read {more} more than they counted, so they were taken away and put back"
            problems.append(("error", host, f"the filters of {host} were not in force all the time: {text}"))
    unexplained = sum(n for n in missing.values() if n > 0) - ring_drops
    if unexplained > 0:
        hosts = [host for host, n in missing.items() if n > 0]
        who = hosts[0] if len(hosts) == 1 else ""
        problems.append(
            _lost(who, unexplained, f"sent by {', '.join(hosts)}, they never reached its receive ring")
        )
    problems += _lost_in_the_wire(demand, start, now)
    for host, devices in demand.devices.items():
        problems += _dropped(host, devices, start.views[host], now.views[host])
    return problems


def _lost_in_the_wire(demand: Demand, start: Moment, now: Moment) -> Iterable[Problem]:
    causes = {"too_large": "larger than a slot", "tx_errors": "refused by the kernel on sending"}
    lost = {cause: now.ring(cause) - start.ring(cause) for cause in causes}
    why = ", ".join(f"{n} {'was' if n == 1 else 'were'} {causes[cause]}" for cause, n in lost.items() if n)
    known = 0
    for host in now.views:
        if n := now.report.get("hosts", {}).get(host, {}).get("unknown", 0):
            known += n
            yield _lost(host, n, f"{host} sent them to or from an address that belongs to no link")
    for link, who in demand.links.items():
        if n := now.report.get("links", {}).get(link, {}).get("unasked", 0):
            known += n
            yield _lost(who, n, f"on {link} ({why})" if why else f"on {link}")
    if sum(lost.values()) > known:  # else they are among those above, where it is known whose they are
        yield _lost("", sum(lost.values()) - known, why)


def _dropped(host: str, devices: Iterable[str], start: View, now: View) -> Iterable[Problem]:
    for dev in devices:
        for word, before, after in zip(("receiving", "sending"), start.drops(dev), now.drops(dev), strict=True):
            if after != before:
                yield (
                    "inconclusive",
                    host,
                    f"the kernel dropped {counted(after - before, 'frame')} at {dev} of {host} on {word}, unasked",
                )


def _lost(who: str, n: int, why: str) -> Problem:
    return ("inconclusive", who, f"the wire itself lost {counted(n, 'frame')}: {why}")
