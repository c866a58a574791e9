"""Who hears a broadcast or a multicast, and who does not, over real sockets on loopback."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest

from testbed.programs._errors import Failed
from testbed.programs.group import Receiver, Sender, main, receiving_socket

GROUP, ANOTHER, EVERYBODY = "239.1.2.3", "239.9.9.9", "127.255.255.255"


@contextmanager
def sockets(*wanted: tuple[str, str | None]) -> Iterator[tuple[int, list[socket.socket]]]:
    """A free port, and on it a receiving socket for each (address, group) on loopback."""
    with ExitStack() as stack:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        yield port, [stack.enter_context(receiving_socket(bind, port, group, "lo")) for bind, group in wanted]


def waiting(sock: socket.socket, expected: int) -> int:
    """How many datagrams it has got, when it was given the time for those that it should get."""
    sock.settimeout(10)
    for _ in range(expected):  # a busy kernel may deliver them after `sendto` has returned, also on loopback
        sock.recv(100)
    sock.setblocking(False)
    count = expected
    with suppress(BlockingIOError):
        while sock.recv(100):
            count += 1
    return count


def send(to: str, count: int, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["send", to, "--count", str(count), "--device", "lo", "--wait", "0ms"]) == 0
    summary: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return summary


def test_a_multicast_is_heard_by_every_member_and_by_nobody_else_on_its_host(
    capsys: pytest.CaptureFixture[str],
) -> None:
    wanted = (("0.0.0.0", GROUP), ("0.0.0.0", GROUP), ("0.0.0.0", ANOTHER), ("0.0.0.0", None))
    with sockets(*wanted) as (port, open_now):
        assert send(f"{GROUP}:{port}", 3, capsys) == {"sent": 3, "errors": 0}
        expected = [3, 3, 0, 0]
        assert [waiting(*each) for each in zip(open_now, expected, strict=True)] == expected


def test_a_broadcast_is_heard_by_every_socket_that_is_bound_to_no_single_address(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with sockets(("0.0.0.0", None), ("0.0.0.0", GROUP), ("127.0.0.1", None)) as (port, open_now):
        assert send(f"{EVERYBODY}:{port}", 2, capsys) == {"sent": 2, "errors": 0}
        expected = [2, 2, 0]
        assert [waiting(*each) for each in zip(open_now, expected, strict=True)] == expected


def test_a_broadcast_without_permission_is_an_error_by_name_and_not_sent() -> None:
    sender = Sender()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sender.send(sock, (EVERYBODY, 9), count=2, interval_ns=0)
    assert list(sender.records()) == [{"error": "EACCES"}, {"sent": 0, "errors": 2}]


def test_the_reach_of_a_multicast_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    monkeypatch.setattr(
        Sender, "send", lambda _, sock, *__: found.append(sock.getsockopt(0, socket.IP_MULTICAST_TTL))
    )
    assert main(["send", f"{GROUP}:9", "--ttl", "7", "--wait", "0ms"]) == 0
    assert main(["send", f"{GROUP}:9", "--wait", "0ms"]) == 0
    assert found == [7, 1]


def test_the_receiver_counts_what_came_and_from_how_many() -> None:
    receiver = Receiver()
    with sockets(("0.0.0.0", None)) as (port, (sock,)), ExitStack() as stack:
        for _ in range(2):
            source = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            for data in (b"", b"x"):
                source.sendto(data, ("127.0.0.1", port))
                receiver.receive(sock)
    assert list(receiver.records()) == [{"received": 4, "peers": 2}]


def test_an_interface_that_is_not_here() -> None:
    with pytest.raises(Failed, match=f"joining {GROUP}: ENODEV"):
        receiving_socket("0.0.0.0", 0, GROUP, "nosuch0")


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("receive --port 9 --join 198.18.0.1", "'198.18.0.1' is no multicast address"),
        ("receive --port 9 --join some", "'some' is no multicast address"),
        ("send 239.1.2.3:9 --ttl 256", "'256' is not from 0 to 255"),
    ],
)
def test_wrong_arguments(words: str, complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(words.split())
    assert left.value.code == 2
    assert complaint in capsys.readouterr().err
