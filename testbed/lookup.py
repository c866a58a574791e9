"""Whether the commands of a plan are in their hosts, asked there before any program runs, and what to do else."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from testbed.errors import CapabilityError, CommandNotFound
from testbed.packages import install
from testbed.plan.types import Plan, Program
from testbed.project.root import Project
from testbed.scenario.values import COMMAND_REQUIRED

# (host, command, its PATH or None for the one of the host's image, working directory) -> where it is in the host
Find = Callable[[str, str, str | None, str], str | None]
SEEN = ("/usr/", "/bin/", "/sbin/", "/lib")  # of the machine, in hosts of bare namespaces


def require(plan: Plan, find: Find, engine: str) -> None:
    """Raises CapabilityError where a command that the scenario requires is not in a host that needs it.

    Those are the hosts with a program whose command names it; where none does, one host at least.
    """
    lacking: dict[str, list[str]] = {}  # where it is not -> commands
    for word in plan.requires:
        name = word.removeprefix(COMMAND_REQUIRED)
        if name == word:
            continue
        users = [program for program in plan.programs if _names(program, name)]
        having = [
            any(_path(program, word, find) is not None for word in (*_names(program, name), name))
            for program in users or plan.programs
        ]
        if not (all(having) if users else any(having)):
            where = _whose(
                plan, engine, [p for p, has in zip(users or plan.programs, having, strict=True) if not has]
            )
            lacking.setdefault(where, []).append(name)
    if lacking:
        what = [f"it requires {_listed(names)}, which {where} not have" for where, names in lacking.items()]
        hint = install(name for names in lacking.values() for name in names) if engine == "namespaces" else ""
        raise CapabilityError("; ".join(what) + (f": {hint}" if hint else ""))


def _names(program: Program, command: str) -> list[str]:
    """The words of the program's commands that name it, with or without a path, be it inside `sh -c '…'`."""
    words = re.split(r"[\s'\"`|;&()<>]+", " ".join((*program.argv, *program.ready.argv)))
    return [word for word in dict.fromkeys(words) if word == command or word.endswith(f"/{command}")]


def _path(program: Program, command: str, find: Find) -> str | None:
    return find(program.host, command, program.environment.get("PATH"), program.working_dir)


def _whose(plan: Plan, engine: str, programs: list[Program]) -> str:
    """Who does not have a command."""
    hosts = {program.host for program in programs}
    foreign = [host.name for host in plan.hosts if host.name in hosts and (host.image or host.build)]
    if foreign:
        return f"the image of {', '.join(foreign)} does"
    return "this machine does" if engine == "namespaces" else "our node image does"


def _listed(names: list[str]) -> str:
    return f"the command {names[0]}" if len(names) == 1 else f"the commands {', '.join(names)}"


def look_up(plan: Plan, find: Find, project: Project, engine: str) -> None:
    """Make sure that every command is there. Raises CommandNotFound naming all that are not.

    A program without a PATH is passed by: nobody has asked the image of its host yet.
    """
    missing: dict[tuple[str, str], list[str]] = {}  # (command, where it was looked for) -> programs
    for program in plan.programs:
        for argv in (program.argv, program.ready.argv):
            search = program.environment.get("PATH")
            if search is None or not argv:
                continue
            command, where, found = argv[0], f"PATH={search}", _path(program, argv[0], find)
            interpreter = "" if found is None else _interpreter(program, found, project.directory, engine)
            if interpreter:  # it is a script, and what runs it must be there as well
                command, where = interpreter, f"{argv[0]} begins with #!"
                found = _path(program, interpreter, find)
            if found is None:
                missing.setdefault((command, where), []).append(program.id)
    if missing:
        who = [f"{', '.join(ids)}: no command {name!r} ({where})" for (name, where), ids in missing.items()]
        raise CommandNotFound("; ".join([*who, *_what_to_try([name for name, _ in missing], project, engine)]))


def _what_to_try(commands: list[str], project: Project, engine: str) -> list[str]:
    hints = {command: elsewhere(command, project, engine) for command in commands}
    unknown = [command for command, hint in hints.items() if not hint]
    said = list(dict.fromkeys(filter(None, hints.values())))
    if unknown:
        debian = f"; Debian: {line}" if (line := install(unknown)) else ""
        said.append(f"install it on the machine (namespaces{debian}), use an `image:` that has it (docker), ")
        said[-1] += "or name it in `files:`"
    return said


def elsewhere(command: str, project: Project, engine: str) -> str:
    """Where this machine has a command that a host does not find, and what to write; "" if it has none either."""
    base_dir = project.directory
    places = [base_dir / command]
    if "/" not in command and (found := shutil.which(command)):
        places.insert(0, Path(found))
    here = next((place for place in places if shutil.which(str(place))), None)
    if here is None:
        return ""
    here, real = Path(os.path.normpath(here)), here.resolve()
    below = os.path.relpath(here, base_dir)
    if not below.startswith(".."):
        return f"it is beside the scenario, and hosts get what `files` names: `files: [{below}]`, `./{below}`"
    if engine != "namespaces":
        return (
            f"it is on this machine, at {here}; a host has what its image has: use `files:`, `build:` or `image:`"
        )
    if str(real).startswith(SEEN):
        return f"it is at {here}: write that path"
    where = f"it is on this machine, at {here}, which hosts do not see"
    venv = next((up for up in list(here.parents)[:3] if (up / "pyvenv.cfg").is_file()), None)
    if venv is not None:
        if not venv.is_relative_to(project.root):
            root = f"{project.root}, or name its root with --root"
            return f"{where}: `venv` uses one that lies in the project, {root}"
        shown = os.path.relpath(venv, base_dir)
        return f"{where}: write `venv: {shown}` beside it, and `{here.name}` as the command"
    link = f" (a link to {real})" if real != here else ""
    see = f"{', '.join(SEEN)} and no home, /opt or /tmp"
    if real.is_relative_to(project.root):
        mine = f"for a file of yours, `files: {{{here.name}: {below}}}` and `./{here.name}`"
    else:
        mine = f"for a file of yours, put it into the project, {project.root}, and name it in `files:`"
    return f"{where}{link}. They see {see}: install it there, as below /usr/local, or, {mine}"


def _interpreter(program: Program, found: str, base_dir: Path, engine: str) -> str:
    """What runs the script at `found`, as its first line has it; "" for all else and what cannot be read here."""
    copied = next((file for file in program.files if file.target == found), None)
    if copied is not None and copied.source is None:
        return _shebang((copied.text or "").encode())
    if copied is None and not (engine == "namespaces" and found.startswith(SEEN)):
        return ""
    try:
        with Path(found if copied is None else base_dir / str(copied.source)).open("rb") as file:
            return _shebang(file.readline(256))
    except OSError:
        return ""


def _shebang(script: bytes) -> str:
    """As execve(2) has it; `env NAME` stands for NAME."""
    line = script.partition(b"\n")[0]
    words = line[2:].decode(errors="replace").split() if line.startswith(b"#!") else []
    if words and words[0].endswith("/env"):
        words = [word for word in words[1:] if not word.startswith("-") and "=" not in word]
    return words[0] if words else ""
