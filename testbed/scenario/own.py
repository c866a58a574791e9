"""What a file takes of its author's machine: all of it is there, may be taken, and fits into its host.

Asked of a `Project`, which alone looks at the disk, and asked before anything of a run is built.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath

from testbed.project.root import Project, Refused
from testbed.project.tree import WORTH_TELLING, Listing
from testbed.project.venv import environment
from testbed.scenario.fields import short
from testbed.scenario.model import WORKING_DIR, Host, Scenario
from testbed.scenario.source import Reading

HOLDS_NO_MORE = "a host holds no more: name what it needs of it"


def look(scenario: Scenario, project: Project, reading: Reading) -> None:
    """Add to `reading` what a run would trip over."""
    for host in scenario.hosts.values():
        if host.build is not None:
            with _refused(host.build, reading):
                project.find(host.build)
        for program in host.programs.values():
            if program.stdin is not None and program.stdin.file is not None:
                with _refused(program.stdin.file, reading), project.open(program.stdin.file):
                    pass
            if program.venv is not None:
                with _refused(program.venv, reading):
                    environment(project, program.venv)
        _files(host, project, reading)
        _mounts(host, project, reading)


def _files(host: Host, project: Project, reading: Reading) -> None:
    """The files of all programs of a host: each of them, and whether they go together."""
    whole = Listing()
    there: list[tuple[str, dict[str, str]]] = []  # where something was put, and the kinds of what is below it
    for program in host.programs.values():
        for target, file in program.files.items():
            place = posixpath.normpath(posixpath.join(program.working_dir or WORKING_DIR, target))
            kinds = {"": "file"}
            if file.source is not None:
                found = None
                with _refused(file.source, reading):
                    found = project.copied(file.source)
                if found is None or not _sound(file.source, found, reading):
                    continue
                before = whole.too_much
                whole.add(found)
                if whole.too_much and not before:
                    more = f"with `{short(file.source)}`, {whole.too_much} go into one host"
                    reading.add(file.source, more, HOLDS_NO_MORE)
                kinds = {entry.path: entry.kind for entry in found.entries}
            for other, others in there:
                clash = _clash(other, others, place, kinds) or _clash(place, kinds, other, others)
                if clash:
                    reading.add(target, f"`{short(target)}`: {clash} would be both a file and a directory")
            there.append((place, kinds))


def _mounts(host: Host, project: Project, reading: Reading) -> None:
    """The directories that a host is shown; what is mounted in one of them needs a place there."""
    places: dict[str, tuple[str, set[str]]] = {}  # where: what is there, and the directories in it
    for source, path, directory in sorted(host.volumes, key=lambda one: one.path):
        for upper, (shown, inside) in places.items():
            if path.startswith(f"{upper}/") and posixpath.relpath(path, upper) not in inside:
                missing = posixpath.join(shown, posixpath.relpath(path, upper))
                message = f"`{short(source)}` would be on {path}, and there is no directory {short(missing)}"
                reading.add(source, message, f"make it: what is on {upper} is read-only")
        if directory:
            with _refused(source, reading):
                found = project.shown(source)
                if _sound(source, found, reading):
                    inside = {entry.path for entry in found.entries if entry.kind == "directory"}
                    places[posixpath.normpath(path)] = source, inside


def _sound(source: str, found: Listing, reading: Reading) -> bool:
    if found.too_much:
        reading.add(source, f"`{short(source)}` has {found.too_much}", HOLDS_NO_MORE)
        return False
    for trouble in found.troubles[:WORTH_TELLING]:
        path = posixpath.join(source, trouble.path) if trouble.path else source
        reading.add(source, f"`{short(path)}` {trouble.what}", trouble.hint)
    more = len(found.troubles) - WORTH_TELLING
    if more > 0:
        reading.add(source, f"`{short(source)}` has {more} more that cannot go into a host")
    return not found.troubles


def _clash(upper: str, kinds: dict[str, str], lower: str, below: dict[str, str]) -> str:
    """A path that the one makes a file (or a link) and the other a directory; "" if there is none."""
    if lower != upper and not lower.startswith(upper.rstrip("/") + "/"):
        return ""
    inside = PurePosixPath(lower).relative_to(upper)
    for parent in list(inside.parents)[:-1] if inside.parts else ():
        if kinds.get(str(parent), "directory") != "directory":
            return posixpath.join(upper, parent)
    if inside.parts and kinds.get("", "directory") != "directory":
        return upper
    start = "" if not inside.parts else f"{inside}"
    for path, kind in below.items():
        other = kinds.get(f"{start}/{path}".strip("/"))
        if other is not None and "directory" in (kind, other) and kind != other:
            return posixpath.join(lower, path) if path else lower
    return ""


@contextmanager
def _refused(at: str, reading: Reading) -> Iterator[None]:
    try:
        yield
    except Refused as problem:
        if not reading.told_of(at):
            reading.add(at, problem.message, problem.hint)
