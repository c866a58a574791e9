"""The kernel's tables of sockets, and many connections to one port, on loopback."""

from __future__ import annotations

import signal
import socket
import sys
from pathlib import Path

import pytest

from testbed.programs import sockets
from testbed.programs._errors import Failed
from testbed.programs.sockets import Socket, records, table, until
from tests.unit.test_programs_cli import finish, run, server, start
from tests.unit.test_programs_docs import documented, keys

TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 020012C6:2328 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 020012C6:2328 030012C6:9C40 01 00000000:00000000 00:00000000 00000000     0        0 2 1 0 20 4 30 10 -1
   2: 020012C6:2328 030012C6:9C41 0C 00000000:00000000 00:00000000 00000000     0        0 0 1 0 20 4 30 10 -1
"""
ROWS = [
    Socket(("198.18.0.2", 9000), ("0.0.0.0", 0), "LISTEN"),
    Socket(("198.18.0.2", 9000), ("198.18.0.3", 40000), "ESTABLISHED"),
    Socket(("198.18.0.2", 9000), ("198.18.0.3", 40001), "SYN-RECEIVED"),
]


@pytest.mark.skipif(sys.byteorder != "little", reason="the table was written on a little-endian machine")
def test_a_table_is_read() -> None:
    assert table(TABLE) == ROWS


@pytest.mark.skipif(sys.byteorder != "little", reason="the line was written on a little-endian machine")
def test_a_row_of_ipv6_is_read() -> None:
    row = "0: 02000120000000000000000001000000:0050 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 1\n"
    assert table("header\n" + row) == [Socket(("2001:2::1", 80), ("::", 0), "LISTEN")]


def test_records_say_each_socket_and_how_many() -> None:
    *each, last = records(ROWS)
    assert each[1] == {"local": "198.18.0.2:9000", "remote": "198.18.0.3:40000", "state": "ESTABLISHED"}
    assert last == {"sockets": 3, "listening": 1, "established": 1, "local_ports": 1, "pairs": 1}
    assert documented("sockets tcp, sockets udp, sockets raw") == keys(records(ROWS))


def test_a_real_connection_is_in_the_table_at_both_its_ends() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client, listener.accept()[0]:
            found = until(2, 10**10, "tcp", port)
            mine = ("127.0.0.1", client.getsockname()[1])
    there = ("127.0.0.1", port)
    assert Socket(mine, there, "ESTABLISHED") in found and Socket(there, mine, "ESTABLISHED") in found
    assert Socket(there, ("0.0.0.0", 0), "LISTEN") in found


def test_waiting_for_what_does_not_come_ends(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="waiting for 1000 connected sockets: there are "):
        until(1000, 10**6, "udp", None)


def test_a_kernel_without_ipv6_has_one_table(tmp_path: Path) -> None:
    (tmp_path / "tcp").write_text(TABLE)
    assert len(sockets.sockets("tcp", 9000, tmp_path)) == 3
    assert sockets.sockets("tcp", 40000, tmp_path)[0].connected
    assert sockets.sockets("tcp", 22, tmp_path) == []


def test_connections_are_held_until_sigterm_and_seen_by_the_command() -> None:
    with (
        server("stream", "sink") as (address, _),
        start("connections", "open", address, "--count", "3") as program,
    ):
        assert program.stdout is not None and program.stdout.readline() == "READY\n"
        port = address.rpartition(":")[2]
        status, found, _ = run("sockets", "tcp", "--port", port, "--until", "6")
        program.send_signal(signal.SIGTERM)
        ended, held, _ = finish(program)
    assert (status, ended) == (0, 0)
    assert held[-1] == {"connections": 3, "local_ports": 3}
    assert found[-1] == {"sockets": 7, "listening": 1, "established": 6, "local_ports": 4, "pairs": 6}
    assert {row["local"] for row in held[:-1]} <= {row["remote"] for row in found[:-1]}
    assert documented("connections open") == keys(held)


def test_a_connection_that_is_refused_ends_it_with_what_stands() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        status, said, err = run("connections", "open", address, "--count", "2")
    assert status == 1 and said == [{"connections": 0, "local_ports": 0}, {"error": "ECONNREFUSED"}]
    assert "nothing listens there" in err
