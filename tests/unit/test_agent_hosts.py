"""What the agent reads of the processes of a host: sockets, counters, trees, commands, signals."""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from testbed.agent import canary, counters, cpu_wait, namespaces, processes, sockets
from testbed.agent.host import Host, ended
from testbed.errors import EngineError

# The first lines of real tables, with the columns that nobody reads cut short.
TCP = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 101 1
   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 102 1
   2: 0200120C6:01BB 0300120C6:D431 01 00000000:00000000 00:00000000 00000000     0        0 103 1
""".replace("0200120C6", "0200C612").replace("0300120C6", "0300C612")
TCP6 = """  sl  local_address                         remote_address                        st tx tr uid
   0: 00000000000000000000000000000000:0050 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 104 1
   1: B80D01200000000067452301EFCDAB89:0051 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 105 1
"""
UDP = """   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
  10: 00000000:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 201 2
  11: 00000000:8000 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 202 2
  12: 00000000:EE47 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 203 2
  13: 00000000:EE48 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 204 2
  14: 00000000:2328 0300C612:2329 01 00000000:00000000 00:00000000 00000000     0        0 205 2
"""
UNIX = """Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000002 00000000 00010000 0001 01 301 /run/listening.sock
0000000000000000: 00000003 00000000 00000000 0001 03 302 /run/listening.sock
0000000000000000: 00000002 00000000 00000000 0002 01 303 /run/a log
0000000000000000: 00000002 00000000 00010000 0001 01 304 @abstract
0000000000000000: 00000002 00000000 00000000 0002 01 305
"""
EPHEMERAL = range(32768, 61000)
NATIVE = pytest.mark.skipif(sys.byteorder != "little", reason="the tables below are of a little-endian machine")


def numbers(low: int, high: int) -> set[str]:
    return {str(n) for n in range(low, high)}


@NATIVE
def test_tcp_counts_when_it_listens_and_is_open_here() -> None:
    found = list(sockets.internet("tcp", TCP, numbers(101, 104), EPHEMERAL))
    assert found == [
        {"proto": "tcp", "ip": "127.0.0.1", "port": 8080, "path": None},
        {"proto": "tcp", "ip": "0.0.0.0", "port": 22, "path": None},
    ]
    assert list(sockets.internet("tcp", TCP, {"103"}, EPHEMERAL)) == []
    assert list(sockets.internet("tcp", TCP, {"999"}, EPHEMERAL)) == []


@NATIVE
def test_tcp_over_ipv6() -> None:
    found = list(sockets.internet("tcp", TCP6, numbers(104, 106), EPHEMERAL))
    assert [(entry["ip"], entry["port"]) for entry in found] == [("::", 80), ("2001:db8::123:4567:89ab:cdef", 81)]


def test_udp_counts_when_bound_outside_the_ports_that_the_kernel_gives() -> None:
    found = list(sockets.internet("udp", UDP, numbers(201, 206), EPHEMERAL))
    assert [entry["port"] for entry in found] == [53, 0xEE48, 9000]


def test_what_is_unread_and_what_is_unsent() -> None:
    lines = [
        "0: 0100007F:1F90 00000000:0000 0A 00000000:00000003 00:0 0 0 0 101 1",  # listens: three connections
        "1: 0100007F:1F90 0100007F:8000 01 00000005:00000010 00:0 0 0 0 102 1",
        "2: 0100007F:1F90 0100007F:8001 08 00000000:00000020 00:0 0 0 0 103 1",  # the other end has closed
        "3: 0100007F:8002 0100007F:1F90 04 00000100:00000000 00:0 0 0 0 0 1",  # closed, and not all is sent
        "4: 0100007F:8003 0100007F:1F90 09 00000001:00000000 00:0 0 0 0 0 1",
        "5: 0100007F:8004 0100007F:1F90 05 00000000:00000000 00:0 0 0 0 0 1",
        "6: 0100007F:8005 0100007F:1F90 06 00000000:00000000 00:0 0 0 0 0 1",
    ]
    assert sockets.queues("tcp", "\n".join(["sl local rem st", *lines])) == (
        0x33,
        {"0100007F:8002 0100007F:1F90": 0x100, "0100007F:8003 0100007F:1F90": 1},
    )
    lines = ["7: 00000000:2328 00000000:0000 07 00000000:00000300 00:0 0 0 0 201 2"]
    assert sockets.queues("udp", "\n".join(["sl local rem st", *lines])) == (0x300, {})


def test_unix_counts_with_a_path_when_it_listens_or_is_a_datagram_socket() -> None:
    found = list(sockets.unix(UNIX, numbers(301, 306)))
    assert found == [
        {"proto": "unix", "ip": None, "port": None, "path": "/run/listening.sock"},
        {"proto": "unix", "ip": None, "port": None, "path": "/run/a log"},
    ]
    assert list(sockets.unix(UNIX, {"303"})) == found[1:]


def test_counters_have_the_names_of_nstat() -> None:
    text = (
        "Ip: Forwarding DefaultTTL\nIp: 2 64\nIcmpMsg: InType8\nIcmpMsg: 3\nTcp: MaxConn RetransSegs\nTcp: -1 7\n"
    )
    assert counters.paired(text) == {
        "IpForwarding": 2,
        "IpDefaultTTL": 64,
        "IcmpMsgInType8": 3,
        "TcpMaxConn": -1,
        "TcpRetransSegs": 7,
    }
    assert counters.listed("Ip6InReceives     \t5\nUdp6InDatagrams\t0\n") == {
        "Ip6InReceives": 5,
        "Udp6InDatagrams": 0,
    }


def test_counters_of_ourselves_are_those_of_nstat() -> None:
    host = ourselves()
    host.open()
    found = counters.read(host)
    host.close()
    assert {"TcpRetransSegs", "UdpInDatagrams", "TcpExtListenDrops", "IpExtInOctets"} <= found.keys()


def test_a_host_that_has_gone_says_so_and_its_counters_and_sockets_can_still_be_read() -> None:
    holder = subprocess.Popen(["sleep", "60"])
    host = Host("a", holder.pid, (), (), (), {})
    host.open()
    try:
        assert host.gone == "" and not ended([host])
        holder.kill()
        holder.wait()
        assert ended([host]) and host.gone.startswith(
            f"host a has gone: the process that held it open ({holder.pid})"
        )
        assert "TcpRetransSegs" in counters.read(host) and sockets.listening(host, holder.pid) == []
    finally:
        host.close()


def test_a_table_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(ValueError):
        counters.paired("Ip: A B\nIp: 1\n")


# processes: those of the test itself stand for a host's


def ourselves() -> Host:
    return ourselves_as(namespaces.identity("self", "pid"))


def ourselves_as(pid_ns: tuple[int, int]) -> Host:
    return Host("a", os.getpid(), (), (), (), {}, pid_ns=pid_ns)


@pytest.fixture
def family() -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A process and its child, which both wait."""
    code = "import subprocess, sys; p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True); p.wait()"
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert parent.stdout
    child = int(parent.stdout.readline())
    try:
        yield parent, child
    finally:
        for pid in (child, parent.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        parent.wait()
        parent.stdout.close()


def gone(pid: int) -> bool:
    """Or dead, and nobody of its family is there to say farewell."""
    found = processes.read(pid)
    return found is None or found.state == "Z"


def test_a_tree_has_parents_first(family: tuple[subprocess.Popen[bytes], int]) -> None:
    parent, child = family
    assert [process.pid for process in processes.tree(parent.pid)] == [parent.pid, child]
    assert os.getpid() not in [process.pid for process in processes.tree(child)]


def test_a_signal_for_one_is_for_one(family: tuple[subprocess.Popen[bytes], int]) -> None:
    parent, child = family
    assert processes.send_signal(ourselves(), parent.pid, "KILL", whole_tree=False) == [parent.pid]
    assert parent.wait(10) == -signal.SIGKILL
    assert not gone(child)


@pytest.mark.parametrize("name", ["TERM", "SIGKILL"])
def test_a_signal_for_a_tree_is_for_all_of_it(family: tuple[subprocess.Popen[bytes], int], name: str) -> None:
    parent, child = family
    assert processes.send_signal(ourselves(), parent.pid, name, whole_tree=True) == [parent.pid, child]
    assert parent.wait(10) == -signal.Signals[f"SIG{name.removeprefix('SIG')}"]
    with suppress(ProcessLookupError):  # ended and reaped already
        handle = os.pidfd_open(child)
        try:
            assert select.select([handle], [], [], 10)[0], "the child lives on"
        finally:
            os.close(handle)


def test_a_signal_to_nobody_is_sent_to_nobody() -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    assert processes.send_signal(ourselves(), ended.pid, "TERM", whole_tree=True) == []


def test_a_process_of_another_pid_namespace_is_refused(family: tuple[subprocess.Popen[bytes], int]) -> None:
    elsewhere = ourselves()
    elsewhere.pid_ns = (0, 0)
    with pytest.raises(
        EngineError, match=r"SIGTERM to process \d+ of a: refused, because that process is not in a"
    ):
        processes.send_signal(elsewhere, family[0].pid, "TERM", whole_tree=False)
    assert not gone(family[0].pid)


def test_a_process_that_nobody_may_look_at_is_none_of_a_host(
    family: tuple[subprocess.Popen[bytes], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a machine's own processes an agent may be told nothing: of process 1, in some sandboxes, also as root."""

    def refuse(pid: int, kind: str) -> tuple[int, int]:
        raise PermissionError(13, "Permission denied", f"/proc/{pid}/ns/{kind}")

    never_opened = Host("a", 1, (), (), (), {})
    monkeypatch.setattr(processes, "SETTLES_S", 0.02)
    monkeypatch.setattr(namespaces, "identity", refuse)
    for host in (ourselves_as((4, 4)), never_opened):
        with pytest.raises(EngineError, match="refused, because that process is not in a"):
            processes.send_signal(host, family[0].pid, "TERM", whole_tree=True)
    assert not gone(family[0].pid)


def test_a_signal_without_a_name_is_refused() -> None:
    with pytest.raises(EngineError, match="there is no signal 'TURM'"):
        processes.send_signal(ourselves(), os.getpid(), "TURM", whole_tree=False)


def refusing(monkeypatch: pytest.MonkeyPatch, times: int, then: list[str] | OSError) -> None:
    """The next listings of a process's descriptors are refused, so many of them; then comes `then`."""
    real, left = os.listdir, [times]

    def listdir(path: str) -> list[str]:
        if not path.endswith("/fd"):
            return real(path)
        left[0] -= 1
        if left[0] >= 0:
            raise PermissionError(13, "Permission denied", path)
        if isinstance(then, OSError):
            raise then
        return then

    monkeypatch.setattr(os, "listdir", listdir)


def test_a_process_that_is_just_becoming_its_program_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    refusing(monkeypatch, 3, ["0"])
    assert list(processes.descriptors(os.getpid())) == [str(Path("/proc/self/fd/0").readlink())]
    refusing(monkeypatch, 3, FileNotFoundError(2, "No such file or directory"))
    assert list(processes.descriptors(os.getpid())) == []


def test_a_process_that_never_lets_anybody_look_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "SETTLES_S", 0.02)
    refusing(monkeypatch, 10**9, [])
    with pytest.raises(PermissionError):
        list(processes.descriptors(os.getpid()))


def test_what_a_thread_has_open_counts_when_the_first_one_has_ended(tmp_path: Path) -> None:
    """pthread_exit in main: the process lives, and its own directory of descriptors is empty."""
    code = (
        "import ctypes, threading, time\n"
        f"f = open({str(tmp_path / 'held')!r}, 'w')\n"
        "threading.Thread(target=time.sleep, args=(60,)).start()\n"
        "print('up', flush=True)\n"
        "ctypes.CDLL(None).syscall(%d, 0)\n"
    ) % {"x86_64": 60, "aarch64": 93}[os.uname().machine]
    started = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert started.stdout
        started.stdout.readline()
        while (found := processes.read(started.pid)) is not None and found.state != "Z":
            pass
        assert str(tmp_path / "held") in list(processes.descriptors(started.pid))
    finally:
        started.kill()
        started.wait()
        if started.stdout:
            started.stdout.close()


def test_sockets_of_a_process_tree(tmp_path: Path) -> None:
    host = ourselves()
    host.open()
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    path = str(tmp_path / "s")
    try:
        with (
            socket.create_server(("127.0.0.1", 0)) as tcp,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ephemeral,
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as unix,
        ):
            for port in range(low - 1, 1024, -1):
                try:
                    udp.bind(("127.0.0.1", port))
                    break
                except OSError:
                    continue
            ephemeral.bind(("127.0.0.1", 0))
            unix.bind(path)
            before = [entry["path"] for entry in sockets.listening(host, os.getpid()) if entry["proto"] == "unix"]
            unix.listen()
            found = {
                (entry["proto"], entry["port"] or entry["path"]) for entry in sockets.listening(host, os.getpid())
            }
            assert path not in before
            assert {("tcp", tcp.getsockname()[1]), ("udp", udp.getsockname()[1]), ("unix", path)} <= found
            assert ("udp", ephemeral.getsockname()[1]) not in found
            other = subprocess.Popen(["sleep", "60"])
            try:
                assert sockets.listening(host, other.pid) == []
            finally:
                other.kill()
                other.wait()
            assert sockets.listening(host, other.pid) == []
    finally:
        host.close()


# finding commands


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host whose root directory is of the test's making: /proc/PID/root is where the code looks."""
    for path, mode in {
        "usr/bin/tool": 0o755,
        "usr/bin/data": 0o644,
        "usr/local/bin/data": 0o755,
        "scenario/mine": 0o755,
        "opt/real/tool2": 0o755,
        "outside": 0o755,
    }.items():
        file = tmp_path / "jail" / path if path != "outside" else tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")
        file.chmod(mode)
    jail = tmp_path / "jail"
    (jail / "bin").symlink_to("usr/bin")
    (jail / "usr/bin/absolute").symlink_to("/opt/real/tool2")
    (jail / "usr/bin/relative").symlink_to("../../opt/real/tool2")
    (jail / "usr/bin/escape").symlink_to("../../../../../outside")
    (jail / "usr/bin/loop").symlink_to("loop")
    (jail / "usr/bin/dangling").symlink_to("/usr/bin/nothing")
    (jail / "usr/bin/directory").mkdir()
    resolve = processes._is_executable
    monkeypatch.setattr(processes, "_is_executable", lambda _, path: resolve(str(jail), path))
    return ourselves()


PATH = "/usr/local/bin:/usr/bin:/bin"


@pytest.mark.parametrize(
    ("command", "found"),
    [
        ("tool", "/usr/bin/tool"),
        ("data", "/usr/local/bin/data"),
        ("mine", None),
        ("./mine", "/scenario/mine"),
        ("../bin/tool", "/bin/tool"),
        ("/bin/tool", "/bin/tool"),
        ("/usr/bin/data", None),
        ("absolute", "/usr/bin/absolute"),
        ("relative", "/usr/bin/relative"),
        ("escape", None),
        ("loop", None),
        ("dangling", None),
        ("directory", None),
        ("/usr/bin/tool/below", None),
        ("nothing", None),
        ("", None),
        ("x" * 300, None),
    ],
)
def test_a_command_is_found_as_exec_would(root: Host, command: str, found: str | None) -> None:
    assert processes.find_command(root, command, PATH, "/scenario") == found


def test_an_empty_place_in_the_path_is_the_working_directory(root: Host) -> None:
    assert processes.find_command(root, "mine", "/usr/bin::/bin", "/scenario") == "/scenario/mine"


def test_a_host_that_is_gone_is_an_error_and_not_a_missing_command() -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    with pytest.raises(EngineError, match=r"looking for 'ls' in a \(process \d+\)"):
        processes.find_command(Host("a", ended.pid, (), (), (), {}), "ls", PATH, "/")


# the canary


def test_a_percentile_is_rounded_up_to_its_step() -> None:
    late = canary.Lateness(step_ns=10_000)
    assert late.p99_ns() == 0
    for late_ns in [*range(0, 99 * 1000, 1000), 5_000_000]:
        late.add(late_ns)
    assert late.p99_ns() == 100_000  # of a hundred samples one may be later
    late.add(6_000_001)
    assert late.p99_ns() == 5_000_000
    late.add(-5)
    late.add(10**12)
    assert max(late._counts) == 10_000


def test_canary_counts_only_sleeps_that_were_not_cut_short() -> None:
    bird = canary.Canary()
    reader, writer = os.pipe()
    try:
        assert bird.wait([reader]) == []
        assert sum(bird.late._counts.values()) == 1
        os.write(writer, b"!")
        assert bird.wait([reader]) == [reader]
        assert sum(bird.late._counts.values()) == 1
    finally:
        os.close(reader)
        os.close(writer)


# the wait for a processor


def looked_at(host: Host, processors: set[int], programs: int, at_least_ns: int = 0) -> int:
    """The wait of a host whose busy programs share these processors, looked at for a second.

    Longer, if that was not `at_least_ns`: on a busy machine the programs may not even have been found by then.
    """
    busy = "import os, sys\nos.sched_setaffinity(0, eval(sys.argv[1]))\nwhile True: pass"
    wait = cpu_wait.CpuWait({host.name: host})
    running = [subprocess.Popen([sys.executable, "-c", busy, repr(processors)]) for _ in range(programs)]
    try:
        began = time.monotonic()
        while (lasted_s := time.monotonic() - began) < 1 or (
            lasted_s < 30 and wait.p99_ns()[host.name] < at_least_ns
        ):
            wait.look(time.monotonic_ns())
            time.sleep(0.002)
    finally:
        for process in running:
            process.kill()
            process.wait()
    return wait.p99_ns()[host.name]


def test_programs_that_share_a_processor_wait_for_it_and_that_is_seen() -> None:
    here = Host("here", os.getpid(), (), (), (), {}, pid_ns=namespaces.identity(os.getpid(), "pid"))
    one = min(os.sched_getaffinity(0))
    assert looked_at(here, {one}, 3, 2_000_000) >= 2_000_000, "two thirds of the time each of three waits"


def test_the_wait_of_processes_elsewhere_is_not_a_hosts() -> None:
    elsewhere = Host("elsewhere", 1, (), (), (), {}, pid_ns=(0, 0))
    assert looked_at(elsewhere, {min(os.sched_getaffinity(0))}, 3) == 0


def test_nobody_waits_in_a_host_without_programs() -> None:
    assert cpu_wait.CpuWait({"a": Host("a", 1, (), (), (), {})}).p99_ns() == {"a": 0}


def test_a_program_that_does_not_say_at_first_whose_it_is_is_a_hosts_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a process that has just given up capabilities, only root of the machine may know its namespaces."""
    mine, identity = os.getpid(), namespaces.identity
    here = Host("here", mine, (), (), (), {}, pid_ns=identity(mine, "pid"))
    refuses = [True]

    def refusing(pid: int, kind: str) -> tuple[int, int]:
        if refuses[0] or pid != mine:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return identity(pid, kind)

    monkeypatch.setattr(namespaces, "identity", refusing)
    wait = cpu_wait.CpuWait({"here": here})
    assert not wait.running()
    refuses[0] = False
    assert wait.running()


def test_a_process_has_ended_when_all_its_threads_have_asked_for_or_not() -> None:
    with subprocess.Popen(["true"]) as ended:
        deadline = time.monotonic() + 20
        while not processes.has_ended(ended.pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert processes.has_ended(ended.pid), "nobody has asked for its status"
    assert processes.has_ended(ended.pid), "not there at all"
    assert not processes.has_ended(os.getpid())
