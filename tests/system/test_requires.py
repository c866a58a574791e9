"""`requires: [command:NAME]`, on each engine: asked where the host is, and what many files together come to."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from testbed.engines.choose import maker
from testbed.project.root import Project
from testbed.runner import Runner
from testbed.scenario import load, parse
from tests.command import ROOT, clean_environment, said, testbed
from tests.disturbed import image_made

ONE = """
testbed: 1
about: A host needs a program.
requires: [REQUIRED]
hosts: {a: {run: COMMAND}}
"""


Make = Callable[..., Path]


@pytest.fixture
def file(tmp_path: Path, engine: str) -> Make:
    if engine == "docker":
        image_made()

    def made(required: str, command: str = "echo") -> Path:
        path = tmp_path / "mine.yaml"
        path.write_text(ONE.replace("REQUIRED", required).replace("COMMAND", command))
        return path

    return made


def run(path: Path, engine: str, *words: str) -> tuple[int, str, str]:
    done = testbed("run", path, "--engine", engine, "--results", path.parent / "r", *words)
    return done.returncode, (done.stdout.splitlines() or [""])[-1], said(done)


@pytest.mark.parametrize("command", ["nosuch -x", "sh -c 'nosuch || true'", "echo"])
def test_what_no_host_has_is_a_skip_and_an_error_when_strict(file: Make, engine: str, command: str) -> None:
    path = file("command:nosuch", f'"{command}"')
    whose = {"namespaces": "this machine", "docker": "our node image"}[engine]
    status, last, shown = run(path, engine)
    assert (status, last) == (4, f"skip: it requires the command nosuch, which {whose} does not have"), shown
    status, last, shown = run(path, engine, "--strict")
    assert status == 3 and "nosuch" in last, shown


@pytest.mark.parametrize("command", ["sh", "ip"])
def test_what_every_host_has_is_there(file: Make, engine: str, command: str) -> None:
    status, _, shown = run(file(f"command:{command}"), engine)
    assert status == 0, shown


def test_a_file_that_is_copied_in_is_there(file: Make, engine: str) -> None:
    path = file("command:mine", "mine")
    text = path.read_text().replace(
        "run: mine", 'run: mine, environment: {PATH: /scenario}, files: {mine: {text: "#!/bin/sh\\n"}}'
    )
    path.write_text(text)
    status, _, shown = run(path, engine)
    assert status == 0, shown


def test_without_the_requirement_it_is_an_error_as_before(file: Make, engine: str) -> None:
    status, last, shown = run(file("command:sh", "nosuch"), engine)
    assert status == 3 and "no command 'nosuch'" in last and "install it on the machine" in last, shown


@pytest.mark.parametrize("jobs", ["1", "3"])
def test_many_files_pass_if_all_that_ran_did_and_the_others_are_named(
    namespaces_work: None, jobs: str, tmp_path: Path
) -> None:
    for name, required in (
        ("good", "command:sh"),
        ("other", "command:nosuch"),
        ("unlike", "command:nginx-of-mine"),
    ):
        (tmp_path / f"{name}.yaml").write_text(ONE.replace("REQUIRED", required).replace("COMMAND", "echo"))
    words = ("--engine", "namespaces", "--results", tmp_path / "r", "--jobs", jobs)
    done = testbed("run", tmp_path, *words)
    assert done.returncode == 0, said(done)
    assert done.stdout.splitlines()[-1] == (
        "pass: 1 pass, 2 skip; 1 of 3 ran, skipped: "
        "other (it requires the command nosuch, which this machine does not have); "
        "unlike (it requires the command nginx-of-mine, which this machine does not have)"
    )
    done = testbed("run", tmp_path, *words, "--strict")
    assert done.returncode == 3 and done.stdout.splitlines()[-1].startswith("error: 2 error, 1 pass"), said(done)
    (tmp_path / "good.yaml").unlink()
    done = testbed("run", tmp_path, *words)
    assert done.returncode == 4 and "0 of 2 ran" in done.stdout.splitlines()[-1], said(done)


def test_make_scenarios_ends_as_the_suite_does(namespaces_work: None, tmp_path: Path) -> None:
    """Exit 0 from `make` where one is skipped: two of what ships stand for all, and the target is the real one."""
    (tmp_path / "scenarios").mkdir()
    for name, required in (("good", "command:sh"), ("other", "command:nosuch")):
        (tmp_path / f"scenarios/{name}.yaml").write_text(
            ONE.replace("REQUIRED", required).replace("COMMAND", "echo")
        )
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/testbed").symlink_to(Path(sys.executable).parent / "testbed")
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / ".venv/.ready").touch()
    words = ["make", "scenarios", "ENGINE=namespaces"]
    # Not as a part of the `make test` that runs us: nothing of its command line, and no word on directories.
    own = ("MAKE", "ARGS", "NAME", "ENGINE", "SEED", "JOBS", "WORKERS", "MFLAGS")
    environment = {name: value for name, value in clean_environment().items() if not name.startswith(own)}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, said(done)
    assert "1 of 2 ran, skipped: other" in done.stdout.splitlines()[-1]


@pytest.mark.parametrize("engine", ["docker"], indirect=True)
def test_the_daemons_machine_is_asked_and_not_the_orchestrators(
    engine: str, file: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    have = len(os.sched_getaffinity(0))
    path = file(f"cpus:{have}")
    monkeypatch.setattr(os, "cpu_count", lambda: 0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set())
    made = maker("docker", lambda _: None)
    runner = Runner(made, "docker", "a test", tmp_path / "r", lambda _: None)
    run = runner.run(load(path), path.read_text(), Project.around(tmp_path))
    assert run.judgement.outcome == "pass", run.judgement
    more = path.read_text().replace(f"cpus:{have}", f"cpus:{have + 1}")
    run = runner.run(parse(more, "mine.yaml"), more, Project.around(tmp_path))
    assert run.judgement.outcome == "skip"
    are = "is" if have == 1 else "are"
    assert run.judgement.reason == f"it requires {have + 1} processors, and {have} {are} there"
