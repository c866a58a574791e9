"""Records over real AF_UNIX sockets, SCTP against a socket made up here, and what the kernel says of families."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from testbed.programs import sctp, seqpacket
from testbed.programs._errors import Failed
from testbed.programs._life import Terminated
from testbed.programs._records import IN_FLIGHT, Book
from testbed.programs.sctp import ASSOC_CHANGE, COMM_LOST, COMM_UP, MSG_NOTIFICATION, SCTP_ASSOC_CHANGE
from testbed.programs.seqpacket_client import send
from testbed.programs.seqpacket_server import Echo

SIZES = [1, 101, 4000]


@contextmanager
def echoing(
    buffer_bytes: int, kind: socket.SocketKind = socket.SOCK_SEQPACKET
) -> Iterator[tuple[socket.socket, Echo]]:
    """A client connected to an echo server that serves this one client."""
    client, connection = socket.socketpair(socket.AF_UNIX, kind)
    echo = Echo()
    thread = threading.Thread(target=lambda: (echo._talk(connection, buffer_bytes), connection.close()))
    thread.start()
    try:
        yield client, echo
    finally:
        client.close()
        thread.join()


def summary(book: Book) -> dict[str, Any]:
    return list(book.records())[-1]


def test_every_record_comes_back_as_one_in_order_and_both_ends_see_the_end_of_file() -> None:
    book = Book(SIZES, 30)
    with echoing(4000) as (client, echo):
        send(client, book)
    assert summary(book) == {
        "end_of_file": "yes",
        "sent": 30,
        "received": 30,
        "intact": 30,
        "shortened": 0,
        "corrupted": 0,
        "whole": "yes",
    }
    assert (echo.counts["received"], echo.counts["truncated"], echo.counts["ended"]) == (30, 0, 1)
    assert echo.counts["payload_bytes"] == 10 * (1 + 101 + 4000)


def test_what_does_not_fit_is_cut_off_and_the_next_receive_is_the_next_record() -> None:
    book = Book(SIZES, 30)
    with echoing(100) as (client, echo):
        send(client, book)
    assert (book.intact, book.shortened, book.corrupted) == (10, 20, 0)
    assert (echo.counts["received"], echo.counts["truncated"]) == (30, 20)
    assert echo.counts["payload_bytes"] == 10 * (1 + 100 + 100)
    assert summary(book)["whole"] == "no"


def test_over_a_stream_nothing_is_cut_off_and_borders_are_lost() -> None:
    book = Book([101], 1)
    client, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with client, peer:
        peer.sendall(book.record(0) + b"the next")  # one read, as a stream may do it
        peer.shutdown(socket.SHUT_WR)
        with pytest.raises(Failed, match="of 1 records, 0 came back"):
            send(client, book)
    assert (book.intact, book.shortened, book.corrupted) == (0, 0, 1)


def test_records_in_another_order_are_corrupted() -> None:
    book = Book([10], 3)
    for n in (0, 2, 1):
        book.arrived(book.record(n))
    assert (book.intact, book.shortened, book.corrupted) == (1, 0, 2)
    with pytest.raises(Failed, match="of 3 records, 1 came back"):
        book.conclude()


def test_a_peer_that_closes_early_is_an_error() -> None:
    client, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    book = Book([10], 9)
    with client:
        peer.shutdown(socket.SHUT_WR)
        with peer, pytest.raises(Failed) as problem:
            send(client, book)
    assert problem.value.name == "EOF"
    assert (book.sent, book.received) == (IN_FLIGHT, 0)


def test_a_client_that_breaks_off_does_not_stop_the_server() -> None:
    class Listener:
        """Two connections: the first breaks, the second closes. Then SIGTERM."""

        def __init__(self) -> None:
            broken, gone = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            gone.send(b"x")
            gone.close()  # the answer has nowhere to go
            closed, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            other.close()
            self.waiting = [broken, closed]

        def accept(self) -> tuple[socket.socket, None]:
            if not self.waiting:
                raise Terminated
            return self.waiting.pop(0), None

    echo = Echo()
    with pytest.raises(Terminated):
        echo.serve(Listener(), 100)  # type: ignore[arg-type]
    assert list(echo.records()) == [
        {"connections": 2, "received": 1, "payload_bytes": 1, "truncated": 0, "ended": 1, "errors": 1}
    ]


def test_a_path_that_nobody_bound_and_one_that_nobody_listens_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "s")
    assert seqpacket.main(["send", path, "--count", "1", "--sizes", "1B"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out.splitlines()[-1]) == {"error": "ENOENT"}
    assert "no server has bound that path" in err
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as bound:
        bound.bind(path)
        assert seqpacket.main(["send", path, "--count", "1", "--sizes", "1B"]) == 1
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {"error": "ECONNREFUSED"}


@pytest.mark.parametrize("sizes", ["0B", "1B,", "17KiB", "1"])
def test_sizes_that_are_none(sizes: str, capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.suppress(SystemExit):
        seqpacket.main(["send", "/nowhere", "--count", "1", "--sizes", sizes])
    assert "--sizes" in capsys.readouterr().err


# ---------------------------------------------------------------- where


def test_unix_has_it_and_tcp_refuses_it() -> None:
    (answers,) = seqpacket.where(socket.SOCK_SEQPACKET)
    assert (answers["unix"], answers["unix_type"], answers["tcp"]) == ("offered", "seqpacket", "refused")
    assert answers["tcp_error"] in ("EPROTONOSUPPORT", "ESOCKTNOSUPPORT")
    assert answers["sctp"] in ("offered", "refused")
    (answers,) = seqpacket.where(socket.SOCK_STREAM)
    assert (answers["unix"], answers["tcp"]) == ("offered", "offered")
    assert (answers["unix_type"], answers["tcp_type"]) == ("stream", "stream")


# ---------------------------------------------------------------- sctp


def change(state: int) -> tuple[bytes, int]:
    return ASSOC_CHANGE.pack(SCTP_ASSOC_CHANGE, 0, 20, state, 0, 10, 10, 4), MSG_NOTIFICATION | socket.MSG_EOR


END = socket.MSG_EOR
ALWAYS_READY = os.open("/dev/zero", os.O_RDWR)
A, B = ("198.18.0.3", 1), ("198.18.0.4", 2)


class Script:
    """A one-to-many socket: (bytes, flags, peer) to be received, one after the other. Then SIGTERM."""

    def __init__(self, *received: tuple[bytes, int, Any]) -> None:
        self.received = list(received)
        self.sent: list[tuple[bytes, Any]] = []

    def fileno(self) -> int:
        """To be waited for: there is something to read, and room to write, at any time."""
        return ALWAYS_READY

    def listen(self) -> None: ...

    def recvmsg(self, size: int, _ancillary: int = 0, _flags: int = 0) -> tuple[bytes, list[Any], int, Any]:
        if not self.received:
            raise Terminated
        data, flags, peer = self.received.pop(0)
        assert len(data) <= size
        return data, [], flags, peer

    def sendto(self, data: bytes, peer: Any) -> None:
        if peer == ("gone", 3):
            raise OSError(errno.EPIPE, "Broken pipe")
        self.sent.append((data, peer))


def test_one_socket_serves_all_peers_and_puts_the_pieces_of_each_together() -> None:
    sock = Script(
        (*change(COMM_UP), A),
        (b"a" * 20, 0, A),
        (*change(COMM_UP), B),
        (b"b", END, B),  # in the middle of the other one's record
        (b"aa", END, A),
        (*change(COMM_UP), ("gone", 3)),
        (b"c", END, ("gone", 3)),
        (*change(COMM_LOST), ("gone", 3)),
        (b"d", END, A),
    )
    echo = sctp.Echo()
    with pytest.raises(Terminated):
        echo.serve(sock, 1)  # type: ignore[arg-type]  # a notification fits all the same
    assert sock.sent == [(b"b", B), (b"a" * 22, A), (b"d", A)]
    assert list(echo.records()) == [
        {"received": 4, "payload_bytes": 25, "peers": 3, "associations": 3, "pieces": 1, "errors": 1}
    ]


def test_a_client_sends_without_connecting_and_compares() -> None:
    book = Book([30, 2, 25], 3)
    sock = Script(
        (*change(COMM_UP), A),
        (book.record(0)[:25], 0, A),
        (book.record(0)[25:], END, A),
        (book.record(1), END, A),
        (book.record(2), END, A),
    )
    sctp.send(sock, A, book, 25)  # type: ignore[arg-type]
    assert sock.sent == [(book.record(n), A) for n in range(3)]
    assert summary(book)["whole"] == "yes"
    assert summary(book)["pieces"] == 1


@pytest.mark.parametrize(
    ("state", "name"),
    [(COMM_LOST, "ECONNRESET"), (sctp.SHUTDOWN_COMP, "ECONNRESET"), (sctp.CANT_STR_ASSOC, "ECONNREFUSED")],
)
def test_a_client_whose_association_is_gone_does_not_wait_for_more(state: int, name: str) -> None:
    with pytest.raises(Failed) as problem:
        sctp.send(Script((*change(state), A)), A, Book([1], 1), 100)  # type: ignore[arg-type]
    assert problem.value.name == name


def test_a_kernel_without_sctp_is_unsupported_and_not_a_failure_of_the_program(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: int) -> None:
        raise OSError(errno.EPROTONOSUPPORT, "Protocol not supported")

    monkeypatch.setattr(sctp.socket, "socket", refuse)
    assert sctp.main(["echo", "--port", "9000"]) == 1
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert records[0] == {"unsupported": "no SCTP here"}
    assert records[-1] == {"error": "EPROTONOSUPPORT"}
