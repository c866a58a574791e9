"""From a file to a Scenario, or to everything that is wrong with the file."""

from __future__ import annotations

from pathlib import Path

from testbed.errors import Problem, ScenarioError
from testbed.scenario import semantics
from testbed.scenario.meant import meant
from testbed.scenario.merge import full_hosts, merged, same_key, without_extras
from testbed.scenario.model import WORDS, Scenario
from testbed.scenario.source import Map, Reading
from testbed.scenario.tree import read

MOST_SABOTEURS = 100


def load(path: str | Path) -> Scenario:
    """The scenario in a file. Raises ScenarioError with every problem in it, OSError if it cannot be read."""
    path = Path(path)
    data = path.read_bytes()
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        problem = Problem(
            str(path), line, 1, f"not UTF-8: byte 0x{data[error.start]:02x}", "save the file as UTF-8"
        )
        raise ScenarioError([problem]) from error
    reading = Reading(str(path), text)
    scenario = _whole(reading)
    if scenario is not None:
        _files_there(scenario, path.parent, reading)
    return _sound(scenario, reading)


def parse(text: str, file: str, patch: Map | None = None) -> Scenario:
    """The scenario in `text`; `file` is its name in messages. Raises ScenarioError with every problem in it.

    `patch` is one of the pieces in `fails_when`: it is merged over the file, which then has no saboteurs itself.
    """
    reading = Reading(file, text)
    return _sound(_whole(reading) if patch is None else _patched(reading, patch), reading)


def _sound(scenario: Scenario | None, reading: Reading) -> Scenario:
    problems = [problem for problem in reading.problems if not problem.warning]
    if problems or scenario is None:
        raise ScenarioError(problems)
    return scenario


def check(text: str, file: str) -> list[Problem]:
    """Every problem and warning of the file and of each of its saboteurs, in the order of the file."""
    return inspect(text, file)[0]


def inspect(text: str, file: str, directory: Path | None = None) -> tuple[list[Problem], Scenario | None]:
    """What `check` says, and what could be read, whatever else is wrong with it; None if that is nothing.

    A part that could not is `broken`. With a directory, what the file takes from beside itself is looked for.
    """
    reading = Reading(file, text)
    scenario = _whole(reading)
    if scenario is None or scenario.broken:
        return reading.problems, None
    if directory is not None:
        _files_there(scenario, directory, reading)
    return reading.problems, scenario


def _files_there(scenario: Scenario, directory: Path, reading: Reading) -> None:
    """What the file takes from beside itself must be there, and must not lead out of its directory."""
    paths = [host.build for host in scenario.hosts.values()]
    for host in scenario.hosts.values():
        for program in host.programs.values():
            paths += [file.source for file in program.files.values()]
            paths.append(program.stdin.file if program.stdin else None)
    root = directory.resolve()
    for path in filter(None, paths):
        try:
            if not (root / path).resolve(strict=True).is_relative_to(root):
                reading.add(path, f"`{path}` leads out of the scenario's directory", "copy it there")
        except (OSError, RuntimeError) as error:
            if reading.told_of(path):
                continue
            reason = getattr(error, "strerror", None) or str(error)
            reading.add(path, f"`{path}`: {reason}", f"looked for in {root}")


def _whole(reading: Reading) -> Scenario | None:
    tree = read(reading, same_key, WORDS)
    if tree is None:
        return None
    tree = full_hosts(meant(without_extras(tree), reading), reading)
    scenario = _model(tree, reading)
    if len(scenario.fails_when) > MOST_SABOTEURS:
        reading.add(scenario.at("fails_when"), f"more than {MOST_SABOTEURS} saboteurs")
        return scenario
    for name, piece in scenario.fails_when.items():
        reading.prefix = f"with `{name}` of fails_when: "
        _model(_sabotaged(tree, piece, reading), reading)
        reading.prefix = ""
    return scenario


def _patched(reading: Reading, piece: Map) -> Scenario | None:
    tree = read(reading, same_key, WORDS)
    if tree is None:
        return None
    return _model(_sabotaged(full_hosts(meant(without_extras(tree), reading), reading), piece, reading), reading)


def _sabotaged(tree: Map, piece: Map, reading: Reading) -> Map:
    base = Map(tree.mark)
    for key, value in tree.written():
        if key != "fails_when":
            base.put(key, value)
    return merged(base, full_hosts(without_extras(piece), reading), reading)


def _model(tree: Map, reading: Reading) -> Scenario:
    scenario = Scenario.model_validate(tree, context=reading)
    scenario._file = reading.file
    semantics.look(scenario, reading)
    return scenario
