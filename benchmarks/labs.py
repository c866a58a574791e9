"""Hosts for the time of a measurement, on an engine, with the conditions of a scenario in force."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from testbed.agent.client import AgentClient
from testbed.engines.api import Command, Engine, Process
from testbed.plan import Plan, plan
from testbed.scenario import parse

ENVIRONMENT = {"PATH": "/opt/testbed/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}


def plan_of(hosts: int, links: str = "") -> Plan:
    """`hosts` of them on one network, named h-1, h-2, ...; `links` as in a scenario."""
    text = f"testbed: 1\nabout: A benchmark.\nduration: 1 s\nhosts: {{h: {{count: {hosts}}}}}\n"
    return plan(parse(f"{text}links: {{{links}}}\n" if links else text, "bench.yaml"))


def _complain(data: bytes) -> None:
    sys.stderr.buffer.write(data)


@dataclass
class Lab:
    engine: Engine
    agent: AgentClient
    plan: Plan
    up_s: float = 0.0  # from nothing to hosts that are made right
    links_s: float = 0.0  # until their conditions were in force and read back
    outputs: dict[int, bytearray] = field(default_factory=dict)

    def start(self, host: str, *argv: str) -> Process:
        output = bytearray()
        process = self.engine.start(host, Command(argv, ENVIRONMENT, "/"), output.extend, _complain)
        self.outputs[id(process)] = output
        return process

    def output(self, process: Process) -> str:
        return self.outputs[id(process)].decode()

    def run(self, host: str, *argv: str, timeout_s: float = 120) -> str:
        """Returns its output. Raises RuntimeError for one that fails."""
        process = self.start(host, *argv)
        if not process.wait(timeout_s) or process.exit != 0:
            raise RuntimeError(f"{' '.join(argv)} in {host}: {process.exit}")
        return self.output(process)

    def ready(self, host: str, *argv: str) -> Process:
        """A server that has said READY."""
        process = self.start(host, *argv)
        while "READY" not in self.output(process):
            if process.exit is not None:
                raise RuntimeError(f"{' '.join(argv)} in {host}: {process.exit}")
            time.sleep(0.005)
        return process

    def stop(self, host: str, process: Process) -> str:
        self.agent.signal(host, process.pid, "TERM")
        process.wait(30)
        return self.output(process)


@contextmanager
def deployed(engine: Engine, made: Plan, wires: int = 1) -> Iterator[Lab]:
    """As a run does it, without programs."""
    began = time.perf_counter()
    agent = None
    try:
        agent = AgentClient(engine.open())
        agent.prepare_wires(made, wires)
        pids = engine.up(made, agent.door)
        agent.hosts(made, pids)
        lab = Lab(engine, agent, made, up_s=time.perf_counter() - began)
        if made.links:
            began = time.perf_counter()
            agent.conditions(made)
            lab.links_s = time.perf_counter() - began
        yield lab
    finally:
        if agent is not None:
            agent.close()
        engine.down()


def processes() -> dict[int, str]:
    """Every process that came from this one and lives, with its command line."""
    found: dict[int, str] = {}
    young = [os.getpid()]
    while young:
        pid = young.pop()
        with suppress(OSError):
            found[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            for task in Path(f"/proc/{pid}/task").iterdir():
                young += map(int, (task / "children").read_text().split())
    return found


def resident_bytes(pid: int) -> int:
    """VmRSS (proc(5))."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) * 1024


def cpu_s(pid: int, ticks: int = 100) -> float:
    """What the process has used of a processor, in it and in the kernel for it (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / ticks


def quantile(samples: Sequence[float], percent: float) -> float:
    """The smallest sample that `percent` of them do not exceed."""
    ordered = sorted(samples)
    return ordered[max(0, -(-len(ordered) * int(percent) // 100) - 1)]
