"""The orchestrator's end of a lab: one thread that moves all output, input and news of the lab's programs.

A program must never be held up because nobody reads its output, so this thread does nothing else. It alone
touches the selector; other threads send requests and wait for their answers.
"""

from __future__ import annotations

import fcntl
import functools
import os
import selectors
import signal
import socket
import struct
import termios
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import IO, Any, BinaryIO

from testbed.engines.api import Sink
from testbed.engines.lab import messages
from testbed.errors import EngineError, last_line

CHUNK_BYTES = 1 << 16
GRACE_S = 0.2  # a child that the program left behind may hold its output open; we do not wait longer than this
LAST_WORDS_BYTES = 4096  # of what the lab's processes wrote to standard error


class LabGone(Exception):
    """The lab's builder does not answer, or never did; says what is known about why."""


class LabProcess:
    """A program in a host. See testbed.engines.api.Process for what a caller sees."""

    pid: int
    started_ns: int

    def __init__(self, stdout: Sink, stderr: Sink) -> None:
        self.sinks = (stdout, stderr)
        self.code: int | None = None  # as the kernel says it; its output may still be on the way
        self.streams: dict[int, int] = {}  # descriptors that have not ended -> 0 for stdout, 1 for stderr
        self.problem: Exception | None = None
        self._ended_ns: int | None = None
        self._done = threading.Event()

    @property
    def exit(self) -> int | str | None:
        """Raises EngineError if its output could not be handed over: then it must not count as complete."""
        if self.problem is not None:
            raise EngineError(f"handing over the output of process {self.pid}: {self.problem}") from self.problem
        if not self._done.is_set() or self.code is None:
            return None
        return self.code if self.code >= 0 else signal_name(-self.code)

    @property
    def ended_ns(self) -> int | None:
        return self._ended_ns if self._done.is_set() else None

    def wait(self, timeout_s: float) -> bool:
        return self._done.wait(timeout_s)

    def ended(self, code: int, ended_ns: int) -> None:
        self.code, self._ended_ns = code, ended_ns

    def finish(self) -> None:
        self._done.set()

    @property
    def finished(self) -> bool:
        return self._done.is_set()

    def hand_over(self, stream: int, data: bytes) -> None:
        """Output after the end is a left-behind child's: read, so that it can go on, and dropped."""
        if self.finished or self.problem is not None:
            return
        try:
            self.sinks[stream](data)
        except Exception as problem:
            self.problem = problem


@dataclass
class _Asked:
    answered: threading.Event = field(default_factory=threading.Event)
    answer: dict[str, Any] | None = None
    on_ok: Callable[[dict[str, Any]], None] | None = None  # runs in the pump's thread, before any later message


