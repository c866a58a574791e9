"""The wire as a child of the agent: started, asked, ended. What is asked of it is not decided here."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import testbed
from testbed.agent import namespaces
from testbed.errors import ConditionError, last_line

_LAUNCH = "import sys; sys.path.insert(0, {!r}); from testbed.agent import wire; sys.exit(wire.main(sys.argv[1:]))"
_START_S = 20.0
_END_S = 3.0


class WireProcess:
    """Lives as long as its stdin, which nobody but the agent holds: it cannot outlive us, however we end."""

    def __init__(self, launch: str | None = None) -> None:
        """Started, and not awaited. `launch` is Python source to run in place of our wire's, for tests."""
        source = launch or _LAUNCH.format(str(Path(testbed.__file__).parent.parent))
        self._number = 0
        self._buffer = b""
        self._ledger = -1
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - as long as we live
        self._directory = tempfile.TemporaryDirectory(prefix="testbed-wire-")
        self._process = subprocess.Popen(
            [sys.executable, "-IS", "-c", source, "--ledger", f"{self._directory.name}/ledger"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
        )
        self.pid = self._process.pid

    def await_ready(self) -> None:
        """Until it serves. Raises ConditionError."""
        if self._ledger >= 0:
            return
        self._readline(time.monotonic() + _START_S)["ready"]
        # Both have it open now, and with its name gone nothing is left of it however this ends.
        self._ledger = os.open(f"{self._directory.name}/ledger", os.O_RDONLY | os.O_CLOEXEC)
        self._directory.cleanup()
        if namespaces.identity(self.pid, "net") == namespaces.identity("self", "net"):
            raise ConditionError("the wire did not leave the agent's network namespace")

    def death(self) -> str:
        """How it ended, in words; "" while it lives."""
        return "" if self._process.poll() is None else self._obituary()

    def tell(self, do: str, **arguments: Any) -> None:
        """One request. Raises ConditionError if the wire is dead."""
        self._number += 1
        request = {"id": self._number, "do": do, **arguments}
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as problem:
            raise ConditionError(self._obituary()) from problem

    def answer(self, do: str, wait_s: float) -> dict[str, Any]:
        """What it says to the last request. Raises ConditionError if the wire is dead, silent or refuses."""
        answer = self._readline(time.monotonic() + wait_s)
        if answer.get("id") != self._number:
            raise ConditionError(f"the wire answered {answer} to request {self._number}")
        if "ok" not in answer:
            raise ConditionError(f"the wire refused {do}: {answer['error']['message']}")
        return dict(answer["ok"])

    def _readline(self, deadline: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        poll = select.poll()  # select would refuse a descriptor above 1023
        poll.register(pipe, select.POLLIN)
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not poll.poll(left * 1000):
                raise ConditionError(f"the wire (process {self.pid}) did not answer in time. {self._last_words()}")
            piece = os.read(pipe, 1 << 20)
            if not piece:
                raise ConditionError(self._obituary())
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\n")
        return dict(json.loads(line))

    def _obituary(self) -> str:
        try:
            status = self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            return f"the wire (process {self.pid}) closed its pipe and lives on. {self._last_words()}"
        return f"the wire (process {self.pid}) ended with status {status}. {self._last_words()}"

    def _last_words(self) -> str:
        # Not seek and read: the child writes where our descriptor stands.
        said = last_line(os.pread(self._stderr.fileno(), 1 << 20, 0))
        return f"It said: {said}" if said else "It said nothing."

    @property
    def ledger_bytes(self) -> int:
        """How long the ledger is, as far as it is written."""
        return os.fstat(self._ledger).st_size

    def ledger(self, offset: int, length: int) -> bytes:
        """A piece of the ledger as the wire wrote it; also when the wire is dead."""
        return os.pread(self._ledger, length, offset)

    def close(self) -> None:
        """End it and reap it; its namespace and every pair that ends there go with it."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with suppress(OSError):  # it is dead and did not read all: what it did not read is of no use any more
            self._process.stdin.close()
        for end in (self._process.terminate, self._process.kill):
            try:
                self._process.wait(_END_S)
                break
            except subprocess.TimeoutExpired:
                end()
        self._process.wait()
        self._process.stdout.close()
        self._stderr.close()
        self._directory.cleanup()
        if self._ledger >= 0:
            os.close(self._ledger)
            self._ledger = -1
