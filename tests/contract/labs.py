"""Deployments for the contract suite: an engine, the agent's client, and hosts that know the command `do`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from testbed.agent.client import AgentClient
from testbed.engines.api import Command, Engine, Process
from testbed.plan import Plan, plan
from testbed.scenario import parse
from tests.parcel import put

DO = Path(__file__).with_name("do.py")
TWO_NETWORKS = """
testbed: 1
about: Three hosts, two networks, one of them on both.
duration: 1 s
networks: {left: , right: }
hosts:
  a: {networks: [left]}
  b: {networks: [left, right]}
  c: {networks: [right]}
"""
DUAL_NETWORKS = """
testbed: 1
about: Two networks with IPv6, one without.
duration: 1 s
networks: {left: {ip: dual}, right: {ip: dual}, plain: }
hosts:
  a: {networks: [left]}
  b: {networks: [plain, left, right]}
  c: {networks: [right]}
  d: {networks: [plain]}
"""
VOLUMES = """
testbed: 1
about: Volumes at places that a host has anyway, and below them.
duration: 1 s
volumes: {spool: , own: }
hosts:
  a: {volumes: [spool:/var/spool/in, own:/tmp]}
  b: {volumes: [own:/srv/deep/out/below, spool:/srv/deep/out, spool:/srv/again]}
"""


@dataclass
class Lab:
    """A deployment with the agent's client, as the runner would have it."""

    engine: Engine
    agent: AgentClient
    plan: Plan
    pids: dict[str, int]
    baseline: dict[str, Any] = field(default_factory=dict)  # of each host, as it was read back

    def start(self, host: str, *words: str, stdin: bytes = b"", cwd: str = "/scenario") -> Running:
        argv = ("do", *words) if self.engine.name == "fake" else ("python3", "/scenario/do.py", *words)
        return self.command(host, argv, stdin, cwd)

    def command(self, host: str, argv: Sequence[str], stdin: bytes = b"", cwd: str = "/scenario") -> Running:
        path = "/opt/testbed/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        environment = {"PATH": path, "HOME": "/root", "TESTBED_HOST": host, "COLOR": "blue"}
        running = Running()
        command = Command(tuple(argv), environment, cwd, None, stdin)
        running.process = self.engine.start(host, command, running.out.extend, running.err.extend)
        return running

    def run(self, host: str, *words: str, **more: Any) -> Running:
        running = self.start(host, *words, **more)
        assert running.process.wait(20), f"{words} on {host} did not end"
        return running

    def await_port(self, host: str, process: Process, port: int) -> None:
        until = time.monotonic() + 10
        while not any(s["port"] == port for s in self.agent.sockets(host, process.pid)):
            assert time.monotonic() < until and process.exit is None, "it does not listen"
            time.sleep(0.01)


class Running:
    def __init__(self) -> None:
        self.out, self.err = bytearray(), bytearray()
        self.process: Process

    @property
    def exit(self) -> int | str | None:
        return self.process.exit

    @property
    def text(self) -> str:
        return self.out.decode().strip()


MakeEngine = Callable[[], Engine]


@contextmanager
def lab(new_engine: MakeEngine, text: str = TWO_NETWORKS) -> Iterator[Lab]:
    engine = new_engine()
    try:
        agent = AgentClient(engine.open())
        try:
            planned = plan(parse(text, "contract.yaml"), 1, engine.taken())
            pids = engine.up(planned, agent.door)
            for host in planned.hosts:
                put(engine, host.name, ("/scenario/do.py", DO.read_bytes()))
            baseline = agent.hosts(planned, pids)
            agent.conditions(planned)
            yield Lab(engine, agent, planned, pids, baseline)
        finally:
            agent.close()
    finally:
        engine.down()


@contextmanager
def lab_avoiding(new_engine: MakeEngine, up: Lab) -> Iterator[Lab]:
    """A second lab; on an engine whose networks are the machine's, one that keeps off the first one's subnets."""
    engine = new_engine()
    try:
        agent = AgentClient(engine.open())
        try:
            planned = plan(parse(TWO_NETWORKS, "contract.yaml"), 1, engine.taken())
            if up.engine.name == "docker":
                assert not {n.subnet for n in planned.networks} & {n.subnet for n in up.plan.networks}
            pids = engine.up(planned, agent.door)
            for host in planned.hosts:
                put(engine, host.name, ("/scenario/do.py", DO.read_bytes()))
            agent.hosts(planned, pids)
            yield Lab(engine, agent, planned, pids)
        finally:
            agent.close()
    finally:
        engine.down()
