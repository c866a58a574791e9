"""What would be built, decided to the last address: plain frozen data that turns into JSON and back.

Everything after planning (engines, agent, runner, judge) reads the plan and never the scenario file.
Integers are in base units with the unit last in the name. Tuples, not lists: a plan does not change.
"""

from __future__ import annotations

import typing
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from testbed.conditions.condition import Condition
from testbed.rebuild import rebuild

PLAN_FORMAT = 1
CONGESTION = "cubic"  # TCP's algorithm on hosts that do not say: what Linux has by default
OF_THE_IMAGE = ""  # in place of a text that only the image of the host knows, until its engine has asked it


@dataclass(frozen=True)
class Network:
    name: str
    subnet: str  # "198.18.0.0/24"
    gateway: str  # the address Docker gives its bridge; no host uses it, and the door in front of it is shut
    subnet6: str | None = None  # "2001:2::/64" of a dual network
    gateway6: str | None = None


@dataclass(frozen=True)
class Interface:
    name: str  # "eth0", "eth1", ... in the order of the host's networks
    network: str
    ip: str
    prefix_bits: int
    mac: str  # 02:42 + the four bytes of the address: what Docker gives by default, set and read back anyway
    ip6: str | None = None  # on a dual network
    prefix6_bits: int | None = None


@dataclass(frozen=True)
class Route:
    to: str  # in CIDR form
    dev: str
    src: str | None = None


@dataclass(frozen=True)
class Neighbour:
    ip: str
    mac: str
    dev: str


@dataclass(frozen=True)
class File:
    """One file copied into a host. Exactly one of `source` (relative to the scenario file) and `text`."""

    target: str  # absolute path in the host
    source: str | None = None
    text: str | None = None


@dataclass(frozen=True)
class Metric:
    """How a metric is read from a program that does not write our records."""

    name: str
    prints: str | None = None  # a regex; its first group (or the whole match) is a sample
    json: str | None = None  # a.b.c into each JSON line
    unit: str | None = None  # "ms", "bytes", ...: the sample's unit; None: a plain number or a word
    file: str | None = None  # a collected path; None: stdout


@dataclass(frozen=True)
class Ready:
    """When a `serve` counts as ready. `auto`: listens (TCP), is bound (UDP, UNIX) or prints READY."""

    kind: Literal["auto", "listens", "prints", "answers", "wait"]
    within_ns: int
    sockets: tuple[str, ...] = ()  # "tcp 80", "udp 53", "unix /run/x.sock"
    regex: str | None = None
    argv: tuple[str, ...] = ()
    wait_ns: int = 0


@dataclass(frozen=True)
class Program:
    id: str  # "host.program"
    name: str
    host: str
    kind: Literal["run", "serve"]
    argv: tuple[str, ...]  # empty: what the image serves by itself, until the engine has asked the image
    after: tuple[tuple[str, str], ...]  # (program id, "ready" | "started" | "ended")
    ready: Ready
    timeout_ns: int  # run only
    stdin: str | None  # literal text
    stdin_file: str | None  # relative to the scenario file
    environment: dict[str, str]  # complete
    working_dir: str
    user: str | None
    files: tuple[File, ...]
    collect: tuple[str, ...]
    metrics: tuple[Metric, ...]
    stop_signal: str
    stop_grace_ns: int
    line: int = 0
    venv: str | None = None  # a virtual environment, relative to the scenario file


@dataclass(frozen=True)
class Mount:
    """A directory of the author's machine that a host sees read-only.

    `source` is relative to the scenario file; in the plan of a run it is the real path.
    """

    source: str
    path: str  # in the host


@dataclass(frozen=True)
class Host:
    name: str
    group: str | None  # the name in the file when it has a `count`
    index: int  # 1 for a host without `count`
    image: str | None
    build: str | None
    interfaces: tuple[Interface, ...]
    names: tuple[tuple[str, tuple[str, ...]], ...]  # /etc/hosts: (address, names)
    routes: tuple[Route, ...]  # the whole table
    neighbours: tuple[Neighbour, ...]
    sysctls: dict[str, str]
    capabilities: tuple[str, ...]  # the whole set, without CAP_
    volumes: tuple[tuple[str, str], ...]  # (volume, path)
    programs: tuple[str, ...]  # ids
    congestion: str = CONGESTION  # TCP's algorithm; "machine": whatever is inherited
    mounts: tuple[Mount, ...] = ()

    def hosts_file(self) -> str:
        """/etc/hosts, a line an address, exactly as planned."""
        return "".join(f"{address}\t{' '.join(names)}\n" for address, names in self.names)


@dataclass(frozen=True)
class Link:
    """One direction between two hosts over one network, watched or impaired."""

    id: str  # "sensor->collector over lan", always in full
    source: str
    target: str
    network: str
    condition: Condition
    rule: str  # the key of `links:` that won; "" when only an expectation names it
    line: int
    overruled: tuple[str, ...] = ()  # the keys that named it too and lost


@dataclass(frozen=True)
class Expectation:
    text: str
    because: str
    line: int
    column: int


@dataclass(frozen=True)
class Ends:
    outcome: Literal["pass", "fail", "error", "inconclusive"] = "pass"
    text: str = ""


@dataclass(frozen=True)
class Plan:
    scenario: str
    about: str
    file: str  # the file's own name, without a directory
    tags: tuple[str, ...]
    seed: int
    timeout_ns: int
    duration_ns: int | None
    requires: tuple[str, ...]
    networks: tuple[Network, ...]
    hosts: tuple[Host, ...]
    groups: dict[str, tuple[str, ...]]  # group name -> its hosts, in order
    volumes: tuple[str, ...]
    programs: tuple[Program, ...]  # in start order
    links: tuple[Link, ...]
    expectations: tuple[Expectation, ...]
    ends: Ends
    fails_when: tuple[str, ...]  # names only; `prove` plans each of them anew
    plan_format: int = PLAN_FORMAT
    notes: tuple[str, ...] = field(default=())  # what the author should know: jitter may reorder, samples needed

    def host(self, name: str) -> Host:
        """The host of that name. Raises KeyError."""
        return {host.name: host for host in self.hosts}[name]

    def program(self, program_id: str) -> Program:
        """The program of that id. Raises KeyError."""
        return {program.id: program for program in self.programs}[program_id]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Plan:
        """The inverse of `to_json`. Raises ValueError if the data is not a plan of this format."""
        if data.get("plan_format") != PLAN_FORMAT:
            raise ValueError(f"plan format {data.get('plan_format')!r}, this version reads {PLAN_FORMAT}")
        try:
            plan = typing.cast(Plan, rebuild(cls, data))
        except TypeError as problem:
            raise ValueError(f"not a plan: {problem}") from problem
        lone = {id for host in plan.hosts for id in host.programs} ^ {program.id for program in plan.programs}
        if lone:
            raise ValueError(f"not a plan: {', '.join(sorted(lone))} of only one of its hosts and its programs")
        return plan
