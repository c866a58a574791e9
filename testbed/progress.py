"""What a run says while it goes on, on stderr: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.status import Status


def to_nowhere(stream: TextIO) -> None:
    """Whoever read it has gone. What is in its buffer must go too, or Python ends with a status of its own."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


class Progress:
    """`say(text)` shows a step. Verdicts never come here: they go to stdout.

    That nobody can hear it any more, because a terminal has gone or a pipe is closed, is no reason to end a run.
    """

    def __init__(self, quiet: bool = False) -> None:
        self._console = Console(stderr=True, highlight=False, markup=False, emoji=False)
        self._live = self._console.is_terminal and not self._console.is_dumb_terminal
        self._status: Status | None = None
        self._quiet = quiet
        self._began = time.monotonic()

    def __enter__(self) -> Progress:
        self._began = time.monotonic()
        if self._live and not self._quiet:
            self._status = self._console.status("starting")
            with self._unheard():
                self._status.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        self.pause()

    def pause(self) -> None:
        """Take the live line away: something else is about to be printed, or nothing more will."""
        if self._status is not None:
            with self._unheard():
                self._status.stop()
            self._status = None

    def say(self, text: str) -> None:
        if self._quiet:
            return
        line = f"{time.monotonic() - self._began:7.2f} s  {text}"
        with self._unheard():
            if self._status is not None:
                self._status.update(text)
                self._console.print(line, style="dim", soft_wrap=True)
            else:
                print(line, file=sys.stderr, flush=True)

    @contextmanager
    def _unheard(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            self._quiet = True
            to_nowhere(sys.stderr)
