"""From a file to a Scenario, or to everything that is wrong with the file."""

from __future__ import annotations

from pathlib import Path

from testbed.errors import Problem, ScenarioError
from testbed.project.root import Project
from testbed.scenario import own, semantics
from testbed.scenario.meant import meant
from testbed.scenario.merge import full_hosts, merged, same_key, without_extras
from testbed.scenario.model import WORDS, Scenario
from testbed.scenario.repair import LARGEST_FILE
from testbed.scenario.source import Map, Reading
from testbed.scenario.tree import read

MOST_SABOTEURS = 100


def load(path: str | Path, project: Project | None = None) -> Scenario:
    """The scenario in a file. Raises ScenarioError with every problem in it, OSError if it cannot be read.

    With a project, what the file and its saboteurs take from it is looked at as well.
    """
    try:
        text = text_of(Path(path))
    except UnicodeDecodeError as error:
        raise ScenarioError([unreadable(str(path), error)]) from error
    reading = Reading(str(path), text)
    return _sound(_whole(reading, project), reading)


def text_of(path: Path) -> str:
    """The text of a scenario's file; of one that is larger than any can be, no more than shows it.

    Raises OSError, UnicodeDecodeError.
    """
    with path.open(encoding="utf-8") as file:
        return file.read(LARGEST_FILE + 1)


def unreadable(file: str, error: OSError | UnicodeDecodeError) -> Problem:
    """Why a file is no text: where its first byte is that does not belong there, and what to do."""
    if isinstance(error, OSError):
        return Problem(file, 1, 1, f"cannot be read: {error.strerror}", code="file")
    data = bytes(error.object)
    before = data[data.rfind(b"\n", 0, error.start) + 1 : error.start]
    line, column = data.count(b"\n", 0, error.start) + 1, len(before.decode(errors="replace")) + 1
    hint, byte = "save the file as UTF-8", data[error.start]
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        hint = "it is UTF-16, as some editors of Windows save it: save the file as UTF-8"
    elif b"\0" in data[:1024]:
        hint = "it is no text file"
    return Problem(file, line, column, f"not UTF-8: byte 0x{byte:02x}", hint, code="file-encoding")


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


def inspect(text: str, file: str, project: Project | None = None) -> tuple[list[Problem], Scenario | None]:
    """What `check` says, and what could be read, whatever else is wrong with it; None if that is nothing.

    A part that could not is `broken`. With a project, what the file and its saboteurs take from it is looked at.
    """
    reading = Reading(file, text)
    scenario = _whole(reading, project)
    if scenario is None or scenario.broken:
        return reading.problems, None
    return reading.problems, scenario


def _whole(reading: Reading, project: Project | None = None) -> Scenario | None:
    tree = read(reading, same_key, WORDS)
    if tree is None:
        return None
    tree = full_hosts(meant(without_extras(tree), reading), reading)
    scenario = _model(tree, reading, project)
    if len(scenario.fails_when) > MOST_SABOTEURS:
        reading.add(scenario.at("fails_when"), f"more than {MOST_SABOTEURS} saboteurs")
        return scenario
    for name, piece in scenario.fails_when.items():
        reading.prefix = f"with `{name}` of fails_when: "
        _model(_sabotaged(tree, piece, reading), reading, project)
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


def _model(tree: Map, reading: Reading, project: Project | None = None) -> Scenario:
    scenario = Scenario.model_validate(tree, context=reading)
    scenario._file = reading.file
    semantics.look(scenario, reading)
    if project is not None:
        own.look(scenario, project, reading)
    return scenario
