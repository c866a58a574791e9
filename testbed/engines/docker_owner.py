"""Whose objects are whose in a Docker daemon: labels, the liveness of an owner, and removal by label.

Everything that a run makes carries its labels from the moment it exists. What an owner leaves behind is removed
by its janitor, and what a janitor could not remove (both were killed, the power went) by the next run's sweep.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import docker.errors

from testbed.engines.docker_client import Api, asking, explanation
from testbed.errors import EngineError

RUN, ROLE, SCENARIO, HOST = "testbed.run", "testbed.role", "testbed.scenario", "testbed.host"
BOOT, PIDS, PID, STARTED = "testbed.boot", "testbed.pid-namespace", "testbed.pid", "testbed.started"
AGENT = "agent"  # the value of ROLE by which a run elsewhere is known to be alive

REMOVERS = 8  # containers removed at a time
PAUSE_S = 0.1
GIVE_UP_S, SWEEP_GIVES_UP_S = 60.0, 5.0
UNATTENDED_S = 120.0  # an agent of a run elsewhere is started well within this, and ends within half of it


@dataclass(frozen=True)
class Found:
    """One object of ours in a daemon. `created_s` counts from the epoch on the daemon's clock."""

    kind: str  # "container", "network", "volume"
    id: str
    name: str
    labels: Mapping[str, str] = field(compare=False)
    created_s: float
    running: bool = False

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


def labels(run: str) -> dict[str, str]:
    """What every object of a run carries: the run, and which process on which machine owns it."""
    me = os.getpid()
    return {RUN: run, BOOT: _boot(), PIDS: _pid_namespace(), PID: str(me), STARTED: _started(me) or ""}


def find(api: Api, run: str | None = None) -> list[Found]:
    """Containers first, then networks and volumes: the order in which they can be removed. Raises EngineError."""
    only = {"label": f"{RUN}={run}" if run else RUN}
    with asking("listing what belongs to the testbed"):
        containers = api.containers(all=True, filters=only)
        networks = api.networks(filters=only)
        volumes = api.volumes(filters=only)["Volumes"] or []
    return [
        *(
            Found("container", c["Id"], c["Names"][0].lstrip("/") if c["Names"] else c["Id"][:12],
                  c["Labels"], float(c["Created"]), c["State"] == "running")
            for c in containers
        ),
        *(Found("network", n["Id"], n["Name"], n["Labels"], _seconds(n["Created"])) for n in networks),
        *(Found("volume", v["Name"], v["Name"], v["Labels"], _seconds(v["CreatedAt"])) for v in volumes),
    ]  # fmt: skip


def remove(api: Api, objects: Iterable[Found]) -> dict[Found, str]:
    """Remove them, containers in parallel and first. Never raises: what could not be removed, and why."""
    objects = list(objects)
    containers = [o for o in objects if o.kind == "container"]
    with ThreadPoolExecutor(REMOVERS) as pool:
        answers = list(zip(containers, pool.map(lambda o: _remove(api, o), containers), strict=True))
    answers += [(o, _remove(api, o)) for o in objects if o.kind != "container"]
    return {o: why for o, why in answers if why}


def remove_until_quiet(
    api: Api, run: str, quiet_s: Callable[[set[str]], float], but: str = "", give_up_s: float = GIVE_UP_S
) -> list[str]:
    """Remove what belongs to a run until nothing has been found for a while; what was removed.

    Creates that are in flight finish after their client is dead, so one look is not enough. `quiet_s(found)`
    says how long to look, given all that was found so far ("container NAME", "network NAME", ...). The object
    with the id `but` is spared. Raises EngineError if something is still there after `give_up_s`.
    """
    seen: dict[str, None] = {}  # in the order found
    began = last = time.monotonic()
    while True:
        found = [one for one in find(api, run) if one.id != but]
        refused = remove(api, found)
        seen.update(dict.fromkeys(map(str, found)))
        now = time.monotonic()
        last = now if found else last
        if not found and now - last >= quiet_s(set(seen)):
            return list(seen)
        if now - began > give_up_s + quiet_s(set(seen)):
            reasons = "; ".join(f"{o}: {why}" for o, why in refused.items()) or "something new each time"
            raise EngineError(f"removing what run {run} made: after {now - began:.0f} s still there: {reasons}")
        time.sleep(PAUSE_S)


def sweep(api: Api) -> list[str]:
    """Remove what dead runs left in this daemon, and say what that was. Never touches a live run.

    Raises EngineError if the daemon does not answer or does not remove something.
    """
    runs: dict[str, list[Found]] = {}
    for found in find(api):
        runs.setdefault(found.labels[RUN], []).append(found)
    removed: list[str] = []
    now_s = 0.0
    for run, objects in runs.items():
        now_s = now_s or _daemon_now(api)
        if not is_alive(objects, now_s):
            removed += remove_until_quiet(api, run, lambda _: 0.0, give_up_s=SWEEP_GIVES_UP_S)
    return removed


def is_alive(objects: Iterable[Found], now_s: float) -> bool:
    """Whether the run that made these objects may still be under way.

    Decided by its process where we can see that: the same boot of the same machine and the same pid namespace.
    Elsewhere by its agent, which runs as long as its owner holds the other end of its stdin; an owner that is
    just starting is given UNATTENDED_S to get that far.
    """
    objects = list(objects)
    marks = objects[0].labels
    if not marks.get(PID, "").isdigit() or not {BOOT, PIDS, STARTED} <= set(marks):
        return True  # labelled by somebody else: not ours to judge
    if (marks[BOOT], marks[PIDS]) == (_boot(), _pid_namespace()) and _boot():
        return _process_lives(int(marks[PID]), marks[STARTED])
    if any(o.labels.get(ROLE) == AGENT and o.running for o in objects):
        return True
    return now_s - max(o.created_s for o in objects) < UNATTENDED_S


def _remove(api: Api, found: Found) -> str:
    """Why it could not be removed; "" if it is gone or on its way."""
    try:
        if found.kind == "container":
            api.remove_container(found.id, force=True, v=True)
        elif found.kind == "network":
            api.remove_network(found.id)
        else:
            api.remove_volume(found.id, force=True)
    except docker.errors.NotFound:
        return ""
    except docker.errors.APIError as problem:
        text = explanation(problem)
        return "" if "already in progress" in text else text
    except (OSError, docker.errors.DockerException) as problem:
        return str(problem)
    return ""


def _process_lives(pid: int, started: str) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's, and hidden from us where /proc is mounted with hidepid: it is there
    found = _started(pid)
    return found is None or found == started


def _started(pid: int) -> str | None:
    """Start time in clock ticks since boot, proc(5), field 22 of stat; None if we cannot know."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return stat.rpartition(")")[2].split()[19]


def _boot() -> str:
    """The kernel's random id of this boot; "" where there is none (macOS)."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _pid_namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _daemon_now(api: Api) -> float:
    with asking("asking the Docker daemon for its time"):
        return _seconds(api.info()["SystemTime"])


def _seconds(stamp: Any) -> float:
    """RFC 3339, as Go writes it: up to nine digits of a second, of which we keep none."""
    found = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:\d\d)", str(stamp))
    if found is None:
        raise EngineError(f"reading a time that Docker gave: {stamp!r} is none that we know")
    return datetime.fromisoformat(found[1] + found[2].replace("Z", "+00:00")).astimezone(UTC).timestamp()
