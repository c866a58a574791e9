"""Units, addresses, errors in words, and the life of a program from its arguments to its exit status."""

from __future__ import annotations

import argparse
import errno
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.programs import _cli, _errors, _life, _sending, _serving, datagram, group, message

ROOT = Path(__file__).parents[2]
IMPORTS = (
    "import os, signal, sys, time\n"
    "from testbed.programs._errors import Failed\n"
    "from testbed.programs._life import run\n"
    "from testbed.programs._serving import say_ready, uninterrupted\n"
)


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("0ms", 0),
        ("1ns", 1),
        ("1us", 1_000),
        ("1ms", 1_000_000),
        ("1 ms", 1_000_000),
        ("1.5ms", 1_500_000),
        ("0.1s", 100_000_000),
        ("2min", 120_000_000_000),
        ("1h", 3_600_000_000_000),
    ],
)
def test_a_time_is_read_exactly(text: str, ns: int) -> None:
    assert _cli.time_ns(text) == ns


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0B", 0),
        ("100B", 100),
        ("1kB", 1_000),
        ("1KiB", 1_024),
        ("10MB", 10_000_000),
        ("0.5MiB", 524_288),
        ("1GB", 10**9),
        ("1GiB", 2**30),
    ],
)
def test_a_size_is_read_exactly(text: str, size: int) -> None:
    assert _cli.size_bytes(text) == size


@pytest.mark.parametrize(
    "text", ["", "1", "ms", "-1ms", "1e3ms", "1msec", "1m", "1MS", "1,5ms", "1  ms", "٣ms", "0.5ns"]
)
def test_a_wrong_time_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        _cli.time_ns(text)


@pytest.mark.parametrize("text", ["", "1", "KB", "1KB", "1K", "1M", "1mb", "1kb", "0.3B", "1bit"])
def test_a_wrong_size_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        _cli.size_bytes(text)


def test_a_number_without_unit_is_refused_with_an_example() -> None:
    with pytest.raises(
        argparse.ArgumentTypeError, match=r"'5' is not a number with one of ns us ms s min h, as in 5ms"
    ):
        _cli.time_ns("5")


@given(st.integers(0, 10**15))
def test_every_whole_number_of_nanoseconds_survives_each_unit(ns: int) -> None:
    assert _cli.time_ns(f"{ns}ns") == ns
    whole, rest = divmod(ns, 10**6)
    assert _cli.time_ns(f"{whole}.{rest:06}ms") == ns


@pytest.mark.parametrize(
    ("text", "to"),
    [
        ("server:9000", ("server", 9000)),
        ("198.18.0.2:1", ("198.18.0.2", 1)),
        ("[2001:2::1]:65535", ("2001:2::1", 65535)),
    ],
)
def test_host_and_port(text: str, to: tuple[str, int]) -> None:
    assert _cli.host_and_port(text) == to


@pytest.mark.parametrize(
    "text", ["server", "server:", ":9000", "server:0", "server:65536", "server:http", "2001:2::1:90"]
)
def test_a_wrong_host_and_port_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        _cli.host_and_port(text)


@pytest.mark.parametrize("text", ["-1", "65536", "http", "", "1.0"])
def test_a_wrong_port_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        _cli.port(text)


@pytest.mark.parametrize("text", ["-1", "1.5", "", "1_000", str(2**32)])
def test_a_wrong_number_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        _cli.number(text)


def test_patterns_of_256_numbers_in_a_row_differ_and_have_their_length() -> None:
    assert len({_sending.pattern(n, 8) for n in range(256)}) == 256
    assert len(_sending.pattern(255, 65_536)) == 65_536
    assert _sending.pattern(3, 4) == bytes([3, 4, 5, 6])


def test_an_error_says_what_was_done_what_came_back_and_what_to_try() -> None:
    with pytest.raises(_errors.Failed) as failed, _errors.doing("connecting to server port 9"):
        raise ConnectionRefusedError(111, "Connection refused")
    assert failed.value.name == "ECONNREFUSED"
    assert (
        str(failed.value)
        == "connecting to server port 9: ECONNREFUSED: Connection refused (nothing listens there)"
    )


