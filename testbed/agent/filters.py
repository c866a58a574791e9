"""Filters at the clsact hooks of interfaces: wanted, written, read back. And the door of a bridge, also one.

A filter is known by where it hangs; the kernel gives back its instructions, so what is read is compared with what
was wanted to the last one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from testbed.agent import bpf, kernel, namespaces
from testbed.errors import CapabilityError, CommandError, ConditionError, EngineError

_LACKING = (
    "classifier not found",
    "qdisc kind is unknown",
    "Unknown device type",
    "Failed to load TC action module",
    "Operation not supported",
)
_FOREIGN = "not ours: "
_HOW = (
    "the kernel must have veth, sch_ingress, cls_bpf and act_mirred (built in, or as modules that root has loaded)"
)


@dataclass(frozen=True)
class Filter:
    """One classic BPF program at one hook, and the interface it redirects to. `to_dev` None: direct action."""

    dev: str
    side: str  # "ingress" or "egress"
    number: int  # preference and handle, from 1: several filters of one hook are asked in this order
    program: str  # as `tc` prints it
    to_dev: str | None

    def replace_command(self) -> str:
        where = (
            f"filter replace dev {self.dev} {self.side} protocol all pref {self.number} handle {self.number} bpf"
        )
        if self.to_dev is None:
            return f'{where} da bytecode "{self.program},"'
        return f'{where} bytecode "{self.program}," action mirred egress redirect dev {self.to_dev}'

    def delete_command(self) -> str:
        return f"filter del dev {self.dev} {self.side} protocol all pref {self.number} handle {self.number} bpf"

    @property
    def is_ours(self) -> bool:
        return not self.program.startswith(_FOREIGN)

    def __str__(self) -> str:
        if not self.is_ours:
            return self.program
        does = f"redirects to {self.to_dev}" if self.to_dev else "decides itself"
        return f"{self.side} filter {self.number} of {self.dev}, {self.program.split(',')[0]} instructions, {does}"


@dataclass(frozen=True)
class Seen:
    """A filter as the kernel holds it, with what it counted: segments matched, and those it could not redirect."""

    filter: Filter
    packets: int
    failed: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self.filter) | {"packets": self.packets, "failed": self.failed}


def parse(devices: Sequence[str], answers: Sequence[Sequence[dict[str, Any]]]) -> list[Seen]:
    """All filters of these devices, also those that nobody of us made: their `program` is then what they are.

    `answers`: of each device and side, as `kernel.filters` and `tc -j -s filter show` have them.
    """
    hooks = [(dev, side) for dev in devices for side in kernel.SIDES]
    found = []
    for (dev, side), entries in zip(hooks, answers, strict=True):
        found += [_parse_one(dev, side, entry) for entry in entries if "options" in entry]
    return found


def _parse_one(dev: str, side: str, entry: dict[str, Any]) -> Seen:
    options = entry["options"]
    lines = options.get("bytecode", {}).get("insns", ())
    program = bpf.text(tuple(bpf.Instruction(line["code"], line["jt"], line["jf"], line["k"]) for line in lines))
    actions = options.get("actions", ())
    redirects = [a for a in actions if a.get("kind") == "mirred" and a.get("mirred_action") == "redirect"]
    ours = (
        entry.get("kind") == "bpf"
        and entry.get("protocol") == "all"
        and entry.get("chain", 0) == 0
        and int(options.get("handle", "0"), 0) == entry.get("pref")
        and bool(options.get("direct-action")) == (not actions)
        and len(actions) == len(redirects) <= 1
        and all(
            a.get("direction") == "egress" and a.get("control_action") == {"type": "stolen"} for a in redirects
        )
    )
    stats = redirects[0].get("stats", {}) if redirects else {}
    return Seen(
        Filter(
            dev,
            side,
            entry.get("pref", 0),
            program if ours else f"{_FOREIGN}{entry}",
            redirects[0].get("to_dev") if redirects else None,
        ),
        packets=stats.get("packets", 0),
        failed=stats.get("overlimits", 0),
    )


def commands(devices: Iterable[str], wanted: Sequence[Filter], seen: Sequence[Seen]) -> list[str]:
    """From what is there to what is wanted. What is right already is not touched, and so keeps its counts."""
    have = {entry.filter for entry in seen}
    lines = [f"qdisc replace dev {dev} clsact" for dev in devices if any(f.dev == dev for f in wanted)]
    places = {(f.dev, f.side, f.number) for f in wanted}
    lines += [f.delete_command() for f in have if f.is_ours and (f.dev, f.side, f.number) not in places]
    lines += [f.replace_command() for f in wanted if f not in have]
    return lines


def differences(wanted: Iterable[Filter], seen: Iterable[Filter]) -> list[str]:
    """What is missing, changed or too much, in words."""
    want = {(f.dev, f.side, f.number): f for f in wanted}
    have = {(f.dev, f.side, f.number): f for f in seen}
    wrong = []
    for place in sorted(want.keys() | have.keys()):
        asked, found = want.get(place), have.get(place)
        if found is None:
            wrong.append(f"missing: {asked}")
        elif asked is None:
            wrong.append(f"too much: {found}")
        elif asked != found:
            other = f"{found}" if f"{found}" != f"{asked}" else "another program in its place"
            wrong.append(f"was to be {asked}; is {other}")
    return wrong


def read(devices: Sequence[str], netns: int | None, doing: str) -> list[Seen]:
    """Raises EngineError."""
    with kernel.of(netns, doing) as now:
        return parse(devices, now.filters(devices))


def write(lines: Iterable[str], tool: str, netns: int | None, doing: str) -> None:
    """Raises CapabilityError where the kernel lacks a part, else CommandError."""
    try:
        namespaces.batch(tool, lines, netns, doing)
    except CommandError as problem:
        if any(words in problem.stderr for words in _LACKING):
            raise CapabilityError(f"{problem}: {_HOW}") from problem
        raise


def shut_door(bridge: str) -> dict[str, Any]:
    """Drop what hosts send to the machine itself at this bridge, and what it sends to them; ports pass each other.

    Group frames go to all ports: a bridge that looks for who wants them drops what is no good one.
    Returns the filters as read back. Raises ConditionError if they are not there afterwards.
    """
    doing = f"shutting the door of {bridge}"
    wanted = _door(bridge)
    write(commands([bridge], wanted, read([bridge], None, doing)), "tc", None, doing)
    namespaces.batch("ip", [f"link set dev {bridge} type bridge mcast_snooping 0"], None, doing)
    seen = read([bridge], None, doing)
    wrong = differences(wanted, [entry.filter for entry in seen])
    if wrong:
        raise ConditionError(f"{doing}: {'; '.join(wrong)}")
    return {entry.filter.side: entry.to_json() for entry in seen}


def silence_ports(bridges: Collection[str]) -> None:
    """The machine's ends of the hosts' interfaces say nothing by themselves: no IPv6 there. Raises EngineError."""
    doing = "silencing the ports of the bridges"
    with kernel.of(None, doing) as now:
        ports = [link["ifname"] for link in now.links() if link.get("master") in bridges]
    for port in ports:
        switch = Path("/proc/sys/net/ipv6/conf", port, "disable_ipv6")
        try:
            if switch.read_text().strip() != "1":
                switch.write_text("1")
        except FileNotFoundError:  # no IPv6 here, or the port has just gone with its host
            continue
        except OSError as problem:
            raise EngineError(f"{doing}: {switch}: {problem.strerror}") from problem


def open_door(bridge: str) -> None:
    """Undo `shut_door`, unless hosts are still behind it: then it stays shut, and goes with the bridge."""
    doing = f"opening the door of {bridge}"
    with kernel.of(None, doing) as now:
        links = now.links()
    there = any(link["ifname"] == bridge for link in links)
    if there and not any(link.get("master") == bridge for link in links):
        namespaces.batch("tc", [f"qdisc del dev {bridge} clsact"], None, doing)


def _door(bridge: str) -> list[Filter]:
    return [Filter(bridge, side, 1, bpf.text(bpf.DROP_ALL), None) for side in kernel.SIDES]
