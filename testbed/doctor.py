"""What this machine can do for a testbed, found by doing it and not by reading versions."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from testbed import groups
from testbed.errors import TestbedError
from testbed.measure.records import Records
from testbed.packages import PACKAGE_OF, install
from testbed.plan.programs import ENVIRONMENT
from testbed.scenario import parse

TINY = """
testbed: 1
about: The smallest lab that shows an engine, the agent and the wire at work.
hosts:
  a: {serve: datagram echo --port 9000}
  b: {run: datagram probe a:9000 --count 20 --interval 1ms --timeout 300ms}
links:
  b -> a: {delay: 1 ms}
expect:
  - b.lost == 0
  - b->a.dropped == 0
"""


@dataclass(frozen=True)
class Finding:
    works: bool
    what: str
    found: str
    remedy: str = ""
    engine: bool = False


def examine() -> Iterator[Finding]:
    """One finding after the other; at last each engine, by bringing a lab up and tearing it down, and limits."""
    yield Finding(True, "kernel", f"{platform.system()} {platform.release()}, Python {platform.python_version()}")
    for command, package in (("ip", "iproute2"), ("tc", "iproute2")):
        path = shutil.which(command, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
        remedy = "" if path else f"install it: apt-get install {package}"
        yield Finding(path is not None, f"command {command}", path or "not on PATH", remedy)
    yield _programs()
    yield _docker()
    yield _namespaces()
    yield _limits()
    yield from _limits_of_docker()


def sweep() -> tuple[list[str], str]:
    """What dead runs left is removed: (what was removed, why Docker could not be asked or "")."""
    from testbed.engines.docker import daemon_answers
    from testbed.engines.docker_client import api_closed, connect
    from testbed.engines.docker_owner import sweep as sweep_dead

    removed = [f"control group {group}" for group in groups.leftovers()]
    answers, why = daemon_answers()
    if not answers:
        return removed, why
    with api_closed(connect()) as api:
        return removed + sweep_dead(api), ""


def _programs() -> Finding:
    """Those that hosts on bare namespaces have of this machine; who requires another is skipped there."""
    lacking = [command for command in PACKAGE_OF if not shutil.which(command, path=ENVIRONMENT["PATH"])]
    found = f"not here: {', '.join(lacking)}; scenarios that require one are skipped" if lacking else "all of them"
    return Finding(not lacking, "programs for hosts on namespaces", found, install(lacking))


def _docker() -> Finding:
    from testbed.engines.docker import daemon_answers

    answers, why = daemon_answers()
    remedy = (
        ""
        if answers
        else "install and start Docker Engine (Debian: apt-get install docker.io), or set DOCKER_HOST"
    )
    return Finding(answers, "engine docker", why, remedy, engine=True)


def _namespaces() -> Finding:
    who = "root" if os.geteuid() == 0 else "an ordinary user"
    try:
        reason = _try_namespaces()
    except TestbedError as problem:
        reason = str(problem)
    if not reason:
        return Finding(
            True, "engine namespaces", f"a lab of two hosts came up, ran and went, as {who}", engine=True
        )
    return Finding(False, "engine namespaces", reason, _namespaces_remedy(), engine=True)


def _limits() -> Finding:
    """Whether hosts on bare namespaces have limits of their own: that takes control groups one may write."""
    made = groups.make(f"lab-doctor-{os.getpid()}")
    with suppress(OSError):
        made.remove()
    what = "limits of hosts on namespaces"
    if not made.why_not:
        return Finding(True, what, "memory and processes of each host, by control groups")
    others = "" if os.geteuid() == 0 else ", and of processes only one for all hosts together"
    why = f"none of memory{' or processes' if os.geteuid() == 0 else others}: {made.why_not}"
    return Finding(False, what, why, "run it as root where control groups are mounted and can be written")


def _limits_of_docker() -> Iterator[Finding]:
    """Whether the daemon that answers can limit a host. What holds in a run is read back there."""
    from testbed.engines.docker_client import api_closed, asking, connect, lacking_limits

    try:
        with api_closed(connect()) as api, asking("asking the Docker daemon what it can limit"):
            info = api.info()
    except TestbedError:
        return  # said already
    what, lacking = "limits of hosts on docker", lacking_limits(info)
    if not lacking:
        yield Finding(True, what, "memory and processes of each host, by control groups")
        return
    version = f"version {info.get('CgroupVersion', '1')}, driver {info.get('CgroupDriver')}"
    rootless = ", rootless" if "name=rootless" in (info.get("SecurityOptions") or ()) else ""
    remedy = "control groups with the controllers memory and pids; a rootless daemon needs version 2, and systemd"
    yield Finding(False, what, f"none of {', '.join(lacking)} (control groups {version}{rootless})", remedy)


def _try_namespaces() -> str:
    """Why a tiny scenario does not pass on bare namespaces; "" if it does."""
    import tempfile

    from testbed.engines.choose import maker
    from testbed.project.root import Project
    from testbed.runner import Runner

    scenario = parse(TINY, "doctor.yaml")
    with tempfile.TemporaryDirectory(prefix="testbed-doctor-") as root:
        runner = Runner(maker("namespaces", lambda _: None), "namespaces", "doctor", Path(root), lambda _: None)
        run = runner.run(scenario, TINY, Project.around(Path(root)))
    records: Records = run.records
    return "" if run.judgement.outcome == "pass" else records.error or run.judgement.reason


def _namespaces_remedy() -> str:
    """The usual reasons, looked at where they can be read."""
    from testbed.engines.lab.launch import USER_NAMESPACE_LOCKS

    for path, value, command in USER_NAMESPACE_LOCKS:
        try:
            if os.geteuid() != 0 and Path(path).read_text().strip() == value:
                return f"{path} is {value}: as root, {command}"
        except OSError:
            continue
    if Path("/.dockerenv").exists() or Path("/run/.containerenv").exists():
        return (
            "inside a container it needs user namespaces and an unmasked /proc: --security-opt seccomp=unconfined \
--security-opt systempaths=unconfined"
        )
    return "run it as root, or allow unprivileged user namespaces"
