"""Who may have a port and who gets what, on loopback, with ports that the kernel chooses."""

from __future__ import annotations

import socket
import threading
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from testbed.programs import ports
from testbed.programs._errors import Failed
from testbed.programs._life import Terminated
from testbed.programs.ports import Ask, Bind, Server, bound
from tests.unit.test_programs_docs import documented, keys

UDP, TCP = socket.SOCK_DGRAM, socket.SOCK_STREAM
HERE = "127.0.0.1"


def asking(port: int, count: int) -> Namespace:
    return Namespace(to=(HERE, port), count=count, bind=None, device=None)


@contextmanager
def server(monkeypatch: pytest.MonkeyPatch, how_many: int) -> Iterator[tuple[Server, list[int]]]:
    """A server that owns so many ports, in a thread; it ends when a datagram `stop` comes to it."""
    serving, ready = Server(), threading.Event()
    monkeypatch.setattr(ports, "say_ready", ready.set)
    answer = serving._answer

    def answer_or_stop(sock: socket.socket) -> None:
        if sock.recv(100, socket.MSG_PEEK) == b"stop":
            raise Terminated
        answer(sock)

    monkeypatch.setattr(serving, "_answer", answer_or_stop)

    def serve() -> None:
        with pytest.raises(Terminated):
            serving.serve(HERE, [0] * how_many, shared=False)

    thread = threading.Thread(target=serve)
    thread.start()
    assert ready.wait(10)
    mine = list(serving.received)
    try:
        yield serving, mine
    finally:
        with socket.socket(socket.AF_INET, UDP) as stopper:
            stopper.sendto(b"stop", (HERE, mine[0]))
        thread.join()


# ---------------------------------------------------------------- taking one


@pytest.mark.parametrize("kind", [UDP, TCP])
def test_a_port_can_be_had_once_and_again_when_it_was_let_go(kind: socket.SocketKind) -> None:
    with bound(kind, (HERE, 0)) as first:
        address = first.getsockname()
        with pytest.raises(Failed) as problem:
            bound(kind, address)
        assert problem.value.name == "EADDRINUSE"
    bound(kind, address).close()


def test_the_same_number_is_free_for_the_other_protocol() -> None:
    with bound(UDP, (HERE, 0)) as first, bound(TCP, first.getsockname()) as second:
        assert first.getsockname() == second.getsockname()


def test_a_port_is_shared_only_among_those_who_all_say_so() -> None:
    with bound(UDP, (HERE, 0), shared=True) as first:
        address = first.getsockname()
        bound(UDP, address, shared=True).close()
        with pytest.raises(Failed) as problem:
            bound(UDP, address)
        assert problem.value.name == "EADDRINUSE"


@pytest.mark.parametrize("kind", [UDP, TCP])
def test_bind_says_which_port_it_had(kind: socket.SocketKind) -> None:
    taker = Bind()
    assert list(taker.records()) == [{"bound": "no"}]
    taker.work(kind, (HERE, 0))
    assert list(taker.records()) == [{"bound": "yes", "port": taker.port}]
    assert taker.port
    assert documented("ports bind") == keys(taker.records()) | {"error"}


def test_bind_lets_go_of_what_it_could_not_have() -> None:
    with bound(UDP, (HERE, 0)) as owner:
        taker = Bind()
        with pytest.raises(Failed):
            taker.work(UDP, owner.getsockname())
    assert list(taker.records()) == [{"bound": "no"}]


# ---------------------------------------------------------------- a server and its clients


def test_each_of_a_servers_ports_gets_what_was_sent_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with server(monkeypatch, 2) as (serving, (first, second)):
        for port, count in ((first, 3), (second, 2)):
            client = Ask()
            client.work(asking(port, count))
            *samples, summary = client.records()
            assert samples == [{"local_port": local} for local in client.local_ports]
            assert summary == {"answered": count, "misnamed": 0, "local_ports": count}
    assert list(serving.records()) == [
        {"port": first, "received": 3},
        {"port": second, "received": 2},
        {"misdelivered": 0},
    ]
    assert documented("ports serve") == keys(serving.records()) | {"error"}
    assert documented("ports ask") == keys(client.records()) | {"error"}


def test_a_datagram_that_was_meant_for_another_port_is_misdelivered(monkeypatch: pytest.MonkeyPatch) -> None:
    with server(monkeypatch, 1) as (serving, (port,)), bound(UDP, (HERE, 0)) as client:
        client.settimeout(10)
        client.sendto(b"1", (HERE, port))
        assert client.recv(100) == str(client.getsockname()[1]).encode()
    assert serving.misdelivered == 1


def test_an_answer_with_another_port_is_misnamed() -> None:
    with bound(UDP, (HERE, 0)) as liar:

        def lie() -> None:
            liar.sendto(b"1", liar.recvfrom(100)[1])

        thread = threading.Thread(target=lie)
        thread.start()
        client = Ask()
        client.work(asking(liar.getsockname()[1], 1))
        thread.join()
    assert (client.answered, client.misnamed) == (1, 1)


def error_of(port: int) -> tuple[str, list[dict[str, Any]]]:
    client = Ask()
    with pytest.raises(Failed) as problem:
        client.work(asking(port, 2))
    return problem.value.name, list(client.records())[-1:]


def test_a_port_that_nobody_has_refuses_the_question() -> None:
    with bound(UDP, (HERE, 0)) as free:
        port = free.getsockname()[1]
    assert error_of(port) == ("ECONNREFUSED", [{"answered": 0, "misnamed": 0, "local_ports": 1}])


def test_a_question_without_an_answer_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "ANSWER_TIMEOUT_S", 0.01)
    with bound(UDP, (HERE, 0)) as silent:
        assert error_of(silent.getsockname()[1])[0] == "ETIMEDOUT"
