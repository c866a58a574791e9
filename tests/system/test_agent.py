"""The agent and its hosts, in real namespaces: as root, and as an ordinary user in a user namespace."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest

from testbed.agent.client import AgentClient
from testbed.errors import CapabilityError, ConditionError, EngineError
from tests.conftest import missing
from tests.system.agent_lab import (
    SYSCTLS,
    Build,
    Lab,
    builder,
    client,
    ip_of,
    make_plan,
    ping,
    python,
    wait_for,
)


@pytest.fixture(params=["root", "user"])
def build(request: pytest.FixtureRequest) -> Build:
    return builder(request.param)


# the baseline


def test_a_host_that_its_engine_left_half_done_is_made_right(build: Build) -> None:
    plan = make_plan({"lan": ["a", "b"], "wan": ["b", "a"]})
    swapped = [
        {"dev": "eth1", "bridge": "br-lan", "address": "198.18.0.2/24", "up": True},
        {"dev": "eth0", "bridge": "br-wan", "address": "198.18.1.2/24", "up": False},
    ]
    with build(plan, shape={"a": swapped}) as here, client(here) as agent:
        here.run("a", "ip", "route", "add", "default", "via", "198.18.0.1")
        here.run("a", "ip", "neigh", "add", "198.18.0.99", "lladdr", "02:00:00:00:00:01", "dev", "eth1")
        seen = agent.hosts(plan, here.pids)
        links = {link["ifname"]: link for link in here.ip("a", "address")}
        wanted = {nic.name: nic for nic in plan.host("a").interfaces}
        assert links.keys() == {"lo", "eth0", "eth1"}
        for name, nic in wanted.items():
            assert links[name]["address"] == nic.mac
            assert [(a["local"], a["prefixlen"]) for a in links[name]["addr_info"]] == [(nic.ip, 24)]
            assert "UP" in links[name]["flags"]
        assert "UP" in links["lo"]["flags"]
        assert sorted((route["dst"], route["dev"]) for route in here.ip("a", "route")) == [
            ("198.18.0.0/24", "eth0"),
            ("198.18.1.0/24", "eth1"),
            ("224.0.0.0/4", "eth0"),
            ("255.255.255.255", "eth0"),
        ]
        neighbours = {entry["dst"]: (entry["lladdr"], entry["state"]) for entry in here.ip("a", "neigh")}
        assert neighbours == {
            ip_of(plan, "b", net): (plan.host("b").interfaces[n].mac, ["PERMANENT"])
            for n, net in enumerate(["lan", "wan"])
        }
        found = here.run(
            "a", "sysctl", "-n", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_no_metrics_save"
        ).stdout
        assert found.split() == ["32768", "60999", "1"]
        assert seen["a"]["sysctls"] == SYSCTLS
        assert len(ping(here, "a", ip_of(plan, "b", "lan"))) == 3
        assert len(ping(here, "a", ip_of(plan, "b", "wan"))) == 3


def test_ping_sockets_are_closed_to_programs_without_capabilities(build: Build) -> None:
    plan = make_plan({"lan": ["a"]})
    code = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)"
    with build(plan) as here, client(here) as agent:
        agent.hosts(plan, here.pids)
        done = here.run("a", "setpriv", "--bounding-set", "-all", "python3", "-c", code, check=False)
        assert "PermissionError" in done.stderr


@pytest.mark.parametrize("asked", ["cubic", "reno", "bbr", "machine"])
@pytest.mark.parametrize("inherited", ["cubic", "reno", "bbr"])
def test_tcps_algorithm_is_the_plans_whatever_the_host_inherited(build: Build, inherited: str, asked: str) -> None:
    """By the sysctl where that may be set, and else by every route, also those within the host; twice alike."""
    plan = make_plan({"lan": ["a", "b"], "wan": ["a"]})
    plan = replace(plan, hosts=tuple(replace(host, congestion=asked) for host in plan.hosts))
    with build(plan) as here, client(here) as agent:
        allowed = here.run("a", "sysctl", "-n", "net.ipv4.tcp_allowed_congestion_control").stdout.split()
        available = here.run("a", "sysctl", "-n", "net.ipv4.tcp_available_congestion_control").stdout.split()
        for host in plan.hosts:
            change = here.run(
                host.name, "sysctl", "-w", f"net.ipv4.tcp_congestion_control={inherited}", check=False
            )
            if change.returncode:
                assert inherited not in allowed
                missing("congestion", f"this kernel lets no host have {inherited}: it allows {' '.join(allowed)}")
        if asked not in (*available, "machine"):
            with pytest.raises(CapabilityError, match=f"this kernel has only .*{available[0]}"):
                agent.hosts(plan, here.pids)
            return
        wanted = inherited if asked == "machine" else asked
        by = "inherited" if wanted == inherited else "sysctl" if wanted in allowed else "routes"
        found = agent.hosts(plan, here.pids)["a"]["congestion"]
        assert found == {"asked": asked, "inherited": inherited, "in_force": wanted, "by": by}
        agent.hosts(plan, here.pids)
        routes = [*here.ip("a", "route", "show", "table", "all"), *here.ip("b", "route", "show", "table", "all")]
        said = {
            route.get("metrics", [{}])[0].get("congestion")
            for route in routes
            if route.get("type", "unicast") in ("unicast", "local")
        }
        assert said == {wanted if by == "routes" else None}


@pytest.mark.parametrize(
    ("spoil", "sysctls", "said"),
    [
        (
            ("ip", "addr", "add", "10.0.0.1/8", "dev", "eth0"),
            {},
            "eth0 was to have 198.18.0.2/24 and has 10.0.0.1/8",
        ),
        (("ip", "addr", "flush", "dev", "eth0"), {}, "a has no interface with 198.18.0.2 for lan; it has none"),
        (("true",), {"net.ipv4.no_such_thing": "1"}, "net.ipv4.no_such_thing was to be '1' and is None"),
        (
            ("true",),
            {"net.ipv4.ip_default_ttl": "999"},
            "net.ipv4.ip_default_ttl is '64' and was to be '999'; writing",
        ),
    ],
)
def test_a_host_that_cannot_be_made_right_is_named(
    build: Build, spoil: tuple[str, ...], sysctls: dict[str, str], said: str
) -> None:
    plan = make_plan({"lan": ["a"]})
    plan = replace(plan, hosts=(replace(plan.hosts[0], sysctls=SYSCTLS | sysctls),))
    with build(plan) as here, client(here) as agent:
        here.run("a", *spoil)
        with pytest.raises(ConditionError, match=re.escape(said)):
            agent.hosts(plan, here.pids)


def test_a_sysctl_of_the_whole_machine_is_refused(build: Build) -> None:
    plan = make_plan({"lan": ["a"]})
    plan = replace(plan, hosts=(replace(plan.hosts[0], sysctls={"kernel.panic": "1"}),))
    with build(plan) as here, client(here) as agent, pytest.raises(CapabilityError, match=r"kernel\.panic"):
        agent.hosts(plan, here.pids)


def test_a_host_without_a_process(build: Build) -> None:
    plan = make_plan({"lan": ["a"]})
    with build(plan) as here, client(here) as agent:
        with pytest.raises(EngineError, match=r"entering a \(process 3999999\)"):
            agent.hosts(plan, {"a": 3999999})
        assert agent.hosts(plan, here.pids).keys() == {"a"}


# the door


def test_the_door_keeps_hosts_from_the_machine_and_not_from_each_other(build: Build) -> None:
    plan = make_plan({"lan": ["a", "b"]})
    with build(plan) as here, client(here) as agent:
        here.run(None, "ip", "addr", "add", "198.18.0.1/24", "dev", "br-lan")
        agent.hosts(plan, here.pids)
        assert len(ping(here, "a", "198.18.0.1")) == 3
        agent.door(["br-lan"])
        agent.door(["br-lan"])
        assert ping(here, "a", "198.18.0.1") == []
        assert len(ping(here, "a", ip_of(plan, "b"))) == 3
        agent.close()
        assert here.end_agent() == (0, "")
        assert ping(here, "a", "198.18.0.1") == [], "the door was opened with hosts behind it"


def test_the_door_of_an_empty_bridge_is_removed(build: Build) -> None:
    plan = make_plan({"lan": ["a"]})
    with build(plan) as here, client(here) as agent:
        here.run(None, "ip", "link", "add", "br-empty", "type", "bridge")
        here.run(None, "ip", "link", "add", "br-gone", "type", "bridge")
        agent.door(["br-gone", "br-empty"])
        assert "bytecode" in here.run(None, "tc", "filter", "show", "dev", "br-empty", "ingress").stdout
        here.run(None, "ip", "link", "del", "br-gone")
        agent.close()
        assert here.end_agent() == (0, "")
        assert "clsact" not in here.run(None, "tc", "qdisc", "show", "dev", "br-empty").stdout


def test_a_bridge_that_is_not_there(build: Build) -> None:
    with (
        build(make_plan({"lan": ["a"]})) as here,
        client(here) as agent,
        pytest.raises(EngineError, match="br-none"),
    ):
        agent.door(["br-none"])


# what a host's programs do


@pytest.fixture
def inhabited(build: Build) -> Iterator[tuple[Lab, AgentClient]]:
    plan = make_plan({"lan": ["a", "b"]})
    with build(plan) as here, client(here) as agent:
        agent.hosts(plan, here.pids)
        yield here, agent


SERVE = """
import os, socket, sys, time
kept = [socket.create_server(("", 8000)), socket.socket(2, 2), socket.socket(2, 2), socket.socket(1, 1)]
kept[1].bind(("", 53)), kept[2].bind(("", 40000))
if os.fork() == 0:
    kept[3].bind("/dev/shm/x.sock")
    kept[3].listen()
    print("up", flush=True)
