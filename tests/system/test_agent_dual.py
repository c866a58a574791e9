"""Hosts on dual networks as a kernel makes them by itself, and what the agent makes of them."""

from __future__ import annotations

import pytest

from testbed.errors import EngineError
from testbed.plan import Plan, plan
from testbed.scenario import parse
from tests.system.agent_lab import Build, builder, client, python

TEXT = """
testbed: 1
about: One network of each kind.
duration: 1 s
networks: {lan: , wan: {ip: dual}, far: {ip: dual}}
hosts: {a: {networks: [lan, wan, far]}, b: {networks: [lan, wan, far]}}
"""
# The same interfaces under other names, one of them down, and in another order: the first that was up would get
# what is sent to a group.
LEFT_HALF_DONE = [
    {"dev": "eth1", "bridge": "br-far", "address": "198.18.2.2/24", "up": True},
    {"dev": "eth2", "bridge": "br-lan", "address": "198.18.0.2/24", "up": True},
    {"dev": "eth0", "bridge": "br-wan", "address": "198.18.1.2/24", "up": False},
]
CONNECT = """
import socket
found = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
found.connect(({to!r}, 9))
print(found.getsockname()[0])
"""


@pytest.fixture(params=["root", "user"])
def build(request: pytest.FixtureRequest) -> Build:
    return builder(request.param)


@pytest.fixture
def planned() -> Plan:
    return plan(parse(TEXT, "dual.yaml"))


def test_a_dual_host_that_its_engine_left_half_done_is_made_right(build: Build, planned: Plan) -> None:
    with build(planned, shape={"a": LEFT_HALF_DONE}) as here, client(here) as agent:
        here.run("a", "ip", "addr", "add", "2001:2:0:1::77/64", "dev", "eth1")  # is being checked for a second
        here.run("a", "ip", "route", "add", "default", "via", "2001:2:0:1::1")
        here.run("a", "ip", "neigh", "add", "2001:2:0:1::9", "lladdr", "02:00:00:00:00:01", "dev", "eth1")
        seen = agent.hosts(planned, here.pids)
        found = {
            link["ifname"]: {a["local"] for a in link["addr_info"]}
            for link in here.ip("a", "address")
            if not any(a.get("tentative") for a in link["addr_info"])
        }
        assert found == {
            "lo": {"127.0.0.1", "::1"},
            "eth0": {"198.18.0.2"},
            "eth1": {"198.18.1.2", "2001:2::2", "fe80::42:c6ff:fe12:102"},
            "eth2": {"198.18.2.2", "2001:2:0:1::2", "fe80::42:c6ff:fe12:202"},
        }
        assert sorted((route["dst"], route["dev"]) for route in here.ip("a", "-6", "route")) == [
            ("2001:2:0:1::/64", "eth2"),
            ("2001:2::/64", "eth1"),
            ("fe80::/64", "eth1"),
            ("fe80::/64", "eth2"),
        ]
        six = {n["dst"]: n["lladdr"] for n in here.ip("a", "-6", "neigh") if n["state"] == ["PERMANENT"]}
        assert six == {"2001:2::3": "02:42:c6:12:01:03", "2001:2:0:1::3": "02:42:c6:12:02:03"}
        assert seen["a"]["sysctls"]["net.ipv6.conf.eth0.disable_ipv6"] == "1"
        assert python(here, "a", CONNECT.format(to="ff15::1")).strip() == "2001:2::2", "by the first dual network"
        assert python(here, "a", CONNECT.format(to="2001:2:0:1::3")).strip() == "2001:2:0:1::2"
        assert here.run("a", "ping", "-n", "-c", "1", "-W", "5", "2001:2:0:1::3").returncode == 0
        again = agent.hosts(planned, here.pids)
        for part in ("interfaces", "routes", "neighbours"):
            assert again["a"][part] == seen["a"][part], "asked again, nothing is changed"


def test_a_dual_host_that_cannot_be_made_right_is_named(build: Build) -> None:
    off = "hosts: {a: {networks: [wan], sysctls: {net.ipv6.conf.eth0.disable_ipv6: 1}}}\n"
    text = TEXT.replace(TEXT[TEXT.index("hosts:") :], off)
    made = plan(parse(text, "dual.yaml"))
    said = "setting up a: .*IPv6 is disabled on this device. failed at 'addr add 2001:2::2/64 dev eth0 nodad'"
    with build(made) as here, client(here) as agent, pytest.raises(EngineError, match=said):
        agent.hosts(made, here.pids)
