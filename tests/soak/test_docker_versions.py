"""What Docker runs, on a version between the oldest and the newest of those that `.ci/run` tries."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.command import ROOT
from tests.conftest import missing
from tests.soak.length import LENGTH

BETWEEN = "26"


def test_all_that_docker_runs_passes_on_a_version_between() -> None:
    if LENGTH == "short":
        pytest.skip(f"`make soak` runs it, or `make test-docker DOCKER={BETWEEN}`: it takes five minutes")
    if os.geteuid() != 0:
        missing("docker", "only root can start a daemon")
    argv = [sys.executable, "-m", "pytest", "-q", "-m", "docker", "tests/contract", "tests/system"]
    done = subprocess.run(
        argv, cwd=ROOT, env=os.environ | {"TESTBED_DOCKER": BETWEEN}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2000:]
