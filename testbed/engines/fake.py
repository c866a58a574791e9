"""An engine without a kernel: hosts, programs and agent are simulated in this process, for tests of the runner.

It keeps the same contract as the real ones (tests/contract), so that what the runner's tests show is worth
something. Its hosts know one command, `do`, with the verbs of the contract suite; see `_Verbs`.
"""

from __future__ import annotations

import base64
import io
import json
import queue
import signal as signals
import tarfile
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from testbed.conditions.fate import FATE_VERSION
from testbed.engines.api import AddressTaken, Command, Sink
from testbed.errors import CommandNotFound, EngineError
from testbed.limits import BY_GROUPS
from testbed.plan.images import Image
from testbed.plan.types import Plan

ALL_LABS: list[FakeEngine] = []  # every engine that is up now: "nothing is left" can be asked


@dataclass
class FakeProcess:
    pid: int
    host: str
    started_ns: int
    tcp_port: int | None = None
    exit: int | str | None = None
    ended_ns: int | None = None
    term: threading.Event = field(default_factory=threading.Event)
    killed: threading.Event = field(default_factory=threading.Event)
    done: threading.Event = field(default_factory=threading.Event)

    def wait(self, timeout_s: float) -> bool:
        return self.done.wait(timeout_s)

    def end(self, exit: int | str) -> None:
        if not self.done.is_set():
            self.exit, self.ended_ns, self.tcp_port = exit, time.monotonic_ns(), None
            self.done.set()


class FakeEngine:
    """`breaks` names a step that shall fail ("open", "up", "conditions", "check", "down"), with its text."""

    name = "fake"

    def __init__(self, breaks: dict[str, str] | None = None, taken: Iterable[str] = ()) -> None:
        self.breaks, self._clash = breaks or {}, set(taken)
        self.lacks: dict[str, str] = {}  # what its machine lacks, and how that is said
        self.plan: Plan | None = None
        self.files: dict[str, dict[str, bytes]] = {}
        self.processes: dict[int, FakeProcess] = {}
        self.requests: list[str] = []  # what the agent was asked, in order
        self.channel_closed = False

    def open(self) -> _FakeChannel:
        self.fail_if("open")
        ALL_LABS.append(self)
        return _FakeChannel(self)

    def taken(self) -> frozenset[str]:
        return frozenset()

    def up(self, plan: Plan, shut_door: Callable[[list[str]], None]) -> dict[str, int]:
        for network in plan.networks:
            for subnet in (network.subnet, network.subnet6):
                if subnet in self._clash:
                    raise AddressTaken(subnet)
        self.fail_if("up")
        self.plan = plan
        self.files = {host.name: {} for host in plan.hosts}
        return {host.name: number for number, host in enumerate(plan.hosts, 1)}

    def images(self, plan: Plan) -> dict[str, Image]:
        """All have one image, which serves on port 80."""
        own = Image("fake", ("do", "serve", "80"), "/srv", "/bin", "SIGINT")
        return {host.name: own for host in plan.hosts if host.image or host.build}

    def put(self, host: str, archive: BinaryIO) -> None:
        with tarfile.open(fileobj=archive) as tar:
            for member in tar:
                if (content := tar.extractfile(member)) is not None:
                    self.files[host][f"/{member.name}"] = content.read()

    def get(self, host: str, path: str) -> bytes:
        if path not in self.files[host]:
            raise FileNotFoundError(path)
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            member = tarfile.TarInfo(path.rsplit("/", 1)[-1])
            member.size = len(self.files[host][path])
            tar.addfile(member, io.BytesIO(self.files[host][path]))
        return out.getvalue()

    def start(self, host: str, command: Command, stdout: Sink, stderr: Sink) -> FakeProcess:
        if command.argv[0] != "do":
            raise CommandNotFound(f"no command {command.argv[0]!r} in host {host}")
        process = FakeProcess(1000 + len(self.processes), host, time.monotonic_ns())
        self.processes[process.pid] = process
        verbs = _Verbs(self, process, command, stdout, stderr)
        threading.Thread(target=verbs.run, name=f"fake {host} {process.pid}", daemon=True).start()
        return process

    def entrance(self, host: str) -> str:
        return f"(a fake host cannot be entered: {host})"

    def describe(self) -> dict[str, Any]:
        return {"kind": "simulated in the test's own process"}

    def down(self) -> None:
        for process in self.processes.values():
            process.killed.set()
            process.wait(5)
        if self in ALL_LABS:
            ALL_LABS.remove(self)
        self.plan = None
        self.fail_if("down")

    def fail_if(self, step: str) -> None:
        if step in self.breaks:
            raise EngineError(self.breaks[step])

    def reach(self, source: str, target: str) -> str | None:
        """The host that `target` (name or address) means, if both are on one network."""
        if self.plan is None:
            return None
        for host in self.plan.hosts:
            mine = {i.network for i in self.plan.host(source).interfaces}
            if any(i.network in mine and target in (host.name, i.ip, i.ip6) for i in host.interfaces):
                return host.name
        return None

    def listening(self, host: str, port: int) -> bool:
        return any(p.host == host and p.tcp_port == port for p in self.processes.values())


