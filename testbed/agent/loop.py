"""The agent's loop: requests in, answers out, signs of life, and everything undone when it ends."""

from __future__ import annotations

import base64
import json
import os
import platform
import resource
import select
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import testbed
from testbed import groups, linux
from testbed.agent import (
    baseline,
    congestion,
    counters,
    crossing,
    filters,
    lacking,
    links,
    namespaces,
    passage,
    processes,
    sockets,
)
from testbed.agent.canary import Canary
from testbed.agent.cpu_wait import CpuWait
from testbed.agent.host import Host, ended
from testbed.conditions.fate import FATE_VERSION
from testbed.errors import CapabilityError, ConditionError, EngineError, TestbedError

ALIVE_EVERY_S = 10.0
SILENCE_S = 60.0
DRAIN_EVERY_S = 0.5  # how long a request waits for links to become empty: others wait behind it
LOOK_EVERY_S = 0.1  # whether the wire and all hosts live
_PIPE_BUF = 4096  # what a pipe that is ready for writing takes without blocking

Json = dict[str, Any]


class Agent:
    """What the agent can do, one method a request. Holds the state of this machine, and knows how to undo it."""

    def __init__(self, the_links: links.Links | None = None) -> None:
        self.hosts: dict[str, Host] = {}
        self.links = the_links or links.Links()
        self.canary, self.cpu_wait = Canary(), CpuWait({})
        self.run_goes_on = False
        self._congestion: dict[str, dict[str, str]] = {}
        self._doors: list[str] = []
        self._crossing: crossing.Crossing | None = None
        self._sending: set[tuple[str, str]] = set()  # (host, connection) that `under_way` waits for

    def operations(self) -> dict[str, Callable[[Json], Json]]:
        return {
            "hello": self.hello,
            "lacking": self.lacking,
            "door": self.door,
            "wires": self.prepare_wires,
            "hosts": self.set_hosts,
            "conditions": self.set_conditions,
            "lookup": self.lookup,
            "sockets": self.sockets,
            "counters": self.counters,
            "signal": self.signal,
            "ended": self.ended,
            "under_way": self.under_way,
            "drain": self.drain,
            "check": self.check,
            "ledger": self.ledger,
        }

    def hello(self, _: Json) -> Json:
        return {
            "version": testbed.__version__,
            "fate": FATE_VERSION,
            "monotonic_ns": time.monotonic_ns(),  # the clock of the ledger
            "kernel": platform.release(),
            "iproute2": namespaces.run(["ip", "-V"], doing="asking for the version of iproute2").strip(),
            "python": platform.python_version(),
            "capabilities": _capabilities(),
            "scheduler": "fifo" if _may_have_fifo() else "other",
            "firewall": crossing.switches(),
        }

    def lacking(self, request: Json) -> Json:
        return {"lacking": lacking.lacking(request["words"])}

    def door(self, request: Json) -> Json:
        shut = {}
        for bridge in request["bridges"]:
            self._doors.append(bridge)  # before: it may be half done when it goes wrong
            shut[bridge] = filters.shut_door(bridge)
        return {"bridges": shut}

    def prepare_wires(self, request: Json) -> Json:
        self.links.prepare(request["number"])
        return {}

    def set_hosts(self, request: Json) -> Json:
        """A whole state: the hosts of before are forgotten, and with them their conditions."""
        wanted = [Host.from_json(data) for data in request["hosts"]]
        troubles = self._forget_hosts() if self.hosts else []
        if troubles:
            raise EngineError("forgetting the hosts of before: " + "; ".join(troubles))
        seen = {}
        for host in wanted:
            host.open()
            self.hosts[host.name] = host
            seen[host.name] = baseline.apply(host) | {"limits": groups.in_force(host.pid)}
            self._congestion[host.name] = seen[host.name]["congestion"]
        filters.silence_ports(self._doors)
        passage.prove(wanted)
        return {"hosts": seen}

    def _forget_hosts(self) -> list[str]:
        troubles = self.links.undo()
        self._count_crossings(False)
        for host in self.hosts.values():
            host.close()
        self.hosts.clear()
        self._congestion.clear()
        return troubles

    def set_conditions(self, request: Json) -> Json:
        wanted = links.decide(request["seed"], request["links"], self.hosts)
        answer = self.links.set(wanted, self.hosts)
        self._count_crossings(bool(crossing.switches()))
        self.canary, self.cpu_wait, self.run_goes_on = Canary(), CpuWait(self.hosts), True
        return answer

    def _count_crossings(self, wanted: bool) -> None:
        """Begin anew, or no longer."""
        if self._crossing is not None:
            self._crossing.close()
        self._crossing = crossing.Crossing(self.hosts.values(), self._doors) if wanted else None

    def lookup(self, request: Json) -> Json:
        host = self._host(request["host"])
        path = processes.own_path(host) if request["path"] is None else request["path"]
        return {"found": processes.find_command(host, request["command"], path, request["working_dir"])}

    def sockets(self, request: Json) -> Json:
        return {"sockets": sockets.listening(self._host(request["host"]), request["pid"])}

    def counters(self, request: Json) -> Json:
        return {"hosts": {name: counters.read(self._host(name)) for name in request["hosts"]}}

    def signal(self, request: Json) -> Json:
        host = self._host(request["host"])
        tree = bool(request.get("tree", False))
        return {"sent": processes.send_signal(host, request["pid"], request["signal"], tree)}

    def ended(self, request: Json) -> Json:
        return {"ended": [pid for pid in request["pids"] if processes.has_ended(pid)]}

    def under_way(self, request: Json) -> Json:
        """Of what had come into a link before a moment, by the clock here; none is given: before now.

        And what hosts have not read yet; and not sent, of connections that were closed by that moment: servers may
        open and close others for ever.
        """
        before_ns = request["before_ns"] or time.monotonic_ns()
        answer = {"before_ns": before_ns, **self.links.under_way(before_ns)}
        looked_ns = time.monotonic_ns()
        unread, unsent = 0, dict[tuple[str, str], int]()
        for name, host in self.hosts.items():
            more, by_connection = sockets.queued(host)
            unread += more
            unsent |= {(name, connection): size for connection, size in by_connection.items()}
        self._sending = set(unsent) if request["before_ns"] is None else self._sending.intersection(unsent)
        left, running = sum(unsent[connection] for connection in self._sending), self.cpu_wait.running()
        hosts = {"unread_bytes": unread, "unsent_bytes": left, "running": running}
        return {**answer, **hosts, "ago_s": (time.monotonic_ns() - looked_ns) / 1e9}

    def drain(self, _: Json) -> Json:
        self.run_goes_on = False
        try:
            return {"over": self.links.drain(DRAIN_EVERY_S)}
        except ConditionError:
            return {"over": True}  # and the check says why

    def check(self, _: Json) -> Json:
        self.run_goes_on = False
        late = {"canary_p99_ns": self.canary.late.p99_ns(), "cpu_wait_p99_ns": self.cpu_wait.p99_ns()}
        found = self.links.check()
        gone = [("error", name, host.gone) for name, host in self.hosts.items() if host.gone]
        found["problems"] = [*gone, *found["problems"], *congestion.problems(self._congestion, self.hosts)]
        if self._crossing is not None:
            found["problems"] += self._crossing.problems()
            found["crossings"] = {network: vars(count) for network, count in self._crossing.counts.items()}
        return {**found, **late}

    def ledger(self, request: Json) -> Json:
        piece, following = self.links.ledger(request["offset"])
        return {"data": base64.b64encode(piece).decode(), "next": following}

    def lost(self) -> str:
        """Why the network is not what was asked for any more, in words: a wire or a host has ended; "" if not."""
        gone = [host.gone for host in self.hosts.values()] if ended(self.hosts.values()) else []
        return "; ".join(filter(None, [self.links.lost(), *gone]))

    def _host(self, name: str) -> Host:
        try:
            return self.hosts[name]
        except KeyError:
            known = ", ".join(self.hosts) or "none"
            raise EngineError(f"this agent knows no host {name!r}; it knows {known}") from None

    def undo(self) -> list[str]:
        """Whatever was made is gone afterwards; returns what went wrong on the way, having gone on each time."""
        troubles = self._forget_hosts()
        for bridge in self._doors:
            try:
                filters.open_door(bridge)
            except Exception as problem:  # whatever it is, the next door is seen to as well
                troubles.append(str(problem))
        self._doors.clear()
        return troubles


