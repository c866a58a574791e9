"""The one family of exceptions, split by who must act, and what of another's words goes into their messages.

A failed expectation is a verdict and never an exception.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


def counted(number: int, noun: str) -> str:
    """`1 frame`, `2 frames`, `1,186 frames`: a number of things in a message."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


class TestbedError(Exception):
    """What was being done, on what, what came back, and what to try."""

    __test__ = False  # pytest would take the name for a test class


class HostError(TestbedError):
    """The owner of this machine must act: something is missing or refused here."""


class CapabilityError(TestbedError):
    """What the scenario asks for does not exist on this engine or machine: the run is skipped."""


class EngineError(TestbedError):
    """Docker, the kernel or our own code did not do what was asked of it."""


class ConditionError(TestbedError):
    """A condition is not in force, so the network is not the one that the file asks for."""


class CommandError(EngineError):
    """An external command ended with a non-zero status."""

    def __init__(self, argv: Sequence[str], status: int, stderr: str, doing: str = "") -> None:
        self.argv, self.status, self.stderr = tuple(argv), status, stderr
        before = f"{doing}: " if doing else ""
        super().__init__(f"{before}{' '.join(argv)} ended with status {status}: {stderr.strip() or 'no message'}")


class CommandNotFound(EngineError):
    """The first word of a `run:` or `serve:` is not there in its host."""


def last_line(said: bytes | bytearray, limit: int = 500) -> str:
    """What a process wrote last, to be told: a traceback before it helps nobody. "" if it wrote nothing."""
    lines = [line.strip() for line in said.decode(errors="replace").splitlines()]
    return next((line[-limit:] for line in reversed(lines) if line), "")


@dataclass(frozen=True, order=True)
class Problem:
    """One thing wrong in a scenario file. Lines and columns count from 1.

    `hint` says what to write: lines to paste after its first line, or words in backticks. `code` is the kind of
    mistake and stays the same when sentences change.
    """

    file: str
    line: int
    column: int
    message: str
    hint: str = ""
    warning: bool = False
    code: str = field(default="meaning", compare=False)

    def __str__(self) -> str:
        kind = "warning: " if self.warning else ""
        hint = f"\n    {self.hint}" if self.hint else ""
        return f"{self.file}:{self.line}:{self.column}: {kind}{self.message}{hint}"


class ScenarioError(TestbedError):
    """The author must act. Holds every problem of the file, in the order of the file."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems))
        super().__init__("\n".join(str(problem) for problem in self.problems))
