"""What servers do: say READY, and take one connection or one datagram after the other until SIGTERM."""

from __future__ import annotations

import select
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from testbed.programs._errors import doing

MOST_WAITING = 1 << 16  # more packets than wait in any socket; one that never gets empty must not hold us
Connection = TypeVar("Connection")


def say_ready() -> None:
    """The line that whoever starts a server waits for."""
    print("READY", flush=True)


def accepted(accept: Callable[[], tuple[Connection, Any]]) -> Iterator[Connection]:
    """READY, then one connection after another; `accept` is that method of a listening socket. Raises Failed."""
    say_ready()
    while True:
        with doing("accepting a connection"):
            connection, _ = accept()
        yield connection


@contextmanager
def uninterrupted() -> Iterator[None]:
    """SIGTERM that comes during the body takes effect after it: what was received gets booked.

    In a program with no other thread that takes it: the kernel gives a signal to any that does not block it.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def receive_until_sigterm(sock: socket.socket, receive: Callable[[], object], late: bool = False) -> None:
    """READY, then `receive` whenever something is there; after SIGTERM, what is still in the socket.

    `receive` takes one datagram or packet with MSG_DONTWAIT, and books it. `late`: nothing before SIGTERM. So who
    stops a receiver when all is delivered finds all of it booked. Never returns. Raises Terminated and Failed.
    """
    try:
        say_ready()
        while True:
            select.select([] if late else [sock], [], [])
            with uninterrupted(), doing("receiving"), suppress(BlockingIOError):  # select(2), BUGS
                receive()
    finally:
        with doing("receiving"), suppress(BlockingIOError):
            for _ in range(MOST_WAITING):
                receive()
