"""A daemon that maps the users of containers (userns-remap) is passed by, and it is said why."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.command import said, testbed
from tests.conftest import missing
from tests.docker_daemon import NoDaemon, docker_daemon

WHY = "this daemon maps users (userns-remap)"


@pytest.fixture(scope="module")
def daemon() -> Iterator[str]:
    with ExitStack() as stack:
        try:
            host = stack.enter_context(docker_daemon(private=True, options=["--userns-remap=default"]))
        except NoDaemon as problem:
            missing("docker", str(problem))
        yield host


def test_auto_takes_namespaces_and_says_why(daemon: str, namespaces_work: None, tmp_path: Path) -> None:
    done = testbed("run", "udp-clean", "--engine", "auto", "--results", tmp_path, DOCKER_HOST=daemon)
    assert done.returncode == 0 and f"engine namespaces: no Docker daemon: {WHY}" in done.stderr, said(done)


def test_asked_for_by_name_it_is_refused_before_anything_runs(daemon: str, tmp_path: Path) -> None:
    done = testbed("run", "unix-named-point", "--engine", "docker", "--results", tmp_path, DOCKER_HOST=daemon)
    assert done.returncode == 3 and WHY in done.stdout.splitlines()[-1], said(done)


def test_doctor_says_that_it_does_not_work(daemon: str) -> None:
    done = testbed("doctor", DOCKER_HOST=daemon)
    line = next(line for line in done.stdout.splitlines() if "engine docker" in line)
    assert WHY in done.stdout and not line.startswith("✓") and "works" not in line, said(done)
