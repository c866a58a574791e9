"""The conversation between the orchestrator's client and the agent's loop, without a kernel behind it."""

from __future__ import annotations

import base64
import json
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from testbed.agent.client import AgentClient
from testbed.agent.loop import Agent, Loop
from testbed.conditions.condition import Condition
from testbed.errors import CapabilityError, ConditionError, EngineError, TestbedError
from testbed.plan import types


class Scripted(Agent):
    """An agent that does what the test says, and remembers what it was asked."""

    def __init__(self, **operations: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        super().__init__()
        self.asked: list[dict[str, Any]] = []
        self.undone = 0
        self._scripted = operations

    def operations(self) -> dict[str, Callable[[dict[str, Any]], dict[str, Any]]]:
        def remembered(do: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
            def operation(request: dict[str, Any]) -> dict[str, Any]:
                self.asked.append(request)
                return self._scripted[do](request)

            return operation

        return {do: remembered(do) for do in self._scripted}

    def undo(self) -> list[str]:
        self.undone += 1
        return []


def fail(problem: Exception) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def operation(_: dict[str, Any]) -> dict[str, Any]:
        raise problem

    return operation


@pytest.fixture
def pipes() -> Iterator[tuple[int, int, int, int]]:
    """What the loop reads, who writes that, who reads what the loop writes, what the loop writes."""
    ends = [*os.pipe(), *os.pipe()]
    yield ends[0], ends[1], ends[2], ends[3]
    for end in ends:
        try:
            os.close(end)
        except OSError:
            continue  # the test closed it


def converse(agent: Agent, pipes: tuple[int, int, int, int], *lines: str) -> list[dict[str, Any]]:
    """Say these lines, end the input, and return all that the agent said."""
    source, say, hear, sink = pipes
    os.write(say, "".join(f"{line}\n" for line in lines).encode())
    os.close(say)
    Loop(agent, source, sink).run()
    os.close(sink)
    said = b""
    while piece := os.read(hear, 1 << 16):
        said += piece
    return [json.loads(line) for line in said.splitlines()]


def test_requests_are_answered_in_order_and_all_is_undone_at_the_end(pipes: tuple[int, int, int, int]) -> None:
    agent = Scripted(add=lambda request: {"sum": request["a"] + request["b"]})
    said = converse(
        agent,
        pipes,
        '{"id": 1, "do": "add", "a": 1, "b": 2}',
        '{"do": "alive"}',
        '{"id": 2, "do": "add", "a": 3, "b": 4}',
    )
    assert said == [{"id": 1, "ok": {"sum": 3}}, {"id": 2, "ok": {"sum": 7}}]
    assert agent.undone == 1


@pytest.mark.parametrize(
    ("problem", "kind", "message"),
    [
        (ConditionError("not in force"), "condition", "not in force"),
        (CapabilityError("no cls_bpf"), "capability", "no cls_bpf"),
        (EngineError("broken"), "engine", "broken"),
        (OSError(2, "No such file"), "engine", "FileNotFoundError: [Errno 2] No such file"),
        (KeyError("pid"), "engine", "KeyError: 'pid'"),
    ],
)
def test_errors_are_answers_and_the_next_request_is_heard(
    pipes: tuple[int, int, int, int], problem: Exception, kind: str, message: str
) -> None:
    agent = Scripted(do_it=fail(problem), again=lambda _: {})
    said = converse(agent, pipes, '{"id": 1, "do": "do_it"}', '{"id": 2, "do": "again"}')
    assert said[0]["error"]["kind"] == kind
    assert message in said[0]["error"]["message"]
    assert said[1] == {"id": 2, "ok": {}}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("no json", "JSONDecodeError"),
        ('{"id": 1}', "KeyError: 'do'"),
        ("[]", "AttributeError"),
        ('{"id": 1, "do": "fly"}', "this agent cannot do 'fly'; it can walk"),
    ],
)
def test_what_is_no_request_is_said_to_be_none(pipes: tuple[int, int, int, int], line: str, said: str) -> None:
    (answer,) = converse(Scripted(walk=lambda _: {}), pipes, line)
    assert said in answer["error"]["message"]


def test_a_long_answer_comes_whole(pipes: tuple[int, int, int, int]) -> None:
    source, say, hear, sink = pipes
    agent = Scripted(much=lambda _: {"data": "x" * 300_000})
    os.write(say, b'{"id": 1, "do": "much"}\n')
    os.close(say)
    heard = bytearray()

    def listen() -> None:
        while piece := os.read(hear, 1 << 16):
            heard.extend(piece)

    listener = threading.Thread(target=listen)
    listener.start()
    Loop(agent, source, sink).run()
    os.close(sink)
    listener.join()
    assert json.loads(heard)["ok"]["data"] == "x" * 300_000


