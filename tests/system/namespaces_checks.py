"""What a lab of the namespaces engine must be like: one function a promise, run as root and as an ordinary user.

A script with the standard library alone, because an ordinary user may not be able to read the interpreter that
runs the tests: `python -IS namespaces_checks.py DIRECTORY-OF-THE-PACKAGE CHECK`.
"""

from __future__ import annotations

import hashlib
import io
import os
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])

from testbed import linux
from testbed.engines import namespaces
from testbed.engines.api import Command
from testbed.engines.namespaces import NamespacesEngine, base_interpreter
from testbed.errors import CapabilityError, CommandNotFound, EngineError, HostError
from testbed.plan.types import Ends, Host, Interface, Network, Plan

PYTHON = base_interpreter()
# The real agent is not under test here: this one says what it sees of a process id.
AGENT = """
import os, sys
for line in sys.stdin:
    with open(f"/proc/{int(line)}/cmdline") as file:
        print(repr(file.read().rstrip("\\0").split("\\0")), flush=True)
"""
ENVIRONMENT = {
    "PATH": "/opt/testbed/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}
TALK = """
import socket, sys
verb, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
if verb == "serve":
    with socket.create_server((host, port)) as server:
        print("READY", flush=True)
        while True:
            peer = server.accept()[0]
            peer.sendall(b"served " + peer.recv(99))
            peer.close()
with socket.create_connection((host, port), timeout=float(sys.argv[4])) as peer:
    peer.sendall(b"hello")
    print(peer.recv(99).decode())
"""


def a_plan(
    networks: dict[str, list[str]],
    capabilities: tuple[str, ...] = (),
    volumes: dict[str, tuple[tuple[str, str], ...]] | None = None,
    bits: int = 24,
) -> Plan:
    """Hosts by network; the n-th host of the k-th network is 198.18.k.(n + 2)."""
    interfaces: dict[str, list[Interface]] = {}
    for k, (network, hosts) in enumerate(networks.items()):
        for n, host in enumerate(hosts):
            mine = interfaces.setdefault(host, [])
            mine.append(
                Interface(
                    f"eth{len(mine)}", network, f"198.18.{k}.{n + 2}", bits, f"02:42:c6:12:{k:02x}:{n + 2:02x}"
                )
            )
    names = (("127.0.0.1", ("localhost",)), *((i.ip, (host,)) for host, mine in interfaces.items() for i in mine))
    mounts = volumes or {}
    return Plan(
        scenario="checks", about="", file="", tags=(), seed=1, timeout_ns=10**9, duration_ns=None, requires=(),
        networks=tuple(Network(name, f"198.18.{k}.0/24", f"198.18.{k}.1") for k, name in enumerate(networks)),
        hosts=tuple(
            Host(
                name=host, group=None, index=1, image=None, build=None, interfaces=tuple(mine), names=names,
                routes=(), neighbours=(), sysctls={}, capabilities=capabilities,
                volumes=mounts.get(host, ()), programs=(),
            )
            for host, mine in interfaces.items()
        ),
        groups={}, volumes=tuple(sorted({v for mine in mounts.values() for v, _ in mine})), programs=(), links=(),
        expectations=(), ends=Ends(), fails_when=(),
    )  # fmt: skip


NO_OVERLAY = """
import errno, testbed.linux
mount = testbed.linux.mount
def without_overlay(source, target, kind, *more):
    if kind == "overlay":
        raise OSError(errno.ENODEV, "no overlay in this test")
    mount(source, target, kind, *more)
testbed.linux.mount = without_overlay
"""
CONNECT = """
import socket, sys
try:
    socket.socket(socket.AF_UNIX).connect(sys.argv[1].replace("@", chr(0)))
except OSError:
    sys.exit(5)
"""
ONE = {"lan": ["alice"]}
TWO = {"lan": ["alice", "bob"]}


def new_engine() -> NamespacesEngine:
    return NamespacesEngine(agent=[sys.executable, "-IS", "-c", AGENT])


@contextmanager
def lab(plan: Plan) -> Iterator[NamespacesEngine]:
    engine = new_engine()
    engine.open()
    try:
        engine.up(plan, lambda bridges: None)
        yield engine
    finally:
        engine.down()
        assert processes_of(engine.lab) == []


def processes_of(word: str) -> list[str]:
    """Every process of the machine with this word in its command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            line = path.read_bytes().decode(errors="replace").replace("\0", " ")
            if word in line:
                found.append(f"{path.parent.name}: {line}")
    return found


class Run:
    """A program that was started in a host, with its output so far."""

    def __init__(self, engine: NamespacesEngine, host: str, *argv: str, **more: object) -> None:
        self.stdout, self.stderr = bytearray(), bytearray()
        command = Command(argv, **({"environment": ENVIRONMENT} | more))  # type: ignore[arg-type]
        self.process = engine.start(host, command, self.stdout.extend, self.stderr.extend)

    def end(self, within_s: float = 20.0) -> Run:
        assert self.process.wait(within_s), f"still running after {within_s} s: {self.stdout!r} {self.stderr!r}"
        return self

    def await_output(self, text: bytes, within_s: float = 10.0) -> Run:
        deadline = time.monotonic() + within_s
        while text not in self.stdout:
            assert time.monotonic() < deadline, f"{text!r} never came: {self.stdout!r} {self.stderr!r}"
            time.sleep(0.005)
        return self

    @property
    def exit(self) -> int | str | None:
        return self.process.exit

    @property
    def text(self) -> str:
        return self.stdout.decode().strip()


def run(engine: NamespacesEngine, host: str, *argv: str, **more: object) -> Run:
    return Run(engine, host, *argv, **more).end()


def output(engine: NamespacesEngine, host: str, script: str) -> str:
    """What a shell command prints; it must succeed."""
    done = run(engine, host, "sh", "-c", script)
    assert done.exit == 0, (script, done.exit, done.stderr)
    return done.text


def python(engine: NamespacesEngine, host: str, script: str, *words: str) -> Run:
    return run(engine, host, PYTHON, "-IS", "-c", script, *words)


def ask(engine: NamespacesEngine, host: str, target: str, port: int, timeout_s: float = 5.0) -> str:
    """What a server says, or the kind of error."""
    done = python(engine, host, TALK, "ask", target, str(port), str(timeout_s))
    return done.text if done.exit == 0 else done.stderr.decode().strip().splitlines()[-1].split(":")[0]


def serve(engine: NamespacesEngine, host: str, port: int) -> None:
    Run(engine, host, PYTHON, "-IS", "-c", TALK, "serve", "0.0.0.0", str(port)).await_output(b"READY")


def raises(kind: type[BaseException], *fragments: str) -> ExitStack:
    """A context that must end with this error, with these words in its message."""
    stack = ExitStack()

    def check(found: type[BaseException] | None, problem: BaseException | None, _: object) -> bool:
        assert found is kind, f"{problem!r} and not {kind.__name__}"
        missing = [fragment for fragment in fragments if fragment not in str(problem)]
        assert not missing, f"{missing} not in {problem}"
        return True

    stack.push(check)
    return stack


# networks


def hosts_on_one_network_talk_by_name() -> None:
    with lab(a_plan(TWO)) as engine:
        serve(engine, "bob", 7000)
        assert ask(engine, "alice", "bob", 7000) == "served hello"
        assert ask(engine, "alice", "198.18.0.3", 7000) == "served hello"
        assert ask(engine, "alice", "nobody-there", 7000) == "socket.gaierror"


def networks_are_isolated_by_address() -> None:
    """With a prefix so short that every address is on the link: only the bridges keep them apart."""
    with lab(a_plan({"one": ["alice"], "two": ["bob", "dave"]}, bits=15)) as engine:
        serve(engine, "bob", 7000)
        assert ask(engine, "dave", "198.18.1.2", 7000) == "served hello"
        assert ask(engine, "alice", "198.18.1.2", 7000, 0.7) in ("TimeoutError", "OSError")


def a_host_on_two_networks_serves_both_and_joins_neither() -> None:
    with lab(a_plan({"one": ["alice", "carol"], "two": ["bob", "carol"]})) as engine:
        serve(engine, "carol", 7000)
        assert ask(engine, "alice", "198.18.0.3", 7000) == "served hello"
        assert ask(engine, "bob", "198.18.1.3", 7000) == "served hello"
        assert ask(engine, "alice", "198.18.1.2", 7000, 0.7) == "OSError"


def interfaces_are_as_planned() -> None:
    with lab(a_plan(TWO)) as engine:
        shown = output(engine, "alice", "ip -br link show eth0; ip -o -4 address show")
        assert "02:42:c6:12:00:02" in shown
        assert "198.18.0.2/24 brd 198.18.0.255" in shown
        assert "127.0.0.1/8" in shown
        assert output(engine, "alice", "ip -4 route") == (
            "198.18.0.0/24 dev eth0 proto kernel scope link src 198.18.0.2"
        )
        assert len(output(engine, "alice", "ls /sys/class/net").split()) == 2


def the_machine_cannot_be_reached() -> None:
    """TCP at every address of the machine, and UNIX sockets wherever we may make one."""
    places = [Path(p) for p in ("/tmp", "/run", "/usr/local", "/etc", "/dev/shm") if os.access(p, os.W_OK)]
    mark = f"testbed-check-{os.getpid()}"
    with ExitStack() as stack:
        tcp = stack.enter_context(socket.create_server(("", 0)))
        port = tcp.getsockname()[1]
        abstract = stack.enter_context(socket.socket(socket.AF_UNIX))
        abstract.bind(f"\0{mark}")
        abstract.listen()

        def listen(path: Path) -> str:
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(str(path))
            stack.callback(path.unlink)
            path.chmod(0o777)
            listener.listen()
            return str(path)

        paths = [listen(place / mark) for place in places]
        engine = stack.enter_context(lab(a_plan(ONE)))
        paths += [listen(place / f"{mark}-late") for place in places]  # made when the lab was there already
        for path in paths:
            connect(path)  # it does listen
            assert python(engine, "alice", CONNECT, path).exit == 5, path
        connect(f"\0{mark}")
        assert python(engine, "alice", CONNECT, f"@{mark}").exit == 5
        for address in {"127.0.0.1", *addresses_of_the_machine()}:
            socket.create_connection((address, port), timeout=5).close()
            assert ask(engine, "alice", address, port, 0.5) in ("OSError", "ConnectionRefusedError"), address


def connect(path: str) -> None:
    with closing(socket.socket(socket.AF_UNIX)) as client:
        client.connect(path)


def what_hosts_see_of_the_machine_does_not_answer() -> None:
    """A tree that hosts do see, as they see /usr: its files can be read, its sockets and pipes lead nowhere."""
    for kind in ("overlay", "bind"):
        with ExitStack() as stack:
            tree = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            tree.chmod(0o755)
            (tree / "file").write_text("content")
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(str(tree / "early"))
            listener.listen()
            os.mkfifo(tree / "pipe")
            stack.callback(os.close, os.open(tree / "pipe", os.O_RDONLY | os.O_NONBLOCK))
            shown = (*namespaces.trees_outside_usr(PYTHON), str(tree))
            stack.enter_context(patched("trees_outside_usr", lambda python, shown=shown: shown))
            if kind == "bind":
                first, _, rest = namespaces.LAB.partition("; from ")
                stack.enter_context(patched("LAB", f"{first}\n{NO_OVERLAY}\nfrom {rest}"))
            engine = stack.enter_context(lab(a_plan(ONE)))
            late = stack.enter_context(socket.socket(socket.AF_UNIX))
            late.bind(str(tree / "late"))
            late.listen()
            assert engine.describe()["userland"] == kind
            assert output(engine, "alice", f"cat {tree}/file") == "content"
            assert run(engine, "alice", "touch", f"{tree}/new").exit == 1
            connect(str(tree / "early"))
            assert python(engine, "alice", CONNECT, str(tree / "early")).exit == 5
            if kind == "overlay":  # the better one: it does not have to know
                connect(str(tree / "late"))
                assert python(engine, "alice", CONNECT, str(tree / "late")).exit == 5
                os.close(os.open(tree / "pipe", os.O_WRONLY | os.O_NONBLOCK))
                write = "import os, sys; os.open(sys.argv[1], os.O_WRONLY | os.O_NONBLOCK)"
                assert b"No such device or address" in python(engine, "alice", write, f"{tree}/pipe").stderr


@contextmanager
def patched(name: str, value: object) -> Iterator[None]:
    before = getattr(namespaces, name)
    setattr(namespaces, name, value)
    try:
        yield
    finally:
        setattr(namespaces, name, before)


def addresses_of_the_machine() -> set[str]:
    """The address from which each way out would be taken; nothing is sent."""
    found = set()
    for target in ("192.0.2.1", "198.18.0.2", "10.0.0.1"):
        with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe, suppress(OSError):
            probe.connect((target, 9))
            found.add(probe.getsockname()[0])
    return found


# what a host sees


def a_host_has_its_own_names() -> None:
    with lab(a_plan(TWO)) as engine:
        assert output(engine, "alice", "hostname; cat /etc/hostname") == "alice\nalice"
        assert output(engine, "bob", "cat /etc/hosts").splitlines() == [
            "127.0.0.1\tlocalhost",
            "198.18.0.2\talice",
            "198.18.0.3\tbob",
        ]
        assert "nameserver" not in output(engine, "alice", "cat /etc/resolv.conf")


def a_host_sees_no_files_of_the_machine() -> None:
    with tempfile.TemporaryDirectory() as directory, lab(a_plan(TWO)) as engine:
        secret = Path(directory, "results.json")
        secret.write_text("secret")
        hidden = [str(secret), "/etc/shadow", "/etc/gshadow", "/etc/sudoers", "/etc/ssl/private", "/boot", "/mnt"]
        for path in [*hidden, __file__, "/var/lib/dpkg", "/proc/1/root/mnt", "/dev/mem", "/dev/kmsg"]:
            assert run(engine, "alice", "ls", path).exit == 2, path
        assert output(engine, "alice", "cat /proc/keys /proc/kmsg 2>&1 | grep -v denied; true") == ""
        assert run(engine, "alice", "touch", "/var/alice").exit == 0
        assert run(engine, "bob", "ls", "/var/alice").exit == 2
        assert output(engine, "alice", "ls -d /etc/passwd /usr/bin/env /bin/sh") != ""
        mounts = output(engine, "alice", "cat /proc/self/mounts")
        assert not [line for line in mounts.splitlines() if "/oldroot" in line or " ext4 " in line]


def a_host_sees_only_its_own_processes() -> None:
    with lab(a_plan(TWO)) as engine:
        Run(engine, "bob", "sleep", "77")
        seen = output(engine, "alice", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
        assert "testbed host alice" in seen
        assert "sleep 77" not in seen
        assert "bob" not in seen
        assert sorted(output(engine, "alice", "cd /proc/self/fd && echo *").split())[:3] == ["0", "1", "2"]
        assert "builder" not in output(engine, "alice", "cat /proc/[0-9]*/comm")


def most_of_a_host_cannot_be_written() -> None:
    with lab(a_plan(ONE)) as engine:
        for path in ("/x", "/usr/x", "/etc/x", "/etc/hosts", "/opt/x", "/opt/testbed/bin/x", "/dev/x", "/sys/x"):
            assert run(engine, "alice", "sh", "-c", f"echo x > {path}").exit != 0, path
        for name in ("net/ipv4/ip_forward", "kernel/hostname", "vm/swappiness"):
            value = output(engine, "alice", f"cat /proc/sys/{name}")
            assert run(engine, "alice", "sh", "-c", f"echo {value} > /proc/sys/{name}").exit != 0, name
        assert run(engine, "alice", "sh", "-c", "echo h > /proc/sysrq-trigger").exit != 0
        writable = "/scenario /tmp /run /var /var/log /var/tmp /root /home /dev/shm /dev/null"
        for path in writable.split():
            target = path if path == "/dev/null" else f"{path}/x"
            assert run(engine, "alice", "sh", "-c", f"echo x > {target}").exit == 0, path


def a_host_cannot_change_its_mounts() -> None:
    with lab(a_plan(ONE, capabilities=("NET_ADMIN", "NET_RAW"))) as engine:
        for words in (
            "mount -o remount,rw /",
            "mount -o remount,bind,rw /usr",
            "umount /proc/sys",
            "umount /proc",
        ):
            assert run(engine, "alice", *words.split()).exit != 0, words
        for words in ("mount -t tmpfs none /tmp", "mount -t proc none /tmp", "chroot / true"):
            assert run(engine, "alice", *words.split()).exit != 0, words
        escape = "unshare --user --map-root-user --mount sh -c 'mount -o remount,bind,rw /usr || umount /proc/sys'"
        assert run(engine, "alice", "sh", "-c", escape).exit != 0


def capabilities_are_exactly_the_stated_ones() -> None:
    show = "grep -E 'Cap|NoNewPrivs' /proc/self/status | tr -s '\\t\\n' ' '"
    for capabilities, mask in (((), 0), (("NET_RAW", "SYS_NICE"), 1 << 13 | 1 << 23)):
        with lab(a_plan(ONE, capabilities=capabilities)) as engine:
            found = output(engine, "alice", show)
            sets = " ".join(f"Cap{name}: {mask:016x}" for name in ("Inh", "Prm", "Eff", "Bnd", "Amb"))
            assert found == f"{sets} NoNewPrivs: 1", found
            status = output(engine, "alice", "grep -E 'Cap(Eff|Bnd)' /proc/1/status | tr -s '\\t\\n' ' '")
            assert status == f"CapEff: {0:016x} CapBnd: {0:016x}", status


def volumes_are_shared_by_those_who_mount_them() -> None:
    volumes = {"alice": (("spool", "/var/spool/in"),), "bob": (("spool", "/srv/deep/out"), ("own", "/data"))}
    with lab(a_plan(TWO, volumes=volumes)) as engine:
        assert run(engine, "alice", "sh", "-c", "echo from alice > /var/spool/in/note").exit == 0
        assert output(engine, "bob", "cat /srv/deep/out/note; ls /data") == "from alice"


# programs


def exits_are_told_as_they_were() -> None:
    with lab(a_plan(ONE)) as engine:
        assert run(engine, "alice", "true").exit == 0
        assert run(engine, "alice", "sh", "-c", "exit 37").exit == 37
        assert run(engine, "alice", "sh", "-c", "kill -KILL $$").exit == "SIGKILL"
        assert run(engine, "alice", "sh", "-c", "kill -SEGV $$").exit == "SIGSEGV"
        assert (
            run(engine, "alice", PYTHON, "-IS", "-c", "import os; os.kill(os.getpid(), 40)").exit == "SIGRTMIN+6"
        )
        sleeper = Run(engine, "alice", "sleep", "0.2")
        assert sleeper.exit is None
        assert sleeper.process.ended_ns is None
        assert not sleeper.process.wait(0.01)
        process = sleeper.end().process
        assert process.ended_ns is not None
        assert 0.2e9 <= process.ended_ns - process.started_ns < 2e9


def commands_that_cannot_run_say_why() -> None:
    with lab(a_plan(ONE)) as engine:
        with raises(CommandNotFound, "no command 'no-such-thing'", "PATH=/opt/testbed/bin", "host alice"):
            run(engine, "alice", "no-such-thing")
        with raises(CommandNotFound, "no command './nope'"):
            run(engine, "alice", "./nope")
        with raises(EngineError, "/etc/passwd is not an executable file"):
            run(engine, "alice", "/etc/passwd")
        with raises(EngineError, "working directory /nowhere", "No such file"):
            run(engine, "alice", "true", working_dir="/nowhere")
        with raises(EngineError, "no host 'mallory'"):
            run(engine, "mallory", "true")
        engine.put("alice", [("/scenario/orphan", b"#!/no/such/interpreter\n"), ("/scenario/broken", b"\x7fELF?")])
        with raises(CommandNotFound, "./orphan is there, but the interpreter"):
            run(engine, "alice", "./orphan")
        with raises(EngineError, "executing ./broken: Exec format error"):
            run(engine, "alice", "./broken")


def programs_get_exactly_what_is_given() -> None:
    with lab(a_plan(ONE)) as engine:
        done = run(engine, "alice", "env", environment={"PATH": "/usr/bin", "A": "b c"})
        assert done.text.splitlines() == ["PATH=/usr/bin", "A=b c"]
        assert output(engine, "alice", "pwd; umask; ulimit -c; id -u; id -G") == "/scenario\n0022\n0\n0\n0"
        status = run(engine, "alice", "cat", "/proc/self/status").text
        for name in ("SigBlk", "SigIgn", "SigCgt"):
            assert f"{name}:\t{0:016x}\n" in status, status
        assert run(engine, "alice", "readlink", "/proc/self/cwd", working_dir="/tmp").text == "/tmp"
        session = output(engine, "alice", "cut -d' ' -f1,5,6 /proc/$$/stat").split()
        assert len(set(session)) == 1  # process, group and session: one number
        datagram = run(engine, "alice", "datagram", "--help")
        assert (datagram.exit, datagram.text[:15]) == (0, "usage: datagram")


def standard_input_arrives_whole() -> None:
    data = os.urandom(3_000_000)
    with lab(a_plan(ONE)) as engine:
        assert run(engine, "alice", "cat", stdin=b"").stdout == b""
        done = run(engine, "alice", "sha256sum", stdin=data)
        assert done.text.split()[0] == hashlib.sha256(data).hexdigest()
        assert run(engine, "alice", "cat", stdin=data).stdout == data
        assert run(engine, "alice", "true", stdin=data).exit == 0  # it does not want it


def a_flood_of_output_keeps_flowing() -> None:
    """Two programs write without pause while a third one must still answer at once."""
    size = 100_000_000
    with lab(a_plan(ONE)) as engine:
        floods = [Run(engine, "alice", "head", "-c", str(size), "/dev/zero") for _ in range(2)]
        for _ in range(5):
            began = time.monotonic()
            assert run(engine, "alice", "echo", "hi").text == "hi"
            assert time.monotonic() - began < 2
        for flood in floods:
            assert flood.end(60).exit == 0
            assert len(flood.stdout) == size
        both = run(engine, "alice", "sh", "-c", "head -c 1000000 /dev/zero >&2; head -c 1000000 /dev/zero")
        assert (len(both.stdout), len(both.stderr)) == (1_000_000, 1_000_000)


def a_child_left_behind_does_not_hold_up_the_end() -> None:
    with lab(a_plan(ONE)) as engine:
        began = time.monotonic()
        done = run(engine, "alice", "sh", "-c", "(sleep 60; echo late) & head -c 50000 /dev/zero; echo done")
        assert time.monotonic() - began < 3
        assert done.exit == 0
        assert (len(done.stdout), done.stdout[-5:]) == (50_005, b"done\n")
        assert "sleep" in output(engine, "alice", "cat /proc/[0-9]*/comm")


def orphans_are_reaped() -> None:
    with lab(a_plan(ONE)) as engine:
        run(engine, "alice", "sh", "-c", "for i in 1 2 3 4 5; do (sleep 0.05 &) ; done")
        deadline = time.monotonic() + 5
        while "sleep" in (seen := output(engine, "alice", "cat /proc/[0-9]*/stat | cut -d' ' -f2-3")):
            assert time.monotonic() < deadline, seen
        assert " Z" not in seen


def a_process_id_is_the_agents() -> None:
    engine = new_engine()
    channel = engine.open()
    try:
        pids = engine.up(a_plan(TWO), lambda bridges: None)
        sleeper = Run(engine, "bob", "sleep", "99")
        for pid, words in (
            (sleeper.process.pid, ["sleep", "99"]),
            (pids["alice"], [f"testbed host alice of {engine.lab}"]),
            (pids["bob"], [f"testbed host bob of {engine.lab}"]),
        ):
            channel.write(b"%d\n" % pid)
            assert channel.readline() == repr(words).encode() + b"\n"
    finally:
        engine.down()
    assert channel.readline() == b""
    with raises(EngineError, "agent"):
        channel.write(b"1\n")


def users_other_than_root() -> None:
    """Real root can change to another user; a user namespace of one uid says that it cannot."""
    with lab(a_plan(ONE, capabilities=("NET_RAW",))) as engine:
        assert run(engine, "alice", "id", "-u", user="root").text == "0"
        if os.geteuid() == 0:
            assert run(engine, "alice", "id", user="daemon").text == "uid=1(daemon) gid=1(daemon) groups=1(daemon)"
            assert run(engine, "alice", "id", "-u", user="4321:1").text == "4321"
            assert run(engine, "alice", "touch", "/scenario/x", user="daemon").exit == 1
            assert run(engine, "alice", "sh", "-c", "echo hi > /dev/stdout", user="daemon").text == "hi"
            with raises(EngineError, "/etc/passwd has no 'no-such-user'"):
                run(engine, "alice", "true", user="no-such-user")
        else:
            with raises(CapabilityError, "daemon", "requires: root"):
                run(engine, "alice", "true", user="daemon")


# files


def files_go_in_and_come_out() -> None:
    with lab(a_plan(ONE)) as engine:
        big = os.urandom(2_000_000)
        script = b"#!/bin/sh\necho ran $1\n"
        engine.put("alice", [("/scenario/run.sh", script), ("/var/new/deep/big", big), ("/tmp/empty", b"")])
        assert run(engine, "alice", "./run.sh", "well").text == "ran well"
        assert output(engine, "alice", "stat -c '%a %u:%g' /scenario/run.sh /tmp/empty") == "755 0:0\n644 0:0"
        assert unpacked(engine.get("alice", "/var/new/deep/big")) == {"big": big}
        run(engine, "alice", "sh", "-c", "mkdir -p d/e; echo 1 > d/e/f; ln -s d/e/f here; ln -s /nope d/dead")
        run(engine, "alice", "sh", "-c", "mkfifo d/pipe; umask 777; echo secret > d/locked")
        assert unpacked(engine.get("alice", "/scenario/d/")) == {"d/e/f": b"1\n", "d/locked": b"secret\n"}
        assert unpacked(engine.get("alice", "/scenario/here")) == {"here": b"1\n"}
        with raises(FileNotFoundError, "/scenario/nothing", "alice"):
            engine.get("alice", "/scenario/nothing")
        with raises(EngineError, "/usr/x", "Read-only file system", "writable are /scenario"):
            engine.put("alice", [("/usr/x", b"")])
        run(engine, "alice", "truncate", "-s", "10T", "sparse")
        with raises(EngineError, "larger than"):
            engine.get("alice", "/scenario/sparse")


def links_do_not_lead_out_of_a_host() -> None:
    with tempfile.NamedTemporaryFile(dir="/tmp") as outside, lab(a_plan(TWO)) as engine:
        run(engine, "alice", "ln", "-s", f"/../../..{outside.name}", "/scenario/out")
        run(engine, "alice", "ln", "-s", "/proc/1/root/../../etc/shadow", "/scenario/shadow")
        for path in ("/scenario/out", "/scenario/shadow", f"/../..{outside.name}", "/proc/1/cwd/../mnt"):
            with raises(FileNotFoundError):
                engine.get("alice", path)
        engine.put("alice", [("/scenario/out", b"written")])
        assert Path(outside.name).read_bytes() == b""
        assert output(engine, "alice", f"cat {outside.name}") == "written"


def unpacked(archive: bytes) -> dict[str, bytes]:
    """The regular files of a tar archive."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        files = {member.name: tar.extractfile(member) for member in tar if member.isreg()}
        return {name: file.read() for name, file in files.items() if file is not None}


# the life of a lab


def two_labs_do_not_meet() -> None:
    with lab(a_plan(TWO)) as one, lab(a_plan(TWO)) as other:
        serve(one, "bob", 7000)
        assert ask(one, "alice", "bob", 7000) == "served hello"
        assert ask(other, "alice", "bob", 7000) == "ConnectionRefusedError"
        assert one.lab != other.lab


def nothing_is_left_after_down() -> None:
    before = sorted(Path("/proc/self/fd").iterdir())
    threads = threading.active_count()
    engine = new_engine()
    engine.open()
    engine.up(a_plan(TWO), lambda bridges: None)
    sleeper = Run(engine, "alice", "sh", "-c", "echo begun; sleep 300").await_output(b"begun")
    assert len(processes_of(engine.lab)) >= 5  # launcher, process 1, builder and two hosts
    began = time.monotonic()
    engine.down()
    assert time.monotonic() - began < 2
    assert processes_of(engine.lab) == []
    assert sleeper.exit == "SIGKILL"
    engine.down()
    assert sorted(Path("/proc/self/fd").iterdir()) == before
    assert threading.active_count() == threads
    with raises(EngineError, "there is no lab"):
        run(engine, "alice", "true")


def a_failed_up_leaves_nothing() -> None:
    good = a_plan(TWO)
    for change, kind, words in (
        ({"image": "nginx"}, CapabilityError, ("host alice has `image: nginx`", "--engine docker")),
        ({"build": "./x"}, CapabilityError, ("host alice has `build: ./x`",)),
        ({"interfaces": good.hosts[1].interfaces[:1], "name": "bad/name"}, EngineError, ("bad/name",)),
        ({"volumes": (("spool", "/usr/share/x"),)}, EngineError, ("making host alice", "Read-only")),
        (
            {"interfaces": [replaced(good.hosts[0].interfaces[0], mac="nonsense")]},
            EngineError,
            ("ip -batch", "nonsense"),
        ),
    ):
        engine = new_engine()
        engine.open()
        plan = replaced(good, hosts=(replaced(good.hosts[0], **change), good.hosts[1]), volumes=("spool",))
        with raises(kind, *words):
            engine.up(plan, lambda bridges: None)
        assert processes_of(engine.lab) == []
        engine.down()


def replaced(value: object, **changes: object) -> object:
    import dataclasses

    return dataclasses.replace(value, **changes)  # type: ignore[type-var]


def a_lab_whose_builder_dies_says_so() -> None:
    engine = new_engine()
    engine.open()
    try:
        engine.up(a_plan(ONE), lambda bridges: None)
        sleeper = Run(engine, "alice", "sleep", "300")
        for path in Path("/proc").glob("[0-9]*/comm"):
            with suppress(OSError):
                if path.read_text() == "testbed-builder\n" and engine.lab in (path.parent / "cmdline").read_text():
                    os.kill(int(path.parent.name), 9)
        with raises(EngineError, "the lab has ended"):
            for _ in range(1000):
                run(engine, "alice", "true")
    finally:
        engine.down()
    assert sleeper.exit == "SIGKILL"
    assert processes_of(engine.lab) == []


def enter_user_namespace(flags: int = 0) -> None:
    """This process becomes root of a user namespace of its own, as root of a container may be."""
    uid, gid = os.geteuid(), os.getegid()
    linux.unshare(linux.CLONE_NEWUSER | flags)
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        Path("/proc/self", name).write_text(text)


def a_machine_that_allows_no_namespaces_says_what_to_do() -> None:
    enter_user_namespace()
    Path("/proc/sys/user/max_user_namespaces").write_text("0")
    linux.limit_capabilities(())
    engine = new_engine()
    with raises(HostError, "/proc/sys/user/max_user_namespaces is 0", "sysctl user.max_user_namespaces="):
        engine.open()
    assert processes_of(engine.lab) == []


def a_machine_that_masks_proc_says_what_to_do() -> None:
    """As container runtimes do it: then the kernel lets nobody mount a /proc without the mask."""
    enter_user_namespace(linux.CLONE_NEWNS)
    linux.mount("none", "/proc/tty", "tmpfs")
    linux.limit_capabilities(("SETFCAP",))  # with more, the mask would be ours to lift; this one maps uid 0
    engine = new_engine()
    with raises(HostError, "mount proc", "systempaths=unconfined", "--engine docker"):
        engine.open()
    assert processes_of(engine.lab) == []


def mounts_below_the_userland_are_seen_too() -> None:
    """/usr/local is often a file system of its own."""
    with ExitStack() as stack:
        tree = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        enter_user_namespace(linux.CLONE_NEWNS)
        tree.chmod(0o755)
        (tree / "local").mkdir()
        linux.mount("none", str(tree / "local"), "tmpfs")
        stack.callback(linux.umount, str(tree / "local"))
        (tree / "local/tool").write_text("content")
        shown = (*namespaces.trees_outside_usr(PYTHON), str(tree))
        stack.enter_context(patched("trees_outside_usr", lambda python: shown))
        engine = stack.enter_context(lab(a_plan(ONE)))
        assert engine.describe()["userland"] == "bind"
        assert output(engine, "alice", f"cat {tree}/local/tool") == "content"
        assert run(engine, "alice", "touch", f"{tree}/local/new").exit == 1


def the_description_is_of_this_machine() -> None:
    with lab(a_plan(ONE)) as engine:
        said = engine.describe()
        assert said["kernel"] == os.uname().release
        assert said["iproute2"][0].isdigit()
        assert said["userland"] in ("overlay", "bind")
        assert said["user"] == ("root" if os.geteuid() == 0 else f"uid {os.geteuid()} as 0 of a user namespace")
        assert said["limits"]["open_files"] >= int(output(engine, "alice", "ulimit -n"))
        assert engine.taken() == frozenset()


def a_host_can_be_entered() -> None:
    with lab(a_plan(TWO)) as engine:
        done = subprocess.run([*engine.entrance("bob").split(), "hostname"], capture_output=True, text=True)
        assert (done.stdout, done.stderr) == ("bob\n", "")
        with raises(EngineError, "host mallory"):
            engine.entrance("mallory")


CHECKS = [
    name
    for name, thing in list(globals().items())
    if callable(thing)
    and getattr(thing, "__module__", "") == __name__
    and thing.__annotations__ == {"return": "None"}
]


def live_until_killed() -> None:
    """An orchestrator that is busy with everything that an engine does; the lab's name is the next argument."""
    engine = new_engine()
    engine.lab = sys.argv[3]
    print("about to begin", flush=True)
    engine.open()
    engine.up(a_plan({"lan": ["alice", "bob", "carol"]}), lambda bridges: None)
    for number in range(100_000):
        Run(engine, "alice", "sh", "-c", f"sleep 300; : {engine.lab}")
        engine.put("bob", [("/tmp/x", b"x" * 10_000)])
        run(engine, "carol", "echo", str(number))


if __name__ == "__main__":
    globals()[sys.argv[2]]()