class Pump:
    """`control` is the socket to the builder, `stderr` where the lab itself complains; it closes both."""

    def __init__(self, control: socket.socket, stderr: IO[bytes]) -> None:
        self._control, self._stderr = control, stderr
        self._reader = messages.Reader(control)
        self._selector = selectors.DefaultSelector()
        self._sending = threading.Lock()
        self._asked: dict[int, _Asked] = {0: _Asked()}  # 0: the builder's first message, for which nobody asked
        self._next = 1
        self._processes: dict[int, LabProcess] = {}
        self._deadlines: dict[int, float] = {}
        self._gone = False
        self._last_words = bytearray()
        self._wake, self._woken = socket.socketpair()
        self._stop = threading.Event()
        os.set_blocking(stderr.fileno(), False)
        self._selector.register(control, selectors.EVENT_READ, self._take_messages)
        self._selector.register(stderr, selectors.EVENT_READ, self._take_last_words)
        self._selector.register(self._woken, selectors.EVENT_READ, lambda: None)
        self._thread = threading.Thread(target=self._work, name="testbed lab", daemon=True)
        self._thread.start()

    # for other threads

    def first_message(self, within_s: float) -> dict[str, Any]:
        """What the lab says once it is there, or why it will not be. Raises LabGone."""
        return self._await(0, within_s)

    def ask(
        self,
        request: dict[str, Any],
        descriptors: Sequence[int],
        within_s: float,
        on_ok: Callable[[dict[str, Any]], None] | None = None,
    ) -> dict[str, Any]:
        """The builder's answer, with its "ok" or its "error". Raises LabGone."""
        with self._sending:
            number, self._next = self._next, self._next + 1
            self._asked[number] = _Asked(on_ok=on_ok)
            try:
                messages.send(self._control, request | {"id": number}, descriptors)
            except OSError as problem:
                del self._asked[number]
                raise LabGone(self._why()) from problem
        return self._await(number, within_s)

    def start(
        self, request: dict[str, Any], stdin: bytes | BinaryIO, stdout: Sink, stderr: Sink, within_s: float
    ) -> LabProcess | dict[str, Any]:
        """Run something in a host: the process, or the builder's answer with its "error". Raises LabGone.

        Where `stdin` is a file, the process reads that itself, from where it stands.
        """
        process = LabProcess(stdout, stderr)
        theirs: list[int] = []
        ours: list[int] = []
        try:
            for mine in (1, 0, 0):  # of standard input we have the write end
                pipe = os.pipe()
                ours.append(pipe[mine])
                theirs.append(pipe[1 - mine])
            if not isinstance(stdin, bytes):
                os.dup2(stdin.fileno(), theirs[0])
                stdin = b""
            attach = self._attacher(process, stdin, ours)
            answer = self.ask(request | {"do": "run"}, theirs, within_s, attach)
        finally:
            for descriptor in (*theirs, *ours):
                os.close(descriptor)
        return process if "ok" in answer else answer

    def close(self) -> None:
        """Hand over what has arrived, then end the thread. Processes that still ran count as killed."""
        if self._stop.is_set():
            return
        self._stop.set()
        self._wake.send(b"!")
        self._thread.join(10)
        for end in (self._wake, self._woken):
            end.close()

    def _await(self, number: int, within_s: float) -> dict[str, Any]:
        asked = self._asked[number]
        if self._gone:
            asked.answered.set()
        answered = asked.answered.wait(within_s)
        self._asked.pop(number, None)
        if not answered:
            raise LabGone(f"no answer from the lab within {within_s:g} s{self._complaints()}")
        if asked.answer is None:
            raise LabGone(self._why())
        return asked.answer

    def _why(self) -> str:
        return f"the lab has ended{self._complaints()}"

    def _complaints(self) -> str:
        text = last_line(self._last_words)
        return f"; its processes wrote: {text}" if text else ""

    # in the thread

    def _work(self) -> None:
        while True:
            wait_s = min(self._deadlines.values(), default=None)
            if wait_s is not None:
                wait_s = max(0.0, wait_s - time.monotonic())
            ready = self._selector.select(0 if self._stop.is_set() else wait_s)
            busy = [key.data for key, _ in ready if key.fileobj is not self._woken]
            for take in busy:
                take()
            for number, deadline in list(self._deadlines.items()):
                if time.monotonic() >= deadline:
                    self._finish(number)
            if self._stop.is_set() and not busy:
                break
        self._lab_gone()
        for key in list(self._selector.get_map().values()):
            if isinstance(key.fileobj, int):
                self._close(key.fileobj)
        self._selector.close()
        self._control.close()
        self._stderr.close()

    def _take_messages(self) -> None:
        try:
            for message, _ in self._reader.receive():
                if "exited" in message:
                    self._exited(message)
                else:
                    self._answered(message)
        except EOFError:
            self._selector.unregister(self._control)
            self._lab_gone()

    def _answered(self, message: dict[str, Any]) -> None:
        number = message.get("id", 0)
        asked = self._asked.get(number)
        if asked is not None:
            if asked.on_ok is not None and "ok" in message:
                asked.on_ok(message)
            asked.answer = message
            asked.answered.set()

    def _lab_gone(self) -> None:
        self._gone = True
        for asked in list(self._asked.values()):
            asked.answered.set()
        for number, process in list(self._processes.items()):
            if process.code is None:
                self._exited({"exited": number, "code": -signal.SIGKILL, "ended_ns": time.monotonic_ns()})
            if self._stop.is_set():
                self._finish(number)

    def _take_last_words(self) -> None:
        data = os.read(self._stderr.fileno(), CHUNK_BYTES)
        self._last_words = (self._last_words + data)[-LAST_WORDS_BYTES:]
        if not data:
            self._selector.unregister(self._stderr)

    def _attacher(
        self, process: LabProcess, stdin: bytes, ours: Sequence[int]
    ) -> Callable[[dict[str, Any]], None]:
        """What takes copies of our ends of a program's pipes into the loop, once the program runs."""

        def attach(message: dict[str, Any]) -> None:
            process.pid, process.started_ns = message["ok"]["pid"], message["ok"]["started_ns"]
            number = message["id"]
            self._processes[number] = process
            if stdin:
                self._write(os.dup(ours[0]), memoryview(stdin))
            for stream in range(2):
                descriptor = os.dup(ours[1 + stream])
                process.streams[descriptor] = stream
                take = functools.partial(self._take_output, number, process, descriptor)
                self._selector.register(descriptor, selectors.EVENT_READ, take)

        return attach

    def _take_output(self, number: int, process: LabProcess, descriptor: int) -> None:
        data = os.read(descriptor, CHUNK_BYTES)
        if data:
            process.hand_over(process.streams[descriptor], data)
            return
        self._close(descriptor)
        del process.streams[descriptor]
        if not process.streams and process.code is not None:
            self._finish(number)

    def _write(self, descriptor: int, left: memoryview) -> None:
        os.set_blocking(descriptor, False)

        def give() -> None:
            nonlocal left
            try:
                left = left[os.write(descriptor, left[:CHUNK_BYTES]) :]
            except BlockingIOError:
                return
            except BrokenPipeError:  # it does not want the rest
                left = left[:0]
            if not left:
                self._close(descriptor)

        self._selector.register(descriptor, selectors.EVENT_WRITE, give)

    def _close(self, descriptor: int) -> None:
        self._selector.unregister(descriptor)
        os.close(descriptor)

    def _exited(self, message: dict[str, Any]) -> None:
        number = message["exited"]
        process = self._processes[number]
        process.ended(message["code"], message["ended_ns"])
        if not process.streams:
            self._finish(number)
        else:
            self._deadlines[number] = time.monotonic() + GRACE_S

    def _finish(self, number: int) -> None:
        """Whatever the program wrote itself is in the pipes by now: hand that over, and call it ended."""
        self._deadlines.pop(number, None)
        process = self._processes.pop(number, None)
        if process is None:
            return
        for descriptor, stream in process.streams.items():
            waiting = struct.unpack("=i", fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)))[0]
            while waiting > 0:
                data = os.read(descriptor, waiting)
                process.hand_over(stream, data)
                waiting -= len(data)
        process.finish()


def signal_name(number: int) -> str:
    """SIGKILL, ..., SIGRTMIN+3."""
    if signal.SIGRTMIN < number < signal.SIGRTMAX:
        return f"SIGRTMIN+{number - signal.SIGRTMIN}"
    return signal.Signals(number).name if number in signal.valid_signals() else f"signal {number}"
