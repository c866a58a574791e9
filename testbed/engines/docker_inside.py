"""What the engine runs in the agent's container, next to the agent: sent as source text.

The agent's own process says `facts` before all else; for the rest a process of its own reads one JSON line and
answers with one. In there all processes of the daemon's machine can be seen, so a
host's files can be reached through /proc/PID/root, whatever its image has or lacks. Nothing but /etc/hosts and
/etc/resolv.conf is written that way: Docker binds its own over them, and its way to copy files in cannot
replace those.

A host of ours is then sealed from within its mount namespace. Docker's read-only root is not for us: with it, its
own files in /etc are read-only before they are written, and its way to copy files in refuses to.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from testbed import linux

SEALED = ("/", "/dev", "/sys/fs/cgroup", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf")


@contextmanager
def held(pid: int, container: str) -> Iterator[str | None]:
    """The directory in /proc of the process that holds this container open; None if it has ended.

    A number may be given to another process at any moment, and what is done here must never be done to that one.
    So its directory is held first: it stands for one process, whatever becomes of the number. Then its mounts show
    whose it is: Docker binds files of its own into every container, out of a directory called like the container.
    Raises OSError if it is another process, or may not be looked at.
    """
    try:
        home = os.open(f"/proc/{pid}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError):
        yield None
        return
    try:
        path = f"/proc/self/fd/{home}"
        mounts = _mounts(path)
        if mounts is not None and not belongs(mounts, container):
            raise OSError(f"process {pid} is none of container {container[:12]}: its number was given away")
        yield None if mounts is None else path
    finally:
        os.close(home)


def belongs(mountinfo: str, container: str) -> bool:
    """Whether these mounts, as in proc_pid_mountinfo(5), are those of the container with that id. Pure."""
    return any(container in line.split()[3].split("/") for line in mountinfo.splitlines())


def _mounts(home: str) -> str | None:
    try:
        return Path(home, "mountinfo").read_text() or None
    except OSError as problem:
        if problem.errno in (errno.ENOENT, errno.ESRCH, errno.EINVAL):  # gone, or it is just going: no mounts then
            return None
        raise


def write(root: str, files: dict[str, str]) -> dict[str, str] | None:
    """Write files in place under a directory, and return what they hold then; None if it is not there.

    Raises OSError.
    """
    for path, text in files.items():
        try:
            Path(root + path).write_text(text)
        except (FileNotFoundError, ProcessLookupError):
            if Path(root).exists():
                raise
            return None
    return {path: Path(root + path).read_text() for path in files}


def seal(home: str, directories: dict[str, int], links: dict[str, str]) -> None:
    """Make directories (path -> mode) and links where a host can write, and the rest read-only. Raises OSError.

    `home` is the host's process in /proc. What a volume put there already stays as it is.
    """
    reading, writing = os.pipe()
    child = os.fork()  # from the mount namespace of a host there is no way back
    if child == 0:
        try:
            _seal(os.open(f"{home}/ns/mnt", os.O_RDONLY), directories, links)
            os._exit(0)
        except BaseException as problem:
            os.write(writing, str(problem).encode()[:4096])
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    if os.waitpid(child, 0)[1]:
        raise OSError(said or "the process that does it died")


def _seal(namespace: int, directories: dict[str, int], links: dict[str, str]) -> None:
    linux.setns(namespace, linux.CLONE_NEWNS)
    for path, mode in directories.items():
        if not Path(path).exists():
            Path(path).mkdir()
            Path(path).chmod(mode)
    for path, target in links.items():
        if not os.path.lexists(path):
            Path(path).symlink_to(target)
    for path in SEALED:
        flags = linux.MS_RDONLY | linux.MS_NOSUID | (0 if path == "/dev" else linux.MS_NODEV)
        try:
            linux.mount(None, path, None, linux.MS_REMOUNT | linux.MS_BIND | flags)
        except OSError as problem:  # not there, or nothing is mounted there: then it goes with the root
            if problem.errno not in (errno.ENOENT, errno.EINVAL):
                raise


def routes(shown: str) -> list[str]:
    """Where this machine can send to, from `ip -j route show table all`: subnets, without the default route."""
    found = {route["dst"] for route in json.loads(shown) if route.get("type", "unicast") == "unicast"}
    return sorted(dst if "/" in dst else f"{dst}/{128 if ':' in dst else 32}" for dst in found - {"default"})


LIMITS = {"nofile": resource.RLIMIT_NOFILE, "fsize": resource.RLIMIT_FSIZE, "cpu": resource.RLIMIT_CPU,
          "data": resource.RLIMIT_DATA, "core": resource.RLIMIT_CORE}  # fmt: skip


def ulimits() -> dict[str, tuple[int, int]]:
    """By their names in Docker: what this process may have, and what may be had on this machine; -1 is all.

    Our parent is Docker's own, whose limits are those of the daemon; ours may be what it gives to containers.
    """
    found = {}
    for name, number in LIMITS.items():
        own = most = resource.getrlimit(number)[1]
        with suppress(OSError):  # not ours to look at
            most = resource.prlimit(os.getppid(), number)[1]
        found[name] = own, most
    return found


def facts() -> dict[str, Any]:
    """What the engine has to know of the daemon's machine: what is routed, limits of a process, IPv6."""
    ipv6 = Path("/proc/sys/net/ipv6").exists()
    found = []
    for version in ("-4", "-6") if ipv6 else ("-4",):
        argv = ["ip", "-j", version, "route", "show", "table", "all"]
        found += routes(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    return {
        "routes": found,
        "ulimits": ulimits(),
        "ipv6": ipv6,
    }


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """{"write": {host: [pid, container, {path: text}]}, "seal": [host], "directories": {path: mode},
    "links": {path: target}}

    is answered with {"found": {host: what the files then hold, or null if its process has ended}}, or with
    {"problem": text} for the first thing that did not work.
    """
    found = {}
    for host, (pid, container, files) in request["write"].items():
        doing = f"writing the names of host {host} (process {pid})"
        try:
            with held(pid, container) as home:
                found[host] = None if home is None else write(f"{home}/root", files)
                if home is not None and found[host] is not None and host in request["seal"]:
                    doing = f"sealing host {host} (process {pid})"
                    seal(home, request["directories"], request["links"])
        except OSError as problem:
            return {"problem": f"{doing}: {problem}"}
    return {"found": found}


if __name__ == "__main__":
    print(json.dumps(answer(json.loads(sys.stdin.readline()))))
