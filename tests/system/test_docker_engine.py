"""The docker engine against a real daemon: what only Docker can get wrong, and what must not be left behind."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from testbed.agent.client import AgentClient
from testbed.engines import docker_owner
from testbed.engines.api import AddressTaken, Command
from testbed.engines.docker import DockerEngine, sweep
from testbed.engines.docker_client import Api, api_closed, connect, daemon_answers
from testbed.engines.docker_host import FOREIGN_HOLD, MEMORY, NO_RESOLVER, PROCESSES
from testbed.engines.docker_image import archive, node_image
from testbed.engines.docker_process import DockerProcess
from testbed.engines.holder import holder_elf
from testbed.errors import CommandNotFound, EngineError, HostError, TestbedError
from testbed.linux import CAPABILITIES
from testbed.plan.types import Ends, Host, Interface, Network, Plan, Route
from tests.docker_daemon import on_its_machine

PATH = "/opt/testbed/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
ENVIRONMENT = {"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8"}
SYSCTLS = {"net.ipv4.ip_unprivileged_port_start": "1024", "net.ipv4.ping_group_range": "1\t0"}
OUR_LABEL = {"label": docker_owner.RUN}
GONE_WITHIN_S = 30.0


# plans by hand: this is about the engine, not about planning


def make_plan(hosts: dict[str, str], third: int = 100, volumes: dict[str, str] | None = None, **more: Any) -> Plan:
    """`hosts`: name -> its networks, separated by blanks. Subnets are 198.18.<third + n>.0/24."""
    names = list(dict.fromkeys(net for nets in hosts.values() for net in nets.split()))
    thirds = {net: third + n for n, net in enumerate(names)}
    networks = tuple(Network(n, f"198.18.{t}.0/24", f"198.18.{t}.1") for n, t in thirds.items())
    interfaces = {
        name: tuple(
            Interface(f"eth{i}", net, f"198.18.{t}.{10 + k}", 24, f"02:42:c6:12:{t:02x}:{10 + k:02x}")
            for i, net in enumerate(nets.split())
            for t in [thirds[net]]
        )
        for k, (name, nets) in enumerate(hosts.items())
    }  # fmt: skip
    known = tuple((nics[0].ip, (name,)) for name, nics in interfaces.items() if nics)
    mounts = tuple((volumes or {}).items())
    made = tuple(
        Host(
            name, None, 1, None, None, nics, (("127.0.0.1", ("localhost",)), *known),
            tuple(Route(f"{nic.ip.rpartition('.')[0]}.0/24", nic.name, nic.ip) for nic in nics), (), SYSCTLS, (),
            mounts, (f"{name}.x",),
        )
        for name, nics in interfaces.items()
    )  # fmt: skip
    made = tuple(replace(host, **more) for host in made)
    return Plan(
        "by-hand", "", "by-hand.yaml", (), 1, 60 * 10**9, None, (), networks, made, {}, tuple(volumes or {}),
        (), (), (), Ends(), (),
    )  # fmt: skip


@dataclass
class Ended:
    exit: int | str | None
    out: str
    err: str
    process: DockerProcess


@dataclass
class Lab:
    engine: DockerEngine
    agent: AgentClient
    plan: Plan
    pids: dict[str, int]
    docker_host: str

    def start(self, host: str, *argv: str, **more: Any) -> tuple[DockerProcess, bytearray, bytearray]:
        out, err = bytearray(), bytearray()
        command = Command(argv, more.pop("environment", ENVIRONMENT), **more)
        return self.engine.start(host, command, out.extend, err.extend), out, err

    def run(self, host: str, *argv: str, **more: Any) -> Ended:
        process, out, err = self.start(host, *argv, **more)
        assert process.wait(30), f"{argv} on {host} did not end"
        return Ended(process.exit, out.decode(errors="replace"), err.decode(errors="replace"), process)

    def python(self, host: str, program: str, **more: Any) -> Ended:
        return self.run(host, "python3", "-ISc", program, **more)

    def ip(self, host: str, number: int = 0) -> str:
        return self.plan.host(host).interfaces[number].ip


@contextmanager
def lab(docker_host: str, plan: Plan, **more: Any) -> Iterator[Lab]:
    engine = DockerEngine(host=docker_host, **more)
    try:
        agent = AgentClient(engine.open())
        try:
            pids = engine.up(plan, agent.door)
            agent.hosts(plan, pids)
            yield Lab(engine, agent, plan, pids, docker_host)
        finally:
            agent.close()
    finally:
        engine.down()


@pytest.fixture(scope="module")
def up(docker_daemon: str) -> Iterator[Lab]:
    """left - both - right: two networks and a host on both of them, which share a volume."""
    plan = make_plan({"left": "a", "both": "a b", "right": "b"}, volumes={"spool": "/spool"})
    with lab(docker_daemon, plan) as made:
        yield made


@pytest.fixture
def api(docker_daemon: str) -> Iterator[Api]:
    with api_closed(connect(docker_daemon)) as made:
        yield made


def inspect(lab: Lab, name: str) -> dict[str, Any]:
    with api_closed(connect(lab.docker_host)) as api:
        found: dict[str, Any] = api.inspect_container(f"testbed-{lab.engine.run}{name}")
    return found


# hosts and networks


SERVE_ONCE = """
import socket
server = socket.create_server(("0.0.0.0", {port}))
print("READY", flush=True)
connection, peer = server.accept()
connection.sendall(peer[0].encode())
"""
ASK = """
import socket, sys
try:
    print(socket.create_connection(("{to}", {port}), timeout=2).recv(100).decode())
