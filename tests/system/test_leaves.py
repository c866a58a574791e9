"""The look for leftovers at the end of a test session finds what that left, and nothing of anybody else."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from testbed import groups
from tests.command import ROOT
from tests.conftest import missing, processes_below

CASE = Path(__file__).with_name("leaves_case.py")


def session(leaves: str, meanwhile: Callable[[int], None]) -> subprocess.CompletedProcess[str]:
    """One that leaves that, in a network of its own; `meanwhile` is called with its process while it is busy."""
    argv = ["unshare", "--net", sys.executable, "-m", "pytest", "-s", "-p", "no:cacheprovider", str(CASE)]
    with subprocess.Popen(
        argv, cwd=ROOT, env=os.environ | {"LEAVES": leaves}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        assert process.stdin is not None and process.stdout is not None
        shown = ""
        while "busy" not in shown:
            line = process.stdout.readline()
            assert line, shown
            shown += line
        meanwhile(process.pid)
        out, _ = process.communicate("go on\n", timeout=60)
    return subprocess.CompletedProcess(argv, process.returncode, shown + out)


@pytest.fixture(autouse=True)
def root_with_groups() -> None:
    if os.geteuid() != 0:
        missing("root", "only root can make a network that is not its own user's")


def test_what_others_make_meanwhile_is_not_its_own() -> None:
    made: list[Path] = []

    def others(pid: int) -> None:
        there = ["nsenter", f"--net=/proc/{pid}/ns/net", "ip"]
        for words in ("link add name br9 type bridge", "link add name v9 type veth peer name v8"):
            subprocess.run([*there, *words.split()], check=True)
        subprocess.run(["ip", "netns", "add", f"outsider-{pid}"], check=True)
        for place in groups.parents():
            outside = next(
                p for p in (Path(place.directory), *Path(place.directory).parents) if "-tests-" not in str(p)
            )
            made.append(outside / f"{groups.OF_LAB}outsider-{pid}")
            made[-1].mkdir()

    try:
        done = session("nothing", others)
    finally:
        for path in made:
            with suppress(FileNotFoundError):  # a lab of somebody else has swept it
                path.rmdir()
        for name in [path.name for path in Path("/run/netns").glob("outsider-*")]:
            subprocess.run(["ip", "netns", "del", name], check=True)
    assert done.returncode == 0 and "\nnothing: " in done.stdout, done.stdout


@pytest.mark.parametrize("what", ["a process", "a control group"])
def test_what_it_left_itself_is_found(what: str) -> None:
    try:
        groups.parents()
    except groups.NoGroups as problem:
        missing("cgroups", str(problem))
    before = set(processes_below(os.getpid()))
    done = session(what, lambda _: None)
    for pid in set(processes_below(os.getpid())) - before:
        os.kill(pid, 9)
    found = {"a process": "sleep 60", "a control group": f"{groups.OF_LAB}left"}[what]
    assert done.returncode == 1 and found in done.stdout.partition("left behind")[2], done.stdout
