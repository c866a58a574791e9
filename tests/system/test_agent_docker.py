"""The agent in a container, with eight capabilities and within Docker's own limits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from testbed.agent.client import AgentClient
from testbed.conditions.condition import Condition
from testbed.engines.api import Command
from testbed.engines.docker import DockerEngine
from testbed.errors import EngineError
from testbed.measure import ledger
from testbed.plan.types import Plan
from tests.system.agent_lab import SYSCTLS, ip_of, make_plan, wait_for

ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}


@contextmanager
def deployment(daemon: str, plan: Plan) -> Iterator[tuple[DockerEngine, AgentClient, dict[str, int]]]:
    engine = DockerEngine(host=daemon)
    try:
        agent = AgentClient(engine.open())
        try:
            yield engine, agent, engine.up(plan, agent.door)
        finally:
            agent.close()
    finally:
        engine.down()


def python(engine: DockerEngine, host: str, code: str) -> str:
    out = bytearray()
    process = engine.start(host, Command(("python3", "-c", code), ENVIRONMENT, "/"), out.extend, out.extend)
    assert process.wait(30)
    assert process.exit == 0, out.decode()
    return out.decode()


def test_hosts_in_containers_are_made_right_and_impaired(docker_daemon: str) -> None:
    """/proc/sys is read-only in the agent's container, and yet a sysctl that Docker did not set becomes right."""
    members = {"lan": ["a", "b"], "wan": ["b", "a"]}
    plan = make_plan(members, {"a->b over wan": Condition(delay_ns=30_000_000)})
    code = """
import socket, time
s = socket.socket(2, 2)
s.bind(("", 0))
for n in range(20):
    s.sendto(b"x", ("%s", 9))
print(s.getsockname()[1])
"""
    with deployment(docker_daemon, plan) as (engine, agent, pids):
        narrow = SYSCTLS | {"net.ipv4.ip_local_port_range": "40000 40009"}
        plan = replace(plan, hosts=tuple(replace(host, sysctls=narrow) for host in plan.hosts))
        seen = agent.hosts(plan, pids)
        assert seen["a"]["sysctls"]["net.ipv4.ip_local_port_range"].split() == ["40000", "40009"]
        assert agent.conditions(plan)["links"] == {"a->b over wan": {"delay_ns": 30_000_000}}
        assert int(python(engine, "a", code % ip_of(plan, "b", "wan"))) in range(40000, 40010)
        assert int(python(engine, "a", code % ip_of(plan, "b", "lan"))) in range(40000, 40010)
        assert agent.counters(["b"])["b"]["UdpInErrors"] == 0
        wait_for(lambda: agent.counters(["b"])["b"]["UdpNoPorts"] == 40)
        proof = agent.check()
        assert proof["problems"] == []
        assert proof["end"]["links"]["a->b over wan"]["frames"] == 20
        assert len(list(ledger.decode(agent.ledger()))) == 20


def test_programs_in_containers_are_seen_and_signalled(docker_daemon: str) -> None:
    serve = "import socket, time; s = socket.create_server(('', 8000)); time.sleep(60)"
    with deployment(docker_daemon, make_plan({"lan": ["a", "b"]})) as (engine, agent, pids):
        agent.hosts(make_plan({"lan": ["a", "b"]}), pids)
        command = Command(("python3", "-c", serve), ENVIRONMENT, "/")
        process = engine.start("a", command, lambda _: None, lambda _: None)
        found = wait_for(lambda: agent.sockets("a", process.pid))
        assert found == [{"proto": "tcp", "ip": "0.0.0.0", "port": 8000, "path": None}]
        assert agent.lookup("a", "python3", ENVIRONMENT["PATH"], "/") == "/usr/bin/python3"
        assert agent.lookup("a", "dockerd", ENVIRONMENT["PATH"], "/") is None
        for host, pid in (("b", process.pid), ("a", 1)):
            with pytest.raises(EngineError, match="refused"):
                agent.signal(host, pid, "KILL")
        assert agent.signal("a", process.pid, "TERM", tree=True) == [process.pid]
        assert process.wait(10)
        assert process.exit == "SIGTERM"
