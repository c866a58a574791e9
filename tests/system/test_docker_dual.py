"""Dual networks on a real daemon: what it knows of them, and the door of their bridges for IPv6."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import pytest

from testbed.engines.api import AddressTaken
from testbed.engines.docker import DockerEngine
from testbed.engines.docker_client import api_closed, connect
from testbed.plan import plan
from testbed.scenario import parse
from tests.docker_daemon import on_its_machine
from tests.system.docker_lab import SERVE_ONCE, Lab, await_true, inspect, lab
from tests.system.test_docker_engine import TRY, machine_listens

TEXT = """
testbed: 1
about: Two hosts with IPv6.
duration: 1 s
networks: {lan: {ip: dual}}
hosts: {a: {serve: x}, b: {serve: x}}
"""
SERVE_ONCE_6 = SERVE_ONCE.replace('("0.0.0.0", {port})', '("::", {port}), family=socket.AF_INET6')


@pytest.fixture(scope="module")
def up(docker_daemon: str) -> Iterator[Lab]:
    with lab(docker_daemon, plan(parse(TEXT, "dual.yaml"))) as made:
        yield made


def test_docker_knows_the_addresses_of_the_plan(up: Lab) -> None:
    nic = up.plan.host("a").interfaces[0]
    (endpoint,) = inspect(up, "-a")["NetworkSettings"]["Networks"].values()
    assert (endpoint["IPAddress"], endpoint["GlobalIPv6Address"]) == (nic.ip, nic.ip6)


def test_the_machine_cannot_be_reached_at_any_of_its_ipv6_addresses(up: Lab) -> None:
    shown = json.loads(on_its_machine(up.docker_host, ["ip", "-j", "-6", "address"], check=True).stdout)
    bridge = next(link for link in shown if link["ifname"].startswith(f"tb{up.engine.run}"))
    own = [a["local"] for a in bridge["addr_info"]]
    gateway = up.plan.networks[0].gateway6
    assert gateway in own and any(ip.startswith("fe80::") for ip in own)
    others = [a["local"] for link in shown if link is not bridge for a in link["addr_info"]]
    addresses = [f"{ip}%eth0" if ip.startswith("fe80::") else ip for ip in (*own, *others) if ip != "::1"]
    with machine_listens(up.docker_host, 7120, "::") as accepted:
        control = [sys.executable, "-c", TRY, str(gateway), "7120"]  # the bridge's address is checked for a while
        await_true(lambda: "True" in on_its_machine(up.docker_host, control).stdout)
        for address in addresses:
            assert up.run("a", "python3", "-ISc", TRY, address, "7120").out.strip() == "False", address
        assert accepted() == 1, "the control's only"


def test_a_host_cannot_be_reached_from_the_machine_by_ipv6(up: Lab) -> None:
    server, said, _ = up.start("a", "python3", "-ISc", SERVE_ONCE_6.format(port=7121))
    await_true(lambda: b"READY" in said)
    ip6 = str(up.plan.host("a").interfaces[0].ip6)
    reached = on_its_machine(up.docker_host, [sys.executable, "-c", TRY, ip6, "7121"])
    assert reached.stdout.strip() == "False"
    assert up.run("b", "python3", "-ISc", TRY, ip6, "7121").out.strip() == "True", "the control"
    assert server.wait(10)


def test_an_ipv6_subnet_in_use_is_named(docker_daemon: str) -> None:
    """Another program's network came between our look at what is taken and our own network."""
    planned = plan(parse(TEXT.replace("lan", "late"), "dual.yaml"), 1, frozenset({"198.18.0.0/24", "2001:2::/64"}))
    (network,) = planned.networks
    engine = DockerEngine(host=docker_daemon)
    with api_closed(connect(docker_daemon)) as api:
        engine.open()
        pools = [{"Subnet": "198.18.77.0/24"}, {"Subnet": network.subnet6}]
        other = api.create_network("not-ours", driver="bridge", enable_ipv6=True, ipam={"Config": pools})
        try:
            with pytest.raises(AddressTaken) as raised:
                engine.up(planned, lambda _: None)
            assert raised.value.subnet == network.subnet6
            assert network.subnet6 in engine.taken()
        finally:
            api.remove_network(other["Id"])
            engine.down()
