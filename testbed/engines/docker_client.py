"""Finding a Docker daemon and talking to it: the connection, its errors in our words, and its raw streams.

No knowledge of runs, hosts or networks here.
"""

from __future__ import annotations

import io
import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import docker.errors
import requests.exceptions
from docker.api.client import APIClient
from docker.context import ContextAPI
from docker.utils import kwargs_from_env, version_lt

from testbed.errors import EngineError, HostError

DEFAULT_SOCKET = "unix:///var/run/docker.sock"
OLDEST_API = "1.41"  # Docker 20.10
ANSWERS_WITHIN_S = 3
REQUEST_TIMEOUT_S = 180  # one create on a machine that is busy with a hundred of them
POOL = 64  # connections kept open; more threads than this only open and close them more often

STDOUT, STDERR = 1, 2
_FRAME = struct.Struct(">BxxxI")  # Docker Engine API, "Attach to a container", stream format


class Stream:
    """A hijacked connection: frames of stdout and stderr come in, stdin goes out.

    The SDK's own reader takes the bare socket and so loses what the HTTP layer had read ahead together with the
    answer's headers: a short-lived program's first output. This one reads where the HTTP layer stopped.
    """

    def __init__(self, response: requests.Response) -> None:
        self._response = response
        depths: Any = response.raw._fp  # no public way leads there
        self._reader: io.BufferedReader = depths.fp
        self._socket: socket.socket = depths.fp.raw._sock
        self._socket.settimeout(None)

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """Pairs of STDOUT or STDERR and content until the other side closes. A lost connection ends it too."""
        try:
            while len(head := self._reader.read(_FRAME.size)) == _FRAME.size:
                kind, size = _FRAME.unpack(head)
                yield kind, self._reader.read(size)
        except (OSError, ValueError):  # ValueError: closed by another thread
            return

    def write(self, data: bytes) -> None:
        """Raises OSError."""
        self._socket.sendall(data)

    def end_of_input(self) -> None:
        """Close our direction only. Never raises: the other side may be gone already."""
        with suppress(OSError):
            if isinstance(self._socket, ssl.SSLSocket):
                _half_close(self._socket)
            else:
                self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Also wakes a thread that waits in `frames`. Never raises."""
        with suppress(OSError):  # it is closed already, by us or by the other side
            self._socket.shutdown(socket.SHUT_RDWR)
        self._response.close()


def _half_close(sock: ssl.SSLSocket) -> None:
    """Send TLS's close_notify and go on reading; SSLSocket.shutdown() would drop the encryption both ways."""
    sock.setblocking(False)
    try:
        sock._sslobj.shutdown()  # type: ignore[attr-defined]
    except ssl.SSLError:
        pass  # it wants the other side's close_notify now, which comes with its end of output
    finally:
        sock.setblocking(True)


class Api(APIClient):
    """The SDK's client, with our streams where it would hand out sockets."""

    def _get_raw_response_socket(self, response: requests.Response) -> Any:
        self._raise_for_status(response)  # type: ignore[attr-defined]
        return Stream(response)


def connect(host: str | None = None, timeout_s: int = REQUEST_TIMEOUT_S) -> Api:
    """A client of the daemon at `host`, else of DOCKER_HOST, of the Docker context in use, of the usual socket.

    Raises HostError, with what to try, if there is none, it refuses, or it is too old.
    """
    where = {"base_url": DEFAULT_SOCKET} | _where(host)
    name = where["base_url"]
    doing = f"connecting to the Docker daemon at {name}"
    if name.startswith("ssh://"):
        raise HostError(
            f"{doing}: ssh:// is not supported; forward its socket with "
            f"`ssh -L /tmp/docker.sock:/var/run/docker.sock {name[6:]}` and set DOCKER_HOST=unix:///tmp/docker.sock"
        )
    try:
        if name.startswith("unix://"):
            _knock(name.removeprefix("unix://"))
        api = Api(version="auto", timeout=timeout_s, max_pool_size=POOL, **where)
        old = version_lt(api.api_version, OLDEST_API)
        kind = api.version()["Os"]
    except (OSError, docker.errors.DockerException) as problem:  # requests' exceptions are OSErrors
        raise HostError(f"{doing}: {_cause(problem)}; {_advice(problem)}") from problem
    if old or kind != "linux":
        found = f"its API is {api.api_version}" if old else f"it runs {kind} containers"
        api.close()
        raise HostError(f"{doing}: {found}, needed is Linux and API {OLDEST_API} (Docker 20.10) or newer")
    return api


def daemon_answers(host: str | None = None) -> tuple[bool, str]:
    """Whether a usable daemon answers at once, and the reason in words for people."""
    try:
        api = connect(host, ANSWERS_WITHIN_S)
    except HostError as problem:
        return False, f"no Docker daemon: {problem}"
    with api_closed(api):
        return True, f"Docker {api.version()['Version']} answers"


@contextmanager
def api_closed(api: Api) -> Iterator[Api]:
    try:
        yield api
    finally:
        api.close()


@contextmanager
def asking(what: str) -> Iterator[None]:
    """Turn the SDK's errors into EngineError: what was asked for, and what Docker answered."""
    try:
        yield
    except docker.errors.APIError as problem:
        raise EngineError(f"{what}: Docker answered {problem.status_code}: {explanation(problem)}") from problem
    except (docker.errors.DockerException, requests.exceptions.RequestException) as problem:
        raise EngineError(f"{what}: {_cause(problem)}") from problem


def explanation(problem: docker.errors.APIError) -> str:
    """The daemon's own sentence."""
    return str(problem.explanation or problem.response or problem).strip()


def _knock(path: str) -> None:
    """Connect once: where that fails the SDK loses the socket unclosed and buries the reason. Raises OSError."""
    with socket.socket(socket.AF_UNIX) as knocking:
        knocking.connect(path)


def _where(host: str | None) -> dict[str, Any]:
    if host is not None:
        return {"base_url": host}
    where: dict[str, Any] = {**kwargs_from_env()}
    if "base_url" in where:
        return where
    context = ContextAPI.get_current_context()  # what `docker context use` chose: Docker Desktop, rootless, ...
    if context is None or context.Name == "default":
        return where
    return {"base_url": context.Host} | ({"tls": context.TLSConfig} if context.TLSConfig else {})


def _cause(problem: BaseException) -> str:
    """The innermost reason: the SDK and requests wrap an ECONNREFUSED four times."""
    seen: BaseException = problem
    while (deeper := seen.__cause__ or seen.__context__) is not None:
        seen = deeper
    if isinstance(seen, OSError) and seen.strerror:
        return seen.strerror
    return str(seen) or repr(seen)


def _advice(problem: BaseException) -> str:
    reason = _cause(problem).lower()
    if "permission" in reason:
        return "join the group `docker` (then log in again), or use --engine namespaces"
    if "timed out" in reason:
        return "see whether it hangs (`docker version`), or use --engine namespaces"
    return "start it (`systemctl start docker`), set DOCKER_HOST, or use --engine namespaces"
