"""Entering a host's network namespace, and running `ip` and `tc` there. No policy.

The agent has one thread, so it steps into a namespace itself and back again instead of forking: children that it
starts on the way inherit where it stands, and /proc/sys/net shows the values of that place.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from testbed import linux
from testbed.errors import CommandError, EngineError

TABLES = Path("/proc/thread-self/net")  # of the network namespace where this thread stands
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
_TIMEOUT_S = 60  # no command of ours takes a second; this only ends a wait on a kernel that hangs


@cache
def _own() -> int:
    return os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


@contextmanager
def inside(netns: int | None) -> Iterator[None]:
    """Stand in the network namespace of that descriptor; None stays where we are. Raises OSError."""
    home = _own()
    if netns is None or os.path.sameopenfile(netns, home):
        yield
        return
    linux.setns(netns, linux.CLONE_NEWNET)
    try:
        yield
    finally:
        linux.setns(home, linux.CLONE_NEWNET)


@contextmanager
def fresh() -> Iterator[None]:
    """Stand in a new network namespace, which goes when we leave it. Raises OSError."""
    home = _own()
    linux.unshare(linux.CLONE_NEWNET)
    try:
        yield
    finally:
        linux.setns(home, linux.CLONE_NEWNET)


def run(argv: Sequence[str], stdin: str = "", netns: int | None = None, doing: str = "") -> str:
    """A command's output. Raises CommandError with its argv, status and message, or EngineError."""
    try:
        with inside(netns):
            done = subprocess.run(
                argv,
                input=stdin,
                capture_output=True,
                text=True,
                env=_ENVIRONMENT,
                timeout=_TIMEOUT_S,
                check=False,
            )
    except FileNotFoundError as problem:
        raise EngineError(f"{doing}: there is no {argv[0]} here; the package is called iproute2") from problem
    except subprocess.TimeoutExpired as problem:
        raise EngineError(f"{doing}: {' '.join(argv)} did not end within {_TIMEOUT_S} s") from problem
    if done.returncode != 0:
        raise CommandError(argv, done.returncode, _named_lines(done.stderr, stdin), doing)
    return done.stdout


def _named_lines(message: str, batch: str) -> str:
    """Put the line of a batch beside each `Command failed -:3`, which nobody could look up any more."""
    lines = batch.splitlines()

    def name(found: re.Match[str]) -> str:
        number = int(found[1])
        return f"failed at {lines[number - 1][:500]!r}" if 0 < number <= len(lines) else found[0]

    return " ".join(re.sub(r"Command failed -:(\d+)", name, message).split("\n")).strip()


def batch(tool: str, lines: Iterable[str], netns: int | None = None, doing: str = "") -> None:
    """Many lines to one `ip` or `tc`; the first that fails ends it. Raises CommandError."""
    stdin = "".join(f"{line}\n" for line in lines)
    if stdin:
        run([tool, "-batch", "-"], stdin, netns, doing)


def open_network(pid: int) -> int:
    """A descriptor of a process's network namespace, good for as long as we hold it. Raises OSError."""
    return os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def identity(pid: int | str, kind: str) -> tuple[int, int]:
    """Device and inode of a process's namespace (`net`, `pid`, `mnt`): equal if and only if the same."""
    found = Path(f"/proc/{pid}/ns/{kind}").stat()
    return found.st_dev, found.st_ino


def make_sysctls_writable() -> None:
    """Docker gives every container /proc/sys read-only, the agent's too: lay a fresh proc over ours.

    In a mount namespace of our own, so that nobody else sees it. Where even that is refused nothing is lost yet:
    a sysctl that has the right value already needs no writing.
    """
    if not os.statvfs("/proc/sys").f_flag & os.ST_RDONLY:
        return
    try:
        linux.unshare(linux.CLONE_NEWNS)
        linux.mount(None, "/", None, linux.MS_REC | linux.MS_SLAVE)
        linux.mount("proc", "/proc", "proc", linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC)
    except OSError:
        return
