"""A host's limits, found as runtimes find them: /proc/self/cgroup, the mounts, then files. cgroups(7). JSON."""

import json
import sys
from pathlib import Path

FILES = {1: ("memory.limit_in_bytes", "pids.max"), 2: ("memory.max", "pids.max")}
PLACES = ("memory", "pids")


def mounts() -> list[tuple[str, str, str, list[str]]]:
    """Root, place, kind and controllers of what is mounted of control groups."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mine, _, theirs = line.partition(" - ")
        kind, _, options = theirs.split()
        if kind in ("cgroup", "cgroup2"):
            found.append((*mine.split()[3:5], kind, options.split(",")))
    return found


def own() -> dict[str, int]:
    """The limits of this process, by the path of its group below the mount that shows it."""
    paths = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        paths.update(dict.fromkeys(controllers.split(","), path))
    found = {}
    for root, point, kind, controllers in mounts():
        for controller, names in zip(PLACES, zip(FILES[1], FILES[2], strict=True), strict=True):
            if kind == "cgroup" and controller not in controllers:
                continue
            path = paths.get(controller if kind == "cgroup" else "", "")
            base = root.rstrip("/")
            if path == root or path.startswith(f"{base}/"):
                file = Path(point + path.removeprefix(base), names[kind == "cgroup2"])
                if file.exists():
                    found[controller] = int(file.read_text())
    return found


def at_the_usual_places() -> dict[str, int]:
    found = {}
    for controller, names in zip(PLACES, zip(FILES[1], FILES[2], strict=True), strict=True):
        for path in (Path("/sys/fs/cgroup", controller, names[0]), Path("/sys/fs/cgroup", names[1])):
            if path.exists():
                found[controller] = int(path.read_text())
    return found


def changed() -> list[str]:
    """What this process could change, which must be nothing."""
    done = []
    for _, point, _, _ in [*mounts(), ("", "/sys/fs/cgroup", "", [])]:
        for name in (*FILES[1], *FILES[2], "cgroup.procs", "cgroup.subtree_control", "tasks", "new"):
            try:
                Path(point, name).write_text("0")
                done.append(f"{point}/{name}")
            except OSError:
                continue
        try:
            Path(point, "child").mkdir()
            done.append(f"{point}/child")
        except OSError:
            continue
    return done


json.dump(
    {
        "own": own(),
        "usual": at_the_usual_places(),
        "below": sorted({str(path) for _, point, _, _ in mounts() for path in Path(point).glob("*/")}),
        "kinds": sorted(kind for _, _, kind, _ in mounts()),
        "changed": changed(),
    },
    sys.stdout,
)
