"""Several commands at once, each in a process of its own: what one of them does cannot disturb another.

A thread each would share signals, a life-line and the memory of one process; and who kills us must end them all.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import IO

from testbed import linux

_GONE = 128 + signal.SIGKILL  # the status of a child whose parent had died before it began


@dataclass(frozen=True)
class Done:
    """A command that ended. A negative `status` is the signal that ended it."""

    name: str
    status: int
    stdout: str
    stderr: str
    took_s: float


@dataclass
class _Job:
    name: str
    process: subprocess.Popen[bytes]
    pidfd: int
    stdout: IO[bytes]
    stderr: IO[bytes]
    began: float

    def done(self) -> Done:
        os.close(self.pidfd)
        status, took_s = self.process.wait(), time.monotonic() - self.began
        return Done(self.name, status, _content(self.stdout), _content(self.stderr), took_s)


def at_once(commands: Sequence[tuple[str, Sequence[str]]], limit: int, tell: Callable[[Done], None]) -> list[Done]:
    """Run (name, argv) pairs, at most `limit` at a time, in order; `tell` hears of each as it ends.

    Returns them in the order given. Must be called from the main thread, and none other may be there: a child
    hears of the death of the thread that made it. On any exception all that run are told to stop (SIGTERM) and
    waited for, so that they tear down what they have built.
    """
    waiting = list(enumerate(commands))
    done: dict[int, Done] = {}
    with selectors.DefaultSelector() as running:
        try:
            while waiting or running.get_map():
                while waiting and len(running.get_map()) < limit:
                    index, (name, argv) = waiting.pop(0)
                    job = _start(name, argv)
                    running.register(job.pidfd, selectors.EVENT_READ, (index, job))
                for key, _ in running.select():
                    index, job = key.data
                    running.unregister(job.pidfd)
                    done[index] = job.done()
                    tell(done[index])
        except BaseException:
            left = [key.data[1] for key in running.get_map().values()]
            for job in left:
                job.process.terminate()
            for job in left:
                job.done()
            raise
    return [done[index] for index in range(len(commands))]


def _start(name: str, argv: Sequence[str]) -> _Job:
    out, err = _file(), _file()  # files never fill up, as pipes do
    began = time.monotonic()
    process = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, preexec_fn=partial(_die_with, os.getpid())
    )
    return _Job(name, process, os.pidfd_open(process.pid), out, err, began)


def _file() -> IO[bytes]:
    return tempfile.TemporaryFile()


def _die_with(parent: int) -> None:
    linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)  # a run that is killed leaves nothing either
    if os.getppid() != parent:
        os._exit(_GONE)


def _content(file: IO[bytes]) -> str:
    with file:
        file.seek(0)
        return file.read().decode(errors="replace")