except OSError as problem:
    sys.exit(f"{{type(problem).__name__}} {{problem}}")
"""


def test_hosts_talk_by_name_and_see_each_others_addresses(up: Lab) -> None:
    server, said, _ = up.start("both", "python3", "-ISc", SERVE_ONCE.format(port=7100))
    await_true(lambda: b"READY" in said)
    assert up.python("left", ASK.format(to="both", port=7100)).out.strip() == up.ip("left")
    assert server.wait(10) and server.exit == 0


def test_a_host_on_both_networks_is_no_way_from_one_to_the_other(up: Lab) -> None:
    server, said, _ = up.start("right", "python3", "-ISc", SERVE_ONCE.format(port=7101))
    await_true(lambda: b"READY" in said)
    across = up.python("left", ASK.format(to=up.ip("right"), port=7101))
    assert across.exit == 1 and "OSError" in across.err, across.err
    assert up.python("both", ASK.format(to=up.ip("right"), port=7101)).out.strip() == up.ip("both", 1), (
        "the control"
    )
    assert server.wait(10)


def test_broadcast_and_multicast_stay_within_the_network(up: Lab) -> None:
    listen = """
import socket, struct
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("0.0.0.0", 7102))
group = socket.inet_aton("239.1.2.3") + socket.inet_aton("{ip}")
sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group)
sock.settimeout(1.5)
print("READY", flush=True)
try:
    while True:
        print(sock.recv(100).decode(), flush=True)
except TimeoutError:
    pass
"""
    listeners = {
        host: up.start(host, "python3", "-ISc", listen.replace("{ip}", up.ip(host))) for host in ("both", "right")
    }
    for _, said, _ in listeners.values():
        await_true(lambda said=said: b"READY" in said)  # type: ignore[misc]
    send = f"""
import socket
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("{up.ip("left")}"))
sock.sendto(b"broadcast", ("{up.ip("left").rpartition(".")[0]}.255", 7102))
sock.sendto(b"multicast", ("239.1.2.3", 7102))
"""
    assert up.python("left", send).exit == 0
    for process, _, _ in listeners.values():
        assert process.wait(10)
    assert sorted(listeners["both"][1].decode().split()) == ["READY", "broadcast", "multicast"]
    assert listeners["right"][1].decode().split() == ["READY"]


def test_names_are_exactly_those_of_the_plan_and_an_unknown_one_fails_at_once(up: Lab) -> None:
    lines = ["127.0.0.1\tlocalhost", *(f"{up.ip(name)}\t{name}" for name in ("left", "both", "right"))]
    assert up.run("both", "cat", "/etc/hosts").out.splitlines() == lines
    assert up.run("both", "cat", "/etc/resolv.conf").out == NO_RESOLVER
    ask = """
import socket, time
began = time.monotonic()
try:
    socket.getaddrinfo("no-such-host.example", 80)
except socket.gaierror:
    print(time.monotonic() - began)
