"""Programs that run away, on every engine: each meets a limit and has failed, and nothing else has suffered."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed import limits
from testbed.engines import choose
from testbed.judge import judge
from testbed.project.root import Project
from testbed.results import Results
from testbed.runner import Run, Runner
from testbed.scenario import parse
from tests.conftest import missing

RUNAWAY = Path(__file__).with_name("runaway.yaml")
WHY = {
    "bomb": "Resource temporarily unavailable",
    "hog": "was ended by SIGKILL (hog took more than the 2 GiB of memory of a host, and the kernel ended 1 there)",
    "filler": "No space left on device",
    "flood": "wrote more than 64 MiB to one of its outputs",
}


@pytest.fixture(scope="module", params=["namespaces", "docker"])
def runaway(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    request.getfixturevalue("namespaces_work" if request.param == "namespaces" else "docker_daemon")
    where = tmp_path_factory.mktemp("runaway")
    engine = choose.maker(request.param, lambda _: None)
    runner = Runner(engine, request.param, "a test", where, lambda _: None)
    text = RUNAWAY.read_text()
    run = runner.run(parse(text, "runaway.yaml"), text, Project.around(where))
    environment = json.loads((run.results.path / "environment.json").read_text())
    if why := environment["engine"].get("no_control_groups"):
        missing("cgroups", why)
    yield run


@pytest.mark.parametrize("host", WHY)
def test_a_program_that_runs_away_has_failed_and_the_reason_says_at_which_limit(runaway: Run, host: str) -> None:
    found = [v for v in runaway.judgement.verdicts if v.text.startswith(f"{host}.")]
    assert [v.outcome for v in found] == ["fail"]
    assert WHY[host] in found[0].reason and "\n" not in found[0].reason, found[0].reason


def test_others_in_the_same_run_are_undisturbed(runaway: Run) -> None:
    assert runaway.judgement.outcome == "fail"
    others = [v for v in runaway.judgement.verdicts if v.text.split(".")[0] not in WHY]
    assert [v.outcome for v in others] == ["pass"] * 3, others


def test_the_results_are_whole_and_of_a_flood_the_beginning_is_kept(runaway: Run) -> None:
    kept = Results(runaway.results.path)
    plan, records = kept.load()
    assert judge(plan, records) == runaway.judgement
    assert not records.leftovers and not records.error
    assert len(records.programs["flood.flood"].stderr) == limits.OUTPUT_BYTES
    assert {host for host, counters in records.kernel.items() if counters.get("OomKill")} == {"hog"}
