"""The agent in real namespaces: as root, and as an ordinary user in a user namespace of their own."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from testbed.agent.client import AgentClient
from testbed.conditions.condition import Condition
from testbed.errors import CapabilityError, ConditionError, EngineError
from testbed.measure import ledger
from testbed.plan import types
from tests.conftest import missing
from tests.system import fake_wire
from tests.system.agent_lab import AGENT_WITH_WIRE, SYSCTLS, Lab, client, lab, make_plan, replace, unavailable

MS = 1_000_000
Build = Callable[..., AbstractContextManager[Lab]]


@pytest.fixture(params=["root", "user"])
def build(request: pytest.FixtureRequest) -> Build:
    """Makes a lab of a plan."""
    if reason := unavailable(request.param):
        missing("root" if request.param == "root" else "user namespaces", reason)
    return lambda *arguments, **options: lab(request.param, *arguments, **options)


def ip_of(plan: types.Plan, host: str, network: str | None = None) -> str:
    return next(nic.ip for nic in plan.host(host).interfaces if network in (None, nic.network))


def ping(where: Lab, source: str, ip: str, count: int = 3) -> list[float]:
    """Round trips in ms of those that were answered."""
    said = where.run(source, "ping", "-n", "-c", str(count), "-i", "0.05", "-W", "1", ip, check=False).stdout
    return [float(found) for found in re.findall(r"time=([\d.]+) ms", said)]


def python(where: Lab, host: str, code: str) -> str:
    return where.run(host, "python3", "-c", code).stdout


def made_in(where: Lab, host: str) -> dict[str, Any]:
    """What the agent leaves in a host while conditions are in force."""
    hooks = [
        entry["dev"]
        for entry in json.loads(where.run(host, "tc", "-j", "qdisc", "show").stdout)
        if entry["kind"] == "clsact"
    ]
    return {"w0": any(link["ifname"] == "w0" for link in where.ip(host, "link")), "hooks": sorted(hooks)}


NOTHING = {"w0": False, "hooks": []}


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


# conditions in force


def test_a_condition_acts_on_its_pair_and_direction_and_is_proven(build: Build) -> None:
    plan = make_plan({"lan": ["a", "b", "c"]}, {"a->b over lan": Condition(delay_ns=40 * MS)})
    with build(plan) as here, client(here) as agent:
        agent.hosts(plan, here.pids)
        start = agent.conditions(plan)
        assert start["links"] == {"a->b over lan": {"delay_ns": 40 * MS}}
        impaired, other = ping(here, "a", ip_of(plan, "b")), ping(here, "a", ip_of(plan, "c"))
        assert len(impaired) == len(other) == 3
        assert min(impaired) >= 40
        assert min(other) < 20
        assert made_in(here, "b") == made_in(here, "c") == NOTHING
        proof = agent.check()
        assert proof["problems"] == []
        assert proof["start"] == start
        assert proof["end"]["links"].keys() == {"a->b over lan"}
        assert proof["end"]["links"]["a->b over lan"]["frames"] == 3
        assert proof["end"]["hosts"]["a"]["sent_to_wire"] == proof["end"]["hosts"]["a"]["frames_in"] == 3
        assert proof["canary_p99_ns"] > 0
        frames = list(ledger.decode(agent.ledger()))
        assert [(frame.link, frame.cause) for frame in frames] == [("a->b over lan", None)] * 3


def test_super_packets_are_counted_as_the_frames_that_they_become(build: Build) -> None:
    """TCP hands the kernel 64 KiB at a time; what the filter counts and what the wire reads must still agree."""
    plan = make_plan({"lan": ["a", "b"]}, {"a->b over lan": Condition(), "b->a over lan": Condition()})
    receive = "import socket; s = socket.create_server(('', 9000)); c = s.accept()[0]; n = 0\n"
    receive += "while d := c.recv(1 << 16): n += len(d)\nprint(n)"
    send = f"import socket; socket.create_connection(('{ip_of(plan, 'b')}', 9000)).sendall(bytes(3_000_000))"
    with build(plan) as here, client(here) as agent:
        agent.hosts(plan, here.pids)
        agent.conditions(plan)
        server, pid = here.start("b", "python3", "-c", receive)
        wait_for(lambda: agent.sockets("b", pid))
        python(here, "a", send)
        assert server.stdout is not None
        assert int(server.stdout.readline()) == 3_000_000
        proof = agent.check()
        frames = proof["end"]["links"]["a->b over lan"]["frames"]
        assert proof["problems"] == []
        assert frames >= 3_000_000 // 1460
        assert proof["end"]["hosts"]["a"]["sent_to_wire"] == frames


def wait_for(what: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 10
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not happen within 10 s"
    return found


def test_a_broadcast_has_each_receivers_own_fate(build: Build) -> None:
    plan = make_plan({"lan": ["a", "b", "c"]}, {"a->b over lan": Condition(loss_ratio=1.0)})
    receive = "import socket; s = socket.socket(2, 2); s.bind(('', 9000)); print(s.recv(99), flush=True)"
    send = (
        "import socket; s = socket.socket(2, 2); s.setsockopt(1, 6, 1); s.sendto(b'hello', ('198.18.0.255', 9000))"
    )
    with build(plan) as here, client(here) as agent:
        agent.hosts(plan, here.pids)
        assert agent.conditions(plan)["links"].keys() == {"a->b over lan"}
        programs = {host: here.start(host, "python3", "-c", receive) for host in ("b", "c")}
        for host, (_, pid) in programs.items():
            wait_for(lambda host=host, pid=pid: agent.sockets(host, pid))
        python(here, "a", send)
        heard = programs["c"][0].stdout
        assert heard is not None
        assert heard.readline() == b"b'hello'\n"
        proof = agent.check()
        assert proof["problems"] == []
        assert proof["end"]["links"].keys() == {"a->b over lan"}
        fates = {frame.link: frame.cause for frame in ledger.decode(agent.ledger())}
        assert fates == {"a->b over lan": "loss", "a->c over lan": None}
        assert programs["b"][0].poll() is None, "it heard what was lost"


def test_a_host_on_two_networks_gets_each_frame_back_where_it_came_from(build: Build) -> None:
    links = {"a->b over lan": Condition(delay_ns=20 * MS), "a->b over wan": Condition(delay_ns=60 * MS)}
    plan = make_plan({"lan": ["a", "b"], "wan": ["a", "b"]}, links)
    with build(plan) as here, client(here) as agent:
        agent.hosts(plan, here.pids)
        agent.conditions(plan)
        assert 20 <= min(ping(here, "a", ip_of(plan, "b", "lan"))) < 60
        assert min(ping(here, "a", ip_of(plan, "b", "wan"))) >= 60
        proof = agent.check()
        assert proof["problems"] == []
        assert {name: link["frames"] for name, link in proof["end"]["links"].items()} == dict.fromkeys(links, 3)


def test_conditions_are_a_whole_state(build: Build) -> None:
    first = make_plan({"lan": ["a", "b", "c"]}, {"a->b over lan": Condition(delay_ns=30 * MS)})
    second = make_plan(
        {"lan": ["a", "b", "c"]}, {"a->c over lan": Condition(delay_ns=30 * MS), "b->a over lan": Condition()}
    )
    third = make_plan({"lan": ["a", "b", "c"]}, {"c->b over lan": Condition(delay_ns=30 * MS)})
    with build(first) as here, client(here) as agent:
        agent.hosts(first, here.pids)
        agent.conditions(first)
        assert min(ping(here, "a", ip_of(first, "b"))) >= 30
        agent.conditions(second)
        assert made_in(here, "a") == made_in(here, "b") == {"w0": True, "hooks": ["eth0", "w0"]}
        assert min(ping(here, "a", ip_of(first, "c"))) >= 30
        assert min(ping(here, "a", ip_of(first, "b"))) < 20
        assert agent.check()["problems"] == []
        agent.conditions(third)
        assert made_in(here, "a") == made_in(here, "b") == NOTHING
        assert min(ping(here, "a", ip_of(first, "b"))) < 20
        assert agent.check()["problems"] == []
        agent.conditions(replace(first, links=()))
        assert made_in(here, "c") == NOTHING
        assert agent.check()["problems"] == []


def test_without_links_there_is_no_wire_and_nothing_to_prove(build: Build) -> None:
    plan = make_plan({"lan": ["a", "b"]})
    with build(plan) as here, client(here) as agent:
        agent.hosts(plan, here.pids)
        assert agent.conditions(plan) == {"links": {}, "hosts": {}}
        proof = agent.check()
        assert proof["problems"] == []
        assert proof["end"] == {"hosts": {}, "links": {}, "ring": {}}
        assert agent.ledger() == b""


# not in force


PAIR = {"a->b over lan": Condition(delay_ns=MS), "b->a over lan": Condition(delay_ns=MS)}


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (("tc", "filter", "del", "dev", "eth0", "egress"), "missing: egress filter 1 of eth0"),
        (("tc", "qdisc", "del", "dev", "eth0", "clsact"), "missing: egress filter 1 of eth0"),
        (("tc", "filter", "del", "dev", "w0", "ingress"), "missing: ingress filter 1 of w0"),
        (("ip", "link", "del", "w0"), "w0 is missing"),
        (("ip", "link", "set", "w0", "down"), "w0 or its other end is down"),
        (("ip", "link", "set", "w0", "gso_max_segs", "65535"), "w0 lets through super-packets"),
        (
            ("tc", "filter", "add", "dev", "eth0", "egress", "pref", "9", "u32", "match", "u32", "0", "0"),
            "too much: not ours",
        ),
    ],
)
def test_what_is_taken_away_behind_the_agents_back_is_found(
    build: Build, spoil: tuple[str, ...], said: str
) -> None:
    plan = make_plan({"lan": ["a", "b"]}, PAIR)
    with build(plan) as here, client(here) as agent:
        agent.hosts(plan, here.pids)
        agent.conditions(plan)
        ping(here, "a", ip_of(plan, "b"))
        here.run("a", *spoil)
        problems = agent.check()["problems"]
        assert {(outcome, who) for outcome, who, _ in problems} == {("error", "a")}
        assert any("not in force" in text and said in text for _, _, text in problems), problems


def test_a_filter_that_was_away_for_a_while_is_found_by_its_count(build: Build) -> None:
    plan = make_plan({"lan": ["a", "b"]}, PAIR)
    with build(plan) as here, client(here) as agent:
        agent.hosts(plan, here.pids)
        agent.conditions(plan)
        assert len(ping(here, "a", ip_of(plan, "b"))) == 3
        shown = json.loads(here.run("a", *"tc -j filter show dev eth0 egress".split()).stdout)
        lines = next(entry["options"]["bytecode"]["insns"] for entry in shown if "options" in entry)
        program = ",".join([str(len(lines)), *("{code} {jt} {jf} {k}".format(**line) for line in lines)])
        here.run("a", "tc", "filter", "del", "dev", "eth0", "egress")
        again = [
            "tc",
            "filter",
            "add",
            "dev",
            "eth0",
            "egress",
            "protocol",
            "all",
            "pref",
            "1",
            "handle",
            "1",
            "bpf",
        ]
        here.run("a", *again, "bytecode", f"{program},", "action", "mirred", "egress", "redirect", "dev", "w0")
        (problem,) = agent.check()["problems"]
        assert problem == (
            "error",
            "a",
            "the filters of a were not in force all the time: the wire read 3 frames more than they counted, "
            "so they were taken away and put back",
        )


def wire_of(where: Lab) -> int:
    """As we see it: the one child of the agent."""
    (agent,) = [
        int(pid) for pid in Path(f"/proc/{where.outer}/task/{where.outer}/children").read_text().split()
        if b"__main__" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]  # fmt: skip
    (wire,) = Path(f"/proc/{agent}/task/{agent}/children").read_text().split()
    return int(wire)


def test_when_the_wire_dies_nothing_passes_and_the_proof_says_so(build: Build) -> None:
    plan = make_plan({"lan": ["a", "b", "c"]}, PAIR)
    with build(plan) as here, client(here) as agent:
        agent.hosts(plan, here.pids)
        agent.conditions(plan)
        assert len(ping(here, "a", ip_of(plan, "b"))) == 3
        os.kill(wire_of(here), signal.SIGKILL)
        wait_for(lambda: not made_in(here, "a")["w0"])
        assert ping(here, "a", ip_of(plan, "b")) == []
        assert len(ping(here, "a", ip_of(plan, "c"))) == 3
        (problem,) = agent.check()["problems"]
        assert problem[:2] == ("error", "")
        assert re.match(
            r"the conditions are not in force: the wire \(process \d+\) ended with status -9", problem[2]
        )
        with pytest.raises(ConditionError, match="the wire"):
            agent.conditions(plan)
        assert agent.check()["problems"] == [
            ("error", "", "no condition is in force: the last attempt to set them failed")
        ]


def test_a_condition_that_the_wire_cannot_hold_is_refused(build: Build) -> None:
    plan = make_plan({"lan": ["a", "b"]}, {"a->b over lan": Condition(loss_ratio=7.0)})
    with build(plan) as here, client(here) as agent:
        agent.hosts(plan, here.pids)
        with pytest.raises(ConditionError, match=r"the wire refused conditions.*a->b over lan"):
            agent.conditions(plan)
        (problem,) = agent.check()["problems"]
        assert problem[0] == "error"


def with_wire(**lies: Any) -> str:
    """An agent whose wire says other things than it does."""
    source = fake_wire.SOURCE.format(root="ROOT", lie=lies.get("lie", {}), extra=lies.get("extra", {}))
    return AGENT_WITH_WIRE.replace("{wire!r}", f"{source!r}.replace('ROOT', sys.argv[1])")


def test_a_wire_that_holds_something_else_is_not_believed(build: Build) -> None:
    plan = make_plan({"lan": ["a", "b"]}, PAIR)
    agent_source = with_wire(lie={"b->a over lan": {"delay_ns": 5}})
    with build(plan, agent_source) as here, client(here) as agent:
        agent.hosts(plan, here.pids)
        said = "b->a over lan is not in force: asked {'delay_ns': 1000000}, the wire holds {'delay_ns': 5}"
        with pytest.raises(ConditionError, match=re.escape(said)):
            agent.conditions(plan)


def test_frames_that_the_wire_lost_make_its_links_inconclusive(build: Build) -> None:
    plan = make_plan({"lan": ["a", "b"]}, PAIR)
    agent_source = with_wire(extra={"links|a->b over lan|unasked": 4, "hosts|b|frames_in": 1})
    with build(plan, agent_source) as here, client(here) as agent:
        agent.hosts(plan, here.pids)
        agent.conditions(plan)
        ping(here, "a", ip_of(plan, "b"), count=3)
        assert sorted(agent.check()["problems"]) == [
            ("inconclusive", "a->b over lan", "the wire itself lost 4 frames: on a->b over lan"),
            ("inconclusive", "b", "the wire itself lost 3 frames: sent by b, they never reached its receive ring"),
        ]


# the end


@pytest.mark.parametrize("how", ["end of input", "SIGTERM"])
def test_everything_is_undone_at_the_end(build: Build, how: str) -> None:
    plan = make_plan(
        {"lan": ["a", "b"], "wan": ["a", "b"]}, {"a->b over lan": Condition(), "a->b over wan": Condition()}
    )
    with build(plan) as here, client(here) as agent:
        agent.hosts(plan, here.pids)
        agent.conditions(plan)
        assert made_in(here, "a") == {"w0": True, "hooks": ["eth0", "eth1", "w0"]}
        if how == "SIGTERM":
            here.run(None, "kill", "-TERM", str(here.agent))
        else:
            agent.close()
        assert here.end_agent() == (0, "")
        assert made_in(here, "a") == NOTHING
        assert len(ping(here, "a", ip_of(plan, "b"))) == 3
        left = here.run(None, "ps", "-eo", "args").stdout
        assert "testbed.agent" not in left
        assert not list(Path(f"/proc/{here.outer}/root/tmp").glob("testbed-wire-*"))


def test_when_the_agent_is_killed_nothing_passes(build: Build) -> None:
    plan = make_plan({"lan": ["a", "b"]}, PAIR)
    with build(plan) as here, client(here) as agent:
        agent.hosts(plan, here.pids)
        agent.conditions(plan)
        here.run(None, "kill", "-KILL", str(here.agent))
        assert here.end_agent() == (-9, "")
        wait_for(lambda: not made_in(here, "a")["w0"])
        assert ping(here, "a", ip_of(plan, "b")) == []
        here.process.kill()  # `unshare` holds the other end of our pipe too
        with pytest.raises(EngineError, match="the agent ended"):
            agent.check()


def test_undoing_goes_on_when_a_host_has_lost_what_was_made(build: Build) -> None:
    plan = make_plan({"lan": ["a", "b"]}, PAIR)
    with build(plan) as here, client(here) as agent:
        agent.hosts(plan, here.pids)
        agent.conditions(plan)
        here.run("a", "ip", "link", "del", "w0")
        here.run("a", "tc", "qdisc", "del", "dev", "eth0", "clsact")
        agent.close()
        assert here.end_agent() == (0, "")
        assert made_in(here, "a") == made_in(here, "b") == NOTHING


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
    assert hello.keys() == {"version", "fate", "kernel", "iproute2", "python", "capabilities", "scheduler"}


def test_sixty_hosts_come_into_force_and_are_proven_in_seconds(build: Build) -> None:
    names = [f"h{n}" for n in range(60)]
    links = {f"{name}->h0 over lan": Condition(delay_ns=MS) for name in names[1:]}
    plan = make_plan({"lan": names}, links)
    with build(plan) as here, client(here) as agent:
        began = time.monotonic()
        agent.hosts(plan, here.pids)
        agent.conditions(plan)
        assert len(ping(here, "h59", ip_of(plan, "h0"), count=1)) == 1
        assert agent.check()["problems"] == []
        took = time.monotonic() - began
        assert took < 20
