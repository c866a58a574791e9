"""The commands `spp` and `idp` as a shell starts them, on loopback; their books; and that they need NET_RAW."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from testbed.programs import _serving, idp
from testbed.programs._sending import pattern
from testbed.programs.ns.connection import Connection
from testbed.programs.ns.packets import Idp
from testbed.programs.ns.sockets import IdpSocket, SequencedPacketSocket
from testbed.programs.spp_client import Send
from testbed.programs.spp_server import Conversation, Echo
from tests.conftest import missing
from tests.unit.test_programs_cli import ROOT, finish, run, start
from tests.unit.test_programs_docs import documented, keys


@pytest.fixture
def raw_sockets() -> None:
    try:
        IdpSocket().close()
    except PermissionError:
        missing("raw sockets", "they need the capability NET_RAW")


@contextmanager
def server(*words: str) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """HOST:PORT of a server that is ready, and a list that holds its records once it was told to stop."""
    records: list[dict[str, Any]] = []
    with start(*words, "--port", "0", "--bind", "127.0.0.1") as program:
        assert program.stdout is not None and program.stderr is not None
        bound = re.fullmatch(r"port ([0-9]+)\n", program.stderr.readline())
        assert bound
        assert program.stdout.readline() == "READY\n"
        try:
            yield f"127.0.0.1:{bound[1]}", records
        finally:
            program.send_signal(signal.SIGTERM)
            status, lines, err = finish(program)
        assert (status, err) == (0, "")
        records += lines


def types(records: list[dict[str, Any]], key: str = "datastream_type") -> list[int]:
    return [record[key] for record in records if key in record]


def digest(sizes: list[int]) -> str:
    """As the documentation says: each record with its length, eight bytes, before it."""
    records = [pattern(n, size) for n, size in enumerate(sizes)]
    return hashlib.sha256(b"".join(len(r).to_bytes(8, "big") + r for r in records)).hexdigest()


def test_records_come_back_and_both_ends_have_one_digest(raw_sockets: None) -> None:
    with server("spp", "echo") as (to, at_server):
        status, records, err = run("spp", "send", to, "--count", "5", "--sizes", "0B,534B,20kB")
    summary, there = records[-1], at_server[-1]
    assert (status, err, summary["whole"]) == (0, "", "yes")
    assert (summary["sent"], summary["received"], summary["corrupted"]) == (5, 5, 0)
    assert (there["connections"], there["received"], there["payload_bytes"]) == (1, 5, 534 * 2 + 20_000)
    assert [r["sha256"] for r in at_server if "sha256" in r] == [summary["sha256"]]
    assert summary["sha256"] == digest([0, 534, 20_000, 0, 534])


def test_types_by_default_header_by_prototype_and_by_none(raw_sockets: None) -> None:
    common = ("--count", "3", "--sizes", "1B,600B")  # packets: 1, 2, 1
    with server("spp", "echo") as (to, at_server):
        _, silent, _ = run("spp", "send", to, *common)
        _, standing, _ = run("spp", "send", to, *common, "--default-type", "7")
        _, written, _ = run("spp", "send", to, *common, "--write-types", "1,2", "--read-headers", "--attention")
    assert (types(silent), types(standing), types(written)) == ([0, 0, 0], [7, 7, 7], [1, 2, 2, 1])
    assert types(at_server) == [0] * 4 + [7] * 4 + [1, 2, 2, 1, 0]
    assert at_server[-1]["attentions"] == 1


def test_a_plain_server_has_no_headers(raw_sockets: None) -> None:
    with server("spp", "echo", "--plain") as (to, at_server):
        status, records, _ = run("spp", "send", to, "--count", "2", "--sizes", "600B", "--default-type", "7")
    assert (status, types(records), types(at_server)) == (0, [0, 0], [])
    assert at_server[-1]["received"] == 2


def test_a_server_that_keeps_no_boundaries_is_found_out(raw_sockets: None) -> None:
    with server("spp", "echo", "--ignore-end-of-message") as (to, _):
        status, records, err = run("spp", "send", to, "--count", "3", "--sizes", "1B,600B")
    assert status == 1
    assert err == "spp send: record 1 came back as 534 bytes that are not its 600\n"
    assert (records[-1], records[-2]["received"], records[-2]["whole"]) == ({"error": "EBADMSG"}, 1, "no")


def test_where_nobody_listens_is_1(raw_sockets: None) -> None:
    words = ("--count", "1", "--sizes", "1B", "--timeout", "50ms")
    status, records, err = run("spp", "send", "127.0.0.1:9", *words)
    assert (status, records[-1]) == (1, {"error": "ETIMEDOUT"})
    assert err.startswith("spp send: talking to 127.0.0.1 socket 9: ETIMEDOUT")


def test_datagrams_with_written_headers(raw_sockets: None) -> None:
    words = ("--write-types", "20,21", "--transport-control", "3", "--read-headers")
    with server("idp", "echo") as (to, at_server):
        status, records, err = run("idp", "send", to, "--count", "3", "--size", "9B", *words)
        run("idp", "send", to, "--count", "1", "--default-type", "33")
    assert (status, err, records[-1]) == (0, "", {"sent": 3, "received": 3, "corrupted": 0, "lost": 0})
    assert types(records, "packet_type") == [20, 21, 20]
    assert types(records, "transport_control") == [3, 3, 3]
    assert types(at_server, "packet_type") == [20, 21, 20, 33]
    assert types(at_server, "transport_control") == [3, 3, 3, 0]
    assert at_server[-1] == {"received": 4, "payload_bytes": 3 * 9 + 64}


def test_a_plain_server_of_datagrams_has_no_headers(raw_sockets: None) -> None:
    with server("idp", "echo", "--plain") as (to, at_server):
        _, records, _ = run("idp", "send", to, "--count", "2", "--default-type", "33", "--read-headers")
    assert types(records, "packet_type") == [0, 0]
    assert at_server == [{"received": 2, "payload_bytes": 128}]


@pytest.mark.parametrize("plain", [[], ["--plain"]])
def test_datagrams_that_are_in_the_socket_at_sigterm_are_booked(
    plain: list[str], raw_sockets: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with IdpSocket() as client:
        client.bind(("127.0.0.1", 0))
        port = client.getsockname()[1] + 1

        def send_and_stop() -> None:
            for _ in range(3):
                client.sendto(b"abc", ("127.0.0.1", port))
            client.raw.settimeout(10)
            for _ in range(3):  # it gets a copy of each: so the server has got its own by now
                client.raw.recv(1 << 16)
            signal.raise_signal(signal.SIGTERM)

        monkeypatch.setattr(_serving, "say_ready", send_and_stop)
        before = signal.getsignal(signal.SIGTERM)
        try:
            assert idp.main(["echo", "--bind", "127.0.0.1", "--port", str(port), *plain]) == 0
        finally:
            signal.signal(signal.SIGTERM, before)
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"received": 3, "payload_bytes": 9}


def test_a_datagram_that_is_not_answered_is_lost(raw_sockets: None) -> None:
    status, records, _ = run("idp", "send", "127.0.0.1:9", "--count", "2", "--timeout", "10ms")
    assert (status, records) == (0, [{"sent": 2, "received": 0, "corrupted": 0, "lost": 2}])


@pytest.mark.parametrize("words", ["spp echo --port 5", "idp echo --port 5", "spp send x:5 --count 1 --sizes 1B"])
def test_without_the_capability_it_is_eperm_and_1(words: str) -> None:
    code = f"import sys; from testbed.programs.{words.split()[0]} import main; sys.exit(main(sys.argv[1:]))"
    argv = [sys.executable, "-c", code, *words.split()[1:]]
    if os.geteuid() == 0:  # of no capability, without another user, who might not be able to read this Python
        argv = ["setpriv", "--bounding-set", "-net_raw", "--inh-caps", "-net_raw", *argv]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == '{"error": "EPERM"}'
    assert "it needs the capability NET_RAW): EPERM: Operation not permitted" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("spp", "required: echo|send"),
        ("spp send h:1 --count 1", "required: --sizes"),
        ("spp send h:1 --count 0 --sizes 1B", "0 is none at all"),
        ("spp send h:1 --count 1 --sizes 65KiB", "has more than 65536B"),
        ("spp send h:1 --count 1 --sizes 1B --default-type 254", "254 and 255 close a connection"),
        ("spp send h:1 --count 1 --sizes 1B --default-type 1 --write-types 1", "not allowed with"),
        (
            "spp send h:1 --count 1 --sizes 535B --ahead 9",
            "--ahead 9 records of 2 packets are more than the window",
        ),
        ("spp send h:1 --count 1 --sizes 1B --retransmit 0ms", "'0ms' is no time at all"),
        ("idp send h:1 --count 1 --size 547B", "'547B' is more than 546B"),
        ("idp send h:1 --count 1 --write-types 20,5", "packets of type 5 are SPP's"),
        ("idp send h:1 --count 1 --transport-control 256", "'256' is not from 0 to 255"),
    ],
)
def test_wrong_arguments_are_2_and_say_what_is_wrong(words: str, complaint: str) -> None:
    status, records, err = run(*words.split())
    assert (status, records) == (2, [])
    assert complaint in err.splitlines()[-1]


def test_the_tables_name_every_record_and_no_other() -> None:
    echo = Echo()
    conversation = Conversation(SequencedPacketSocket.__new__(SequencedPacketSocket), types=[0], error="EPERM")
    conversation.sock.core = Connection(1, 1)
    conversation.sock.idp = IdpSocket.__new__(IdpSocket)
    conversation.sock.idp.sent = 1
    echo.conversations = [conversation]
    assert documented("spp echo") == keys(echo.records())
    send = Send()
    send.sock = conversation.sock
    send.samples = [{"datastream_type": 0}]
    assert documented("spp send") == keys(send.records()) | {"connect_time_ms", "error"}

    datagrams = idp.Echo()
    datagrams.headers.seen.append(Idp())
    assert documented("idp echo") == keys(datagrams.records())
    client = idp.Send()
    client.headers.seen.append(Idp())
    assert documented("idp send") == keys(client.records()) | {"error"}
