"""Where a limit cannot be had, no result says that there is one: the hosts' own control groups are read back."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testbed import limits
from testbed.doctor import _limits_of_docker
from testbed.engines import choose
from testbed.project.root import Project
from testbed.runner import Runner
from testbed.scenario import parse
from tests.conftest import missing
from tests.docker_daemon import NoDaemon, docker_daemon

TEXT = """
testbed: 1
about: A host that would like to take 100 MB.
hosts: {a: {run: "python3 -c 'bytearray(100_000_000)'"}}
"""


def environment(engine: str, where: Path, said: list[str]) -> dict[str, Any]:
    run = Runner(choose.maker(engine, said.append), engine, "a test", where, said.append).run(
        parse(TEXT, "limits.yaml"), TEXT, Project.around(where)
    )
    assert run.judgement.outcome == "pass", run.judgement
    kept: dict[str, Any] = json.loads((run.results.path / "environment.json").read_text())["engine"]
    return kept


@pytest.fixture
def without_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A daemon on a machine whose control groups lack the controller `memory`."""
    if not Path("/sys/fs/cgroup/memory").is_dir():
        missing("cgroups", "no controller `memory` of version 1 that could be taken away")
    try:
        with docker_daemon(private=True, without=["memory"]) as host:
            monkeypatch.setenv("DOCKER_HOST", host)
            yield
    except NoDaemon as problem:
        missing("docker", str(problem))


def test_a_daemon_that_cannot_limit_memory_is_not_said_to(without_memory: None, tmp_path: Path) -> None:
    said: list[str] = []
    found = environment("docker", tmp_path, said)
    assert (found["limits"]["memory_bytes"], found["limits"]["swap_bytes"]) == (None, None)
    assert found["limits"]["processes"] == limits.PROCESSES
    assert [line for line in said if "no control group limits memory on every host" in line], said
    assert any("memory" in warning for warning in found["warnings"]), found["warnings"]
    (finding,) = _limits_of_docker()
    assert not finding.works and "memory" in finding.found.split("(")[0], finding


@pytest.mark.parametrize("engine", ["namespaces", "docker"])
def test_where_limits_hold_that_is_what_is_recorded(
    engine: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    request.getfixturevalue("namespaces_work" if engine == "namespaces" else "docker_daemon")
    said: list[str] = []
    found = environment(engine, tmp_path, said)
    if os.geteuid() != 0 and found.get("no_control_groups"):
        missing("cgroups", found["no_control_groups"])
    assert {name: found["limits"][name] for name in limits.BY_GROUPS} == limits.BY_GROUPS
    assert not [line for line in said if "no control group" in line]