"""
    assert float(up.python("both", ask).out) < 1.0
    assert up.run("both", "hostname").out.strip() == "both"


def test_a_volume_is_shared_and_nothing_else_is(up: Lab) -> None:
    assert up.run("left", "sh", "-c", "echo shared > /spool/x; echo own > /tmp/x").exit == 0
    assert up.run("right", "cat", "/spool/x").out == "shared\n"
    assert up.run("right", "cat", "/tmp/x").exit == 1


# the door


def test_the_door_is_shut_before_the_first_container_exists(docker_daemon: str, api: Api) -> None:
    seen: dict[str, Any] = {}
    engine = DockerEngine(host=docker_daemon)

    def look(bridges: list[str]) -> None:
        found = [f for f in docker_owner.find(api, engine.run) if f.labels.get(docker_owner.ROLE) is None]
        seen.update(bridges=bridges, kinds=sorted(f.kind for f in found))

    try:
        engine.open()
        engine.up(make_plan({"left": "a", "both": "a b"}, 110), look)
    finally:
        engine.down()
    assert seen["kinds"] == ["network", "network"]
    assert len(set(seen["bridges"])) == 2 and all(len(name) < 16 for name in seen["bridges"])


def test_the_machine_cannot_be_reached_from_a_host_at_any_of_its_addresses(up: Lab) -> None:
    shown = on_its_machine(up.docker_host, ["ip", "-j", "-4", "address"], check=True).stdout
    addresses = [a["local"] for link in json.loads(shown) for a in link["addr_info"] if a["local"] != "127.0.0.1"]
    gateway = up.plan.networks[0].gateway
    assert gateway in addresses
    with machine_listens(up.docker_host, 7110) as accepted:
        assert "True" in on_its_machine(up.docker_host, [sys.executable, "-c", TRY, gateway, "7110"]).stdout, (
            "control"
        )
        for address in addresses:
            assert up.run("left", "python3", "-ISc", TRY, address, "7110").out.strip() == "False", address
        assert accepted() == 1, "the control's only"


def test_a_host_cannot_be_reached_from_the_machine(up: Lab) -> None:
    server, said, _ = up.start("left", "python3", "-ISc", SERVE_ONCE.format(port=7111))
    hears, heard, _ = up.start("left", "python3", "-ISc", HEAR)
    await_true(lambda: b"READY" in said and b"READY" in heard)
    reached = on_its_machine(up.docker_host, [sys.executable, "-c", TRY, up.ip("left"), "7111"])
    assert reached.stdout.strip() == "False"
    on_its_machine(up.docker_host, [sys.executable, "-c", SAY, up.ip("left"), "x"])
    assert up.run("both", "python3", "-ISc", SAY, up.ip("left"), "y").exit == 0
    await_true(lambda: b"y" in heard)
    assert b"x" not in heard
    for process in (server, hears):
        up.agent.signal("left", process.pid, "KILL")
        assert process.wait(10)


TRY = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=1)
    print(True)
except OSError:
    print(False)
"""
HEAR = """
import socket
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("0.0.0.0", 7112))
print("READY", flush=True)
while True:
    print(sock.recv(10).decode(), flush=True)
"""
SAY = """
import socket, sys
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(sys.argv[2].encode(), (sys.argv[1], 7112))
"""
LISTEN = """
import socket, sys
server = socket.create_server(("0.0.0.0", int(sys.argv[1])))
print("READY", flush=True)
while True:
    server.accept()
    print("accepted", flush=True)
"""


@contextmanager
def machine_listens(docker_host: str, port: int) -> Iterator[Callable[[], int]]:
    """A TCP listener on the daemon's machine; gives a function that counts what it accepted."""
    from tests.docker_daemon import command_on_its_machine

    argv = command_on_its_machine(docker_host, [sys.executable, "-c", LISTEN, str(port)])
    said = bytearray()
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as listener:
        assert listener.stdout is not None
        assert listener.stdout.readline() == b"READY\n"

        def read() -> None:
            assert listener.stdout is not None
            while line := listener.stdout.readline():
                said.extend(line)

        reader = threading.Thread(target=read)
        reader.start()
        try:
            yield lambda: said.count(b"accepted")
        finally:
            listener.kill()
            reader.join()


# what a program may do


