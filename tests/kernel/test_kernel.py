"""What this machine's kernel lacks, under user-mode Linux, on bare namespaces: run by `make test-kernel`.

With TESTBED_RESULTS=DIR, the results of the scenarios are kept in there.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from testbed.catalogue import scenarios_in
from testbed.scenario import parse
from tests.command import ROOT, clean_environment
from tests.conftest import missing, processes_below
from tests.kernel import boot
from tests.system import namespaces_life

CONTROL = Path(__file__).with_name("udp-loss-gently.yaml")
CONGESTION = ROOT / "tests/contract/congestion.yaml"
# For an ordinary user root's files are nobody's in there, and mount(8), which is setuid, would become that.
VERSION_2 = (
    "setpriv --no-new-privs mount -t cgroup2 none /sys/fs/cgroup && "
    "echo +memory +pids > /sys/fs/cgroup/cgroup.subtree_control"
)
NEEDS_SCTP = [
    path for path in scenarios_in(ROOT / "scenarios") if "sctp" in parse(path.read_text(), path.name).requires
]
KEEP = Path(os.environ["TESTBED_RESULTS"]) if "TESTBED_RESULTS" in os.environ else None
TIMEOUT_S = 240  # a run takes 10 s there, and a machine may be busy


def under_uml(*argv: str | Path, timeout_s: float = TIMEOUT_S, keep: Path | None = None) -> boot.Ran:
    try:
        return boot.run([str(word) for word in argv], timeout_s, keep)
    except boot.NoKernel as problem:
        missing("uml", str(problem))
        raise


def testbed(*words: str | Path, results: Path = Path("/run/tmp/results")) -> list[str | Path]:
    options = ("--engine", "namespaces", "--results", results)
    return [sys.executable, "-m", "testbed", *words, *options]


testbed.__test__ = False  # type: ignore[attr-defined]


def ordinary_user() -> list[str]:
    """The words that run a command as somebody who is not root there. Skips where nobody else can read Python."""
    uid = str(os.geteuid() or 65534)
    nobody = [
        "setpriv",
        "--reuid",
        uid,
        "--regid",
        uid,
        "--clear-groups",
        "env",
    ]  # setpriv itself may still read all
    if os.geteuid() == 0:
        tried = subprocess.run([*nobody, sys.executable, "-c", "import testbed"], cwd=ROOT, capture_output=True)
        if tried.returncode != 0:
            pytest.skip(f"{sys.executable} and {ROOT} cannot be read by other users than root")
    return nobody


def test_there_is_something_that_needs_this_kernel() -> None:
    assert [path.stem for path in NEEDS_SCTP] == ["seqpacket-sctp"]


def test_nothing_is_loaded_before_it_is_asked_for() -> None:
    ran = under_uml("sh", "-c", "uname -r; id -u; grep -c . /proc/modules; touch /run/exchange/x /nowhere")
    release, uid, modules, refused = ran.output.splitlines()
    assert release != os.uname().release
    assert (uid, modules, ran.status) == ("0", "0", 1), str(ran)
    assert "Read-only file system" in refused


@pytest.mark.parametrize("path", NEEDS_SCTP, ids=lambda path: path.stem)
def test_a_scenario_that_needs_sctp_passes(path: Path) -> None:
    ran = under_uml(*testbed("run", path, "--strict", results=boot.RESULTS), keep=KEEP)
    assert ran.status == 0, str(ran)
    assert "\npass: " in ran.output, str(ran)


@pytest.mark.parametrize("path", NEEDS_SCTP, ids=lambda path: path.stem)
def test_and_is_proven_able_to_fail(path: Path) -> None:
    ran = under_uml(*testbed("prove", path))
    assert ran.status == 0, str(ran)
    assert f"{path.stem} when " in ran.output, str(ran)


def test_a_server_books_what_is_in_its_socket_at_sigterm() -> None:
    tests = "tests/unit/test_programs_sctp.py"
    ran = under_uml(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", tests)
    assert ran.status == 0, str(ran)
    assert "1 passed" in ran.output, str(ran)


def test_where_there_is_sctp_it_is_found(tmp_path: Path) -> None:
    """The scenario makes no demand of SCTP. Here it does, in all that it is run under."""
    text = (ROOT / "scenarios" / "seqpacket-where.yaml").read_text()
    asked = tmp_path / "seqpacket-where.yaml"
    asked.write_text(
        text.replace("\nexpect:\n", "\nexpect:\n  - desk.sctp == offered\n  - desk.sctp_type == seqpacket\n")
    )
    ran = under_uml(*testbed("run", asked, "--strict"))
    assert ran.status == 0, str(ran)
    assert "desk.sctp is offered" in ran.output, str(ran)


@pytest.mark.parametrize(
    "check",
    [
        namespaces_life.a_host_has_the_limits_that_are_stated,
        namespaces_life.what_is_ended_for_want_of_memory_is_counted,
        namespaces_life.the_groups_of_a_lab_whose_launcher_was_killed_go_with_the_next_lab,
    ],
)
def test_control_groups_of_version_2_limit_a_host_too(check: Callable[[], None]) -> None:
    module, name = check.__module__, check.__name__
    python = shlex.join(
        [
            sys.executable,
            "-c",
            f"from {module} import {name} as check, groups; groups.parents(); check(); print('checked')",
        ]
    )
    ran = under_uml("sh", "-c", f"{VERSION_2} && {python} && ls /sys/fs/cgroup")
    assert "checked\n" in ran.output and "memory.stat" in ran.output, str(ran)
    assert "testbed-lab" not in ran.output, str(ran)


# As systemd gives a user groups: a directory of his own, and his session in one below it.
DELEGATED = (
    "cd /sys/fs/cgroup && mkdir -p u/session && echo +memory +pids > u/cgroup.subtree_control && "
    "chown -R {uid} u && echo $$ > u/session/cgroup.procs && cd - && mkdir -m 777 -p /run/tmp"
)


@pytest.mark.parametrize("who", ["root", "user"])
def test_and_show_them_to_it(who: str) -> None:
    user = ordinary_user() if who == "user" else []
    words = shlex.join([*user, sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rs"])
    give = f"{VERSION_2} && {DELEGATED.format(uid=user[2])}" if user else VERSION_2
    asked = "namespaces and (own_limits or can_write or java_knows or node_knows)"
    tests = "tests/contract/test_baseline.py tests/contract/test_runtimes.py"
    ran = under_uml("sh", "-c", f"{give} && {words} {tests} -k '{asked}'")
    assert ran.status == 0, str(ran)
    assert "no cgroups" not in ran.output and " passed" in ran.output, str(ran)


def test_what_a_machine_has_set_for_its_own_interfaces_is_not_what_hosts_have(tmp_path: Path) -> None:
    """A new network namespace begins with the machine's; strict filtering by reverse path is usual there."""
    names = "rp_filter accept_local route_localnet arp_filter arp_ignore drop_unicast_in_l2_multicast".split()
    sets = " ".join(f"net.ipv4.conf.{place}.{name}=1" for name in names for place in ("all", "default"))
    files = " ".join(f"/proc/sys/net/ipv4/conf/{place}/{name}" for name in names for place in ("all", "eth0"))
    asked = tmp_path / "interfaces.yaml"
    asked.write_text(f"""
testbed: 1
hosts: {{a: {{run: "sh -c 'cat {files}'"}}}}
expect:
  - a.stdout contains "0"
  - a.stdout does not contain "1"
""")
    tmp_path.chmod(0o755)
    run = shlex.join(map(str, testbed("run", asked, "--strict")))
    ran = under_uml("sh", "-c", f"sysctl -w {sets} && {run}")
    assert ran.status == 0, str(ran)


