"""What a run says while it goes on, on stderr: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.status import Status


class Progress:
    """`say(text)` shows a step. Verdicts never come here: they go to stdout."""

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
            self._status.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        self.pause()

    def pause(self) -> None:
        """Take the live line away: something else is about to be printed, or nothing more will."""
        if self._status is not None:
            self._status.stop()
            self._status = None

    def say(self, text: str) -> None:
        if self._quiet:
            return
        line = f"{time.monotonic() - self._began:7.2f} s  {text}"
        if self._status is not None:
            self._status.update(text)
            self._console.print(line, style="dim", soft_wrap=True)
        else:
            print(line, file=sys.stderr, flush=True)
