"""When which program starts, is ready, has to be stopped: the decisions, without a clock, a thread or a process.

The runner tells what happened (`started`, `ready`, `ended`, `under_way`), asks `step(now)` what to do next, and
does it. All times are CLOCK_MONOTONIC nanoseconds, given as arguments.

When nothing is left to wait for, servers are not stopped at once: what had entered a link by then leaves first, so
that it finds them alive, and so does what kernels still have to send for programs that have ended. Then servers
read it. What they or a host that forwards pass on then has its time on the next link too, but only as often as
that can be a part of its way. What enters later has nobody to wait for it, or servers that talk to each other
would never end.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from testbed.measure.records import ProgramRecord
from testbed.plan.types import Program

State = Literal["waiting", "running", "ready", "ended", "blocked"]


@dataclass(frozen=True)
class Start:
    id: str


@dataclass(frozen=True)
class Signal:
    """Send a signal: to the program alone, or, for SIGKILL, to all that it started as well."""

    id: str
    signal: str
    tree: bool = False


@dataclass(frozen=True)
class Look:
    """Find out how much of what had entered a link before a moment is under way, and tell it to `under_way`.

    The moment is what came with the last answer, of the clock of whoever answers; None: now.
    """

    before_ns: int | None


Action = Start | Signal | Look

LOOK_EVERY_NS, LOOK_AT_LEAST_EVERY_NS = 20_000_000, 5_000_000_000
# A kernel whose bytes nobody acknowledges goes on for many minutes, and some servers never rest.
UNSENT_AT_LEAST_NS, UNSENT_AT_MOST_NS = 3_000_000_000, 10_000_000_000
RESTS_WITHIN_NS = 1_000_000_000
# How often servers are given the time to pass on what came, and on which links: they may talk for ever.
SERVERS_PASS_ON, SERVERS_STAY_NS = 2, 3_000_000_000


@dataclass(frozen=True)
class Seen:
    """The answer to Look, and what hosts have not read or sent yet."""

    before_ns: int
    frames: int = 0  # of what had entered a link by then, under way
    due_in_ns: int = 0  # until the last of them is due
    left_in_ns: int = 0  # until all of them have left for certain
    stay_ns: int = 0  # how long a frame may rightly stay in a link
    unread_bytes: int = 0
    unsent_bytes: int = 0  # for programs that have ended
    running: bool = False  # a program is at work just now
    ago_ns: int = 0  # since when, at least, this holds: what had left a link by then was looked for in the hosts


@dataclass
class _Life:
    program: Program
    record: ProgramRecord
    state: State = "waiting"
    stop_sent_ns: int | None = None
    killed: bool = False
    timed_out: bool = False
    flooded: bool = False
    gone_ns: int | None = None
    why_blocked: str = ""


@dataclass
class Lifecycle:
    """The programs of one run. `start_ns` is when the run began; `timeout_ns` bounds all of it.

    `forwarding`: how many hosts have a kernel that passes on what is not for them.
    """

    programs: Iterable[Program]
    start_ns: int
    timeout_ns: int
    duration_ns: int | None = None
    forwarding: int = 0
    fail: str = ""  # why the run as a whole failed
    stopping: bool = False
    stopping_ns: int | None = None  # since when
    leaving: bool = False  # nothing is left to wait for but what is under way
    _before_ns: int | None = None
    _look_ns: int | None = 0  # when to look again at what is under way; None: an answer is still to come
    _unsent: tuple[int, int] = 0, 0  # how much there was, and since when it is no less
    _arrived_ns: int | None = None  # since when nothing is under way any more
    _passed_on: int = 0  # how often what entered since then was looked for
    _lives: dict[str, _Life] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for program in self.programs:
            self._lives[program.id] = _Life(program, ProgramRecord(program.id, program.kind))

    # what happened

    def started(self, id: str, now_ns: int) -> None:
        life = self._lives[id]
        life.state, life.record.started_ns = "running", now_ns

    def ready(self, id: str, now_ns: int) -> None:
        life = self._lives[id]
        if life.state == "running":
            life.state, life.record.ready_ns = "ready", now_ns

    def flooded(self, id: str) -> None:
        """It has written more than is kept of a program's output: however it ends, that is how it failed."""
        self._lives[id].flooded = True

    def gone(self, id: str, now_ns: int) -> None:
        """It has ended by itself, how and when exactly is told later."""
        self._lives[id].gone_ns = now_ns

    def ended(self, id: str, exit: int | str, now_ns: int) -> None:
        """`now_ns` is when it ended, not when we saw it: what we did in between was done to nobody."""
        life = self._lives[id]
        now_ns = now_ns if life.gone_ns is None else min(now_ns, life.gone_ns)
        record, began_ns = life.record, life.record.started_ns or 0
        record.ended_ns = now_ns
        late = life.timed_out and now_ns - began_ns > life.program.timeout_ns and life.gone_ns is None
        record.exit = "flood" if life.flooded else "timeout" if late else exit
        if life.flooded or (life.stop_sent_ns is not None and now_ns < life.stop_sent_ns):
            record.stopped = False
        if life.program.kind == "serve" and life.state == "running" and not record.never_ready:
            why = "wrote more output than is kept" if life.flooded else f"ended with {exit}"
            record.never_ready = f"it {why} before it was ready"
        life.state = "ended"

    def under_way(self, seen: Seen, now_ns: int) -> None:
        """The answer to Look."""
        all_of_now, self._before_ns = self._before_ns is None, seen.before_ns
        self._look_ns = now_ns + min(max(seen.due_in_ns, LOOK_EVERY_NS), LOOK_AT_LEAST_EVERY_NS)
        if (seen.frames and seen.left_in_ns > 0) or self._sending(seen, now_ns):
            self._arrived_ns = None
            return
        if self._arrived_ns is None:
            self._arrived_ns = now_ns
        at_work = seen.running or seen.unread_bytes
        if at_work and now_ns - self._arrived_ns <= RESTS_WITHIN_NS:
            return
        if all_of_now or self._passed_on >= self._passing_on(seen.stay_ns):
            self.stop(now_ns - seen.ago_ns)  # of what has come since, nobody knows who has read it
        else:
            self._passed_on += 1
            self._before_ns, self._look_ns = None, now_ns

    def _passing_on(self, stay_ns: int) -> int:
        """How often a packet may be passed on until it is where it should be."""
        servers = {life.program.host for life in self._lives.values() if life.program.kind == "serve"}
        others = min(SERVERS_PASS_ON, max(0, len(servers) - 1)) if stay_ns <= SERVERS_STAY_NS else 0
        return self.forwarding + others

    def _sending(self, seen: Seen, now_ns: int) -> bool:
        """Whether a kernel gets on with what it has to send for programs that have ended: it gets less."""
        last, since_ns = self._unsent
        if seen.unsent_bytes != last:
            self._unsent = last, since_ns = seen.unsent_bytes, now_ns
        patience_ns = min(max(2 * seen.stay_ns, UNSENT_AT_LEAST_NS), UNSENT_AT_MOST_NS)
        return last > 0 and now_ns - since_ns <= patience_ns

    # what to ask about

    @property
    def records(self) -> dict[str, ProgramRecord]:
        return {id: life.record for id, life in self._lives.items()}

    def in_state(self, *states: State) -> list[Program]:
        """The programs that are in one of these states now, in start order."""
        return [life.program for life in self._lives.values() if life.state in states]

    def unready(self) -> list[Program]:
        """Serves that run and are not ready yet: their readiness has to be looked at."""
        return [
            life.program
            for life in self._lives.values()
            if life.program.kind == "serve" and life.state == "running" and not life.record.never_ready
        ]

    def blocked(self) -> dict[str, str]:
        """Programs that can never start, and why."""
        return {id: life.why_blocked for id, life in self._lives.items() if life.state == "blocked"}

    @property
    def over(self) -> bool:
        """Nothing runs any more and nothing will start."""
        return self.stopping and not self.in_state("running", "ready")

    # what to do

    def stop(self, now_ns: int) -> None:
        """Bring the run to its end: nothing new starts, and what runs gets its stop signal at the next step."""
        self.stopping, self.stopping_ns = True, now_ns

    def step(self, now_ns: int) -> list[Action]:
        """All that has to be done now. Each action is given once."""
        if not self.stopping:
            self._settle(now_ns)
        actions = [a for life in self._lives.values() for a in self._dam(life, now_ns)]
        if self.stopping:
            actions += [a for life in self._lives.values() for a in self._end(life, now_ns)]
        else:
            actions += [a for life in self._lives.values() for a in self._overdue(life, now_ns)]
            actions += [Start(life.program.id) for life in self._lives.values() if self._can_start(life)]
            actions += self._look(now_ns)
        return actions

    def _look(self, now_ns: int) -> list[Action]:
        if not self.leaving or self._look_ns is None or now_ns < self._look_ns:
            return []
        self._look_ns = None
        return [Look(self._before_ns)]

    def _settle(self, now_ns: int) -> None:
        """Mark what came out of the passing of time and of other programs' ends."""
        for program in self.unready():
            record = self._lives[program.id].record
            if record.started_ns is not None and now_ns - record.started_ns > program.ready.within_ns:
                record.never_ready = f"it was not ready within {program.ready.within_ns / 1e9:g} s"
        for _ in self._lives:  # a blocked program blocks others: as many rounds as a chain can be long
            for life in self._lives.values():
                life.why_blocked = life.why_blocked or (self._never(life) if life.state == "waiting" else "")
                if life.why_blocked:
                    life.state = "blocked"
        if self.leaving:  # links take the time that they were told to take
            return
        elapsed_ns = now_ns - self.start_ns
        waiting = [p for p in self.in_state("waiting", "running") if p.kind == "run"] or self.in_state("waiting")
        if not waiting and not self.unready() and elapsed_ns >= (self.duration_ns or 0):
            self.leaving = True
        elif elapsed_ns > self.timeout_ns:
            late = [p.id for p in self.in_state("running", "waiting") if p.kind == "run"] or ["its duration"]
            self.fail = (
                f"the run was not over within its timeout of {self.timeout_ns / 1e9:g} s: {', '.join(late)}"
            )
            self.stop(now_ns)

    def _never(self, life: _Life) -> str:
        """Why this program can never start; "" while it still can."""
        for id, event in life.program.after:
            other = self._lives[id]
            if other.state == "blocked":
                return f"{id} did not start"
            ended_unready = other.state == "ended" and other.record.ready_ns is None
            if event == "ready" and (other.record.never_ready or ended_unready):
                return f"{id} did not get ready"
            if event == "ended" and other.state == "ended" and other.record.exit != 0:
                return f"{id} ended with {other.record.exit}"
        return ""

    def _can_start(self, life: _Life) -> bool:
        return life.state == "waiting" and all(self._happened(id, event) for id, event in life.program.after)

    def _happened(self, id: str, event: str) -> bool:
        record, state = self._lives[id].record, self._lives[id].state
        if event == "started":
            return record.started_ns is not None
        if event == "ready":
            return record.ready_ns is not None
        return state == "ended" and record.exit == 0

    def _dam(self, life: _Life, now_ns: int) -> list[Action]:
        """Who floods us is not asked to end, which takes time, but killed."""
        if not life.flooded or life.killed or life.state not in ("running", "ready"):
            return []
        life.killed, life.stop_sent_ns = True, now_ns
        return [Signal(life.program.id, "KILL", tree=True)]

    def _overdue(self, life: _Life, now_ns: int) -> list[Action]:
        """A `run` beyond its timeout gets SIGTERM, and SIGKILL after its grace period."""
        began = life.record.started_ns
        if life.program.kind != "run" or life.state != "running" or began is None:
            return []
        if life.stop_sent_ns is None and now_ns - began > life.program.timeout_ns:
            life.timed_out = True
        return self._terminate(life, "TERM", now_ns) if life.timed_out else []

    def _end(self, life: _Life, now_ns: int) -> list[Action]:
        if life.state not in ("running", "ready"):
            return []
        life.record.stopped = life.record.stopped or not life.timed_out
        return self._terminate(life, life.program.stop_signal, now_ns)

    def _terminate(self, life: _Life, signal: str, now_ns: int) -> list[Action]:
        if life.stop_sent_ns is None:
            life.stop_sent_ns = now_ns
            return [Signal(life.program.id, signal)]
        if not life.killed and now_ns - life.stop_sent_ns > life.program.stop_grace_ns:
            life.killed = True
            return [Signal(life.program.id, "KILL", tree=True)]
        return []
