"""What a datagram is: its boundaries, its size, its destination, its source; over real sockets on loopback."""

from __future__ import annotations

import hashlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from testbed.programs.message import main
from testbed.programs.message_receiver import Messages, Receiver
from testbed.programs.message_sender import Sender

SECOND = 10**9


@contextmanager
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two UDP sockets on loopback, bound and not connected."""
    kind = (socket.AF_INET, socket.SOCK_DGRAM)
    with socket.socket(*kind) as one, socket.socket(*kind) as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        yield one, other


def nobody() -> tuple[str, int]:
    """An address at which nobody listens."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()  # type: ignore[no-any-return]


def summary(book: Receiver | Sender) -> dict[str, Any]:
    return list(book.records())[-1]


def received(buffer_bytes: int, *sizes: int) -> Receiver:
    """What a receiver with that buffer books of zeros of these sizes."""
    receiver = Receiver(buffer_bytes)
    with pair() as (source, target):
        for size in sizes:
            source.sendto(bytes(size), target.getsockname())
            receiver.receive(target)
    return receiver


# ---------------------------------------------------------------- boundaries


def test_the_digest_is_over_size_and_content_of_each() -> None:
    messages = Messages()
    messages.add(b"ab")
    messages.add(b"")
    assert messages.sizes == [2, 0]
    assert messages.digest() == hashlib.sha256(struct.pack("!I2sI", 2, b"ab", 0)).hexdigest()


def test_the_same_bytes_with_a_boundary_elsewhere_have_another_digest() -> None:
    found = set()
    for parts in ((b"ab", b"c"), (b"a", b"bc"), (b"abc",), (b"abc", b""), (b"c", b"ab")):
        messages = Messages()
        for part in parts:
            messages.add(part)
        found.add(messages.digest())
    assert len(found) == 5


def test_one_receive_is_one_datagram_also_an_empty_one() -> None:
    receiver = received(65535, 0, 7, 65507, 1)
    assert receiver.messages.sizes == [0, 7, 65507, 1]
    assert (summary(receiver)["received"], summary(receiver)["truncated"], summary(receiver)["peers"]) == (4, 0, 1)


def test_what_does_not_fit_is_gone_and_counted_and_the_next_one_is_the_next() -> None:
    receiver = received(10, 9, 10, 11, 5000, 3)
    assert receiver.messages.sizes == [9, 10, 10, 10, 3]
    assert (summary(receiver)["truncated"], summary(receiver)["payload_bytes"]) == (2, 42)


# ---------------------------------------------------------------- sending


def test_one_socket_sends_to_two_and_hears_both() -> None:
    sender = Sender()
    with pair() as (one, other), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for target in (one, other, one):
            sender.send(sock, b"question", target.getsockname())
            data, source = target.recvfrom(100)
            assert (data, source[1]) == (b"question", sock.getsockname()[1])
            target.sendto(b"answer", source)
        sender.hear_until(0, sock)
    result = summary(sender)
    assert (result["sent"], result["payload_bytes"], result["received"], result["peers"]) == (3, 24, 3, 2)


def test_what_is_too_large_is_refused_and_in_no_sum() -> None:
    sender = Sender()
    with pair() as (source, target):
        sender.send(source, bytes(65507), target.getsockname())
        sender.send(source, bytes(65508), target.getsockname())
    assert next(iter(sender.records())) == {"error": "EMSGSIZE"}
    result = summary(sender)
    assert (result["sent"], result["unsent"], result["payload_bytes"], result["errors"]) == (1, 1, 65507, 1)


def test_a_connected_socket_is_told_that_nobody_listens() -> None:
    sender = Sender()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect(nobody())
        sender.send(sock, b"anybody there?", None)
        sender.hear_until(time.monotonic_ns() + 10**8, sock)  # on loopback the ICMP error is there at once
        sender.send(sock, b"anybody there?", None)
        sender.send(sock, b"anybody there?", None)  # gets the error of the one before
    assert next(iter(sender.records())) == {"error": "ECONNREFUSED"}
    assert (summary(sender)["sent"], summary(sender)["unsent"], summary(sender)["errors"]) == (2, 1, 2)


def test_an_unconnected_socket_is_not() -> None:
    sender = Sender()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _ in range(3):
            sender.send(sock, b"anybody there?", nobody())
            sender.hear_until(0, sock)
    assert (summary(sender)["sent"], summary(sender)["unsent"], summary(sender)["errors"]) == (3, 0, 0)


def test_it_listens_until_its_time_and_not_only_to_the_first() -> None:
    sender = Sender()
    with pair() as (source, target):
        heard = threading.Event()

        def answer() -> None:
            target.sendto(b"first", source.getsockname())
            heard.wait()
            target.sendto(b"second", source.getsockname())

        thread = threading.Thread(target=answer)
        thread.start()
        while not sender.received:
            sender.hear_until(time.monotonic_ns() + SECOND // 100, source)
        heard.set()
        thread.join()
        sender.hear_until(0, source)
    assert summary(sender)["received"] == 2


# ---------------------------------------------------------------- the command


def test_every_message_goes_to_each_in_turn_and_all_of_them_as_often_as_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pair() as (one, other):
        to = [f"127.0.0.1:{sock.getsockname()[1]}" for sock in (one, other)]
        assert main(["send", *to, "--sizes", "3B,0B", "--count", "2", "--timeout", "0ms"]) == 0
        for sock in (one, other):
            assert [len(sock.recv(100)) for _ in range(4)] == [3, 0, 3, 0]
    assert '"sent": 8, "unsent": 0, "payload_bytes": 12' in capsys.readouterr().out


def test_the_port_to_send_from_can_be_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    _, free = nobody()
    with pair() as (target, _):
        to = f"127.0.0.1:{target.getsockname()[1]}"
        assert main(["send", to, "--port", str(free), "--bind", "127.0.0.1", "--timeout", "0ms"]) == 0
        assert target.recvfrom(100)[1] == ("127.0.0.1", free)


def test_without_fragments_nothing_larger_than_the_mtu_goes(capsys: pytest.CaptureFixture[str]) -> None:
    with pair() as (target, _), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.connect(target.getsockname())
        mtu = asking.getsockopt(socket.IPPROTO_IP, 14)  # IP_MTU, of loopback
        if mtu > 65535:
            pytest.skip(f"the MTU of loopback is {mtu}: no datagram is larger")
        to, sizes = f"127.0.0.1:{target.getsockname()[1]}", f"{mtu - 28}B,{mtu - 27}B"
        assert main(["send", to, "--sizes", sizes, "--dont-fragment", "--timeout", "0ms"]) == 0
    assert '"sent": 1, "unsent": 1' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("send", "required: HOST:PORT"),
        ("send a:1 b:1 --connect", "--connect takes one HOST:PORT"),
        ("send a:1 --sizes 1B,65536B", "has more than 65535B"),
        ("send a:1 --sizes 1B,2", "'2' is not a number with one of B kB"),
        ("receive", "required: --port"),
        ("receive --port 9 --buffer 0B", "'0B' holds nothing"),
        ("receive --port 9 --peer a", "'a' is not HOST:PORT"),
    ],
)
def test_wrong_arguments(words: str, complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(words.split())
    assert left.value.code == 2
    assert complaint in capsys.readouterr().err
