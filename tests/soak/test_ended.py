"""A run that is ended at any moment of its life leaves nothing: killed, five seconds later; told to stop, at once.

The moments differ from one test run to the next; a failure names its own.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from testbed.engines import docker_owner
from testbed.engines.docker_client import api_closed, connect
from tests.command import ENGINES, start
from tests.conftest import interfaces, namespace_mounts, processes_below
from tests.docker_daemon import on_its_machine

SHORT = Path(__file__).with_name("short.yaml")
TIMES = {("namespaces", signal.SIGKILL): 100, ("docker", signal.SIGKILL): 30}
TOLD = {"namespaces": 25, "docker": 8}
GONE_WITHIN_S = 5.0
STOPPED_WITHIN_S = 30.0

Left = Callable[[], list[str]]


@pytest.fixture
def left(engine: str) -> Left:
    """What there is that was not there before: on the machine, and on the daemon."""
    before = interfaces(), namespace_mounts(), set(processes_below(os.getpid()))

    def look() -> list[str]:
        found = [
            f"process {pid}: {line}" for pid, line in processes_below(os.getpid()).items() if pid not in before[2]
        ]
        found += [f"interface {name}" for name in interfaces() - before[0]]
        found += [f"namespace {path}" for path in namespace_mounts() - before[1]]
        return found + (on_daemon(os.environ["DOCKER_HOST"]) if engine == "docker" else [])

    assert look() == []
    return look


def on_daemon(host: str) -> list[str]:
    with api_closed(connect(host)) as api:
        found = [str(one) for one in docker_owner.find(api)]
    links = json.loads(on_its_machine(host, ["ip", "-j", "link"], check=True).stdout)
    return found + [f"device {link['ifname']}" for link in links if link["ifname"].startswith("tb")]


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    request.getfixturevalue("docker_daemon" if request.param == "docker" else "namespaces_work")
    return str(request.param)


def begun(engine: str, directory: Path) -> subprocess.Popen[str]:
    temporary = directory / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    results = directory / "results"
    return start("run", SHORT, "--engine", engine, "--results", results, TMPDIR=str(temporary))


def whole_s(engine: str, directory: Path) -> float:
    """How long a run takes that nobody ends."""
    began = time.monotonic()
    with begun(engine, directory) as process:
        said = "".join(process.communicate(timeout=120))
    assert process.returncode == 0, said
    return time.monotonic() - began


def ended(process: subprocess.Popen[str], after_s: float, by: signal.Signals) -> str:
    """Returns what it had said; its output ends with it, so nobody else holds it."""
    try:
        process.wait(after_s)
    except subprocess.TimeoutExpired:
        process.send_signal(by)
    out, err = process.communicate(timeout=STOPPED_WITHIN_S)
    return err + out


def test_killed_it_leaves_nothing(engine: str, left: Left, tmp_path: Path) -> None:
    longest_s = 1.1 * whole_s(engine, tmp_path)
    for number in range(TIMES[engine, signal.SIGKILL]):
        after_s = random.uniform(0, longest_s)
        with begun(engine, tmp_path / str(number)) as process:
            said = ended(process, after_s, signal.SIGKILL)
        deadline = time.monotonic() + GONE_WITHIN_S
        while there := left():
            assert time.monotonic() < deadline, f"killed after {after_s:.3f} s, having said {said!r}: {there}"
            time.sleep(0.05)
        whole_on_disk(tmp_path / str(number) / "results")


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda by: by.name)
def test_told_to_stop_it_tears_down_and_says_so(
    engine: str, left: Left, by: signal.Signals, tmp_path: Path
) -> None:
    longest_s = 1.1 * whole_s(engine, tmp_path)
    for number in range(TOLD[engine]):
        after_s = random.uniform(0, longest_s)
        with begun(engine, tmp_path / str(number)) as process:
            said = ended(process, after_s, by)
        what = f"{by.name} after {after_s:.3f} s: {process.returncode}, having said {said!r}"
        assert process.returncode in (0, 128 + by, -by), what
        if process.returncode == -by:  # before Python is told what to do then, and when it is told no more
            assert "up in" not in said or said.endswith("3 pass\n"), what
        assert "Traceback" not in said, what
        assert left() == [], what
        assert not list((tmp_path / str(number) / "tmp").iterdir()), what
        whole_on_disk(tmp_path / str(number) / "results")


def whole_on_disk(results: Path) -> None:
    """Every file of records is there whole or not at all."""
    for path in results.rglob("*.json"):
        json.loads(path.read_text())
