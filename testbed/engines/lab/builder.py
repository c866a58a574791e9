"""The builder of a lab: makes hosts and networks, starts programs in them, and tells of their end.

One thread and one loop. Requests come from the orchestrator over a UNIX socket, see `messages`:
  up   {networks, volumes, hosts}                -> {pids: {host: pid}}
  run  {host, action, ...}, stdin, stdout, stderr -> {pid, started_ns}, later {"exited": id, "code", "ended_ns"}
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import selectors
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, NoReturn

from testbed import groups, limits, linux
from testbed.engines.holder import MACHINES, holder_elf
from testbed.engines.lab import guest, messages, rootfs

EACH_HOST_RUNS = 16  # processes, beside those of the one host that runs away
AT_ONCE = 4  # hosts in the making: more would not be faster, and each is a copy of this process for a while
SIOCSIFADDR, SIOCSIFNETMASK, SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8916, 0x891C, 0x8913, 0x8914, 1


@dataclass(frozen=True)
class Host:
    pid: int
    descriptor: int  # a pidfd: names the process even if it is gone and its number was given away
    capabilities: tuple[str, ...]


class Builder:
    """`ip` is the path of that command; with `as_root` false, the lab has one uid only."""

    def __init__(
        self,
        control: socket.socket,
        userland: rootfs.Userland,
        lab: str,
        ip: str,
        as_root: bool,
        hosts_groups: groups.LabGroups,
    ) -> None:
        self._control, self._userland, self._lab, self._ip, self._as_root = control, userland, lab, ip, as_root
        self._groups = hosts_groups
        self._reader = messages.Reader(control)
        self._selector = selectors.DefaultSelector()
        self._hosts: dict[str, Host] = {}
        self._grouping = 0  # the process that puts those who hold hosts into groups, until it was waited for
        self._self = os.pidfd_open(os.getpid())
        self._network = os.open("/proc/self/ns/net", os.O_RDONLY)
        self._holder = self._write_holder()
        _quiet_network()
        # A process in a host has the uid of ours, forked, for a moment: it must not get into that one's memory.
        linux.prctl(linux.PR_SET_DUMPABLE, 0)

    def serve(self) -> None:
        """Until the orchestrator closes the socket; by then the life-line has ended all of the lab anyway."""
        self._selector.register(self._control, selectors.EVENT_READ, self._take_requests)
        while True:
            for key, _ in self._selector.select():
                try:
                    key.data()
                except (EOFError, BrokenPipeError):
                    return

    def _take_requests(self) -> None:
        for request, descriptors in self._reader.receive():
            answer: dict[str, Any] = {"id": request["id"]}
            try:
                answer["ok"] = self._run(request, descriptors) if request["do"] == "run" else self._up(request)
            except guest.Refused as problem:
                answer["error"] = {"kind": problem.kind, "message": str(problem)}
            except (OSError, ValueError) as problem:
                answer["error"] = {"kind": "engine", "message": str(problem)}
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)
            messages.send(self._control, answer)

    # hosts and networks

    def _up(self, request: dict[str, Any]) -> dict[str, Any]:
        volumes = {
            name: rootfs.add_volume(self._userland.scratch, number)
            for number, name in enumerate(request["volumes"])
        }
        sources = dict.fromkeys(source for host in request["hosts"] for source, _ in host["mounts"])
        shown = {source: rootfs.show_real(self._userland, source) for source in sources}
        starting: list[tuple[str, int]] = []
        for host in request["hosts"]:
            mounts = [(volumes[name], path) for name, path in host["volumes"]]
            mounts += [(shown[source], path) for source, path in host["mounts"]]
            mounts.sort(key=lambda mount: mount[1])  # a directory comes before what is mounted in it
            views = self._groups.views(host["name"])
            files = rootfs.HostFiles(host["name"], host["hosts_file"], tuple(mounts), views)
            starting.append((host["name"], self._fork_host(files, tuple(host["capabilities"]))))
            if len(starting) == AT_ONCE:
                _await_exec(*starting.pop(0))
        for name, status in starting:
            _await_exec(name, status)
        bridges = {name: f"n{number}" for number, name in enumerate(request["networks"])}
        self._ip_batch(list(network_commands(bridges, request["hosts"], self._hosts)))
        try:
            for host in request["hosts"]:
                linux.setns(self._hosts[host["name"]].descriptor, linux.CLONE_NEWNET)
                _configure(host["interfaces"])
        finally:
            linux.setns(self._network, linux.CLONE_NEWNET)
        self._group_holders()
        return {"pids": {name: host.pid for name, host in self._hosts.items()}}

    def _group_holders(self) -> None:
        """They do nothing, so nobody waits until they are in the groups of their hosts, until a program starts."""
        self._grouping = os.fork()
        if self._grouping == 0:
            try:
                for name, host in self._hosts.items():
                    self._groups.enter(name, host.pid)
                os._exit(0)
            finally:
                os._exit(1)

    def _await_groups(self) -> None:
        """What is counted of a host's group is found by who holds it. Raises guest.Refused."""
        child, self._grouping = self._grouping, 0
        if child and os.waitpid(child, 0)[1]:
            raise guest.Refused("engine", "putting those who hold hosts into their control groups did not work")

    def _fork_host(self, files: rootfs.HostFiles, capabilities: tuple[str, ...]) -> int:
        """Start the process that holds a host; returns a pipe that ends when it does, or tells what went wrong."""
        self._groups.add(files.name, {"memory": limits.MEMORY_BYTES, "pids": limits.PROCESSES})
        status, report = os.pipe()
        child = self._fork_after(lambda: linux.unshare(linux.CLONE_NEWPID))
        if child == 0:
            with _reporting(report):
                self._hold(files)
        os.close(report)
        self._hosts[files.name] = Host(child, os.pidfd_open(child), capabilities)
        return status

    def _hold(self, files: rootfs.HostFiles) -> NoReturn:
        linux.unshare(guest.NAMESPACES)
        socket.sethostname(files.name)
        rootfs.build_root(self._userland, files)
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        nothing = os.open("/dev/null", os.O_RDWR)
        for number in range(3):
            os.dup2(nothing, number)
        linux.limit_capabilities(())
        linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
        title = guest.process_title(files.name, self._lab)
        if self._holder is not None:
            os.execve(self._holder, [title], {})
        os.execv("/bin/sleep", [title, "infinity"])

    def _fork_after(self, choose_pid_namespace: Callable[[], None]) -> int:
        """Fork into the pid namespace that the callable puts children in. Raises OSError, in the parent only."""
        choose_pid_namespace()
        child = -1
        try:
            child = os.fork()
        finally:
            if child:
                linux.setns(self._self, linux.CLONE_NEWPID)  # the next child is one of the lab again
        return child

    def _write_holder(self) -> int | None:
        """A descriptor of the holder; None where we have no code for the machine and `sleep` has to do."""
        if platform.machine() not in MACHINES:
            return None
        path = Path(self._userland.scratch, "holder")
        path.write_bytes(holder_elf(platform.machine()))
        path.chmod(0o755)
        return os.open(path, os.O_RDONLY)

    def _ip_batch(self, lines: Sequence[str]) -> None:
        """Raises guest.Refused with the line that failed."""
        text = "".join(f"{line}\n" for line in lines)
        done = subprocess.run([self._ip, "-batch", "-"], input=text, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise guest.Refused("engine", explain_batch(done.returncode, done.stderr, lines))

    # programs

    def _run(self, request: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
        host = self._hosts.get(request["host"])
        if host is None:
            raise guest.Refused("engine", f"there is no host {request['host']!r}")
        self._await_groups()
        status, report = os.pipe()
        try:
            child = self._fork_after(lambda: linux.setns(host.descriptor, linux.CLONE_NEWPID))
        except OSError as problem:
            os.close(status)
            os.close(report)
            raise guest.Refused("engine", f"the host is gone: {problem}") from problem
        if child == 0:
            with _reporting(report):
                self._be_in_host(host, request, descriptors, report)
        os.close(report)
        said = _read_all(status)
        started, _, complaint = said.partition(b"\n")
        if complaint:
            os.waitpid(child, 0)
            raise guest.Refused(**json.loads(complaint))
        descriptor = os.pidfd_open(child)
        self._selector.register(
            descriptor, selectors.EVENT_READ, lambda: self._reap(request["id"], child, descriptor)
        )
        return {"pid": child, "started_ns": int(started or time.monotonic_ns())}

    def _be_in_host(self, host: Host, request: dict[str, Any], descriptors: list[int], report: int) -> None:
        if request["action"] == "exec":  # what carries files is ours, and has to work when the host is full
            self._groups.enter(request["host"])
            if not self._groups.why_not:
                linux.unshare(linux.CLONE_NEWCGROUP)  # its own groups are all that it sees in /proc/self/cgroup
        guest.enter(host.descriptor)
        guest.take_streams(descriptors, keep=report)
        os.write(report, b"%d\n" % time.monotonic_ns())
        if request["action"] == "exec":
            guest.become_program(
                request["argv"],
                request["environment"],
                request["working_dir"],
                request["user"],
                host.capabilities,
                one_uid=not self._as_root,
                processes=self._most_processes(),
            )
        os.close(report)
        os._exit(guest.carry_in() if request["action"] == "put" else guest.carry_out(request["path"]))

    def _most_processes(self) -> int | None:
        """A resource limit for where there are no control groups: one for the whole lab. None: no limit.

        It counts the processes of a user in a user namespace, so the lab's (since Linux 5.14; before, all of
        the user's, and that many nobody may be forbidden). Root of the machine it does not bind.
        """
        if self._as_root or not self._groups.why_not or kernel() < (5, 14):
            return None
        return limits.PROCESSES + EACH_HOST_RUNS * len(self._hosts)

    def _reap(self, id: int, pid: int, descriptor: int) -> None:
        ended_ns = time.monotonic_ns()
        self._selector.unregister(descriptor)
        os.close(descriptor)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        messages.send(self._control, {"exited": id, "code": code, "ended_ns": ended_ns})


@contextmanager
def _reporting(report: int) -> Iterator[None]:
    """In a forked child: whatever goes wrong is written to `report`, and the child never gets out of here."""
    try:
        yield
    except guest.Refused as problem:
        os.write(report, json.dumps({"kind": problem.kind, "text": str(problem)}).encode())
    except BaseException as problem:
        os.write(report, json.dumps({"kind": "engine", "text": f"{problem}"}).encode())
    finally:
        os._exit(127)


def kernel() -> tuple[int, int]:
    """The version of this kernel, as in 6.1."""
    major, minor = platform.release().split(".")[:2]
    return int(major), int("".join(takewhile(str.isdecimal, minor)))


def _read_all(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb") as file:
        return file.read()


def _await_exec(name: str, status: int) -> None:
    """Wait until the host's first process holds it. Raises guest.Refused."""
    problem = _read_all(status)
    if problem:
        raise guest.Refused("engine", f"making host {name}: {json.loads(problem)['text']}")


def network_commands(
    bridges: dict[str, str], hosts: Sequence[dict[str, Any]], made: dict[str, Host]
) -> Iterator[str]:
    """A bridge a network and a veth pair an interface, the host's end made where it belongs."""
    for bridge in bridges.values():
        yield f"link add name {bridge} up type bridge mcast_snooping 0 stp_state 0 forward_delay 0"
    ends = ((host, interface) for host in hosts for interface in host["interfaces"])
    for number, (host, interface) in enumerate(ends):
        yield (
            f"link add name v{number} master {bridges[interface['network']]} up type veth peer "
            f"name {interface['name']} address {interface['mac']} netns {made[host['name']].pid}"
        )


def _configure(interfaces: Sequence[dict[str, Any]]) -> None:
    """Addresses, and everything up, in the network namespace where this process stands. Raises OSError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for interface in interfaces:
            name = interface["name"].encode()
            mask = socket.inet_ntoa(struct.pack(">I", 0xFFFFFFFF << 32 - interface["prefix_bits"] & 0xFFFFFFFF))
            for call, address in ((SIOCSIFADDR, interface["ip"]), (SIOCSIFNETMASK, mask)):
                where = struct.pack("=H2x4s8x", socket.AF_INET, socket.inet_aton(address))
                fcntl.ioctl(any_socket, call, struct.pack("=16s16s8x", name, where))
        for name in (b"lo", *(interface["name"].encode() for interface in interfaces)):
            flags = struct.unpack_from(
                "=H", fcntl.ioctl(any_socket, SIOCGIFFLAGS, struct.pack("=16s24x", name)), 16
            )
            fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("=16sH22x", name, flags[0] | IFF_UP))


def _quiet_network() -> None:
    """In the lab's own network: loopback up; no IPv6, with which each bridge would speak up by itself.

    And no firewall that sees what its bridges forward: without a rule, too, it drops what is no good IPv4.
    """
    _configure(())
    for switch in Path("/proc/sys/net/bridge").glob("bridge-nf-call-*"):
        switch.write_text("0")
    for which in ("all", "default"):
        switch = Path(f"/proc/sys/net/ipv6/conf/{which}/disable_ipv6")
        if switch.exists():
            switch.write_text("1")


def explain_batch(status: int, stderr: str, lines: Sequence[str]) -> str:
    """What `ip -batch` said, with the line that it only gives a number of ("Command failed -:3")."""
    words = stderr.replace("\n", " ").strip()
    number = words.rpartition("-:")[2]
    failed = f" at {lines[int(number) - 1]!r}" if number.isdecimal() and 0 < int(number) <= len(lines) else ""
    return f"`ip -batch` ended with status {status}{failed}: {words or 'no message'}"