def test_a_program_has_no_capability_and_cannot_gain_one(up: Lab) -> None:
    status = dict(
        line.split(":\t", 1)
        for line in up.run("left", "cat", "/proc/self/status").out.splitlines()
        if ":\t" in line
    )
    assert {status[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {"0" * 16}
    assert status["NoNewPrivs"] == "1" and status["Uid"].split()[0] == "0"
    refused = up.python("left", "import socket; socket.create_server(('0.0.0.0', 80))")
    assert refused.exit == 1 and "PermissionError" in refused.err
    pinged = up.run("left", "ping", "-c1", "both")
    assert pinged.exit == 2 and "socket: Operation not permitted" in pinged.err
    mounted = up.python("left", "import ctypes; print(ctypes.CDLL(None).mount(b'x', b'/tmp', b'tmpfs', 0, None))")
    assert mounted.out.strip() == "-1"


def test_a_host_has_the_capabilities_that_the_plan_gives_it(docker_daemon: str) -> None:
    plan = make_plan({"one": "a", "two": "a"}, 112, capabilities=("NET_RAW", "NET_BIND_SERVICE"))
    with lab(docker_daemon, plan) as made:
        mask = sum(1 << CAPABILITIES.index(name) for name in ("NET_RAW", "NET_BIND_SERVICE"))
        effective = made.run("one", "grep", "CapEff", "/proc/self/status").out.split()[1]
        assert int(effective, 16) == mask
        assert made.run("one", "ping", "-c1", "-W2", "two").exit == 0


def test_limits_labels_and_isolation_are_as_said(up: Lab) -> None:
    found = inspect(up, "-left")
    config, labels = found["HostConfig"], found["Config"]["Labels"]
    assert config["Memory"] == int(MEMORY[:-1]) << 30 and config["PidsLimit"] == PROCESSES
    assert config["LogConfig"]["Type"] == "none" and config["RestartPolicy"]["Name"] in ("", "no")
    assert not config["Privileged"] and config["PidMode"] == "" and not config["PortBindings"]
    assert labels[docker_owner.RUN] == up.engine.run and labels[docker_owner.HOST] == "left"
    assert labels[docker_owner.SCENARIO] == "by-hand" and labels[docker_owner.PID] == str(os.getpid())
    soft = int(up.run("left", "sh", "-c", "ulimit -Sn").out)
    assert soft == int(up.run("left", "sh", "-c", "ulimit -Hn").out) >= 1024
    assert up.run("left", "sh", "-c", "ulimit -c").out.strip() == "0"


def test_the_agent_has_six_capabilities_and_its_input_ends_with_us(up: Lab) -> None:
    found = inspect(up, ".agent")
    config = found["HostConfig"]
    assert (config["PidMode"], config["NetworkMode"], config["LogConfig"]["Type"]) == ("host", "host", "none")
    assert config["CapDrop"] == ["ALL"] and not config["Privileged"]
    added = sorted(name.removeprefix("CAP_") for name in config["CapAdd"])
    assert added == ["KILL", "NET_ADMIN", "NET_RAW", "SYS_ADMIN", "SYS_NICE", "SYS_PTRACE"]
    assert found["Config"]["StdinOnce"] and found["Config"]["OpenStdin"]


def test_the_agents_container_ends_when_the_channel_closes(docker_daemon: str, api: Api) -> None:
    engine = DockerEngine(host=docker_daemon)
    try:
        engine.open().close()
        name = f"testbed-{engine.run}.agent"
        await_true(lambda: not api.inspect_container(name)["State"]["Running"])
    finally:
        engine.down()


def test_every_sysctl_of_the_plan_is_set(up: Lab) -> None:
    for name, value in SYSCTLS.items():
        assert up.run("left", "cat", f"/proc/sys/{name.replace('.', '/')}").out.strip() == value


# programs


@pytest.mark.parametrize("status", [0, 1, 3, 125, 126, 127, 128, 255])
def test_an_exit_status_comes_back_as_it_is(up: Lab, status: int) -> None:
    assert up.run("left", "sh", "-c", f"exit {status}").exit == status


@pytest.mark.parametrize("name", ["TERM", "KILL", "HUP", "SEGV"])
def test_a_death_by_signal_is_named(up: Lab, name: str) -> None:
    process, _, _ = up.start("left", "sleep", "60")
    assert process.exit is None and process.ended_ns is None
    assert up.agent.signal("left", process.pid, name) == [process.pid]
    assert process.wait(10) and process.exit == f"SIG{name}"


def test_the_process_id_is_the_agents_and_only_good_for_its_own_host(up: Lab) -> None:
    process, _, _ = up.start("left", "sleep", "60")
    with pytest.raises(EngineError, match="not in right"):
        up.agent.signal("right", process.pid, "KILL")
    assert up.agent.signal("left", process.pid, "KILL") == [process.pid]
    assert process.wait(10)


def test_the_environment_is_the_commands_and_nothing_else(up: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_CALLER", "x")
    found = up.run("left", "env", environment={**ENVIRONMENT, "EMPTY": "", "TESTBED_SEED": "7"})
    lines = {*(f"{k}={v}" for k, v in ENVIRONMENT.items()), "EMPTY=", "TESTBED_SEED=7"}
    assert set(found.out.splitlines()) == lines


def test_directory_user_and_arguments_arrive_untouched(up: Lab) -> None:
    assert up.run("left", "pwd", working_dir="/tmp").out == "/tmp\n"
    assert up.run("left", "id", "-un", user="nobody").out == "nobody\n"
    odd = ["", "a b", "*", "$HOME", "'\"", "ü", "-x"]
    shown = up.python("left", "import sys; print(sys.argv[1:])")
    assert shown.out.strip() == "[]"
    assert up.run("left", "python3", "-c", "import sys; print(sys.argv[1:])", *odd).out.strip() == repr(odd)


def test_standard_input_arrives_whole_and_then_ends(up: Lab) -> None:
    data = random.Random(1).randbytes(3_000_000)
    count = (
        "import sys, hashlib; data = sys.stdin.buffer.read(); print(len(data), hashlib.sha256(data).hexdigest())"
    )

    assert up.python("left", count, stdin=data).out.split() == [str(len(data)), hashlib.sha256(data).hexdigest()]
    assert up.run("left", "cat").out == "", "no input is an empty input"
    assert up.run("left", "true", stdin=data).exit == 0, "not reading it is no error"


def test_output_comes_whole_apart_and_before_the_end_is_known(up: Lab) -> None:
    program = "import sys\nfor i in range(20000): print(i); print(-i, file=sys.stderr)"
    found = up.python("left", program)
    assert found.out == "".join(f"{i}\n" for i in range(20000))
    assert found.err == "".join(f"{-i}\n" for i in range(20000))


def test_the_first_words_of_short_lived_programs_are_never_lost(up: Lab) -> None:
    """The SDK's own reader loses what came together with the answer's headers; 12 at a time make that likely."""
    found: list[str] = []
    for _ in range(4):
        started = [up.start("left", "echo", "hello") for _ in range(12)]
        for process, out, _ in started:
            assert process.wait(30)
            found.append(out.decode())
    assert found == ["hello\n"] * 48


def test_times_of_start_and_end_enclose_the_program(up: Lab) -> None:
    before = time.monotonic_ns()
    process = up.run("left", "sleep", "0.3").process
    assert process.ended_ns is not None
    assert before <= process.started_ns <= process.ended_ns <= time.monotonic_ns()
    assert 300_000_000 <= process.ended_ns - process.started_ns < 3_000_000_000


def test_what_cannot_start_says_why(up: Lab) -> None:
    with pytest.raises(CommandNotFound, match="no command 'no-such-command' in host left"):
        up.run("left", "no-such-command")
    with pytest.raises(CommandNotFound, match="/no/such/file"):
        up.run("left", "/no/such/file")
    with pytest.raises(EngineError, match="permission denied") as refused:
        up.run("left", "/etc/passwd")
    assert not isinstance(refused.value, CommandNotFound)
    with pytest.raises(EngineError, match=r"chdir to cwd.*/no/such/directory") as nowhere:
        up.run("left", "true", working_dir="/no/such/directory")
    assert not isinstance(nowhere.value, CommandNotFound)
    with pytest.raises(EngineError, match="user nobody-of-that-name"):
        up.run("left", "true", user="nobody-of-that-name")
    with pytest.raises(EngineError, match="host elsewhere"):
        up.run("elsewhere", "true")


def test_a_host_reaps_what_loses_its_parent(up: Lab) -> None:
    up.run("right", "sh", "-c", "for i in 1 2 3 4 5; do (sleep 0.1 & ) ; done")
    left = "import os; print(sorted(int(p) for p in os.listdir('/proc') if p.isdigit())[:-1])"
    await_true(lambda: up.python("right", left).out.strip() == "[1]")


# files


def test_files_go_in_with_directories_made_and_modes_by_content(up: Lab) -> None:
    files = [("/scenario/deep/er/data.bin", bytes(range(256))), ("/scenario/tool", b"#!/bin/sh\necho ran\n")]
    up.engine.put("left", files)
    assert up.run("left", "./tool").out == "ran\n"
    shown = up.run("left", "stat", "-c", "%U %a", "/scenario/deep/er/data.bin", "/scenario/tool", "/tmp").out
    assert shown.split("\n")[:3] == ["root 644", "root 755", "root 1777"]
    found = unpacked(up.engine.get("left", "/scenario/deep"))
    assert found == {"deep": None, "deep/er": None, "deep/er/data.bin": bytes(range(256))}
    up.engine.put("left", [("/scenario/tool", b"plain")])
    assert up.run("left", "cat", "/scenario/tool").out == "plain", "a second time it is replaced"
    with pytest.raises(FileNotFoundError, match="/scenario/nothing is not there in host left"):
        up.engine.get("left", "/scenario/nothing")


def test_a_single_file_comes_out_under_its_own_name(up: Lab) -> None:
    up.run("both", "sh", "-c", "echo 1 > /tmp/one.log")
    assert unpacked(up.engine.get("both", "/tmp/one.log")) == {"one.log": b"1\n"}


def unpacked(data: bytes) -> dict[str, bytes | None]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        files = {member.name: tar.extractfile(member) for member in tar}
        return {name: file.read() if file else None for name, file in files.items()}


# other images


@pytest.fixture(scope="module")
def bare_image(docker_daemon: str) -> Iterator[str]:
    """An image without a shell or a library: one static executable, which is what it serves."""
    name = "testbed-test-bare:1"
    with api_closed(connect(docker_daemon)) as api:
        machine = api.info()["Architecture"]
        serve = archive({"serve": holder_elf(machine), "etc/marker": b"bare"})
        context = archive({"Dockerfile": DOCKERFILE, "content.tar": serve})
        for line in api.build(fileobj=io.BytesIO(context), custom_context=True, tag=name, rm=True, decode=True):
            assert "error" not in line, line
        yield name
        api.remove_image(name, force=True)


DOCKERFILE = b"""FROM scratch
ADD content.tar /
ENV FROM_THE_IMAGE=yes
HEALTHCHECK --interval=1s CMD ["/serve"]
ENTRYPOINT ["/serve"]
"""


def test_an_image_without_shell_or_library_can_be_a_host(docker_daemon: str, bare_image: str) -> None:
    plan = make_plan({"bare": "a", "ours": "a"}, 114)
    bare, ours = plan.hosts
    plan = replace(plan, hosts=(replace(bare, image=bare_image), ours))
    with lab(docker_daemon, plan) as made:
        assert inspect(made, "-bare")["Path"] == FOREIGN_HOLD
        process, _, _ = made.start("bare", "/serve", working_dir="/")
        assert made.agent.signal("bare", process.pid, "KILL") == [process.pid]
        assert process.wait(10) and process.exit == "SIGKILL"
        content = unpacked(made.engine.get("bare", "/etc/hosts"))["hosts"]
        assert content is not None and f"{made.ip('bare')}\tbare\n".encode() in content
        with pytest.raises(CommandNotFound):
            made.run("bare", "sh", working_dir="/")


def test_an_image_without_programs_runs_what_it_serves(docker_daemon: str, bare_image: str) -> None:
    plan = make_plan({"bare": "a"}, 115, image=bare_image, programs=())
    with lab(docker_daemon, plan) as made:
        found = inspect(made, "-bare")
        assert found["Path"] == "/serve" and found["State"]["Running"]
        assert f"bare:{made.ip('bare')}" in found["HostConfig"]["ExtraHosts"]
        assert "Health" not in found["State"]


def test_an_image_that_ends_at_once_is_an_error_that_says_so(docker_daemon: str, api: Api, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f'FROM {node_tag(api)}\nENTRYPOINT ["true"]\n')
    plan = make_plan({"quick": "a"}, 116, build=".", programs=())
    with (
        pytest.raises(EngineError, match=r"host quick: its image .* ended at once with status 0"),
        lab(docker_daemon, plan, base_dir=tmp_path),
    ):
        pass
    assert leftovers(docker_daemon) == []


def test_a_host_can_be_built_from_a_directory_beside_the_scenario(
    docker_daemon: str, api: Api, tmp_path: Path
) -> None:
    files = {
        "Dockerfile": f"FROM {node_tag(api)}\nCOPY greeting /greeting\nCOPY . /all\nENV TONE=polite\n",
        "greeting": "good morning\n",
        ".dockerignore": "# not sent\nsecret*\n",
        "secret.txt": "never sent\n",
    }
    (tmp_path / "image").mkdir()
    for name, text in files.items():
        (tmp_path / "image" / name).write_text(text)
    with lab(docker_daemon, make_plan({"h": "a"}, 117, build="image"), base_dir=tmp_path) as made:
        assert made.run("h", "cat", "/greeting").out == "good morning\n"
        assert made.run("h", "ls", "/all").out.split() == ["Dockerfile", "greeting"]
        assert "TONE=polite" in made.run("h", "env").out, "an image of the author's own keeps its environment"


@pytest.mark.parametrize(
    ("more", "why"),
    [({"image": "localhost:1/no/such:1"}, r"pulling localhost:1/no/such:1: .*docker load"),
     ({"build": "."}, "there is no Dockerfile")],
)  # fmt: skip
def test_an_image_that_cannot_be_had_is_the_machine_owners_to_mend(
    docker_daemon: str, tmp_path: Path, more: dict[str, str], why: str
) -> None:
    plan = make_plan({"h": "a"}, 118, None, **more)
    with pytest.raises(HostError, match=why), lab(docker_daemon, plan, base_dir=tmp_path):
        pass
    assert leftovers(docker_daemon) == []


def node_tag(api: Api) -> str:
    return node_image(api, lambda _: None)


# addresses, several runs, failures


def test_taken_names_docker_networks_and_routes_of_the_machine(up: Lab) -> None:
    on_its_machine(up.docker_host, ["ip", "link", "add", "tbtest0", "type", "bridge"], check=True)
    try:
        for words in ("addr add 198.19.77.1/28 dev tbtest0", "link set tbtest0 up"):
            on_its_machine(up.docker_host, ["ip", *words.split()], check=True)
        engine = DockerEngine(host=up.docker_host)
        try:
            engine.open()
            taken = engine.taken()
        finally:
            engine.down()
    finally:
        on_its_machine(up.docker_host, ["ip", "link", "del", "tbtest0"], check=True)
    assert {"198.18.100.0/24", "198.18.101.0/24", "198.19.77.0/28"} <= taken
    assert "0.0.0.0/0" not in taken


def test_a_subnet_in_use_is_named_and_the_engine_goes_on_with_another(up: Lab) -> None:
    engine = DockerEngine(host=up.docker_host)
    try:
        agent = AgentClient(engine.open())
        try:
            clashing = make_plan({"one": "x b", "two": "x b"}, 99)  # its second subnet is the other run's
            with pytest.raises(AddressTaken) as clash:
                engine.up(clashing, agent.door)
            assert clash.value.subnet == "198.18.100.0/24"
            with api_closed(connect(up.docker_host)) as api:
                assert [str(f) for f in docker_owner.find(api, engine.run)] == [
                    f"container testbed-{engine.run}.agent"
                ]
            assert set(engine.up(make_plan({"one": "x", "two": "x"}, 130), agent.door)) == {"one", "two"}
        finally:
            agent.close()
    finally:
        engine.down()
    assert up.run("left", "true").exit == 0, "the run that was there first has not noticed"


@pytest.mark.parametrize("at", ["the door", "a host"])
def test_a_failed_up_leaves_nothing_but_the_agent_and_then_nothing(docker_daemon: str, api: Api, at: str) -> None:
    engine = DockerEngine(host=docker_daemon)
    plan = make_plan({f"h{n}": "a" for n in range(6)}, 132, volumes={"v": "/v"})
    if at == "a host":  # the fifth has a volume over what it needs to start
        hosts = [*plan.hosts]
        hosts[4] = replace(hosts[4], sysctls={"net.ipv4.no_such_sysctl": "1"})
        plan = replace(plan, hosts=tuple(hosts))

    def door(_: list[str]) -> None:
        if at == "the door":
            raise TestbedError("it does not shut")

    try:
        engine.open()
        with pytest.raises(TestbedError, match="it does not shut" if at == "the door" else "no_such_sysctl"):
            engine.up(plan, door)
        assert only_the_agent(api, engine.run)
    finally:
        engine.down()
        engine.down()
    assert docker_owner.find(api, engine.run) == []


def only_the_agent(api: Api, run: str) -> bool:
    return [str(found) for found in docker_owner.find(api, run)] == [f"container testbed-{run}.agent"]


def test_two_runs_at_once_do_not_meet(up: Lab) -> None:
    with lab(up.docker_host, make_plan({"left": "a", "both": "a b"}, 134)) as other:
        server, said, _ = up.start("both", "python3", "-ISc", SERVE_ONCE.format(port=7130))
        await_true(lambda: b"READY" in said)
        across = other.python("left", ASK.format(to=up.ip("both"), port=7130))
        assert across.exit == 1 and "OSError" in across.err
        assert "ConnectionRefused" in other.python("left", ASK.format(to="both", port=7130)).err, "its own"
        assert up.python("left", ASK.format(to="both", port=7130)).out.strip() == up.ip("left")
        assert server.wait(10)


def test_many_hosts_come_up_together(docker_daemon: str) -> None:
    with lab(docker_daemon, make_plan({f"h{n}": "a" for n in range(12)}, 136)) as made:
        assert len(set(made.pids.values())) == 12
        ended = [made.start(name, "hostname") for name in made.pids]
        for (process, out, _), name in zip(ended, made.pids, strict=True):
            assert process.wait(30) and out.decode().strip() == name


def test_what_was_used_is_described(up: Lab) -> None:
    found = up.engine.describe()
    assert found["image"].startswith("testbed-node:") and found["docker"] and found["sdk"] and found["kernel"]
    assert set(found) >= {"api", "storage", "cgroup", "machine", "limits", "run"}
    assert json.loads(json.dumps(found)) == found


def test_the_way_in_that_is_printed_works(up: Lab) -> None:
    command = up.engine.entrance("left")
    assert command.startswith("docker ") and command.endswith(" sh")
    container = command.split()[-2]
    with api_closed(connect(up.docker_host)) as api:
        assert api.inspect_container(container)["Config"]["Hostname"] == "left"


def test_a_daemon_that_answers_is_told_from_one_that_does_not(docker_daemon: str, tmp_path: Path) -> None:
    answers, why = daemon_answers(docker_daemon)
    assert answers and why.startswith("Docker ")
    began = time.monotonic()
    answers, why = daemon_answers(f"unix://{tmp_path}/socket")
    assert not answers and "No such file" in why and "DOCKER_HOST" in why
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(f"{tmp_path}/deaf")
        deaf.listen(1)
        answers, why = daemon_answers(f"unix://{tmp_path}/deaf")
    assert not answers and "timed out" in why
    assert time.monotonic() - began < 10


# crash-only


ORPHAN = """
import sys, time
import json
from testbed.agent.client import AgentClient
from testbed.engines.api import Command
from testbed.engines.docker import DockerEngine
from testbed.plan.types import Plan
plan = Plan.from_json(json.loads(sys.argv[2]))
engine = DockerEngine(host=sys.argv[1])
print("run", engine.run, flush=True)
agent = AgentClient(engine.open())
print("open", flush=True)
pids = engine.up(plan, agent.door)
agent.hosts(plan, pids)
print("up", flush=True)
engine.start("h0", Command(("sleep", "99"), {"PATH": "/bin"}), print, print)
print("running", flush=True)
if len(sys.argv) > 3:
    engine.down()
    print("down", flush=True)
time.sleep(99)
"""


def orphan(docker_host: str, third: int, *more: str) -> subprocess.Popen[str]:
    plan = make_plan({f"h{n}": "a b" for n in range(3)}, third, volumes={"v": "/v"})
    argv = [sys.executable, "-c", ORPHAN, docker_host, json.dumps(plan.to_json()), *more]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)


def kill(process: subprocess.Popen[str]) -> str:
    """What it had said. Its output ends with it: the janitor holds none of its pipes."""
    process.kill()
    said, _ = process.communicate(timeout=10)
    return said


@pytest.mark.parametrize("when", ["open", "up", "running"])
def test_a_killed_run_leaves_nothing(docker_daemon: str, when: str) -> None:
    process = orphan(docker_daemon, 140)
    assert process.stdout is not None
    said = [process.stdout.readline()]
    while said[-1].strip() != when:
        assert said[-1], f"it ended before it was {when}"
        said.append(process.stdout.readline())
    kill(process)
    await_clean(docker_daemon, said[0].split()[1])


@pytest.mark.parametrize("moment", range(6))
def test_killed_at_any_moment_it_leaves_nothing(docker_daemon: str, moment: int) -> None:
    """Moments differ from one test run to the next; a failure names its own."""
    after_s = random.uniform(0.2, 2.5)
    process = orphan(docker_daemon, 140, "down")
    time.sleep(after_s)
    said = kill(process)
    if said:  # else it had not even begun
        await_clean(docker_daemon, said.split()[1], f"killed after {after_s:.3f} s, having said {said!r}")


def test_the_next_run_sweeps_what_a_killed_janitor_could_not(docker_daemon: str, api: Api, up: Lab) -> None:
    process = orphan(docker_daemon, 140)
    assert process.stdout is not None
    run = process.stdout.readline().split()[1]
    while process.stdout.readline().strip() != "running":
        pass
    assert sweep(api) == [], "a live run is never touched"
    assert len(docker_owner.find(api, run)) > 4
    for janitor in janitors(run):
        os.kill(janitor, 9)
    kill(process)
    said: list[str] = []
    engine = DockerEngine(host=docker_daemon, say=said.append)
    try:
        engine.open()
    finally:
        engine.down()
    assert f"removed what a dead run left: container testbed-{run}-h0" in said
    assert docker_owner.find(api, run) == []
    assert up.run("left", "true").exit == 0, "the other live run is still there"


def test_a_run_of_another_boot_or_container_is_dead_when_its_agent_is_and_it_is_old(
    docker_daemon: str, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = docker_owner.labels("elsewhere") | {docker_owner.BOOT: "another boot"}
    api.create_volume("testbed-elsewhere-v", labels=elsewhere)
    try:
        assert sweep(api) == [], "just made: its owner may be about to start its agent"
        monkeypatch.setattr(docker_owner, "UNATTENDED_S", -60.0)
        assert sweep(api) == ["volume testbed-elsewhere-v"]
    finally:
        if docker_owner.find(api, "elsewhere"):
            api.remove_volume("testbed-elsewhere-v")


def janitors(run: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"testbed.engines.janitor" in words and run.encode() in words:
                found.append(int(entry.name))
    return found


def leftovers(docker_host: str, run: str | None = None) -> list[str]:
    """What of dead runs (or of this one) is there: objects, bridge devices, janitors."""
    with api_closed(connect(docker_host)) as api:
        found = [str(f) for f in docker_owner.find(api, run) if run or not docker_owner.is_alive([f], time.time())]
    if run:
        links = json.loads(on_its_machine(docker_host, ["ip", "-j", "link"], check=True).stdout)
        found += [f"device {link['ifname']}" for link in links if link["ifname"].startswith(f"tb{run}")]
        found += [f"janitor {pid}" for pid in janitors(run)]
    return found


def await_clean(docker_host: str, run: str, when: str = "") -> None:
    until = time.monotonic() + GONE_WITHIN_S
    while left := leftovers(docker_host, run):
        assert time.monotonic() < until, f"{when}: {left}"
        time.sleep(0.1)


def await_true(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < until, "it did not come about within 10 s"
        time.sleep(0.02)
