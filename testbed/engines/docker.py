"""The docker engine: a host is a container that holds, a network is a bridge whose door to the machine is shut.

Works against any Docker Engine from 20.10 on, here or far away: nothing relies on a file system in common. What
touches kernel networking is the agent's, in a container of its own; this module only asks Docker for objects.
"""

from __future__ import annotations

import ipaddress
import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import docker.errors
import docker.types
from docker.utils import version_lt

import testbed
from testbed.engines import docker_inside, docker_owner, docker_process
from testbed.engines.api import AddressTaken, Command, Sink
from testbed.engines.docker_client import Api, asking, connect, daemon_answers, explanation
from testbed.engines.docker_image import (
    HOLD,
    LIBRARY,
    PYTHON,
    archive,
    built_image,
    foreign_image,
    inspect_image,
    node_image,
)
from testbed.engines.docker_process import DockerChannel, DockerProcess
from testbed.engines.holder import holder_elf
from testbed.engines.janitor import READY
from testbed.errors import EngineError
from testbed.plan.types import Host, Interface, Network, Plan

__all__ = ["DockerEngine", "daemon_answers", "sweep"]
sweep = docker_owner.sweep

AGENT_CAPABILITIES = ("NET_ADMIN", "NET_RAW", "SYS_ADMIN", "SYS_PTRACE", "KILL", "SYS_NICE")
AGENT = f"import sys; sys.path.insert(0, {LIBRARY!r}); from testbed.agent.__main__ import main; sys.exit(main())"
FOREIGN_HOLD = "/.testbed-hold"  # ours is in the node image
BUILDERS = 8  # hosts made at a time: more than this only wait for the daemon
MEMORY, PROCESSES, OPEN_FILES = "2g", 8192, 16384  # limits of one host, against a program that runs away
NO_RESOLVER = "# no server: every name is in /etc/hosts\n"
WORKING_DIR = "/scenario"

Say = Callable[[str], None]


@dataclass(frozen=True)
class _Container:
    id: str
    unset: tuple[str, ...]  # names of environment variables that Docker would add to a program's own


