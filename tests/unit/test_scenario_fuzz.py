"""No input gives a traceback, and none takes long: everything is a Scenario or a list of problems."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

import testbed
from testbed.errors import HostError, ScenarioError
from testbed.plan import Plan, plan, render
from testbed.scenario import check, full, parse
from testbed.scenario.source import split_lines
from tests.unit.test_scenario_forms import FULL_OF_EVERYTHING

SEEDS = sorted(Path(testbed.__file__).parents[1].glob("scenarios/*.yaml"))
PIECES = (
    "&a *a << : , { } [ ] ' \" # | > - ? ! % @ ` $ ${ $$ \\ \t \n ~ null on 010 1:30 0x 1e9 -1 ms % packets -> "
    "<-> over all lan a.b !!python/none !!set \u2028 \x85 \ufeff é 99999999999999999999 /( (?P< !!binary x-y: "
    "run: serve: links: hosts: count: after: fails_when: networks: subnet: 0.0.0.0/0 "
    "ready: files: ../ stdin: null,"
).split(" ")
TRIES = 150


def survives(text: str) -> None:
    found = check(text, "t.yaml")
    lines = len(split_lines(text))
    assert all(problem.message and "\x00" not in problem.message for problem in found)
    assert all(0 < problem.line <= lines and problem.column > 0 and problem.code for problem in found)
    try:
        scenario = parse(text, "t.yaml")
    except ScenarioError as refused:
        assert refused.problems
        assert {p for p in found if not p.warning} == set(refused.problems)
        return
    assert not [problem for problem in found if not problem.warning]
    assert parse(full(scenario), "t.yaml") == scenario
    try:
        made = plan(scenario)
    except HostError:
        return
    assert render(made)
    assert Plan.from_json(made.to_json()) == made


def mutated(text: str, dice: random.Random) -> str:
    for _ in range(dice.randint(1, 4)):
        at, length = dice.randrange(len(text) + 1), dice.choice([0, 0, 1, 3, 10])
        kind = dice.random()
        if kind < 0.6:
            text = text[:at] + dice.choice(PIECES) + text[at + length :]
        elif kind < 0.8:
            text = text[:at] + text[at + length :]
        else:
            other = dice.randrange(len(text) + 1)
            text = text[:at] + text[other : other + 30] + text[at:]
    return text


def test_mutated_files_are_scenarios_or_problems() -> None:
    texts = [path.read_text().partition("testbed: 1")[2] for path in SEEDS]
    texts = [f"testbed: 1{text}" for text in texts] + [f"testbed: 1\n{FULL_OF_EVERYTHING}"]
    dice = random.Random(1)
    for _ in range(TRIES):
        survives(mutated(dice.choice(texts), dice))


def grows(size: int, shape: str) -> str:
    many = range(size)
    shapes = {
        "hosts": "hosts:\n" + "".join(f"  h{i}: {{run: x}}\n" for i in many),
        "serves": "hosts:\n  a: {run: x}\n" + "".join(f"  h{i}: {{serve: x}}\n" for i in many),
        "unknown keys": "hosts: {a: {run: x}}\n" + "".join(f"k{i}: 1\n" for i in many),
        "links": "hosts: {a: {run: x, count: 20}, b: }\nlinks:\n"
        + "".join(f"  a-1 -> c{i}: {{}}\n" for i in many),
        "bad lines": "hosts: {a: {run: x}}\n" + "".join(f"k{i}: a: b\n" for i in many),
        "one long line": "hosts: {a: {run: " + "x, " * size + "}}\n",
        "quotes": "hosts: {a: {run: " + "'" * size + "}}\n",
        "braces": "hosts: " + "{a: " * size + "\n",
        "dollars": "hosts: {a: {run: x, stdin: '" + "${" * size + "'}}\n",
        "expectations": "hosts: {a: {run: x}}\nexpect:\n" + "  - a->b over c.d ->\n" * size,
        "aliases": "x-a: &a {run: x}\nhosts:\n" + "".join(f"  h{i}: *a\n" for i in many),
        "for nobody": f"hosts: {{a: {{count: {size}, run: x, after: nobody}}}}\n",
        "waiting": "hosts:\n" + "".join(f"  h{i}: {{run: x, after: h{i + 1}}}\n" for i in many),
    }
    return "testbed: 1\nabout: x\n" + shapes[shape]


SHAPES = [
    "hosts", "serves", "unknown keys", "links", "bad lines", "one long line", "quotes", "braces", "dollars",
    "expectations", "aliases", "for nobody", "waiting",
]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_ten_times_the_input_is_not_a_hundred_times_the_work(shape: str) -> None:
    """Processor time, and the least of three: a busy machine adds to it. Far from the linear and the quadratic."""
    small, large = (min(_cpu_s(grows(size, shape)) for _ in range(3)) for size in (60, 600))
    assert large < 40 * max(small, 0.005)


def _cpu_s(text: str) -> float:
    started = time.process_time()
    check(text, "t.yaml")
    return time.process_time() - started