def test_signs_of_life_come_unasked_and_silence_ends_it(pipes: tuple[int, int, int, int]) -> None:
    source, _, hear, sink = pipes
    agent = Scripted()
    began = time.monotonic()
    Loop(agent, source, sink, alive_every_s=0.01, silence_s=0.5).run()
    took = time.monotonic() - began
    lines = [json.loads(line) for line in os.read(hear, 1 << 16).splitlines()]
    assert took >= 0.5
    assert 1 <= len(lines) <= 51
    assert all(began <= line["alive"] <= began + took for line in lines)
    assert agent.undone == 1


def test_a_wire_that_ended_is_told_unasked_and_once(
    pipes: tuple[int, int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, _, hear, sink = pipes
    agent = Scripted()
    monkeypatch.setattr(agent.links, "lost", lambda: "the wire ended with status -9")
    Loop(agent, source, sink, alive_every_s=0.02, silence_s=0.5).run()
    lines = [json.loads(line) for line in os.read(hear, 1 << 16).splitlines()]
    assert [line for line in lines if "alive" not in line] == [{"lost": "the wire ended with status -9"}]


def test_who_reads_no_more_ends_it(pipes: tuple[int, int, int, int]) -> None:
    source, say, hear, sink = pipes
    os.close(hear)
    agent = Scripted(hello=lambda _: {})
    os.write(say, b'{"id": 1, "do": "hello"}\n')
    Loop(agent, source, sink).run()
    assert agent.undone == 1


def test_who_hangs_instead_of_reading_ends_it(pipes: tuple[int, int, int, int]) -> None:
    source, say, _, sink = pipes
    agent = Scripted(much=lambda _: {"data": "x" * 300_000})
    os.write(say, b'{"id": 1, "do": "much"}\n')
    Loop(agent, source, sink, silence_s=0.05).run()
    assert agent.undone == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it_after_the_request_at_hand(
    pipes: tuple[int, int, int, int], number: signal.Signals
) -> None:
    source, say, hear, sink = pipes

    def strike(_: dict[str, Any]) -> dict[str, Any]:
        os.kill(os.getpid(), number)
        return {"done": True}

    agent = Scripted(strike=strike)
    before = signal.getsignal(number)
    os.write(say, b'{"id": 1, "do": "strike"}\n{"id": 2, "do": "strike"}\n')
    Loop(agent, source, sink).run()
    assert json.loads(os.read(hear, 1 << 16)) == {"id": 1, "ok": {"done": True}}
    assert agent.undone == 1
    assert signal.getsignal(number) is before


def test_ctrl_c_is_not_for_the_agent(pipes: tuple[int, int, int, int]) -> None:
    def strike(_: dict[str, Any]) -> dict[str, Any]:
        os.kill(os.getpid(), signal.SIGINT)
        return {}

    agent = Scripted(strike=strike)
    assert len(converse(agent, pipes, '{"id": 1, "do": "strike"}', '{"id": 2, "do": "strike"}')) == 2


def test_undoing_goes_on_after_each_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def open_door(bridge: str) -> None:
        opened.append(bridge)
        if bridge == "br1":
            raise EngineError("br1 is stuck")

    monkeypatch.setattr("testbed.agent.filters.open_door", open_door)
    monkeypatch.setattr("testbed.agent.filters.shut_door", lambda bridge: {})
    agent = Agent()
    agent.door({"bridges": ["br0", "br1", "br2"]})
    assert agent.undo() == ["br1 is stuck"]
    assert opened == ["br0", "br1", "br2"]
    assert agent.undo() == []


def test_a_host_that_nobody_registered() -> None:
    with pytest.raises(EngineError, match="this agent knows no host 'a'; it knows none"):
        Agent().lookup({"host": "a", "command": "ls", "path": "/", "working_dir": "/"})


# the client


class Channel:
    """What a test answers to each request; None: the agent is gone."""

    def __init__(self, *answers: dict[str, Any] | None) -> None:
        self._answers = list(answers)
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.requests: list[dict[str, Any]] = []
        self.alive = threading.Semaphore(0)
        self.closed = 0

    def write(self, line: bytes) -> None:
        assert line.endswith(b"\n")
        request = json.loads(line)
        if request["do"] == "alive":
            self.alive.release()
            return
        self.requests.append(request)
        answer = self._answers.pop(0)
        if answer is None:
            self._lines.put(b"")
        else:
            self._lines.put(json.dumps({"id": request["id"]} | answer).encode() + b"\n")

    def say(self, line: bytes) -> None:
        self._lines.put(line)

    def readline(self) -> bytes:
        return self._lines.get()

    def close(self) -> None:
        self.closed += 1


def ask(do: Callable[[AgentClient], Any], *answers: dict[str, Any] | None) -> tuple[Any, list[dict[str, Any]]]:
    channel = Channel(*answers)
    client = AgentClient(channel)
    try:
        return do(client), channel.requests
    finally:
        client.close()
        client.close()
        assert channel.closed == 1


NIC = {
    "a": types.Interface("eth0", "lan", "198.18.0.2", 24, "02:42:c6:12:00:02"),
    "b": types.Interface("eth0", "lan", "198.18.0.3", 24, "02:42:c6:12:00:03"),
}


def plan() -> types.Plan:
    hosts = tuple(
        types.Host(
            name=name, group=None, index=1, image=None, build=None, interfaces=(nic,), names=(),
            routes=(types.Route("224.0.0.0/4", "eth0"),), neighbours=(), capabilities=(), volumes=(), programs=(),
            sysctls={"net.ipv4.tcp_no_metrics_save": "1"},
        )
        for name, nic in NIC.items()
    )  # fmt: skip
    link = types.Link("a->b over lan", "a", "b", "lan", Condition(delay_ns=7), "a -> b", 3)
    return types.Plan(
        scenario="s", about="", file="s.yaml", tags=(), seed=9, timeout_ns=1, duration_ns=None, requires=(),
        networks=(types.Network("lan", "198.18.0.0/24", "198.18.0.1"),), hosts=hosts, groups={}, volumes=(),
        programs=(), links=(link,), expectations=(), ends=types.Ends(), fails_when=(),
    )  # fmt: skip


def test_hosts_of_a_plan() -> None:
    answer, (request,) = ask(lambda c: c.hosts(plan(), {"a": 11, "b": 12}), {"ok": {"hosts": {"a": {}, "b": {}}}})
    assert answer == {"a": {}, "b": {}}
    assert request["hosts"][1] == {
        "name": "b",
        "pid": 12,
        "interfaces": [
            {
                "name": "eth0",
                "network": "lan",
                "ip": "198.18.0.3",
                "prefix_bits": 24,
                "mac": "02:42:c6:12:00:03",
                "ip6": None,
                "prefix6_bits": None,
            }
        ],
        "routes": [{"to": "224.0.0.0/4", "dev": "eth0", "src": None}],
        "neighbours": [],
        "sysctls": {"net.ipv4.tcp_no_metrics_save": "1"},
        "congestion": "cubic",
    }


def test_conditions_of_a_plan_are_where_the_proof_starts() -> None:
    start = {"links": {"a->b over lan": {"delay_ns": 7}}, "hosts": {}}
    end = {"problems": [["error", "a", "gone"]], "hosts": {}, "links": {}, "ring": {}, "canary_p99_ns": 5}
    proof, requests = ask(lambda c: (c.conditions(plan()), c.check())[1], {"ok": start}, {"ok": end})
    assert requests[0]["seed"] == 9
    assert requests[0]["links"] == [
        {
            "id": "a->b over lan",
            "source": "a",
            "target": "b",
            "network": "lan",
            "source_mac": "02:42:c6:12:00:02",
            "target_mac": "02:42:c6:12:00:03",
            "source_dev": "eth0",
            "condition": {"delay_ns": 7},
        }
    ]
    assert proof == {
        "problems": [("error", "a", "gone")],
        "start": start,
        "end": {"hosts": {}, "links": {}, "ring": {}},
        "canary_p99_ns": 5,
    }


def test_the_ledger_is_joined() -> None:
    def piece(data: bytes, following: int | None) -> dict[str, Any]:
        return {"ok": {"data": base64.b64encode(data).decode(), "next": following}}

    whole, requests = ask(lambda c: c.ledger(), piece(b"abc", 3), piece(b"de", None))
    assert whole == b"abcde"
    assert [request["offset"] for request in requests] == [0, 3]


@pytest.mark.parametrize(
    ("do", "answer", "returned", "request_"),
    [
        (
            lambda c: c.lookup("a", "nc", "/bin", "/"),
            {"found": None},
            None,
            {"do": "lookup", "host": "a", "command": "nc", "path": "/bin", "working_dir": "/"},
        ),
        (
            lambda c: c.signal("a", 5, "TERM", tree=True),
            {"sent": [5, 6]},
            [5, 6],
            {"do": "signal", "host": "a", "pid": 5, "signal": "TERM", "tree": True},
        ),
        (lambda c: c.sockets("a", 5), {"sockets": []}, [], {"do": "sockets", "host": "a", "pid": 5}),
        (
            lambda c: c.counters(("a",)),
            {"hosts": {"a": {"X": 1}}},
            {"a": {"X": 1}},
            {"do": "counters", "hosts": ["a"]},
        ),
        (
            lambda c: c.lacking(("sctp",)),
            {"lacking": {"sctp": "why"}},
            {"sctp": "why"},
            {"do": "lacking", "words": ["sctp"]},
        ),
        (lambda c: c.door(["br0"]), {"bridges": {}}, None, {"do": "door", "bridges": ["br0"]}),
        (lambda c: c.hello(), {"fate": 1}, {"fate": 1}, {"do": "hello"}),
    ],
)
def test_requests(
    do: Callable[[AgentClient], Any], answer: dict[str, Any], returned: Any, request_: dict[str, Any]
) -> None:
    got, (request,) = ask(do, {"ok": answer})
    assert got == returned
    assert request == request_ | {"id": 1}


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("condition", ConditionError),
        ("capability", CapabilityError),
        ("engine", EngineError),
        ("new", EngineError),
    ],
)
def test_errors_become_exceptions(kind: str, error: type[Exception]) -> None:
    with pytest.raises(error, match="it is so") as caught:
        ask(lambda c: c.hello(), {"error": {"kind": kind, "message": "it is so"}})
    assert type(caught.value) is error