class DockerEngine:
    """See testbed.engines.api.Engine. `base_dir` is the scenario's directory, for `build:`; `host` a DOCKER_HOST.

    `say` hears of steps that take long: building and pulling images.
    """

    name = "docker"

    def __init__(
        self, base_dir: Path = Path(), say: Say = lambda _: None, scenario: str = "", host: str | None = None
    ) -> None:
        self._base_dir, self._say, self._host = base_dir, say, host
        self.run = uuid.uuid4().hex[:8]
        self._labels = docker_owner.labels(self.run) | {docker_owner.SCENARIO: scenario}
        self._api_: Api | None = None
        self._janitor: subprocess.Popen[bytes] | None = None
        self._janitor_lock = threading.Lock()
        self._channel: DockerChannel | None = None
        self._agent_id = self._image = ""
        self._containers: dict[str, _Container] = {}

    # the verbs

    def open(self) -> DockerChannel:
        """Raises HostError if there is no daemon or no way to get an image, EngineError for the rest."""
        self._api_ = connect(self._host)
        self._janitor = self._start_janitor()
        for gone in docker_owner.sweep(self._api):
            self._say(f"removed what a dead run left: {gone}")
        self._image = node_image(self._api, self._say)
        self._wait_for_janitor()
        self._channel = self._start_agent()
        return self._channel

    def taken(self) -> frozenset[str]:
        """Subnets of the daemon's networks, and what its machine has routes to. Raises EngineError."""
        with asking("listing the daemon's networks"):
            networks = self._api.networks()
        pools = [pool for n in networks for pool in (n.get("IPAM") or {}).get("Config") or []]
        subnets = {pool["Subnet"] for pool in pools if "Subnet" in pool}
        return frozenset(subnets | set(self._ask_beside_the_agent({"routes": True})))

    def up(self, plan: Plan, shut_door: Callable[[list[str]], None]) -> dict[str, int]:
        """Raises AddressTaken, HostError (no such image), EngineError, and what `shut_door` raises."""
        images = self._images(plan)
        try:
            bridges = [self._make_network(number, network) for number, network in enumerate(plan.networks)]
            shut_door(bridges)
            for volume in plan.volumes:
                with asking(f"making volume {volume}"):
                    self._api.create_volume(self._named(volume), labels=self._labels)
            pids = self._make_hosts(plan, images)
            self._write_names(plan, pids)
            return pids
        except BaseException as problem:
            self._containers = {}
            for trouble in self._remove(but_the_agent=True):
                problem.add_note(trouble)
            raise

    def put(self, host: str, files: Iterable[tuple[str, bytes]]) -> None:
        """Raises EngineError."""
        self._put(self._container(host).id, f"copying files into {host}", dict(files))

    def get(self, host: str, path: str) -> bytes:
        """A tar archive; its members start with the path's last part. Raises FileNotFoundError, EngineError."""
        with asking(f"copying {path} out of {host}"):
            try:
                chunks, _ = self._api.get_archive(self._container(host).id, path)
                return b"".join(chunks)
            except docker.errors.NotFound as problem:
                raise FileNotFoundError(f"{path} is not there in host {host}") from problem

    def start(self, host: str, command: Command, stdout: Sink, stderr: Sink) -> DockerProcess:
        """Raises CommandNotFound, EngineError."""
        container = self._container(host)
        return docker_process.start(self._api, container.id, host, command, container.unset, stdout, stderr)

    def describe(self) -> dict[str, Any]:
        """What ran this: the daemon, its machine, our image, and how to enter a host. Raises EngineError."""
        with asking("asking the Docker daemon what it is"):
            info, version = self._api.info(), self._api.version()
        return {
            "docker": version["Version"],
            "api": self._api.api_version,
            "kernel": info["KernelVersion"],
            "system": info["OperatingSystem"],
            "machine": info["Architecture"],
            "cpus": info["NCPU"],
            "memory_bytes": info["MemTotal"],
            "storage": info["Driver"],
            "cgroup": f"version {info.get('CgroupVersion', '1')}, {info['CgroupDriver']}",
            "security": info["SecurityOptions"],
            "sdk": metadata.version("docker"),
            "image": self._image,
            "run": self.run,
            "enter": f"docker exec -it {self._named('HOST')} sh",
            "limits": {"memory": MEMORY, "processes": PROCESSES, "open_files": OPEN_FILES},
        }

    def down(self) -> None:
        """Raises EngineError if something of this run is still there: the janitor then goes on trying."""
        if self._channel is not None:
            self._channel.close()
        if self._api_ is None:
            return
        self._containers = {}
        troubles = self._remove(but_the_agent=False)
        self._end_janitor(clean=not troubles)
        self._api_.close()
        self._api_ = None
        if troubles:
            raise EngineError("; ".join(troubles))

    # the life-line

    def _start_janitor(self) -> subprocess.Popen[bytes]:
        """A session of its own: Ctrl-C must not reach it. Nobody else may hold its stdin's write end."""
        home = str(Path(testbed.__file__).parent.parent)
        path = os.pathsep.join(part for part in (home, os.environ.get("PYTHONPATH", "")) if part)
        environment = os.environ | {"PYTHONPATH": path} | ({"DOCKER_HOST": self._host} if self._host else {})
        return subprocess.Popen(
            [sys.executable, "-m", "testbed.engines.janitor", self.run], env=environment, start_new_session=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/",
        )  # fmt: skip

    def _wait_for_janitor(self) -> None:
        janitor = self._janitor
        assert janitor is not None and janitor.stdout is not None and janitor.stderr is not None
        if janitor.stdout.readline() != READY:
            raise EngineError(f"starting the janitor: {_last_line(janitor.stderr)}")

    def _tell_janitor(self, line: str) -> None:
        """If it is dead we go on: the next run's sweep stands behind it."""
        janitor = self._janitor
        if janitor is not None and janitor.stdin is not None:
            try:
                with self._janitor_lock:
                    janitor.stdin.write(f"{line}\n".encode())
                    janitor.stdin.flush()
            except (BrokenPipeError, ValueError):
                return

    def _end_janitor(self, clean: bool) -> None:
        """`clean`: nothing is left, end at once. Else its input just ends, and it removes what it can."""
        janitor, self._janitor = self._janitor, None
        if janitor is None:
            return
        assert janitor.stdin and janitor.stdout and janitor.stderr
        try:
            if clean:
                janitor.stdin.write(b"done\n")
            janitor.stdin.close()
        except BrokenPipeError:
            pass
        janitor.wait()
        janitor.stdout.close()
        janitor.stderr.close()

    def _remove(self, but_the_agent: bool) -> list[str]:
        """Remove what this run made. Never raises: what went wrong, in words."""
        try:
            if but_the_agent:
                mine = docker_owner.find(self._api, self.run)
                refused = docker_owner.remove(self._api, [o for o in mine if o.id != self._agent_id])
                return [f"removing {found}: {why}" for found, why in refused.items()]
            docker_owner.remove_until_quiet(self._api, self.run, lambda _: 0.0)
        except EngineError as problem:
            return [str(problem)]
        return []

    # the agent

    def _start_agent(self) -> DockerChannel:
        with asking("asking the Docker daemon what it is"):
            security = " ".join(self._api.info()["SecurityOptions"] or [])
        options = ["apparmor=unconfined"] if "name=apparmor" in security else []
        options += ["label=disable"] if "name=selinux" in security else []
        agent_id = self._create(
            "",
            {docker_owner.ROLE: docker_owner.AGENT},
            image=self._image,
            command=[PYTHON, "-IS", "-c", AGENT],
            stdin_open=True,
            detach=False,  # with it the SDK leaves StdinOnce off, and our death would not end the agent's input
            host_config=self._api.create_host_config(
                network_mode="host", pid_mode="host", cap_drop=["ALL"], cap_add=list(AGENT_CAPABILITIES),
                security_opt=options, log_config=docker.types.LogConfig(type="none"),
            ),
        )  # fmt: skip
        self._agent_id = agent_id
        with asking("starting the agent's container"):
            if not self._api.inspect_container(agent_id)["Config"]["StdinOnce"]:
                raise EngineError("starting the agent's container: Docker did not set StdinOnce, as was asked")
            stream = self._api.attach_socket(
                agent_id, {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1, "logs": 0}
            )
            self._api.start(agent_id)
        return DockerChannel(stream)

    def _ask_beside_the_agent(self, request: dict[str, Any]) -> Any:
        """Run docker_inside in the agent's container; its answer. Raises EngineError."""
        source = Path(docker_inside.__file__).read_text()
        out, err = bytearray(), bytearray()
        command = Command((PYTHON, "-IS", "-c", source), {"PATH": os.defpath + ":/usr/sbin:/sbin"}, "/",
                          stdin=json.dumps(request).encode() + b"\n")  # fmt: skip
        process = docker_process.start(self._api, self._agent_id, "the agent's container", command, (),
                                       out.extend, err.extend)  # fmt: skip
        if not process.wait(60) or process.exit != 0:
            said = err.decode(errors="replace").strip()
            raise EngineError(f"asking beside the agent for {', '.join(request)}: {said or process.exit}")
        return json.loads(out)

    # networks and hosts

    def _images(self, plan: Plan) -> dict[str, str]:
        """Host -> image. Raises HostError, EngineError."""
        ready: dict[tuple[str | None, str | None], str] = {(None, None): self._image}
        for host in plan.hosts:
            if (wanted := (host.image, host.build)) not in ready:
                ready[wanted] = (
                    built_image(self._api, self._base_dir / host.build, self._say)
                    if host.build
                    else foreign_image(self._api, host.image or "", self._say)
                )
        return {host.name: ready[host.image, host.build] for host in plan.hosts}

    def _make_network(self, number: int, network: Network) -> str:
        """The name of its bridge device on the daemon's machine."""
        bridge = f"tb{self.run}n{number}"
        options = {
            "com.docker.network.bridge.name": bridge,
            "com.docker.network.bridge.enable_ip_masquerade": "false",
        }
        pool = docker.types.IPAMPool(subnet=network.subnet, gateway=network.gateway)
        with asking(f"making network {network.name}"):
            try:
                self._api.create_network(
                    self._named(network.name), driver="bridge", options=options, labels=self._labels,
                    ipam=docker.types.IPAMConfig(pool_configs=[pool]),
                )  # fmt: skip
            except docker.errors.APIError as problem:
                if "overlap" in explanation(problem):
                    raise AddressTaken(str(ipaddress.ip_network(network.subnet))) from problem
                raise
        return bridge

    def _make_hosts(self, plan: Plan, images: dict[str, str]) -> dict[str, int]:
        """All hosts, several at a time; the first failure ends it, when those under way have come to their end."""
        with ThreadPoolExecutor(BUILDERS, "host") as pool:
            jobs: dict[str, Future[int]] = {
                host.name: pool.submit(self._make_host, host, images[host.name]) for host in plan.hosts
            }
            try:
                wait(jobs.values(), return_when=FIRST_EXCEPTION)
            finally:
                pool.shutdown(cancel_futures=True)
        for job in jobs.values():
            if not job.cancelled():
                job.result()
        return {name: job.result() for name, job in jobs.items()}

    def _make_host(self, host: Host, image: str) -> int:
        ours = image == self._image
        found = inspect_image(self._api, image)
        holds = ours or bool(host.programs)
        container_id = self._create_host(host, image, (HOLD if ours else FOREIGN_HOLD) if holds else "")
        inherited = [word.partition("=")[0] for word in found["Config"].get("Env") or []]
        self._containers[host.name] = _Container(container_id, ("HOSTNAME", *inherited) if ours else ())
        if holds and not ours:
            hold = {FOREIGN_HOLD: holder_elf(found["Architecture"])}
            self._put(container_id, f"preparing host {host.name}", hold)
        with asking(f"starting host {host.name}"):
            for interface in host.interfaces[1:]:
                self._api.connect_container_to_network(
                    container_id, self._named(interface.network), **self._at(interface)
                )
            self._api.start(container_id)
            state = self._api.inspect_container(container_id)["State"]
        if not state["Running"]:
            raise EngineError(
                f"starting host {host.name}: its image {image} ended at once with status {state['ExitCode']}; an "
                "image without programs in the file must serve something by itself"
            )
        return int(state["Pid"])

    def _at(self, interface: Interface) -> dict[str, Any]:
        """Its address; and its MAC where that can be asked for. Where not, Docker's default is the plan's."""
        asked = {"ipv4_address": interface.ip}
        return asked if version_lt(self._api.api_version, "1.44") else asked | {"mac_address": interface.mac}

    def _create_host(self, host: Host, image: str, hold: str) -> str:
        api, first = self._api, host.interfaces[0] if host.interfaces else None
        names = {name: address for address, names in host.names for name in names}
        return self._create(
            host.name,
            {docker_owner.HOST: host.name},
            image=image,
            entrypoint=[hold] if hold else None,
            hostname=host.name,
            detach=True,
            healthcheck={"test": ["NONE"]},  # an image's own would run unasked, and on the wire
            networking_config=(
                {"EndpointsConfig": {self._named(first.network): api.create_endpoint_config(**self._at(first))}}
                if first
                else None
            ),
            host_config=api.create_host_config(
                network_mode=self._named(first.network) if first else "none",
                cap_drop=["ALL"],
                cap_add=list(host.capabilities),
                security_opt=["no-new-privileges:true"],
                sysctls=dict(host.sysctls),
                mem_limit=MEMORY,
                pids_limit=PROCESSES,
                ulimits=[
                    docker.types.Ulimit(name="nofile", soft=OPEN_FILES, hard=OPEN_FILES),
                    docker.types.Ulimit(name="core", soft=0, hard=0),
                ],
                binds={self._named(volume): {"bind": path, "mode": "rw"} for volume, path in host.volumes},
                dns=["127.0.0.1"],  # what asks Docker's own resolver all the same gets no further than the host
                extra_hosts=None if hold else names,  # it starts to serve before we can write the file
                log_config=docker.types.LogConfig(type="none"),
            ),
        )

    def _create(self, name: str, more_labels: dict[str, str], **options: Any) -> str:
        """A container's id. The janitor knows of it before Docker does."""
        full = self._named(name) if name else f"testbed-{self.run}.agent"  # no host can be called that
        self._tell_janitor(f"+ {full}")
        with asking(f"creating container {full}"):
            made = self._api.create_container(
                name=full, labels=self._labels | more_labels, use_config_proxy=False, **options
            )
        self._tell_janitor(f"- {full}")
        return str(made["Id"])

    def _put(self, container_id: str, doing: str, files: dict[str, bytes]) -> None:
        with asking(doing):
            self._api.put_archive(container_id, "/", archive(files, int(time.time())))

    def _write_names(self, plan: Plan, pids: dict[str, int]) -> None:
        """/etc/hosts exactly as planned, and no resolver; written and read back in every host at once."""
        wanted = {
            host.name: {"/etc/hosts": _hosts_file(host), "/etc/resolv.conf": NO_RESOLVER} for host in plan.hosts
        }
        asked = {"write": {name: (pids[name], files) for name, files in wanted.items()}}
        for name, found in self._ask_beside_the_agent(asked).items():
            for path, text in found.items():
                if text != wanted[name][path]:
                    raise EngineError(f"writing {path} of host {name}: it then held {text!r}")

    def _container(self, host: str) -> _Container:
        if host not in self._containers:
            raise EngineError(f"looking for host {host}: it is not up; there are {sorted(self._containers)}")
        return self._containers[host]

    def _named(self, name: str) -> str:
        return f"testbed-{self.run}-{name}"

    @property
    def _api(self) -> Api:
        if self._api_ is None:
            raise EngineError("asking the docker engine for something: it is not open")
        return self._api_


def _hosts_file(host: Host) -> str:
    return "".join(f"{address}\t{' '.join(names)}\n" for address, names in host.names)


def _last_line(stream: IO[bytes]) -> str:
    lines: Sequence[str] = stream.read().decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
