"""The docker engine: a host is a container that holds, a network is a bridge whose door to the machine is shut.

Works against any Docker Engine from 20.10 on, here or far away: nothing relies on a file system in common. What
touches kernel networking is the agent's, in a container of its own; this module only asks Docker for objects.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, BinaryIO

import docker.errors
import docker.types

from testbed import limits
from testbed.directories import BELOW_WRITABLE, LINKS
from testbed.engines import docker_agent, docker_copies, docker_host, docker_inside, docker_owner, docker_process
from testbed.engines.api import AddressTaken, Command, Sink
from testbed.engines.docker_client import Api, asking, connect, daemon_answers, explanation, refuse_mapped_users
from testbed.engines.docker_image import (
    PYTHON,
    archive,
    built_image,
    foreign_image,
    inspect_image,
    node_image,
    said_by,
)
from testbed.engines.docker_lifeline import Lifeline
from testbed.engines.docker_process import DockerChannel, DockerProcess
from testbed.engines.holder import holder_elf
from testbed.engines.janitor import IN_FLIGHT_S
from testbed.engines.launchers import LIBRARY
from testbed.errors import EngineError, last_line
from testbed.plan.images import Image
from testbed.plan.types import Host, Network, Plan
from testbed.project.root import Project

__all__ = ["DockerEngine", "daemon_answers", "sweep"]
sweep = docker_owner.sweep

# DAC_READ_SEARCH: what a process has open is only for its own user to see, and a program may have any.
BUILDERS = 8  # hosts made at a time: more than this only wait for the daemon
ANSWERS_WITHIN_S = 60.0
KNOWN_WITHIN_S = 5.0  # from the end of a container's output until Docker knows of its end

Say = Callable[[str], None]


@dataclass(frozen=True)
class _Container:
    id: str
    unset: tuple[str, ...]  # names of environment variables that Docker would add to a program's own


class DockerEngine:
    """See testbed.engines.api.Engine. The project is where `build:` is taken from; `host` is a DOCKER_HOST.

    `say` hears of steps that take long: building and pulling images.
    """

    name = "docker"

    def __init__(self, project: Project | None = None, say: Say = lambda _: None, host: str | None = None) -> None:
        self.run = uuid.uuid4().hex[:8]
        self._project, self._say, self._host = project or Project.around(Path()), say, host
        self._labels = docker_owner.labels(self.run)
        self._connection: Api | None = None
        self._lifeline: Lifeline | None = None
        self._channel: DockerChannel | None = None
        self._agent_id = self._image = ""
        self._facts: dict[str, Any] = {}
        self._containers: dict[str, _Container] = {}
        self._copies: dict[str, str] = {}  # directory of the author's machine -> volume
        self._warnings: dict[str, None] = {}  # of the daemon, when containers were made, each once
        self._image_of: dict[tuple[str | None, str | None], tuple[str, dict[str, Any]]] = {}  # by `image`, `build`

    # the verbs

    def open(self) -> DockerChannel:
        """Raises HostError if there is no daemon or no way to get an image, EngineError for the rest."""
        self._connection = connect(self._host)
        self._lifeline = Lifeline(self.run, self._host)
        try:
            for gone in docker_owner.sweep(self._api):
                self._say(f"removed what a dead run left: {gone}")
        except EngineError as problem:  # somebody holds on to it: no reason not to run
            self._say(f"could not remove what a dead run left: {problem}")
        self._image = node_image(self._api, self._say)
        self._lifeline.await_ready()
        self._start_agent(None)
        if docker_host.lacks(self._facts):  # what this daemon gives to containers is less than it has
            assert self._channel is not None
            self._channel.close()
            self._remove()
            self._start_agent(self._facts)
        assert self._channel is not None
        return self._channel

    def taken(self) -> frozenset[str]:
        """Subnets of the daemon's networks, and what its machine has routes to. Raises EngineError."""
        return self._pools() | set(self._facts["routes"])

    def _pools(self) -> frozenset[str]:
        with asking("listing the daemon's networks"):
            networks = self._api.networks()
        pools = [pool for network in networks for pool in (network.get("IPAM") or {}).get("Config") or []]
        return frozenset(pool["Subnet"] for pool in pools if "Subnet" in pool)

    def up(self, plan: Plan, shut_door: Callable[[list[str]], None]) -> dict[str, int]:
        """Raises AddressTaken, HostError (no such image), EngineError, and what `shut_door` raises."""
        self._labels[docker_owner.SCENARIO] = plan.scenario
        self._get_images(plan)
        try:
            bridges = [self._make_network(number, network) for number, network in enumerate(plan.networks)]
            shut_door(bridges)
            for volume in plan.volumes:
                self._make_volume(self._named(volume))
            self._copy_directories(plan)
            pids = self._make_hosts(plan)
            self._write_names(plan, pids)
            return pids
        except BaseException as problem:
            self._containers = {}
            for trouble in self._remove(but=self._agent_id):
                problem.add_note(trouble)
            raise

    def images(self, plan: Plan) -> dict[str, Image]:
        """What those of foreign hosts say of their programs. Raises EngineError."""
        foreign = [host for host in plan.hosts if docker_host.foreign(host)]
        return {host.name: said_by(*self._image_of[host.image, host.build]) for host in foreign}

    def put(self, host: str, archive: BinaryIO) -> None:
        """Raises EngineError."""
        self._put(self._container(host).id, f"copying files into {host}", archive)

    def get(self, host: str, path: str) -> bytes:
        """A tar archive; its members start with the path's last part. Raises OSError for none or too much."""
        found, archive = True, bytearray()
        with asking(f"copying {path} out of {host}"):
            try:
                chunks, _ = self._api.get_archive(self._container(host).id, path)
                with closing(chunks):  # and so the connection, if there is more
                    for chunk in chunks:
                        archive += chunk
                        if len(archive) > limits.COLLECTED_BYTES:
                            break
            except docker.errors.NotFound:
                found = False
        if not found:
            raise FileNotFoundError(f"{path} is not there in host {host}")
        if len(archive) > limits.COLLECTED_BYTES:
            raise limits.too_large()
        return bytes(archive)

    def start(self, host: str, command: Command, stdout: Sink, stderr: Sink) -> DockerProcess:
        """Raises CommandNotFound, EngineError."""
        container = self._container(host)
        return docker_process.start(self._api, container.id, host, command, container.unset, stdout, stderr)

    def entrance(self, host: str) -> str:
        """A shell command that enters the host. Raises EngineError if the host is not there."""
        self._container(host)
        at = f"-H {self._host} " if self._host else ""
        return f"docker {at}exec -it {self._named(host)} sh"

    def describe(self) -> dict[str, Any]:
        """What ran this: the daemon, its machine, our image and limits. Raises EngineError."""
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
            "limits": limits.as_records(),
            "warnings": [*(info.get("Warnings") or ()), *self._warnings],
        }

    def down(self) -> None:
        """Raises EngineError if something of this run is still there: the janitor has then tried as well."""
        if self._channel is not None:
            self._channel.close()
        if self._connection is None:
            return
        self._containers = {}
        troubles = self._remove()
        if self._lifeline is not None:
            self._lifeline.end(clean=not troubles)
            self._lifeline = None
        self._connection.close()
        self._connection = None
        if troubles:
            raise EngineError("; ".join(troubles))

    # the agent

    def _start_agent(self, facts: dict[str, Any] | None) -> None:
        """Its channel, and what it finds out first; `facts` of one before it. Raises EngineError."""
        with asking("asking the Docker daemon what it is"):
            info = self._api.info()
        refuse_mapped_users(info)
        *others, last = docker_agent.attempts(info, facts)
        self._channel = None
        for options in others:
            try:
                self._channel = self._run_agent(options)
                break
            except EngineError:
                self._remove()
        if self._channel is None:
            self._channel = self._run_agent(last)
        patience = threading.Timer(ANSWERS_WITHIN_S, self._channel.close)
        patience.start()
        try:
            self._facts = json.loads(self._channel.readline())
        except (EngineError, ValueError) as problem:
            said = self._channel.last_words or "it said nothing"
            raise EngineError(f"starting the agent: {problem}; {said}") from problem
        finally:
            patience.cancel()

    def _run_agent(self, options: dict[str, Any]) -> DockerChannel:
        self._agent_id = self._create(
            f"testbed-{self.run}.agent",  # no host can be called that
            {docker_owner.ROLE: docker_owner.AGENT},
            image=self._image,
            command=[PYTHON, "-IS", "-c", docker_agent.AGENT, _source_of_inside()],
            stdin_open=True,
            detach=False,  # with it the SDK leaves StdinOnce off, and our death would not end the agent's input
            host_config=self._api.create_host_config(
                network_mode="host", pid_mode="host", cap_drop=["ALL"],
                log_config=docker.types.LogConfig(type="none"), init=False, ipc_mode="private", **options,
            ),
        )  # fmt: skip
        with asking("starting the agent's container"):
            if not self._api.inspect_container(self._agent_id)["Config"]["StdinOnce"]:
                raise EngineError("starting the agent's container: Docker did not set StdinOnce, as was asked")
            path = f"/containers/{self._agent_id}/attach?stream=1&stdin=1&stdout=1&stderr=1"
            channel = DockerChannel(self._api.take_over(path), self._why_the_agent_ended)
            try:
                self._api.start(self._agent_id)
            except BaseException:
                channel.close()
                raise
        return channel

    def _why_the_agent_ended(self) -> str:
        """In words: by itself, or because the whole daemon has gone. Never raises."""
        deadline = time.monotonic() + KNOWN_WITHIN_S
        try:
            with asking("looking at the agent's container"):
                while (state := self._api.inspect_container(self._agent_id)["State"])["Running"]:
                    if time.monotonic() > deadline:
                        return "its output ended"
                    time.sleep(0.05)
        except EngineError as problem:
            return str(problem)
        return f"its container ended with {docker_process.exit_of(state['ExitCode'])}"

    def _ask_beside_the_agent(self, request: dict[str, Any]) -> Any:
        """Run docker_inside in the agent's container; its answer. Raises EngineError."""
        source = f"import sys; sys.path.insert(0, {LIBRARY!r}); exec(sys.argv[1])"
        out, err = bytearray(), bytearray()
        stdin = json.dumps(request).encode() + b"\n"
        command = Command(
            (PYTHON, "-IS", "-c", source, _source_of_inside()),
            {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            "/",
            None,
            stdin,
        )
        doing = f"asking beside the agent for {', '.join(request)}"
        process = docker_process.start(self._api, self._agent_id, "agent", command, (), out.extend, err.extend)
        if not process.wait(ANSWERS_WITHIN_S):
            raise EngineError(f"{doing}: no answer within {ANSWERS_WITHIN_S:g} s")
        if process.exit != 0:
            raise EngineError(f"{doing}: it ended with {process.exit}: {last_line(bytes(err)) or 'no message'}")
        said = json.loads(out)
        if "problem" in said:
            raise EngineError(said["problem"])
        return said["found"]

    # networks and hosts

    def _get_images(self, plan: Plan) -> None:
        """Pull and build what is not there yet. Raises HostError, EngineError."""
        for host in plan.hosts:
            if (wanted := (host.image, host.build)) not in self._image_of:
                name = self._image
                if host.build:
                    name = built_image(self._api, self._project, host.build, self._say)
                elif host.image:
                    name = foreign_image(self._api, host.image, self._say)
                self._image_of[wanted] = name, inspect_image(self._api, name)

    def _make_network(self, number: int, network: Network) -> str:
        """The name of its bridge device on the daemon's machine."""
        bridge = docker_host.bridge_name(self.run, number)
        options = docker_host.network_options(network, bridge, self._api.api_version)
        name = self._named(network.name)
        with self._making("network", name):
            try:
                made = self._api.create_network(name, labels=self._labels, **options)
            except docker.errors.APIError as problem:
                if "overlap" in explanation(problem):
                    raise AddressTaken(docker_host.in_use(network, self._pools())) from problem
                raise
        with asking(f"reading back network {name}"):
            wrong = docker_host.not_as_asked(options, self._api.inspect_network(made["Id"]))
        if wrong:
            raise EngineError(f"making network {name}: {'; '.join(wrong)}")
        return bridge

    def _make_volume(self, name: str) -> None:
        with self._making("volume", name):
            self._api.create_volume(name, "local", docker_host.volume_options(), labels=self._labels)

    def _copy_directories(self, plan: Plan) -> None:
        """Make volumes of what hosts are shown of the author's machine."""
        self._copies = copies = docker_copies.named(plan, lambda number: f"testbed-{self.run}.directory-{number}")
        if copies:
            for volume in copies.values():
                self._make_volume(volume)
            options = docker_copies.keeper(self._api, copies)
            keeper = self._create(f"testbed-{self.run}.keeper", {}, image=self._image, **options)
            docker_copies.fill(self._api, keeper, copies)

    def _make_hosts(self, plan: Plan) -> dict[str, int]:
        """All hosts, several at a time; the first failure ends it, when those under way have come to their end."""
        with ThreadPoolExecutor(BUILDERS, "host") as pool:
            jobs: dict[str, Future[int]] = {host.name: pool.submit(self._make_host, host) for host in plan.hosts}
            try:
                wait(jobs.values(), return_when=FIRST_EXCEPTION)
            finally:
                pool.shutdown(cancel_futures=True)
        for job in jobs.values():
            if not job.cancelled():
                job.result()
        return {name: job.result() for name, job in jobs.items()}

    def _make_host(self, host: Host) -> int:
        """The process id, on the daemon's machine, of what holds it."""
        image, found = self._image_of[host.image, host.build]
        ours = not docker_host.foreign(host)
        inherited = [word.partition("=")[0] for word in (found.get("Config") or {}).get("Env") or []]
        container_id = self._create_host(host, image, docker_host.HOLD if ours else docker_host.FOREIGN_HOLD)
        self._containers[host.name] = _Container(container_id, ("HOSTNAME", *inherited) if ours else ())
        if not ours:
            hold = archive({docker_host.FOREIGN_HOLD: holder_elf(found["Architecture"])}, int(time.time()))
            self._put(container_id, f"preparing host {host.name}", hold)
        with asking(f"starting host {host.name}"):
            for interface in host.interfaces[1:]:
                where = docker_host.endpoint(interface, self._api.api_version)
                self._api.connect_container_to_network(container_id, self._named(interface.network), **where)
            self._api.start(container_id)
            state = self._api.inspect_container(container_id)["State"]
        if not state["Running"]:
            raise _ended(host.name, image, state["ExitCode"])
        return int(state["Pid"])

    def _create_host(self, host: Host, image: str, hold: str) -> str:
        api = self._api
        networking = None
        if host.interfaces:
            first = host.interfaces[0]
            settings = api.create_endpoint_config(**docker_host.endpoint(first, api.api_version))
            networking = {"EndpointsConfig": {self._named(first.network): settings}}
        return self._create(
            self._named(host.name),
            {docker_owner.HOST: host.name},
            image=image,
            entrypoint=[hold],  # with it goes the image's CMD
            hostname=host.name,
            detach=True,
            healthcheck={"test": ["NONE"]},  # an image's own would run unasked, and on the wire
            networking_config=networking,
            host_config=api.create_host_config(
                **docker_host.host_config(host, self._named, self._facts, self._copies)
            ),
        )

    def _create(self, name: str, more_labels: dict[str, str], **options: Any) -> str:
        """A container's id."""
        with self._making("container", name):
            made = self._api.create_container(
                name=name,
                labels=self._labels | more_labels,
                use_config_proxy=False,  # nothing of the caller's
                stop_timeout=1,  # a holder is deaf: a daemon that shuts down need not wait for it
                **options,
            )
        self._warnings.update(dict.fromkeys(made.get("Warnings") or ()))
        return str(made["Id"])

    @contextmanager
    def _making(self, kind: str, name: str) -> Iterator[None]:
        """The janitor knows of everything before Docker does, and hears of every answer."""
        assert self._lifeline is not None
        self._lifeline.about_to(f"{kind} {name}")
        with asking(f"making {kind} {name}"):
            try:
                yield
            except (docker.errors.APIError, AddressTaken):
                self._lifeline.answered(f"{kind} {name}")
                raise
        self._lifeline.answered(f"{kind} {name}")

    def _put(self, container_id: str, doing: str, archive: bytes | BinaryIO) -> None:
        with asking(doing):
            self._api.put_archive(container_id, "/", archive)  # a file is sent in pieces

    def _write_names(self, plan: Plan, pids: dict[str, int]) -> None:
        """/etc/hosts exactly as planned, and no resolver; written and read back in every host at once.

        Then our own hosts are sealed: what is not to be written is read-only.
        """
        wanted = {
            host.name: {"/etc/hosts": host.hosts_file(), "/etc/resolv.conf": docker_host.NO_RESOLVER}
            for host in plan.hosts
        }
        ours = [host.name for host in plan.hosts if not docker_host.foreign(host)]
        asked = {
            "write": {name: (pids[name], self._container(name).id, files) for name, files in wanted.items()},
            "seal": ours,
            "directories": BELOW_WRITABLE,
            "links": LINKS,
        }
        for name, found in self._ask_beside_the_agent(asked).items():
            if found is None:
                with asking(f"looking at host {name}"):
                    status = self._api.wait(self._container(name).id)["StatusCode"]
                host = plan.host(name)
                raise _ended(name, self._image_of[host.image, host.build][0], status)
            if found != wanted[name]:
                raise EngineError(f"writing the names of host {name}: its files then held {found}")

    def _remove(self, but: str = "") -> list[str]:
        """Remove what this run made, but for one container. Never raises: what went wrong, in words."""
        try:
            unheard = self._lifeline.unheard if self._lifeline is not None else set()
            docker_owner.remove_until_quiet(
                self._api, self.run, lambda seen: 0.0 if unheard <= seen else IN_FLIGHT_S, but
            )
        except EngineError as problem:
            return [str(problem)]
        return []

    def _container(self, host: str) -> _Container:
        if host not in self._containers:
            raise EngineError(f"looking for host {host}: it is not up; there are {sorted(self._containers)}")
        return self._containers[host]

    def _named(self, name: str) -> str:
        return f"testbed-{self.run}-{name}"

    @property
    def _api(self) -> Api:
        if self._connection is None:
            raise EngineError("asking the docker engine for something: it is not open")
        return self._connection


def _source_of_inside() -> str:
    return Path(docker_inside.__file__).read_text()


def _ended(host: str, image: str, status: int) -> EngineError:
    return EngineError(
        f"starting host {host}: what holds it ended at once with status {status}, in the image {image}; see "
        "whether that image is for the machine of the daemon"
    )
