"""A lab for tests of the agent: hosts with namespaces of their own on bridges, and an agent in their midst.

Everything lives in one pid namespace that ends with the agent's input, so nothing is left of it.
"""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import testbed
from testbed.agent.client import AgentClient
from testbed.conditions.condition import Condition
from testbed.plan import types
from tests.conftest import missing

NOBODY = 65534

# Runs as pid 1 of the lab. Builds what an engine would, says which process is which host, and runs the agent.
BUILDER = """
import json, os, subprocess, sys, time
sys.path.insert(0, sys.argv[1])
from testbed import linux
spec = json.loads(sys.argv[2])
def ip(*lines):
    subprocess.run(["ip", "-batch", "-"], input="".join(l + "\\n" for l in lines), text=True, check=True)
def host():
    reader, writer = os.pipe()
    if os.fork() == 0:
        linux.unshare(linux.CLONE_NEWNET | linux.CLONE_NEWNS | linux.CLONE_NEWPID | linux.CLONE_NEWUTS)
        linux.mount(None, "/", None, linux.MS_REC | linux.MS_PRIVATE)
        pid = os.fork()
        if pid == 0:
            os.close(0), os.close(1)
            linux.mount("proc", "/proc", "proc")
            os.execvp("sleep", ["sleep", "infinity"])
        os.write(writer, str(pid).encode())
        os._exit(0)
    os.wait()
    return int(os.read(reader, 20))
ip("link set lo up", *[f"link add {b} type bridge mcast_snooping 0" for b in spec["bridges"]],
   *[f"link set {b} up" for b in spec["bridges"]])
pids = {}
for name, nics in spec["hosts"].items():
    pid = pids[name] = host()
    for n, nic in enumerate(nics):
        port = f"{name}.{n}"
        ip(f"link add {port} type veth peer name {nic['dev']} netns {pid}",
           f"link set {port} master {nic['bridge']} up")
        subprocess.run(["nsenter", "-t", str(pid), "-n", "ip", "-batch", "-"], text=True, check=True,
                       input=f"addr add {nic['address']} dev {nic['dev']}\\n"
                             + (f"link set {nic['dev']} up\\n" if nic["up"] else ""))
print(json.dumps(pids), flush=True)
agent = subprocess.Popen([sys.executable, "-IS", "-c", spec["agent"], sys.argv[1]])
print(json.dumps(agent.pid), file=sys.stderr, flush=True)
print("exit", agent.wait(), file=sys.stderr, flush=True)
time.sleep(60)
"""

AGENT = """
import sys
sys.path.insert(0, sys.argv[1])
from testbed.agent.__main__ import main
sys.exit(main())
"""

# An agent whose wire is a program of the test's own.
AGENT_WITH_WIRE = """
import sys
sys.path.insert(0, sys.argv[1])
from testbed.agent import links, loop
from testbed.agent.link_process import WireProcess
loop.prepare()
loop.Loop(loop.Agent(links.Links(lambda: WireProcess({wire!r})))).run()
"""


def unavailable(who: str) -> str:
    """Why a lab of this kind cannot be had here; "" if it can."""
    if who == "root":
        return "" if os.geteuid() == 0 else "needs root"
    done = subprocess.run([*_as_user(), "unshare", "-Urnpf", "true"], capture_output=True, text=True, check=False)
    if done.returncode:
        return f"no unprivileged user namespaces here: {done.stderr.strip()}"
    return "" if _python("user") else "no Python 3.11 here that an ordinary user may run"


def _as_user() -> list[str]:
    if os.geteuid() != 0:
        return []
    return ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups", "--"]


def _python(who: str) -> str:
    candidates = (
        [sys.executable] if who == "root" or os.geteuid() != 0 else ["/usr/bin/python3", "/usr/local/bin/python3"]
    )
    test = "import sys; sys.exit(sys.version_info < (3, 11))"
    for python in candidates:
        command = [*(_as_user() if who == "user" else []), python, "-IS", "-c", test]
        if Path(python).exists() and subprocess.run(command, capture_output=True, check=False).returncode == 0:
            return python
    return ""


