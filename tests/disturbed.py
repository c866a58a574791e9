"""A run that is to be disturbed: how it begins, what it could leave behind, and what must be whole on disk."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from testbed.engines import docker_owner
from testbed.engines.docker_client import api_closed, connect
from testbed.engines.docker_image import node_image
from tests import own_groups
from tests.command import start
from tests.conftest import processes_below
from tests.docker_daemon import on_its_machine

SHORT = Path(__file__).with_name("short.yaml")
PROBES = "200"
GONE_WITHIN_S = 5.0
LISTENER = "testbed-check-"  # and its suite's process id: see namespaces_isolation

Left = Callable[[], list[str]]


def words(engine: str, directory: Path, probes: int) -> list[str | Path]:
    """Of a command whose client sends so many probes, one a millisecond; all its files are in `directory`."""
    directory.joinpath("tmp").mkdir(parents=True, exist_ok=True)
    scenario = directory / "short.yaml"
    scenario.write_text(SHORT.read_text().replace(PROBES, str(probes)))
    return ["run", scenario, "--engine", engine, "--results", directory / "results"]


def begun(engine: str, directory: Path, probes: int = 200) -> subprocess.Popen[str]:
    return start(*words(engine, directory, probes), TMPDIR=str(directory / "tmp"))


def until(process: subprocess.Popen[str], words: str) -> str:
    """Wait until it has said that; what it has said."""
    assert process.stderr is not None
    said = ""
    while words not in said:
        line = process.stderr.readline()
        assert line, f"it ended before {words!r}, having said {said!r}"
        said += line
    return said


def there_is(engine: str) -> set[str]:
    """All that could be of a run of ours: processes, what they keep, and on the daemon."""
    found = {f"process {pid}: {line}" for pid, line in processes_below(os.getpid()).items()}
    found |= {f"shared memory {path}" for path in shared_memory()}
    found |= {f"control group {path}" for path in own_groups.dead()}
    return found | (on_daemon(os.environ["DOCKER_HOST"]) if engine == "docker" else set())


def shared_memory() -> Iterator[Path]:
    """This user's, and none of another suite's listeners: others may run at the same time."""
    for path in Path("/dev/shm").iterdir():
        mark, _, pid = path.name.partition(LISTENER)
        if not mark and pid.partition("-")[0] != str(os.getpid()):
            continue
        with suppress(FileNotFoundError):
            if path.lstat().st_uid == os.geteuid():
                yield path


def image_made() -> None:
    """The image of hosts stays for good, and the first run makes it."""
    with api_closed(connect()) as api:
        node_image(api, lambda _: None)


def on_daemon(host: str) -> set[str]:
    """What is ours there, and what a build or a crash could leave without a label."""
    with api_closed(connect(host)) as api:
        images = {f"image {one['Id']} {one['RepoTags']}" for one in api.images()}
    return ours_on_daemon(host) | images


def ours_on_daemon(host: str) -> set[str]:
    """What has a label there, or a device's name of ours; but nothing of another's run that lives."""
    with api_closed(connect(host)) as api:
        runs: dict[str, list[docker_owner.Found]] = {}
        for one in docker_owner.find(api):
            runs.setdefault(one.labels[docker_owner.RUN], []).append(one)
        now_s = time.time()
    below = {os.getpid(), *processes_below(os.getpid())}
    theirs = {
        run
        for run, objects in runs.items()
        if int(objects[0].labels.get(docker_owner.PID, "0")) not in below and docker_owner.is_alive(objects, now_s)
    }
    links = json.loads(on_its_machine(host, ["ip", "-j", "link"], check=True).stdout)
    devices = [link["ifname"] for link in links if link["ifname"].startswith("tb")]
    return {
        *(str(one) for run, objects in runs.items() if run not in theirs for one in objects),
        *(f"device {name}" for name in devices if not any(name.startswith(f"tb{run}n") for run in theirs)),
    }


def await_gone(left: Left, what: str, within_s: float = GONE_WITHIN_S) -> None:
    deadline = time.monotonic() + within_s
    while there := left():
        assert time.monotonic() < deadline, f"{what}: {there}"
        time.sleep(0.05)


def whole_on_disk(directory: Path) -> list[dict[str, Any]]:
    """Every file of records is there whole or not at all, and nothing else is; the runs' own records."""
    assert not list((directory / "tmp").iterdir())
    found = {path: json.loads(path.read_text()) for path in (directory / "results").rglob("*.json")}
    return [content for path, content in found.items() if path.name == "run.json"]
