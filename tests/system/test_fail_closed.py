"""Whole runs to whose network something is done behind the agent's back: none of them passes, and each says why.

The hand that does it is a program of a host, allowed to change its own host's network, or, where it is done to our
own processes, this test. What the agent and the wire do then is shown more closely in test_agent_links.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.command import start
from tests.conftest import processes_below

TEXT = """
testbed: 1
about: Datagrams go there and back, while something is done to the network.
hosts:
  server: {serve: datagram echo --port 9000}
  client:
    cap_add: [NET_ADMIN]
    programs:
      probe:
        run: datagram probe server:9000 --count COUNT --interval 1ms --timeout WAIT
        timeout: 90 s
        after: AFTER
      hand: {run: [python3, -c, HAND], after: BEFORE}
links: {client <-> server: {delay: 5 ms}}
expect:
  - client.probe.sent == COUNT
  - client.probe.lost == 0
  - client.probe.round_trip_delay.min >= 10 ms
  - client->server.one_way_delay.max < 100 ms
"""


@dataclass
class Ended:
    status: int
    last: str  # line of the report
    took_s: float  # since the programs were started
    results: Path

    def read(self, name: str) -> Any:
        return json.loads((self.results / name).read_text())

    def outcome(self, text: str) -> str:
        """Of the verdict whose expectation begins so."""
        (found,) = (v for v in self.read("verdicts.json")["verdicts"] if v["text"].startswith(text))
        return str(found["outcome"])


@dataclass
class Going:
    """A run whose programs have been started."""

    process: subprocess.Popen[str]
    results: Path  # of this run
    began: float

    def until(self, said: str) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if said in line:
                return
        raise AssertionError(f"it never said {said!r}")

    def find(self, word: str) -> int:
        """The process of ours that runs this, on namespaces."""
        lines = processes_below(self.process.pid).items()
        (pid,) = (pid for pid, line in lines if word in line and "lab.launch" not in line)
        return pid

    def end(self) -> Ended:
        out, err = self.process.communicate(timeout=120)
        assert "Traceback" not in out + err, out + err
        lines = out.splitlines() or [err]
        return Ended(self.process.returncode, lines[-1], time.monotonic() - self.began, self.results)


@pytest.fixture
def going(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Going]]:
    """Starts a run and returns when its first programs have been started."""
    processes = []

    def begin(
        engine: str,
        hand: str,
        name: str = "spoilt",
        count: int = 300,
        wait: str = "200ms",
        hand_first: bool = False,
    ) -> Going:
        request.getfixturevalue("docker_daemon" if engine == "docker" else "namespaces_work")
        orders = ("{hand: ended}", "[server]") if hand_first else ("[server]", "{probe: started}")
        text = TEXT
        for word, part in {
            "COUNT": str(count),
            "WAIT": wait,
            "AFTER": orders[0],
            "BEFORE": orders[1],
            "HAND": json.dumps(hand),
        }.items():
            text = text.replace(word, part)
        file = tmp_path / f"{name}.yaml"
        file.write_text(text)
        process = start("run", file, "--engine", engine, "--results", tmp_path)
        processes.append(process)
        made = Going(process, tmp_path / name / "latest", 0.0)
        made.until("client.hand started" if hand_first else "client.probe started")
        made.began = time.monotonic()
        return made

    yield begin
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.communicate()


def shell(line: str) -> str:
    """What the hand does a moment after the probe has begun."""
    return f"import os, time; time.sleep(0.2); os.execvp('sh', ['sh', '-c', {line!r}])"


BEHIND_ITS_BACK = {
    "the filter is removed": (
        "tc filter del dev eth0 egress",
        "the conditions of client are not in force: missing: egress filter 1 of eth0",
    ),
    "a filter is put beside ours": (
        "tc filter add dev eth0 egress pref 9 u32 match u32 0 0",
        "the conditions of client are not in force: too much: not ours",
    ),
    "the filter is replaced": (
        "tc filter replace dev eth0 egress protocol all pref 1 handle 1 bpf bytecode '1,6 0 0 0,'"
        " action mirred egress redirect dev w0",
        "the conditions of client are not in force: was to be egress filter 1 of eth0, ",
    ),
    "the way to the wire is gone": ("ip link del w0", "the conditions of client are not in force: w0 is missing"),
}


@pytest.mark.parametrize(
    ("engine", "done"), [("namespaces", BEHIND_ITS_BACK), ("docker", ["the filter is removed"])]
)
def test_what_is_done_behind_the_agents_back_is_an_error(
    going: Callable[..., Going], engine: str, done: list[str]
) -> None:
    """All at once: most of a run is waiting."""
    runs = {what: going(engine, shell(BEHIND_ITS_BACK[what][0]), name=f"run-{n}") for n, what in enumerate(done)}
    for what, run in runs.items():
        ended = run.end()
        assert ended.status == 3 and ended.last.startswith(f"error: {BEHIND_ITS_BACK[what][1]}"), ended


def test_another_condition_in_the_wire_itself_is_an_error(going: Callable[..., Going]) -> None:
    run = going("namespaces", "pass")
    wire = run.find("import wire")
    plan = json.loads((run.results / "plan.json").read_text())
    macs = {host["name"]: host["interfaces"][0]["mac"] for host in plan["hosts"]}
    links = [
        {
            **{key: link[key] for key in ("id", "source", "target", "network")},
            **{f"{end}_mac": macs[link[end]] for end in ("source", "target")},
            "condition": {"delay_ns": 6_000_000},
            "max_frame": 1514,
        }
        for link in plan["links"]
    ]
    hosts = {name: f"h{number}" for number, name in enumerate(sorted(macs))}
    request = {"id": 0, "do": "conditions", "seed": plan["seed"], "hosts": hosts, "links": links}
    with Path(f"/proc/{wire}/fd/1").open() as said, Path(f"/proc/{wire}/fd/0").open("w") as ask:
        ask.write(json.dumps(request) + "\n")
        ask.flush()
        assert json.loads(said.readline())["ok"]["links"][links[0]["id"]] == {"delay_ns": 6_000_000}
    ended = run.end()
    asked = "{'delay_ns': 5000000}, at the end the wire held {'delay_ns': 6000000}"
    assert ended.status == 3 and ended.last.startswith(f"error: client->server over lan: asked {asked}"), ended


def kill_on_docker(_: Going) -> None:
    from testbed.engines.docker_client import api_closed, connect
    from testbed.engines.docker_owner import RUN

    with api_closed(connect(os.environ["DOCKER_HOST"])) as api:
        (agent,) = [c for c in api.containers(filters={"label": RUN}) if c["Names"][0].endswith(".agent")]
        api.kill(agent["Id"])


@pytest.mark.parametrize(
    ("engine", "kill", "reason"),
    [
        (
            "namespaces",
            lambda run: os.kill(run.find("agent.__main__"), signal.SIGKILL),
            "error: the agent ended in mid-run: end of its output; nothing holds or proves the conditions",
        ),
        (
            "namespaces",
            lambda run: os.kill(run.find("import wire"), signal.SIGKILL),
            "error: the conditions are not in force: the wire (process ",
        ),
        ("docker", kill_on_docker, "error: the agent ended in mid-run: "),
    ],
    ids=["the agent", "the wire", "the agent on docker"],
)
def test_a_death_ends_the_run_long_before_its_programs(
    going: Callable[..., Going], engine: str, kill: Callable[[Going], None], reason: str
) -> None:
    run = going(engine, "pass", count=60_000)
    run.until("client.hand ended")
    kill(run)
    ended = run.end()
    assert ended.status == 3 and ended.last.startswith(reason), ended
    assert ended.took_s < 45, "it went on for the minute that the probe takes"


LARGE = """
import socket, subprocess
subprocess.run("ip link set eth0 mtu 9000".split(), check=True)
for _ in range(5):
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(bytes(4000), ("server", 9))
"""


def test_a_frame_too_large_for_a_slot_is_inconclusive(going: Callable[..., Going]) -> None:
    """A host may be allowed to raise its MTU; the wire was told another one."""
    ended = going("namespaces", LARGE).end()
    reason = "inconclusive: the wire itself lost 5 frames: on client->server over lan (5 were larger than a slot)"
    assert ended.status == 5 and ended.last.startswith(reason), ended
    assert ended.outcome("client.probe.lost == 0") == "inconclusive"


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_of_a_wire_that_got_no_processor_only_upper_bounds_on_time_are_inconclusive(
    going: Callable[..., Going],
) -> None:
    run = going("namespaces", "pass", count=1000, wait="1s")
    run.until("client.hand ended")
    with stopped(run.find("import wire")):
        time.sleep(0.6)
    ended = run.end()
    assert ended.status == 5 and "this machine may have made it late by" in ended.last, ended
    outcomes = {v["text"]: v["outcome"] for v in ended.read("verdicts.json")["verdicts"]}
    assert {text for text, outcome in outcomes.items() if outcome != "pass"} == {
        "client->server.one_way_delay.max < 100 ms"
    }


FLOOD = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect(("server", 9000))
s.settimeout(1)
try:
    while True:
        s.send(b"are you there?")
        s.recv(99)
except TimeoutError:
    pass  # the wire stands still
t = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(10_000):
    t.sendto(b"flood", ("server", 9))
"""


def test_a_ring_that_was_flooded_is_inconclusive_and_afterwards_the_link_loses_nothing(
    going: Callable[..., Going],
) -> None:
    run = going("namespaces", FLOOD, wait="1s", hand_first=True)
    with stopped(run.find("import wire")):
        run.until("client.hand ended")
    run.until("client.probe started")
    ended = run.end()
    assert ended.status == 5 and "its receive ring was full" in ended.last, ended
    ring, sent = ended.read("proof.json")["end"]["ring"], ended.read("kernel.json")["client"]["UdpOutDatagrams"]
    ledger = [json.loads(line) for line in (ended.results / "ledger.jsonl").read_text().splitlines()]
    passed = sum(f["link"].startswith("client->") and f["flow"].startswith("udp") for f in ledger)
    assert ring["rx_drops"] > 1000 and passed + ring["rx_drops"] == sent, (ring, passed, sent)
    probed = (ended.results / "programs" / "client.probe.stdout").read_text().splitlines()[-1]
    assert json.loads(probed)["received"] == 300, probed
