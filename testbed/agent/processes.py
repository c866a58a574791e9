"""The processes of a host as the agent's /proc shows them: trees, signals, and whether a command is there."""

from __future__ import annotations

import errno
import os
import select
import signal
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

from testbed.agent import namespaces
from testbed.agent.host import Host
from testbed.errors import EngineError

T = TypeVar("T")

NOBODYS = (-1, -1)  # stands for a namespace that is no host's
_LINKS_FOLLOWED = 40  # the kernel's own limit
SETTLES_S = 1.0  # how long a process may take from giving up its capabilities to being its program


class Process(NamedTuple):
    pid: int
    parent: int
    started: int  # in clock ticks since boot: tells a reused number from the process that had it
    state: str


def read(pid: int) -> Process | None:
    """None if there is none. As in proc_pid_stat(5); the name in parentheses may itself hold any of them."""
    try:
        line = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    words = line[line.rindex(b")") + 2 :].split()
    return Process(pid, int(words[1]), int(words[19]), words[0].decode())


def tree(pid: int) -> list[Process]:
    """A process and all that descend from it, parents first. Empty if it is gone."""
    root = read(pid)
    if root is None:
        return []
    children: dict[int, list[Process]] = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208 - a Path for each of a machine's processes costs more than reading
        if entry.isdigit() and (found := read(int(entry))):
            children.setdefault(found.parent, []).append(found)
    order, at = [root], 0
    while at < len(order):
        order += children.get(order[at].pid, [])
        at += 1
    return order


def send_signal(host: Host, pid: int, name: str, whole_tree: bool) -> list[int]:
    """Signal a process of the host; returns who was sent it: nobody, if it has ended.

    Raises EngineError if the process is not in the host's pid namespace or the signal has no such name.
    """
    number = _number(name)
    if number is None:
        raise EngineError(f"signalling process {pid} of {host.name}: there is no signal {name!r}")
    doing = f"sending SIG{name.removeprefix('SIG')} to process {pid} of {host.name}"
    with _Handles() as handles:
        # A number may go to another process at any moment, so first take hold of it and only then look who it is.
        if not handles.take(pid):
            return []
        lives_in = _pid_namespace(pid)
        if lives_in is None:
            return []  # it ended just now
        if lives_in != host.pid_ns:
            raise EngineError(f"{doing}: refused, because that process is not in {host.name}")
        if whole_tree:
            handles.take_tree(pid, freeze=number == signal.SIGKILL)
        return [pid for pid in handles.pids if handles.send(pid, number, doing)]


def has_ended(pid: int) -> bool:
    """Whether a process is no more, all its threads, also if nobody has asked for its status yet."""
    with _Handles() as handles:
        return not handles.take(pid) or handles.is_over(pid)


def _number(name: str) -> int | None:
    """Of `TERM`, `SIGTERM`, or `SIGRTMIN+3` as some images want it; None if there is none."""
    base, _, beyond = name.removeprefix("SIG").partition("+")
    try:
        number = signal.Signals[f"SIG{base}"] + int(beyond or 0)
    except (KeyError, ValueError):
        return None
    return number if number in signal.valid_signals() else None


def _pid_namespace(pid: int) -> tuple[int, int] | None:
    """Which one a process lives in; None if it has ended; NOBODYS if we may not look.

    Those of a host we may look at, but for a moment of some (see `_settled`). Of others on the machine we may not
    look at all, process 1 among them.
    """
    try:
        return _patiently(lambda: namespaces.identity(pid, "pid"))
    except (FileNotFoundError, ProcessLookupError):
        return None
    except PermissionError:
        return NOBODYS


class _Handles:
    """Descriptors of processes, which cannot come to mean another one."""

    def __init__(self) -> None:
        self._fds: dict[int, int] = {}

    def __enter__(self) -> _Handles:
        return self

    def __exit__(self, *_: object) -> None:
        for pid in self.pids:
            self.drop(pid)

    @property
    def pids(self) -> list[int]:
        return list(self._fds)

    def take(self, pid: int) -> bool:
        """False if there is no such process."""
        try:
            self._fds[pid] = os.pidfd_open(pid)
        except ProcessLookupError:
            return False
        return True

    def is_over(self, pid: int) -> bool:
        """Whether a process that was taken has ended since, or had."""
        return bool(select.select([self._fds[pid]], [], [], 0)[0])

    def take_tree(self, root: int, freeze: bool) -> None:
        """Take hold of all that descend from `root`.

        Who is to be killed is stopped first (`freeze`), so that it starts nobody who would escape.
        """
        while True:
            if freeze:
                for pid in self.pids:
                    self.send(pid, signal.SIGSTOP, f"stopping process {pid} to kill its tree")
            new = [process for process in tree(root) if process.pid not in self._fds]
            taken = [process for process in new if self.take(process.pid)]
            for process in taken:
                now = read(process.pid)
                if now is None or now.started != process.started:
                    self.drop(process.pid)
            if not taken or not freeze:
                return

    def drop(self, pid: int) -> None:
        os.close(self._fds.pop(pid))

    def send(self, pid: int, number: int, doing: str) -> bool:
        """False if it has ended."""
        try:
            signal.pidfd_send_signal(self._fds[pid], number)
        except ProcessLookupError:
            return False
        except OSError as problem:
            raise EngineError(f"{doing}: {problem}") from problem
        return True


