"""The namespaces engine, as the orchestrator sees it: hosts from bare Linux namespaces, with or without root.

What runs on the other side of the two sockets and the life-line is testbed.engines.lab.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import select
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import testbed
from testbed import limits
from testbed.engines.api import Command, Sink
from testbed.engines.lab import guest
from testbed.engines.pump import LabGone, LabProcess, Pump
from testbed.errors import CapabilityError, CommandNotFound, EngineError, HostError, TestbedError
from testbed.linux import CAPABILITIES
from testbed.plan.images import Image
from testbed.plan.types import Host, Plan

PACKAGES = str(Path(testbed.__file__).parent.parent)
START_S, UP_S, RUN_S, CARRY_S, DOWN_S = (
    30.0,
    300.0,
    60.0,
    300.0,
    10.0,
)  # far beyond what any of it takes on a machine that works
LAB = "import sys; sys.path.insert(0, sys.argv[1]); from testbed.engines.lab.launch import main; main(sys.argv[2])"
AGENT = "import sys; sys.path.insert(0, sys.argv[1]); from testbed.agent.__main__ import main; sys.exit(main())"
KINDS: dict[str, type[TestbedError]] = {
    "host": HostError,
    "capability": CapabilityError,
    "not found": CommandNotFound,
}


class NamespacesEngine:
    """One lab. `agent` is the command that becomes the agent; by default ours, in this interpreter.

    `keep_visible` are directories that the lab must not cover: hosts may be shown what lies below.
    """

    name = "namespaces"

    def __init__(self, agent: Sequence[str] | None = None, keep_visible: Sequence[str] = ()) -> None:
        self.lab = f"lab-{secrets.token_hex(6)}"
        self._agent = tuple(agent or (sys.executable, "-IS", "-c", AGENT, PACKAGES, self.lab))
        self._keep_visible = tuple(keep_visible)
        self._as_root = may_do_without_user_namespace()
        self._launcher: subprocess.Popen[bytes] | None = None
        self._lifeline: int | None = None
        self._channel: _Channel | None = None
        self._pump: Pump | None = None
        self._facts: dict[str, Any] = {}

    def open(self) -> _Channel:
        """Start the lab and the agent in it. Raises HostError where this machine refuses what a lab needs."""
        if self._channel is not None:
            raise EngineError("opening a lab: this engine has opened one already; make a new engine for a new run")
        ip = find_ip()
        try:
            return self._open(ip)
        except BaseException:
            self.down()
            raise

    def _open(self, ip: str) -> _Channel:
        read_end, self._lifeline = os.pipe()
        control, lab_control = socket.socketpair()
        channel, lab_channel = socket.socketpair()
        self._channel = _Channel(channel)
        passed = (read_end, lab_control.fileno(), lab_channel.fileno())
        python = base_interpreter()
        settings = {
            "lab": self.lab,
            "lifeline": read_end,
            "control": lab_control.fileno(),
            "agent_channel": lab_channel.fileno(),
            "agent": self._agent,
            "as_root": self._as_root,
            "keep_visible": (
                sys.executable,
                sys.prefix,
                sys.base_prefix,
                PACKAGES,
                self._agent[0],
                *self._keep_visible,
            ),
            "userland": trees_outside_usr(python),
            "python": python,
            "programs": f"{PACKAGES}/testbed/programs",
            "ip": ip,
        }
        try:
            self._launcher = subprocess.Popen(
                [sys.executable, "-IS", "-c", LAB, PACKAGES, json.dumps(settings)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=passed,
                start_new_session=True,  # Ctrl-C is the orchestrator's: it decides when the lab ends
                env={"PATH": os.environ.get("PATH", os.defpath), "LANG": "C.UTF-8"},
            )
        finally:
            os.close(read_end)
            lab_control.close()
            lab_channel.close()
        assert self._launcher.stderr is not None
        self._pump = Pump(control, self._launcher.stderr)
        try:
            first = self._pump.first_message(START_S)
        except LabGone as problem:
            raise EngineError(f"starting a lab: {problem}") from problem
        if "refused" in first:
            raise KINDS.get(first["refused"]["kind"], EngineError)(first["refused"]["message"])
        self._facts = first["ready"]
        return self._channel

    def taken(self) -> frozenset[str]:
        """Nothing: a lab has a network of its own."""
        return frozenset()

    def up(self, plan: Plan, shut_door: Callable[[list[str]], None]) -> dict[str, int]:
        """Build all hosts and networks. The machine cannot reach the lab's bridges, so no door needs shutting."""
        try:
            for host in plan.hosts:
                _refuse_what_needs_docker(host)
            answer = self._lab_or_raise("building the hosts").ask(up_request(plan), (), UP_S)
            if "error" in answer:
                raise _error(answer, "building the hosts")
            return dict(answer["ok"]["pids"])
        except LabGone as problem:
            self.down()
            raise EngineError(f"building the hosts: {problem}") from problem
        except BaseException:
            self.down()
            raise

    def images(self, plan: Plan) -> dict[str, Image]:
        """None: every host shows the machine's own programs."""
        return {}

    def put(self, host: str, archive: BinaryIO) -> None:
        """Raises EngineError."""
        doing = f"writing files into host {host}"
        status, _, complaint = self._carry(host, {"action": "put"}, archive, doing)
        if status != 0:
            raise EngineError(f"{doing}: {complaint or f'it ended with {status}'}")

    def get(self, host: str, path: str) -> bytes:
        """A file or directory as a tar archive, with sockets left out. Raises OSError for none or too much."""
        doing = f"reading {path} of host {host}"
        status, archive, complaint = self._carry(host, {"action": "get", "path": path}, b"", doing)
        if status == guest.NOT_THERE:
            raise FileNotFoundError(f"{doing}: no such file or directory")
        if status == guest.TOO_LARGE:
            raise limits.too_large()
        if status == guest.TOO_DEEP:
            raise limits.too_deep()
        if status != 0:
            raise EngineError(f"{doing}: {complaint or f'it ended with {status}'}")
        return archive

    def start(self, host: str, command: Command, stdout: Sink, stderr: Sink) -> LabProcess:
        """Run a command in a host. Raises CommandNotFound, CapabilityError for a `user:`, EngineError."""
        request = {
            "action": "exec",
            "argv": list(command.argv),
            "environment": dict(command.environment),
            "working_dir": command.working_dir,
            "user": command.user,
        }
        doing = f"starting {command.argv[0]!r} in host {host}"
        return self._run(host, request, command.stdin, stdout, stderr, doing)

    def entrance(self, host: str) -> str:
        """A shell command that enters the host. Raises EngineError if the host is not there."""
        title = guest.process_title(host, self.lab).encode()
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = path.read_bytes().split(b"\0")
            except OSError:
                continue
            if words[0] == title:
                user = "" if self._as_root else "--user --preserve-credentials "
                return f"nsenter --target {path.parent.name} {user}--mount --net --ipc --uts --pid"
        raise EngineError(f"entering host {host}: the process that holds it is not there")

    def describe(self) -> dict[str, Any]:
        """What the lab is made of."""
        version = subprocess.run([find_ip(), "-V"], capture_output=True, text=True, check=False).stdout
        found = re.search(r"iproute2-([^\s,]+)", version)
        return {
            "lab": self.lab,
            "kernel": os.uname().release,
            "user": "root" if self._as_root else f"uid {os.geteuid()} as 0 of a user namespace",
            "iproute2": found[1] if found else version.strip(),
            "userland": self._facts.get("userland"),
            "limits": limits.as_records(),
            "no_control_groups": self._facts.get("no_groups", ""),
        }

    def down(self) -> None:
        """Cut the life-line and wait until the last process of the lab is gone. Raises EngineError if it stays."""
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None
        try:
            if self._launcher is not None:
                _await_end(self._launcher, DOWN_S)
                self._launcher = None
        except subprocess.TimeoutExpired as problem:
            text = f"ending lab {self.lab}: some of it is still there after {DOWN_S:g} s"
            raise EngineError(f"{text}; `pgrep -af {self.lab}` names it, look for state D") from problem
        finally:
            if self._channel is not None:
                self._channel.close()
            if self._pump is not None:
                self._pump.close()
                self._pump = None

    # what a lab is asked

    def _lab_or_raise(self, doing: str) -> Pump:
        if self._pump is None:
            raise EngineError(f"{doing}: there is no lab (any more)")
        return self._pump

    def _run(
        self, host: str, request: dict[str, Any], stdin: bytes | BinaryIO, stdout: Sink, stderr: Sink, doing: str
    ) -> LabProcess:
        try:
            started = self._lab_or_raise(doing).start(request | {"host": host}, stdin, stdout, stderr, RUN_S)
        except LabGone as problem:
            raise EngineError(f"{doing}: {problem}") from problem
        if isinstance(started, LabProcess):
            return started
        raise _error(started, doing)

    def _carry(
        self, host: str, request: dict[str, Any], stdin: bytes | BinaryIO, doing: str
    ) -> tuple[int | str | None, bytes, str]:
        """Run one of our own helpers in a host: its exit, output and complaint."""
        output, complaint = bytearray(), bytearray()
        process = self._run(host, request, stdin, output.extend, complaint.extend, doing)
        if not process.wait(CARRY_S):
            raise EngineError(f"{doing}: not done after {CARRY_S:g} s")
        return process.exit, bytes(output), complaint.decode(errors="replace")


