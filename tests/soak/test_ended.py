"""A run that is ended at any moment of its life leaves nothing: killed, five seconds later; told to stop, at once.

The moments differ from one test run to the next; a failure names its own.
"""

from __future__ import annotations

import random
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.disturbed import Left, await_gone, begun, image_made, whole_on_disk
from tests.soak.length import either

KILLED = either({"namespaces": 4, "docker": 2}, {"namespaces": 100, "docker": 30})
TOLD = either({"namespaces": 2, "docker": 1}, {"namespaces": 25, "docker": 8})
TOGETHER = either(4, 10)
STOPPED_WITHIN_S = 120.0


@pytest.fixture(scope="session")
def longest_s(engine: str, tmp_path_factory: pytest.TempPathFactory) -> float:
    """A bit more than a run takes that nobody ends."""
    if engine == "docker":
        image_made()
    began = time.monotonic()
    with begun(engine, tmp_path_factory.mktemp("whole")) as process:
        said = "".join(process.communicate(timeout=300))
    assert process.returncode == 0, said
    return 1.1 * (time.monotonic() - began)


def ended(process: subprocess.Popen[str], after_s: float, by: signal.Signals) -> str:
    """Returns what it had said; its output ends with it, so nobody else holds it."""
    try:
        process.wait(after_s)
    except subprocess.TimeoutExpired:
        while by == signal.SIGINT and interrupt_is_pythons(process.pid):
            time.sleep(0.001)
        process.send_signal(by)
    out, err = process.communicate(timeout=STOPPED_WITHIN_S)
    return err + out


def interrupt_is_pythons(pid: int) -> bool:
    """Whether Ctrl-C would meet Python's own handler: while it loads itself, before any line of ours is run.

    It catches SIGINT and not SIGTERM then. What it says is a traceback and status 1, and nothing has been begun.
    """
    try:
        [caught] = re.findall("SigCgt:\\s*([0-9a-f]+)", Path(f"/proc/{pid}/status").read_text())
    except (OSError, ValueError):  # it has ended: a zombie has no such line
        return False
    return [bool(int(caught, 16) >> (number - 1) & 1) for number in (signal.SIGINT, signal.SIGTERM)] == [
        True,
        False,
    ]


def test_killed_it_leaves_nothing(longest_s: float, engine: str, left: Left, tmp_path: Path) -> None:
    for number in range(KILLED[engine]):
        after_s = random.uniform(0, longest_s)
        with begun(engine, tmp_path / str(number)) as process:
            said = ended(process, after_s, signal.SIGKILL)
        await_gone(left, f"killed after {after_s:.3f} s, having said {said!r}")
        whole_on_disk(tmp_path / str(number))


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda by: by.name)
def test_told_to_stop_it_tears_down_and_says_so(
    longest_s: float, engine: str, left: Left, by: signal.Signals, tmp_path: Path
) -> None:
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
        whole_on_disk(tmp_path / str(number))


def test_of_runs_at_once_those_that_nobody_kills_pass(
    longest_s: float, engine: str, left: Left, tmp_path: Path
) -> None:
    runs = [begun(engine, tmp_path / str(number)) for number in range(TOGETHER)]
    killed, moments = runs[::2], {}
    for process in killed:
        moments[process.pid] = time.monotonic() + random.uniform(0, longest_s * TOGETHER / 2)
    for process in sorted(killed, key=lambda process: moments[process.pid]):
        time.sleep(max(0.0, moments[process.pid] - time.monotonic()))
        process.kill()
    for process in runs:
        out, err = process.communicate(timeout=120)
        assert process in killed or process.returncode == 0, f"{process.returncode}: {err}{out}"
    await_gone(left, f"{len(killed)} of {TOGETHER} killed")
    for number in range(TOGETHER):
        whole_on_disk(tmp_path / str(number))
