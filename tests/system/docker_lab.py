"""A deployment on the docker engine, with the agent's client beside it, for tests; and plans made by hand."""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from testbed.agent.client import AgentClient
from testbed.engines.api import Command
from testbed.engines.docker import DockerEngine
from testbed.engines.docker_client import api_closed, connect
from testbed.engines.docker_process import DockerProcess
from testbed.plan.types import Ends, Host, Interface, Network, Plan, Route

PATH = "/opt/testbed/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT = {"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8"}
SYSCTLS = {"net.ipv4.ip_unprivileged_port_start": "1024", "net.ipv4.ping_group_range": "1\t0"}

# Programs for two hosts: one that serves one connection and says who asked, one that asks.
SERVE_ONCE = """
import socket
server = socket.create_server(("0.0.0.0", {port}))
print("READY", flush=True)
connection, peer = server.accept()
connection.sendall(peer[0].encode())
"""
ASK = """
import socket, sys
try:
    print(socket.create_connection(("{to}", {port}), timeout=2).recv(100).decode())
except OSError as problem:
    sys.exit(f"{{type(problem).__name__}} {{problem}}")
"""


# plans by hand: this is about the engine, not about planning


def make_plan(hosts: dict[str, str], third: int = 100, volumes: dict[str, str] | None = None, **more: Any) -> Plan:
    """`hosts`: name -> its networks, separated by blanks. Subnets are 198.18.<third + n>.0/24."""
    names = list(dict.fromkeys(net for nets in hosts.values() for net in nets.split()))
    thirds = {net: third + n for n, net in enumerate(names)}
    networks = tuple(Network(n, f"198.18.{t}.0/24", f"198.18.{t}.1") for n, t in thirds.items())
    interfaces = {
        name: tuple(
            Interface(f"eth{i}", net, f"198.18.{t}.{10 + k}", 24, f"02:42:c6:12:{t:02x}:{10 + k:02x}")
            for i, net in enumerate(nets.split())
            for t in [thirds[net]]
        )
        for k, (name, nets) in enumerate(hosts.items())
    }  # fmt: skip
    known = tuple((nics[0].ip, (name,)) for name, nics in interfaces.items() if nics)
    mounts = tuple((volumes or {}).items())
    made = tuple(
        Host(
            name, None, 1, None, None, nics, (("127.0.0.1", ("localhost",)), *known),
            tuple(Route(f"{nic.ip.rpartition('.')[0]}.0/24", nic.name, nic.ip) for nic in nics), (), SYSCTLS, (),
            mounts, (f"{name}.x",),
        )
        for name, nics in interfaces.items()
    )  # fmt: skip
    made = tuple(replace(host, **more) for host in made)
    return Plan(
        "by-hand", "", "by-hand.yaml", (), 1, 60 * 10**9, None, (), networks, made, {}, tuple(volumes or {}),
        (), (), (), Ends(), (),
    )  # fmt: skip


@dataclass
class Ended:
    exit: int | str | None
    out: str
    err: str
    process: DockerProcess


@dataclass
class Lab:
    engine: DockerEngine
    agent: AgentClient
    plan: Plan
    pids: dict[str, int]
    docker_host: str

    def start(self, host: str, *argv: str, **more: Any) -> tuple[DockerProcess, bytearray, bytearray]:
        out, err = bytearray(), bytearray()
        command = Command(argv, more.pop("environment", ENVIRONMENT), **more)
        return self.engine.start(host, command, out.extend, err.extend), out, err

    def run(self, host: str, *argv: str, **more: Any) -> Ended:
        process, out, err = self.start(host, *argv, **more)
        assert process.wait(30), f"{argv} on {host} did not end"
        return Ended(process.exit, out.decode(errors="replace"), err.decode(errors="replace"), process)

    def python(self, host: str, program: str, **more: Any) -> Ended:
        return self.run(host, "python3", "-ISc", program, **more)

    def ip(self, host: str, number: int = 0) -> str:
        return self.plan.host(host).interfaces[number].ip


@contextmanager
def lab(docker_host: str, plan: Plan, **more: Any) -> Iterator[Lab]:
    engine = DockerEngine(host=docker_host, **more)
    try:
        agent = AgentClient(engine.open())
        try:
            pids = engine.up(plan, agent.door)
            agent.hosts(plan, pids)
            yield Lab(engine, agent, plan, pids, docker_host)
        finally:
            agent.close()
    finally:
        engine.down()


def inspect(lab: Lab, name: str) -> dict[str, Any]:
    with api_closed(connect(lab.docker_host)) as api:
        found: dict[str, Any] = api.inspect_container(f"testbed-{lab.engine.run}{name}")
    return found


def unpacked(data: bytes) -> dict[str, bytes | None]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        files = {member.name: tar.extractfile(member) for member in tar}
        return {name: file.read() if file else None for name, file in files.items()}


def await_true(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < until, "it did not come about within 10 s"
        time.sleep(0.02)