class Loop:
    """One request at a time, in order. Ends at end of input, at SIGTERM, or after a minute without a word."""

    def __init__(
        self,
        agent: Agent,
        source: int = 0,
        sink: int = 1,
        alive_every_s: float = ALIVE_EVERY_S,
        silence_s: float = SILENCE_S,
    ) -> None:
        self._agent = agent
        self._operations = agent.operations()
        self._source, self._sink = source, sink
        self._alive_every_s, self._silence_s = alive_every_s, silence_s
        self._stop, self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._pieces: list[bytes] = []  # of a line that has not ended yet
        self._spoke = self._heard = self._looked = time.monotonic()
        self._told = ""  # what was said of that: once is enough

    def run(self) -> None:
        """Serve until the end, then undo. The caller's signal handlers are put back."""
        before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGTERM, signal.SIGHUP)}
        # Ctrl-C reaches all of a terminal's processes, also the wire, and what it means is the orchestrator's to
        # decide. A child inherits that a signal is ignored, but no handler.
        before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            self._serve()
        finally:
            for trouble in self._agent.undo():
                print(f"testbed agent: undoing: {trouble}", file=sys.stderr)
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(self._stop)
            os.close(self._wake)

    def _on_signal(self, _number: int, _frame: Any) -> None:
        with suppress(BlockingIOError):
            os.write(self._wake, b"!")

    def _serve(self) -> None:
        while True:
            now = time.monotonic()
            if now - self._heard > self._silence_s:
                return
            if now - self._spoke >= self._alive_every_s and not self._write({"alive": now}):
                return
            if now - self._looked >= LOOK_EVERY_S and not self._look_around(now):
                return
            ready = self._wait()
            if self._stop in ready:
                return
            if self._source in ready:
                piece = os.read(self._source, 1 << 20)
                if not piece:
                    return
                self._heard = time.monotonic()
                self._pieces.append(piece)
                if b"\n" in piece and not self._answer_lines():
                    return

    def _look_around(self, now: float) -> bool:
        """Say unasked what has ended: no run may go on as if it had not. False: nobody reads."""
        self._looked = now
        lost = self._agent.lost()
        if lost == self._told:
            return True
        self._told = lost
        return not lost or self._write({"lost": lost})

    def _wait(self) -> list[int]:
        descriptors = [self._source, self._stop]
        if self._agent.run_goes_on:
            self._agent.cpu_wait.look(time.monotonic_ns())
            return self._agent.canary.wait(descriptors)
        return select.select(descriptors, [], [], min(1.0, self._alive_every_s, self._silence_s))[0]

    def _answer_lines(self) -> bool:
        """False if nobody reads the answers any more, or the end was asked for."""
        *lines, rest = b"".join(self._pieces).split(b"\n")
        self._pieces = [rest]
        for line in lines:
            answer = self._answer(line)
            self._heard = time.monotonic()  # a long request is not a silence
            if answer is not None and not self._write(answer):
                return False
            if select.select([self._stop], [], [], 0)[0]:
                return False
        return True

    def _answer(self, line: bytes) -> Json | None:
        number = None
        try:
            request = json.loads(line)
            number = request.get("id")
            if request["do"] == "alive":
                return None
            operation = self._operations.get(request["do"])
            if operation is None:
                raise EngineError(f"this agent cannot do {request['do']!r}; it can {', '.join(self._operations)}")
            return {"id": number, "ok": operation(request)}
        except TestbedError as problem:
            return _error(number, _kind(problem), str(problem))
        except Exception as problem:  # whatever it is, the other side must hear of it, and the agent must live on
            return _error(number, "engine", f"{line[:200]!r}: {type(problem).__name__}: {problem}")

    def _write(self, message: Json) -> bool:
        """False if nobody reads any more. In pieces that cannot block, so that a reader who hangs is noticed."""
        data = memoryview(json.dumps(message, separators=(",", ":")).encode() + b"\n")
        while data:
            if not select.select([], [self._sink], [], self._silence_s)[1]:
                return False
            try:
                data = data[os.write(self._sink, data[:_PIPE_BUF]) :]
            except OSError:
                return False
        self._spoke = time.monotonic()
        return True


def _kind(problem: TestbedError) -> str:
    if isinstance(problem, ConditionError):
        return "condition"
    return "capability" if isinstance(problem, CapabilityError) else "engine"


def _error(number: Any, kind: str, message: str) -> Json:
    return {"id": number, "error": {"kind": kind, "message": message}}


def _capabilities() -> list[str]:
    """The effective ones of this process, by their names without CAP_."""
    status = Path("/proc/self/status").read_text()
    mask = int(next(line for line in status.splitlines() if line.startswith("CapEff:")).split()[1], 16)
    return [name for number, name in enumerate(linux.CAPABILITIES) if mask >> number & 1]


def _may_have_fifo() -> bool:
    """Whether the wire will get a real-time schedule: tried, because rlimits and namespaces both have a say."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        return False
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    return True


def prepare() -> None:
    """What the process needs before it serves: descriptors for many hosts, and sysctls that may be written."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    namespaces.make_sysctls_writable()
