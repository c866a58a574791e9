"""A Docker daemon for tests: the one that answers, else a private one, else the reason why there is none.

TESTBED_DOCKER asks for a private one of a certain version, whatever answers: see tests/docker_roots.py.

The private one lives in network, mount and pid namespaces of its own, so it changes nothing in the machine's
firewall, routes or mounts. Its process 1 is this very file: it waits for the end of its stdin, whose one write
end is in the test process, and then stops the daemon and removes its directory. So it also goes when the test
process is killed; and if process 1 itself is killed, the kernel ends everything in there with it.

    with docker_daemon() as docker_host: ...
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.errors import HostError
from tests import docker_roots

TOP = Path(__file__).parent.parent
STARTS_WITHIN_S, STOPS_WITHIN_S = 60, 20
HERE = ("iptables", "ip", "unshare", "nsenter")
NEEDED = ("dockerd", "containerd", "runc", *HERE)


class NoDaemon(Exception):
    """Why there is no daemon to be had here."""


@dataclass
class _Daemon:
    """A private daemon; `pid` is its process 1, `keeper` what holds its stdin."""

    host: str
    keeper: subprocess.Popen[bytes]
    pid: int = 0
    version: str = ""


_started: dict[str, _Daemon] = {}


@contextmanager
def docker_daemon(
    private: bool = False, options: Sequence[str] = (), without: Sequence[str] = ()
) -> Iterator[str]:
    """The DOCKER_HOST of the daemon that answers (unless `private`), else of one of our own. Raises NoDaemon.

    `options` are a private daemon's own, words of its command line; `without` are controllers (of control groups
    of version 1) that it does not have.
    """
    present = None if private or version_asked() else _present()
    if present is not None:
        yield present
        return
    daemon = _start(options, without)
    _started[daemon.host] = daemon
    try:
        yield daemon.host
    finally:
        del _started[daemon.host]
        _stop(daemon)


def version_asked() -> str:
    """The major version that TESTBED_DOCKER asks for; "" if any will do."""
    return os.environ.get("TESTBED_DOCKER", "")


def command_on_its_machine(host: str, argv: Sequence[str]) -> list[str]:
    """The command that runs `argv` where the bridges of the daemon at `host` are."""
    inside = ["nsenter", f"--net=/proc/{_started[host].pid}/ns/net"] if host in _started else []
    return [*inside, *argv]


def on_its_machine(host: str, argv: Sequence[str], check: bool = False) -> subprocess.CompletedProcess[str]:
    """Run that command. Raises CalledProcessError with `check`."""
    return subprocess.run(command_on_its_machine(host, argv), capture_output=True, text=True, check=check)


def daemon_processes(host: str) -> dict[int, str]:
    """Living processes of a private daemon and what it runs, with their command lines; of another one none."""
    from tests.conftest import processes_below

    return processes_below(_started[host].keeper.pid) if host in _started else {}


def log_of(host: str) -> str | None:
    """What a private daemon has said so far; of another one nothing is known."""
    log = Path(host.removeprefix("unix://")).with_name("log")
    return log.read_text(errors="replace") if host in _started else None


def stop(host: str, by: signal.Signals) -> None:
    """End a private daemon with a signal, and return when it is dead. What it ran is left to its next start."""
    _tell(host, by.name)


def start_again(host: str) -> None:
    """Start the private daemon that was stopped, and return when it answers. Raises NoDaemon."""
    _tell(host, "start")


def _tell(host: str, word: str) -> None:
    keeper = _started[host].keeper
    assert keeper.stdin is not None and keeper.stdout is not None
    keeper.stdin.write(f"{word}\n".encode())
    keeper.stdin.flush()
    said = json.loads(keeper.stdout.readline())
    if "error" in said:
        raise NoDaemon(said["error"])


def _present() -> str | None:
    from testbed.engines.docker_client import daemon_answers

    answers, _ = daemon_answers()
    return os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock") if answers else None


def _start(options: Sequence[str], without: Sequence[str]) -> _Daemon:
    version = version_asked()
    if os.geteuid() != 0:
        raise NoDaemon("none answers, and only root can start one")
    missing = [name for name in (HERE if version else NEEDED) if shutil.which(name) is None]
    if missing:
        raise NoDaemon(f"none answers, and to start one there is no {', '.join(missing)} (Debian: docker.io)")
    try:
        root = docker_roots.root_of(version, lambda text: print(text, file=sys.stderr)) if version else None
    except HostError as problem:
        raise NoDaemon(str(problem)) from problem
    directory = Path(tempfile.mkdtemp(prefix="testbed-dockerd-"))
    directory.chmod(0o711)  # as /run is: who may use the socket is for the socket to say
    keeper = subprocess.Popen(
        ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--propagation", "private",
         sys.executable, "-m", __name__,
         json.dumps([str(directory), str(root or ""), list(options), list(without)])],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, cwd=TOP,
    )  # fmt: skip
    assert keeper.stdout is not None
    said = json.loads(keeper.stdout.readline() or b'{"error": "its process 1 died"}')
    daemon = _Daemon(f"unix://{directory}/socket", keeper)
    if version and "error" not in said and not said["version"].startswith(f"{version}."):
        of = docker_roots.SUITES[version]
        said = {"error": f"Debian's {of} has Docker {said['version']} and not {version} any more; see {root}"}
    if "error" in said:
        _stop(daemon)
        shutil.rmtree(directory, ignore_errors=True)
        raise NoDaemon(f"none answers, and a private one did not start: {said['error']}")
    daemon.version = said["version"]
    daemon.pid = _first_child(keeper.pid)
    return daemon


def _first_child(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def _stop(daemon: _Daemon) -> None:
    keeper = daemon.keeper
    assert keeper.stdin is not None and keeper.stdout is not None
    with suppress(BrokenPipeError):
        keeper.stdin.close()
    keeper.wait(2 * STOPS_WITHIN_S)
    keeper.stdout.close()


# What follows runs as process 1 of the private daemon's pid namespace.


def keep(directory: Path, root: str, options: Sequence[str], without: Sequence[str]) -> None:
    """Start the daemon, report, do as stdin says to its end (see `stop`), stop the daemon, leave nothing."""
    group = f"testbed-{uuid.uuid4().hex[:12]}"
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for controller in without:
        subprocess.run(["umount", f"/sys/fs/cgroup/{controller}"], check=True)
    if any(option.startswith("--userns-remap") for option in options):
        docker_roots.map_users(Path(root or "/"), directory)
    log = (directory / "log").open("wb")
    at = docker_roots.AT if root else directory
    argv = [
        "dockerd", "--data-root", str(at / "data"), "--exec-root", str(at / "exec"),
        "--pidfile", str(at / "pid"), "--host", f"unix://{at}/socket",
        "--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", f"/{group}",
        "--storage-driver", _storage(directory), *options,
    ]  # fmt: skip
    if root:
        argv = docker_roots.inside(Path(root), directory, argv)

    def started() -> subprocess.Popen[bytes]:
        with suppress(ChildProcessError):  # a dead containerd that nobody has waited for counts as one that runs
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        dockerd = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        print(json.dumps(_wait_until_it_answers(dockerd, directory)), flush=True)
        return dockerd

    dockerd = started()
    try:
        for word in sys.stdin:
            if word.strip() == "start":
                dockerd = started()
            else:
                dockerd.send_signal(signal.Signals[word.strip()])
                print(json.dumps({"status": dockerd.wait()}), flush=True)
    finally:
        dockerd.terminate()
        with suppress(subprocess.TimeoutExpired):
            dockerd.wait(STOPS_WITHIN_S)
        with suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)  # everything in this pid namespace but ourselves
        with suppress(ChildProcessError):
            while True:
                os.wait()
        log.close()
        _remove(directory, group)


def _storage(directory: Path) -> str:
    """overlay2 where the kernel can put an overlay on this disk; vfs copies, and works everywhere."""
    parts = {name: directory / "try" / name for name in ("lower", "upper", "work", "merged")}
    for part in parts.values():
        part.mkdir(parents=True)
    options = f"lowerdir={parts['lower']},upperdir={parts['upper']},workdir={parts['work']}"
    mount = ["mount", "-t", "overlay", "overlay", "-o", options, str(parts["merged"])]
    works = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    if works:
        subprocess.run(["umount", str(parts["merged"])], check=True)
    shutil.rmtree(directory / "try")
    return "overlay2" if works else "vfs"


def _wait_until_it_answers(dockerd: subprocess.Popen[bytes], directory: Path) -> dict[str, str]:
    import docker
    from docker.errors import DockerException

    deadline = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < deadline and dockerd.poll() is None:
        with suppress(DockerException):
            client = docker.DockerClient(f"unix://{directory}/socket")
            try:
                return {"version": str(client.version()["Version"])}
            finally:
                client.close()
        time.sleep(0.05)
    lines = (directory / "log").read_text(errors="replace").splitlines()
    return {"error": " | ".join(line for line in lines if "level=info" not in line)[-2000:] or "it said nothing"}


def _remove(directory: Path, group: str) -> None:
    """The mounts first (they are this mount namespace's own), then the directory, then the control groups."""
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for mount in sorted((m for m in mounts if m.startswith(f"{directory}/")), reverse=True):
        subprocess.run(["umount", "--lazy", mount], check=False)
    groups = [group, *(path.name for path in (directory / "data/containers").glob("*"))]  # some lie at the top
    shutil.rmtree(directory, ignore_errors=True)
    top = Path("/sys/fs/cgroup")
    for parent in (top, *(p for p in top.iterdir() if p.is_dir())):
        for name in groups:
            for path, _, _ in os.walk(parent / name, topdown=False):
                with suppress(OSError):
                    Path(path).rmdir()


if __name__ == "__main__":
    asked: list[Any] = json.loads(sys.argv[1])
    keep(Path(asked[0]), *asked[1:])
