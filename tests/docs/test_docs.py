"""What the documents say is so: their scenarios plan, their commands exist, every file is in whats-here."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from testbed.catalogue import scenarios_in
from testbed.cli import cli
from testbed.engines import docker_image
from testbed.expect.grammar import parse as parse_expectation
from testbed.expect.names import Names, exits_named
from testbed.expect.static import problems
from testbed.plan import plan
from testbed.scenario import parse
from tests.command import ROOT
from tests.docs import catalogue, whats_here

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(kind: str) -> list[tuple[str, str]]:
    """(document:line, text) of every fenced block of a kind."""
    found = []
    for path in DOCUMENTS:
        text = path.read_text()
        for match in re.finditer(rf"^```{kind}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            line = text[: match.start()].count("\n") + 1
            found.append((f"{path.relative_to(ROOT)}:{line}", match[1]))
    return found


SCENARIOS = [(where, text) for where, text in blocks("yaml") if re.search(r"^testbed:", text, re.MULTILINE)]


@pytest.mark.parametrize(("where", "text"), SCENARIOS, ids=[where for where, _ in SCENARIOS])
def test_every_scenario_in_the_documents_can_be_planned_and_judged(where: str, text: str) -> None:
    assert problems(plan(parse(text, "example.yaml"))) == []


def test_there_are_scenarios_in_the_documents() -> None:
    assert sum(where.startswith("README.md") for where, _ in SCENARIOS) == 2


def test_the_scenario_in_the_readme_is_the_shipped_one() -> None:
    shipped = (ROOT / "scenarios/udp-loss.yaml").read_text()
    assert next(text for where, text in SCENARIOS if where.startswith("README.md")) == shipped


COMMANDS = [
    (where, line)
    for kind in ("sh", "console")
    for where, text in blocks(kind)
    for line in (line.removeprefix("$ ").partition("#")[0].strip() for line in text.splitlines())
    if line.startswith("testbed ")
]


@pytest.mark.parametrize(("where", "line"), COMMANDS, ids=[f"{where} {line}" for where, line in COMMANDS])
def test_every_command_in_the_documents_exists_with_its_flags(where: str, line: str) -> None:
    _, name, *words = shlex.split(line)
    command = cli.commands[name]
    known = {option for parameter in command.params for option in parameter.opts}
    flags = {word for word in words if word.startswith("-")}
    assert flags <= known | {"--help"}, f"{where}: {line}"


def test_every_command_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    for name, command in cli.commands.items():
        assert f"testbed {name}" in readme
        assert isinstance(command, click.Command) and command.help, f"{name} has no help"


def test_the_readme_says_what_a_docker_engine_needs_for_the_first_image_of_hosts() -> None:
    """On a machine with nothing but the README's packages all that ships runs or is skipped."""
    (needs,) = re.findall(r"^\| needs \|.*$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert f"`{docker_image.REGISTRY_BASE}`" in needs and docker_image.MMDEBSTRAP[0] in needs


def test_whats_here_is_what_is_here() -> None:
    assert whats_here.DOCUMENT.read_text() == whats_here.render(), "run python -m tests.docs.whats_here"


def test_every_room_is_in_whats_here_and_no_file_is_much_too_long() -> None:
    for path in (ROOT / "testbed").rglob("*.py"):
        room = str(path.parent.relative_to(ROOT / "testbed")).replace(".", "", 1)
        assert room in whats_here.ROOMS, f"{path} is in a room of its own"
        assert len(path.read_text().splitlines()) <= 550, f"{path} is too long to be one room"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_between_documents_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", path.read_text()):
        assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_the_catalogue_says_once_what_is_alike_and_where_the_rest_was_seen() -> None:
    seen = {"namespaces": "skip: no SCTP", "docker": "skip: no SCTP", catalogue.KERNEL: "pass, 2 of 2: a.b is 3"}
    row = catalogue.Row("a", "It holds.", "`b`", seen)
    assert str(row).endswith(" | namespaces, docker: skip: no SCTP<br>user-mode Linux: pass, 2 of 2: a.b is 3 |")
    assert catalogue.rows(str(row)) == [row]


def test_the_catalogue_of_sockets_has_every_scenario_once_and_what_its_file_says() -> None:
    rows = catalogue.rows(catalogue.DOCUMENT.read_text())
    assert sorted(row.scenario for row in rows) == sorted(path.stem for path in scenarios_in(ROOT / "scenarios"))
    for row in rows:
        assert row == catalogue.refreshed(row), "run python -m tests.docs.catalogue"


@pytest.mark.parametrize("engine", ["namespaces", "docker"])
def test_the_catalogue_says_what_each_scenario_came_to_as_it_is_now(engine: str) -> None:
    for row in catalogue.rows(catalogue.DOCUMENT.read_text()):
        planned = catalogue.planned_as(row.scenario)
        parsed = [parse_expectation(expectation.text) for expectation in planned.expectations]
        implied = {program.id for program in planned.programs} - exits_named(Names(planned), parsed)
        verdicts, seen = len(parsed) + len(implied), row.seen[engine]
        passed = f"pass, {verdicts} of {verdicts}: "
        elsewhere = row.seen.get(catalogue.KERNEL, "")  # where this machine's kernel lacks something
        assert seen.startswith(passed) or (
            seen.startswith("skip: ") and planned.requires and elsewhere.startswith(passed)
        ), f"{row.scenario} on {engine}: {seen!r}; run it and python -m tests.docs.catalogue RESULTS_DIR"