time.sleep(60)
"""


def test_sockets_of_a_program_in_a_host(inhabited: tuple[Lab, AgentClient]) -> None:
    here, agent = inhabited
    mine, pid = here.start("a", "sh", "-c", 'mount -t tmpfs none /dev/shm && exec python3 -c "$0"', SERVE)
    _, other_pid = here.start("a", "sleep", "60")
    assert mine.stdout is not None
    assert mine.stdout.readline() == b"up\n"
    found = sorted(
        (entry["proto"], entry["ip"], entry["port"] or entry["path"]) for entry in agent.sockets("a", pid)
    )
    assert found == [("tcp", "0.0.0.0", 8000), ("udp", "0.0.0.0", 53), ("unix", None, "/dev/shm/x.sock")]
    assert agent.sockets("a", other_pid) == []


def test_counters_of_a_host_are_its_own(inhabited: tuple[Lab, AgentClient]) -> None:
    here, agent = inhabited
    before = agent.counters(["a", "b"])
    python(
        here, "a", "import socket; s = socket.socket(2, 2)\nfor n in range(5): s.sendto(b'x', ('198.18.0.3', 9))"
    )
    wait_for(lambda: agent.counters(["b"])["b"]["UdpNoPorts"] - before["b"]["UdpNoPorts"] == 5)
    after = agent.counters(["a", "b"])
    assert after["a"]["UdpOutDatagrams"] - before["a"]["UdpOutDatagrams"] == 5
    assert after["b"]["UdpOutDatagrams"] == before["b"]["UdpOutDatagrams"]


def test_signals_reach_a_program_and_its_tree_in_its_own_host_only(inhabited: tuple[Lab, AgentClient]) -> None:
    here, agent = inhabited
    started, pid = here.start("a", "sh", "-c", "sleep 60 & echo up; wait")
    assert started.stdout is not None
    assert started.stdout.readline() == b"up\n"
    for host, target in (("b", pid), ("a", here.agent), ("a", here.pids["b"])):
        with pytest.raises(EngineError, match=f"refused, because that process is not in {host}"):
            agent.signal(host, target, "KILL")
    assert started.poll() is None
    sent = agent.signal("a", pid, "TERM", tree=True)
    assert sent[0] == pid
    assert len(sent) == 2
    assert started.wait(10) != 0
    wait_for(lambda: agent.signal("a", pid, "TERM") == [])


def test_commands_are_looked_up_in_the_hosts_own_mounts(inhabited: tuple[Lab, AgentClient]) -> None:
    here, agent = inhabited
    here.run("a", "sh", "-c", "mount -t tmpfs none /mnt && cp /bin/true /mnt/only-in-a && mkdir /mnt/d")
    path = "/usr/local/bin:/mnt:/usr/bin:/bin"
    assert agent.lookup("a", "only-in-a", path, "/") == "/mnt/only-in-a"
    assert agent.lookup("b", "only-in-a", path, "/") is None
    assert agent.lookup("a", "./only-in-a", path, "/mnt") == "/mnt/only-in-a"
    assert agent.lookup("a", "d", path, "/") is None
    assert agent.lookup("b", "sh", "/nowhere:/bin", "/") == "/bin/sh"


def test_what_the_agent_says_of_itself(inhabited: tuple[Lab, AgentClient]) -> None:
    hello = inhabited[1].hello()
    assert hello["kernel"] == os.uname().release
    assert "iproute2-" in hello["iproute2"]
    assert {"NET_ADMIN", "SYS_ADMIN"} <= set(hello["capabilities"])
    assert hello["scheduler"] in ("fifo", "other")
    known = {"version", "fate", "monotonic_ns", "kernel", "iproute2", "python", "capabilities", "scheduler"}
    assert hello.keys() == known | {"firewall"}
