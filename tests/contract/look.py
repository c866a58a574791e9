"""What a host of a real engine is in truth, as a program in it sees it: one JSON object. Standard library only."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

PLACES = "/usr /usr/bin /etc /opt /opt/testbed /srv /mnt /lib /sys /dev /proc/sys/net".split()


def mounts() -> dict[str, dict[str, object]]:
    """The directories among mount points, with the mount on top of each: proc_pid_mountinfo(5)."""
    found: dict[str, dict[str, object]] = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mine, _, theirs = line.partition(" - ")
        point, options = mine.split()[4:6]
        kind, _, of_all = theirs.split()
        if Path(point).is_dir():
            size = os.statvfs(point)
            found[point] = {
                "kind": kind,
                "options": options.split(","),
                "writable": "ro" not in options.split(",") + of_all.split(","),
                "bytes": size.f_blocks * size.f_frsize,
            }
    return found


def status() -> dict[str, str]:
    lines = Path("/proc/self/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def sysctls(names: list[str]) -> dict[str, str]:
    paths = {name: Path("/proc/sys", *name.split(".")) for name in names}
    return {name: " ".join(path.read_text().split()) for name, path in paths.items() if path.exists()}


def ip(*words: str) -> object:
    done = subprocess.run(["ip", "-j", *words], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout or "[]")


def written() -> list[str]:
    """The directories in which a file could be made: mount points, and some that must not be like them."""
    done = []
    for place in sorted({*mounts(), *PLACES}):
        path = Path(place, ".look")
        try:
            path.write_text("x")
            path.unlink()
            done.append(place)
        except OSError:
            continue
    return done


json.dump(
    {
        "status": status(),
        "mounts": mounts(),
        "written": written(),
        "sysctls": sysctls(sys.argv[1:]),
        "routes": ip("-4", "route", "show", "table", "all"),
        "routes6": ip("-6", "route", "show", "table", "all") if Path("/proc/sys/net/ipv6").exists() else [],
        "links": ip("link"),
        "open_files": resource.getrlimit(resource.RLIMIT_NOFILE),
        "core": resource.getrlimit(resource.RLIMIT_CORE),
        "oom_score_adj": int(Path("/proc/self/oom_score_adj").read_text()),
    },
    sys.stdout,
)
