"""What a run costs beside its traffic: the command, its hosts, its proof and its verdicts."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.figures import Figure, Row, alternately, seconds
from benchmarks.labs import processes, resident_bytes

MB = 1e6
IMPORTS = "import testbed.cli, testbed.runner, testbed.expect.static, testbed.judge, testbed.scenario.api"


def run(engine: str, most_s: float) -> Iterator[Row]:
    """`testbed run udp-loss`, less the time of its programs."""
    own, imports = alternately(3, lambda: _own_s(engine), _imports_s)
    yield Figure(f"{engine}: a run, less its traffic", own, "s", most=most_s)
    yield Figure(f"{engine}: a run, less its traffic", own, "s", "Python and its imports", imports)


def _own_s(engine: str) -> float:
    with tempfile.TemporaryDirectory(prefix="bench") as directory:
        argv = [sys.executable, "-m", "testbed", "run", "udp-loss", "--engine", engine, "--results", directory]
        whole_s = seconds(lambda: subprocess.run(argv, capture_output=True, check=True))
        (file,) = Path(directory).glob("udp-loss/latest/run.json")
        programs = json.loads(file.read_text())["programs"].values()
        traffic = [program for program in programs if program["kind"] == "run"]
        began_ns = min(program["started_ns"] for program in traffic)
        return whole_s - float(max(program["ended_ns"] for program in traffic) - began_ns) / 1e9


def _imports_s() -> float:
    return seconds(lambda: subprocess.run([sys.executable, "-c", IMPORTS], check=True))


def memory(quick: bool) -> Iterator[Row]:
    """Of the orchestrator and of the agent, at their largest."""
    hosts = 10 if quick else 100
    text = (
        "testbed: 1\nabout: Many hosts that do little.\n"
        f"hosts: {{h: {{count: {hosts}, run: sleep 1}}}}\nlinks: {{lan: {{delay: 10 ms}}}}\n"
    )
    with tempfile.TemporaryDirectory(prefix="bench") as directory:
        file = Path(directory) / "many.yaml"
        file.write_text(text)
        argv = [sys.executable, "-m", "testbed", "run", str(file), "--engine", "namespaces"]
        argv += ["--results", directory]
        most: dict[str, int] = {"orchestrator": 0, "agent": 0}
        output = Path(directory) / "output"  # a file never fills up, as a pipe does
        with output.open("wb") as out, subprocess.Popen(argv, stdout=out, stderr=out) as process:
            while process.poll() is None:
                agents = {pid: "agent" for pid, line in processes().items() if "testbed.agent.__main__" in line}
                for pid, who in (agents | {process.pid: "orchestrator"}).items():
                    most[who] = max(most[who], _resident(pid))
                time.sleep(0.02)
        if process.returncode != 0:
            raise RuntimeError(f"{' '.join(argv)}: {process.returncode}\n{output.read_text()}")
    yield Figure(f"memory of orchestrator and agent, {hosts} hosts", sum(most.values()) / MB, "MB", most=150)


def _resident(pid: int) -> int:
    try:
        return resident_bytes(pid)
    except (OSError, StopIteration):
        return 0
