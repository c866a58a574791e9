"""The command line: each command does its work through one room and exits with the outcome's status."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial, wraps
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn, TextIO, cast

import click

from testbed import __version__
from testbed.catalogue import everything, find
from testbed.engines.choose import choose
from testbed.errors import HostError, Problem, ScenarioError, TestbedError, counted
from testbed.measure.records import EXIT_STATUS, LESS_BUSY, Judgement, Outcome
from testbed.options import Asked, Command, jobs_option, names_argument, root_option, run_options, seed_option
from testbed.tally import Ended, last_line, merged

if TYPE_CHECKING:
    from testbed.suite import Done

COMMANDS_LINE_WRONG = 2


class Interrupted(BaseException):
    """A signal asked us to end. Not an Exception: nothing on the way may take it for a failure."""

    def __init__(self, number: int) -> None:
        self.number = number
        super().__init__(signal.Signals(number).name)


def _interrupt(number: int, _: FrameType | None) -> None:
    for again in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(again, signal.SIG_IGN)  # tearing down has begun, and a second signal must not stop it
    raise Interrupted(number)


def _listen() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)


def main() -> None:
    """The entry point: turns every expected error into its message and exit status."""
    _listen()
    try:
        cli.main(standalone_mode=True)
    except Interrupted as problem:
        left = "; ".join(getattr(problem, "__notes__", [])) or "everything was torn down"
        try:
            print(f"interrupted by {problem}; {left}", file=sys.stderr, flush=True)
        except OSError:  # the terminal that has gone is what interrupted us
            _to_nowhere(sys.stderr)
        sys.exit(128 + problem.number)


def _to_nowhere(stream: TextIO) -> None:
    from testbed.progress import to_nowhere  # what it needs takes a while to load

    to_nowhere(stream)


def _errors_shown(command: Command) -> Command:
    """Exit 2 for what the author must mend, 3 for what the machine or we must."""

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except ScenarioError as problem:
            _print_problems(problem.problems)
            sys.exit(COMMANDS_LINE_WRONG)
        except TestbedError as problem:
            click.echo(f"error: {problem}", err=True)
            sys.exit(EXIT_STATUS["error"])
        except BrokenPipeError:  # whoever read our output has gone; click would make it status 1, a failed program
            _to_nowhere(sys.stdout)
            sys.exit(128 + signal.SIGPIPE)
        except click.ClickException:  # the command line is wrong: click says so, with status 2
            raise
        except Exception as problem:  # a defect of ours is never status 1
            said = f"error: testbed itself failed: {problem!r}; {_kept(traceback.format_exc())}"
            try:
                click.echo(said, err=True)
            except OSError:  # nor is a terminal that has gone
                _to_nowhere(sys.stderr)
            sys.exit(EXIT_STATUS["error"])

    return wrapped  # type: ignore[return-value]


def _kept(details: str) -> str:
    """Where the details of a defect of ours are, for who reports it."""
    try:
        with tempfile.NamedTemporaryFile("w", prefix="testbed-failed-", suffix=".txt", delete=False) as file:
            file.write(details)
        return f"please report it with what is in {file.name}"
    except OSError as problem:
        return f"the details could not be kept: {problem.strerror}"


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="testbed")
def cli() -> None:
    """Test programs that use sockets, on real hosts, under stated and proven link conditions."""


@cli.command()
@names_argument
@run_options
@click.option("--keep", is_flag=True, help="Hold the hosts after the run, until Ctrl-C.")
@jobs_option
@_errors_shown
def run(names: Sequence[str], asked: Asked, keep: bool, jobs: int) -> None:
    """Run scenarios and judge them; exits with the outcome's status."""
    paths = _sound(names, asked.root)
    if jobs > 1:
        if keep:
            raise click.UsageError("--keep holds one run in the foreground: leave out --jobs")
        _at_once("run", paths, jobs, asked)
    ended = [_safely(path, partial(_run_one, path, asked, keep)) for path in paths]
    if len(ended) > 1:
        _summary(ended)
    sys.exit(EXIT_STATUS[merged(one.outcome for one in ended)])