class _Verbs:
    """What `do VERB ...` does, here as in the script that the contract suite puts into real hosts."""

    def __init__(self, engine: FakeEngine, process: FakeProcess, command: Command, out: Sink, err: Sink) -> None:
        self.engine, self.process, self.command, self.out, self.err = engine, process, command, out, err

    def run(self) -> None:
        verb, *words = self.command.argv[1:]
        try:
            self.process.end(getattr(self, f"do_{verb}")(*words))
        except Exception as problem:
            self.err(f"{problem!r}\n".encode())
            self.process.end(1)

    def say(self, text: str) -> int:
        self.out(text.encode() + b"\n")
        return 0

    def pause(self, seconds: float, stubborn: bool = False) -> int | str:
        """0 after the time, or the signal's name; SIGTERM does nothing to the stubborn."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self.process.killed.wait(0.002):
                return "SIGKILL"
            if self.process.term.is_set() and not stubborn:
                return "SIGTERM"
        return 0

    def do_exit(self, status: str) -> int:
        return int(status)

    def do_print(self, *words: str) -> int:
        return self.say(" ".join(words))

    def do_complain(self, *words: str) -> int:
        self.err((" ".join(words) + "\n").encode())
        return 0

    def do_cat(self) -> int:
        self.out(self.command.stdin)
        return 0

    def do_env(self, name: str) -> int:
        return self.say(self.command.environment.get(name, "(unset)"))

    def do_where(self) -> int:
        return self.say(self.command.working_dir)

    def do_sleep(self, seconds: str) -> int | str:
        return self.pause(float(seconds))

    def do_stubborn(self, seconds: str) -> int | str:
        return self.pause(float(seconds), stubborn=True)

    def do_write(self, path: str, text: str) -> int:
        self.engine.files[self.process.host][path] = text.encode()
        return 0

    def do_read(self, path: str) -> int:
        return self.say(self.engine.files[self.process.host][path].decode())

    def do_serve(self, port: str, bind: str = "0.0.0.0") -> int | str:
        self.process.tcp_port = int(port)
        exit = self.pause(3600)
        return 0 if exit == "SIGTERM" else exit

    def do_resolve(self, host: str) -> int:
        assert self.engine.plan is not None
        names = self.engine.plan.host(self.process.host).names
        return self.say(" ".join(address for address, known in names if host in known))

    def do_ask(self, host: str, port: str) -> int:
        target = self.engine.reach(self.process.host, host)
        if target is None:
            return 3
        return self.say(target) if self.engine.listening(target, int(port)) else 4


class _FakeChannel:
    """The agent, as far as an engine without packets has one: it answers in its protocol."""

    def __init__(self, engine: FakeEngine) -> None:
        self._engine = engine
        self._answers: queue.Queue[bytes] = queue.Queue()

    def write(self, line: bytes) -> None:
        request = json.loads(line)
        if request.get("do") == "alive":
            return
        self._engine.requests.append(request["do"])
        answer: dict[str, Any] = {"id": request["id"]}
        try:
            self._engine.fail_if(request["do"])
            answer["ok"] = getattr(self, f"_{request['do']}")(request)
        except EngineError as problem:
            answer["error"] = {"kind": "condition", "message": str(problem)}
        self._answers.put(json.dumps(answer).encode() + b"\n")

    def readline(self) -> bytes:
        return self._answers.get()

    def close(self) -> None:
        self._engine.channel_closed = True
        self._answers.put(b"")

    def _hello(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"version": "fake", "fate": FATE_VERSION}

    def _lacking(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"lacking": {word: why for word, why in self._engine.lacks.items() if word in request["words"]}}

    def _wires(self, _: dict[str, Any]) -> dict[str, Any]:
        return {}

    def _hosts(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"hosts": {host["name"]: {"limits": dict(BY_GROUPS)} for host in request["hosts"]}}

    def _conditions(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"links": {link["id"]: link["condition"] for link in request["links"]}, "hosts": {}}

    def _lookup(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"found": "/bin/do" if request["command"] == "do" else None}

    def _sockets(self, request: dict[str, Any]) -> dict[str, Any]:
        port = self._engine.processes[request["pid"]].tcp_port
        return {"sockets": [] if port is None else [{"proto": "tcp", "ip": "0.0.0.0", "port": port, "path": ""}]}

    def _counters(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"hosts": {host: {"TcpRetransSegs": 0} for host in request["hosts"]}}

    def _signal(self, request: dict[str, Any]) -> dict[str, Any]:
        process = self._engine.processes[request["pid"]]
        number = signals.Signals[f"SIG{request['signal'].removeprefix('SIG')}"]
        (process.killed if number == signals.SIGKILL else process.term).set()
        return {"sent": [process.pid]}

    def _ended(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"ended": [pid for pid in request["pids"] if self._engine.processes[pid].done.is_set()]}

    def _under_way(self, request: dict[str, Any]) -> dict[str, Any]:
        before_ns = request["before_ns"] or time.monotonic_ns()
        links = {"frames": 0, "due_in_s": 0.0, "left_in_s": 0.0, "stay_s": 0.0}
        hosts = {"unread_bytes": 0, "unsent_bytes": 0, "running": False, "ago_s": 0.0}
        return {"before_ns": before_ns, **links, **hosts}

    def _drain(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"over": True}

    def _check(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"problems": [], "hosts": {}, "links": {}, "ring": {}, "canary_p99_ns": 0, "cpu_wait_p99_ns": {}}

    def _ledger(self, _: dict[str, Any]) -> dict[str, Any]:
        from testbed.measure.ledger import Writer

        return {"data": base64.b64encode(Writer().finish()).decode(), "next": None}
