"""docs/programs/: the sessions run as they stand there, the tables name every record and no other."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.engines.launchers import launchers
from testbed.programs import (
    datagram_client,
    datagram_server,
    group,
    ports,
    sctp,
    seqpacket,
    seqpacket_server,
    stream_server,
)
from testbed.programs._records import Book
from testbed.programs.message_receiver import Receiver
from testbed.programs.message_sender import Sender
from testbed.programs.stream_client import Send

ROOT = Path(__file__).parents[2]
PAGES = {path.stem: path.read_text() for path in sorted((ROOT / "docs/programs").glob("*.md"))}
SESSIONS = [
    pytest.param(session, id=name)
    for name, text in PAGES.items()
    for session in re.findall(r"```console\n(.*?)```", text, re.DOTALL)
]
PYTHON = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def free_port(kind: socket.SocketKind) -> str:
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.1", 0))
        return str(sock.getsockname()[1])


def steps(session: str) -> list[tuple[str, list[str]]]:
    """(command, the lines it printed), in order."""
    parts = re.split(r"^\$ ", session, flags=re.MULTILINE)
    return [(lines[0], lines[1:]) for part in parts if part and (lines := part.splitlines())]


def shape(line: str) -> str:
    """A line without its measured numbers; counts stay."""
    line = re.sub(r'("(?:\w+_(?:ms|s)|goodput_bit_s|retransmits|local_port)": )[0-9.e-]+', r"\1…", line)
    line = re.sub(r"(127\.0\.0\.1:)(?:3[2-9]|[45][0-9]|60)[0-9]{3}\b", r"\1…", line)  # ports that the kernel picks
    return re.sub(r'("(?:congestion|met)": )"[^"]+"', r"\1…", line)


@pytest.fixture
def short_directory() -> Iterator[str]:
    """A path of its own for a UNIX socket, which has room for 107 bytes: pytest's own paths may be longer."""
    with tempfile.TemporaryDirectory(prefix="testbed-", dir="/tmp") as path:
        yield path


@pytest.mark.parametrize("session", SESSIONS)
def test_a_session_by_hand_runs_as_it_stands_in_the_text(session: str, short_directory: str) -> None:
    if "nc " in session and not shutil.which("nc"):
        pytest.skip("nc is not installed here: apt install netcat-openbsd")
    session = session.replace("9000", free_port(socket.SOCK_DGRAM)).replace("9001", free_port(socket.SOCK_STREAM))
    session = session.replace("/tmp/", f"{short_directory}/")
    server = None
    try:
        for command, printed in steps(session):
            if command.endswith(" &"):
                argv = command.removesuffix(" &").split()
                pipe = subprocess.PIPE
                server = subprocess.Popen(argv, cwd=ROOT, env=PYTHON, stdout=pipe, stderr=pipe, text=True)
                assert server.stdout is not None
                out = [server.stdout.readline().rstrip()]
            elif command == "kill %1":
                assert server is not None
                server.send_signal(signal.SIGTERM)
                out = server.communicate(timeout=30)[0].splitlines()
                assert server.returncode == 0
            else:
                argv = ["sh", "-c", command]
                done = subprocess.run(argv, cwd=ROOT, env=PYTHON, capture_output=True, text=True, timeout=30)
                assert (done.returncode, done.stderr) == (0, "")
                out = done.stdout.splitlines()
            assert [shape(line) for line in out] == [shape(line) for line in printed]
    finally:
        if server is not None:
            server.kill()
            server.communicate()


def documented(heading: str) -> set[str]:
    """The keys in the first column of the table that is headed `record`, in that section."""
    text = PAGES[heading.split()[0]]
    section = re.split(r"^##+ ", text.split(f"\n## {heading}\n")[1], flags=re.MULTILINE)[0]
    rows = re.findall(r"^\| (`[^|]*) \|", section.split("| record |")[1], re.MULTILINE)
    return {key for row in rows for key in re.findall(r"`(\w+)`", row)}


def keys(records: object) -> set[str]:
    return {key for record in records for key in record}  # type: ignore[attr-defined]


def test_the_tables_name_every_record_and_no_other() -> None:
    echo = datagram_server.Echo()
    echo.errors["EPERM"] += 1
    assert documented("datagram echo") == keys(echo.records())

    probe = datagram_client.Probe(0, 64)
    probe.sent_ns = {0: 0, 1: 0}
    probe.arrived(probe.datagram(0, 0), 1)
    probe.errors["EPERM"] += 1
    assert documented("datagram probe") == keys(probe.records())

    assert documented("group receive") == keys(group.Receiver().records())
    speaker = group.Sender()
    speaker.errors["EPERM"] += 1
    assert documented("group send") == keys(speaker.records())

    receiver = Receiver(1)
    receiver.messages.add(b"")
    assert documented("message receive") == keys(receiver.records())
    sender = Sender()
    sender.errors["EPERM"] += 1
    assert documented("message send") == keys(sender.records())
    server_on_two = ports.Server()
    server_on_two.received = {9000: 1, 9001: 2}
    assert documented("ports serve") == keys(server_on_two.records()) | {"error"}
    ask = ports.Ask()
    ask.local_ports = [40000]
    assert documented("ports ask") == keys(ask.records()) | {"error"}
    bind = ports.Bind()
    bind.port = 9000
    assert documented("ports bind") == keys(bind.records()) | {"error"}

    server = stream_server.Server(stream_server.echo)
    server.conversations = [stream_server.Conversation(1, "ECONNRESET")]
    assert documented("stream echo, stream sink") == keys(server.records())

    of_all_clients = {"connect_time_ms", "retransmits", "congestion"}
    assert documented("stream send") == keys(Send().records()) | of_all_clients | {"round_trip_delay_ms"}
    printed = next(line for line in PAGES["stream"].splitlines() if "goodput_bit_s" in line and line[0] == "{")
    assert documented("stream bulk") == set(json.loads(printed))

    book = Book([1], 1)
    assert documented("seqpacket echo") == keys(seqpacket_server.Echo().records())
    assert documented("seqpacket send") == keys(book.records()) | {"end_of_file"}
    refusals = {f"{family}_error" for family in seqpacket.FAMILIES}
    types = {f"{family}_type" for family in seqpacket.FAMILIES}
    assert documented("seqpacket where") == {*seqpacket.FAMILIES, *types, *refusals}
    assert documented("sctp echo") == keys(sctp.Echo().records())
    assert documented("sctp send") == keys(book.records()) | {"pieces"}


def test_every_command_has_its_page_and_its_row_in_the_overview() -> None:
    commands = launchers(ROOT / "testbed/programs", "python3").keys()
    assert set(PAGES) == set(commands)
    rows = re.findall(r"^\| \[(\w+)\]\(programs/(\w+)\.md\) \|", (ROOT / "docs/programs.md").read_text(), re.M)
    assert rows == [(name, name) for name in sorted(commands)]
