"""`testbed judge DIRECTORY` where somebody, or a full disk, was at the files: status 3, one line, no traceback.

What each edit means to the judge is shown in test_stored_files and test_bad_runs; here is every file, at any byte.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from testbed.cli import cli
from testbed.judge import judge
from testbed.measure.records import Judgement, Records
from testbed.results import ENVIRONMENT, KERNEL, LEDGER, PLAN, PROOF, RUN, SCENARIO
from tests.judge.stored_run import Case, good_run, stored

OUTPUT = "programs/sensor-1.sensor.stdout"
READ = (PLAN, RUN, PROOF, KERNEL, LEDGER, OUTPUT)
NOT_READ = (SCENARIO, ENVIRONMENT)


@dataclass
class Kept:
    path: Path

    def judged(self) -> tuple[int, str]:
        """Exit status and the last line. Whatever it is, it is no traceback."""
        done = CliRunner().invoke(cli, ["judge", str(self.path)])
        assert isinstance(done.exception, SystemExit | None) and "Traceback" not in done.output, done.output
        return done.exit_code, done.output.splitlines()[-1]

    def refused(self) -> str:
        """The one line that is said."""
        done = CliRunner().invoke(cli, ["judge", str(self.path)])
        assert (done.exit_code, len(done.output.splitlines())) == (3, 1), done.output
        return done.output

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def write(self, name: str, content: bytes) -> None:
        (self.path / name).write_bytes(content)

    def edit(self, name: str, change: Callable[[Any], object]) -> None:
        data = json.loads(self.read(name))
        change(data)
        self.write(name, json.dumps(data).encode())

    def edit_ledger(self, change: Callable[[list[bytes]], object]) -> None:
        """And let the run say that it has as many lines."""
        lines = self.read(LEDGER).splitlines(keepends=True)
        change(lines)
        self.write(LEDGER, b"".join(lines))
        self.edit(RUN, lambda run: run.update(frames=len(lines)))


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(stored(good_run(), tmp_path).path)


def test_untouched_it_passes(kept: Kept) -> None:
    assert kept.judged() == (0, "pass: all 12 verdicts hold; 12 pass")


# each for its own reason


def emptied(case: Case) -> None:
    case.records = Records(seed=case.plan.seed)


def doubled(lines: list[Any]) -> None:
    lines.extend(lines[:])


WORDS: dict[str, tuple[Callable[[Kept], object], Callable[[Case], object], str]] = {
    "truncated": (
        lambda kept: kept.edit_ledger(lambda lines: lines.pop()),
        lambda case: case.ledger.pop(),
        "is cut off: 324 frames entered, and the wire counted 325",
    ),
    "empty": (
        lambda kept: kept.edit(RUN, lambda run: run.update(programs={}, complete=False)),
        emptied,
        "the records are empty: no program is in them",
    ),
    "duplicated": (
        lambda kept: kept.edit_ledger(doubled),
        lambda case: doubled(case.ledger),
        "is longer than it should be: 900 frames entered, and the wire counted 450",
    ),
    "out of order": (
        lambda kept: kept.edit_ledger(lambda lines: lines.reverse()),
        lambda case: case.ledger.reverse(),
        "stands behind one that came in later",
    ),
    "from another seed": (
        lambda kept: kept.edit(RUN, lambda run: run.update(seed=8)),
        lambda case: setattr(case.records, "seed", 8),
        "the records are of seed 8, and the plan is of seed 7",
    ),
    "of another version": (
        lambda kept: kept.edit(RUN, lambda run: run.update(fate_version=2)),
        lambda case: setattr(case.records, "fate_version", 2),
        "the records are of fate 2, and this version throws the dice of fate 1",
    ),
}


@pytest.mark.parametrize("word", WORDS)
def test_a_stored_run_that_is_so_is_rejected_for_that(kept: Kept, word: str) -> None:
    on_disk, in_memory, reason = WORDS[word]
    on_disk(kept)
    status, last = kept.judged()
    assert status == 3 and last.startswith("error: ") and reason in last, last
    case = good_run()
    in_memory(case)
    found: Judgement = judge(case.plan, case.records)
    assert found.outcome == "error" and reason in found.reason and not found.verdicts, found


def test_no_two_of_them_give_the_same_reason() -> None:
    assert len({reason for _, _, reason in WORDS.values()}) == len(WORDS) == 6


# the files themselves


@pytest.mark.parametrize("name", READ)
def test_cut_off_at_any_byte_it_is_refused_by_name(kept: Kept, name: str) -> None:
    whole = kept.read(name)
    dice = random.Random(name)
    places = {0, 1, len(whole) // 2, len(whole) - 2, *(dice.randrange(len(whole) - 1) for _ in range(6))}
    for place in sorted(places):
        kept.write(name, whole[:place])
        said = kept.refused()
        assert said.startswith("error: reading ") and (name in said or "not a line of a ledger" in said), (
            place,
            said,
        )


@pytest.mark.parametrize("name", READ)
def test_a_file_that_is_there_twice_over_is_refused_by_name(kept: Kept, name: str) -> None:
    kept.write(name, kept.read(name) * 2)
    said = kept.refused()
    assert said.startswith("error: reading ") and name in said, said


@pytest.mark.parametrize("name", READ)
def test_a_file_that_is_gone_is_named(kept: Kept, name: str) -> None:
    (kept.path / name).unlink()
    said = kept.refused()
    assert said.startswith("error: reading ") and name in said, said


@pytest.mark.parametrize("name", NOT_READ)
def test_what_verdicts_do_not_come_from_does_not_matter(kept: Kept, name: str) -> None:
    kept.write(name, b"")
    assert kept.judged()[0] == 0


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (name, content)
        for name in READ[:4]
        for content in (b"[]", b"null", b"7", b'"text"', b"\xff", b"[" * 100_000)
    ],
)
def test_a_file_that_holds_something_else_is_refused(kept: Kept, name: str, content: bytes) -> None:
    kept.write(name, content)
    assert kept.refused().startswith("error: reading ")


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        (PLAN, {"plan_format": 2}, "plan format 2, this version reads 1"),
        (RUN, {"results_format": 2}, "results format 2, this version reads 1"),
        (RUN, {"weather": "fair"}, "weather: this version knows no such key"),
        (PLAN, {"weather": "fair"}, "weather: this version knows no such key"),
        (RUN, {"seed": "7"}, "seed: a whole number belongs there, and not '7'"),
        (RUN, {"complete": 1}, "complete: true or false belongs there, and not 1"),
        (RUN, {"ended_ns": 10**400}, "ended_ns: a whole number belongs there, and not a number beyond all bounds"),
        (KERNEL, {"collector": 3}, "kernel.collector: an object belongs there, and not 3"),
        (PROOF, {"end": []}, "proof.end: an object belongs there, and not []"),
        (PROOF, {"end": {"links": {"x": {"frames": None}}}}, "proof.end.links.x.frames: a whole number belongs"),
        (PLAN, {"programs": []}, "of only one of its hosts and its programs"),
    ],
)
def test_another_format_and_another_type_are_named(
    kept: Kept, name: str, change: dict[str, Any], reason: str
) -> None:
    kept.edit(name, lambda data: data.update(change))
    assert reason in kept.refused()


def test_a_key_that_is_missing_has_no_value_of_its_own(kept: Kept) -> None:
    """An error on record would else be gone with its key."""
    kept.edit(RUN, lambda run: run.pop("error"))
    assert "no records of a run: error: it is missing" in kept.refused()


# any value at all


def places(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        yield from places(value, (*path, key))


def put(data: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    at = data
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return data


@pytest.mark.parametrize("name", READ[:4])
def test_whatever_stands_in_a_file_there_is_no_traceback(kept: Kept, name: str) -> None:
    dice, whole = random.Random(name), kept.read(name)
    where = list(places(json.loads(whole)))
    for path in dice.sample(where, min(15, len(where))):
        value = dice.choice([None, "x", -1, [], {}, True, 1.5, "", [[]], 10**400, 1e308, float("nan")])
        kept.write(name, json.dumps(put(json.loads(whole), path, value)).encode())
        assert kept.judged()[0] in (0, 1, 3, 5), (path, value)
