"""Runtimes that size themselves by the machine take a host for it, on every engine whose hosts have them."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from testbed.limits import MEMORY_BYTES, PROCESSES
from tests.conftest import missing
from tests.contract.labs import Lab, MakeEngine, lab

TEXT = """
testbed: 1
about: A host in which a runtime starts.
duration: 1 s
hosts: {a: {}}
"""
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@pytest.fixture(scope="module")
def up(real_engine: MakeEngine) -> Iterator[Lab]:
    with lab(real_engine, TEXT) as made:
        if why := made.engine.describe().get("no_control_groups"):
            missing("cgroups", why)
        yield made


def said(up: Lab, *argv: str) -> str:
    if up.agent.lookup("a", argv[0], PATH, "/") is None:
        missing(argv[0], f"hosts of the {up.engine.name} engine have none here")
    running = up.command("a", argv, cwd="/")
    assert running.process.wait(60) and running.exit == 0, running.err
    return running.text + running.err.decode()


def test_java_knows_its_groups(up: Lab) -> None:
    """It says nothing of a limit of memory that is beyond what the machine has."""
    found = said(up, "java", "-XshowSettings:system", "-version")
    assert "Provider: cgroup" in found and f"Maximum Processes Limit: {PROCESSES}\n" in found, found


def test_java_takes_a_quarter_of_the_hosts_memory_for_its_heap(up: Lab) -> None:
    flags = [line.split() for line in said(up, "java", "-XX:+PrintFlagsFinal", "-version").splitlines()]
    found = {words[1]: words[3] for words in flags if len(words) > 3}
    assert found["UseContainerSupport"] == "true"
    assert int(found["MaxHeapSize"]) == MEMORY_BYTES // 4


def test_node_knows_the_limit(up: Lab) -> None:
    assert int(said(up, "node", "-e", "console.log(process.constrainedMemory())")) == MEMORY_BYTES


def test_nobody_takes_less_processors_than_there_are(up: Lab) -> None:
    """What a host is shown beside its limits says of none that is not there."""
    shown = "console.log(require('os').availableParallelism?.() ?? require('os').cpus().length)"
    assert int(said(up, "node", "-e", shown)) == len(os.sched_getaffinity(0))
