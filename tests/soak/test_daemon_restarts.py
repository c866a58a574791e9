"""A Docker daemon that goes away in mid-run is named as the reason, and keeps nothing of it when it is back."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.command import said, testbed
from tests.conftest import missing, processes_below
from tests.disturbed import await_gone, begun, image_made, on_daemon, until, whole_on_disk
from tests.docker_daemon import NoDaemon, docker_daemon, start_again, stop
from tests.soak.length import either

BACK_WITHIN_S = 60.0  # the janitor tries once a second


@pytest.fixture(scope="module")
def own_daemon() -> Iterator[str]:
    """One that may be stopped: no other test uses it."""
    with ExitStack() as stack:
        try:
            host = stack.enter_context(docker_daemon(private=True))
        except NoDaemon as problem:
            missing("docker", str(problem))
        yield host


CASES = [(by, lives) for by in (signal.SIGKILL, signal.SIGTERM) for lives in (False, True)]


@pytest.mark.parametrize(("by", "janitor_lives"), either(CASES[:1], CASES))
def test_a_daemon_that_stops_in_mid_run_is_named_and_leaves_nothing_when_it_is_back(
    own_daemon: str, by: signal.Signals, janitor_lives: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_HOST", own_daemon)
    image_made()
    before = on_daemon(own_daemon)
    with begun("docker", tmp_path, probes=20_000) as process:
        until(process, "client.client started")
        stop(own_daemon, by)
        out, err = process.communicate(timeout=120)
    what = err + out
    assert process.returncode == 3 and "Traceback" not in err, what
    reason = out.splitlines()[-1]
    assert reason.startswith("error: ") and "the Docker daemon cannot be reached" in reason, what
    [run] = whole_on_disk(tmp_path)
    assert run["state"] == "ended" and reason.startswith(f"error: {run['error']}"), what
    if by == signal.SIGKILL:  # else it answers while it ends its containers
        assert "the Docker daemon cannot be reached" in run["error"], what
    [janitor] = [pid for pid, line in processes_below(os.getpid()).items() if "testbed.engines.janitor" in line]
    if not janitor_lives:
        os.kill(janitor, signal.SIGKILL)
    start_again(own_daemon)
    if not janitor_lives:
        assert on_daemon(own_daemon) - before, "nobody was there to remove it"
        done = testbed("clean")
        assert done.returncode == 0 and "removed network testbed-" in done.stdout, said(done)

    def left() -> list[str]:
        waiting = [line for pid, line in processes_below(os.getpid()).items() if pid == janitor]
        return [*waiting, *sorted(on_daemon(own_daemon) - before)]

    await_gone(left, what, BACK_WITHIN_S)