@dataclass
class Lab:
    outer: int  # the lab's pid 1, as we see it
    pids: dict[str, int]  # hosts, as the agent sees them
    agent: int  # as it sees itself
    process: subprocess.Popen[bytes]
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    # a Channel

    def write(self, line: bytes) -> None:
        assert self.process.stdin
        self.process.stdin.write(line)
        self.process.stdin.flush()

    def readline(self) -> bytes:
        assert self.process.stdout
        return self.process.stdout.readline()

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()

    # what tests do in it

    def argv(self, host: str | None, *argv: str) -> list[str]:
        step = ["nsenter", "-t", str(self.outer), "-U", "-m", "-n", "-p", "--"]
        if (
            not self.pids
            or Path("/proc/self/ns/user").stat().st_ino == Path(f"/proc/{self.outer}/ns/user").stat().st_ino
        ):
            step.remove("-U")
        elif os.geteuid() != 0:
            step.insert(1, "--preserve-credentials")  # its owner has them all in there already
        if host is not None:
            step += ["nsenter", "-t", str(self.pids[host]), "-m", "-n", "-p", "--"]
        return [*step, *argv]

    def run(self, host: str | None, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """In a host, or beside the agent (None)."""
        done = subprocess.run(self.argv(host, *argv), capture_output=True, text=True, check=False, timeout=60)
        if check and done.returncode:
            raise AssertionError(f"{argv} in {host}: {done.returncode}: {done.stdout}{done.stderr}")
        return done

    def ip(self, host: str | None, *argv: str) -> Any:
        return json.loads(self.run(host, "ip", "-j", *argv).stdout or "[]")

    def start(self, host: str, *argv: str) -> tuple[subprocess.Popen[bytes], int]:
        """A program in a host, and its process id as the agent sees it."""
        started = subprocess.Popen(self.argv(host, *argv), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.running.append(started)
        return started, _number_in_lab(started.pid, 2)

    def end_agent(self) -> tuple[int, str]:
        """After its input was closed: its exit status, and what it complained of."""
        assert self.process.stderr
        said = ""
        while line := self.process.stderr.readline().decode():
            if line.startswith("exit "):
                return int(line.split()[1]), said
            said += line
        raise AssertionError(f"the lab ended: {said}")


def _number_in_lab(pid: int, steps: int) -> int:
    """The process id, in the lab, of the descendant that `nsenter` forked `steps` times for."""
    deadline = time.monotonic() + 10
    for _ in range(steps):
        while not (children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
            if time.monotonic() > deadline:
                raise AssertionError("nsenter started nothing")
        pid = int(children[0])
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[2])


@contextmanager
def lab(who: str, plan: types.Plan, agent: str = AGENT, shape: dict[str, Any] | None = None) -> Iterator[Lab]:
    """Build the plan's hosts and start an agent. `shape` says otherwise for some: host -> its interfaces."""
    spec = {
        "bridges": [f"br-{network.name}" for network in plan.networks],
        "hosts": {
            host.name: [
                {
                    "dev": nic.name,
                    "bridge": f"br-{nic.network}",
                    "address": f"{nic.ip}/{nic.prefix_bits}",
                    "up": True,
                }
                for nic in host.interfaces
            ]
            for host in plan.hosts
        }
        | (shape or {}),
        "agent": agent,
    }
    with tempfile.TemporaryDirectory() as home:
        Path(home).chmod(0o755)
        shutil.copytree(
            Path(testbed.__file__).parent, Path(home, "testbed"), ignore=shutil.ignore_patterns("__pycache__")
        )
        argv = [*(_as_user() if who == "user" else []), "unshare", *(["-Ur"] if who == "user" else []), "-mnpf"]
        argv += ["--mount-proc", "--kill-child", _python(who), "-ISB", "-c", BUILDER, home, json.dumps(spec)]
        process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdin and process.stdout and process.stderr
        running: list[subprocess.Popen[bytes]] = []
        outer, whole = 0, -1
        try:
            first = process.stdout.readline()
            if not first:
                raise AssertionError(f"the lab did not come up: {process.stderr.read().decode()}")
            number = int(process.stderr.readline())
            outer = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])
            whole = os.pidfd_open(outer)
            yield Lab(outer, json.loads(first), number, process, running)
        finally:
            process.kill()
            process.wait()
            if whole >= 0:
                _wait_for_the_end(outer, whole)
            for program in running:
                program.wait()
                for pipe in (program.stdin, program.stdout):
                    if pipe:
                        pipe.close()
            for end in (process.stdout, process.stderr):
                end.close()
            with suppress(OSError):
                process.stdin.close()


