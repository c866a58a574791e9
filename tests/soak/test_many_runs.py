"""Run after run of what ships: each passes, each lap leaves nothing, and nothing grows but the results."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.command import ROOT, clean_environment, said, testbed
from tests.disturbed import SHORT, Left, await_gone
from tests.docker_daemon import daemon_processes
from tests.soak.length import either
from tests.system.test_scenarios import SHIPPED, lacking

RUNS = either({"namespaces": 4, "docker": 2}, {"namespaces": 1000, "docker": 100})
LAP = {
    engine: either([path for path in SHIPPED if path.stem in few], SHIPPED)
    for engine, few in {"namespaces": ("udp-clean", "unix-named-point"), "docker": ("unix-named-point",)}.items()
}
IN_ONE_COMMAND = either({"namespaces": 4, "docker": 2}, {"namespaces": 100, "docker": 15})

# How much of it may come and go by itself, and how much of it a run may keep. What other programs of the machine
# take and give back counts, too: what a run keeps shows only after many.
MAY_GROW: dict[str, tuple[float, float]] = {
    "open files": (1500, 0.5),
    "network namespaces": (60, 0.1),
    "mounts": (2000, 2.0),
    "directories of control groups": (200, 0.2),
    "KiB of the kernel": (60_000, 20.0),
    "descriptors of the daemon": (40, 0.2),
    "threads of the daemon": (40, 0.2),
    "mounts of the daemon": (0, 0.0),
    "directories of the daemon": (0, 0.0),
    "KiB of the daemon": (100_000, 100.0),
}


def sizes(engine: str) -> dict[str, float]:
    """What a run could add to, on this machine and in a private daemon; what cannot be read is left out."""
    found: dict[str, float] = {"open files": float(Path("/proc/sys/fs/file-nr").read_text().split()[0])}
    memory = dict(re.findall(r"^(\w+): +(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE))
    found["KiB of the kernel"] = float(memory["SUnreclaim"]) + float(memory["Percpu"])
    found["directories of control groups"] = sum(len(names) for _, names, _ in os.walk("/sys/fs/cgroup"))
    slabs = Path("/proc/slabinfo")
    if os.access(slabs, os.R_OK):
        counts = dict(re.findall(r"^(\w+) +(\d+) ", slabs.read_text(), re.MULTILINE))
        names = {"network namespaces": "net_namespace", "mounts": "mnt_cache"}
        found |= {what: float(counts[name]) for what, name in names.items() if name in counts}
    return found | (daemon_sizes() if engine == "docker" else {})


def daemon_sizes() -> dict[str, float]:
    """Of the private daemon that the tests started, if there is one, and of its containerd."""
    lines = daemon_processes(os.environ["DOCKER_HOST"]).items()
    pids = [pid for pid, line in lines if line.startswith(("dockerd ", "containerd "))]
    if not pids:
        return {}
    found = dict.fromkeys((name for name in MAY_GROW if name.endswith("of the daemon")), 0.0)
    for pid in pids:
        proc = Path(f"/proc/{pid}")
        status = dict(re.findall(r"^(\w+):\s+(\d+)", (proc / "status").read_text(), re.MULTILINE))
        found["descriptors of the daemon"] += len(list((proc / "fd").iterdir()))
        found["threads of the daemon"] += float(status["Threads"])
        found["KiB of the daemon"] += float(status["VmRSS"])
        found["mounts of the daemon"] += len((proc / "mountinfo").read_text().splitlines())
    kept = ("containers", "overlay2", "volumes", "image/overlay2/layerdb/mounts", "network/files")
    inside = Path(os.environ["DOCKER_HOST"].removeprefix("unix://")).parent / "data"
    found["directories of the daemon"] = sum(len(list((inside / name).glob("*"))) for name in kept)
    return found


def assert_none_grew(before: dict[str, float], after: dict[str, float], runs: int) -> None:
    grown = {name: after[name] - before[name] for name in before}
    print(f"after {runs} runs more: {grown}")
    limits = {name: noise + each * runs for name, (noise, each) in MAY_GROW.items()}
    assert all(grown[name] <= limits[name] for name in grown), f"{grown} in {runs} runs, of at most {limits}"


def test_lap_after_lap_passes_and_leaves_nothing(engine: str, left: Left, tmp_path: Path) -> None:
    files = [path for path in LAP[engine] if not lacking(path, engine)]
    temporary, results = tmp_path / "tmp", tmp_path / "results"
    temporary.mkdir()
    before: dict[str, float] = {}
    failed: list[str] = []  # all of them: a run of many hours that ends with the first one tells less
    runs = 0
    while runs < RUNS[engine]:
        words = ("--engine", engine, "--results", results, "--strict", "--jobs", "4")
        done = testbed("run", *files, *words, timeout_s=1200, TMPDIR=str(temporary))
        runs += len(files)
        if done.returncode != 0:
            kept = results.rename(tmp_path / f"failed-{runs}")
            failed.append(f"in the {len(files)} runs up to {runs}, kept in {kept}: {said(done)}")
            print(failed[-1], flush=True)
        await_gone(left, f"after {runs} runs")
        assert not list(temporary.iterdir())
        shutil.rmtree(results, ignore_errors=True)
        after = sizes(engine)
        print(f"after {runs} runs: {after}", flush=True)
        before = before or after  # what is made once, the first lap has made
    assert not failed, "\n".join(failed)
    assert_none_grew(before, after, runs - len(files))


# One process that runs one scenario after the other, and says after each what it has got.
RUNNER = """
import gc, json, os, re, sys, threading
from testbed.cli import cli
for _ in range(int(sys.argv[1])):
    try:
        cli.main(sys.argv[2:])
    except SystemExit as end:
        assert end.code == 0, end.code
    gc.collect()
    kib = int(re.search(r"VmRSS:\\s+(\\d+)", open("/proc/self/status").read())[1])
    with open(f"/proc/self/task/{os.getpid()}/children") as children:
        got = len(os.listdir("/proc/self/fd")), threading.active_count(), len(children.read().split()), kib
    print("got", json.dumps(got), flush=True)
"""


def test_a_process_that_runs_many_keeps_nothing_of_any(engine: str, left: Left, tmp_path: Path) -> None:
    words = ["run", str(SHORT), "--engine", engine, "--results", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, str(IN_ONE_COMMAND[engine]), *words],
        cwd=ROOT, env=clean_environment(), capture_output=True, text=True, timeout=1200,
    )  # fmt: skip
    assert done.returncode == 0, said(done)
    got = [json.loads(line.removeprefix("got")) for line in done.stdout.splitlines() if line.startswith("got")]
    assert len(got) == IN_ONE_COMMAND[engine]
    print(got)
    assert {tuple(one[:3]) for one in got} == {tuple(got[0][:3])}, f"descriptors, threads, children, KiB: {got}"
    settled = got[len(got) // 2][3]
    assert got[-1][3] - settled < 5000 + 20 * len(got), f"KiB: {[one[3] for one in got]}"
    assert left() == []
