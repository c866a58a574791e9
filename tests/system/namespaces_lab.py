"""What the checks of the namespaces engine share: small plans, a lab for the time of a check, programs in it.

Like the checks themselves it needs the standard library alone: they are run as an ordinary user too, who may not
be able to read the interpreter that runs the tests.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from testbed import groups
from testbed.engines import namespaces
from testbed.engines.api import Command
from testbed.engines.namespaces import NamespacesEngine, base_interpreter
from testbed.plan.types import Ends, Host, Interface, Network, Plan

PYTHON = base_interpreter()
# The real agent is not under test here: this one says what it sees of a process id.
AGENT = """
import os, sys
for line in sys.stdin:
    with open(f"/proc/{int(line)}/cmdline") as file:
        print(repr(file.read().rstrip("\\0").split("\\0")), flush=True)
"""
ENVIRONMENT = {
    "PATH": "/opt/testbed/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}
TALK = """
import socket, sys
verb, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
if verb == "serve":
    with socket.create_server((host, port)) as server:
        print("READY", flush=True)
        while True:
            peer = server.accept()[0]
            peer.sendall(b"served " + peer.recv(99))
            peer.close()
with socket.create_connection((host, port), timeout=float(sys.argv[4])) as peer:
    peer.sendall(b"hello")
    print(peer.recv(99).decode())
"""


def a_plan(
    networks: dict[str, list[str]],
    capabilities: tuple[str, ...] = (),
    volumes: dict[str, tuple[tuple[str, str], ...]] | None = None,
    bits: int = 24,
) -> Plan:
    """Hosts by network; the n-th host of the k-th network is 198.18.k.(n + 2)."""
    interfaces: dict[str, list[Interface]] = {}
    for k, (network, hosts) in enumerate(networks.items()):
        for n, host in enumerate(hosts):
            mine = interfaces.setdefault(host, [])
            mine.append(
                Interface(
                    f"eth{len(mine)}", network, f"198.18.{k}.{n + 2}", bits, f"02:42:c6:12:{k:02x}:{n + 2:02x}"
                )
            )
    names = (("127.0.0.1", ("localhost",)), *((i.ip, (host,)) for host, mine in interfaces.items() for i in mine))
    mounts = volumes or {}
    return Plan(
        scenario="checks", about="", file="", tags=(), seed=1, timeout_ns=10**9, duration_ns=None, requires=(),
        networks=tuple(Network(name, f"198.18.{k}.0/24", f"198.18.{k}.1") for k, name in enumerate(networks)),
        hosts=tuple(
            Host(
                name=host, group=None, index=1, image=None, build=None, interfaces=tuple(mine), names=names,
                routes=(), neighbours=(), sysctls={}, capabilities=capabilities,
                volumes=mounts.get(host, ()), programs=(),
            )
            for host, mine in interfaces.items()
        ),
        groups={}, volumes=tuple(sorted({v for mine in mounts.values() for v, _ in mine})), programs=(), links=(),
        expectations=(), ends=Ends(), fails_when=(),
    )  # fmt: skip


ONE = {"lan": ["alice"]}
TWO = {"lan": ["alice", "bob"]}


def new_engine() -> NamespacesEngine:
    return NamespacesEngine(agent=[sys.executable, "-IS", "-c", AGENT])


@contextmanager
def lab(plan: Plan) -> Iterator[NamespacesEngine]:
    engine = new_engine()
    engine.open()
    try:
        engine.up(plan, lambda bridges: None)
        yield engine
    finally:
        engine.down()
        assert processes_of(engine.lab) == []
        assert groups_of(engine.lab) == []


def groups_of(lab: str) -> list[str]:
    """The control groups of a lab, where this user can have any."""
    found: list[str] = []
    with suppress(groups.NoGroups):
        for parent, *_ in groups.parents():
            place = Path(parent, f"{groups.OF_LAB}{lab.removeprefix('lab-')}")
            with suppress(FileNotFoundError):  # it may go at any moment
                inside = [path for path in place.iterdir() if path.name.startswith("host-")]
                found += map(str, (place, *inside))
    return found


def processes_of(word: str) -> list[str]:
    """Every process of the machine with this word in its command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            line = path.read_bytes().decode(errors="replace").replace("\0", " ")
            if word in line:
                state = path.with_name("stat").read_text().rpartition(")")[2].split()[0]
                waits = path.with_name("wchan").read_text()
                found.append(f"{path.parent.name}: {line} ({state}, in {waits})")
    return found


class Run:
    """A program that was started in a host, with its output so far."""

    def __init__(self, engine: NamespacesEngine, host: str, *argv: str, **more: object) -> None:
        self.stdout, self.stderr = bytearray(), bytearray()
        command = Command(argv, **({"environment": ENVIRONMENT} | more))  # type: ignore[arg-type]
        self.process = engine.start(host, command, self.stdout.extend, self.stderr.extend)

    def end(self, within_s: float = 20.0) -> Run:
        assert self.process.wait(within_s), f"still running after {within_s} s: {self.stdout!r} {self.stderr!r}"
        return self

    def await_output(self, text: bytes, within_s: float = 10.0) -> Run:
        deadline = time.monotonic() + within_s
        while text not in self.stdout:
            assert time.monotonic() < deadline, f"{text!r} never came: {self.stdout!r} {self.stderr!r}"
            time.sleep(0.005)
        return self

    @property
    def exit(self) -> int | str | None:
        return self.process.exit

    @property
    def text(self) -> str:
        return self.stdout.decode().strip()


def run(engine: NamespacesEngine, host: str, *argv: str, **more: object) -> Run:
    return Run(engine, host, *argv, **more).end()


def output(engine: NamespacesEngine, host: str, script: str) -> str:
    """What a shell command prints; it must succeed."""
    done = run(engine, host, "sh", "-c", script)
    assert done.exit == 0, (script, done.exit, done.stderr)
    return done.text


def python(engine: NamespacesEngine, host: str, script: str, *words: str) -> Run:
    return run(engine, host, PYTHON, "-IS", "-c", script, *words)


def ask(engine: NamespacesEngine, host: str, target: str, port: int, timeout_s: float = 5.0) -> str:
    """What a server says, or the kind of error."""
    done = python(engine, host, TALK, "ask", target, str(port), str(timeout_s))
    return done.text if done.exit == 0 else done.stderr.decode().strip().splitlines()[-1].split(":")[0]


def serve(engine: NamespacesEngine, host: str, port: int) -> None:
    Run(engine, host, PYTHON, "-IS", "-c", TALK, "serve", "0.0.0.0", str(port)).await_output(b"READY")


def raises(kind: type[BaseException], *fragments: str) -> ExitStack:
    """A context that must end with this error, with these words in its message."""
    stack = ExitStack()

    def check(found: type[BaseException] | None, problem: BaseException | None, _: object) -> bool:
        assert found is kind, f"{problem!r} and not {kind.__name__}"
        missing = [fragment for fragment in fragments if fragment not in str(problem)]
        assert not missing, f"{missing} not in {problem}"
        return True

    stack.push(check)
    return stack


@contextmanager
def patched(name: str, value: object) -> Iterator[None]:
    before = getattr(namespaces, name)
    setattr(namespaces, name, value)
    try:
        yield
    finally:
        setattr(namespaces, name, before)


def checks_in(module: dict[str, object]) -> list[str]:
    """The names of a module's own checks: its functions that take nothing and return nothing."""
    mine = {
        name: thing for name, thing in module.items() if getattr(thing, "__module__", "") == module["__name__"]
    }
    return [name for name, thing in mine.items() if getattr(thing, "__annotations__", 0) == {"return": "None"}]
