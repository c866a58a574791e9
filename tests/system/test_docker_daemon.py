"""The private daemons that tests run on: of the version asked for, and gone with a test that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from testbed.engines.docker_client import api_closed, connect
from tests import docker_roots
from tests.command import ROOT
from tests.conftest import processes_below
from tests.docker_daemon import NoDaemon, docker_daemon, version_asked
from tests.system.docker_lab import await_true

HOLDS = """
from tests.docker_daemon import docker_daemon
with docker_daemon(private=True) as host:
    print(host, flush=True)
    input()
"""


def test_the_daemon_has_the_version_that_was_asked_for(docker_daemon: str) -> None:
    with api_closed(connect(docker_daemon)) as api:
        assert str(api.version()["Version"]).startswith(version_asked())


def test_a_version_that_nobody_has_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can start a daemon")
    monkeypatch.setenv("TESTBED_DOCKER", "19")
    with pytest.raises(NoDaemon, match=f"Docker 19: there are {', '.join(docker_roots.SUITES)}"), docker_daemon():
        pass


def test_a_private_daemon_goes_with_the_test_that_started_it(docker_daemon: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can start a daemon")
    before = set(processes_below(os.getpid()))
    argv = [sys.executable, "-c", HOLDS]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as holder:
        assert holder.stdout is not None
        directory = Path(holder.stdout.readline().strip().removeprefix("unix://")).parent
        started = {pid: line for pid, line in processes_below(os.getpid()).items() if pid not in before}
        assert any(line.startswith("dockerd ") for line in started.values()) and (directory / "data").is_dir()
        holder.send_signal(signal.SIGKILL)
    await_true(lambda: not set(processes_below(os.getpid())) - before and not directory.exists())