def _wait_for_the_end(outer: int, whole: int) -> None:
    """The first process of a pid namespace ends after all others in it; as an orphan it may have become ours."""
    assert select.select([whole], [], [], 30)[0], "the lab did not end"
    os.close(whole)
    with suppress(ChildProcessError):
        os.waitpid(outer, os.WNOHANG)


SYSCTLS = {
    "net.ipv4.ip_unprivileged_port_start": "1024",
    "net.ipv4.ping_group_range": "1 0",
    "net.ipv4.ip_local_port_range": "32768 60999",
    "net.ipv4.tcp_no_metrics_save": "1",
    "net.ipv6.conf.all.disable_ipv6": "1",
}


def make_plan(
    members: dict[str, Sequence[str]], links: dict[str, Condition] | None = None, seed: int = 1
) -> types.Plan:
    """`members`: network -> hosts. Addresses are 198.18.<network>.<host>, links as `a->b over net`."""
    networks = list(members)
    names = list(dict.fromkeys(name for hosts in members.values() for name in hosts))
    nics: dict[str, list[types.Interface]] = {name: [] for name in names}
    for number, network in enumerate(networks):
        for name in members[network]:
            last = names.index(name) + 2
            nics[name].append(
                types.Interface(
                    f"eth{len(nics[name])}",
                    network,
                    f"198.18.{number}.{last}",
                    24,
                    f"02:42:c6:12:{number:02x}:{last:02x}",
                )
            )
    hosts = tuple(_host(name, nics) for name in names)
    made = tuple(
        types.Link(link, link.split("->")[0], *link.split("->")[1].split(" over "), condition, link, 1)
        for link, condition in (links or {}).items()
    )
    return types.Plan(
        scenario="test", about="", file="test.yaml", tags=(), seed=seed, timeout_ns=10**10, duration_ns=None,
        requires=(), networks=tuple(
            types.Network(n, f"198.18.{i}.0/24", f"198.18.{i}.1") for i, n in enumerate(networks)
        ),
        hosts=hosts, groups={}, volumes=(), programs=(), links=made, expectations=(), ends=types.Ends(),
        fails_when=(),
    )  # fmt: skip


def _host(name: str, nics: dict[str, list[types.Interface]]) -> types.Host:
    mine = nics[name]
    neighbours = tuple(
        types.Neighbour(other.ip, other.mac, nic.name)
        for nic in mine
        for host, others in nics.items()
        for other in others
        if host != name and other.network == nic.network
    )
    first = mine[0].name
    return types.Host(
        name=name, group=None, index=1, image=None, build=None, interfaces=tuple(mine), names=(),
        routes=(types.Route("224.0.0.0/4", first), types.Route("255.255.255.255/32", first)),
        neighbours=neighbours, sysctls=dict(SYSCTLS), capabilities=(), volumes=(), programs=(),
    )  # fmt: skip


@contextmanager
def client(of: Lab) -> Iterator[AgentClient]:
    made = AgentClient(of)
    try:
        yield made
    finally:
        with suppress(OSError):
            made.close()


Build = Callable[..., AbstractContextManager[Lab]]


def builder(who: str) -> Build:
    """Makes a lab of a plan, for "root" or for a "user"; skips where there can be none."""
    if reason := unavailable(who):
        missing("root" if who == "root" else "user namespaces", reason)
    return lambda *arguments, **options: lab(who, *arguments, **options)


def ip_of(plan: types.Plan, host: str, network: str | None = None) -> str:
    return next(nic.ip for nic in plan.host(host).interfaces if network in (None, nic.network))


def ping(where: Lab, source: str, ip: str, count: int = 3) -> list[float]:
    """Round trips in ms of those that were answered."""
    said = where.run(source, "ping", "-n", "-c", str(count), "-i", "0.05", "-W", "1", ip, check=False).stdout
    return [float(found) for found in re.findall(r"time=([\d.]+) ms", said)]


def python(where: Lab, host: str, code: str) -> str:
    return where.run(host, "python3", "-c", code).stdout


def wait_for(what: Callable[[], Any]) -> Any:
    """What it returns as soon as that is something."""
    deadline = time.monotonic() + 10
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not happen within 10 s"
    return found
