"""Finding a Docker daemon and talking to it: the connection, its errors in our words, and its raw streams.

No knowledge of runs, hosts or networks here.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import docker.errors
from docker.api.client import APIClient
from docker.context import ContextAPI
from docker.tls import TLSConfig
from docker.utils import kwargs_from_env, parse_host, version_lt

from testbed.engines.docker_stream import Address, Stream, hijack
from testbed.errors import EngineError, HostError

DEFAULT_SOCKET = "unix:///var/run/docker.sock"
OLDEST_API = "1.41"  # Docker 20.10
ANSWERS_WITHIN_S = 3
REQUEST_TIMEOUT_S = 180  # one create on a machine that is busy with a hundred of them
OTHERS = "start a Docker Engine and set DOCKER_HOST, or use --engine namespaces"
POOL = 64  # connections kept open; more threads than this only open and close them more often


class Api(APIClient):
    """The SDK's client, with streams of our own."""

    def __init__(self, address: Address, **options: Any) -> None:
        self.address = address
        super().__init__(**options)

    def take_over(self, path: str, body: object = None) -> Stream:
        """POST to a path of the API and take the connection over. Raises EngineError, OSError."""
        return hijack(self.address, f"/v{self.api_version}{path}", body, REQUEST_TIMEOUT_S)

    @property
    def trust_env(self) -> bool:
        """Of requests' environment nothing: REQUESTS_CA_BUNDLE would win over the daemon's own certificates."""
        return False

    @trust_env.setter
    def trust_env(self, _: bool) -> None: ...


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
        address = _address(name, where.get("tls"))
        address.dial(timeout_s).close()  # where that fails the SDK leaves a socket open and buries the reason
        api = Api(address, version="auto", timeout=timeout_s, max_pool_size=POOL, **where)
        old = version_lt(api.api_version, OLDEST_API)
        found = api.version()
    except (OSError, docker.errors.DockerException) as problem:  # requests' exceptions are OSErrors
        raise HostError(f"{doing}: {_cause(problem)}; {_advice(problem)}") from problem
    if any("Podman" in str(component.get("Name")) for component in found.get("Components") or ()):
        why = f"this is Podman {found['Version']}, which is not supported yet; {OTHERS}"
    elif old or found["Os"] != "linux":
        has = f"its API is {api.api_version}" if old else f"it runs {found['Os']} containers"
        why = f"{has}, needed is Linux and API {OLDEST_API} (Docker 20.10) or newer"
    else:
        return api
    api.close()
    raise HostError(f"{doing}: {why}")


def daemon_answers(host: str | None = None) -> tuple[bool, str]:
    """Whether a usable daemon answers at once, and the reason in words for people."""
    try:
        api = connect(host, ANSWERS_WITHIN_S)
    except HostError as problem:
        return False, f"no Docker daemon: {problem}"
    with api_closed(api):
        try:
            refuse_mapped_users(api.info())
            return True, f"Docker {api.version()['Version']} answers"
        except (HostError, OSError, docker.errors.DockerException) as problem:
            return False, f"no Docker daemon: {problem}"


def refuse_mapped_users(info: Mapping[str, Any]) -> None:
    """Raises HostError for a daemon that maps users: hosts would miss what is copied to them."""
    if any("name=userns" in option for option in info.get("SecurityOptions") or ()):
        raise HostError(
            "this daemon maps users (userns-remap), so that hosts would see neither their files nor volumes; "
            "use one without that, or --engine namespaces"
        )


def lacking_limits(info: Mapping[str, Any]) -> list[str]:
    """What a daemon cannot limit for a container, by what it says of itself. Pure.

    Without a driver for control groups, as a rootless daemon may be, it takes limits, shows them, and sets none.
    """
    limited = {"memory": "MemoryLimit", "what is swapped out": "SwapLimit", "processes": "PidsLimit"}
    none = info.get("CgroupDriver") == "none"
    return [what for what, key in limited.items() if none or not info.get(key)]


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
    except (OSError, docker.errors.DockerException) as problem:  # requests' exceptions are OSErrors
        raise EngineError(f"{what}: the Docker daemon cannot be reached: {_cause(problem)}") from problem


def explanation(problem: docker.errors.APIError) -> str:
    """The daemon's own sentence."""
    return str(problem.explanation or problem.response or problem).strip()


def _address(url: str, tls: TLSConfig | bool | None) -> Address:
    """What the SDK makes of these two, for streams of our own. Raises OSError, DockerException."""
    parsed = urlsplit(str(parse_host(url, tls=bool(tls))))
    if parsed.scheme == "http+unix":
        return Address(parsed.path)
    where = parsed.hostname or "localhost", parsed.port or (2376 if tls else 2375)
    if not tls:
        return Address(where)
    config = tls if isinstance(tls, TLSConfig) else TLSConfig()
    context = ssl.create_default_context(cafile=config.ca_cert)
    if not config.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if config.cert:
        context.load_cert_chain(*config.cert)
    return Address(where, context)


def _where(host: str | None) -> dict[str, Any]:
    where: dict[str, Any] = {**kwargs_from_env()}  # DOCKER_HOST, DOCKER_TLS_VERIFY, DOCKER_CERT_PATH
    if host is not None:
        return where | {"base_url": host}
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
