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
from concurrent.futures import ThreadPoolExecutor
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
  - client->server.one_way_delay.max < 300 ms
"""


@dataclass
class Ended:
    status: int
    last: str  # line of the report
    took_s: float  # since the programs were started
    results: Path

    def read(self, name: str) -> Any:
        return json.loads((self.results / name).read_text())


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

    def read(self, name: str) -> Any:
        return json.loads((self.results / name).read_text())

    def end(self) -> Ended:
        out, err = self.process.communicate(timeout=120)
        assert "Traceback" not in out + err, out + err
        lines = out.splitlines() or [err]
        return Ended(self.process.returncode, lines[-1], time.monotonic() - self.began, self.results)


@pytest.fixture
def going(tmp_path: Path) -> Iterator[Callable[..., Going]]:
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


LARGE = """
import socket, subprocess
subprocess.run("ip link set eth0 mtu 9000".split(), check=True)
for _ in range(5):
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(bytes(4000), ("server", 9))
"""


def rewrite(run: Going) -> None:
    """Tell the wire other conditions, and take its answer, so that the agent notices neither."""
    wire, plan = run.find("import wire"), run.read("plan.json")
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


def killed(word: str) -> Callable[[Going], None]:
    return lambda run: os.kill(run.find(word), signal.SIGKILL)


def killed_on_docker(end: str) -> Callable[[Going], None]:
    """The container whose name ends so."""
    from testbed.engines.docker_client import api_closed, connect
    from testbed.engines.docker_owner import RUN

    def kill(_: Going) -> None:
        with api_closed(connect(os.environ["DOCKER_HOST"])) as api:
            (one,) = [c for c in api.containers(filters={"label": RUN}) if c["Names"][0].endswith(end)]
            api.kill(one["Id"])

    return kill


@dataclass
class Case:
    """What is done to a run, by its hand and by us once the probe has been started; and how the run ends."""

    hand: str
    status: int
    reason: str
    ours: Callable[[Going], None] = lambda _: None
    count: int = 300


NOT_IN_FORCE = "error: the conditions of client are not in force:"
DEAD = "error: the agent ended in mid-run: {}; nothing holds or proves the conditions any more"
HOST_DEAD = "error: the conditions are not in force: host server has gone: the process that held it open ("
CHANGED = "asked {'delay_ns': 5000000}, at the end the wire held {'delay_ns': 6000000}"
A_MINUTE = 60_000
REPLACE = "tc filter replace dev eth0 egress protocol all pref 1 handle 1"
CASES = {
    "the filter is removed": Case(
        shell("tc filter del dev eth0 egress"), 3, f"{NOT_IN_FORCE} missing: egress filter 1 of eth0"
    ),
    "a filter is put beside ours": Case(
        shell("tc filter add dev eth0 egress pref 9 u32 match u32 0 0"), 3, f"{NOT_IN_FORCE} too much: not ours"
    ),
    "the filter is replaced": Case(
        shell(f"{REPLACE} bpf bytecode '1,6 0 0 0,' action mirred egress redirect dev w0"),
        3,
        f"{NOT_IN_FORCE} was to be egress filter 1 of eth0, ",
    ),
    "the way to the wire is gone": Case(shell("ip link del w0"), 3, f"{NOT_IN_FORCE} w0 is missing"),
    "a condition is changed in the wire itself": Case(
        "pass", 3, f"error: client->server over lan: {CHANGED}", rewrite, count=1000
    ),
    "a host raises its MTU and sends what no slot holds": Case(
        LARGE,
        5,
        "inconclusive: the wire itself lost 5 frames: on client->server over lan (5 were larger than a slot)",
    ),
    "the agent is killed": Case("pass", 3, DEAD.format("end of its output"), killed("agent.__main__"), A_MINUTE),
    "a host is killed": Case("pass", 3, HOST_DEAD, killed("server of lab-"), A_MINUTE),
    "the wire is killed": Case(
        "pass", 3, "error: the conditions are not in force: the wire (process ", killed("import wire"), A_MINUTE
    ),
}
ON_DOCKER = {
    "the filter is removed": CASES["the filter is removed"],
    "the agent is killed": Case(
        "pass", 3, DEAD.format("its container ended with SIGKILL"), killed_on_docker(".agent"), A_MINUTE
    ),
    "a host is killed": Case("pass", 3, HOST_DEAD, killed_on_docker("-server"), A_MINUTE),
}


@pytest.mark.parametrize(("engine", "cases"), [("namespaces", CASES), ("docker", ON_DOCKER)])
def test_what_is_done_behind_the_agents_back_is_no_pass_and_the_reason_is_said(
    request: pytest.FixtureRequest, going: Callable[..., Going], engine: str, cases: dict[str, Case]
) -> None:
    """Each in a run of its own; some at once on namespaces, because most of a run is waiting."""
    request.getfixturevalue("docker_daemon" if engine == "docker" else "namespaces_work")

    def whole(number: int, case: Case) -> Ended:
        run = going(engine, case.hand, name=f"run-{number}", count=case.count)
        case.ours(run)
        return run.end()

    with ThreadPoolExecutor(4 if engine == "namespaces" else 1) as threads:
        ended = dict(zip(cases, threads.map(whole, range(len(cases)), cases.values()), strict=True))
    for what, case in cases.items():
        run = ended[what]
        assert run.status == case.status and run.last.startswith(case.reason), (what, run)
        if case.count == A_MINUTE:
            assert "READY" in (run.results / "programs/server.server.stdout").read_text(), "output is kept"
        assert case.count != A_MINUTE or run.took_s < 45, f"{what}: it went on for the minute that the probe takes"


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def sent(run: Going) -> int:
    """How many datagrams have left the host of the probe so far."""
    lines = Path(f"/proc/{run.find('probe server:9000')}/net/snmp").read_text().splitlines()
    names, counts = (line.split() for line in lines if line.startswith("Udp:"))
    return int(dict(zip(names, counts, strict=True))["OutDatagrams"])


def until_sent(run: Going, count: int) -> None:
    deadline = time.monotonic() + 60
    while sent(run) < count:
        assert time.monotonic() < deadline, f"{sent(run)} of {count} datagrams were sent"
        time.sleep(0.01)


def test_of_a_wire_that_got_no_processor_only_upper_bounds_on_time_are_inconclusive(
    namespaces_work: None, going: Callable[..., Going]
) -> None:
    run = going("namespaces", "pass", count=1000, wait="1s")
    until_sent(run, 100)
    with stopped(run.find("import wire")):
        time.sleep(0.6)
        until_sent(run, 400)
    ended = run.end()
    assert ended.status == 5 and "this machine may have made it late by" in ended.last, ended
    outcomes = {v["text"]: v["outcome"] for v in ended.read("verdicts.json")["verdicts"]}
    assert {text for text, outcome in outcomes.items() if outcome != "pass"} == {
        "client->server.one_way_delay.max < 300 ms"
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
    namespaces_work: None, going: Callable[..., Going]
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
