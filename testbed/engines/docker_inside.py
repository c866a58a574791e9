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
import traceback
from pathlib import Path
from typing import Any

from testbed import linux

SEALED = ("/", "/dev", "/sys/fs/cgroup", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf")


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


def seal(pid: int, directories: dict[str, int], links: dict[str, str]) -> None:
    """Make directories (path -> mode) and links where a host can write, and the rest read-only. Raises OSError.

    What a volume put there already stays as it is.
    """
    child = os.fork()  # from the mount namespace of a host there is no way back
    if child == 0:
        try:
            namespace = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY)
            if any(os.path.samestat(os.fstat(namespace), Path(f"/proc/{p}/ns/mnt").stat()) for p in (1, "self")):
                raise OSError(f"process {pid} is none of a host")  # its number was given away
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
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    if os.waitpid(child, 0)[1]:
        raise OSError(f"sealing the host whose process is {pid} did not work")


def routes(shown: str) -> list[str]:
    """Where this machine can send to, from `ip -j route show table all`: subnets, without the default route."""
    found = {route["dst"] for route in json.loads(shown) if route.get("type", "unicast") == "unicast"}
    return sorted(dst if "/" in dst else f"{dst}/{128 if ':' in dst else 32}" for dst in found - {"default"})


def facts() -> dict[str, Any]:
    """What the engine has to know of the daemon's machine: what is routed, open files a process may have, IPv6."""
    ipv6 = Path("/proc/sys/net/ipv6").exists()
    found = []
    for version in ("-4", "-6") if ipv6 else ("-4",):
        argv = ["ip", "-j", version, "route", "show", "table", "all"]
        found += routes(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    return {
        "routes": found,
        "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        "ipv6": ipv6,
    }


def answer(request: dict[str, Any]) -> Any:
    """{"write": {host: [pid, {path: text}]}, "seal": [host], "directories": {path: mode}, "links": {path: target}}

    is answered with what the files then hold, or null for a host whose process has ended.
    """
    found = {host: write(f"/proc/{pid}/root", files) for host, (pid, files) in request["write"].items()}
    for host in request["seal"]:
        if found[host] is not None:
            seal(request["write"][host][0], request["directories"], request["links"])
    return found


if __name__ == "__main__":
    print(json.dumps(answer(json.loads(sys.stdin.readline()))))
