"""A daemon whose defaults are not Docker's: networks, hosts and the agent state what they rely on."""

from __future__ import annotations

import os
import re
import resource
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from testbed.engines.docker_client import api_closed, connect
from testbed.limits import OPEN_FILES
from testbed.plan import plan
from testbed.scenario import parse
from tests.command import said, testbed
from tests.conftest import missing
from tests.disturbed import image_made
from tests.docker_daemon import NoDaemon, docker_daemon, version_asked
from tests.system.docker_lab import Lab, inspect, lab

DUAL = """
testbed: 1
about: Two hosts with IPv6.
duration: 1 s
networks: {lan: {ip: dual}}
hosts: {a: {serve: x, cap_add: [NET_RAW]}, b: {serve: x}}
"""
FILES = min(OPEN_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[1])  # the daemon inherits what we have
OPTIONS = (
    "--default-ulimit nofile=100:100 --default-ulimit fsize=99999744:99999744 --default-ulimit cpu=60:60 --init "
    "--default-shm-size 1m --mtu 1400 --default-ipc-mode shareable"
)
NETWORK = {
    24: ("driver.mtu=1400", "bridge.enable_icc=false"),
    28: (
        "bridge.gateway_mode_ipv4=isolated",
        "bridge.gateway_mode_ipv6=isolated",
        "container_iface_prefix=net",
        "enable_ipv6=true",
        "bridge.inhibit_ipv4=true",
    ),
}


def major() -> int:
    """Of the Docker that a private daemon has."""
    said = version_asked() or subprocess.run(["dockerd", "--version"], capture_output=True, text=True).stdout
    found = re.search(r"\d+", said)
    assert found, said
    return int(found[0])


@pytest.fixture(scope="module")
def daemon() -> Iterator[str]:
    """One with every default changed that its version lets one change."""
    options = OPTIONS.split()
    with ExitStack() as stack:
        try:
            for since, words in NETWORK.items():
                if major() >= since:
                    options += [
                        w for word in words for w in ("--default-network-opt", f"bridge=com.docker.network.{word}")
                    ]
            host = stack.enter_context(docker_daemon(private=True, options=options))
        except (NoDaemon, FileNotFoundError) as problem:
            missing("docker", str(problem))
        before = os.environ.get("DOCKER_HOST")
        os.environ["DOCKER_HOST"] = host
        stack.callback(lambda: os.environ.update(DOCKER_HOST=before) if before else os.environ.pop("DOCKER_HOST"))
        image_made()
        yield host


@pytest.fixture(scope="module")
def up(daemon: str) -> Iterator[Lab]:
    with lab(daemon, plan(parse(DUAL, "dual.yaml"))) as made:
        yield made


def test_a_scenario_passes_there(daemon: str, tmp_path: Path) -> None:
    done = testbed("run", "udp-loss", "--engine", "docker", "--results", tmp_path, DOCKER_HOST=daemon)
    assert done.returncode == 0, said(done)


def test_hosts_and_the_agent_have_limits_of_their_own_and_no_process_of_the_daemons(up: Lab) -> None:
    shown = up.run("a", "sh", "-c", "ulimit -n; ulimit -f; ulimit -t; tr '\\0' ' ' </proc/1/cmdline").out.split()
    assert shown == [str(FILES), "unlimited", "unlimited", "/opt/testbed/hold"]
    for name in (".agent", "-a"):
        config = inspect(up, name)["HostConfig"]
        assert config["Init"] is False and config["IpcMode"] == "private", name
        assert {u["Name"]: u["Hard"] for u in config["Ulimits"]}["nofile"] == FILES, name


def test_the_network_is_as_everywhere(up: Lab, daemon: str) -> None:
    assert up.run("a", "cat", "/sys/class/net/eth0/mtu").out == "1500\n"
    ping = ("ping", "-c1", "-W2")
    b = up.plan.host("b").interfaces[0]
    for address in (b.ip, str(b.ip6)):
        assert up.run("a", *ping, address).exit == 0, address
    with api_closed(connect(daemon)) as api:
        (network,) = api.networks(filters={"label": f"testbed.run={up.engine.run}"})
    options = network["Options"]
    assert options["com.docker.network.bridge.enable_icc"] == "true"
    assert ("com.docker.network.bridge.gateway_mode_ipv4" in options) == (major() >= 27)
