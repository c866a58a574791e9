"""Carries out what the lifecycle decides: starts, watches and stops the programs of one run, through an engine.

No decision lives here: when and whether is the lifecycle's, what it means is the judge's.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from testbed.engines.api import Command, Engine, Process
from testbed.errors import EngineError
from testbed.lifecycle import Lifecycle, Look, Seen, Signal, Start
from testbed.limits import OUTPUT_BYTES
from testbed.measure.records import ProgramRecord
from testbed.plan.hosts import forwards
from testbed.plan.types import Plan, Program
from testbed.results import Results

EAGER_S, CALM_S = 0.004, 0.02  # how often we look: while something is not ready yet, and while all just runs
DEAD_WITHIN_S = 60.0
SAY_ABOVE_S = 1.0  # what takes longer than that is said
ASK_AGAIN_NS = 100_000_000  # between two tries of `ready: {answers: ...}`

Say = Callable[[str], None]


class Hands(Protocol):
    """What the supervisor asks of the agent; the agent's client has these."""

    def still_there(self) -> None: ...
    def sockets(self, host: str, pid: int) -> Sequence[Mapping[str, Any]]: ...
    def signal(self, host: str, pid: int, name: str, tree: bool = False) -> Sequence[int]: ...
    def ended(self, pids: Sequence[int]) -> Sequence[int]: ...
    def under_way(self, before_ns: int | None) -> Mapping[str, Any]: ...


class Output:
    """One stream of one program: appended to its file as it comes, up to a limit.

    While it is `searched`, until the program is ready, it is kept in memory too.
    """

    def __init__(self, path: Path, searched: bool = False, limit_bytes: int = OUTPUT_BYTES) -> None:
        self._file: BinaryIO = path.open("ab", buffering=0)
        self._seen = bytearray()
        self._searched = searched
        self._room = limit_bytes
        self._lock = threading.Lock()
        self.flooded = False  # there was more than the limit: what is kept is the beginning

    def write(self, data: bytes) -> None:
        """Raises OSError for what does not fit, also if a part did: a full disk takes some and says nothing."""
        with self._lock:
            if not self._file.closed:
                self.flooded = self.flooded or len(data) > self._room
                data = data[: self._room]
                self._room -= len(data)
                left = memoryview(data)
                while left:
                    left = left[self._file.write(left) :]
                if self._searched:
                    self._seen += data

    def matches(self, regex: str) -> bool:
        with self._lock:
            return re.search(regex, self._seen.decode(errors="replace"), re.MULTILINE) is not None

    def stop_searching(self) -> None:
        with self._lock:
            self._searched, self._seen = False, bytearray()

    def close(self) -> None:
        with self._lock:
            self._file.close()