@pytest.mark.parametrize(
    ("problem", "name"),
    [
        (TimeoutError("timed out"), "ETIMEDOUT"),
        (TimeoutError(110, "Connection timed out"), "ETIMEDOUT"),
        (socket.gaierror(socket.EAI_NONAME, "not known"), "EAI_NONAME"),
        (OSError(101, "Network is unreachable"), "ENETUNREACH"),
        (EOFError("closed"), "EOF"),
        (OSError("no number"), "EIO"),
    ],
)
def test_errors_go_by_their_symbols(problem: OSError | EOFError, name: str) -> None:
    assert _errors.error_name(problem) == name


def _python(code: str) -> subprocess.Popen[str]:
    """A program of its own, made with `run`: it sets a handler of SIGTERM, and these tests keep theirs."""
    text = f"{IMPORTS}{code}\n"
    return subprocess.Popen(
        [sys.executable, "-c", text], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_run_writes_the_records_and_exits_0_when_the_work_is_done() -> None:
    with _python("sys.exit(run('it', lambda: None, lambda: [{'a': 1}, {'b_ms': 0.5}]))") as program:
        out, err = program.communicate(timeout=30)
    assert [json.loads(line) for line in out.splitlines()] == [{"a": 1}, {"b_ms": 0.5}]
    assert (program.returncode, err) == (0, "")


def test_run_writes_the_records_and_the_error_and_exits_1_when_the_work_failed() -> None:
    code = "def work(): raise Failed('ENETUNREACH', 'no way there')\nsys.exit(run('it', work, lambda: [{'a': 1}]))"
    with _python(code) as program:
        out, err = program.communicate(timeout=30)
    assert [json.loads(line) for line in out.splitlines()] == [{"a": 1}, {"error": "ENETUNREACH"}]
    assert (program.returncode, err) == (1, "it: no way there\n")


def test_sigterm_ends_the_work_and_not_the_writing_of_the_records() -> None:
    code = (
        "def records():\n    os.kill(os.getpid(), signal.SIGTERM)\n    yield {'a': 1}\n"
        "def work():\n    say_ready()\n    time.sleep(60)\n"
        "sys.exit(run('it', work, records))"
    )
    with _python(code) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "READY\n"
        program.send_signal(signal.SIGTERM)
        out, err = program.communicate(timeout=30)
    assert (program.returncode, out, err) == (0, '{"a": 1}\n', "")


def test_sigterm_that_python_notes_just_before_a_system_call_ends_it_all_the_same() -> None:
    """`interrupt_main` is that moment, held still: the signal is noted, and interrupts no call."""
    code = (
        "import _thread, socket, threading\n"
        "listener = socket.create_server(('127.0.0.1', 0))\n"
        "def asleep():\n    return 'S' in open(f'/proc/{os.getpid()}/stat').read().rpartition(')')[2].split()[0]\n"
        "def interrupt():\n"
        "    while not asleep():\n        time.sleep(0.01)\n"
        "    _thread.interrupt_main(signal.SIGTERM)\n"
        "def work():\n    threading.Thread(target=interrupt, daemon=True).start()\n    listener.accept()\n"
        "sys.exit(run('it', work, lambda: [{'a': 1}]))"
    )
    with _python(code) as program:
        try:
            out, err = program.communicate(timeout=30)
        finally:
            program.kill()
    assert (program.returncode, out, err) == (0, '{"a": 1}\n', "")


def test_sigterm_waits_while_something_must_not_be_interrupted() -> None:
    code = (
        "booked = []\n"
        "def work():\n"
        "    with uninterrupted():\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n        booked.append({'a': 1})\n"
        "    booked.append({'b': 2})\n"
        "sys.exit(run('it', work, lambda: booked))"
    )
    with _python(code) as program:
        out, err = program.communicate(timeout=30)
    assert (program.returncode, out, err) == (0, '{"a": 1}\n', "")


@pytest.mark.parametrize(
    ("main", "mode"), [(message.main, "receive"), (group.main, "receive"), (datagram.main, "echo")]
)
def test_what_is_in_the_socket_at_sigterm_is_booked(
    main: Callable[[list[str]], int],
    mode: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(("127.0.0.1", 0))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", 0))
            address = free.getsockname()

        def send_and_stop() -> None:
            for _ in range(3):
                sender.sendto(b"abc", address)  # on loopback, it is there when the call returns
            signal.raise_signal(signal.SIGTERM)

        monkeypatch.setattr(_serving, "say_ready", send_and_stop)
        before = signal.getsignal(signal.SIGTERM)
        try:
            assert main([mode, "--bind", address[0], "--port", str(address[1])]) == 0
        finally:
            signal.signal(signal.SIGTERM, before)
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (summary["received"], summary["peers"]) == (3, 1)


def _terminate() -> None:
    raise _life.Terminated


def test_an_error_of_the_socket_after_sigterm_is_told_like_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    def receive() -> None:
        raise OSError(errno.ENETDOWN, "Network is down")

    monkeypatch.setattr(_serving, "say_ready", _terminate)
    with socket.socket() as sock, pytest.raises(_errors.Failed, match="receiving: ENETDOWN: Network is down"):
        _serving.receive_until_sigterm(sock, receive)


def test_a_socket_that_never_gets_empty_does_not_hold_a_receiver_that_is_to_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    booked: list[int] = []
    monkeypatch.setattr(_serving, "say_ready", _terminate)
    with socket.socket() as sock, pytest.raises(_life.Terminated):
        _serving.receive_until_sigterm(sock, lambda: booked.append(1))
    assert len(booked) == _serving.MOST_WAITING


def test_a_reader_that_has_gone_is_no_traceback() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    text = "from testbed.programs._life import run; raise SystemExit(run('it', lambda: None, lambda: [{'a': 1}]))"
    done = subprocess.run(
        [sys.executable, "-c", text], cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=30
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("number", [errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT])
def test_a_kind_of_socket_that_the_kernel_lacks_is_unsupported(
    number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        with _errors.opening("a packet socket", "packet sockets"):
            raise OSError(number, os.strerror(number))

    before = signal.getsignal(signal.SIGTERM)
    assert _life.run("it", work, lambda: [{"a": 1}]) == 1
    signal.signal(signal.SIGTERM, before)
    out, err = capsys.readouterr()
    name = errno.errorcode[number]
    said = [{"unsupported": "no packet sockets here"}, {"a": 1}, {"error": name}]
    assert [json.loads(line) for line in out.splitlines()] == said
    assert err.startswith(f"it: opening a packet socket: {name}: ")


def test_a_socket_that_is_not_for_everybody_is_an_error() -> None:
    refused = pytest.raises(_errors.Failed, match="opening a packet socket: EPERM: ")
    with refused as failed, _errors.opening("a packet socket", "packet sockets"):
        raise PermissionError(errno.EPERM, "not permitted")
    assert not isinstance(failed.value, _errors.Unsupported)


@pytest.mark.parametrize(
    ("argv", "lack"),
    [
        (["frames", "watch"], "no packet sockets here"),
        (["raw", "send", "::1", "--protocol", "253", "--count", "1"], "no raw IPv6 sockets here"),
        (["icmp", "echo-request", "127.0.0.1", "--count", "1"], "no raw IPv4 sockets here"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_program_says_what_its_kernel_lacks(argv: list[str], lack: str) -> None:
    code = (
        "import errno, socket, sys\n"
        "def refuse(*_):\n    raise OSError(errno.EAFNOSUPPORT, 'Address family not supported by protocol')\n"
        "socket.socket = refuse\n"
        f"from testbed.programs import {argv[0]}\n"
        f"sys.exit({argv[0]}.main({argv[1:]!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout.splitlines()[0]) == (1, json.dumps({"unsupported": lack})), done.stderr
