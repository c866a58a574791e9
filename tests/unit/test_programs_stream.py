"""Servers and clients over real loopback connections, and clients against peers that break their word."""

from __future__ import annotations

import hashlib
import json
import random
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from testbed.programs import stream, stream_client
from testbed.programs._errors import Failed, Unsupported
from testbed.programs._sending import pattern
from testbed.programs.stream_client import Bulk, Send
from testbed.programs.stream_server import Conversation, Converse, Server, echo, receipt, sink

Peer = Callable[[socket.socket], None]


@contextmanager
def serving(talk: Peer) -> Iterator[str]:
    """HOST:PORT of a peer that accepts one connection and talks on it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            connection, _ = listener.accept()
            with connection:
                talk(connection)

        thread = threading.Thread(target=accept)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


def server(converse: Converse, record: Conversation) -> Peer:
    return lambda connection: converse(connection, record)


def arguments(*words: str) -> Any:
    return stream._parser().parse_args(words)


def send(to: str, *words: str) -> Send:
    client = Send()
    client.work(arguments("send", to, *words))
    return client


def bulk(to: str, *words: str) -> Bulk:
    client = Bulk()
    client.work(arguments("bulk", to, *words))
    return client


# ---------------------------------------------------------------- send and echo


def test_every_request_comes_back_and_each_gives_a_delay() -> None:
    seen = Conversation()
    with serving(server(echo, seen)) as to:
        client = send(to, "--count", "5", "--size", "1000B")
    *samples, summary = client.records()
    assert [list(sample) for sample in samples] == [["round_trip_delay_ms"]] * 5
    assert all(sample["round_trip_delay_ms"] > 0 for sample in samples)
    assert (summary["sent"], summary["received"], summary["corrupted"], summary["whole"]) == (5, 5, 0, "yes")
    assert summary["connect_time_ms"] > 0
    assert summary["retransmits"] == 0
    assert summary["congestion"]
    assert seen == Conversation(5000, None)


@pytest.mark.parametrize("size", ["1B", "64KiB"])
def test_the_smallest_and_the_largest_message(size: str) -> None:
    with serving(server(echo, Conversation())) as to:
        assert send(to, "--count", "3", "--size", size).summary["whole"] == "yes"


def test_an_answer_in_many_pieces_is_put_together() -> None:
    def talk(connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in connection.recv(100, socket.MSG_WAITALL):
            connection.send(bytes([byte]))

    with serving(talk) as to:
        assert send(to, "--count", "1", "--size", "100B").summary["whole"] == "yes"


def test_an_altered_answer_is_corrupted_and_the_stream_not_whole() -> None:
    def talk(connection: socket.socket) -> None:
        for n in range(3):
            request = connection.recv(10, socket.MSG_WAITALL)
            connection.sendall(request if n != 1 else request[::-1])

    client = Send()
    with serving(talk) as to, pytest.raises(Failed, match="exactly the bytes") as failed:
        client.work(arguments("send", to, "--count", "3", "--size", "10B"))
    assert failed.value.name == "EBADMSG"
    assert {k: client.summary[k] for k in ("sent", "received", "corrupted", "whole")} == {
        "sent": 3,
        "received": 2,
        "corrupted": 1,
        "whole": "no",
    }


def test_an_answer_that_belongs_to_another_request_is_corrupted() -> None:
    def talk(connection: socket.socket) -> None:
        for _ in range(2):
            connection.recv(10, socket.MSG_WAITALL)
            connection.sendall(pattern(0, 10))

    client = Send()
    with serving(talk) as to, pytest.raises(Failed):
        client.work(arguments("send", to, "--count", "2", "--size", "10B"))
    assert (client.summary["received"], client.summary["corrupted"]) == (1, 1)


def test_a_peer_that_closes_early_is_eof() -> None:
    def talk(connection: socket.socket) -> None:
        connection.sendall(connection.recv(10, socket.MSG_WAITALL))
        connection.recv(10, socket.MSG_WAITALL)
        connection.sendall(b"half ")

    client = Send()
    with (
        serving(talk) as to,
        pytest.raises(Failed, match="message 1 of 3: EOF: the peer closed after 5 of 10 bytes"),
    ):
        client.work(arguments("send", to, "--count", "3", "--size", "10B"))
    assert (client.summary["sent"], client.summary["received"], client.summary["whole"]) == (2, 1, "no")


def test_a_peer_that_says_nothing_is_etimedout() -> None:
    client = Send()
    over = threading.Event()
    with serving(lambda connection: [over.wait(30)]) as to:  # type: ignore[arg-type,return-value]
        with pytest.raises(Failed) as failed:
            client.work(arguments("send", to, "--count", "1", "--size", "10B", "--timeout", "50ms"))
        over.set()
    assert failed.value.name == "ETIMEDOUT"
    assert "--timeout" in str(failed.value)


def test_a_port_that_nobody_has_is_econnrefused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(Failed, match=f"connecting to 127.0.0.1 port {port}: ECONNREFUSED"):
        send(f"127.0.0.1:{port}", "--count", "1", "--size", "10B")


def test_the_user_timeout_is_set_on_the_socket() -> None:
    words = ("--count", "1", "--size", "1B", "--user-timeout", "1500ms")
    with serving(lambda connection: None) as to, Send().connect(arguments("send", to, *words)) as sock:
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 1500


def test_requests_keep_their_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[int] = []
    monkeypatch.setattr(stream_client, "sleep_until", pauses.append)
    with serving(server(echo, Conversation())) as to:
        send(to, "--count", "4", "--size", "10B", "--interval", "20ms")
    assert [due - pauses[0] for due in pauses] == [0, 20_000_000, 40_000_000, 60_000_000]


# ---------------------------------------------------------------- bulk and sink


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 1_000_000])
def test_bulk_arrives_whole(size: int) -> None:
    seen = Conversation()
    with serving(server(sink, seen)) as to:
        summary = bulk(to, "--bytes", f"{size}B").summary
    assert (summary["payload_bytes"], summary["whole"]) == (size, "yes")
    assert summary["goodput_bit_s"] == round(size * 8e3 / summary["transfer_time_ms"])
    assert seen == Conversation(size, None)


def test_the_sink_says_how_much_it_got_and_its_sha256() -> None:
    with serving(server(sink, Conversation())) as to:
        host, port = to.split(":")
        with socket.create_connection((host, int(port))) as client:
            client.sendall(b"abc")
            client.shutdown(socket.SHUT_WR)
            answer = b"".join(iter(lambda: client.recv(100), b""))
    assert answer.endswith(b"\n")
    assert json.loads(answer) == {
        "payload_bytes": 3,
        "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",  # FIPS 180-2, appendix B.1
    }


def test_what_bulk_sends_has_no_two_equal_blocks() -> None:
    got = bytearray()

    def talk(connection: socket.socket) -> None:
        while data := connection.recv(65_536):
            got.extend(data)
        connection.sendall(receipt(len(got), hashlib.sha256(got).hexdigest()))

    with serving(talk) as to:
        assert bulk(to, "--bytes", "500kB").summary["whole"] == "yes"
    blocks = [bytes(got[at : at + 100]) for at in range(0, len(got), 100)]
    assert len(set(blocks)) == len(blocks) == 5000


def swap_two_blocks(data: bytearray) -> None:
    data[:1000], data[1000:2000] = data[1000:2000], data[:1000]


def flip_a_bit(data: bytearray) -> None:
    data[random.randrange(len(data))] ^= 4


def lose_the_end(data: bytearray) -> None:
    del data[-1]


@pytest.mark.parametrize("spoil", [swap_two_blocks, flip_a_bit, lose_the_end])
def test_bulk_that_arrives_otherwise_than_sent_is_not_whole(spoil: Callable[[bytearray], None]) -> None:
    def talk(connection: socket.socket) -> None:
        got = bytearray()
        while data := connection.recv(65_536):
            got.extend(data)
        spoil(got)
        connection.sendall(receipt(len(got), hashlib.sha256(got).hexdigest()))

    client = Bulk()
    with serving(talk) as to, pytest.raises(Failed) as failed:
        client.work(arguments("bulk", to, "--bytes", "100kB"))
    assert failed.value.name == "EBADMSG"
    assert client.summary["whole"] == "no"
    assert "goodput_bit_s" not in client.summary


def test_a_sink_that_answers_nothing_is_not_whole() -> None:
    def talk(connection: socket.socket) -> None:
        while connection.recv(65_536):
            pass

    with serving(talk) as to, pytest.raises(Failed, match="exactly the bytes"):
        bulk(to, "--bytes", "1kB")


def test_a_congestion_control_can_be_chosen_and_is_read_back() -> None:
    with serving(server(sink, Conversation())) as to:
        assert bulk(to, "--bytes", "1kB", "--congestion", "reno").summary["congestion"] == "reno"


def test_a_congestion_control_that_is_not_there_is_the_machines_lack() -> None:
    client = Bulk()
    with pytest.raises(Unsupported, match="ENOENT") as failed:
        client.work(arguments("bulk", "127.0.0.1:9", "--bytes", "1kB", "--congestion", "nothing"))
    assert (failed.value.name, failed.value.lack) == ("ENOENT", "no congestion control nothing here")


# ---------------------------------------------------------------- the servers


@contextmanager
def server_for(converse: Converse, once: bool) -> Iterator[tuple[Server, threading.Thread, tuple[str, int]]]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = Server(converse)
        thread = threading.Thread(target=server.serve, args=(listener, once), daemon=True)
        listener.listen()
        thread.start()
        yield server, thread, listener.getsockname()


def test_once_ends_with_the_first_connection(capsys: pytest.CaptureFixture[str]) -> None:
    with server_for(echo, once=True) as (server, thread, address):
        with socket.create_connection(address) as client:
            client.sendall(b"hello")
            assert client.recv(5, socket.MSG_WAITALL) == b"hello"
        thread.join(30)
        assert not thread.is_alive()
    assert list(server.records()) == [{"connections": 1, "payload_bytes": 5, "errors": 0}]
    assert capsys.readouterr().out == "READY\n"


def test_a_connection_that_is_reset_is_an_error_by_name() -> None:
    with server_for(echo, once=True) as (server, thread, address):
        with socket.create_connection(address) as client:
            client.sendall(b"hello")
            assert client.recv(5, socket.MSG_WAITALL) == b"hello"
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # close() resets
        thread.join(30)
        assert not thread.is_alive()
    assert list(server.records()) == [
        {"error": "ECONNRESET"},
        {"connections": 1, "payload_bytes": 5, "errors": 1},
    ]
