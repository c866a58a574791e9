"""The namespaces engine on this machine: each check of its modules here, as root and as an ordinary user."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import tests.parcel
import tests.system
from testbed.engines.namespaces import PACKAGES, base_interpreter
from tests.conftest import missing
from tests.system import namespaces_isolation, namespaces_lab, namespaces_life

ORDINARY = 54321  # a uid that no account has: nothing but the kernel's rules counts
KILLS = 20
BUSY = 8  # processes of a lab with its hosts up and programs in them; the last kill waits for that
GONE_S = 5.0  # measured: 0.05 to 0.5 s; the rest is for a machine that is busy


@dataclass(frozen=True)
class User:
    """How to run a check: with which interpreter, from which copy of the sources, as whom."""

    python: str
    tree: Path
    who: dict[str, Any] = field(default_factory=dict)

    def argv(self, module: ModuleType, check: str) -> list[str]:
        code = (
            f"import sys; sys.path.insert(0, {str(self.tree)!r}); from {module.__name__} import {check}; {check}()"
        )
        return [self.python, "-X", "dev", "-W", "error", "-IS", "-c", code]


@pytest.fixture(scope="module", params=["root", "ordinary user"])
def user(request: pytest.FixtureRequest, namespaces_work: None) -> Iterator[User]:
    if os.geteuid() != 0:
        if request.param == "root":
            missing("root", f"these tests run as uid {os.geteuid()}")
        yield User(sys.executable, Path(PACKAGES))
    elif request.param == "root":
        yield User(sys.executable, Path(PACKAGES))
    else:
        who = {"user": ORDINARY, "group": ORDINARY, "extra_groups": []}
        with tempfile.TemporaryDirectory() as directory:
            yield User(readable_interpreter(who), readable_copy(Path(directory)), who)


def readable_copy(tree: Path) -> Path:
    """The sources where everybody can read them: a checkout of root's need not be such a place."""
    tree.chmod(0o755)
    shutil.copytree(Path(PACKAGES, "testbed"), tree / "testbed")
    (tree / "tests/system").mkdir(parents=True)
    for module in (tests, tests.parcel, tests.system, namespaces_isolation, namespaces_lab, namespaces_life):
        path = Path(str(module.__file__))
        shutil.copy2(path, tree / path.relative_to(PACKAGES))
    for path in tree.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return tree


def readable_interpreter(who: dict[str, Any]) -> str:
    try_it = "import sys; sys.exit(sys.version_info < (3, 11))"
    for python in (base_interpreter(), shutil.which("python3", path="/usr/local/bin:/usr/bin")):
        try:
            if python and subprocess.run([python, "-IS", "-c", try_it], cwd="/", **who).returncode == 0:
                return python
        except PermissionError:
            continue
    missing("interpreter", "none of Python 3.11 or newer that an ordinary user can run")
    raise AssertionError


@pytest.mark.parametrize("check", namespaces_isolation.CHECKS)
def test_isolation(user: User, check: str) -> None:
    passes(user, namespaces_isolation, check)


@pytest.mark.parametrize("check", namespaces_life.CHECKS)
def test_life(user: User, check: str) -> None:
    passes(user, namespaces_life, check)


def passes(user: User, module: ModuleType, check: str) -> None:
    """It ends well and says nothing, not even a warning of Python's."""
    done = subprocess.run(
        user.argv(module, check), capture_output=True, text=True, cwd="/", timeout=120, **user.who
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_nothing_outlives_a_killed_orchestrator(user: User) -> None:
    """Killed at moments spread over its life: from before the lab's first process to when programs are busy."""
    for number in range(KILLS):
        lab = f"lab-{os.getpid()}-{number}"  # in the orchestrator's command line too, and so in its forks'
        argv = [*user.argv(namespaces_life, "live_until_killed"), lab]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, cwd="/", **user.who)
        assert process.stdout is not None
        with process, process.stdout:
            process.stdout.readline()
            time.sleep(0.4 * number / KILLS)
            while number == KILLS - 1 and len(namespaces_lab.processes_of(lab)) < BUSY:
                time.sleep(0.01)
            process.kill()
        deadline, quiet = time.monotonic() + GONE_S, 0
        while quiet < 2:  # one look can miss a process in the middle of an exec
            left = namespaces_lab.processes_of(lab) + namespaces_lab.groups_of(lab)
            assert not left or time.monotonic() < deadline, left
            quiet = 0 if left else quiet + 1
            time.sleep(0.01)
