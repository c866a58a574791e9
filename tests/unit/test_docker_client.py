"""The docker engine's connection: streams, and errors in our words. No daemon: pairs of sockets stand for one."""

from __future__ import annotations

import http.server
import io
import json
import socket
import socketserver
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import docker.errors
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from testbed.engines import docker_client
from testbed.engines.docker_client import STDERR, STDOUT, Stream, asking, connect, daemon_answers
from testbed.errors import EngineError, HostError


def frame(kind: int, data: bytes) -> bytes:
    return struct.pack(">BxxxI", kind, len(data)) + data


class Response:
    """What urllib3 leaves of an answer whose connection was taken over."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self.raw = SimpleNamespace(_fp=SimpleNamespace(fp=sock.makefile("rb")))

    def close(self) -> None:
        self.raw._fp.fp.close()
        self._socket.close()


@contextmanager
def stream(before: bytes = b"") -> Iterator[tuple[Stream, socket.socket, Response]]:
    """A stream, the daemon's end of it, and the answer; `before` came in one packet with the answer's headers."""
    ours, theirs = socket.socketpair()
    response = Response(ours)
    theirs.sendall(b"HTTP/1.1 101 UPGRADED\r\n" + before)
    assert response.raw._fp.fp.readline().startswith(b"HTTP/1.1 101")
    made = Stream(response)  # type: ignore[arg-type]
    try:
        yield made, theirs, response
    finally:
        made.close()
        theirs.close()


chunks = st.lists(st.tuples(st.sampled_from([STDOUT, STDERR]), st.binary(max_size=300)), max_size=20)


@given(chunks, st.integers(0, 6000))
def test_frames_come_as_they_were_sent_wherever_the_headers_packet_ends(
    sent: list[tuple[int, bytes]], cut: int
) -> None:
    wire = b"".join(frame(kind, data) for kind, data in sent)
    with stream(wire[:cut]) as (made, theirs, _):
        theirs.sendall(wire[cut:])
        theirs.shutdown(socket.SHUT_WR)
        assert list(made.frames()) == sent


@pytest.mark.parametrize("wire", [b"", b"\1\0", frame(1, b"whole") + b"\2\0\0\0"])
def test_a_connection_that_breaks_ends_the_frames(wire: bytes) -> None:
    with stream(wire) as (made, theirs, _):
        theirs.close()
        assert [data for _, data in made.frames()] in ([], [b"whole"])


def test_what_is_written_arrives_and_the_end_of_it_is_seen_while_we_still_read() -> None:
    with stream() as (made, theirs, _):
        made.write(b"in")
        made.end_of_input()
        made.end_of_input()
        assert theirs.recv(100) == b"in" and theirs.recv(100) == b""
        theirs.sendall(frame(STDOUT, b"out"))
        theirs.shutdown(socket.SHUT_WR)
        assert list(made.frames()) == [(STDOUT, b"out")]


def test_closing_wakes_a_reader_and_twice_is_once() -> None:
    with stream() as (made, _, _):
        reader = threading.Thread(target=lambda: list(made.frames()))
        reader.start()
        made.close()
        made.close()
        reader.join(10)
        assert not reader.is_alive()
        with pytest.raises(OSError):
            made.write(b"x")


def api_error(status: int, text: str) -> docker.errors.APIError:
    response = requests.Response()
    response.status_code = status
    return docker.errors.APIError("refused", response, text)


def test_what_docker_answers_becomes_an_engine_error_with_its_words() -> None:
    with pytest.raises(EngineError, match=r"^doing it: Docker answered 409: it is in use$"), asking("doing it"):
        raise api_error(409, "it is in use\n")
    with pytest.raises(EngineError, match=r"^doing it: Connection reset by peer$"), asking("doing it"):
        try:
            raise ConnectionResetError(104, "Connection reset by peer")
        except OSError as cause:
            raise requests.exceptions.ConnectionError("a long story") from cause
    with pytest.raises(ValueError), asking("doing it"):
        raise ValueError("a mistake of our own is not dressed up")


def test_no_daemon_says_where_it_was_looked_for_and_what_to_try(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=rf"unix://{tmp_path}/none: No such file or directory; .*DOCKER_HOST"):
        connect(f"unix://{tmp_path}/none")
    with socket.socket(socket.AF_UNIX) as nobody:
        nobody.bind(f"{tmp_path}/refuses")
        with pytest.raises(HostError, match=r"Connection refused; start it"):
            connect(f"unix://{tmp_path}/refuses")
    with pytest.raises(HostError, match=r"ssh -L .* me@there.*DOCKER_HOST=unix:///tmp/docker.sock"):
        connect("ssh://me@there")
    answers, why = daemon_answers(f"unix://{tmp_path}/none")
    assert not answers and why.startswith("no Docker daemon: ")


def test_a_deaf_daemon_does_not_hold_us_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker_client, "ANSWERS_WITHIN_S", 0.05)
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(f"{tmp_path}/deaf")
        deaf.listen(1)
        answers, why = daemon_answers(f"unix://{tmp_path}/deaf")
    assert not answers and "timed out" in why and "docker version" in why


def test_a_socket_that_is_not_ours_to_use_points_to_the_group(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(docker_client, "_knock", refused)
    with pytest.raises(HostError, match=r"Permission denied; join the group `docker`"):
        connect("unix:///nowhere")


@pytest.mark.parametrize(
    ("version", "refusal"),
    [
        ({"ApiVersion": "1.41", "Os": "linux", "Version": "20.10.24"}, ""),
        ({"ApiVersion": "1.51", "Os": "linux", "Version": "28.3.0"}, ""),
        ({"ApiVersion": "1.40", "Os": "linux", "Version": "19.03"}, "its API is 1.40, needed is"),
        ({"ApiVersion": "1.44", "Os": "windows", "Version": "25"}, "it runs windows containers"),
    ],
)
def test_a_daemon_that_is_too_old_or_of_another_kind_is_refused(
    tmp_path: Path, version: dict[str, str], refusal: str
) -> None:
    with daemon_saying(tmp_path / "socket", version):
        answers, why = daemon_answers(f"unix://{tmp_path}/socket")
    assert answers == (not refusal)
    assert refusal in why if refusal else why == f"Docker {version['Version']} answers"


def test_the_host_that_is_asked_for_wins_over_the_environment_and_that_over_the_context(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    meta = tmp_path / "contexts/meta/37a8eec1ce19687d132fe29051dca629d164e2c4958ba141d5f4133a33f0688f"
    meta.mkdir(parents=True)  # sha256 of "there"
    import hashlib

    meta = meta.rename(meta.with_name(hashlib.sha256(b"there").hexdigest()))
    endpoint = {"docker": {"Host": f"unix://{tmp_path}/of-the-context", "SkipTLSVerify": False}}
    (meta / "meta.json").write_text(json.dumps({"Name": "there", "Metadata": {}, "Endpoints": endpoint}))
    (tmp_path / "config.json").write_text(json.dumps({"currentContext": "there"}))
    with pytest.raises(HostError, match="of-the-context"):
        connect()
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/of-the-environment")
    with pytest.raises(HostError, match="of-the-environment"):
        connect()
    with pytest.raises(HostError, match="asked-for"):
        connect(f"unix://{tmp_path}/asked-for")


@contextmanager
def daemon_saying(path: Path, version: dict[str, str]) -> Iterator[None]:
    """A server that knows its version and nothing else."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(version).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

        def address_string(self) -> str:
            return "a client"

    with socketserver.ThreadingUnixStreamServer(str(path), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def test_a_reader_of_bytes_is_what_the_streams_stand_on() -> None:
    """What Stream takes from the SDK's depths: should that change, this says so before a run hangs."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        reader = ours.makefile("rb")
        assert isinstance(reader, io.BufferedReader) and reader.raw._sock is ours  # type: ignore[attr-defined]
        reader.close()
