"""How long hosts take to come up and to go, beside what nobody can undercut and what others take."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from benchmarks.figures import Figure, Row, Skipped, alternately, seconds
from benchmarks.labs import deployed, plan_of
from testbed.engines.api import Engine
from testbed.engines.docker import DockerEngine
from testbed.engines.docker_client import Api, api_closed, connect
from testbed.engines.docker_image import node_image
from testbed.engines.namespaces import NamespacesEngine

ROOT = Path(__file__).parent.parent
DEBIAN_PYTHON = "/usr/bin/python3"
STARTERS = 8


def namespaces(quick: bool) -> Iterator[Row]:
    for hosts in (2, 10) if quick else (2, 10, 100, 500):
        name = f"namespaces: {hosts} hosts up and down"
        times = 3 if hosts <= 100 else 1
        whole, bare = alternately(times, partial(_up_and_down, NamespacesEngine, hosts), partial(_bare, hosts))
        yield Figure(name, whole, "s", "fork, unshare, veth", bare, most=1.5)
        if hosts != 100:
            continue
        why_not = _no_mininet()
        if why_not:
            yield Skipped(f"{name}, Mininet", why_not)
        else:
            yield Figure(name, whole, "s", "Mininet", _mininet(hosts), most=0.25)


def _up_and_down(engine: Callable[[], Engine], hosts: int) -> float:
    made = plan_of(hosts)

    def up_and_down() -> None:
        with deployed(engine(), made):
            pass

    return seconds(up_and_down)


def _bare(hosts: int) -> float:
    return _told(["unshare", "--net", sys.executable, "-m", "benchmarks.bare", str(hosts)])


def _mininet(hosts: int) -> float:
    script = str(Path(__file__).with_name("mininet_hosts.py"))
    return _told(["unshare", "--net", "--mount", DEBIAN_PYTHON, script, str(hosts)])


def _told(argv: list[str]) -> float:
    """Up and down together, in seconds, as a script says it. Raises CalledProcessError."""
    if os.geteuid() != 0:
        argv = [argv[0], "--map-root-user", *argv[1:]]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=True)
    took = json.loads(done.stdout.splitlines()[-1])
    return float(took["up_s"] + took["down_s"])


def _no_mininet() -> str:
    if os.geteuid() != 0:
        return "Mininet needs root"
    if not shutil.which("brctl"):
        return "its Linux bridge needs brctl: apt-get install mininet bridge-utils"
    done = subprocess.run([DEBIAN_PYTHON, "-c", "import mininet"], capture_output=True)
    return "not installed: apt-get install mininet bridge-utils" if done.returncode else ""


def docker(host: str, quick: bool) -> Iterator[Row]:
    """`host` as in DOCKER_HOST."""
    with api_closed(connect(host)) as api:
        image = node_image(api, lambda _: None)  # else the first run would build it
        for hosts in (2,) if quick else (2, 10, 30):
            name = f"docker: {hosts} hosts up and down"
            measures = [
                partial(_up_and_down, partial(DockerEngine, host=host), hosts),
                partial(seconds, partial(_raw, api, image, hosts)),
            ]
            compose = shutil.which("docker-compose")
            if compose:
                measures.append(partial(_compose, compose, host, image, hosts))
            whole, raw, *others = alternately(1 if hosts > 10 else 3, *measures)
            yield Figure(name, whole, "s", "SDK, create and start", raw, most=1.2)
            for other in others:
                yield Figure(name, whole, "s", "docker-compose", other, most=1 / 1.6)
            if not others:
                yield Skipped(f"{name}, docker-compose", "not installed: apt-get install docker-compose")


def _raw(api: Api, image: str, hosts: int) -> None:
    """A network and containers on it, created, started and removed by as many threads as help."""
    mark = uuid.uuid4().hex[:8]
    network = api.create_network(f"bench-{mark}", driver="bridge")["Id"]
    config = api.create_host_config(network_mode=network, cap_drop=["ALL"])

    def start(number: int) -> str:
        made = api.create_container(image, ["sleep", "999"], name=f"bench-{mark}-{number}", host_config=config)
        api.start(made["Id"])
        return str(made["Id"])

    try:
        with ThreadPoolExecutor(STARTERS) as starters:
            containers = list(starters.map(start, range(hosts)))
            list(starters.map(lambda one: api.remove_container(one, force=True), containers))
    finally:
        api.remove_network(network)


def _compose(command: str, host: str, image: str, hosts: int) -> float:
    services = {f"h{n}": {"image": image, "command": ["sleep", "999"]} for n in range(hosts)}
    with tempfile.TemporaryDirectory(prefix="bench") as directory:
        file = Path(directory) / "docker-compose.yml"
        file.write_text(json.dumps({"version": "3", "services": services}))

        def ask(*words: str) -> None:
            environment = os.environ | {"DOCKER_HOST": host, "COMPOSE_PARALLEL_LIMIT": str(max(STARTERS, hosts))}
            subprocess.run([command, "-f", file, *words], env=environment, capture_output=True, check=True)

        def up_and_down() -> None:
            ask("up", "-d")
            ask("down", "-t", "0")

        return seconds(up_and_down)
