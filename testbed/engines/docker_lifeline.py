"""The orchestrator's end of the janitor: ready before the first object exists, told of every create."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import testbed
from testbed.engines.janitor import DONE, READY
from testbed.errors import EngineError, last_line

UNCLEAN_S = 5.0  # how long we stay to see it succeed where we did not


class Lifeline:
    """A janitor process and the pipe to it. While this process lives, it waits; when it dies, it removes."""

    def __init__(self, run: str, docker_host: str | None) -> None:
        """Starts it, in a session of its own, so that Ctrl-C does not reach it. `await_ready` must follow."""
        home = str(Path(testbed.__file__).parent.parent)
        path = os.pathsep.join(part for part in (home, os.environ.get("PYTHONPATH", "")) if part)
        environment = os.environ | {"PYTHONPATH": path} | ({"DOCKER_HOST": docker_host} if docker_host else {})
        self._lock = threading.Lock()
        self._unheard: set[str] = set()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "testbed.engines.janitor", run], env=environment, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/",
        )  # fmt: skip

    def await_ready(self) -> None:
        """Raises EngineError if it did not start."""
        stdout, stderr = self._process.stdout, self._process.stderr
        assert stdout is not None and stderr is not None
        if stdout.readline() != READY:
            said = last_line(stderr.read()) or "it said nothing"
            raise EngineError(f"starting the janitor, which removes what a killed run leaves: {said}")

    @property
    def unheard(self) -> set[str]:
        """What was about to be made and has no answer: we were interrupted, and it may come to be later."""
        with self._lock:
            return set(self._unheard)

    def about_to(self, thing: str) -> None:
        """`thing` is a kind and a name; see testbed.engines.janitor."""
        self._tell(f"+ {thing}", self._unheard.add, thing)

    def answered(self, thing: str) -> None:
        self._tell(f"- {thing}", self._unheard.discard, thing)

    def _tell(self, line: str, note: Callable[[str], None], thing: str = "") -> None:
        """If the janitor is dead we go on: the next run's sweep stands behind it."""
        stdin = self._process.stdin
        assert stdin is not None
        with self._lock, suppress(BrokenPipeError, ValueError):
            note(thing)
            stdin.write(f"{line}\n".encode())
            stdin.flush()

    def end(self, clean: bool) -> None:
        """`clean`: nothing is left, it ends at once. Else it removes what it can, beyond our end if need be."""
        process = self._process
        assert process.stdin and process.stdout and process.stderr
        if clean:
            self._tell(DONE, lambda _: None)
        with suppress(BrokenPipeError):
            process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(None if clean else UNCLEAN_S)
        process.stdout.close()
        process.stderr.close()
