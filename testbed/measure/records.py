"""The evidence of one run, as the judge reads it: plain data, no files, no network.

The results room turns a directory into these and back. All times are CLOCK_MONOTONIC nanoseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Outcome = Literal["pass", "fail", "error", "inconclusive", "skip"]
EXIT_STATUS: dict[str, int] = {"pass": 0, "fail": 1, "error": 3, "skip": 4, "inconclusive": 5}
SEVERITY: tuple[Outcome, ...] = (
    "fail",
    "error",
    "inconclusive",
    "pass",
    "skip",
)  # the first one present wins
MEMORY_KILLS = "OomKill"  # in `kernel`: processes that the kernel ended because their host took too much memory


class Frame(NamedTuple):
    """One line of the ledger: what became of one frame (or of its one duplicate) on one link."""

    in_ns: int  # when it entered the wire
    link: str  # Link.id
    flow: str  # "udp *1>9000": protocol, ports; an ephemeral port is * and its order of first appearance
    k: int  # the k-th frame of this flow on this link, from 0
    size_bytes: int  # with the Ethernet header
    cause: str | None  # None: delivered; "loss", "queue", "unasked" (the wire itself lost it)
    copy: bool  # the extra copy made by `duplicate`
    due_ns: int | None  # when it had to leave
    sent_ns: int | None  # when it left


@dataclass
class ProgramRecord:
    """What became of one program."""

    id: str
    kind: Literal["run", "serve"]
    started_ns: int | None = None  # None: never started
    ready_ns: int | None = None
    ended_ns: int | None = None
    exit: int | str | None = None  # 0..255, "SIGKILL", ..., "timeout", "flood"; None: never started, or alive
    stopped: bool = False  # we sent its stop signal because the run was over: its `exit` is then no crash
    never_ready: str = ""  # why a `serve` did not get ready in time; "" otherwise
    listened: tuple[str, ...] = ()  # what a `run` listened on when it had to be stopped, as "tcp 80"
    stdout: bytes = b""
    stderr: bytes = b""
    collected: dict[str, bytes] = field(default_factory=dict)  # path in the host -> content


@dataclass
class Congestion:
    """TCP's congestion control in one host, as the agent brought it into force and read it back."""

    asked: str  # the plan's
    inherited: str  # the machine's
    in_force: str
    by: str  # "inherited", "sysctl", "routes"


@dataclass
class LinkProof:
    """What the wire and the kernel say of one run. A problem is (outcome, link id or host or "", text)."""

    problems: list[tuple[str, str, str]] = field(default_factory=list)  # outcome: "error" | "inconclusive"
    start: dict[str, Any] = field(default_factory=dict)
    end: dict[str, Any] = field(default_factory=dict)
    canary_p99_ns: int = 0  # lateness of a process that sleeps 1 ms at a time, over the run


@dataclass
class Records:
    """One run, whole. `error` holds the first thing that went wrong outside the program under test."""

    fate_version: int = 1
    seed: int = 1
    programs: dict[str, ProgramRecord] = field(default_factory=dict)
    kernel: dict[str, dict[str, int]] = field(default_factory=dict)  # host -> nstat name -> difference
    ledger: Sequence[Frame] = ()
    proof: LinkProof = field(default_factory=LinkProof)
    started_ns: int = 0
    ended_ns: int = 0
    stopping_ns: int | None = None  # when what still ran was told to stop; None: never, or not on record
    complete: bool = False  # the run came to its end and the last proof was taken
    error: str = ""
    skip: str = ""
    leftovers: str = ""  # what could not be torn down, and why
    fail: str = ""  # the run as a whole failed: the scenario's own timeout ran out


LESS_BUSY = "a less busy machine"  # what to try where a verdict is undecided because this one was late


@dataclass(frozen=True)
class Verdict:
    """One judgement. `text` is the expectation as written or the implied one."""

    outcome: Outcome
    text: str
    reason: str  # what was observed, and for inconclusive what to change
    line: int = 0
    implied: bool = False
    because: str = ""


@dataclass(frozen=True)
class Judgement:
    outcome: Outcome
    reason: str
    verdicts: tuple[Verdict, ...]

    @property
    def too_late(self) -> bool:
        """Whether a verdict is undecided because this machine was late: another run may decide it."""
        return any(v.outcome == "inconclusive" and LESS_BUSY in v.reason for v in self.verdicts)

    @property
    def counts(self) -> dict[str, int]:
        """How many verdicts of each outcome."""
        return {o: n for o in SEVERITY if (n := sum(v.outcome == o for v in self.verdicts))}