@cli.command()
@names_argument
@click.option("--full", is_flag=True, help="Print each file in full notation.")
@root_option
@_errors_shown
def check(names: Sequence[str], full: bool, root: Path | None) -> None:
    """Validate scenario files: every problem at once, exit 2 if there is one."""
    from testbed import scenario as room
    from testbed.expect.static import notes
    from testbed.plan import plan as make_plan

    wrong = False
    for path in _found(names, announce=False):
        problems = _problems(path, root)
        _print_problems(problems)
        wrong = wrong or any(not problem.warning for problem in problems)
        if full and not any(not problem.warning for problem in problems):
            click.echo(room.full(room.load(path)), nl=False)
        elif not full and not problems:
            click.echo(f"{_shown(path)}: ok")
            for note in notes(make_plan(room.load(path))):
                click.echo(f"    {note}")
    sys.exit(COMMANDS_LINE_WRONG if wrong else 0)


@cli.command(name="plan")
@names_argument
@seed_option
@root_option
@_errors_shown
def plan_command(names: Sequence[str], seed: int | None, root: Path | None) -> None:
    """Print what would be built: no root, no Docker, nothing is touched."""
    from testbed import scenario as room
    from testbed.expect.static import notes
    from testbed.plan import plan, render

    for path in _found(names):
        _refuse_problems([path], root)
        planned = plan(room.load(path), seed)
        click.echo(render(replace(planned, notes=(*planned.notes, *notes(planned)))), nl=False)


@cli.command()
@names_argument
@run_options
@jobs_option
@_errors_shown
def prove(names: Sequence[str], asked: Asked, jobs: int) -> None:
    """Demand that a file passes, and that with each of its `fails_when` it fails."""
    paths = _sound(names, asked.root)
    if jobs > 1:
        _at_once("prove", paths, jobs, asked)
    ended: list[Ended] = []
    notes: list[str] = []
    for path in paths:
        proven, note = _prove_one(path, asked)
        ended += proven
        notes += [note] if note else []
    _summary(ended, "; ".join(notes))
    sys.exit(EXIT_STATUS[merged(one.outcome for one in ended)] if ended else 0)


