"""How programs, files and whole labs of the namespaces engine live and end: one function a promise."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

from testbed import groups, limits
from testbed.errors import CapabilityError, CommandNotFound, EngineError
from tests.parcel import put
from tests.system.namespaces_lab import (
    ONE,
    PYTHON,
    TWO,
    Run,
    a_plan,
    ask,
    checks_in,
    groups_of,
    lab,
    new_engine,
    output,
    processes_of,
    raises,
    run,
    serve,
)


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
        put(engine, "alice", ("/scenario/orphan", b"#!/no/such/interpreter\n"), ("/scenario/broken", b"\x7fELF?"))
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
            assert time.monotonic() - began < 5
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


def files_go_in_and_come_out() -> None:
    with lab(a_plan(ONE)) as engine:
        big = os.urandom(2_000_000)
        script = b"#!/bin/sh\necho ran $1\n"
        put(engine, "alice", ("/scenario/run.sh", script), ("/var/new/deep/big", big), ("/tmp/empty", b""))
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
            put(engine, "alice", ("/usr/x", b""))
        run(engine, "alice", "truncate", "-s", "10T", "sparse")
        with raises(OSError, "the most that is collected"):
            engine.get("alice", "/scenario/sparse")
        deep = "import os; os.mkdir('x'); os.chdir('x'); [(os.mkdir('d'), os.chdir('d')) for _ in range(1000)]"
        run(engine, "alice", "python3", "-c", deep)
        with raises(OSError, "too deep: more than 200 directories"):
            engine.get("alice", "/scenario/x")


def links_do_not_lead_out_of_a_host() -> None:
    with tempfile.NamedTemporaryFile(dir="/tmp") as outside, lab(a_plan(TWO)) as engine:
        run(engine, "alice", "ln", "-s", f"/../../..{outside.name}", "/scenario/out")
        run(engine, "alice", "ln", "-s", "/proc/1/root/../../etc/shadow", "/scenario/shadow")
        for path in ("/scenario/out", "/scenario/shadow", f"/../..{outside.name}", "/proc/1/cwd/../mnt"):
            with raises(FileNotFoundError):
                engine.get("alice", path)
        put(engine, "alice", ("/scenario/out", b"written"))
        assert Path(outside.name).read_bytes() == b""
        assert output(engine, "alice", f"cat {outside.name}") == "written"


def unpacked(archive: bytes) -> dict[str, bytes]:
    """The regular files of a tar archive."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        files = {member.name: tar.extractfile(member) for member in tar if member.isreg()}
        return {name: file.read() for name, file in files.items() if file is not None}


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
    assert time.monotonic() - began < 5
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


def the_groups_of_a_lab_whose_launcher_was_killed_go_with_the_next_lab() -> None:
    """The launcher would have removed them; without it nobody does until somebody looks."""
    engine = new_engine()
    engine.open()
    engine.up(a_plan(ONE), lambda bridges: None)
    made = groups_of(engine.lab)
    assert bool(made) != bool(engine.describe()["no_control_groups"])
    with lab(a_plan(ONE)):
        assert groups_of(engine.lab) == made, "it lives"
    assert engine._launcher is not None
    engine._launcher.kill()
    engine.down()
    while processes_of(engine.lab):
        time.sleep(0.01)
    assert groups_of(engine.lab) == made
    with lab(a_plan(ONE)):
        assert groups_of(engine.lab) == []


def a_host_has_the_limits_that_are_stated() -> None:
    with lab(a_plan(ONE)) as engine:
        found = {
            path.name: int(path.read_text())
            for group in groups_of(engine.lab)
            if group.endswith("/host-alice")
            for path in Path(group).iterdir()
            if path.name in ("pids.max", "memory.limit_in_bytes", "memory.max")
        }
        wanted = [] if engine.describe()["no_control_groups"] else [limits.PROCESSES, limits.MEMORY_BYTES]
        assert sorted(found.values()) == wanted, found


def what_is_ended_for_want_of_memory_is_counted() -> None:
    """With less than a host has, so that it takes less time."""
    with lab(a_plan(TWO)) as engine:
        made = [Path(group) for group in groups_of(engine.lab) if group.endswith("/host-alice")]
        limit = next((found for group in made for found in limits_of_memory(group)), None)
        assert bool(limit) != bool(engine.describe()["no_control_groups"])
        if limit is None:
            return
        limit.write_text(str(64 << 20))
        holders = {host: int(engine.entrance(host).split()[2]) for host in ("alice", "bob")}
        deadline = time.monotonic() + 5  # nobody waits until those who hold are in their groups
        while None in (found := [groups.memory_kills(pid) for pid in holders.values()]):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert found == [0, 0]
        hog = Run(engine, "alice", PYTHON, "-IS", "-c", "print(bytearray(256 << 20)[-1])").end()
        assert hog.exit == "SIGKILL"
        assert {host: groups.memory_kills(pid) for host, pid in holders.items()} == {"alice": 1, "bob": 0}
        assert run(engine, "alice", "true").exit == 0


def limits_of_memory(group: Path) -> list[Path]:
    return [path for name in ("memory.max", "memory.limit_in_bytes") if (path := group / name).exists()]


def a_host_that_is_full_of_processes_can_still_be_asked() -> None:
    """Files are carried, and what `ready: {answers: ...}` asks runs, when the host itself can start nothing."""
    with lab(a_plan(TWO)) as engine:
        bomb = Run(engine, "alice", PYTHON, "-IS", "-c", BOMB).end()
        assert bomb.exit == 1 and b"Resource temporarily unavailable" in bomb.stderr, bomb.stderr
        made = int(bomb.text)
        assert limits.PROCESSES - 10 < made < limits.PROCESSES + 100, made
        if not engine.describe()["no_control_groups"]:  # else the limit is of the whole lab
            assert output(engine, "bob", "echo x | cat | cat") == "x", "its neighbour has a limit of its own"
        put(engine, "alice", ("/tmp/in", b"1"))
        with tarfile.open(fileobj=io.BytesIO(engine.get("alice", "/tmp/in"))) as archive:
            assert archive.getnames() == ["in"]
        assert run(engine, "alice", "true").exit == 0


BOMB = """
import os, sys, time
for made in range(20000):
    try:
        if os.fork() == 0:
            time.sleep(10)
            os._exit(0)
    except OSError as problem:
        print(made)
        sys.exit(str(problem))
"""


def memory_runs_out_for_programs_first() -> None:
    with lab(a_plan(ONE)) as engine:
        assert output(engine, "alice", "cat /proc/self/oom_score_adj") == str(limits.OOM_SCORE_ADJ)
        assert run(engine, "alice", "sh", "-c", "cat /proc/1/oom_score_adj").text != str(limits.OOM_SCORE_ADJ)


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


CHECKS = checks_in(globals())


def live_until_killed() -> None:
    """An orchestrator that is busy with all that an engine does. Its argument is the lab's name."""
    engine = new_engine()
    engine.lab = sys.argv[1]
    print("about to begin", flush=True)
    engine.open()
    engine.up(a_plan({"lan": ["alice", "bob", "carol"]}), lambda bridges: None)
    for number in range(100_000):
        Run(engine, "alice", "sh", "-c", f"sleep 300; : {engine.lab}")
        put(engine, "bob", ("/tmp/x", b"x" * 10_000))
        run(engine, "carol", "echo", str(number))
