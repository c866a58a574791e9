"""What a host of the namespaces engine can reach, see and change: one function a promise."""

from __future__ import annotations

import os
import socket
import tempfile
from contextlib import ExitStack, closing, suppress
from pathlib import Path

from testbed import linux
from testbed.engines import namespaces
from testbed.errors import HostError
from tests.system.namespaces_lab import (
    ONE,
    PYTHON,
    TWO,
    Run,
    a_plan,
    ask,
    checks_in,
    lab,
    new_engine,
    output,
    patched,
    processes_of,
    python,
    raises,
    run,
    serve,
)

NO_OVERLAY = """
import errno, testbed.linux
mount = testbed.linux.mount
def without_overlay(source, target, kind, *more):
    if kind == "overlay":
        raise OSError(errno.ENODEV, "no overlay in this test")
    mount(source, target, kind, *more)
testbed.linux.mount = without_overlay
"""
SAY = """
import socket, sys
try:
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"from a host", (sys.argv[1], int(sys.argv[2])))
except OSError:
    pass
"""
CONNECT = """
import socket, sys
try:
    socket.socket(socket.AF_UNIX).connect(sys.argv[1].replace("@", chr(0)))
except OSError:
    sys.exit(5)
"""


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
    """TCP and UDP at every address of the machine, and UNIX sockets wherever we may make one."""
    places = [Path(p) for p in ("/tmp", "/run", "/usr/local", "/etc", "/dev/shm") if os.access(p, os.W_OK)]
    mark = f"testbed-check-{os.getpid()}"
    with ExitStack() as stack:
        tcp = stack.enter_context(socket.create_server(("", 0)))
        port = tcp.getsockname()[1]
        udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        udp.bind(("", port))
        udp.settimeout(5)
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
            python(engine, "alice", SAY, address, str(port))  # its own loopback takes that, or nothing does
            with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as control:
                control.sendto(b"control", (address, port))
            assert udp.recv(99) == b"control", address


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


def addresses_of_the_machine() -> set[str]:
    """The address from which each way out would be taken; nothing is sent."""
    found = set()
    for target in ("192.0.2.1", "198.18.0.2", "10.0.0.1"):
        with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as probe, suppress(OSError):
            probe.connect((target, 9))
            found.add(probe.getsockname()[0])
    return found


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
        points = {line.split()[1] for line in output(engine, "alice", "cat /proc/self/mounts").splitlines()}
        own = "dev etc home opt proc root run scenario sys tmp usr var bin sbin lib lib32 lib64 libx32".split()
        shown = [f"/{name}" for name in own] + list(namespaces.trees_outside_usr(PYTHON))
        assert {point for point in points if not any(Path(point).is_relative_to(tree) for tree in shown)} == {"/"}


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


def the_keys_of_the_user_are_out_of_reach() -> None:
    """Keys are no namespace's: without a filter, a host of root's would have root's."""
    with lab(a_plan(ONE)) as engine:
        calls = {"x86_64": (248, 250), "aarch64": (217, 219)}.get(os.uname().machine)
        for number in calls or ():
            script = f"""
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
print(libc.syscall({number}, b"user", b"x", b"x", 1, -4), ctypes.get_errno())
"""
            assert python(engine, "alice", script).text == "-1 1"


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


CHECKS = checks_in(globals())
