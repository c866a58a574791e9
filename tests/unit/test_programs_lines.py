"""Both ends of a conversation in lines over loopback, and ends that break its rules."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from testbed.programs.lines import Conversation, line
from tests.unit.test_programs_cli import run, server

AT = "127.0.0.1"


def heard_and_said(record: dict[str, Any]) -> dict[str, int]:
    """Without the one number that depends on who is faster."""
    return {name: value for name, value in record.items() if name != "received_while_sending"}


def talk(to: str, *words: str) -> dict[str, Any]:
    status, records, err = run("lines", "talk", to, *words)
    assert (status, len(records), err) == (0, 1, "")
    return records[0]


def hears(data: bytes) -> Conversation:
    conversation = Conversation()
    ends = socket.socketpair()
    with ends[0] as near, ends[1] as far:
        far.sendall(data)
        far.shutdown(socket.SHUT_WR)
        conversation.receive(near)
    return conversation


@pytest.mark.parametrize(
    ("data", "received", "in_order"),
    [
        (b"", 0, 0),
        (b"line 0\nline 1\nline 2\n", 3, 3),
        (b"line 0\nline 2\nline 1\n", 3, 1),  # only what is in its own place counts
        (b"line 0\nline 0\nline 1\n", 3, 1),
        (b"line 1\nline 2\n", 2, 0),
        (b"line 0\nline 1", 2, 1),  # the mark at its end belongs to a line
    ],
)
def test_in_order_is_what_came_in_the_place_in_which_it_was_sent(
    data: bytes, received: int, in_order: int
) -> None:
    heard = hears(data)
    assert (heard.received, heard.in_order, heard.received_while_sending, heard.eof) == (
        received,
        in_order,
        0,
        True,
    )


def test_both_directions_are_whole_and_in_order() -> None:
    with server("lines", "serve", "--count", "70") as (to, at_server):
        client = talk(to, "--count", "50")
    assert heard_and_said(client) == {"sent": 50, "sent_after_eof": 0, "received": 70, "in_order": 70}
    assert {name: at_server[0][name] for name in ("sent", "received", "in_order")} == {
        "sent": 70,
        "received": 50,
        "in_order": 50,
    }
    assert at_server[1:] == [{"connections": 1}]


def test_each_end_hears_the_other_while_it_speaks() -> None:
    """The client's third line is due after the server's first has come, which waits for the client's first."""
    with socket.create_server((AT, 0)) as listener:
        heard = threading.Event()

        def answer() -> None:
            connection, _ = listener.accept()
            with connection, connection.makefile("rb") as said:
                said.readline()
                connection.sendall(line(0))
                heard.set()
                said.read()

        thread = threading.Thread(target=answer)
        thread.start()
        conversation = Conversation()

        def numbers() -> Iterator[int]:
            yield 0
            assert heard.wait(30)
            while not conversation.received:
                pass
            yield 1

        with socket.create_connection(listener.getsockname()) as sock:
            conversation.both(sock, numbers(), 0, ends_first=True)
        thread.join()
    assert (conversation.sent, conversation.received_while_sending) == (2, 1)


def test_a_server_that_waits_sends_after_the_end_of_file_and_all_of_it_is_heard() -> None:
    with server("lines", "serve", "--count", "20", "--after-peer") as (to, at_server):
        client = talk(to, "--count", "5")
    assert client == {
        "sent": 5,
        "sent_after_eof": 0,
        "received": 20,
        "in_order": 20,
        "received_while_sending": 0,
    }
    assert at_server[0] == {
        "sent": 20,
        "sent_after_eof": 20,
        "received": 5,
        "in_order": 5,
        "received_while_sending": 0,
    }


def test_reverse_is_heard_as_out_of_order() -> None:
    with server("lines", "serve") as (to, at_server):
        talk(to, "--count", "4", "--reverse")
    assert (at_server[0]["received"], at_server[0]["in_order"]) == (4, 0)


def test_who_closes_both_halves_hears_nothing() -> None:
    with server("lines", "serve", "--count", "20", "--after-peer") as (to, at_server):
        assert talk(to, "--count", "3", "--close")["received"] == 0
        talk(to)  # the server takes one after the other, so the first is over by now
    assert (at_server[0]["received"], at_server[0]["in_order"]) == (3, 3)


def test_a_peer_that_resets_is_an_error_by_name() -> None:
    with socket.create_server((AT, 0)) as listener:

        def abort() -> None:
            connection, _ = listener.accept()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.close()

        thread = threading.Thread(target=abort)
        thread.start()
        status, records, _ = run("lines", "talk", f"{AT}:{listener.getsockname()[1]}", "--count", "3")
        thread.join()
    assert status == 1
    assert records[-1]["error"] in ("ECONNRESET", "EPIPE", "ENOTCONN")  # whichever call meets it
