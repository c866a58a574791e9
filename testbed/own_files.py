"""What a run takes from the disk of its author, through the project alone: files, directories, standard input."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import BinaryIO, TypeVar

from testbed.directories import BELOW_WRITABLE, WRITABLE
from testbed.errors import HostError
from testbed.plan.types import Host, Mount, Plan, Program
from testbed.project.root import Project, Refused
from testbed.project.tree import Entry, Listing, below, pack
from testbed.project.venv import environment

Found = TypeVar("Found")


def grounded(plan: Plan, project: Project) -> Plan:
    """The same plan with real paths of this machine: of what hosts are shown, and of what is first in PATH.

    Raises HostError.
    """
    found = {source: _taken(source, partial(environment, project)) for source in _environments(plan)}

    def mounts(host: Host) -> tuple[Mount, ...]:
        own = [(_shown(mount.source, project), mount.path) for mount in host.mounts]
        trees = [tree for source in _environments(plan, host.name) for tree in found[source].trees]
        return tuple(Mount(source, path) for source, path in dict.fromkeys([*own, *trees]))

    def program(one: Program) -> Program:
        if one.venv is None:
            return one
        path = found[one.venv].path
        search = f"{path}/bin:{one.environment['PATH']}"
        return replace(one, environment=one.environment | {"PATH": search, "VIRTUAL_ENV": path})

    hosts = tuple(replace(host, mounts=mounts(host)) for host in plan.hosts)
    return replace(plan, hosts=hosts, programs=tuple(map(program, plan.programs)))


def _environments(plan: Plan, host: str | None = None) -> list[str]:
    """The virtual environments that programs name, of one host or of all; each once."""
    named = (program.venv for program in plan.programs if host in (None, program.host))
    return list(dict.fromkeys(source for source in named if source is not None))


def _shown(source: str, project: Project) -> str:
    _taken(source, project.shown)
    return project.find(source)


def archives(plan: Plan, project: Project) -> Iterator[tuple[str, BinaryIO]]:
    """For each host that has `files:`, all of them as one archive; hosts with the same ones get the same archive.

    Raises HostError.
    """
    packed: dict[tuple[object, ...], BinaryIO] = {}
    try:
        for host in plan.hosts:
            files = tuple(file for id in host.programs for file in plan.program(id).files)
            if not files:
                continue
            if files not in packed:
                things: list[tuple[str, Entry | bytes]] = []
                for file in files:
                    if file.source is None:
                        things.append((file.target, (file.text or "").encode()))
                    else:
                        things += below(file.target, _taken(file.source, project.copied))
                packed[files] = _packed(things)
            packed[files].seek(0)
            yield host.name, packed[files]
    finally:
        for archive in packed.values():
            archive.close()


def standard_inputs(plan: Plan, project: Project) -> dict[str, bytes]:
    """What each program reads on standard input, by program. Raises HostError."""
    return {
        p.id: _taken(p.stdin_file, project.read) if p.stdin_file is not None else (p.stdin or "").encode()
        for p in plan.programs
    }


def _packed(things: list[tuple[str, Entry | bytes]]) -> BinaryIO:
    try:
        return pack(things, keep={"/dev/shm", "/scenario", *WRITABLE, *BELOW_WRITABLE})
    except OSError as problem:
        at = f"{problem.filename}: " if problem.filename else "the archive: "
        raise HostError(
            f"packing files for the scenario's hosts: {at}{problem.strerror}; leave them alone meanwhile, and see "
            "that the directory for temporary files (TMPDIR) has room for them"
        ) from problem


def _taken(source: str, take: Callable[[str], Found]) -> Found:
    """What `check` saw was sound, but it may have changed since. Raises HostError."""
    try:
        found = take(source)
    except Refused as problem:
        raise HostError(f"reading {source} for the scenario: {problem}") from problem
    if isinstance(found, Listing) and (wrong := found.wrong):
        raise HostError(f"reading {source} for the scenario: {wrong}")
    return found
