"""Whatever part of a run is ended, nothing is left; and `clean` takes only what is dead."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from testbed.engines import docker_owner
from testbed.engines.docker_client import api_closed, connect
from testbed.engines.namespaces import AGENT
from tests.command import ROOT, clean_environment, said, start, testbed
from tests.conftest import missing, processes_below
from tests.disturbed import Left, await_gone, begun, there_is, until, whole_on_disk, words
from tests.own_groups import OF_TESTS

BUSY = "client.client started"
A_SECOND, A_MINUTE = 1000, 60_000  # probes; it never gets to the end of the minute
ENDS_WITHIN_S = 60


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def lab_of(orchestrator: int) -> tuple[int, int, int]:
    """The process ids of a lab's launcher, of its process 1 and of its agent."""
    below = processes_below(orchestrator)
    [launcher] = [pid for pid in below if parent_of(pid) == orchestrator]
    [first] = [pid for pid in below if parent_of(pid) == launcher]
    [agent] = [pid for pid, line in below.items() if parent_of(pid) == first and f"-c {AGENT}" in line]
    return launcher, first, agent


def kill_agent(engine: str, orchestrator: int) -> None:
    if engine == "namespaces":
        os.kill(lab_of(orchestrator)[2], signal.SIGKILL)
        return
    with api_closed(connect()) as api:
        [agent] = [one for one in docker_owner.find(api) if one.labels.get(docker_owner.ROLE) == "agent"]
        api.kill(agent.id)


def test_a_killed_agent_leaves_nothing(engine: str, left: Left, tmp_path: Path) -> None:
    with begun(engine, tmp_path, A_SECOND) as process:
        until(process, BUSY)
        kill_agent(engine, process.pid)
        out, err = process.communicate(timeout=ENDS_WITHIN_S)
    assert process.returncode == 3 and "Traceback" not in err, err + out
    await_gone(left, err + out)
    [run] = whole_on_disk(tmp_path)
    assert run["state"] == "ended" and "the agent ended" in run["error"]
    assert engine != "docker" or "its container ended with SIGKILL" in run["error"], run["error"]


@pytest.mark.parametrize("which", [(0,), (1,), (0, 1)], ids=["launcher", "process 1", "both"])
def test_the_first_processes_of_a_lab_killed_with_its_orchestrator_leave_nothing(
    namespaces_work: None, which: tuple[int, ...], tmp_path: Path
) -> None:
    before = there_is("namespaces")
    with begun("namespaces", tmp_path, A_MINUTE) as process:
        until(process, BUSY)
        victims = [process.pid, *(lab_of(process.pid)[number] for number in which)]
        for stop in (signal.SIGSTOP, signal.SIGKILL):  # none of them sees another one die
            for victim in victims:
                os.kill(victim, stop)
        process.communicate(timeout=ENDS_WITHIN_S)
    groups: set[str] = set()  # what the launcher would have removed last of all

    def others() -> list[str]:
        there = there_is("namespaces") - before
        groups.update(one for one in there if 0 in which and one.startswith("control group"))
        return sorted(there - groups)

    await_gone(others, f"killed {victims}")
    swept = clean()
    removed = {line.removeprefix("removed ") for line in swept.stdout.splitlines()[:-1]}
    assert groups <= removed and not any(OF_TESTS in one for one in removed - groups), said(
        swept
    )  # others' may be dead
    assert sorted(there_is("namespaces") - before) == []
    [run] = whole_on_disk(tmp_path)
    assert run["state"] == "started"


def test_a_terminal_that_goes_away_ends_the_run_in_order(engine: str, left: Left, tmp_path: Path) -> None:
    master, slave = os.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "testbed", *map(str, words(engine, tmp_path, A_MINUTE))],
            cwd=ROOT, env=clean_environment() | {"TMPDIR": str(tmp_path / "tmp")},
            stdin=slave, stdout=slave, stderr=slave,
            start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
    finally:
        os.close(slave)
    shown = b""
    while BUSY.encode() not in shown:
        shown += os.read(master, 4096)
    os.close(master)
    assert process.wait(ENDS_WITHIN_S) == 128 + signal.SIGHUP, shown
    assert left() == []
    [run] = whole_on_disk(tmp_path)
    assert run["state"] == "ended" and run["error"] == "interrupted by SIGHUP"


