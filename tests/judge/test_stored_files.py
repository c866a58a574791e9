"""A run on disk whose files were cut, lost or edited: it is refused in words or judged an error, never a pass."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from testbed.errors import HostError
from testbed.judge import judge
from testbed.measure.records import Judgement
from testbed.results import KERNEL, LEDGER, PLAN, PROOF, RUN, Results
from tests.judge.stored_run import METER_OUT, OUT, good_run, stored

Edit = Callable[[Any], object]


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return stored(good_run(), tmp_path).path


def judged(kept: Path) -> Judgement:
    return judge(*Results(kept).load())


def edit(path: Path, change: Edit) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def edit_ledger(kept: Path, change: Callable[[list[str]], object], forge_the_count: bool = True) -> None:
    lines = (kept / LEDGER).read_text().splitlines()
    change(lines)
    (kept / LEDGER).write_text("".join(f"{line}\n" for line in lines))
    if forge_the_count:
        edit(kept / RUN, lambda run: run.update(frames=len(lines)))


LEDGER_ROWS: dict[str, tuple[Callable[[list[str]], object], str]] = {
    "the last line is gone": (lambda lines: lines.pop(), "is cut off: 324 frames entered"),
    "the first half is gone": (lambda lines: lines.__delitem__(slice(800)), "is cut off: "),
    "all lines are gone": (lambda lines: lines.clear(), "is cut off: 0 frames entered"),
    "every line is there twice": (lambda lines: lines.extend(lines[:]), "is longer than it should be: 900 frames"),
    "one line is there twice": (lambda lines: lines.insert(5, lines[5]), "is longer than it should be: "),
    "the lines are in reverse": (lambda lines: lines.reverse(), "stands behind one that came in later"),
    "the lines are sorted as text": (lambda lines: lines.sort(key=lambda line: line[20:]), "came in later"),
    "a loss is called a delivery": (
        lambda lines: lines.__setitem__(
            next(i for i, line in enumerate(lines) if '"cause":"loss"' in line),
            next(line for line in lines if '"cause":"loss"' in line).replace('"loss"', "null"),
        ),
        "frames left, and the wire counted",
    ),
}


@pytest.mark.parametrize("name", LEDGER_ROWS)
def test_a_ledger_that_was_edited_is_not_believed(kept: Path, name: str) -> None:
    change, reason = LEDGER_ROWS[name]
    edit_ledger(kept, change)
    judgement = judged(kept)
    assert judgement.outcome == "error" and reason in judgement.reason, judgement


def test_a_ledger_shorter_than_the_run_says_is_refused_before_it_is_judged(kept: Path) -> None:
    edit_ledger(kept, lambda lines: lines.pop(), forge_the_count=False)
    with pytest.raises(HostError, match="1,667 lines of 1,668"):
        judged(kept)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('"cause":"loss"', '"cause":"witchcraft"', "no such cause as 'witchcraft'"),
        ('"k":3,', '"k":"3",', "a value of the wrong type"),
        ('"copy":true', '"copy":1', "a value of the wrong type"),
        ('"k":3,', "", "missing 1 required"),
        ('{"in_ns"', '{"extra":1,"in_ns"', "unexpected keyword"),
        ('"in_ns"', "in_ns", "not a line of a ledger"),
    ],
)
def test_a_line_that_is_none_is_refused_by_name(kept: Path, old: str, new: str, reason: str) -> None:
    text = (kept / LEDGER).read_text()
    assert old in text
    (kept / LEDGER).write_text(text.replace(old, new, 1))
    with pytest.raises(HostError, match=reason):
        judged(kept)


EDITS: dict[str, tuple[str, Edit, str]] = {
    "another seed in the run": (RUN, lambda run: run.update(seed=8), "of seed 8, and the plan is of seed 7"),
    "another seed in the plan": (PLAN, lambda plan: plan.update(seed=8), "of seed 7, and the plan is of seed 8"),
    "other dice": (RUN, lambda run: run.update(fate_version=9), "the records are of fate 9"),
    "a run that did not end": (RUN, lambda run: run.update(complete=False), "the records are not complete"),
    "a run that only began": (RUN, lambda run: run.update(state="started"), "the run never came to its end"),
    "an error on record": (RUN, lambda run: run.update(error="the agent died"), "the agent died"),
    "no programs": (RUN, lambda run: run["programs"].clear(), "the records are empty"),
    "a program gone": (RUN, lambda run: run["programs"].pop("meter.lamp"), "meter.lamp is not in the records"),
    "a host's counters gone": (KERNEL, lambda kernel: kernel.pop("meter"), "counters of meter are not in"),
    "no counters": (KERNEL, lambda kernel: kernel.clear(), "counters of collector are not in"),
    "a problem in the proof": (
        PROOF,
        lambda proof: proof["problems"].append(["error", OUT, "the filter is gone"]),
        "the filter is gone",
    ),
    "nothing read back": (PROOF, lambda proof: proof["start"].clear(), f"{OUT} was not read back"),
    "no last proof": (PROOF, lambda proof: proof["end"].clear(), f"the proof at the end says nothing of {OUT}"),
    "other counts": (
        PROOF,
        lambda proof: proof["end"]["links"][METER_OUT].update(frames=61),
        f"the ledger of {METER_OUT} is cut off: 60 frames entered, and the wire counted 61",
    ),
    "a milder condition in the plan": (
        PLAN,
        lambda plan: next(link for link in plan["links"] if link["id"] == OUT)["condition"].update(loss_ratio=0.2),
        f"{OUT}: asked ",
    ),
    "a link less in the plan": (
        PLAN,
        lambda plan: plan.update(links=[link for link in plan["links"] if link["id"] != OUT]),
        f"450 frames on {OUT}, a link that the plan does not have",
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_a_file_that_was_edited_gives_no_verdict(kept: Path, name: str) -> None:
    file, change, reason = EDITS[name]
    edit(kept / file, change)
    judgement = judged(kept)
    assert judgement.outcome == "error" and reason in judgement.reason, judgement


@pytest.mark.parametrize(
    ("file", "change", "reason"),
    [
        (RUN, lambda run: run.update(mood="good"), "mood: this version knows no such key"),
        (RUN, lambda run: run.pop("programs"), "'programs'"),
        (RUN, lambda run: run["programs"]["meter.lamp"].update(colour="red"), "meter.lamp.colour: this version"),
        (PLAN, lambda plan: plan.update(plan_format=2), "plan format 2"),
        (PLAN, lambda plan: plan["hosts"][0].pop("sysctls"), "sysctls"),
        (PROOF, lambda proof: proof.pop("problems"), "problems"),
        (PROOF, lambda proof: proof["problems"].append(["error"]), "no records of a run"),
        (PROOF, lambda proof: proof["start"].update(hosts=[]), "proof.start.hosts: an object belongs there"),
        (
            PROOF,
            lambda proof: proof["start"].update(hosts={"meter": {"congestion": {"asked": "cubic"}}}),
            "proof.start.hosts.meter.congestion.inherited: it is missing",
        ),
    ],
)
def test_a_file_that_does_not_hold_a_run_is_refused(kept: Path, file: str, change: Edit, reason: str) -> None:
    edit(kept / file, change)
    with pytest.raises(HostError, match=reason):
        judged(kept)


def test_what_a_program_printed_is_read_from_its_own_file(kept: Path) -> None:
    """Edited output is not found out, and need not be: it is what the program said. It is judged as such."""
    path = kept / "programs" / "meter.gauge.stdout"
    path.write_bytes(path.read_bytes().replace(b"level 12", b"level 13"))
    judgement = judged(kept)
    assert judgement.outcome == "fail" and 'without "level 12"' in judgement.reason
