"""Labels, who is alive, and removal until it is quiet: against a daemon that is a list."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import docker.errors
import pytest
import requests

from testbed.engines import docker_owner as owner
from testbed.engines.docker_owner import Found, is_alive, remove, remove_until_quiet, sweep
from testbed.engines.janitor import in_flight
from testbed.errors import EngineError

if TYPE_CHECKING:
    Fake = Any  # stands for the SDK's client, which it implements a part of
else:
    Fake = object

CREATED_S, STAMP = 1_700_000_000, "2023-11-14T22:13:20.123456789Z"


class Daemon(Fake):  # type: ignore[misc]
    """The part of the SDK's client that is used here. `later`: what a list shows only from its n-th call on."""

    def __init__(self, now_s: int = CREATED_S) -> None:
        self.objects: list[tuple[str, str, dict[str, str], bool]] = []  # kind, name, labels, running
        self.later: list[tuple[int, tuple[str, str, dict[str, str], bool]]] = []
        self.refuse: dict[str, list[str]] = {}  # name -> what it answers, one after the other
        self.lists, self.now_s = 0, now_s
        self.removed: list[str] = []

    def add(self, kind: str, name: str, labels: dict[str, str], running: bool = False) -> None:
        self.objects.append((kind, name, labels, running))

    def _list(self, kind: str, wanted: str) -> list[tuple[str, dict[str, str], bool]]:
        key, _, value = wanted.partition("=")
        return [
            (name, labels, running)
            for k, name, labels, running in self.objects
            if k == kind and key in labels and (not value or labels[key] == value)
        ]

    def containers(self, all: bool, filters: dict[str, str]) -> list[dict[str, Any]]:
        assert all, "those that do not run are to go as well"
        self.lists += 1
        self.objects += [one for at, one in self.later if at == self.lists]
        return [
            {"Id": name, "Names": [f"/{name}"], "Labels": labels, "Created": CREATED_S,
             "State": "running" if running else "exited"}
            for name, labels, running in self._list("container", filters["label"])
        ]  # fmt: skip

    def networks(self, filters: dict[str, str]) -> list[dict[str, Any]]:
        return [
            {"Id": n, "Name": n, "Labels": labels, "Created": STAMP}
            for n, labels, _ in self._list("network", filters["label"])
        ]

    def volumes(self, filters: dict[str, str]) -> dict[str, Any]:
        found = self._list("volume", filters["label"])
        stamp = "2023-11-14T23:13:20+01:00"
        return {"Volumes": [{"Name": n, "Labels": labels, "CreatedAt": stamp} for n, labels, _ in found] or None}

    def info(self) -> dict[str, Any]:
        from datetime import UTC, datetime

        return {"SystemTime": datetime.fromtimestamp(self.now_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.5Z")}

    def _gone(self, kind: str, name: str) -> None:
        if self.refuse.get(name):
            raise answered(409, self.refuse[name].pop(0))
        if name not in [n for k, n, _, _ in self.objects if k == kind]:
            raise docker.errors.NotFound("no such thing")
        self.objects = [o for o in self.objects if o[:2] != (kind, name)]
        self.removed.append(f"{kind} {name}")

    def remove_container(self, name: str, force: bool, v: bool) -> None:
        assert force and v, "a running one too, and what its image asked for"
        self._gone("container", name)

    def remove_network(self, name: str) -> None:
        self._gone("network", name)

    def remove_volume(self, name: str, force: bool) -> None:
        self._gone("volume", name)


def answered(status: int, text: str) -> docker.errors.APIError:
    response = requests.Response()
    response.status_code = status
    return docker.errors.APIError("refused", response, text)


def whole_run(daemon: Daemon, labels: dict[str, str], agent_runs: bool = False) -> None:
    run = labels[owner.RUN]
    daemon.add("volume", f"{run}-v", labels)
    daemon.add("network", f"{run}-n", labels)
    daemon.add("container", f"{run}-h", labels, True)
    daemon.add("container", f"{run}.agent", labels | {owner.ROLE: owner.AGENT}, agent_runs)


ELSEWHERE = {owner.BOOT: "another boot", owner.PIDS: "pid:[1]", owner.PID: "1", owner.STARTED: "1"}


def dead_pid() -> int:
    with subprocess.Popen([sys.executable, "-ISc", ""]) as process:
        process.wait()
    return process.pid


def test_a_run_carries_its_owner() -> None:
    labels = owner.labels("r1")
    assert labels[owner.RUN] == "r1" and labels[owner.PID] == str(os.getpid())
    assert labels[owner.BOOT] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert labels[owner.STARTED] == Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
    assert all(isinstance(value, str) for value in labels.values())


def found(labels: dict[str, str], role: str = "", running: bool = False, created_s: float = 0) -> Found:
    return Found("container", "x", "x", labels | ({owner.ROLE: role} if role else {}), created_s, running)


def test_an_owner_that_we_can_see_is_judged_by_its_process() -> None:
    ours = owner.labels("r")
    assert is_alive([found(ours)], 1e12), "ourselves, however old"
    assert not is_alive([found(ours | {owner.PID: str(dead_pid())}, owner.AGENT, True)], 0.0)
    assert not is_alive([found(ours | {owner.STARTED: "1"})], 0.0), "the number went to another process"
    init = {owner.PID: "1", owner.STARTED: Path("/proc/1/stat").read_text().rpartition(")")[2].split()[19]}
    assert is_alive([found(ours | init)], 1e12)


def test_another_users_process_is_alive_even_if_we_may_not_look_at_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(pid: int, number: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "kill", refused)
    monkeypatch.setattr(owner, "_started", lambda _: None)  # /proc mounted with hidepid
    marks = {owner.BOOT: owner._boot(), owner.PIDS: owner._pid_namespace(), owner.PID: "77", owner.STARTED: "5"}
    assert is_alive([found(marks)], 1e12)


@pytest.mark.parametrize("mark", [owner.BOOT, owner.PIDS])
def test_an_owner_elsewhere_is_judged_by_its_agent_and_its_age(mark: str) -> None:
    marks = owner.labels("r") | {owner.PID: str(dead_pid()), mark: "another"}
    assert is_alive([found(marks), found(marks, owner.AGENT, True)], 1e12), "its agent runs"
    old, young = found(marks, created_s=1000), found(marks, owner.AGENT, False, 1100)
    assert not is_alive([old, young], 1100 + owner.UNATTENDED_S)
    assert is_alive([old, young], 1099 + owner.UNATTENDED_S), "it may be about to start its agent"


@pytest.mark.parametrize("without", [owner.PID, owner.BOOT, owner.PIDS, owner.STARTED])
def test_what_does_not_say_whose_it_is_is_left_alone(without: str) -> None:
    marks = {k: v for k, v in ({owner.RUN: "r"} | ELSEWHERE).items() if k != without}
    assert is_alive([found(marks)], 1e12)
    assert is_alive([found(marks | {owner.PID: "somebody"})], 1e12)


def test_objects_are_found_by_label_containers_first() -> None:
    daemon = Daemon()
    whole_run(daemon, {owner.RUN: "r1"} | ELSEWHERE)
    whole_run(daemon, {owner.RUN: "r2"} | ELSEWHERE)
    daemon.add("container", "somebody-elses", {"com.example": "x"})
    mine = owner.find(daemon, "r1")
    assert [str(o) for o in mine] == ["container r1-h", "container r1.agent", "network r1-n", "volume r1-v"]
    assert {o.created_s for o in mine} == {float(CREATED_S)}, "one instant in three notations"
    assert len(owner.find(daemon)) == 8


def test_what_is_gone_already_is_no_trouble_and_what_is_refused_is_told() -> None:
    daemon = Daemon()
    whole_run(daemon, {owner.RUN: "r"})
    objects = owner.find(daemon, "r")
    daemon.refuse = {"r-n": ["has active endpoints"], "r-h": ["removal of container r-h is already in progress"]}
    assert {str(o): why for o, why in remove(daemon, objects).items()} == {"network r-n": "has active endpoints"}
    assert remove(daemon, [o for o in objects if o.kind == "volume"]) == {}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Time that passes by sleeping only."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda s: now.__setitem__(0, now[0] + s))
    return now


def test_removal_goes_on_until_it_is_quiet_so_that_late_creates_go_too(clock: list[float]) -> None:
    daemon, labels = Daemon(), {owner.RUN: "r"}
    whole_run(daemon, labels)
    daemon.later = [(6, ("container", "late", labels, False)), (14, ("network", "later", labels, False))]
    removed = remove_until_quiet(daemon, "r", lambda _: 1.0)
    assert removed[-2:] == ["container late", "network later"] and len(removed) == 6
    assert daemon.objects == []
    assert 2.2 < clock[0] - 1000 < 2.5, "a second after the last one was found"


def test_a_create_that_was_announced_is_waited_for(clock: list[float]) -> None:
    daemon, labels = Daemon(), {owner.RUN: "r"}
    daemon.later = [(50, ("container", "slow", labels, False))]
    removed = remove_until_quiet(daemon, "r", lambda seen: 0.5 if {"container slow"} <= seen else 10.0)
    assert removed == ["container slow"] and clock[0] - 1000 < 6


def test_what_is_refused_at_first_is_tried_again(clock: list[float]) -> None:
    daemon = Daemon()
    daemon.add("network", "n", {owner.RUN: "r"})
    daemon.refuse = {"n": ["has active endpoints"] * 5}
    assert remove_until_quiet(daemon, "r", lambda _: 0.0) == ["network n"]
    assert daemon.objects == []


def test_what_never_goes_is_an_error_that_names_it(clock: list[float]) -> None:
    daemon = Daemon()
    daemon.add("network", "n", {owner.RUN: "r"})
    daemon.refuse = {"n": ["has active endpoints"] * 100_000}
    with pytest.raises(EngineError, match=r"run r made: after \d+ s still there: network n: has active endpoints"):
        remove_until_quiet(daemon, "r", lambda _: 1.0)


def test_one_object_can_be_spared(clock: list[float]) -> None:
    daemon = Daemon()
    whole_run(daemon, {owner.RUN: "r"}, agent_runs=True)
    remove_until_quiet(daemon, "r", lambda _: 0.0, but="r.agent")
    assert [name for _, name, _, _ in daemon.objects] == ["r.agent"]


def test_a_sweep_takes_dead_runs_only() -> None:
    daemon = Daemon(now_s=CREATED_S + 3600)
    live = owner.labels("live")
    whole_run(daemon, live)
    whole_run(daemon, live | {owner.RUN: "dead", owner.PID: str(dead_pid())})
    whole_run(daemon, ELSEWHERE | {owner.RUN: "remote-live"}, agent_runs=True)
    whole_run(daemon, ELSEWHERE | {owner.RUN: "remote-dead"})
    daemon.add("volume", "precious", {"com.example": "x"})
    removed = sweep(daemon)
    assert sorted(removed) == sorted(
        f"{kind} {run}{name}"
        for run in ("dead", "remote-dead")
        for kind, name in (("container", "-h"), ("container", ".agent"), ("network", "-n"), ("volume", "-v"))
    )
    left = {name for _, name, _, _ in daemon.objects}
    assert left == {"precious"} | {
        f"{r}{n}" for r in ("live", "remote-live") for n in ("-h", ".agent", "-n", "-v")
    }


@pytest.mark.parametrize(
    ("stamp", "seconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2023-11-14T22:13:20.999999999Z", CREATED_S),
        ("2023-11-15T03:43:20.5+05:30", CREATED_S),
        ("2023-11-14T22:13:20-00:00", CREATED_S),
    ],
)
def test_gos_times_are_read(stamp: str, seconds: int) -> None:
    assert owner._seconds(stamp) == seconds


@pytest.mark.parametrize("stamp", ["", None, "yesterday", "2023-11-14 22:13:20"])
def test_what_is_no_time_is_refused(stamp: Any) -> None:
    with pytest.raises(EngineError, match="reading a time"):
        owner._seconds(stamp)


def test_the_janitor_knows_what_was_in_flight() -> None:
    assert in_flight([]) == set()
    lines = ["+ container a\n", "+ network n\n", "- container a\n", "+ volume v\n", "+ container b"]
    assert in_flight(lines) == {"network n", "volume v", "container b"}
    assert in_flight([*lines, "\n", "done\n", "+ container never-read\n"]) is None