@cli.command(name="judge")
@click.argument("directory", metavar="RESULTS_DIR", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--with", "mended", type=click.Path(path_type=Path, exists=True, dir_okay=False), metavar="FILE")
@_errors_shown
def judge_command(directory: Path, mended: Path | None) -> None:
    """Judge a run again from its records; nothing is run. --with takes the expectations of another file."""
    from testbed.judge import judge
    from testbed.results import Results

    kept = Results(directory.resolve())
    plan, records = kept.load()
    if mended is not None:
        from testbed import scenario as room
        from testbed.plan import plan as make_plan

        _refuse_problems([mended])
        other = make_plan(room.load(mended), plan.seed)
        metrics = {program.id: program.metrics for program in other.programs}
        programs = tuple(replace(p, metrics=metrics.get(p.id, p.metrics)) for p in plan.programs)
        plan = replace(plan, expectations=other.expectations, ends=other.ends, file=other.file, programs=programs)
    judgement = judge(plan, records)
    _show(plan, records, judgement, "as recorded", directory)
    sys.exit(EXIT_STATUS[judgement.outcome])


@cli.command()
@_errors_shown
def clean() -> None:
    """Remove what dead runs left on this machine; never anything of a run that lives."""
    from testbed.doctor import sweep

    removed, unreachable = sweep()
    for line in removed:
        click.echo(f"removed {line}")
    if unreachable:
        click.echo(f"docker: nothing looked at: {unreachable}", err=True)
    click.echo(
        f"{counted(len(removed), 'leftover')} removed; bare namespaces leave nothing else, they end with their run"
    )


@cli.command()
@_errors_shown
def doctor() -> None:
    """Say what this machine can do, what is missing and how to get it; exit 0 if one engine works."""
    from testbed.doctor import examine

    works = False
    for finding in examine():
        sign = click.style("works  " if finding.works else "missing", fg="green" if finding.works else "red")
        click.echo(f"{sign}  {finding.what}: {finding.found}")
        if finding.remedy:
            click.echo(f"         {finding.remedy}")
        works = works or (finding.engine and finding.works)
    sys.exit(0 if works else EXIT_STATUS["error"])


@cli.command(name="list")
@_errors_shown
def list_command() -> None:
    """List the scenarios in ./scenarios and those that ship."""
    from testbed import scenario as room

    paths = everything(Path.cwd())
    width = max((len(path.stem) for path in paths), default=0)
    for path in paths:
        try:
            about = room.load(path).about
        except ScenarioError as problem:
            about = f"({counted(len(problem.problems), 'problem')}: testbed check {_shown(path)})"
        click.echo(f"{path.stem:{width}}  {about}  [{_shown(path)}]")


# several scenarios at once


def _at_once(command: str, paths: Sequence[Path], jobs: int, asked: Asked) -> NoReturn:
    """Each file by a command of its own; what did not pass is shown in full, then one table of all.

    They keep each other waiting. So what only lateness left undecided is run again, once, with nothing beside it.
    """
    from testbed.suite import at_once

    ended = 0

    def tell(place: str, done: Done) -> None:
        try:
            click.echo(f"{place}  {done.name}: {_last_line(done)}", err=True)
        except OSError:  # whoever read it has gone, and the runs go on
            _to_nowhere(sys.stderr)

    def count(done: Done) -> None:
        nonlocal ended
        ended += 1
        tell(f"{ended:4} of {len(paths)}", done)

    argv = [sys.executable, "-m", "testbed", command]
    commands = [(path.stem, [*argv, str(path), *asked.words()]) for path in paths]
    all_done = at_once(commands, jobs, count)
    for index, done in enumerate(all_done):
        if len(paths) > 1 and done.status == EXIT_STATUS["inconclusive"] and LESS_BUSY in done.stdout:
            [all_done[index]] = at_once([commands[index]], 1, partial(tell, "again, by itself"))
    by_status = {status: outcome for outcome, status in EXIT_STATUS.items()}
    ended_all: list[Ended] = []
    width = max(len(path.stem) for path in paths)
    for done in all_done:
        outcome, why = cast(Outcome, by_status.get(done.status, "error")), _last_line(done)
        if outcome not in ("pass", "skip"):
            click.echo(f"{done.stdout}{done.stderr}")
        ended_all.append(Ended(done.name, outcome, why, f"{done.name:{width}}  {done.took_s:5.1f} s  {why}"))
    _summary(ended_all)
    sys.exit(EXIT_STATUS[merged(one.outcome for one in ended_all)])


def _last_line(done: Done) -> str:
    """What a command said last, which is its outcome and why."""
    lines = done.stdout.splitlines() or done.stderr.splitlines()
    said = (lines or [f"it ended with status {done.status} and said nothing"])[-1]
    return said.partition(": ")[2] or said


# one scenario


def _run_one(path: Path, asked: Asked, keep: bool) -> Ended:
    from testbed import scenario as room
    from testbed.progress import Progress

    scenario = room.load(path)
    _listen()  # again: with --keep, the Ctrl-C that ended the run before this one shut them off
    with Progress() as progress:
        runner = _runner(asked, scenario, progress.say)
        if keep:
            runner.hold = lambda run, engine: _hold(run, engine, progress)
        done = runner.run(scenario, room.text_of(path), _project(path, asked.root), asked.seed)
    if not keep or done.judgement.outcome == "skip":
        _show(done.plan, done.records, done.judgement, runner.engine_name, done.results.path)
    return Ended(path.stem, done.judgement.outcome, done.judgement.reason)


def _safely(path: Path, run: Callable[[], Ended]) -> Ended:
    """One scenario's error does not keep the others from being run."""
    try:
        return run()
    except TestbedError as problem:
        click.echo(f"error: {problem}", err=True)
        return Ended(path.stem, "error", str(problem))


def _prove_one(path: Path, asked: Asked) -> tuple[list[Ended], str]:
    from testbed import scenario as room
    from testbed.progress import Progress
    from testbed.proving import prove

    text, scenario = room.text_of(path), room.load(path)
    if not scenario.fails_when:
        click.echo(f"nothing to prove in {path.stem}: it has no `fails_when`", err=True)
        return [], ""
    asked = replace(asked, results=asked.results / "prove")

    def run(what: str, one: room.Scenario) -> Judgement:
        with Progress() as progress:
            progress.say(f"{path.stem} {what}")
            runner = _runner(asked, one, progress.say)
            judged: Judgement = runner.run(one, text, _project(path, asked.root), asked.seed).judgement
        return judged

    return prove(scenario, text, path.name, run, click.echo)


def _runner(asked: Asked, scenario: Any, say: Callable[[str], None]) -> Any:
    from testbed.engines.choose import maker
    from testbed.runner import Runner

    name, why = choose(asked.engine, scenario.engines)
    say(f"engine {name}: {why}")
    return Runner(maker(name, say), name, why, asked.results.resolve(), say, asked.strict, asked.wires)


def _hold(run: Any, engine: Any, progress: Any) -> None:
    """Keep the hosts until Ctrl-C and say how to enter one. The run itself is judged already."""
    progress.pause()
    _show(run.plan, run.records, run.judgement, engine.name, run.results.path)
    click.echo("\nthe hosts stay until Ctrl-C; to enter one, in another terminal:", err=True)
    for host in run.plan.hosts:
        click.echo(f"  {host.name}: {engine.entrance(host.name)}", err=True)
    try:
        signal.pause()
    except Interrupted:
        click.echo("tearing down", err=True)


# what is shown


def _show(plan: Any, records: Any, judgement: Any, engine: str, directory: Path) -> None:
    from testbed.report.terminal import render

    terminal = sys.stdout.isatty()
    color = terminal and "NO_COLOR" not in os.environ
    width = shutil.get_terminal_size((110, 24)).columns
    click.echo(render(plan, records, judgement, engine, color, width, _shown(directory)), nl=False, color=color)


def _summary(ended: Sequence[Ended], note: str = "") -> None:
    for one in ended:
        click.echo(f"{one.outcome:<13}{one.row or one.name}")
    click.echo(last_line(ended, note))


def _shown(path: Path) -> str:
    """A path as short as it can be written from here."""
    cwd = Path.cwd()
    path = path.resolve()
    return str(path.relative_to(cwd)) if path.is_relative_to(cwd) else str(path)


def _found(names: Sequence[str], announce: bool = True) -> list[Path]:
    """The files meant; says which one each name became. A name that is nowhere is the command line's fault."""
    try:
        paths = find(names, Path.cwd())
    except HostError as problem:
        click.echo(f"error: {problem}", err=True)
        sys.exit(COMMANDS_LINE_WRONG)
    for path in paths if announce else ():
        click.echo(f"scenario {_shown(path)}", err=True)
    return paths


def _project(path: Path, root: Path | None) -> Any:
    """What a scenario's own files are taken from, looked at anew. Raises ScenarioError."""
    from testbed.project.root import Project, Refused

    try:
        return Project.around(path.parent, root)
    except Refused as problem:
        raise ScenarioError([Problem(_shown(path), 1, 1, problem.message, problem.hint)]) from problem


def _problems(path: Path, root: Path | None = None) -> list[Problem]:
    """All that is wrong with a file. What its expectations are about is known only if its form is sound."""
    from testbed import scenario as room
    from testbed.expect.own_programs import unknown_modes
    from testbed.expect.static import malformed, problems
    from testbed.plan import plan

    try:
        text = room.text_of(path)
    except (OSError, UnicodeDecodeError) as problem:
        return [room.unreadable(_shown(path), problem)]
    try:
        found, scenario = room.inspect(text, str(path), _project(path, root))
    except ScenarioError as problem:
        return list(problem.problems)
    if scenario is not None:
        read = [scenario]
        if any(not problem.warning for problem in found):
            found += malformed(scenario.sound_expectations(), str(path))
        else:
            found += problems(plan(scenario))
            read += [room.parse(text, str(path), piece) for piece in scenario.fails_when.values()]
        found += {problem: None for one in read for problem in unknown_modes(one)}
    return sorted(replace(problem, file=_shown(path)) for problem in found)


def _refuse_problems(paths: Sequence[Path], root: Path | None = None) -> None:
    wrong = [problem for path in paths for problem in _problems(path, root) if not problem.warning]
    if wrong:
        raise ScenarioError(wrong)


def _sound(names: Sequence[str], root: Path | None) -> list[Path]:
    """The files meant, all of them without a problem: nothing runs while one of them is wrong."""
    paths = _found(names)
    _refuse_problems(paths, root)
    return paths


def _print_problems(problems: Sequence[Problem]) -> None:
    for problem in problems:
        click.echo(str(problem), err=True)
    errors = sum(not problem.warning for problem in problems)
    if errors:
        click.echo(counted(errors, "problem"), err=True)
