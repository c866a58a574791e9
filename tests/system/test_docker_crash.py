"""Clashes, failures and kills on the docker engine: nothing is left, nobody else is touched."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from testbed.agent.client import AgentClient
from testbed.engines import docker_owner
from testbed.engines.api import AddressTaken
from testbed.engines.docker import DockerEngine, sweep
from testbed.engines.docker_client import Api, api_closed, connect
from testbed.engines.docker_image import node_image
from testbed.errors import TestbedError
from tests.docker_daemon import on_its_machine
from tests.system.docker_lab import (
    ASK,
    SERVE_ONCE,
    Lab,
    await_true,
    lab,
    make_plan,
)


@pytest.fixture(scope="module")
def up(docker_daemon: str) -> Iterator[Lab]:
    """left - both - right: two networks and a host on both of them, which share a volume."""
    plan = make_plan({"left": "a", "both": "a b", "right": "b"}, volumes={"spool": "/spool"})
    with lab(docker_daemon, plan) as made:
        yield made


@pytest.fixture
def api(docker_daemon: str) -> Iterator[Api]:
    with api_closed(connect(docker_daemon)) as made:
        yield made


# addresses, several runs, failures


def test_taken_names_docker_networks_and_routes_of_the_machine(up: Lab) -> None:
    on_its_machine(up.docker_host, ["ip", "link", "add", "tbtest0", "type", "bridge"], check=True)
    try:
        for words in ("addr add 198.19.77.1/28 dev tbtest0", "link set tbtest0 up"):
            on_its_machine(up.docker_host, ["ip", *words.split()], check=True)
        engine = DockerEngine(host=up.docker_host)
        try:
            engine.open()
            taken = engine.taken()
        finally:
            engine.down()
    finally:
        on_its_machine(up.docker_host, ["ip", "link", "del", "tbtest0"], check=True)
    assert {"198.18.100.0/24", "198.18.101.0/24", "198.19.77.0/28"} <= taken
    assert "0.0.0.0/0" not in taken


def test_a_subnet_in_use_is_named_and_the_engine_goes_on_with_another(up: Lab) -> None:
    engine = DockerEngine(host=up.docker_host)
    try:
        agent = AgentClient(engine.open())
        try:
            clashing = make_plan({"one": "x b", "two": "x b"}, 99)  # its second subnet is the other run's
            with pytest.raises(AddressTaken) as clash:
                engine.up(clashing, agent.door)
            assert clash.value.subnet == "198.18.100.0/24"
            with api_closed(connect(up.docker_host)) as api:
                assert [str(f) for f in docker_owner.find(api, engine.run)] == [
                    f"container testbed-{engine.run}.agent"
                ]
            assert set(engine.up(make_plan({"one": "x", "two": "x"}, 130), agent.door)) == {"one", "two"}
        finally:
            agent.close()
    finally:
        engine.down()
    assert up.run("left", "true").exit == 0, "the run that was there first has not noticed"


@pytest.mark.parametrize("at", ["the door", "a host"])
def test_a_failed_up_leaves_nothing_but_the_agent_and_then_nothing(docker_daemon: str, api: Api, at: str) -> None:
    engine = DockerEngine(host=docker_daemon)
    plan = make_plan({f"h{n}": "a" for n in range(6)}, 132, volumes={"v": "/v"})
    if at == "a host":  # the fifth has a volume over what it needs to start
        hosts = [*plan.hosts]
        hosts[4] = replace(hosts[4], sysctls={"net.ipv4.no_such_sysctl": "1"})
        plan = replace(plan, hosts=tuple(hosts))

    def door(_: list[str]) -> None:
        if at == "the door":
            raise TestbedError("it does not shut")

    try:
        engine.open()
        with pytest.raises(TestbedError, match="it does not shut" if at == "the door" else "no_such_sysctl"):
            engine.up(plan, door)
        assert only_the_agent(api, engine.run)
    finally:
        engine.down()
        engine.down()
    assert docker_owner.find(api, engine.run) == []


def only_the_agent(api: Api, run: str) -> bool:
    return [str(found) for found in docker_owner.find(api, run)] == [f"container testbed-{run}.agent"]


def test_two_runs_at_once_do_not_meet(up: Lab) -> None:
    with lab(up.docker_host, make_plan({"left": "a", "both": "a b"}, 134)) as other:
        server, said, _ = up.start("both", "python3", "-ISc", SERVE_ONCE.format(port=7130))
        await_true(lambda: b"READY" in said)
        across = other.python("left", ASK.format(to=up.ip("both"), port=7130))
        assert across.exit == 1 and "OSError" in across.err
        assert "ConnectionRefused" in other.python("left", ASK.format(to="both", port=7130)).err, "its own"
        assert up.python("left", ASK.format(to="both", port=7130)).out.strip() == up.ip("left")
        assert server.wait(10)


# crash-only; tests/soak kills whole commands, at any moment


GONE_WITHIN_S = 30.0
ORPHAN = """
import pickle, sys, time
from testbed.agent.client import AgentClient
from testbed.engines.api import Command
from testbed.engines.docker import DockerEngine
plan = pickle.loads(bytes.fromhex(sys.argv[2]))  # JSON would have it complete, with programs
engine = DockerEngine(host=sys.argv[1])
print("run", engine.run, flush=True)
agent = AgentClient(engine.open())
print("open", flush=True)
pids = engine.up(plan, agent.door)
agent.hosts(plan, pids)
print("up", flush=True)
engine.start("h0", Command(("sleep", "99"), {"PATH": "/bin"}), print, print)
print("running", flush=True)
time.sleep(99)
"""


@contextmanager
def orphan(docker_host: str, third: int) -> Iterator[subprocess.Popen[str]]:
    plan = make_plan({f"h{n}": "a b" for n in range(3)}, third, volumes={"v": "/v"})
    argv = [sys.executable, "-c", ORPHAN, docker_host, pickle.dumps(plan).hex()]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def told(process: subprocess.Popen[str], word: str) -> str:
    """Wait for it to say that word; returns its run."""
    assert process.stdout is not None
    said = [process.stdout.readline()]
    while said[-1].strip() != word:
        assert said[-1], f"it ended before it was {word}"
        said.append(process.stdout.readline())
    return said[0].split()[1]


def kill(process: subprocess.Popen[str]) -> str:
    """What it had said. Its output ends with it: the janitor holds none of its pipes."""
    process.kill()
    said, _ = process.communicate(timeout=10)
    return said


@pytest.mark.parametrize("when", ["open", "up", "running"])
def test_a_killed_run_leaves_nothing(docker_daemon: str, when: str) -> None:
    with orphan(docker_daemon, 140) as process:
        run = told(process, when)
        kill(process)
        await_clean(docker_daemon, run)


def test_the_next_run_sweeps_what_a_killed_janitor_could_not(docker_daemon: str, api: Api, up: Lab) -> None:
    with orphan(docker_daemon, 140) as process:
        run = told(process, "running")
        assert sweep(api) == [], "a live run is never touched"
        assert len(docker_owner.find(api, run)) > 4
        for janitor in janitors(run):
            os.kill(janitor, signal.SIGKILL)
        kill(process)
    assert len(docker_owner.find(api, run)) > 4, "nobody was there to remove it"
    said: list[str] = []
    engine = DockerEngine(host=docker_daemon, say=said.append)
    try:
        engine.open()
    finally:
        engine.down()
    assert f"removed what a dead run left: container testbed-{run}-h0" in said
    assert docker_owner.find(api, run) == []
    assert up.run("left", "true").exit == 0, "the other live run is still there"


def test_what_cannot_be_swept_is_told_and_holds_nobody_up(
    docker_daemon: str, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_owner, "SWEEP_GIVES_UP_S", 0.5)
    dead = docker_owner.labels("held") | {docker_owner.STARTED: "1"}
    api.create_network("testbed-held-n", labels=dead)
    config = api.create_host_config(network_mode="testbed-held-n")
    holder = api.create_container(node_image(api, lambda _: None), ["sleep", "99"], host_config=config)["Id"]
    said: list[str] = []
    engine = DockerEngine(host=docker_daemon, say=said.append)
    try:
        api.start(holder)
        engine.open()
        assert any("could not remove" in line and "network testbed-held-n" in line for line in said), said
    finally:
        engine.down()
        api.remove_container(holder, force=True)
        assert sweep(api) == ["network testbed-held-n"]


def test_a_run_of_another_boot_or_container_is_dead_when_its_agent_is_and_it_is_old(
    docker_daemon: str, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = docker_owner.labels("elsewhere") | {docker_owner.BOOT: "another boot"}
    api.create_volume("testbed-elsewhere-v", labels=elsewhere)
    try:
        assert sweep(api) == [], "just made: its owner may be about to start its agent"
        monkeypatch.setattr(docker_owner, "UNATTENDED_S", -60.0)
        assert sweep(api) == ["volume testbed-elsewhere-v"]
    finally:
        if docker_owner.find(api, "elsewhere"):
            api.remove_volume("testbed-elsewhere-v")


def janitors(run: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"testbed.engines.janitor" in words and run.encode() in words:
                found.append(int(entry.name))
    return found


def leftovers(docker_host: str, run: str) -> list[str]:
    """What there is of a run: objects, bridge devices, a janitor."""
    with api_closed(connect(docker_host)) as api:
        found = [str(f) for f in docker_owner.find(api, run)]
    links = json.loads(on_its_machine(docker_host, ["ip", "-j", "link"], check=True).stdout)
    found += [f"device {link['ifname']}" for link in links if link["ifname"].startswith(f"tb{run}")]
    return found + [f"janitor {pid}" for pid in janitors(run)]


def await_clean(docker_host: str, run: str, when: str = "") -> None:
    until = time.monotonic() + GONE_WITHIN_S
    while left := leftovers(docker_host, run):
        assert time.monotonic() < until, f"{when}: {left}"
        time.sleep(0.1)
