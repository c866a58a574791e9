"""The options that commands share, and what those of a run say of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from testbed.engines.choose import NAMES

Command = TypeVar("Command", bound=Callable[..., Any])

engine_option = click.option(
    "--engine",
    type=click.Choice(NAMES),
    default="auto",
    envvar="TESTBED_ENGINE",
    show_default=True,
    show_envvar=True,
    help="Where hosts come from; auto takes Docker if a daemon answers, else namespaces.",
)
seed_option = click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="Wins over the file's own seed.")
results_option = click.option(
    "--results", type=click.Path(path_type=Path, file_okay=False), default=Path("results"), show_default=True
)
strict_option = click.option(
    "--strict", is_flag=True, help="A requirement that is missing is an error, not a skip."
)
root_option = click.option(
    "--root",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="The project's root: files of the author's own are taken from below it and from nowhere else. By default "
    "the nearest directory above the scenario with .git, pyproject.toml or testbed.toml, else its own.",
)
jobs_option = click.option(
    "--jobs",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="N",
    help="So many files at once, each in a process of its own; then only what did not pass is shown in full.",
)
wires_option = click.option(
    "--wires",
    type=click.IntRange(1, 64),
    default=1,
    envvar="TESTBED_WIRES",
    show_default=True,
    show_envvar=True,
    metavar="N",
    help="So many processes carry the frames of links: for much traffic, on a machine with processors to spare.",
)
names_argument = click.argument("names", metavar="FILE|NAME...", nargs=-1, required=True)


@dataclass(frozen=True)
class Asked:
    """What the options of `run` and `prove` say of every run."""

    engine: str
    seed: int | None
    results: Path
    strict: bool
    wires: int
    root: Path | None

    def words(self) -> list[str]:
        """The same as a command line."""
        words = ["--engine", self.engine, "--results", str(self.results), "--wires", str(self.wires)]
        words += ["--seed", str(self.seed)] if self.seed is not None else []
        words += ["--root", str(self.root)] if self.root is not None else []
        return [*words, "--strict"] if self.strict else words


def run_options(command: Command) -> Command:
    """Hand the options of a run to a command as one argument, `asked`."""

    @engine_option
    @seed_option
    @results_option
    @strict_option
    @wires_option
    @root_option
    @wraps(command)
    def wrapped(
        engine: str, seed: int | None, results: Path, strict: bool, wires: int, root: Path | None, **others: Any
    ) -> Any:
        return command(asked=Asked(engine, seed, results, strict, wires, root), **others)

    return wrapped  # type: ignore[return-value]
