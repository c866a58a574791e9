"""A program whose own timer runs out because the wire is late has not failed: nobody knows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

from tests.command import start
from tests.conftest import missing, processes_below
from tests.docker_daemon import daemon_processes

ASKS = """import socket, sys, time
s = socket.socket(2, 2); s.connect((sys.argv[1], 9000)); s.settimeout(0.1)
print('ASKING', flush=True)
end = time.monotonic() + 4
while time.monotonic() < end:
    s.send(b'x'); s.recv(9); time.sleep(0.01)
"""
TEXT = f"""testbed: 1
about: A client that waits for an answer for 100 ms and no longer.
hosts:
  server: {{serve: datagram echo --port 9000}}
  client: {{run: [python3, -c, {json.dumps(ASKS)}, server]}}
links: {{client <-> server: {{delay: 5 ms}}}}
expect: [client.stderr does not contain Error, "client->server.dropped == 0"]
"""


def test_a_timer_that_ran_out_over_a_late_wire_is_inconclusive(engine: str, tmp_path: Path) -> None:
    if engine == "docker" and not daemon_processes(os.environ["DOCKER_HOST"]):
        missing("docker", "whose wires these are can be seen of a private daemon only")
    (tmp_path / "late.yaml").write_text(TEXT)
    process = start("run", tmp_path / "late.yaml", "--engine", engine, "--results", tmp_path)
    asked = tmp_path / "late" / "latest" / "programs" / "client.client.stdout"
    while not (asked.exists() and b"ASKING" in asked.read_bytes()):
        assert process.poll() is None, said_by(process)
        time.sleep(0.01)
    for wire in wires(engine, process.pid):
        os.kill(wire, signal.SIGSTOP)
        time.sleep(0.5)
        os.kill(wire, signal.SIGCONT)
    shown = said_by(process)
    assert process.returncode == 5, shown
    verdicts = json.loads((tmp_path / "late" / "latest" / "verdicts.json").read_text())["verdicts"]
    ended = {verdict["text"].split()[0]: verdict for verdict in verdicts}
    assert ended["client.client"]["outcome"] == ended["client.stderr"]["outcome"] == "inconclusive"
    assert "a timer may have run out" in ended["client.client"]["reason"]
    assert ended["client->server.dropped"]["outcome"] == "pass"


def said_by(process: subprocess.Popen[str]) -> str:
    return "".join(process.communicate(timeout=60))


def wires(engine: str, pid: int) -> list[int]:
    """Those of a run: among the processes that it has started, at any remove, or among those of its daemon."""
    below = processes_below(pid) if engine == "namespaces" else daemon_processes(os.environ["DOCKER_HOST"])
    found = [one for one, line in below.items() if "agent import wire" in line]
    assert found, below
    return found
