"""Every shipped scenario on every engine, every saboteur, and the same fates wherever the file is run."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from testbed.agent.lacking import lacking as lacking_here
from testbed.catalogue import scenarios_in
from testbed.packages import PACKAGE_OF, install
from testbed.plan import plan
from testbed.plan.programs import ENVIRONMENT
from testbed.requirements import of_the_machine, unmet
from testbed.scenario import Scenario, load, parse
from tests.command import ENGINES, ROOT, said, testbed
from tests.conftest import missing
from tests.disturbed import await_gone, image_made, there_is

SHIPPED = scenarios_in(ROOT / "scenarios")
NEGATIVE = scenarios_in(ROOT / "scenarios" / "negative")


def foreign(scenario: Scenario) -> set[str]:
    """The programs nobody here wrote that a scenario runs, by the first words of its commands."""
    return {
        argv[0] for one in plan(scenario).programs for argv in (one.argv, one.ready.argv) if argv
    } & PACKAGE_OF.keys()


def sabotaged(path: Path) -> list[Scenario]:
    return [parse(path.read_text(), path.name, patch) for patch in load(path).fails_when.values()]


def required(scenario: Scenario) -> set[str]:
    return {word.removeprefix("command:") for word in scenario.requires if word.startswith("command:")}


def lacking(path: Path, engine: str, proven: bool = False) -> dict[str, str]:
    """What a file needs, or one of its saboteurs if it is to be `proven`, and this machine has not.

    `make test-kernel` runs those that require SCTP.
    """
    scenario = load(path)
    made = plan(scenario)
    lacks = lacking_here(of_the_machine(made)) | dict.fromkeys(unmet(made, engine), f"not on {engine}")
    needed = {word for one in (scenario, *(sabotaged(path) if proven else ())) for word in required(one)}
    commands = {word for word in needed if not shutil.which(word, path=ENVIRONMENT["PATH"])}
    if engine == "namespaces" and commands:  # hosts there are made of this machine's own programs
        lacks["programs"] = f"{', '.join(sorted(commands))}: {install(commands)}"
    return lacks


@pytest.fixture(scope="session")
def ran(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], tuple[str, str]]:
    """How a file ended on the engine, and its report. All files of a directory run together, four at a time.

    Together they must leave nothing.
    """
    directories: dict[Path, tuple[Path, str]] = {}
    if engine == "docker":
        image_made()

    def look_up(path: Path) -> tuple[str, str]:
        if path.parent not in directories:
            results = tmp_path_factory.mktemp(f"{engine}-{path.parent.name}")
            words = ("--engine", engine, "--results", results, "--strict", "--jobs", "4")
            before = there_is(engine)
            directories[path.parent] = results, said(testbed("run", path.parent, *words, timeout_s=900))
            await_gone(lambda: sorted(there_is(engine) - before), f"all of {path.parent} has run")
        results, shown = directories[path.parent]
        latest = results / path.stem / "latest"
        if not (latest / "verdicts.json").exists():
            return "no verdict", shown
        outcome = json.loads((latest / "verdicts.json").read_text())["outcome"]
        return outcome, (latest / "report.txt").read_text()

    return look_up


def test_the_promised_scenarios_are_there() -> None:
    names = {path.stem for path in SHIPPED}
    assert {"udp-loss", "tcp-loss", "udp-clean", "two-networks", "two-programs", "foreign-programs"} <= names
    assert len(NEGATIVE) >= 6


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_it_requires_the_programs_that_it_runs_and_a_machine_may_lack(path: Path) -> None:
    """So that it is skipped where one is missing; `ip`, `tc` and Python, testbed needs itself."""
    own = {"ip", "tc", "nstat", "python3"}
    for one in (load(path), *sabotaged(path)):
        assert foreign(one) - own <= required(one) <= PACKAGE_OF.keys()


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_it_passes(path: Path, engine: str, ran: Callable[[Path], tuple[str, str]]) -> None:
    for word, reason in lacking(path, engine).items():
        missing(word, f"{path.stem}: {reason}")
    outcome, report = ran(path)
    assert outcome == "pass", report


@pytest.mark.parametrize("path", NEGATIVE, ids=lambda path: path.stem)
def test_it_ends_as_its_file_says(path: Path, ran: Callable[[Path], tuple[str, str]]) -> None:
    outcome, report = ran(path)
    assert outcome == "pass" and "as the file says" in report, report


@pytest.mark.parametrize("path", NEGATIVE, ids=lambda path: path.stem)
def test_without_its_ends_it_exits_as_that_outcome(path: Path, namespaces_work: None, tmp_path: Path) -> None:
    text = path.read_text()
    kind = next(k for k in ("fail", "error", "inconclusive") if f"ends: {{{k}:" in text)
    bare = tmp_path / path.name
    bare.write_text("".join(line for line in text.splitlines(keepends=True) if not line.startswith("ends:")))
    done = testbed("run", bare, "--engine", "namespaces", "--results", tmp_path / "results")
    assert done.returncode == {"fail": 1, "error": 3, "inconclusive": 5}[kind], said(done)
    assert done.stdout.splitlines()[-1].startswith(f"{kind}:")


@pytest.mark.parametrize("name", ["broadcast", "multicast6"])
def test_a_group_frame_reaches_every_member_with_a_fate_of_its_own(name: str, engine: str, tmp_path: Path) -> None:
    done = testbed("run", ROOT / f"tests/system/{name}.yaml", "--engine", engine, "--results", tmp_path)
    assert done.returncode == 0, said(done)


def test_every_scenario_is_proven_able_to_fail(namespaces_work: None, tmp_path: Path) -> None:
    words = ("--engine", "namespaces", "--results", tmp_path, "--jobs", "4")
    here = [path for path in SHIPPED if not lacking(path, "namespaces", proven=True)]
    done = testbed("prove", *here, *words, timeout_s=600)
    assert done.returncode == 0, said(done)
    for path in here:
        caught = len(load(path).fails_when)
        assert caught, f"{path.stem} has nothing to prove"
        passed = caught + 1  # the file by itself
        assert re.search(rf"^pass +{path.stem} .* {passed} pass$", done.stdout, re.MULTILINE), said(done)
    for path in SHIPPED:
        if reason := lacking(path, "namespaces", proven=True).get("programs"):
            missing("programs", f"{path.stem}: {reason}; the files that need nothing more are proven")


def fates(results: Path) -> list[tuple[Any, ...]]:
    """What became of each packet of each flow, without times, from a run's ledger."""
    with (results / "udp-loss/latest/ledger.jsonl").open() as file:
        frames = [json.loads(line) for line in file]
    return sorted((f["link"], f["flow"], f["k"], f["copy"], f["cause"] or "") for f in frames)


