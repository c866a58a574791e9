"""How a run ends for its links: what was sent before arrives while servers live, however long a link takes."""

from __future__ import annotations

import json
import re
import signal
import time
from pathlib import Path

import pytest

from tests.command import ENGINES, said, start, testbed

SEND = (
    "import socket, sys; s = socket.socket(2, 2); [s.sendto(bytes(1000), (sys.argv[1], 9000)) for _ in range(100)]"
)
CHAT = """import socket, sys
s = socket.socket(2, 2); s.bind(('', 9000))
if sys.argv[1:]:
    for _ in range(20):
        s.sendto(b'x', (sys.argv[1], 9000))
while True:
    data, peer = s.recvfrom(9)
    s.sendto(data, peer)
"""
HEAD = "testbed: 1\nabout: The end of a run.\n"
UNDER_WAY = f"""{HEAD}
hosts:
  c: {{serve: datagram echo --port 9000}}
  r: {{run: [python3, -c, "{SEND}", c]}}
links: {{r -> c: {{delay: 200 ms}}}}
expect:
  - c.received == r->c.delivered
  - c.received == 100
  - r->c.sent == 100
"""
ANSWERED = UNDER_WAY.replace("links: {r -> c: {delay: 200 ms}}", "links: {c <-> r: {delay: 200 ms}}").replace(
    "  - r->c.sent == 100\n", "  - c->r.sent == 0\n  - c->r.dropped == 0\n"
)
SLOW = f"""{HEAD}
hosts:
  c: {{serve: datagram echo --port 9000}}
  r: {{run: [python3, -c, "{SEND}", c]}}
links: {{r -> c: {{rate: RATE, queue: 100 packets}}}}
expect: [c.received == 100, r->c.delivered >= 100, r->c.dropped == 0]
"""
MANY = f"""{HEAD}
hosts:
  server: {{serve: datagram echo --port 9000}}
  client: {{run: [python3, -c, "{SEND.replace("1000", "1200").replace("100)", "500)")}", server]}}
links: {{client -> server: {{rate: 1 Mbit/s, queue: 500 packets}}}}
expect: [server.received == 500, client->server.delivered >= 500, client->server.dropped == 0]
"""
FOR_EVER = f"""{HEAD}
hosts:
  a: {{serve: [python3, -c, {json.dumps(CHAT)}]}}
  b: {{serve: [python3, -c, {json.dumps(CHAT)}, a], after: a, ready: {{listens: udp 9000}}}}
  r: {{run: sleep 1}}
links: {{a <-> b: {{delay: 300 ms}}}}
expect:
  - a->b.sent == a->b.delivered
  - b->a.sent == b->a.delivered
  - a->b.delivered >= 20
  - sum of a->b.dropped == 0
"""


