"""The orchestrator's end of a lab, against a builder that the tests play themselves."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.engines import pump
from testbed.engines.lab import messages
from testbed.engines.pump import LabGone, LabProcess, Pump
from testbed.errors import EngineError

JSON = st.dictionaries(st.text(), st.integers() | st.text() | st.lists(st.booleans()))
Play = Callable[[dict[str, Any], list[int]], None]


class Lab:
    """A pump, and in place of the builder a thread that calls `play(request, descriptors)`."""

    def __init__(self) -> None:
        ours, self.theirs = socket.socketpair()
        read_end, self.stderr = os.pipe()
        self.pump = Pump(ours, os.fdopen(read_end, "rb", buffering=0))
        self.play: Play = lambda request, descriptors: None
        self.kept: list[int] = []  # descriptors that a left-behind child would hold
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self) -> None:
        reader = messages.Reader(self.theirs)
        while True:
            try:
                for request, descriptors in reader.receive():
                    self.play(request, descriptors)
                    for descriptor in set(descriptors) - set(self.kept):
                        os.close(descriptor)
            except EOFError:
                return

    def say(self, **message: Any) -> None:
        messages.send(self.theirs, message)

    def vanish(self) -> None:
        self.theirs.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.vanish()
        self.pump.close()
        self._thread.join()
        for descriptor in (*self.kept, self.stderr):
            os.close(descriptor)
        self.theirs.close()


@pytest.fixture
def lab() -> Iterator[Lab]:
    made = Lab()
    try:
        yield made
    finally:
        made.close()


def a_program(lab: Lab, code: int = 0, out: bytes = b"", err: bytes = b"", keep: bool = False) -> Play:
    """Play a program that writes and exits at once; with `keep`, a child of it holds its standard output."""

    def play(request: dict[str, Any], descriptors: list[int]) -> None:
        os.write(descriptors[1], out)
        os.write(descriptors[2], err)
        if keep:
            lab.kept.append(descriptors[1])
        lab.say(id=request["id"], ok={"pid": 77, "started_ns": 5})
        lab.say(exited=request["id"], code=code, ended_ns=9)

    return play


def start(
    lab: Lab, stdin: bytes = b"", stdout: Callable[[bytes], None] | None = None
) -> tuple[LabProcess, bytearray]:
    seen = bytearray()
    process = lab.pump.start({}, stdin, stdout or seen.extend, seen.extend, 5)
    assert isinstance(process, LabProcess)
    return process, seen


@given(st.lists(st.tuples(JSON, st.integers(0, 3)), max_size=4))
def test_messages_arrive_as_they_were_sent_with_their_descriptors(sent: list[tuple[dict[str, Any], int]]) -> None:
    here, there = socket.socketpair()
    with here, there, open(os.devnull, "rb") as file:  # noqa: PTH123
        inode = os.fstat(file.fileno()).st_rdev
        for message, count in sent:
            messages.send(here, message, [file.fileno()] * count)
        here.shutdown(socket.SHUT_WR)
        reader, got = messages.Reader(there), []
        with pytest.raises(EOFError):
            while True:
                for message, descriptors in reader.receive():
                    assert {os.fstat(descriptor).st_rdev for descriptor in descriptors} <= {inode}
                    assert not any(os.get_inheritable(descriptor) for descriptor in descriptors)
                    got.append((message, len(descriptors)))
                    for descriptor in descriptors:
                        os.close(descriptor)
    assert got == sent


def test_a_message_in_pieces_is_one_message() -> None:
    here, there = socket.socketpair()
    with here, there:
        messages.send(here, {"text": "x" * 1000})
        data = there.recv(5000)
        reader = messages.Reader(there)
        for at in range(0, len(data), 100):
            here.sendall(data[at : at + 100])
            assert list(reader.receive()) == ([] if at + 100 < len(data) else [({"text": "x" * 1000}, [])])


def test_the_first_message_is_the_builders(lab: Lab) -> None:
    lab.say(ready={"userland": "overlay"})
    assert lab.pump.first_message(5) == {"ready": {"userland": "overlay"}}


def test_answers_find_who_asked_in_any_order(lab: Lab) -> None:
    held: list[int] = []

    def play(request: dict[str, Any], _: list[int]) -> None:
        held.append(request["id"])
        if len(held) == 3:
            for id in reversed(held):
                lab.say(id=id, ok={"was": id})

    lab.play = play
    got: list[dict[str, Any]] = []
    threads = [threading.Thread(target=lambda: got.append(lab.pump.ask({}, (), 5))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer["id"] for answer in got) == sorted(held)
    assert all(answer["ok"]["was"] == answer["id"] for answer in got)


def test_a_refusal_is_handed_back_and_leaves_no_process(lab: Lab) -> None:
    lab.play = lambda request, _: lab.say(id=request["id"], error={"kind": "not found", "message": "no"})
    answer = lab.pump.start({}, b"unread", bytes, bytes, 5)
    assert isinstance(answer, dict)
    assert answer["error"] == {"kind": "not found", "message": "no"}


def test_silence_is_an_error_with_its_time(lab: Lab) -> None:
    with pytest.raises(LabGone, match=r"no answer from the lab within 0\.01 s"):
        lab.pump.ask({}, (), 0.01)


def test_a_lab_that_goes_away_is_told_with_its_last_words(lab: Lab) -> None:
    def play(request: dict[str, Any], _: list[int]) -> None:
        os.write(lab.stderr, b"Traceback: out of luck\n")
        deadline = time.monotonic() + 5
        while b"luck" not in lab.pump._last_words and time.monotonic() < deadline:
            pass
        lab.vanish()

    lab.play = play
    with pytest.raises(LabGone, match="the lab has ended; its processes wrote: Traceback: out of luck"):
        lab.pump.ask({}, (), 5)
    with pytest.raises(LabGone, match="the lab has ended"):
        lab.pump.ask({}, (), 5)


@pytest.mark.parametrize(
    ("code", "exit"), [(0, 0), (255, 255), (-9, "SIGKILL"), (-37, "SIGRTMIN+3"), (-34, "SIGRTMIN")]
)
def test_output_is_complete_when_the_exit_is_known(lab: Lab, code: int, exit: int | str) -> None:
    lab.play = a_program(lab, code, out=b"o" * 50_000, err=b"e" * 50_000)
    process, seen = start(lab)
    assert process.wait(5)
    assert (process.pid, process.started_ns, process.ended_ns, process.exit) == (77, 5, 9, exit)
    assert (seen.count(b"o"), seen.count(b"e")) == (50_000, 50_000)


def test_output_held_open_is_not_waited_for_and_later_output_is_dropped(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pump, "GRACE_S", 0.01)
    lab.play = a_program(lab, out=b"its own", keep=True)
    process, seen = start(lab)
    assert process.wait(5)
    assert (bytes(seen), process.exit) == (b"its own", 0)
    written = 0
    while written < 300_000:  # more than a pipe holds: somebody still reads, so that the child can go on
        written += os.write(lab.kept[0], bytes(10_000))
    assert bytes(seen) == b"its own"


def test_a_program_is_running_until_it_has_ended(lab: Lab) -> None:
    asked: list[int] = []

    def play(request: dict[str, Any], descriptors: list[int]) -> None:
        asked.append(request["id"])
        lab.kept.extend(descriptors)
        lab.say(id=request["id"], ok={"pid": 1, "started_ns": 1})

    lab.play = play
    process, _ = start(lab)
    assert (process.exit, process.ended_ns, process.wait(0)) == (None, None, False)
    lab.vanish()
    lab.pump.close()
    assert process.exit == "SIGKILL"
    assert process.code == -signal.SIGKILL


def test_standard_input_larger_than_a_pipe_and_then_its_end(lab: Lab) -> None:
    data = os.urandom(1 << 20)
    got: list[bytes] = []

    def play(request: dict[str, Any], descriptors: list[int]) -> None:
        lab.say(id=request["id"], ok={"pid": 1, "started_ns": 1})
        for descriptor in descriptors[1:]:
            os.close(descriptor)
        with os.fdopen(descriptors[0], "rb") as stdin:
            got.append(stdin.read())
        descriptors.clear()
        lab.say(exited=request["id"], code=0, ended_ns=2)

    lab.play = play
    process, _ = start(lab, stdin=data)
    assert process.wait(5)
    assert got == [data]


def test_a_sink_that_fails_is_an_error_of_the_run(lab: Lab) -> None:
    def full(_: bytes) -> None:
        raise OSError(28, "No space left on device")

    lab.play = a_program(lab, out=b"lost")
    process, _ = start(lab, stdout=full)
    assert process.wait(5)
    with pytest.raises(EngineError, match=r"output of process 77.*No space left"):
        _ = process.exit
