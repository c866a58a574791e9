"""Connections taken over from HTTP, plain and over TLS. Pairs of sockets and a thread stand for the daemon."""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.engines.docker_stream import STDERR, STDOUT, Address, Stream, hijack
from testbed.errors import EngineError


def frame(kind: int, data: bytes) -> bytes:
    return struct.pack(">BxxxI", kind, len(data)) + data


@contextmanager
def stream(early: bytes = b"") -> Iterator[tuple[Stream, socket.socket]]:
    """A stream and the daemon's end of it; `early` came in one packet with the answer's headers."""
    ours, theirs = socket.socketpair()
    made = Stream(ours, early=early)
    try:
        yield made, theirs
    finally:
        made.close()
        theirs.close()


chunks = st.lists(st.tuples(st.sampled_from([STDOUT, STDERR]), st.binary(max_size=300)), max_size=20)


@given(chunks, st.integers(0, 6000))
def test_frames_come_as_they_were_sent_wherever_the_headers_packet_ends(
    sent: list[tuple[int, bytes]], cut: int
) -> None:
    wire = b"".join(frame(kind, data) for kind, data in sent)
    with stream(wire[:cut]) as (made, theirs):
        theirs.sendall(wire[cut:])
        theirs.shutdown(socket.SHUT_WR)
        assert list(made.frames()) == sent


@pytest.mark.parametrize(
    "wire", [b"", b"\1\0", frame(1, b"whole") + b"\2\0\0\0", frame(1, b"whole") + frame(2, b"x")[:-1]]
)
def test_a_connection_that_breaks_ends_the_frames(wire: bytes) -> None:
    with stream(wire) as (made, theirs):
        theirs.close()
        assert list(made.frames()) == ([(1, b"whole")] if b"whole" in wire else [])


def test_what_is_written_arrives_and_the_end_of_it_is_seen_while_we_still_read() -> None:
    with stream() as (made, theirs):
        made.write(b"in")
        made.end_of_input()
        made.end_of_input()
        assert theirs.recv(100) == b"in" and theirs.recv(100) == b""
        theirs.sendall(frame(STDOUT, b"out"))
        theirs.shutdown(socket.SHUT_WR)
        assert list(made.frames()) == [(STDOUT, b"out")]


def test_closing_wakes_a_reader_and_twice_is_once() -> None:
    with stream() as (made, _):
        reader = threading.Thread(target=lambda: list(made.frames()))
        reader.start()
        made.close()
        made.close()
        reader.join(10)
        assert not reader.is_alive()
        with pytest.raises((OSError, ValueError)):
            made.write(b"x")
        made.end_of_input()


# the daemon as a thread: it reads a request, answers, and goes on with the connection


def tls_contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Anonymous, because no certificate is wanted here: it is about the two directions."""
    contexts = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for context in contexts:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("AECDH:@SECLEVEL=0")
    return contexts


@contextmanager
def daemon(path: Path, go_on: Callable[[socket.socket, bytes], None], tls: bool) -> Iterator[Address]:
    """`go_on` gets the connection and the request."""
    ours, theirs = tls_contexts() if tls else (None, None)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)

        def serve() -> None:
            plain, _ = listener.accept()
            connection = theirs.wrap_socket(plain, server_side=True) if theirs else plain
            with connection:
                request = b""
                while b"\r\n\r\n" not in request or not request.endswith((b"}", b"null")):
                    request += connection.recv(65536)
                go_on(connection, request)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield Address(str(path), ours)
        finally:
            thread.join(20)
            assert not thread.is_alive()


both = pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
UPGRADED = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"


@both
def test_a_request_is_made_and_what_came_with_its_answer_is_not_lost(tmp_path: Path, tls: bool) -> None:
    requests: list[bytes] = []

    def answer(connection: socket.socket, request: bytes) -> None:
        requests.append(request)
        connection.sendall(UPGRADED + frame(STDOUT, b"at once"))
        connection.sendall(frame(STDERR, b"later"))

    with daemon(tmp_path / "s", answer, tls) as address:
        made = hijack(address, "/v1.41/exec/e/start", {"Detach": False}, 10)
        assert list(made.frames()) == [(STDOUT, b"at once"), (STDERR, b"later")]
        made.close()
    head, _, body = requests[0].partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /v1.41/exec/e/start HTTP/1.1"
    assert {"Connection: Upgrade", "Upgrade: tcp", f"Content-Length: {len(body)}"} < set(lines)
    assert json.loads(body) == {"Detach": False}


@both
def test_both_directions_run_at_once_and_ours_can_end_first(tmp_path: Path, tls: bool) -> None:
    data, heard = bytes(range(256)) * 12_000, bytearray()

    def echo(connection: socket.socket, _: bytes) -> None:
        connection.sendall(UPGRADED)
        while chunk := connection.recv(65536):
            heard.extend(chunk)
            connection.sendall(frame(STDOUT, chunk))
        connection.sendall(frame(STDERR, b"after the end of its input"))

    with daemon(tmp_path / "s", echo, tls) as address:
        made = hijack(address, "/x", None, 10)

        def feed() -> None:
            made.write(data)
            made.end_of_input()

        feeder = threading.Thread(target=feed)
        feeder.start()
        got = list(made.frames())
        feeder.join(20)
        made.close()
    assert bytes(heard) == data
    assert b"".join(chunk for kind, chunk in got if kind == STDOUT) == data
    assert got[-1] == (STDERR, b"after the end of its input")


@both
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            b'HTTP/1.1 404 Not Found\r\nContent-Length: 29\r\n\r\n{"message":"No such exec: e"}\n',
            "404: No such exec: e$",
        ),
        (b"HTTP/1.1 500 Oops\r\ncontent-length: 5\r\n\r\nplain", "500: plain$"),
        (b"HTTP/1.1 409 Conflict\r\n\r\n", "409: no message$"),
        (b"HTTP/1.1 101 UPG", "closed the connection after b'HTTP/1.1 101 UPG'"),
        (b"", "closed the connection after b''"),
    ],
)
def test_a_refusal_is_told_in_the_daemons_words(tmp_path: Path, tls: bool, answer: bytes, words: str) -> None:
    def refuse(connection: socket.socket, _: bytes) -> None:
        connection.sendall(answer)

    with daemon(tmp_path / "s", refuse, tls) as address, pytest.raises(EngineError, match=words):
        hijack(address, "/x", None, 10)


def test_a_daemon_that_does_not_answer_in_time_is_an_error(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(f"{tmp_path}/s")
        deaf.listen(1)
        with pytest.raises(TimeoutError):
            hijack(Address(f"{tmp_path}/s"), "/x", None, 0.05)
    with pytest.raises(FileNotFoundError):
        hijack(Address(f"{tmp_path}/none"), "/x", None, 10)