class _Channel:
    """The agent's standard input and output, one socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._lines = sock.makefile("rb")
        self._writing = threading.Lock()

    def write(self, line: bytes) -> None:
        try:
            with self._writing:
                self._socket.sendall(line)
        except OSError as problem:
            raise EngineError(f"writing to the agent: {problem.strerror}: it has ended") from problem

    def readline(self) -> bytes:
        try:
            return self._lines.readline()
        except (OSError, ValueError):  # reset by its death; closed by us
            return b""

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes a thread that reads
        self._lines.close()
        self._socket.close()


def _await_end(process: subprocess.Popen[bytes], timeout_s: float) -> None:
    """At the moment when it ends: `wait` with a timeout looks every 50 ms. Raises subprocess.TimeoutExpired."""
    if process.poll() is None:
        descriptor = os.pidfd_open(process.pid)
        try:
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            poll.poll(timeout_s * 1000)
        finally:
            os.close(descriptor)
    process.wait(0)


def up_request(plan: Plan) -> dict[str, Any]:
    """What the builder needs to know of a plan."""
    hosts = [
        {
            "name": host.name,
            "hosts_file": host.hosts_file(),
            "capabilities": host.capabilities,
            "volumes": host.volumes,
            "mounts": [(mount.source, mount.path) for mount in host.mounts],
            "interfaces": [
                {"name": i.name, "network": i.network, "ip": i.ip, "prefix_bits": i.prefix_bits, "mac": i.mac}
                for i in host.interfaces
            ],
        }
        for host in plan.hosts
    ]
    return {
        "do": "up",
        "networks": [network.name for network in plan.networks],
        "volumes": plan.volumes,
        "hosts": hosts,
    }


def may_do_without_user_namespace() -> bool:
    """Whether this process is root with what a lab takes; root of a container often is not."""
    status = Path("/proc/self/status").read_text()
    effective = int(status.split("CapEff:")[1].split()[0], 16)
    needed = ("SYS_ADMIN", "NET_ADMIN", "SETPCAP", "SETUID", "SETGID", "SYS_CHROOT", "SYS_PTRACE")
    return os.geteuid() == 0 and all(effective >> CAPABILITIES.index(name) & 1 for name in needed)


def find_ip() -> str:
    """The path of the command `ip`. Raises HostError."""
    path = shutil.which("ip", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if path is None:
        raise HostError("looking for the command `ip`: it is not there; install the package iproute2")
    return path


def base_interpreter() -> str:
    """The interpreter behind a virtual environment, so that hosts need not see the environment."""
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


def trees_outside_usr(python: str) -> tuple[str, ...]:
    """What hosts must see to run `python`, besides the machine's /usr."""
    needed = [os.path.realpath(sys.base_prefix), os.path.realpath(sys.base_exec_prefix), str(Path(python).parent)]
    trees: list[str] = []
    for path in sorted(set(needed)):  # a directory comes before what lies in it
        if not any(Path(path).is_relative_to(tree) for tree in ("/usr", "/bin", "/sbin", *trees)):
            trees.append(path)
    return tuple(trees)


def _refuse_what_needs_docker(host: Host) -> None:
    if host.image or host.build:
        key = "image" if host.image else "build"
        raise CapabilityError(
            f"host {host.name} has `{key}: {host.image or host.build}`: this engine shows the machine's own "
            "programs; use --engine docker"
        )


def _error(answer: dict[str, Any], doing: str) -> TestbedError:
    problem = answer["error"]
    return KINDS.get(problem["kind"], EngineError)(f"{doing}: {problem['message']}")