@pytest.mark.parametrize("inherited", ["cubic", "reno", "bbr"])
@pytest.mark.parametrize("who", ["root", "user"])
def test_congestion_control_is_the_plans_whatever_the_machine_has(inherited: str, who: str) -> None:
    """What is missing is loaded for root, and for nobody else."""
    user = ordinary_user() if who == "user" else []
    run = shlex.join(map(str, [*user, *testbed("run", CONGESTION)]))
    has = f"/run/kernel/modprobe ipv6 && sysctl -w net.ipv4.tcp_congestion_control={inherited}"
    ran = under_uml("sh", "-c", f"{has} && {run}")
    if who == "user" and inherited != "bbr":
        assert ran.status == 4, str(ran)
        assert "this kernel has only reno, cubic; try `modprobe tcp_bbr` as root" in " ".join(ran.output.split())
        return
    assert ran.status == 0, str(ran)
    usual = "" if inherited == "cubic" else f", inherited was {inherited}"
    assert usual in ran.output, str(ran)


def test_the_control_passes_as_root() -> None:
    ran = under_uml(*testbed("run", CONTROL, "--strict"))
    assert ran.status == 0, str(ran)


@pytest.mark.parametrize("path", [CONTROL, *NEEDS_SCTP], ids=lambda path: path.stem)
def test_as_an_ordinary_user_it_passes_too(path: Path) -> None:
    ran = under_uml(*ordinary_user(), *testbed("run", path, "--strict"))
    assert ran.status == 0, str(ran)