class Supervisor:
    """The programs of one deployment. `stdin` holds each program's standard input by program id."""

    def __init__(
        self, plan: Plan, engine: Engine, agent: Hands, results: Results, stdin: Mapping[str, bytes], say: Say
    ) -> None:
        self._plan, self._engine, self._agent, self._results = plan, engine, agent, results
        self._stdin, self._say = stdin, say
        forwarding = sum(forwards(host) for host in plan.hosts)
        self._life = Lifecycle(plan.programs, time.monotonic_ns(), plan.timeout_ns, plan.duration_ns, forwarding)
        self._processes: dict[str, Process] = {}
        self._outputs: dict[str, tuple[Output, Output]] = {}
        self._asking: dict[str, tuple[Process, int]] = {}
        self._reported: set[str] = set()
        self._killed_s: dict[str, float] = {}

    def run(self) -> None:
        """Until every program has ended and the run is over.

        Raises CommandNotFound, EngineError, and ConditionError as soon as the network is not what it was.
        """
        try:
            while not self._life.over:
                self._agent.still_there()
                self._observe()
                stopping = self._life.stopping
                for action in self._life.step(time.monotonic_ns()):
                    match action:
                        case Start():
                            self._start(self._plan.program(action.id))
                        case Look():
                            self._look(action)
                        case Signal():
                            self._signal(action)
                if self._life.stopping and not stopping:
                    continue  # nothing counts from now on, so that programs are told now
                if not self._life.over:
                    self._bury()
                    time.sleep(EAGER_S if self._life.unready() else CALM_S)
            for id, (question, _) in self._asking.items():
                if question.exit is None:
                    self._agent.signal(self._plan.program(id).host, question.pid, "KILL", tree=True)
        finally:
            for pair in self._outputs.values():
                for output in pair:
                    output.close()

    @property
    def fail(self) -> str:
        """Why the run as a whole failed; "" if it did not."""
        return self._life.fail

    @property
    def stopping_ns(self) -> int | None:
        """When what still ran was told to stop."""
        return self._life.stopping_ns

    def records(self) -> dict[str, ProgramRecord]:
        """What became of each program, with its output so far."""
        for id, record in self._life.records.items():
            if record.started_ns is not None:
                record.stdout = self._results.output(id, "stdout").read_bytes()
                record.stderr = self._results.output(id, "stderr").read_bytes()
        return self._life.records

    def _command(self, program: Program, argv: tuple[str, ...], stdin: bytes = b"") -> Command:
        return Command(argv, program.environment, program.working_dir, program.user, stdin)

    def _start(self, program: Program) -> None:
        out = Output(self._results.output(program.id, "stdout"), searched=program.kind == "serve")
        err = Output(self._results.output(program.id, "stderr"))
        self._outputs[program.id] = out, err
        command = self._command(program, program.argv, self._stdin.get(program.id, b""))
        process = self._engine.start(program.host, command, out.write, err.write)
        self._processes[program.id] = process
        self._life.started(program.id, process.started_ns)
        self._say(f"{program.id} started: {' '.join(program.argv)}")

    def _signal(self, action: Signal) -> None:
        process = self._processes[action.id]
        if process.exit is None:
            program, kill = self._plan.program(action.id), action.signal == "KILL"
            if kill:
                self._killed_s[action.id] = time.monotonic()
            elif program.kind == "run":  # who did not end by itself may be a server
                self._life.records[action.id].listened = tuple(sorted(self._sockets(program)))
            now_ns = time.monotonic_ns()
            told = self._agent.signal(program.host, process.pid, action.signal, action.tree)
            if program.kind == "run" and not told and not kill:
                self._life.gone(action.id, now_ns)

    def _find_dead(self) -> None:
        """Tell the lifecycle who has ended before anybody is stopped: an engine may learn of it later."""
        now_ns = time.monotonic_ns()
        running = {self._processes[p.id].pid: p.id for p in self._life.in_state("running", "ready")}
        for pid in self._agent.ended(list(running)):
            self._life.gone(running[pid], now_ns)

    def _look(self, action: Look) -> None:
        said = self._agent.under_way(action.before_ns)
        answered_ns = time.monotonic_ns()
        due_ns, left_ns, stay_ns, ago_ns = (
            int(said[f"{name}_s"] * 1e9) for name in ("due_in", "left_in", "stay", "ago")
        )
        hosts = said["unread_bytes"], said["unsent_bytes"], said["running"]
        seen = Seen(said["before_ns"], said["frames"], due_ns, left_ns, stay_ns, *hosts, ago_ns)
        if seen.frames and said["due_in_s"] > SAY_ABOVE_S:
            last = f"the last one leaves in {said['due_in_s']:.1f} s"
            self._say(f"frames under way: {seen.frames}, {last}; then programs end")
        self._life.under_way(seen, answered_ns)
        if self._life.stopping:
            self._find_dead()

    def _bury(self) -> None:
        """What SIGKILL does not end within a minute will not end. Raises EngineError."""
        for id, since_s in self._killed_s.items():
            if self._processes[id].exit is None and time.monotonic() - since_s > DEAD_WITHIN_S:
                raise EngineError(f"ending {id}: it still lives {DEAD_WITHIN_S:g} s after SIGKILL")

    def _observe(self) -> None:
        """Tell the lifecycle what has happened since the last look."""
        now_ns = time.monotonic_ns()
        for program in self._life.unready():
            if self._processes[program.id].exit is None and self._is_ready(program, now_ns):
                self._life.ready(program.id, now_ns)
                self._outputs[program.id][0].stop_searching()
                self._say(f"{program.id} ready")
        for program in self._life.in_state("running", "ready"):
            process = self._processes[program.id]
            exit = process.exit  # first: once it is known, all output has come
            if any(output.flooded for output in self._outputs[program.id]):
                self._life.flooded(program.id)
            if exit is not None:
                self._life.ended(program.id, exit, process.ended_ns or now_ns)
                self._say(f"{program.id} ended: {self._life.records[program.id].exit}")
        for id, why in self._life.blocked().items():
            if id not in self._reported:
                self._reported.add(id)
                self._say(f"{id} not started: {why}")

    def _is_ready(self, program: Program, now_ns: int) -> bool:
        ready, process = program.ready, self._processes[program.id]
        stdout = self._outputs[program.id][0]
        match ready.kind:
            case "wait":
                return now_ns - process.started_ns >= ready.wait_ns
            case "prints":
                return stdout.matches(ready.regex or "")
            case "answers":
                return self._answers(program, now_ns)
            case "listens":
                return set(ready.sockets) <= self._sockets(program)
            case _:
                return stdout.matches(r"^READY\s*$") or bool(self._sockets(program))

    def _sockets(self, program: Program) -> set[str]:
        """The sockets of the program's own process tree, as `ready:` names them."""
        found = self._agent.sockets(program.host, self._processes[program.id].pid)
        return {f"{s['proto']} {s['path'] if s['proto'] == 'unix' else s['port']}" for s in found}

    def _answers(self, program: Program, now_ns: int) -> bool:
        """Run the question in the host until it ends with 0; one at a time, with a pause between two."""
        asked = self._asking.get(program.id)
        if asked is not None and asked[0].exit == 0:
            return True
        if asked is None or (asked[0].exit is not None and now_ns - asked[1] > ASK_AGAIN_NS):
            command = self._command(program, program.ready.argv)
            process = self._engine.start(program.host, command, lambda _: None, lambda _: None)
            self._asking[program.id] = process, now_ns
        return False