COUNT = """import socket
server = socket.create_server(('', 9000))
print('READY', flush=True)
connection, _ = server.accept()
got = 0
while data := connection.recv(65536):
    got += len(data)
print('{"got": %d}' % got, flush=True)
server.accept()
"""
POUR = "import socket; c = socket.create_connection(('s', 9000)); c.sendall(bytes(300_000))"
UNSENT = f"""{HEAD}
hosts:
  s: {{serve: [python3, -c, {json.dumps(COUNT)}]}}
  c: {{run: [python3, -c, "{POUR}"]}}
links: {{c -> s: {{rate: 1 Mbit/s, queue: 100 packets}}}}
expect: [s.got == 300000]
"""
SLEEPY = """import socket, time
s = socket.socket(2, 2); s.bind(('', 9000)); s.setsockopt(1, 8, 1 << 20)
time.sleep(0.7)
got = 0
while s.recv(2000):
    got += 1
    print('{"got": %d}' % got, flush=True)
"""
UNREAD = f"""{HEAD}
hosts:
  s: {{serve: [python3, -c, {json.dumps(SLEEPY)}]}}
  r: {{run: [python3, -c, "{SEND}", s]}}
expect: [s.got.count == 100]
"""
ACCEPTS_LATE = """import socket, time
server = socket.create_server(('', 9000))
for number in range(6):
    time.sleep(0.1)
    server.accept()[0].recv(100)
    print('{"got": %d}' % number, flush=True)
server.accept()
"""
CALL = "import socket; [socket.create_connection(('s', 9000)).send(b'x') for _ in range(6)]"
NOT_ACCEPTED = f"""{HEAD}
hosts:
  s: {{serve: [python3, -c, {json.dumps(ACCEPTS_LATE)}]}}
  c: {{run: [python3, -c, "{CALL}"]}}
expect: [s.got.count == 6]
"""
TAKE_ALL = """import socket
server = socket.create_server(('', 9000), backlog=100)
while True:
    with server.accept()[0] as connection:
        while connection.recv(65536):
            pass
"""
CALL_ON = """import random, socket, time
print('READY', flush=True)
while True:
    with socket.create_connection(('a', 9000)) as connection:
        connection.sendall(bytes(random.randrange(1, 20_000)))
    time.sleep(0.005)
"""
CALLING = f"""{HEAD}
hosts:
  a: {{serve: [python3, -c, {json.dumps(TAKE_ALL)}]}}
  b: {{serve: [python3, -c, {json.dumps(CALL_ON)}], after: a}}
  r: {{run: sleep 1}}
links: {{a <-> b: {{delay: 300 ms}}}}
expect: [b->a.delivered > 3]
"""
LAST = """import socket, subprocess, sys
subprocess.Popen(['sleep', '60'])
s = socket.socket(2, 2); s.bind(('', 9000))
s.recv(9)
sys.exit(7)
"""
DIES = f"""{HEAD}
hosts:
  s: {{serve: [python3, -c, {json.dumps(LAST)}]}}
  c: {{run: [python3, -c, "import socket; socket.socket(2, 2).sendto(b'x', ('s', 9000))"]}}
"""
ROUTED = f"""{HEAD}
networks: {{one: {{subnet: 198.18.1.0/24}}, two: {{subnet: 198.18.2.0/24}}}}
hosts:
  c: {{networks: {{two: {{address: 198.18.2.10}}}}, serve: datagram echo --port 9000}}
  way:
    networks: {{one: {{address: 198.18.1.9}}, two: {{address: 198.18.2.9}}}}
    sysctls: {{net.ipv4.ip_forward: 1}}
  r:
    networks: {{one: {{address: 198.18.1.10}}}}
    cap_add: [NET_ADMIN]
    environment: {{PROGRAM: "{SEND}"}}
    run: sh -c 'ip route add 198.18.2.0/24 via 198.18.1.9 && exec python3 -c "$$PROGRAM" 198.18.2.10'
links:
  r -> way over one: {{delay: 300 ms}}
  way -> c over two: {{rate: 200 kbit/s, queue: 100 packets}}
expect: [c.received == 100, way->c.delivered == 100]
"""
PASS_ON = """import socket
s = socket.socket(2, 2); s.bind(('', 9000)); s.setsockopt(1, 8, 1 << 20)
while True:
    s.sendto(s.recv(2000), ('c', 9000))
"""
RELAYED = f"""{HEAD}
hosts:
  c: {{serve: datagram echo --port 9000}}
  way: {{serve: [python3, -c, {json.dumps(PASS_ON)}]}}
  r: {{run: [python3, -c, "{SEND}", way]}}
links:
  r -> way: {{delay: 300 ms}}
  way -> c: {{delay: 300 ms}}
expect: [c.received == 100, way->c.delivered == 100]
"""


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    request.getfixturevalue("namespaces_work" if request.param == "namespaces" else "docker_daemon")
    return str(request.param)


def ran(text: str, engine: str, where: Path) -> tuple[str, str, dict[str, object]]:
    """The outcome, all that was said, and what is on record of the run."""
    (where / "end.yaml").write_text(text)
    done = testbed("run", where / "end.yaml", "--engine", engine, "--results", where)
    latest = where / "end" / "latest"
    assert (latest / "verdicts.json").exists(), said(done)
    run = json.loads((latest / "run.json").read_text())
    return json.loads((latest / "verdicts.json").read_text())["outcome"], said(done), run


@pytest.mark.parametrize("text", [UNDER_WAY, ANSWERED], ids=["to the server", "and back"])
def test_what_is_under_way_when_the_last_run_ends_finds_servers_alive(
    engine: str, text: str, tmp_path: Path
) -> None:
    outcome, shown, _ = ran(text, engine, tmp_path)
    assert outcome == "pass", shown


@pytest.mark.parametrize("text", [ROUTED, RELAYED], ids=["by a kernel", "by a server"])
def test_what_is_passed_on_at_the_end_finds_servers_alive_on_the_next_link(
    engine: str, text: str, tmp_path: Path
) -> None:
    outcome, shown, _ = ran(text, engine, tmp_path)
    assert outcome == "pass", shown


