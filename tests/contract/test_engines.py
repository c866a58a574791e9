"""One suite for every engine: whatever runs a scenario has to do these things in the same way.

The fake engine simulates the verbs that `do.py` gives real hosts, so that the runner's own tests stand on a
fake that is held to the same contract.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.agent.baseline import link_local
from testbed.agent.client import AgentClient
from testbed.engines import fake
from testbed.engines.api import Command
from testbed.errors import CommandNotFound, TestbedError
from testbed.plan import Plan, plan
from testbed.scenario import parse
from tests.contract.labs import DUAL_NETWORKS, TWO_NETWORKS, VOLUMES, Lab, MakeEngine, lab, lab_avoiding
from tests.parcel import put


@pytest.fixture(scope="module")
def up(new_engine: MakeEngine) -> Iterator[Lab]:
    with lab(new_engine) as made:
        yield made


def test_hosts_on_one_network_talk_by_name_and_by_address(up: Lab) -> None:
    server = up.start("b", "serve", "7000")
    up.await_port("b", server.process, 7000)
    for host in ("a", "c"):
        assert up.run(host, "ask", "b", "7000").text == "b"
    address = next(i.ip for i in up.plan.host("b").interfaces if i.network == "left")
    assert up.run("a", "ask", address, "7000").text == "b"
    up.agent.signal("b", server.process.pid, "TERM")
    assert server.process.wait(10) and server.exit == 0


def test_what_its_machine_lacks_is_found_there_by_trying(real_engine: MakeEngine) -> None:
    as_root = [] if os.geteuid() == 0 else ["--map-root-user"]
    netem = ["unshare", "--net", *as_root, "tc", "qdisc", "add", "dev", "lo", "root", "netem"]
    path = {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    has = {
        "netem": subprocess.run(netem, env=path, capture_output=True, check=False).returncode == 0,
        "ipv6": Path("/proc/sys/net/ipv6").exists(),
        "cpus:1": True,
        "cpus:9999": False,
    }
    engine = real_engine()
    try:
        agent = AgentClient(engine.open())
        found = agent.lacking(has)
        assert found.keys() == {word for word, there in has.items() if not there}
        assert all(why.startswith("it requires ") for why in found.values())
        assert agent.lacking(["netem"]).keys() == {"netem"} - {word for word in has if has[word]}, "nothing stays"
        agent.close()
    finally:
        engine.down()


def test_hosts_on_different_networks_cannot_talk_even_by_address(up: Lab) -> None:
    server = up.start("c", "serve", "7001")
    up.await_port("c", server.process, 7001)
    assert up.run("b", "ask", "c", "7001").text == "c", "the control: its neighbour reaches it"
    assert up.run("a", "ask", up.plan.host("c").interfaces[0].ip, "7001").exit == 3
    right = next(i.ip for i in up.plan.host("b").interfaces if i.network == "right")
    other = up.start("b", "serve", "7002")
    up.await_port("b", other.process, 7002)
    assert up.run("a", "ask", right, "7002").exit == 3, "not through a host that is on both"
    for running, host in ((server, "c"), (other, "b")):
        up.agent.signal(host, running.process.pid, "KILL", tree=True)
        assert running.process.wait(10)


@pytest.fixture(scope="module")
def dual(new_engine: MakeEngine) -> Iterator[Lab]:
    with lab(new_engine, DUAL_NETWORKS) as made:
        yield made


def address6(up: Lab, host: str, network: str) -> str:
    found = next(i.ip6 for i in up.plan.host(host).interfaces if i.network == network)
    assert found is not None
    return found


def test_hosts_on_a_dual_network_talk_by_ipv6_and_nobody_else(dual: Lab) -> None:
    server = dual.start("b", "serve", "7000", "::")
    dual.await_port("b", server.process, 7000)
    assert dual.run("a", "ask", address6(dual, "b", "left"), "7000").text == "b"
    assert dual.run("c", "ask", address6(dual, "b", "right"), "7000").text == "b"
    assert dual.run("a", "ask", "b", "7000").text == "b", "by name, and by IPv4 at the same socket"
    assert dual.run("a", "ask", address6(dual, "b", "right"), "7000").exit == 3, (
        "not through a host that is on both"
    )
    assert dual.run("d", "ask", address6(dual, "b", "left"), "7000").exit == 3, "it has no IPv6"
    other = dual.start("c", "serve", "7001", "::")
    dual.await_port("c", other.process, 7001)
    assert dual.run("a", "ask", address6(dual, "c", "right"), "7001").exit == 3
    assert dual.run("a", "ask", address6(dual, "b", "left"), "7999").exit == 4, "it is there, and nobody listens"
    for running, host in ((server, "b"), (other, "c")):
        dual.agent.signal(host, running.process.pid, "KILL", tree=True)
        assert running.process.wait(10)


def test_a_name_is_both_addresses_and_ipv4_comes_first(dual: Lab) -> None:
    ip = next(i.ip for i in dual.plan.host("b").interfaces if i.network == "left")
    assert dual.run("a", "resolve", "b").text == f"{ip} {address6(dual, 'b', 'left')}"
    assert ":" not in dual.run("d", "resolve", "b").text


def test_the_baseline_of_a_dual_network_reads_back(dual: Lab) -> None:
    """The same on every engine: the planned addresses and one link-local address, made of the MAC."""
    seen = dual.agent.hosts(dual.plan, dual.pids)
    if dual.engine.name == "fake":
        return
    for host in dual.plan.hosts:
        for nic in host.interfaces:
            planned_here = {f"{nic.ip}/{nic.prefix_bits}"}
            if nic.ip6:
                planned_here |= {f"{nic.ip6}/{nic.prefix6_bits}", f"{link_local(nic.mac)}/64"}
            assert set(seen[host.name]["interfaces"][nic.name]["addresses"]) == planned_here
        assert seen[host.name]["sysctls"].keys() == host.sysctls.keys()
    assert seen["d"]["interfaces"]["lo"]["addresses"] == ["127.0.0.1/8"]
    assert not any("default" in route or "::/0" in route for route in seen["b"]["routes"])
    assert "multicast ff00::/8 dev eth1 metric 1" in seen["b"]["routes"], "its first dual network"


def test_nobody_listening_is_told_apart_from_nobody_there(up: Lab) -> None:
    assert up.run("a", "ask", "b", "7999").exit == 4


@pytest.mark.parametrize("status", [0, 1, 42, 255])
def test_the_exit_status_comes_back(up: Lab, status: int) -> None:
    assert up.run("a", "exit", str(status)).exit == status


def test_output_comes_back_whole_and_apart(up: Lab) -> None:
    said = up.run("a", "print", "hello", "there")
    assert (said.text, bytes(said.err)) == ("hello there", b"")
    complained = up.run("a", "complain", "oh", "no")
    assert (bytes(complained.out), complained.err.decode().strip()) == (b"", "oh no")


def test_stdin_environment_and_directory_arrive(up: Lab) -> None:
    assert up.run("a", "cat", stdin=b"one\ntwo\n").text == "one\ntwo"
    assert up.run("a", "env", "COLOR").text == "blue"
    assert up.run("a", "env", "TESTBED_REQUIRE").text == "(unset)", "nothing of the caller's"
    assert up.run("a", "where").text == "/scenario"


def test_files_go_in_and_come_out(up: Lab) -> None:
    put(up.engine, "a", ("/scenario/in.txt", b"from outside"))
    assert up.run("a", "read", "/scenario/in.txt").text == "from outside"
    assert up.run("b", "read", "/scenario/in.txt").exit == 1, "another host has a file system of its own"
    up.run("a", "write", "/scenario/out.txt", "from inside")
    assert b"from inside" in up.engine.get("a", "/scenario/out.txt")
    with pytest.raises(FileNotFoundError):
        up.engine.get("a", "/scenario/nothing")


def test_a_volume_may_be_where_a_host_can_write_anyway(new_engine: MakeEngine) -> None:
    with lab(new_engine, VOLUMES) as made:
        if made.engine.name == "fake":
            pytest.skip("the fake has no files of a host's own")
        text = (
            "echo from a > /var/spool/in/note; echo x > /tmp/own; touch /var/spool/new; ls -d /var/run/ /var/lock/"
        )
        done = made.command("a", ["sh", "-c", text])
        assert done.process.wait(20) and done.exit == 0, done.err
        shown = made.command("b", ["sh", "-c", "cat /srv/deep/out/note; ls /tmp; touch /srv/deep/x 2>&1"])
        assert shown.process.wait(20) and shown.exit == 1
        assert shown.text.splitlines()[0] == "from a" and "Read-only file system" in shown.text
        twice = made.command("b", ["sh", "-c", "cat /srv/again/note; ls /srv/deep/out/below"])
        assert twice.process.wait(20) and twice.text.splitlines() == ["from a", "own"], twice.err


def test_a_signal_ends_a_program_and_is_named(up: Lab) -> None:
    for name in ("TERM", "KILL"):
        sleeper = up.start("a", "sleep", "60")
        up.agent.signal("a", sleeper.process.pid, name)
        assert sleeper.process.wait(10)
        assert sleeper.exit == f"SIG{name}"


def test_a_program_deaf_to_sigterm_is_killed(up: Lab) -> None:
    deaf = up.start("a", "stubborn", "60")
    until = time.monotonic() + 10
    while up.engine.name != "fake" and b"deaf" not in deaf.out:
        assert time.monotonic() < until
        time.sleep(0.01)
    up.agent.signal("a", deaf.process.pid, "TERM")
    assert not deaf.process.wait(0.3)
    up.agent.signal("a", deaf.process.pid, "KILL", tree=True)
    assert deaf.process.wait(10) and deaf.exit == "SIGKILL"


def test_times_are_monotonic_and_in_order(up: Lab) -> None:
    before = time.monotonic_ns()
    sleeper = up.run("a", "sleep", "0.1")
    ended = sleeper.process.ended_ns
    assert ended is not None
    assert before <= sleeper.process.started_ns <= ended <= time.monotonic_ns()
    assert ended - sleeper.process.started_ns >= 100_000_000


def test_a_command_that_is_not_there_is_found_out(up: Lab) -> None:
    path = "/usr/local/bin:/usr/bin:/bin"
    assert up.agent.lookup("a", "no-such-command", path, "/scenario") is None
    assert up.agent.lookup("a", "do" if up.engine.name == "fake" else "sh", path, "/scenario") is not None
    with pytest.raises(CommandNotFound, match="no-such-command"):
        up.engine.start("a", Command(("no-such-command",), {"PATH": path}), lambda _: None, lambda _: None)


def test_programs_run_at_the_same_time(up: Lab) -> None:
    began = time.monotonic()
    sleepers = [up.start(host, "sleep", "1") for host in "abcabc"]
    assert all(s.process.wait(20) and s.exit == 0 for s in sleepers)
    assert time.monotonic() - began < 5, "six seconds one after the other"


def test_two_runs_at_once_do_not_meet(new_engine: MakeEngine, up: Lab) -> None:
    with lab_avoiding(new_engine, up) as other:
        server = other.start("b", "serve", "7003")
        other.await_port("b", server.process, 7003)
        assert other.run("a", "ask", "b", "7003").text == "b"
        assert up.run("a", "ask", "b", "7003").exit == 4, "its own b does not listen"
        for address in (i.ip for i in other.plan.host("b").interfaces):  # on some engines as its own one's
            assert up.run("a", "ask", address, "7003").exit in (3, 4)
        other.agent.signal("b", server.process.pid, "KILL", tree=True)
        assert server.process.wait(10)
    assert up.run("a", "print", "still", "here").text == "still here"


def test_a_failed_up_leaves_nothing_and_down_twice_is_fine(new_engine: MakeEngine) -> None:
    made = new_engine()
    engine = fake.FakeEngine({"up": "no"}) if made.name == "fake" else made
    agent = AgentClient(engine.open())
    planned = plan(parse(TWO_NETWORKS, "contract.yaml"), 1, engine.taken())

    def break_it(_: list[str]) -> None:
        raise TestbedError("the door does not shut")

    broken = Plan.from_json(planned.to_json() | {"networks": ()})  # hosts without their networks
    with pytest.raises((TestbedError, KeyError)):
        engine.up(broken, break_it)
    agent.close()
    engine.down()
    engine.down()
    assert engine not in fake.ALL_LABS


def test_no_thread_of_ours_is_left(new_engine: MakeEngine) -> None:
    before = set(threading.enumerate())
    with lab(new_engine) as made:
        made.run("a", "print", "x")
    until = time.monotonic() + 5
    while set(threading.enumerate()) - before and time.monotonic() < until:
        time.sleep(0.02)
    assert not {t.name for t in set(threading.enumerate()) - before}
