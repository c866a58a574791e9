"""What every test can rely on: engines that are really there or a named skip, and nothing left at the end."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from testbed import linux
from tests import own_groups
from tests.command import ENGINES

# Two noisy cores: how long one example takes says nothing about the code.
settings.register_profile("testbed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("testbed")

PR_SET_CHILD_SUBREAPER = 36
RAW = (
    "test_programs_raw.py",
    "test_ns_tshark.py",
    "test_ns_sockets.py",
    "test_programs_spp.py",
    "test_programs_icmp.py",
)
REQUIRED = {word for word in os.environ.get("TESTBED_REQUIRE", "").split(",") if word}


def missing(what: str, reason: str) -> None:
    """Skip by name with the reason, or fail where TESTBED_REQUIRE says that it has to be there."""
    if what in REQUIRED:
        pytest.fail(f"{what} is required by TESTBED_REQUIRE and missing: {reason}")
    pytest.skip(f"no {what}: {reason}")


def processes_below(ancestor: int) -> dict[int, str]:
    """Living descendants of a process, with their command lines."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            if state != "Z":
                parents[int(entry.name)] = int(parent)
    below: dict[int, str] = {}
    for pid in parents:
        chain, at = [], pid
        while at in parents and at != ancestor:
            chain.append(at)
            at = parents[at]
        if at == ancestor and chain:
            try:
                below[pid] = (
                    Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                )
            except OSError:
                continue
    return below


# Tests may run in several worker processes (`make test`). Each looks after the processes that it has begotten, and
# the one that started the workers after control groups. Nothing is looked at that others may have made: they use
# the same machine. A network namespace and its interfaces go with their last process, and what is on a daemon has
# labels.


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """From now on every orphan of ours becomes our child, however it detached: none can hide."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    session.config.stash[BEFORE] = set(processes_below(os.getpid()))
    if not _is_worker(session.config):
        session.config.stash[GROUPS] = own_groups.OwnGroups()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    already = session.config.stash[BEFORE]
    left = [f"process {pid}: {line}" for pid, line in processes_below(os.getpid()).items() if pid not in already]
    left += session.config.stash.get(LEFT, [])
    if _is_worker(session.config):
        session.config.workeroutput["left"] = left  # type: ignore[attr-defined]
        return
    left += [f"control group {path}" for path in own_groups.dead()]
    session.config.stash[GROUPS].leave()
    left = list(dict.fromkeys(left))
    session.config.stash[LEFT] = left
    if left:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


class Workers:
    """What the workers had to say when they ended."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config

    def pytest_testnodedown(self, node: Any, error: object) -> None:
        said = getattr(node, "workeroutput", {})
        left = said.get("left", [f"worker {node.gateway.id} ended without looking: {error}"])
        self.config.stash.setdefault(LEFT, []).extend(left)


def pytest_configure(config: pytest.Config) -> None:
    if config.pluginmanager.hasplugin("xdist") and not _is_worker(config):
        config.pluginmanager.register(Workers(config))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One worker has all tests of the Docker engine, and so the only daemon; tests that share runs share one.

    A raw socket gets all packets of its protocol on the machine's loopback, so tests that open one share one too.
    """
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        where = (
            f"{item.path.name} {item.name}".lower()
        )  # asking for `nodeid` now would fix it before xdist adds to it
        if "docker" in where or "docker_daemon" in fixtures:
            item.add_marker(pytest.mark.docker)
            item.add_marker(pytest.mark.xdist_group("docker"))
        elif "ran" in fixtures:
            item.add_marker(pytest.mark.xdist_group("scenarios"))
        elif item.path.name in RAW:
            item.add_marker(pytest.mark.xdist_group("raw"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    left = config.stash.get(LEFT, [])
    terminalreporter.section("left behind")
    terminalreporter.write_line(
        "\n".join(left) if left else "nothing: no process, no control group, nothing on a daemon"
    )


BEFORE = pytest.StashKey[set[int]]()
GROUPS = pytest.StashKey[own_groups.OwnGroups]()
LEFT = pytest.StashKey[list[str]]()


@pytest.fixture(autouse=True)
def a_loopback_of_its_own(request: pytest.FixtureRequest) -> Iterator[None]:
    """A raw socket gets all packets of its protocol, also those of another suite on the same machine."""
    if request.path.name not in RAW or os.geteuid() != 0:
        yield
        return
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        linux.unshare(linux.CLONE_NEWNET)
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        yield
    finally:
        linux.setns(home, linux.CLONE_NEWNET)
        os.close(home)


@pytest.fixture(autouse=True)
def signals_as_they_were() -> Iterator[None]:
    """Our programs ignore SIGTERM while they write their records; children of the next test would inherit that."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def docker_daemon(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a Docker daemon: the one that answers, else a private one for this session."""
    from tests.disturbed import ours_on_daemon
    from tests.docker_daemon import NoDaemon, docker_daemon, version_asked

    try:
        context = docker_daemon()
        host = context.__enter__()
    except NoDaemon as problem:
        if version_asked():
            pytest.fail(f"TESTBED_DOCKER asks for Docker {version_asked()}: {problem}")
        missing("docker", str(problem))
    before = os.environ.get("DOCKER_HOST")
    os.environ["DOCKER_HOST"] = host
    there = ours_on_daemon(host)
    try:
        yield host
    finally:
        request.config.stash.setdefault(LEFT, []).extend(sorted(ours_on_daemon(host) - there))
        if before is None:
            del os.environ["DOCKER_HOST"]
        else:
            os.environ["DOCKER_HOST"] = before
        context.__exit__(None, None, None)


@pytest.fixture(scope="session")
def namespaces_work() -> None:
    """Skips, by name, where this user can make no namespaces."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    done = subprocess.run(["unshare", *user, "--net", "--mount", "true"], capture_output=True, text=True)
    if done.returncode != 0:
        missing("namespaces", done.stderr.strip())


@pytest.fixture(params=ENGINES, scope="session")
def engine(request: pytest.FixtureRequest) -> str:
    """Each engine in turn, or a named skip."""
    request.getfixturevalue("docker_daemon" if request.param == "docker" else "namespaces_work")
    return str(request.param)


@pytest.fixture
def left(engine: str) -> Callable[[], list[str]]:
    """Says what there is that was not there before the test: on the machine, and on the daemon."""
    from tests.disturbed import image_made, there_is

    if engine == "docker":
        image_made()
    before = there_is(engine)
    return lambda: sorted(there_is(engine) - before)