@pytest.mark.parametrize("text", [UNSENT, UNREAD, NOT_ACCEPTED], ids=["unsent", "unread", "not accepted"])
def test_what_kernels_hold_at_the_end_gets_to_servers_that_live(engine: str, text: str, tmp_path: Path) -> None:
    """A client that has closed its socket and ended has not sent all by then; a server may not have read it."""
    outcome, shown, _ = ran(text, engine, tmp_path)
    assert outcome == "pass", shown


def test_servers_that_talk_for_ever_prolong_nothing_and_lose_nothing(engine: str, tmp_path: Path) -> None:
    outcome, shown, run = ran(FOR_EVER, engine, tmp_path)
    assert outcome == "pass", shown
    ended_ns, stopping_ns = run["programs"]["r.r"]["ended_ns"], run["stopping_ns"]  # type: ignore[index]
    ledger = (tmp_path / "end" / "latest" / "ledger.jsonl").read_text()
    frames = [json.loads(line) for line in ledger.splitlines()]
    before, later = ([f for f in frames if (f["in_ns"] <= ended_ns) is early] for early in (True, False))
    assert all(f["sent_ns"] <= stopping_ns for f in before)
    assert any(f["sent_ns"] > stopping_ns for f in later), "they were not waited for"
    assert stopping_ns - ended_ns < 20e9  # type: ignore[operator]


def test_servers_that_close_connections_for_ever_are_not_waited_for(engine: str, tmp_path: Path) -> None:
    """At any moment some of theirs are closed and not sent to the end, never the same ones."""
    outcome, shown, run = ran(CALLING, engine, tmp_path)
    assert outcome == "pass", shown
    assert run["stopping_ns"] - run["programs"]["r.r"]["ended_ns"] < 20e9  # type: ignore[index,operator]


def test_a_serve_that_dies_of_the_last_packet_has_failed(engine: str, tmp_path: Path) -> None:
    """Also where others hold its output, as Docker then learns of its end two seconds later."""
    outcome, shown, run = ran(DIES, engine, tmp_path)
    assert outcome == "fail" and "s.s ended with status 7 after" in shown, shown
    program = run["programs"]["s.s"]  # type: ignore[index]
    assert not program["stopped"] and program["exit"] == 7


def test_a_run_that_leaves_somebody_behind_who_holds_its_output_has_ended_in_time(
    engine: str, tmp_path: Path
) -> None:
    text = f"{HEAD}hosts: {{a: {{run: sh -c 'sleep 60 & exit 0', timeout: 1 s}}}}"
    outcome, shown, _ = ran(text, engine, tmp_path)
    assert outcome == "pass", shown


def test_a_link_that_takes_longer_than_patience_gets_its_time_and_says_so(engine: str, tmp_path: Path) -> None:
    outcome, shown, run = ran(SLOW.replace("RATE", "160 kbit/s"), engine, tmp_path)  # 104,200 bytes: 5.2 s
    assert outcome == "pass", shown
    assert re.search(r"frames under way: \d+, the last one leaves in [345]\.\d s", shown), shown
    assert run["stopping_ns"] - run["programs"]["r.r"]["ended_ns"] >= 4.5e9  # type: ignore[index,operator]


def test_a_queue_that_takes_longer_than_patience_is_emptied_to_the_last(engine: str, tmp_path: Path) -> None:
    """500 datagrams at once: the wire is not said to have lost what it only had no time for."""
    outcome, shown, run = ran(MANY, engine, tmp_path)  # 621,000 bytes: 5.0 s
    assert outcome == "pass", shown
    assert run["stopping_ns"] - run["programs"]["client.client"]["ended_ns"] >= 4e9  # type: ignore[index,operator]


def test_who_does_not_want_to_wait_for_a_slow_link_can_leave(engine: str, tmp_path: Path) -> None:
    (tmp_path / "end.yaml").write_text(SLOW.replace("RATE", "8 kbit/s"))  # 104 s
    begun = time.monotonic()
    process = start("run", tmp_path / "end.yaml", "--engine", engine, "--results", tmp_path)
    assert process.stderr is not None
    for line in process.stderr:
        if "under way" in line:
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    assert time.monotonic() - begun < 90
    run = json.loads((tmp_path / "end" / "latest" / "run.json").read_text())
    assert run["error"] == "interrupted by SIGINT", run["error"]