STEPS = """
import os, pathlib, select, signal, subprocess, sys, time
run = subprocess.Popen(sys.argv[1:], stderr=subprocess.PIPE, bufsize=0)
said = b""
while b"sensor.sensor started" not in said:
    said += os.read(run.stderr.fileno(), 4096) or sys.exit(said.decode())
lines = {p.parent.name: p.read_bytes() for p in pathlib.Path("/proc").glob("[0-9]*/cmdline")}
(wire,) = [int(pid) for pid, line in lines.items() if b"agent import" b" wire" in line]  # and not this program
step = 3600
while b"sensor.sensor ended" not in said:  # who knows when its first datagram leaves
    if select.select([run.stderr], [], [], 0.1)[0]:
        said += os.read(run.stderr.fileno(), 4096) or sys.exit(said.decode())
        continue
    os.kill(wire, signal.SIGSTOP)
    time.sleep(0.1)
    time.clock_settime(time.CLOCK_REALTIME, time.time() + step)
    os.kill(wire, signal.SIGCONT)
    step = -step
print(said.decode() + run.stderr.read().decode())
sys.exit(run.wait())
"""


def test_a_wall_clock_that_is_set_in_mid_run_changes_no_count_and_shortens_no_delay(tmp_path: Path) -> None:
    """An hour forward and an hour back, again and again, while frames that were stamped wait for the wire."""
    words = testbed("run", CONTROL, "--strict", results=boot.RESULTS)
    ran = under_uml(sys.executable, "-c", STEPS, *words, keep=tmp_path)
    assert ran.status == 0, str(ran)
    assert "\npass: " in ran.output, str(ran)
    ring = json.loads((tmp_path / CONTROL.stem / "latest" / "proof.json").read_text())["end"]["ring"]
    assert ring["bad_age"] > 0, "no frame waited when the clock was set"


def test_an_exit_status_gets_out() -> None:
    assert under_uml("sh", "-c", "exit 7").status == 7


def test_when_the_time_is_over_everything_ends() -> None:
    ran = under_uml("sh", "-c", "echo here; sleep 600", timeout_s=15)
    assert ran.status is None
    assert "linux.uml" not in " ".join(processes_below(os.getpid()).values())


def test_when_the_test_process_is_killed_everything_ends(tmp_path: Path) -> None:
    text = "from tests.kernel import boot; boot.run(['sleep', '600'], 600)"
    environment = clean_environment() | {"TMPDIR": str(tmp_path)}
    user = subprocess.Popen([sys.executable, "-c", text], cwd=ROOT, env=environment)
    deadline = time.monotonic() + 60
    while "sleep 600" not in "".join(path.read_text() for path in tmp_path.glob("*/command")) or not any(
        "linux.uml" in line for line in processes_below(user.pid).values()
    ):
        assert user.poll() is None and time.monotonic() < deadline, "it did not start"
        time.sleep(0.05)
    user.send_signal(signal.SIGKILL)
    user.wait()
    deadline = time.monotonic() + 60
    while "linux.uml" in " ".join(processes_below(os.getpid()).values()):
        assert time.monotonic() < deadline, "it is still there"
        time.sleep(0.05)
