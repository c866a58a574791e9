"""Pipes, pairs of sockets and named points, between real processes of one machine."""

from __future__ import annotations

import os
import signal
import socket
import threading
from pathlib import Path

import pytest

from testbed.programs import unix
from tests.unit.test_programs_cli import finish, run, start


def test_a_pipe_carries_one_way() -> None:
    assert run("pipe", "anonymous") == (0, [{"forward": "carried", "backward": "EBADF"}], "")


def test_a_named_pipe_carries_one_way_and_its_name_goes(tmp_path: Path) -> None:
    assert run("pipe", "named", str(tmp_path / "p")) == (0, [{"forward": "carried", "backward": "EBADF"}], "")
    assert list(tmp_path.iterdir()) == []


def test_a_pair_of_sockets_carries_both_ways() -> None:
    assert run("pipe", "socketpair") == (0, [{"forward": "carried", "backward": "carried"}], "")


def test_a_named_pipe_is_not_put_over_something_else(tmp_path: Path) -> None:
    (tmp_path / "p").write_text("mine")
    status, records, err = run("pipe", "named", str(tmp_path / "p"))
    assert (status, records) == (1, [{}, {"error": "EEXIST"}])
    assert err.startswith("pipe named: using a pipe or socket pair (named): EEXIST")
    assert (tmp_path / "p").read_text() == "mine"


def test_programs_meet_at_a_name_and_it_goes_with_the_server(tmp_path: Path) -> None:
    path, here = tmp_path / "meet.sock", os.uname().nodename
    with start("unix", "serve", str(path)) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "READY\n"
        assert run("unix", "meet", str(path)) == (0, [{"met": here, "remote": str(path)}], "")
        assert run("unix", "meet", str(path))[0] == 0
        server.send_signal(signal.SIGTERM)
        assert finish(server) == (0, [{"met": here}, {"met": here}, {"connections": 2, "errors": 0}], "")
    assert not path.exists()


@pytest.mark.parametrize(("left_behind", "error"), [(False, "ENOENT"), (True, "ECONNREFUSED")])
def test_a_name_that_nobody_has_and_one_that_somebody_left(tmp_path: Path, left_behind: bool, error: str) -> None:
    path = tmp_path / "meet.sock"
    if left_behind:
        with socket.socket(socket.AF_UNIX) as gone:
            gone.bind(str(path))
    status, records, err = run("unix", "meet", str(path))
    assert (status, records) == (1, [{"error": error}])
    assert err.startswith(f"unix meet: connecting to {path}: {error}")


def test_a_name_that_is_taken_is_not_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "meet.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        status, records, _ = run("unix", "serve", str(path))
        assert (status, records) == (1, [{"connections": 0, "errors": 0}, {"error": "EADDRINUSE"}])
        assert path.exists()


def test_a_client_that_leaves_without_a_word_does_not_end_the_server(tmp_path: Path) -> None:
    path, here = tmp_path / "meet.sock", os.uname().nodename
    with start("unix", "serve", str(path)) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "READY\n"
        with socket.socket(socket.AF_UNIX) as silent:
            silent.connect(str(path))
            silent.shutdown(socket.SHUT_WR)
            silent.recv(100)
        assert run("unix", "meet", str(path))[0] == 0
        server.send_signal(signal.SIGTERM)
        said = [{"met": here}, {"error": "EOF"}, {"connections": 2, "errors": 1}]
        assert finish(server) == (0, said, "")


def test_a_client_stays_until_the_server_has_booked_it(tmp_path: Path) -> None:
    path = tmp_path / "meet.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        client = threading.Thread(target=unix.meet, args=(str(path), []))
        client.start()
        connection, _ = listener.accept()
        with connection:
            connection.sendall(b"here\n")
            client.join(0.1)
            assert client.is_alive()
            connection.recv(100)
        client.join(30)
        assert not client.is_alive()


def test_a_peer_that_says_nothing_is_eof(tmp_path: Path) -> None:
    path = tmp_path / "meet.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with start("unix", "meet", str(path)) as client:
            connection, _ = listener.accept()
            connection.recv(1)
            connection.recv(100)
            connection.close()
            status, records, _ = finish(client)
    assert (status, records) == (1, [{"error": "EOF"}])
