"""The agent's channel and a program's life, over streams that are lists."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.engines import docker_process
from testbed.engines.api import Command
from testbed.engines.docker_process import DockerChannel, DockerProcess, exit_of, start
from testbed.engines.docker_stream import STDERR, STDOUT
from testbed.errors import CommandNotFound, EngineError

if TYPE_CHECKING:
    Fake = Any  # stands for the SDK's client, which it implements a part of
else:
    Fake = object


class Wire(Fake):  # type: ignore[misc]
    """A stream that plays back frames and keeps what is written."""

    def __init__(self, *frames: tuple[int, bytes], broken: bool = False) -> None:
        self._frames, self._broken = frames, broken
        self.written, self.ended, self.closed = b"", False, False

    def frames(self) -> Iterator[tuple[int, bytes]]:
        yield from self._frames

    def write(self, data: bytes) -> None:
        if self._broken:
            raise BrokenPipeError(32, "Broken pipe")
        self.written += data

    def end_of_input(self) -> None:
        self.ended = True

    def close(self) -> None:
        self.closed = True


class Daemon(Fake):  # type: ignore[misc]
    """Answers to exec_create, take_over and exec_inspect; the last answer of `inspected` is repeated."""

    def __init__(self, wire: Wire, *inspected: dict[str, Any]) -> None:
        self.wire, self.inspected = wire, list(inspected)
        self.created: dict[str, Any] = {}

    def exec_create(self, container: str, cmd: list[str], **options: Any) -> dict[str, str]:
        self.created = {"container": container, "cmd": cmd, **options}
        return {"Id": "e1"}

    def take_over(self, path: str, body: object) -> Wire:
        assert path == "/exec/e1/start" and body == {"Detach": False, "Tty": False}
        return self.wire

    def exec_inspect(self, exec_id: str) -> dict[str, Any]:
        assert exec_id == "e1"
        return self.inspected.pop(0) if len(self.inspected) > 1 else self.inspected[0]


RUNS = {"Pid": 7, "Running": True, "ExitCode": None}
NOT_YET = {"Pid": 0, "Running": False, "ExitCode": None}


def ended(status: int, pid: int = 7) -> dict[str, Any]:
    return {"Pid": pid, "Running": False, "ExitCode": status}


# the channel

lines = st.lists(st.binary(max_size=40).map(lambda b: b.replace(b"\n", b"") + b"\n"), max_size=10)


@given(lines, st.lists(st.integers(1, 30), min_size=1))
def test_lines_come_whole_however_they_were_cut(sent: list[bytes], sizes: list[int]) -> None:
    left = b"".join(sent)
    frames: list[tuple[int, bytes]] = []
    while left:
        size = sizes[len(frames) % len(sizes)]
        frames += [(STDOUT, left[:size]), (STDERR, b"noise")]
        left = left[size:]
    channel = DockerChannel(Wire(*frames), lambda: "")
    assert [channel.readline() for _ in sent] == sent
    channel.close()
    assert channel.readline() == b"" == channel.readline()


def test_a_line_that_never_ended_is_no_line_and_the_end_has_its_reason() -> None:
    channel = DockerChannel(Wire((STDOUT, b"whole\nhal")), lambda: "the daemon has gone")
    assert channel.readline() == b"whole\n"
    with pytest.raises(EngineError, match=r"^the daemon has gone$"):
        channel.readline()


def test_the_agents_last_words_are_in_the_error_that_its_death_causes() -> None:
    wire = Wire((STDERR, b"x" * 9000), (STDERR, b"Traceback: no module named x\n"), broken=True)
    channel = DockerChannel(wire, lambda: "it died")
    with pytest.raises(EngineError, match=r"it is gone \(.*Broken pipe\)$"):
        channel.write(b"{}\n")
    with pytest.raises(EngineError, match=r"^it died; it said: x{400,}Traceback: no module named x$"):
        channel.readline()
    with pytest.raises(EngineError, match=r"it said: x.*no module named x$"):
        channel.write(b"{}\n")
    assert len(channel.last_words) < 5000
    channel.close()
    assert wire.closed


# exit statuses


@pytest.mark.parametrize(
    ("status", "exit"),
    [(0, 0), (1, 1), (127, 127), (128, 128), (129, "SIGHUP"), (137, "SIGKILL"), (143, "SIGTERM"), (139, "SIGSEGV"),
     (160, 160), (192, 192), (255, 255)],
)  # fmt: skip
def test_a_status_beyond_128_is_the_signal_that_it_stands_for(status: int, exit: int | str) -> None:
    assert exit_of(status) == exit


@given(st.integers(0, 255))
def test_every_status_is_itself_or_a_signals_name(status: int) -> None:
    found = exit_of(status)
    assert found == status or (isinstance(found, str) and found.startswith("SIG") and 128 < status < 160)


# programs


def run(daemon: Daemon, command: Command, unset: tuple[str, ...] = ()) -> tuple[DockerProcess, bytes, bytes]:
    out, err = bytearray(), bytearray()
    process = start(daemon, "c1", "h", command, unset, out.extend, err.extend)
    assert process.wait(10)
    return process, bytes(out), bytes(err)


def test_a_program_is_started_as_asked_and_its_life_is_told() -> None:
    wire = Wire((STDOUT, b"a"), (STDERR, b"e"), (STDOUT, b"b"))
    daemon = Daemon(wire, NOT_YET, NOT_YET, RUNS, RUNS, ended(3))
    command = Command(("p", "-x"), {"PATH": "/bin", "A": "1=2"}, "/scenario", "nobody", b"")
    process, out, err = run(daemon, command, ("HOSTNAME", "A"))
    assert (out, err) == (b"ab", b"e")
    assert (process.pid, process.exit) == (7, 3)
    assert process.ended_ns is not None and process.started_ns <= process.ended_ns
    assert wire.closed
    assert daemon.created == {
        "container": "c1", "cmd": ["p", "-x"], "stdin": False, "workdir": "/scenario", "user": "nobody",
        "environment": ["PATH=/bin", "A=1=2", "HOSTNAME"],
    }  # fmt: skip


def test_its_input_is_written_and_ended_and_may_be_left_unread() -> None:
    wire = Wire()
    process, _, _ = run(Daemon(wire, RUNS, ended(0)), Command(("p",), {}, stdin=b"in"))
    process.feed(b"more")
    assert wire.written.endswith(b"more") and wire.ended
    broken = Wire(broken=True)
    process, _, _ = run(Daemon(broken, RUNS, ended(0)), Command(("p",), {}, stdin=b"in"))
    process.feed(b"more")
    assert process.exit == 0 and not broken.ended


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        (b'OCI runtime exec failed: exec failed: unable to start container process: exec: "p": executable file '
         b"not found in $PATH: unknown\r\n", CommandNotFound, "no command 'p' in host h (PATH=/bin)"),
        (b'OCI runtime exec failed: exec: "/x/p": stat /x/p: no such file or directory: unknown', CommandNotFound,
         "no command 'p'"),
        (b'OCI runtime exec failed: exec: "/etc/passwd": permission denied: unknown', EngineError,
         "permission denied"),
        (b'OCI runtime exec failed: exec failed: chdir to cwd ("/nope") set in config.json failed: no such file '
         b"or directory", EngineError, "chdir to cwd"),
        (b"unable to find user x: no matching entries in passwd file", EngineError, "unable to find user x"),
        (b"", EngineError, "gave no reason"),
    ],
)  # fmt: skip
def test_what_did_not_start_is_told_by_its_reason(said: bytes, kind: type[EngineError], words: str) -> None:
    wire = Wire((STDOUT, said))
    with pytest.raises(EngineError) as problem:
        run(Daemon(wire, NOT_YET, ended(126, pid=0)), Command(("p",), {"PATH": "/bin"}))
    assert type(problem.value) is kind and words in str(problem.value) and "starting p on h" in str(problem.value)
    assert wire.closed


def test_a_program_that_is_lost_sight_of_has_no_exit_but_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker_process, "SETTLES_S", 0.0)
    process, _, _ = run(Daemon(Wire((STDOUT, b"a")), RUNS), Command(("p",), {}))
    with pytest.raises(EngineError, match=r"process id 7: .*the connection was lost"):
        _ = process.exit
    assert process.ended_ns is None


def test_a_sink_that_fails_is_not_swallowed() -> None:
    wire = Wire((STDOUT, b"a"))

    def full(_: bytes) -> None:
        raise OSError(28, "No space left on device")

    process = start(Daemon(wire, RUNS, ended(0)), "c", "h", Command(("p",), {}), (), full, full)
    assert process.wait(10) and wire.closed
    with pytest.raises(EngineError, match="No space left"):
        _ = process.exit


def test_a_command_is_json_safe_in_messages() -> None:
    """The message names the command, whatever is in it."""
    wire = Wire((STDOUT, b'exec: "p": executable file not found in $PATH'))
    with pytest.raises(CommandNotFound) as problem:
        run(Daemon(wire, ended(127, pid=0)), Command(("p", 'a "b"\n'), {}))
    assert json.dumps(str(problem.value))