def test_both_engines_lose_the_same_datagrams(docker_daemon: str, namespaces_work: None, tmp_path: Path) -> None:
    found = {}
    for name in ENGINES:
        done = testbed("run", "udp-loss", "--engine", name, "--seed", "42", "--results", tmp_path / name)
        assert done.returncode == 0, said(done)
        found[name] = fates(tmp_path / name)
    assert found["docker"] == found["namespaces"]
    assert sum(cause == "loss" for *_, cause in found["docker"]) > 100


def test_two_wires_lose_the_same_datagrams_as_one(namespaces_work: None, tmp_path: Path) -> None:
    found = []
    for wires in ("1", "2"):
        words = ("--engine", "namespaces", "--wires", wires, "--results", tmp_path / wires)
        done = testbed("run", "udp-loss", *words)
        assert done.returncode == 0, said(done)
        found.append(fates(tmp_path / wires))
    assert found[0] == found[1]


def test_another_seed_loses_others(namespaces_work: None, tmp_path: Path) -> None:
    found = []
    for seed in ("1", "2"):
        done = testbed("run", "udp-loss", "--engine", "namespaces", "--seed", seed, "--results", tmp_path / seed)
        assert done.returncode == 0, said(done)
        found.append({fate[:3] for fate in fates(tmp_path / seed) if fate[4] == "loss"})
    assert found[0] != found[1]
