"""The commands as a shell starts them: arguments, readiness, SIGTERM, records and exit status."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from testbed.engines.launchers import launchers

ROOT = Path(__file__).parents[2]


def start(*words: str) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", f"testbed.programs.{words[0]}", *words[1:]]
    return subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(program: subprocess.Popen[str]) -> tuple[int, list[dict[str, Any]], str]:
    out, err = program.communicate(timeout=30)
    return program.returncode, [json.loads(line) for line in out.splitlines()], err


def run(*words: str) -> tuple[int, list[dict[str, Any]], str]:
    with start(*words) as program:
        return finish(program)


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


def test_probe_and_echo() -> None:
    with server("datagram", "echo") as (to, at_server):
        words = [
            "probe",
            to,
            "--count",
            "20",
            "--interval",
            "1ms",
            "--size",
            "100B",
            "--timeout",
            "200ms",
            "--id",
            "4",
        ]
        status, records, err = run("datagram", *words, "--bind", "127.0.0.1")
    *samples, summary = records
    assert (status, err) == (0, "")
    assert (summary["id"], summary["sent"], summary["received"], summary["lost"]) == (4, 20, 20, 0)
    assert [list(sample) for sample in samples] == [["round_trip_delay_ms"]] * 20
    assert at_server == [{"received": 20, "echoed": 20, "payload_bytes": 2000, "peers": 1, "errors": 0}]


def test_send_and_echo() -> None:
    with server("stream", "echo") as (to, at_server):
        status, records, err = run("stream", "send", to, "--count", "3", "--size", "100B", "--interval", "1ms")
        run("stream", "send", to, "--count", "1", "--size", "1B")
    assert (status, err, records[-1]["whole"]) == (0, "", "yes")
    assert at_server == [{"connections": 2, "payload_bytes": 301, "errors": 0}]


def test_bulk_and_sink() -> None:
    with server("stream", "sink") as (to, at_server):
        status, records, err = run("stream", "bulk", to, "--bytes", "300kB")
    assert (status, err, records[-1]["whole"]) == (0, "", "yes")
    assert at_server == [{"connections": 1, "payload_bytes": 300_000, "errors": 0}]


def test_a_server_that_is_stopped_in_the_middle_of_a_conversation_writes_what_it_has() -> None:
    with server("stream", "echo") as (to, at_server):
        host, port = to.split(":")
        client = socket.create_connection((host, int(port)))
        client.sendall(b"hello")
        assert client.recv(5, socket.MSG_WAITALL) == b"hello"
    client.close()
    assert at_server == [{"connections": 1, "payload_bytes": 5, "errors": 0}]


def test_a_probe_that_is_stopped_writes_what_it_has() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        words = ["probe", f"127.0.0.1:{peer.getsockname()[1]}", "--count", "9", "--interval", "1h"]
        with start("datagram", *words) as program:
            data, client = peer.recvfrom(100)
            peer.sendto(data, client)
            assert program.stdout is not None
            program.send_signal(signal.SIGTERM)
            status, records, err = finish(program)
    assert (status, err) == (0, "")
    assert records[-1]["sent"] == 1
    assert records[-1]["lost"] + records[-1]["received"] == 1


def test_a_client_that_is_stopped_while_it_waits_writes_what_it_has() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        words = ["send", f"127.0.0.1:{listener.getsockname()[1]}", "--count", "2", "--size", "3B"]
        with start("stream", *words) as program:
            connection, _ = listener.accept()
            with connection:
                assert len(connection.recv(3, socket.MSG_WAITALL)) == 3
                program.send_signal(signal.SIGTERM)
                status, records, err = finish(program)
    assert (status, err) == (0, "")
    assert (records[-1]["received"], records[-1]["whole"]) == (0, "no")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("datagram", "required: echo|probe"),
        ("datagram talk", "invalid choice: 'talk'"),
        ("datagram echo", "required: --port"),
        ("datagram echo --port x", "'x' is not a port"),
        ("datagram probe server:9 --interval 1ms", "required: --count"),
        ("datagram probe server --count 1 --interval 1ms", "'server' is not HOST:PORT"),
        ("datagram probe server:9 --count 1 --interval 1", "'1' is not a number with one of ns us ms s min h"),
        ("datagram probe server:9 --count -1 --interval 1ms", "'-1' is not a whole number"),
        ("datagram probe server:9 --count 1 --interval 1ms --size 15B", "'15B' is not from 16B to 65507B"),
        ("datagram probe server:9 --count 1 --interval 1ms --size 65508B", "is not from 16B to 65507B"),
        (
            "datagram probe server:9 --count 1 --interval 1ms --size 64KB",
            "'64KB' is not a number with one of B kB",
        ),
        ("ports", "required: bind|serve|ask"),
        ("ports bind sctp --port 9", "invalid choice: 'sctp'"),
        ("ports serve --shared", "required: --port"),
        ("ports ask server:9", "required: --count"),
        ("stream", "required: echo|send|sink|bulk"),
        ("stream send server:9 --count 1", "required: --size"),
        ("stream send server:9 --count 1 --size 0B", "'0B' is not from 1B to 65536B"),
        ("stream send server:9 --count 1 --size 1B --timeout 0s", "'0s' leaves no time at all"),
        ("stream send server:9 --count 1 --size 1B --user-timeout 1500us", "not a whole number of ms"),
        ("pieces send server:9 --count 1 --size 0B", "'0B' is not from 1B to 1MiB"),
        ("abort serve --port 9", "required: --after"),
        ("life serve --port 9 --fault other", "invalid choice: 'other'"),
        ("pipe named", "required: PATH"),
        ("unix meet", "required: PATH"),
        ("stream bulk server:9 --bytes 10", "'10' is not a number with one of B kB MB GB KiB MiB GiB"),
    ],
)
def test_wrong_arguments_are_2_and_say_what_is_wrong(words: str, complaint: str) -> None:
    status, records, err = run(*words.split())
    assert (status, records) == (2, [])
    assert complaint in err.splitlines()[-1]


def test_a_port_that_is_taken_is_1() -> None:
    for module, kind in (("datagram", socket.SOCK_DGRAM), ("stream", socket.SOCK_STREAM)):
        with socket.socket(socket.AF_INET, kind) as taken:
            taken.bind(("127.0.0.1", 0))
            if kind == socket.SOCK_STREAM:
                taken.listen()
            port = taken.getsockname()[1]
            status, records, err = run(module, "echo", "--bind", "127.0.0.1", "--port", str(port))
        assert (status, records[-1]) == (1, {"error": "EADDRINUSE"})
        assert err == (
            f"{module} echo: binding 127.0.0.1 port {port}: EADDRINUSE: Address already in use "
            "(another program has this port)\n"
        )


@pytest.mark.parametrize(
    ("option", "error"),
    [("--bind=192.0.2.1", "EADDRNOTAVAIL"), ("--device=nosuch0", "ENODEV")],
)
def test_an_address_or_a_device_that_is_not_here_is_1(option: str, error: str) -> None:
    words = ["probe", "127.0.0.1:9", "--count", "1", "--interval", "1ms", option]
    status, records, err = run("datagram", *words)
    assert (status, records[-1]) == (1, {"error": error})
    assert err.startswith("datagram probe: binding ")
    assert error in err and err.count("\n") == 1


def test_a_device_can_be_chosen() -> None:
    with server("datagram", "echo") as (to, at_server):
        words = ["probe", to, "--count", "2", "--interval", "1ms", "--timeout", "200ms", "--device", "lo"]
        _, records, _ = run("datagram", *words)
    assert records[-1]["received"] == 2
    assert at_server[-1]["echoed"] == 2


def test_ipv6() -> None:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("no IPv6 loopback on this machine")
    with start("datagram", "echo", "--bind", "::1", "--port", "0") as program:
        assert program.stderr is not None and program.stdout is not None
        port = program.stderr.readline().split()[-1]
        program.stdout.readline()
        words = ["probe", f"[::1]:{port}", "--count", "3", "--interval", "1ms", "--timeout", "100ms"]
        _, records, _ = run("datagram", *words)
        program.send_signal(signal.SIGTERM)
        finish(program)
    assert records[-1]["received"] == 3


def test_the_programs_need_the_standard_library_alone() -> None:
    """-S leaves site-packages away, -I the environment: as in a host."""
    programs = [f"testbed.programs.{name}" for name in sorted(launchers(ROOT / "testbed/programs", "python3"))]
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        f"import {', '.join(programs)}\n"
        "print(*sorted(name for name in sys.modules if name.split('.')[0] == 'testbed'))"
    )
    done = subprocess.run([sys.executable, "-IS", "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert set(programs) <= set(loaded)
    assert all(f"{name}.".startswith("testbed.programs.") for name in loaded if name != "testbed")