def test_a_dead_agent() -> None:
    with pytest.raises(EngineError, match="the agent ended: end of its output, asked for hello"):
        ask(lambda c: c.hello(), None)


def told_unasked(client: AgentClient) -> str:
    """What a client that asks nothing comes to know within a while."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            client.still_there()
        except TestbedError as problem:
            return f"{type(problem).__name__}: {problem}"
        time.sleep(0.001)
    return ""


@pytest.mark.parametrize(
    ("line", "known"),
    [
        (b"", "EngineError: the agent ended in mid-run: end of its output; nothing holds or proves"),
        (b"Traceback\n", "EngineError: the agent ended in mid-run: Expecting value"),
        (b'{"lost": "the wire ended"}\n', "ConditionError: the conditions are not in force: the wire ended"),
    ],
)
def test_the_end_of_the_agent_or_its_wire_is_known_without_asking(line: bytes, known: str) -> None:
    channel = Channel()
    client = AgentClient(channel)
    try:
        client.still_there()
        channel.say(b'{"alive": 3}\n')
        channel.say(line)
        assert told_unasked(client).startswith(known)
    finally:
        client.close()


def test_an_answer_that_came_just_before_the_end_is_an_answer() -> None:
    channel = Channel({"ok": {}}, {"ok": {}}, {"ok": {}})  # of which none is heard
    channel.say(b'{"id": 1, "ok": {"fate": 1}}\n')
    channel.say(b"")
    client = AgentClient(channel)
    try:
        assert "the agent ended" in told_unasked(client)
        assert client.hello() == {"fate": 1}
        for _ in range(2):
            with pytest.raises(EngineError, match="end of its output, asked for hello"):
                client.hello()
    finally:
        client.close()


@pytest.mark.parametrize("line", [b"not json\n", b'{"id": 77, "ok": {}}\n'])
def test_an_answer_to_nothing_that_was_asked(line: bytes) -> None:
    channel = Channel({"ok": {}})
    channel.say(line)
    client = AgentClient(channel)
    try:
        with pytest.raises(EngineError, match="the agent"):
            client.hello()
    finally:
        client.close()


def test_signs_of_life_are_passed_over_and_sent() -> None:
    channel = Channel({"ok": {"fate": 1}})
    channel.say(b'{"alive": 3}\n')
    client = AgentClient(channel, alive_every_s=0.001)
    try:
        assert client.hello() == {"fate": 1}
        assert channel.alive.acquire(timeout=10)
        assert channel.alive.acquire(timeout=10)
    finally:
        client.close()


def test_many_threads_ask_one_at_a_time() -> None:
    channel = Channel(*[{"ok": {"n": n}} for n in range(50)])
    client = AgentClient(channel)
    got: queue.SimpleQueue[int] = queue.SimpleQueue()
    threads = [threading.Thread(target=lambda: got.put(client.hello()["n"])) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client.close()
    assert sorted(got.get() for _ in threads) == list(range(50))
