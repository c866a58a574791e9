"""Conditions in force, proven, tampered with and undone, in real namespaces, as root and as an ordinary user."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest

from testbed.agent.client import AgentClient
from testbed.conditions.condition import Condition
from testbed.errors import ConditionError, EngineError
from testbed.measure import ledger
from tests.system import fake_wire
from tests.system.agent_lab import (
    AGENT_WITH_WIRE,
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

MS = 1_000_000
PAIR = {"a->b over lan": Condition(delay_ns=MS), "b->a over lan": Condition(delay_ns=MS)}


@pytest.fixture(params=["root", "user"])
def build(request: pytest.FixtureRequest) -> Build:
    return builder(request.param)


def made_in(where: Lab, host: str) -> dict[str, Any]:
    """What the agent leaves in a host while conditions are in force."""
    hooks = [
        entry["dev"]
        for entry in json.loads(where.run(host, "tc", "-j", "qdisc", "show").stdout)
        if entry["kind"] == "clsact"
    ]
    return {"w0": any(link["ifname"] == "w0" for link in where.ip(host, "link")), "hooks": sorted(hooks)}


NOTHING = {"w0": False, "hooks": []}


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


def test_what_kernels_send_after_the_end_passes_and_is_no_part_of_the_run(build: Build) -> None:
    """A kernel goes on when its programs have ended: it repeats what was not acknowledged, or lost."""
    plan = make_plan({"lan": ["a", "b"]}, PAIR)
    send = f"""import random, socket, time
s = socket.socket(2, 2)
while True:
    s.sendto(b"again", ("{ip_of(plan, "b")}", 9000))
    time.sleep(random.uniform(0.05, 0.06))"""  # after 50 ms of silence the wire holds the run for over
    with build(plan) as here, client(here) as agent:
        agent.hosts(plan, here.pids)
        agent.conditions(plan)
        here.start("a", "python3", "-c", send)
        before = 0
        while before < 20:  # some came between the end and the reading of the counts
            proof = agent.check()
            assert proof["problems"] == []
            frames = list(ledger.decode(agent.ledger()))
            counted = {name: link["frames"] for name, link in proof["end"]["links"].items()}
            assert counted == {link: sum(frame.link == link for frame in frames) for link in PAIR}
            before += counted["a->b over lan"] > before


def test_without_links_there_is_no_wire_and_nothing_to_prove(build: Build) -> None:
    plan = make_plan({"lan": ["a", "b"]})
    with build(plan) as here, client(here) as agent:
        agent.hosts(plan, here.pids)
        assert agent.conditions(plan) == {"links": {}, "hosts": {}}
        proof = agent.check()
        assert proof["problems"] == []
        assert set(proof["end"].pop("cpu_wait_p99_ns")) == {"a", "b"}
        assert proof["end"].pop("crossings") == {"lan": {"hosts": 2, "received": 0, "to_all": 0, "to_one": 0}}
        assert proof["end"] == {"hosts": {}, "links": {}, "ring": {}}
        assert agent.ledger() == b""


# not in force


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


def wires_of(where: Lab) -> list[int]:
    """As we see them: the children of the agent."""
    (agent,) = [
        int(pid) for pid in Path(f"/proc/{where.outer}/task/{where.outer}/children").read_text().split()
        if b"__main__" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]  # fmt: skip
    return [int(wire) for wire in Path(f"/proc/{agent}/task/{agent}/children").read_text().split()]


def unasked(agent: AgentClient) -> str:
    """What the client knows of the conditions without asking; "" while they hold."""
    try:
        agent.still_there()
    except (ConditionError, EngineError) as problem:
        return str(problem)
    return ""


def test_when_the_wire_dies_nothing_passes_and_the_proof_says_so(build: Build) -> None:
    plan = make_plan({"lan": ["a", "b", "c"]}, PAIR)
    with build(plan) as here, client(here) as agent:
        agent.hosts(plan, here.pids)
        agent.conditions(plan)
        assert len(ping(here, "a", ip_of(plan, "b"))) == 3
        agent.still_there()
        (wire,) = wires_of(here)
        os.kill(wire, signal.SIGKILL)
        wait_for(lambda: not made_in(here, "a")["w0"])
        wait_for(lambda: "the wire (process" in unasked(agent))
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


def test_several_wires_share_the_hosts_and_answer_as_one(build: Build) -> None:
    all_pairs = {
        f"{source}->{target} over lan": Condition(delay_ns=10_000_000, duplicate_ratio=1.0)
        for source, target in permutations("abc", 2)
    }
    plan = make_plan({"lan": ["a", "b", "c"]}, all_pairs)
    with build(plan) as here, client(here) as agent:
        agent.prepare_wires(plan, 2)
        agent.hosts(plan, here.pids)
        assert agent.conditions(plan)["wire"]["wires"] == 2
        assert len(wires_of(here)) == 2
        for source, target in permutations("abc", 2):
            assert min(ping(here, source, ip_of(plan, target))) >= 20
        proof = agent.check()
        assert proof["problems"] == []
        frames = list(ledger.decode(agent.ledger()))
        for link in all_pairs:
            passed = [frame for frame in frames if frame.link == link]
            assert proof["end"]["links"][link]["frames"] == len(passed) / 2 >= 6, link
        assert proof["end"]["ring"]["rx_drops"] == 0
        os.kill(wires_of(here)[1], signal.SIGKILL)
        (problem,) = agent.check()["problems"]
        assert problem[0] == "error" and re.search(r"the wire \(process \d+\) ended with status -9", problem[2])
        carried = [len(ping(here, source, ip_of(plan, target))) for source, target in permutations("abc", 2)]
        assert 0 in carried, "whoever sent through it is cut off"


def test_no_more_wires_than_hosts_that_send(build: Build) -> None:
    plan = make_plan({"lan": ["a", "b", "c"]}, PAIR)
    with build(plan) as here, client(here) as agent:
        agent.prepare_wires(plan, 64)
        agent.hosts(plan, here.pids)
        assert agent.conditions(plan)["wire"]["wires"] == len({link.split("->")[0] for link in PAIR})


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
        seen = list(Path(f"/proc/{here.outer}/root/tmp").glob("testbed-wire-*"))
        wait_for(lambda: not any(path.exists() for path in seen))  # those of others who start just now go, too


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
        wait_for(lambda: "the agent ended in mid-run" in unasked(agent))
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


def test_sixty_hosts_come_into_force_and_are_proven_within_a_minute(build: Build) -> None:
    names = [f"h{n}" for n in range(60)]
    links = {f"{name}->h0 over lan": Condition(delay_ns=MS) for name in names[1:]}
    plan = make_plan({"lan": names}, links)
    with build(plan) as here, client(here) as agent:
        began = time.monotonic()
        agent.hosts(plan, here.pids)
        agent.conditions(plan)
        assert len(ping(here, "h59", ip_of(plan, "h0"), count=1)) == 1
        assert agent.check()["problems"] == []
        assert time.monotonic() - began < 60
