"""How long the programs of each host were ready to run and had no processor: the machine's fault, not theirs.

A packet that waits because its reader is not let run looks like a slow network or a slow program. The canary
does not see it: a process that mostly sleeps is let run first, one that works is not. The kernel counts the wait
of each thread (the second number of /proc/PID/schedstat); where it does not, nothing is claimed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from testbed.agent import namespaces
from testbed.agent.canary import Lateness
from testbed.agent.host import Host

WINDOW_NS = 10_000_000  # short: the waits in one window are added up, though none of them was that long
SEARCH_NS = 100_000_000  # how often new processes and threads are looked for
SETTLES_NS = 1_000_000_000  # how long a process may take from giving up its capabilities to being its program
SHARE = 50  # looking may take one part in so many of the time, and searching five
STEP_NS = 100_000


class CpuWait:
    """A host's value for a window is the longest time that one of its threads waited in it, in all."""

    def __init__(self, hosts: Mapping[str, Host]) -> None:
        self._host_of_namespace = {host.pid_ns: name for name, host in hosts.items()}
        self._host_of_pid: dict[int, str | None] = {}  # None: of no host
        self._refused_ns: dict[int, int] = {}  # since when a process does not let us look whose it is
        self._waited_ns: dict[str, int] = {}  # by the path of the thread's count
        self._host_of_path: dict[str, str] = {}
        self._waits = {name: Lateness(STEP_NS) for name in hosts}
        self._next_ns = self._search_ns = 0

    def look(self, now_ns: int) -> None:
        """One look at all threads, if it is time for one."""
        if now_ns < self._next_ns:
            return
        if now_ns >= self._search_ns:
            self._search()
            searched_ns = time.monotonic_ns()
            self._search_ns = now_ns + max(SEARCH_NS, SHARE * (searched_ns - now_ns) // 5)
            now_ns = searched_ns
        longest = dict.fromkeys(self._waits, 0)
        seen: dict[str, int] = {}
        for path, host in self._host_of_path.items():
            with suppress(OSError, ValueError, IndexError):  # it has ended, or this kernel does not count
                seen[path] = waited_ns = _count(path)
                longest[host] = max(longest[host], waited_ns - self._waited_ns.get(path, waited_ns))
        self._waited_ns = seen
        for host, waited_ns in longest.items():
            self._waits[host].add(waited_ns)
        self._next_ns = now_ns + max(WINDOW_NS, SHARE * (time.monotonic_ns() - now_ns))

    def running(self) -> bool:
        """Whether a program of a host is at work just now, or wants to be."""
        self._search()
        for path in self._host_of_path:
            with suppress(OSError):  # it has ended
                state = Path(path).with_name("stat").read_bytes().rpartition(b")")[2].split()[0]
                if state in (b"R", b"D"):
                    return True
        return False

    def p99_ns(self) -> dict[str, int]:
        """By host, the 99th percentile over the windows; 0 without a window."""
        return {host: waits.p99_ns() for host, waits in self._waits.items()}

    def _search(self) -> None:
        """Which threads belong to hosts. Whose a process is does not change, so each that says it is asked once.

        Who has just given up capabilities does not say it for a moment, and so is asked again for a while.
        """
        now_ns = time.monotonic_ns()
        there = {int(name) for name in os.listdir("/proc") if name.isdigit()}  # noqa: PTH208 - many, and often
        self._host_of_pid = {pid: host for pid, host in self._host_of_pid.items() if pid in there}
        for pid in there - self._host_of_pid.keys():
            try:
                self._host_of_pid[pid] = self._host_of_namespace.get(namespaces.identity(pid, "pid"))
            except PermissionError:
                since_ns = self._refused_ns.setdefault(pid, now_ns)
                if now_ns - since_ns > SETTLES_NS:  # somebody else's
                    self._host_of_pid[pid] = None
            except OSError:  # it has ended
                self._host_of_pid[pid] = None
        self._refused_ns = {pid: ns for pid, ns in self._refused_ns.items() if pid in there}
        self._host_of_path = {
            path: host for pid, host in self._host_of_pid.items() if host is not None for path in _threads(pid)
        }


def _threads(pid: int) -> list[str]:
    try:
        names = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208
    except OSError:
        return []
    return [f"/proc/{pid}/task/{name}/schedstat" for name in names]


def _count(path: str) -> int:
    """How long the thread has waited in all, in ns."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return int(os.read(descriptor, 100).split()[1])
    finally:
        os.close(descriptor)
