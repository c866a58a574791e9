"""A program whose own timer runs out because the wire is late has not failed: nobody knows."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

from tests.command import start

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


def test_a_timer_that_ran_out_over_a_late_wire_is_inconclusive(namespaces_work: None, tmp_path: Path) -> None:
    (tmp_path / "late.yaml").write_text(TEXT)
    process = start("run", tmp_path / "late.yaml", "--engine", "namespaces", "--results", tmp_path)
    asked = tmp_path / "late" / "latest" / "programs" / "client.client.stdout"
    while not (asked.exists() and b"ASKING" in asked.read_bytes()):
        assert process.poll() is None
        time.sleep(0.01)
    for wire in wires_below(process.pid):
        os.kill(wire, signal.SIGSTOP)
        time.sleep(0.5)
        os.kill(wire, signal.SIGCONT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 5, out + err
    verdicts = json.loads((tmp_path / "late" / "latest" / "verdicts.json").read_text())["verdicts"]
    ended = {verdict["text"].split()[0]: verdict for verdict in verdicts}
    assert ended["client.client"]["outcome"] == ended["client.stderr"]["outcome"] == "inconclusive"
    assert "a timer may have run out" in ended["client.client"]["reason"]
    assert ended["client->server.dropped"]["outcome"] == "pass"


def wires_below(pid: int) -> list[int]:
    """The wires among the processes that this one has started, at any remove."""
    found, below = [], [pid]
    while below:
        one = below.pop()
        children = [int(word) for task in Path(f"/proc/{one}/task").iterdir() for word in _children(task)]
        below += children
        found += [child for child in children if b"agent import wire" in _command(child)]
    assert found
    return found


def _children(task: Path) -> list[str]:
    return (task / "children").read_text().split()


def _command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()
