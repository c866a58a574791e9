"""The two things that an engine hands out and that live on a stream: the agent's channel, and a program."""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Callable, Sequence

from testbed.engines.api import Command, Sink
from testbed.engines.docker_client import Api, asking
from testbed.engines.docker_stream import STDERR, Stream
from testbed.errors import CommandNotFound, EngineError, last_line

LAST_WORDS_BYTES = 4096
LOOK_S, LOOK_LONGER_S = 0.002, 0.05
BEGINS_S = 180.0  # from the start of a program until Docker knows its process id
SETTLES_S = 30.0  # from the end of a program's output until Docker knows its exit status


class DockerChannel:
    """Lines to and from the agent over its container's attached stdin and stdout.

    `why()` is asked for the reason when the stream ends and nobody here has closed it; it never raises.
    """

    def __init__(self, stream: Stream, why: Callable[[], str]) -> None:
        self._stream, self._frames, self._why = stream, stream.frames(), why
        self._closed = False
        self._line, self._said = bytearray(), bytearray()
        self._write = threading.Lock()

    @property
    def last_words(self) -> str:
        """The last line that the agent wrote to stderr: why it died, if it did."""
        return last_line(self._said)

    def _words(self) -> str:
        return f"; it said: {self.last_words}" if self.last_words else ""

    def write(self, line: bytes) -> None:
        try:
            with self._write:
                self._stream.write(line)
        except OSError as problem:
            gone = f"writing to the agent's container: it is gone ({problem})"
            raise EngineError(gone + self._words()) from problem

    def readline(self) -> bytes:
        """b"" when it is closed. Raises EngineError, with the reason, where the other side ended it."""
        while b"\n" not in self._line:
            kind, data = next(self._frames, (0, b""))
            if kind == 0:
                if self._closed:
                    return b""
                raise EngineError(self._why() + self._words())
            if kind == STDERR:
                self._said = (self._said + data)[-LAST_WORDS_BYTES:]
            else:
                self._line += data
        end = self._line.index(b"\n") + 1
        line = bytes(self._line[:end])
        del self._line[:end]
        return line

    def close(self) -> None:
        self._closed = True
        self._stream.close()


class DockerProcess:
    """A program that was started by exec. Its output is handed over by a thread of its own.

    Docker reports a death by signal N as status 128+N, as a shell does, and so cannot tell it from a program
    that ends with that status of its own will: where N is a signal, a signal is what we take it for.
    """

    def __init__(self, api: Api, exec_id: str, stream: Stream, pid: int, started_ns: int) -> None:
        self.pid, self.started_ns = pid, started_ns
        self._api, self._exec_id, self._stream = api, exec_id, stream
        self._exit: int | str | None = None
        self._ended_ns: int | None = None
        self._lost = ""
        self._over = threading.Event()

    @property
    def exit(self) -> int | str | None:
        """Raises EngineError if the connection broke, and nobody knows what became of it."""
        if self._lost:
            raise EngineError(f"watching a program with process id {self.pid}: {self._lost}")
        return self._exit

    @property
    def ended_ns(self) -> int | None:
        return self._ended_ns

    def wait(self, timeout_s: float) -> bool:
        return self._over.wait(timeout_s)

    def hand_over(self, stdout: Sink, stderr: Sink) -> None:
        """Give the output to the sinks until there is no more, then learn the exit status. Never raises."""
        try:
            for kind, data in self._stream.frames():
                (stderr if kind == STDERR else stdout)(data)
            ended_ns = time.monotonic_ns()
            self._exit = self._status()
            self._ended_ns = ended_ns
        except Exception as problem:
            self._lost = str(problem) or repr(problem)
        finally:
            self._stream.close()
            self._over.set()

    def feed(self, stdin: bytes) -> None:
        """Write all of its stdin, then close that. A program that does not read it to the end is no error."""
        try:
            self._stream.write(stdin)
        except OSError:
            return
        self._stream.end_of_input()

    def _status(self) -> int | str:
        deadline, pause = time.monotonic() + SETTLES_S, LOOK_S
        while True:
            with asking("asking for a program's exit status"):
                found = self._api.exec_inspect(self._exec_id)
            if not found["Running"] and found["ExitCode"] is not None:
                return exit_of(found["ExitCode"])
            if time.monotonic() > deadline:
                raise EngineError("its output ended, but Docker says that it runs; the connection was lost")
            time.sleep(pause)
            pause = min(2 * pause, LOOK_LONGER_S)


def exit_of(status: int) -> int | str:
    """0..255, or the name of the signal that such a status stands for."""
    number = status - 128
    return signal.Signals(number).name if number in signal.valid_signals() and number < 32 else status


def start(
    api: Api, container: str, host: str, command: Command, unset: Sequence[str], stdout: Sink, stderr: Sink
) -> DockerProcess:
    """Run a command in a container. `unset` are names of the image's environment that it must not see.

    Raises CommandNotFound, EngineError.
    """
    doing = f"starting {' '.join(command.argv)} on {host}"
    environment = [f"{name}={value}" for name, value in command.environment.items()]
    environment += [name for name in unset if name not in command.environment]  # without a `=`: removed
    with asking(doing):
        exec_id = api.exec_create(
            container, list(command.argv), stdin=bool(command.stdin), environment=environment,
            workdir=command.working_dir, user=command.user or "",
        )["Id"]  # fmt: skip
        started_ns = time.monotonic_ns()
        stream = api.take_over(f"/exec/{exec_id}/start", {"Detach": False, "Tty": False})
        try:
            pid = _begun(api, exec_id)
        except EngineError as problem:
            stream.close()
            raise EngineError(f"{doing}: {problem}") from problem
        except BaseException:
            stream.close()
            raise
    if pid == 0:
        said = b"".join(data for _, data in stream.frames()).decode(errors="replace").strip()
        stream.close()
        raise _not_started(doing, command, host, said)
    process = DockerProcess(api, exec_id, stream, pid, started_ns)
    _thread(process.hand_over, stdout, stderr, name=f"output of {command.argv[0]} on {host}")
    if command.stdin:
        _thread(process.feed, command.stdin, name=f"input of {command.argv[0]} on {host}")
    return process


def _begun(api: Api, exec_id: str) -> int:
    """The process id on the daemon's machine, once it runs or ran; 0 if it could not be started."""
    deadline, pause = time.monotonic() + BEGINS_S, LOOK_S
    while True:
        found = api.exec_inspect(exec_id)
        if found["Pid"] or found["ExitCode"] is not None:
            return int(found["Pid"])
        if time.monotonic() > deadline:
            raise EngineError(f"Docker did not start it within {BEGINS_S:g} s")
        time.sleep(pause)
        pause = min(2 * pause, LOOK_LONGER_S)


def _not_started(doing: str, command: Command, host: str, said: str) -> EngineError:
    """What the container runtime said, as the error that it means."""
    missing = re.search(r"exec: \"?.*(executable file not found|no such file or directory)", said)
    if missing and "chdir" not in said:
        search = command.environment.get("PATH", "the image's")
        return CommandNotFound(f"{doing}: no command {command.argv[0]!r} in host {host} (PATH={search})")
    return EngineError(f"{doing}: {said or 'the container runtime gave no reason'}")


def _thread(target: object, *arguments: object, name: str) -> None:
    threading.Thread(target=target, args=arguments, name=name, daemon=True).start()  # type: ignore[arg-type]