# `testbed clean`

AS_ANOTHER = """
import os, sys, time
from testbed import cli, doctor
from testbed.engines import docker, docker_client, docker_owner
os.setgroups([int(sys.argv.pop(1))])  # the one that may use the daemon
os.setgid(65534)
os.setuid(65534)
"""
CLEAN = AS_ANOTHER + "cli.main()"
OWN = (
    AS_ANOTHER
    + """
with docker_client.api_closed(docker_client.connect()) as api:
    api.create_volume("testbed-theirs-v", labels=docker_owner.labels("theirs"))
print("made", flush=True)
time.sleep(99)
"""
)


def clean() -> subprocess.CompletedProcess[str]:
    return testbed("clean")


def as_another(text: str, *words: str) -> subprocess.Popen[str]:
    """By a user who cannot signal our processes, but may use the daemon. All is loaded while it is still root."""
    if os.geteuid() != 0:
        missing("root", "only root can be two users")
    address = os.environ.get("DOCKER_HOST", "").removeprefix("unix://")
    group = Path(address).stat().st_gid if address.startswith("/") else 65534
    return subprocess.Popen(
        [sys.executable, "-c", text, str(group), *words], cwd=ROOT, env=clean_environment() | {"HOME": "/"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def clean_as_another() -> subprocess.CompletedProcess[str]:
    with as_another(CLEAN, "clean") as process:
        out, err = process.communicate(timeout=60)
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


# Told to go on, it ends well; so it lives for as long as the cleaning takes.
WAITS = """
testbed: 1
about: A host waits for a signal of ours.
hosts: {a: {run: "sh -c 'trap \\"exit 0\\" TERM; echo waits; sleep 600 >/dev/null 2>&1 & wait; : WORD'"}}
expect: ['a.stdout contains "waits"']
"""


def places(left: list[str]) -> set[str]:
    """Processes without their command lines: one that was forked just now still has its parent's."""
    return {one.partition(":")[0] if one.startswith("process ") else one for one in left}


def go_on(word: str) -> None:
    [pid] = [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if path.read_bytes().startswith(b"sh\0-c\0trap") and word.encode() in path.read_bytes()
    ]
    os.kill(pid, signal.SIGTERM)


def test_clean_takes_the_dead_and_leaves_the_living(engine: str, left: Left, tmp_path: Path) -> None:
    scenario = tmp_path / "waits.yaml"
    scenario.write_text(WAITS.replace("WORD", tmp_path.name))
    with start("run", scenario, "--engine", engine, "--results", tmp_path / "results") as process:
        until(process, "a.a started")
        there = places(left())
        assert there
        for cleaning in (clean, clean_as_another) if os.geteuid() == 0 else (clean,):
            if engine == "docker":
                with api_closed(connect()) as api:
                    dead = docker_owner.labels("dead") | {docker_owner.STARTED: "1"}
                    api.create_volume("testbed-dead-v", labels=dead)
            done = cleaning()
            removed = ["removed volume testbed-dead-v"] if engine == "docker" else []
            assert done.returncode == 0 and done.stdout.splitlines()[:-1] == removed, said(done)
            assert there <= places(left()), said(done)
        go_on(tmp_path.name)
        out, err = process.communicate(timeout=ENDS_WITHIN_S)
    assert process.returncode == 0, err + out
    assert left() == []


def test_clean_leaves_the_living_of_another_user(docker_daemon: str) -> None:
    with as_another(OWN) as owner:
        assert owner.stdout is not None and owner.stdout.readline() == "made\n"
        there = clean(), clean_as_another()
        owner.kill()
    assert [done.stdout.splitlines()[:-1] for done in there] == [[], []], [said(done) for done in there]
    gone = clean()
    assert gone.stdout.splitlines()[:-1] == ["removed volume testbed-theirs-v"], said(gone)
