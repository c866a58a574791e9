"""The wire: the process that every frame of an impaired pair passes, and its conversation with the agent.

It lives in a network namespace of its own, where each source host has one end of a veth pair. Frames come in
from there, get their fate (`testbed.conditions`), and leave on the same device when they are due; the host's
filters do the rest. What became of each is in the ledger (`testbed.measure.ledger`), once for each frame and
link.

It fails closed. A frame that no link claims is dropped and counted: a source with one impaired pair on a
network must have a link, with an empty condition if need be, for *every* receiver on that network, because its
group frames (broadcast, multicast) come here too and leave as one copy a link, with the receiver's own hardware
address. When a request is refused nothing passes any more; when the input ends the process ends, and its
namespace with every veth.

Requests are JSON lines on stdin, answered one at a time on stdout:
  conditions {seed, hosts: {host: device}, links: [...]}  -> {links: {id: condition}, slot_bytes, fate}
  under_way {before_ns}  -> {frames, due_ns}
                                           of what had come in by then, how much is not gone, and when the last of
                                           it is due (0: there is none)
  drain {shut_ns, deadline_ns, wait_s}  -> {over, pending, ledger_bytes, links}
                                           waits until nothing is pending and nothing came in for 50 ms. If it is
                                           not so after `wait_s` seconds, it is not `over`: then ask again. The
                                           ledger is whole when it is, and closed by its count: its size, and the
                                           counts of every link that go with it. Kernels go on by themselves, with
                                           what was not acknowledged: what comes in after `shut_ns` goes nowhere,
                                           and no link counts it. What is pending at `deadline_ns` is dropped as
                                           "unasked"
  resume {}                                lets in again what comes; it is behind that end
  report {}      -> {hosts, links, ring}   counts since the start, of every link there ever was, with its condition
                                           (null: it is not in force any more)
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path as FilePath
from typing import Any

from testbed import linux
from testbed.agent.wire_link import LinkSpec
from testbed.agent.wire_loop import TAKE_A_TURN, Drain, Loop
from testbed.agent.wire_path import NO_END, Path
from testbed.conditions.fate import FATE_VERSION

SLICE_NS = 100_000  # the shortest that the kernel grants, where there is no real-time schedule
FIFO_PRIORITY = 10


def main(argv: Sequence[str] | None = None) -> int:
    """`--ledger PATH`, a new or empty file. Returns 0 at the end of input."""
    parser = argparse.ArgumentParser(prog="wire", description=__doc__, allow_abbrev=False)
    parser.add_argument("--ledger", required=True, help="where the binary ledger goes: a new or empty file")
    arguments = parser.parse_args(argv)
    ledger_fd = os.open(arguments.ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    if os.fstat(ledger_fd).st_size:
        parser.error(f"{arguments.ledger} is not empty: two ledgers in one file are none")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the agent decides when the run is over
    _own_network()
    scheduler = _be_punctual()
    path = Path(ledger_fd)
    Control(path, 0, 1).run({"ready": {"pid": os.getpid(), "scheduler": scheduler}})
    path.take_all()  # what came in is on record, though it goes nowhere
    path.abandon()
    path.write_ledger(end=True)
    path.close()
    os.close(ledger_fd)
    return 0


def _own_network() -> None:
    """A namespace in which nothing but us speaks: IPv6 would announce itself on every veth, into the hosts."""
    linux.unshare(linux.CLONE_NEWNET)
    for scope in ("all", "default"):
        with contextlib.suppress(
            OSError
        ):  # no IPv6 here, or /proc is read-only: then `ip ... addrgenmode none` must do
            FilePath(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6").write_text("1")


def _be_punctual() -> str:
    """No timer slack, no garbage collection, and ahead of all others where that is permitted."""
    linux.prctl(linux.PR_SET_TIMERSLACK, 1)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # one socket a host
    gc.collect()
    gc.freeze()
    gc.disable()  # the loop makes no cycles
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(FIFO_PRIORITY))
    except OSError:
        with contextlib.suppress(OSError):  # a kernel that does not know it: then late is what the ledger says
            linux.short_slice(SLICE_NS)
        return "other"
    return "fifo"


class _ConditionsRefused(Exception):
    """The conditions make no sense; the message names the link."""


class Control:
    """Reads requests, has them done, writes answers."""

    def __init__(self, path: Path, in_fd: int, out_fd: int) -> None:
        self._path, self._in_fd, self._out_fd = path, in_fd, out_fd
        self._loop = Loop(path, in_fd, self._read)
        self._input = b""

    def run(self, greeting: dict[str, Any]) -> None:
        """Until the end of input."""
        self._write(greeting)
        self._loop.run()

    def _read(self) -> bool:
        data = os.read(self._in_fd, 1 << 20)
        *lines, self._input = (self._input + data).split(b"\n")
        for line in lines:
            self._handle(line)
        return bool(data)

    def _handle(self, line: bytes) -> None:
        number = None
        try:
            request = json.loads(line)
            number = request["id"]
            answer = self._do(request)
        except _ConditionsRefused as problem:
            self._refuse(number, "condition", str(problem))
        except (ValueError, OSError, KeyError, TypeError, AttributeError) as problem:
            self._refuse(number, "engine", f"request {line[:200]!r}: {type(problem).__name__}: {problem}")
        else:
            if answer is not None:
                self._write({"id": number, "ok": answer})

    def _refuse(self, number: int | None, kind: str, message: str) -> None:
        self._write({"id": number, "error": {"kind": kind, "message": f"the wire: {message}"}})

    def _do(self, request: dict[str, Any]) -> dict[str, Any] | None:
        do = request["do"]
        if do == "conditions":
            return self._conditions(request)
        if do == "report":
            return self._report()
        if do == "under_way":
            self._path.take(TAKE_A_TURN)
            frames, due_ns = self._path.under_way(request["before_ns"])
            return {"frames": frames, "due_ns": due_ns}
        if do == "drain":
            number = request["id"]

            def done(over: bool, pending: int) -> None:
                counts = {link_id: link.counts.to_json() for link_id, link in self._path.links.items()}
                end = {"ledger_bytes": self._path.ledger_bytes, "links": counts if over else {}}
                self._write({"id": number, "ok": {"over": over, "pending": pending, **end}})

            answer_ns = time.monotonic_ns() + int(request["wait_s"] * 1e9)
            self._path.over_ns = int(request["shut_ns"])
            self._loop.drain = Drain(int(request["deadline_ns"]), done, answer_ns)
            return None
        if do == "resume":
            self._path.over_ns = NO_END
            return {}
        raise ValueError(f"no such request: {do!r}")

    def _conditions(self, request: dict[str, Any]) -> dict[str, Any]:
        path = self._path
        try:
            specs = [LinkSpec.from_json(link) for link in request["links"]]
            path.apply(request["seed"], request["hosts"], specs)
        except ValueError as problem:
            path.shut()
            raise _ConditionsRefused(f"no condition is in force now: {problem}") from problem
        except BaseException:
            path.shut()
            raise
        return {
            "links": {spec.id: path.condition(spec.id) for spec in specs},
            "slot_bytes": path.slot_bytes,
            "fate": FATE_VERSION,
        }

    def _report(self) -> dict[str, Any]:
        path = self._path
        return {
            "hosts": {h: {"frames_in": c.frames_in, "unknown": c.unknown} for h, c in path.hosts.items()},
            "links": {
                link_id: {"condition": path.condition(link_id), **link.counts.to_json()}
                for link_id, link in path.links.items()
            },
            "ring": {
                "rx_drops": path.ring_drops(),
                "too_large": path.too_large,
                "bad_age": path.bad_age,
                "tx_busy": path.tx_busy,
                "tx_errors": path.tx_errors,
                "stray": path.stray,
                "after_end": path.after_end,
            },
        }

    def _write(self, message: dict[str, Any]) -> None:
        data = memoryview(json.dumps(message, separators=(",", ":")).encode() + b"\n")
        while data:
            data = data[os.write(self._out_fd, data) :]


if __name__ == "__main__":
    sys.exit(main())
