"""Boundaries, resets, names and lives of TCP sockets over loopback, and that each fault is noticed."""

from __future__ import annotations

import json
import signal
import socket
import threading
from contextlib import suppress
from typing import Any

import pytest

from testbed.programs import abort, names, pieces
from testbed.programs._errors import Failed
from tests.unit.test_programs_cli import finish, run, server, start

AT = "127.0.0.1"


def reset(to: str) -> None:
    """Connect, send one byte and break off."""
    host, port = to.split(":")
    with socket.create_connection((host, int(port))) as sock:
        sock.sendall(b"x")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, abort.ABORT)


# ---------------------------------------------------------------- pieces


def cut(count: int, size: int, *, buffer: int = 65536, wait_for: int = 1) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the sender and the receiver report of one sequence, sent whole before the first read."""
    sends, reads = pieces.Count(), pieces.Count()
    with socket.create_server((AT, 0)) as listener, socket.create_connection(listener.getsockname()) as sock:
        connection, _ = listener.accept()

        def take() -> None:
            with connection:
                assert len(connection.recv(count * size, socket.MSG_PEEK | socket.MSG_WAITALL)) == count * size
                pieces.receive(connection, buffer, wait_for, reads)

        thread = threading.Thread(target=take)
        thread.start()
        pieces.send(sock, count, size, 0, sends)
        thread.join()
    return sends.record("sends"), reads.record("reads")


@pytest.mark.parametrize(
    ("count", "size", "buffer", "reads"), [(3, 100, 65536, 1), (1, 300, 100, 3), (3, 100, 150, 2), (1, 7, 7, 1)]
)
def test_sends_and_reads_are_cut_by_each_end_for_itself(count: int, size: int, buffer: int, reads: int) -> None:
    sent, got = cut(count, size, buffer=buffer)
    assert (sent["sends"], got["reads"]) == (count, reads)
    assert sent["payload_bytes"] == got["payload_bytes"] == count * size
    assert sent["sha256"] == got["sha256"]


def test_the_sequence_does_not_depend_on_the_cuts() -> None:
    assert cut(3, 100)[0]["sha256"] == cut(1, 300)[0]["sha256"] != cut(1, 299)[0]["sha256"]


def test_a_read_waits_for_what_it_was_told_to_and_the_last_one_for_the_end() -> None:
    reads = pieces.Count()
    with socket.create_server((AT, 0)) as listener, socket.create_connection(listener.getsockname()) as sock:
        connection, _ = listener.accept()
        thread = threading.Thread(target=pieces.receive, args=(connection, 65536, 30, reads))
        with connection:
            thread.start()
            for _ in range(4):
                sock.sendall(b"0123456789")
            sock.shutdown(socket.SHUT_WR)
            thread.join()
    assert reads.payload_bytes == 40
    assert reads.calls <= 2  # 30 and 10, or 40 if the reader was late


def test_a_sender_that_breaks_off_does_not_end_the_receiver() -> None:
    with server("pieces", "receive", "--wait-for", "2B") as (to, at_receiver):
        reset(to)
        status, records, _ = run("pieces", "send", to, "--count", "1", "--size", "3B")
    assert (status, records[0]["sends"]) == (0, 1)
    assert [record.get("payload_bytes") for record in at_receiver][1:] == [3, None]
    assert at_receiver[-1] == {"error": "ECONNRESET"}


# ---------------------------------------------------------------- abort


def test_a_reset_is_told_once_and_then_there_is_no_connection() -> None:
    with server("abort", "serve", "--after", "100kB") as (to, at_server):
        status, records, err = run("abort", "send", to, "--bytes", "100MB")
    assert status == 1
    assert [r["error"] for r in records if "error" in r] == ["ECONNRESET", "EPIPE"]
    assert 100_000 <= records[1]["payload_bytes"] < 100_000_000
    assert err.startswith("abort send: sending once more, after ECONNRESET: EPIPE: ")
    assert at_server == [{"connections": 1, "aborted": 1, "payload_bytes": 100_000, "errors": 0}]


def test_a_peer_that_has_less_to_send_is_not_reset() -> None:
    with server("abort", "serve", "--after", "100kB") as (to, at_server):
        assert run("abort", "send", to, "--bytes", "99kB") == (0, [{"payload_bytes": 99_000}], "")
    assert at_server == [{"connections": 1, "aborted": 0, "payload_bytes": 99_000, "errors": 0}]


def test_a_client_that_breaks_off_does_not_end_the_server() -> None:
    with server("abort", "serve", "--after", "100kB") as (to, at_server):
        reset(to)
        assert run("abort", "send", to, "--bytes", "99kB")[0] == 0
    assert at_server[0] == {"error": "ECONNRESET"}
    assert (at_server[1]["connections"], at_server[1]["errors"]) == (2, 1)


class TakesMore:
    """A socket that fails once and then goes on as if nothing had been."""

    def __init__(self) -> None:
        self.answers: list[Any] = [10, ConnectionResetError(104, "reset"), 10]

    def send(self, _data: bytes) -> int:
        answer = self.answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return int(answer)


def test_a_socket_that_takes_more_after_a_reset_breaks_its_promise() -> None:
    client = abort.Client()
    with pytest.raises(Failed, match="after ECONNRESET the socket took more") as failed:
        client.send(TakesMore(), 100)  # type: ignore[arg-type]
    assert failed.value.name == "EBADMSG"
    assert client.records() == [{"error": "ECONNRESET"}, {"payload_bytes": 10}]


# ---------------------------------------------------------------- names


def test_both_ends_agree_and_a_wildcard_learns_its_address_from_the_connection() -> None:
    records: list[dict[str, Any]] = []
    with socket.create_server(("0.0.0.0", 0)) as listener:
        port = listener.getsockname()[1]

        def serve() -> None:
            with suppress(Failed):
                names.serve(listener, records, [])

        thread = threading.Thread(target=serve)
        thread.start()
        found: list[dict[str, Any]] = []
        for address in (AT, "127.0.0.2"):
            with socket.create_connection((address, port)) as sock:
                found.append({})
                names.ask(sock, found[-1])
        listener.shutdown(socket.SHUT_RDWR)  # ends the accept
        thread.join()
    assert [record["agree"] for record in found] == ["yes", "yes"]
    assert [record["remote"] for record in found] == [f"{AT}:{port}", f"127.0.0.2:{port}"]
    assert records == [
        {"bound": f"0.0.0.0:{port}"},
        *({"local": record["remote"], "remote": record["local"]} for record in found),
    ]


def test_a_client_that_is_gone_before_it_is_told_does_not_end_the_server() -> None:
    records: list[dict[str, Any]] = []
    errors: list[str] = []
    with socket.create_server((AT, 0)) as listener:
        reset(f"{AT}:{listener.getsockname()[1]}")  # before anybody accepts it

        def serve() -> None:
            with suppress(Failed):
                names.serve(listener, records, errors)

        thread = threading.Thread(target=serve)
        thread.start()
        with socket.create_connection(listener.getsockname()) as sock:
            names.ask(sock, {})
        listener.shutdown(socket.SHUT_RDWR)  # ends the accept
        thread.join()
    assert len(errors) == 1
    assert ("local" in records[1], "local" in records[2]) == (False, True)


@pytest.mark.parametrize("change", [lambda local, remote: (remote, local), lambda local, remote: (local, "?")])
def test_names_that_do_not_agree_are_an_error(change: Any) -> None:
    with socket.create_server((AT, 0)) as listener, socket.create_connection(listener.getsockname()) as sock:
        connection, _ = listener.accept()
        with connection:
            local, remote = change(*names.names(connection).values())
            connection.sendall(json.dumps({"local": local, "remote": remote}).encode() + b"\n")
            record: dict[str, Any] = {}
            with pytest.raises(Failed) as failed:
                names.ask(sock, record)
    assert (failed.value.name, record["agree"]) == ("EBADMSG", "no")


# ---------------------------------------------------------------- life

GOOD = {
    "before_listen": "ECONNREFUSED",
    "after_listen": "connected",
    "after_close": "ECONNREFUSED",
    "whole": "yes",
    "eof": "yes",
}


def test_a_life_from_socket_to_close() -> None:
    with server("life", "serve") as (to, at_server):
        assert run("life", "visit", to) == (0, [GOOD], "")
    assert at_server == [
        {"step": "socket", "state_after_socket": "CLOSE"},
        {"step": "bind", "state_after_bind": "CLOSE"},
        {"step": "listen", "state_after_listen": "LISTEN"},
        {"step": "accept", "state_after_accept": "ESTABLISHED"},
        {"step": "transfer"},
        {"step": "close"},
    ]


def test_a_server_comes_back_while_its_old_connection_times_out() -> None:
    with server("life", "serve") as (to, _):
        assert run("life", "visit", to) == (0, [GOOD], "")
    with start("life", "serve", "--port", to.partition(":")[2], "--bind", AT) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "READY\n"
        program.send_signal(signal.SIGTERM)
        status, _, err = finish(program)
    assert (status, err) == (0, "")


@pytest.mark.parametrize(
    ("fault", "seen"),
    [
        ("listen-early", {"before_listen": "connected", "whole": "no", "eof": "no"}),
        (
            "no-listen",
            {"before_listen": "ECONNREFUSED", "after_listen": "ECONNREFUSED", "whole": "no", "eof": "no"},
        ),
        ("no-close", {**GOOD, "after_close": "connected"}),
    ],
)
def test_a_fault_in_a_life_is_seen(fault: str, seen: dict[str, str]) -> None:
    with server("life", "serve", "--fault", fault) as (to, _):
        assert run("life", "visit", to) == (0, [seen], "")


def test_a_step_out_of_turn_is_refused() -> None:
    with start("life", "serve", "--port", "0", "--bind", AT) as program:
        assert program.stdout is not None and program.stderr is not None
        port = int(program.stderr.readline().split()[1])
        assert program.stdout.readline() == "READY\n"
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"close", (AT, port))
        status, records, err = finish(program)
    assert (status, records[-1]) == (1, {"error": "EBADMSG"})
    assert err == "life serve: a visitor asks for b'close', and listen is next\n"