def find_command(host: Host, command: str, path: str, working_dir: str) -> str | None:
    """Where a host's own exec would find the command, as a path in the host; None if it would not.

    Raises EngineError if the host cannot be looked into. As execvp(3): a name with a slash is a path from the
    working directory, any other is looked for along `path`, passing by what may not be executed or entered.
    """
    places = [command] if "/" in command else [f"{place or '.'}/{command}" for place in path.split(":")]
    root = f"/proc/{host.pid}/root"
    try:
        os.stat(f"{root}/")  # noqa: PTH116 - a Path would drop the slash, which is what enters the root
    except OSError as problem:
        raise EngineError(f"looking for {command!r} in {host.name} (process {host.pid}): {problem}") from problem
    for place in places:
        inside = place if place.startswith("/") else f"{working_dir}/{place}"
        if _is_executable(root, inside):
            return os.path.normpath(inside)
    return None


def own_path(host: Host) -> str:
    """The PATH that the host's first process was started with, which is its image's. Raises EngineError."""
    try:
        words = Path(f"/proc/{host.pid}/environ").read_bytes().split(b"\0")
    except OSError as problem:
        raise EngineError(f"asking {host.name} (process {host.pid}) for its PATH: {problem}") from problem
    return next((os.fsdecode(word[5:]) for word in words if word.startswith(b"PATH=")), os.defpath)


def _is_executable(root: str, path: str) -> bool:
    try:
        found = Path(root + _resolve(root, path)).lstat()
    except OSError as problem:
        if problem.errno in (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.ELOOP, errno.ENAMETOOLONG):
            return False
        raise
    return stat.S_ISREG(found.st_mode) and bool(found.st_mode & 0o111)


def _resolve(root: str, path: str) -> str:
    """The path with its symbolic links followed inside `root`.

    Through /proc/PID/root the kernel would follow an absolute link from our own root. Entering the mount namespace
    instead takes CAP_SYS_CHROOT, which the agent has no other use for.
    """
    left, done, followed = _parts(path), "", 0
    while left:
        name = left.pop()
        if name == "..":
            done = done.rpartition("/")[0]
            continue
        here = f"{done}/{name}"
        try:
            target = os.readlink(root + here)  # noqa: PTH115 - str in, str out, as everything here
        except OSError as problem:
            if problem.errno != errno.EINVAL:
                raise
            done = here  # no link
            continue
        followed += 1
        if followed > _LINKS_FOLLOWED:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        left += _parts(target)
        if target.startswith("/"):
            done = ""
    return done


def _parts(path: str) -> list[str]:
    """Last one first: to be taken from the end."""
    return [part for part in reversed(path.split("/")) if part not in ("", ".")]


def descriptors(pid: int) -> Iterator[str]:
    """What a process has open, as its links in /proc say. Nothing if it is gone.

    When its first thread has ended and others live on, its own directory is empty and theirs are not.
    """
    process = read(pid)
    if process is None:
        return
    homes = [f"/proc/{pid}"]
    if process.state == "Z":
        homes = [f"/proc/{pid}/task/{tid}" for tid in _listed(f"/proc/{pid}/task") if tid != str(pid)]
    for home in homes:
        for number in _settled(f"{home}/fd"):
            try:
                yield os.readlink(f"{home}/fd/{number}")  # noqa: PTH115 - thousands of them
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue  # closed since, or the process is ending


def _settled(directory: str) -> list[str]:
    """As `_listed`, of a process of a host. Raises PermissionError if it does not let us look."""
    return _patiently(lambda: _listed(directory))


def _patiently(look: Callable[[], T]) -> T:
    """What `look` returns. Raises PermissionError if it still does after a while.

    A process that has just given up capabilities, or is just ending, lets nobody look who is not root on the
    machine: until it has become its program, or is gone.
    """
    until = time.monotonic() + SETTLES_S
    while True:
        try:
            return look()
        except PermissionError:
            if time.monotonic() > until:
                raise
            time.sleep(0.005)


def _listed(directory: str) -> list[str]:
    try:
        return os.listdir(directory)  # noqa: PTH208
    except (FileNotFoundError, ProcessLookupError):
        return []
