"""Control groups: where a process's own are, and groups below them for the hosts of a lab, with limits.

A group is a directory of the kernel's: it outlives its processes and nobody's end removes it. So each lab has one,
held by a lock for as long as a process of the lab lives, with a group for each host below; and what is not locked
is a dead lab's and may go. Both versions are known, cgroups(7): 1 has a tree of directories for each controller.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

CONTROLLERS = ("memory", "pids")
# Of version 1: Java believes in a limit of memory only where it sees groups of these as well. They limit nothing.
BESIDE = ("cpu", "cpuacct", "cpuset")
CPUSET = ("cpuset.cpus", "cpuset.mems")  # empty in a new group of version 1, which then takes no process
OF_LAB, OF_HOST = "testbed-lab-", "host-"  # a host may be called like one of the kernel's files
NO_LIMIT = 1 << 62
GONE_WITHIN_S, LOOK_S = 2.0, 0.001  # a process that has just ended may hold its group for a moment


class NoGroups(Exception):
    """Why there are none to be had here."""


class Place(NamedTuple):
    """A directory of groups: of version 2, or of these controllers of version 1."""

    directory: str
    version: int
    controllers: tuple[str, ...]


def own(cgroup: str, mountinfo: str, controllers: Sequence[str] = CONTROLLERS) -> dict[str, tuple[str, int]]:
    """Controller -> (directory of a process's own group, version), from /proc/PID/cgroup and our mountinfo. Pure.

    A controller that version 1 does not have is sought in version 2, whether it is there or not.
    """
    paths = {}
    for line in cgroup.splitlines():
        _, names, path = line.split(":", 2)
        paths.update(dict.fromkeys(names.split(","), path))
    found: dict[str, tuple[str, int]] = {}
    for line in mountinfo.splitlines():
        words, _, kind = line.partition(" - ")
        root, point = words.split()[3:5]
        options = kind.split()[2].split(",")
        for controller in controllers:
            version = 1 if kind.startswith("cgroup ") and controller in options else 2
            if version == 2 and (controller in found or not kind.startswith("cgroup2 ")):
                continue
            path = paths.get(controller if version == 1 else "", "")
            base = root.rstrip("/")
            if path == root or path.startswith(f"{base}/"):
                found[controller] = (point + path.removeprefix(base)).rstrip("/"), version
            elif Path(root).name.startswith(OF_HOST):  # who holds a host may still be on the way into its group
                found[controller] = point, version
    return found


class LabGroups:
    """The groups of one lab: made in the launcher, filled by the builder, gone with the lab."""

    def __init__(self, places: Sequence[Place], why_not: str = "") -> None:
        self._places = places  # the directories of the lab's groups: one for all controllers, or several
        self.why_not = why_not  # why there are none, and then nothing is limited by them

    def add(self, host: str, limits: Mapping[str, int]) -> None:
        """A group for a host. `limits`: controller -> bytes of memory, number of processes. Raises OSError."""
        for directory, version, _ in self._places:
            group = Path(directory, OF_HOST + host)
            _new(group, version)
            for name, limit in _files(version, limits):
                if (group / name).exists():  # not every kernel counts what is swapped out
                    (group / name).write_text(str(limit))

    def views(self, host: str) -> tuple[tuple[str, str], ...]:
        """What a host is shown of its own groups: (directory, where below /sys/fs/cgroup)."""
        return tuple(
            (str(Path(directory, OF_HOST + host)), ",".join(controllers) if version == 1 else "")
            for directory, version, controllers in self._places
        )

    def enter(self, host: str, pid: int = 0) -> None:
        """This process, or that one, becomes one of the host's. Raises OSError.

        It takes 10 ms and more, for the kernel waits until no processor can be looking; less soon after another.
        """
        for directory, *_ in self._places:
            Path(directory, OF_HOST + host, "cgroup.procs").write_text(f"{pid}")

    def remove(self) -> None:
        """When all processes are gone. Raises OSError for what stays, the rest having gone."""
        problems = []
        for directory, *_ in self._places:
            try:
                _remove(directory, GONE_WITHIN_S)
            except OSError as problem:
                problems.append(problem)
        if problems:
            raise problems[0]


def make(lab: str) -> LabGroups:
    """The groups of a new lab, below those of this process; none where these cannot be.

    They are locked as long as this process or one that it forks lives. What dead labs left beside is removed.
    """
    made: list[Place] = []
    try:
        for parent, version, controllers in parents():
            sweep(parent)
            group = f"{parent}/{OF_LAB}{lab.removeprefix('lab-')}"
            try:
                _lock(group, version)
            except OSError:
                if set(controllers) & set(CONTROLLERS):
                    raise
                continue
            made.append(Place(group, version, controllers))
            if version == 2:
                Path(group, "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in CONTROLLERS))
    except NoGroups as problem:
        return LabGroups((), str(problem))
    except OSError as problem:
        with suppress(OSError):
            LabGroups(made).remove()
        return LabGroups((), f"making a control group: {problem.strerror}: {problem.filename}")
    return LabGroups(made)


def sweep(parent: str) -> list[str]:
    """Remove what dead labs left below a directory, and say what that was. Never touches a live one's."""
    removed = []
    for group in dead(parent):
        with suppress(OSError):  # another user's, or something else in it
            _remove(group, 0)
            removed.append(group)
    return removed


def dead(parent: str) -> Iterator[str]:
    """The groups of labs whose last process has ended, each held while the caller looks at it."""
    for group in sorted(Path(parent).glob(f"{OF_LAB}*")):
        try:
            descriptor = os.open(group, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:  # gone just now, or another user's
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield str(group)
        except BlockingIOError:
            continue
        finally:
            os.close(descriptor)


def leftovers() -> list[str]:
    """Remove what dead labs left where this process would make its own, and say what that was."""
    try:
        return [gone for parent, *_ in parents() for gone in sweep(parent)]
    except NoGroups:
        return []


def in_force(pid: int) -> dict[str, int | None]:
    """The limits of the groups that a host is in; `pid` is the process that holds it. None: there is none.

    {memory_bytes, swap_bytes, processes}, as the kernel has them and not as they were asked for: who makes a group
    may be unable to limit it, and may not even say so. None as well where the process is gone or closed to us.
    """
    try:
        groups = _of_host(pid)
    except OSError:
        groups = {}
    memory, version = groups.get("memory", (Path(), 0))
    if version == 1:
        limit, both = (_number(memory / name) for name in ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"))
        swap = None if limit is None or both is None else both - limit
    else:
        limit, swap = (_number(memory / name) if version else None for name in ("memory.max", "memory.swap.max"))
    processes = _number(groups["pids"][0] / "pids.max") if "pids" in groups else None
    return {"memory_bytes": limit, "swap_bytes": swap, "processes": processes}


def memory_kills(pid: int) -> int | None:
    """How many processes of a host the kernel has ended for want of memory; `pid` is the one that holds it.

    None where its host has no limit of its own: what is counted there may be the fault of others.
    """
    with suppress(OSError):
        if in_force(pid)["memory_bytes"] is None:
            return None
        group, version = _of_host(pid)["memory"]
        text = (group / ("memory.oom_control" if version == 1 else "memory.events")).read_text()
        words = dict(line.split() for line in text.splitlines())
        return int(words["oom_kill"]) if "oom_kill" in words else None
    return None


def _of_host(pid: int) -> dict[str, tuple[Path, int]]:
    """Its groups as the host itself sees them: on every engine it is shown its own. Raises OSError."""
    found = own(_text(f"/proc/{pid}/cgroup"), _text(f"/proc/{pid}/mountinfo"))
    return {name: (Path(f"/proc/{pid}/root{place}"), version) for name, (place, version) in found.items()}


def _number(limit: Path) -> int | None:
    """None where there is nothing to read, or none is set: `max`, or with version 1 more than there can be."""
    try:
        text = limit.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() and int(text) < NO_LIMIT else None


def _files(version: int, limits: Mapping[str, int]) -> Iterator[tuple[str, int]]:
    """What is written where. Nothing may be swapped out instead, or the limit would be none."""
    if "memory" in limits:
        yield ("memory.limit_in_bytes" if version == 1 else "memory.max"), limits["memory"]
        yield ("memory.memsw.limit_in_bytes", limits["memory"]) if version == 1 else ("memory.swap.max", 0)
    if "pids" in limits:
        yield "pids.max", limits["pids"]


def parents() -> list[Place]:
    """Where a lab's groups can be made: one place for all controllers, or several. Raises NoGroups."""
    mine = own(_text("/proc/self/cgroup"), _text("/proc/self/mountinfo"), (*CONTROLLERS, *BESIDE))
    if not set(CONTROLLERS) <= set(mine):
        raise NoGroups("no control groups are mounted here")
    places: dict[tuple[str, int], list[str]] = {}
    for controller in (*CONTROLLERS, *BESIDE):
        if controller in CONTROLLERS or mine.get(controller, ("", 0))[1] == 1:
            places.setdefault(mine[controller], []).append(controller)
    return [
        Place(_parent(directory) if version == 2 else directory, version, tuple(controllers))
        for (directory, version), controllers in places.items()
    ]


def _parent(directory: str) -> str:
    """The nearest group upwards that may have children with our controllers: one with processes may not.

    Raises NoGroups.
    """
    for path in (Path(directory), *Path(directory).parents):
        switch = path / "cgroup.subtree_control"
        if not switch.exists():
            break
        if set(CONTROLLERS) <= set(switch.read_text().split()):
            return str(path)
    raise NoGroups(f"no control group from {directory} upwards gives its children {' and '.join(CONTROLLERS)}")


def _lock(group: str, version: int) -> None:
    """Make the group and hold it; again if a sweep of somebody else came in between. Raises OSError."""
    while True:
        _new(Path(group), version)
        with suppress(FileNotFoundError):
            descriptor = os.open(group, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if Path(group).exists():
                return
            os.close(descriptor)


def _new(group: Path, version: int) -> None:
    """Make a group; with the processors and the nodes of the one above, where it has to say so. Raises OSError."""
    group.mkdir()
    for name in CPUSET if version == 1 and (group / CPUSET[0]).exists() else ():
        (group / name).write_text((group.parent / name).read_text())


def _remove(group: str, within_s: float) -> None:
    """Raises OSError for the last that stays, the others having gone."""
    deadline = time.monotonic() + within_s
    stays = None
    for path in (*Path(group).glob(f"{OF_HOST}*"), Path(group)):
        while True:
            try:
                path.rmdir()
            except FileNotFoundError:
                pass
            except OSError as problem:
                if problem.errno == errno.EBUSY and time.monotonic() < deadline:
                    time.sleep(LOOK_S)
                    continue
                stays = problem
            break
    if stays is not None:
        raise stays


def _text(path: str) -> str:
    return Path(path).read_text()
