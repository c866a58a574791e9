"""Finding a daemon, and what goes wrong there in our words. No daemon: a little server stands for one."""

from __future__ import annotations

import hashlib
import http.server
import json
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import docker.errors
import pytest
import requests

from testbed.engines import docker_client
from testbed.engines.docker_client import asking, connect, daemon_answers
from testbed.engines.docker_stream import Address
from testbed.errors import EngineError, HostError

PODMAN = {"ApiVersion": "1.41", "Os": "linux", "Version": "5.8.6", "Components": [{"Name": "Podman Engine"}]}


@pytest.mark.parametrize(
    ("info", "lacking"),
    [
        ({"MemoryLimit": True, "SwapLimit": True, "PidsLimit": True, "CgroupDriver": "systemd"}, []),
        ({"MemoryLimit": True, "PidsLimit": True, "CgroupDriver": "cgroupfs"}, ["what is swapped out"]),
        ({"SwapLimit": True, "PidsLimit": True}, ["memory"]),
        (
            {"MemoryLimit": True, "SwapLimit": True, "PidsLimit": True, "CgroupDriver": "none"},
            ["memory", "what is swapped out", "processes"],
        ),
    ],
)
def test_what_a_daemon_cannot_limit_is_known_from_what_it_says_of_itself(
    info: dict[str, Any], lacking: list[str]
) -> None:
    assert docker_client.lacking_limits(info) == lacking


def api_error(status: int, text: str) -> docker.errors.APIError:
    response = requests.Response()
    response.status_code = status
    return docker.errors.APIError("refused", response, text)


def test_what_docker_answers_becomes_an_engine_error_with_its_words() -> None:
    with pytest.raises(EngineError, match=r"^doing it: Docker answered 409: it is in use$"), asking("doing it"):
        raise api_error(409, "it is in use\n")
    with (
        pytest.raises(
            EngineError, match=r"^doing it: the Docker daemon cannot be reached: Connection reset by peer$"
        ),
        asking("doing it"),
    ):
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
    def refused(*_: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Address, "dial", refused)
    with pytest.raises(HostError, match=r"Permission denied; join the group `docker`"):
        connect("unix:///nowhere")


@pytest.mark.parametrize(
    ("version", "refusal"),
    [
        ({"ApiVersion": "1.41", "Os": "linux", "Version": "20.10.24"}, ""),
        ({"ApiVersion": "1.51", "Os": "linux", "Version": "28.3.0"}, ""),
        ({"ApiVersion": "1.40", "Os": "linux", "Version": "19.03"}, "its API is 1.40, needed is"),
        ({"ApiVersion": "1.44", "Os": "windows", "Version": "25"}, "it runs windows containers"),
        (PODMAN, "this is Podman 5.8.6, which is not supported yet; start a Docker Engine"),
    ],
)
def test_a_daemon_that_is_too_old_or_of_another_kind_is_refused(
    tmp_path: Path, version: dict[str, Any], refusal: str
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
    meta = tmp_path / "contexts/meta" / hashlib.sha256(b"there").hexdigest()  # as the docker command keeps them
    meta.mkdir(parents=True)
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
def daemon_saying(path: Path, version: dict[str, Any]) -> Iterator[None]:
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
