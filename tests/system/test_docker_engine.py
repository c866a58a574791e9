"""The docker engine against a real daemon: hosts, networks, their door to the machine, programs and files."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from testbed.engines import docker_owner
from testbed.engines.docker import DockerEngine
from testbed.engines.docker_client import Api, api_closed, connect, daemon_answers
from testbed.engines.docker_host import NO_RESOLVER
from testbed.errors import CommandNotFound, EngineError
from testbed.limits import FILES_BYTES, MEMORY_BYTES, PROCESSES
from testbed.linux import CAPABILITIES
from tests.docker_daemon import command_on_its_machine, on_its_machine
from tests.parcel import put
from tests.system.docker_lab import (
    ASK,
    ENVIRONMENT,
    SERVE_ONCE,
    SYSCTLS,
    Lab,
    await_true,
    inspect,
    lab,
    make_plan,
    unpacked,
)


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


# hosts and networks


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
    with machine_listens(up.docker_host, 7110) as accepted, machine_hears(up.docker_host) as heard:
        assert "True" in on_its_machine(up.docker_host, [sys.executable, "-c", TRY, gateway, "7110"]).stdout, (
            "control"
        )
        for address in addresses:
            assert up.run("left", "python3", "-ISc", TRY, address, "7110").out.strip() == "False", address
            up.run("left", "python3", "-ISc", SAY, address, "host")
            on_its_machine(up.docker_host, [sys.executable, "-c", SAY, address, "control"])
        await_true(lambda: heard.count(b"control") == len(addresses))
        assert b"host" not in heard
        assert accepted() == 1, "the control's only"


@pytest.mark.parametrize("where", ["/tmp/", "/run/", "@"])
def test_unix_sockets_of_the_machine_cannot_be_reached(up: Lab, where: str) -> None:
    path = f"{where}testbed-check-{os.getpid()}"
    with listens_on_its_machine(up.docker_host, LISTEN_UNIX, path) as said:
        on_its_machine(up.docker_host, [sys.executable, "-c", CONNECT_UNIX, path], check=True)
        await_true(lambda: said.count(b"accepted") == 1)
        assert up.run("left", "python3", "-ISc", CONNECT_UNIX, path).exit == 1
        assert said.count(b"accepted") == 1, "the control's only"


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
family = socket.AF_INET6 if ":" in sys.argv[2] else socket.AF_INET
server = socket.create_server((sys.argv[2], int(sys.argv[1])), family=family)
print("READY", flush=True)
while True:
    server.accept()
    print("accepted", flush=True)
"""


LISTEN_UNIX = """
import os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1].replace("@", chr(0)))
try:
    server.listen()
    print("READY", flush=True)
    while server.accept():
        print("accepted", flush=True)
finally:
    if "@" not in sys.argv[1]:
        os.unlink(sys.argv[1])
"""
CONNECT_UNIX = """
import socket, sys
socket.socket(socket.AF_UNIX).connect(sys.argv[1].replace("@", chr(0)))
"""


@contextmanager
def machine_hears(docker_host: str) -> Iterator[bytearray]:
    """A UDP socket on the daemon's machine, at the port of SAY; what it gets."""
    with listens_on_its_machine(docker_host, HEAR) as said:
        yield said


@contextmanager
def machine_listens(docker_host: str, port: int, bind: str = "0.0.0.0") -> Iterator[Callable[[], int]]:
    """A TCP listener on the daemon's machine; gives a function that counts what it accepted."""
    with listens_on_its_machine(docker_host, LISTEN, str(port), bind) as said:
        yield lambda: said.count(b"accepted")


@contextmanager
def listens_on_its_machine(docker_host: str, program: str, *words: str) -> Iterator[bytearray]:
    """A program on the daemon's machine that says READY; gives what else it says, as it comes."""
    argv = command_on_its_machine(docker_host, [sys.executable, "-c", program, *words])
    said = bytearray()
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as listener:
        assert listener.stdout is not None and listener.stdout.readline() == b"READY\n"
        lines = iter(listener.stdout.readline, b"")
        reader = threading.Thread(target=lambda: [said.extend(line) for line in lines])
        reader.start()
        try:
            yield said
        finally:
            listener.send_signal(signal.SIGINT)  # so that it can clear up after itself
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
    assert config["Memory"] == config["MemorySwap"] == MEMORY_BYTES and config["PidsLimit"] == PROCESSES
    assert config["ShmSize"] == FILES_BYTES
    assert config["LogConfig"]["Type"] == "none" and config["RestartPolicy"]["Name"] in ("", "no")
    assert not config["Privileged"] and config["PidMode"] == "" and not config["PortBindings"]
    assert labels[docker_owner.RUN] == up.engine.run and labels[docker_owner.HOST] == "left"
    assert labels[docker_owner.SCENARIO] == "by-hand" and labels[docker_owner.PID] == str(os.getpid())
    soft = int(up.run("left", "sh", "-c", "ulimit -Sn").out)
    assert soft == int(up.run("left", "sh", "-c", "ulimit -Hn").out) >= 1024
    assert up.run("left", "sh", "-c", "ulimit -c").out.strip() == "0"


def test_the_agent_has_eight_capabilities_and_its_input_ends_with_us(up: Lab) -> None:
    found = inspect(up, ".agent")
    config = found["HostConfig"]
    assert (config["PidMode"], config["NetworkMode"], config["LogConfig"]["Type"]) == ("host", "host", "none")
    assert config["CapDrop"] == ["ALL"] and not config["Privileged"]
    added = sorted(name.removeprefix("CAP_") for name in config["CapAdd"])
    wanted = "DAC_READ_SEARCH KILL NET_ADMIN NET_RAW SYS_ADMIN SYS_CHROOT SYS_NICE SYS_PTRACE"
    assert added == wanted.split()
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
    echoed, out, _ = up.start("left", "cat", stdin=data)
    assert echoed.wait(30) and bytes(out) == data, "while its output comes back"
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
    assert 300_000_000 <= process.ended_ns - process.started_ns < 10_000_000_000


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
    put(up.engine, "left", *files)
    assert up.run("left", "./tool").out == "ran\n"
    shown = up.run("left", "stat", "-c", "%U %a", "/scenario/deep/er/data.bin", "/scenario/tool", "/tmp").out
    assert shown.split("\n")[:3] == ["root 644", "root 755", "root 1777"]
    found = unpacked(up.engine.get("left", "/scenario/deep"))
    assert found == {"deep": None, "deep/er": None, "deep/er/data.bin": bytes(range(256))}
    put(up.engine, "left", ("/scenario/tool", b"plain"))
    assert up.run("left", "cat", "/scenario/tool").out == "plain", "a second time it is replaced"
    with pytest.raises(FileNotFoundError, match="/scenario/nothing is not there in host left"):
        up.engine.get("left", "/scenario/nothing")


def test_a_single_file_comes_out_under_its_own_name(up: Lab) -> None:
    up.run("both", "sh", "-c", "echo 1 > /tmp/one.log")
    assert unpacked(up.engine.get("both", "/tmp/one.log")) == {"one.log": b"1\n"}


# all of it


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
