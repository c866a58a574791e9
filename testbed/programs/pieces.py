"""TCP: a stream keeps every byte and its place, and nothing of the pieces in which it was sent.

The sender cuts one sequence of bytes into sends, the receiver takes it in reads, and neither learns of the other's
cuts. SO_RCVLOWAT (socket(7)) lets the receiver sleep until so much is there: then many sends end in one read. A
buffer smaller than a send makes many reads of it.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import socket
import sys
import time
from typing import Any

from testbed.programs._cli import add_client_arguments, add_server_arguments, number, size_bytes, time_ns
from testbed.programs._errors import doing, error_records, one_of_many
from testbed.programs._life import run
from testbed.programs._sending import sleep_until
from testbed.programs._serving import accepted
from testbed.programs._sockets import client_socket, server_socket


class Count:
    """Calls and bytes, and the SHA-256 of all bytes in their order."""

    def __init__(self) -> None:
        self.calls = self.payload_bytes = 0
        self._digest = hashlib.sha256()

    def add(self, data: bytes) -> None:
        self.calls += 1
        self.payload_bytes += len(data)
        self._digest.update(data)

    def record(self, name: str) -> dict[str, Any]:
        return {name: self.calls, "payload_bytes": self.payload_bytes, "sha256": self._digest.hexdigest()}


def receive(connection: socket.socket, buffer_bytes: int, wait_for_bytes: int, reads: Count) -> None:
    """Read until the peer has no more to send; a read waits for that much, or for the end."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, wait_for_bytes)
    while data := connection.recv(buffer_bytes):
        reads.add(data)


def send(sock: socket.socket, count: int, size: int, interval_ns: int, sends: Count) -> None:
    """The first count * size bytes of a sequence that is always the same, however it is cut."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # each send leaves by itself
    numbers = random.Random(0)
    everything = numbers.randbytes(count * size)
    start_ns = time.monotonic_ns()
    for n in range(count):
        sleep_until(start_ns + n * interval_ns)
        piece = everything[n * size : (n + 1) * size]
        sock.sendall(piece)
        sends.add(piece)
    sock.shutdown(socket.SHUT_WR)
    sock.recv(1)  # until the receiver has read all and closed


def main(argv: list[str] | None = None) -> int:
    """The command `pieces`. Returns the exit status: 0 done, 1 a socket error; wrong arguments exit with 2."""
    arguments = _parser().parse_args(argv)
    counts: list[Count] = []
    errors: list[str] = []

    def work_receive() -> None:
        with server_socket(socket.SOCK_STREAM, arguments.bind, arguments.port) as listener:
            for connection in accepted(listener.accept):
                counts.append(Count())
                with connection, one_of_many(errors):
                    receive(connection, arguments.buffer, arguments.wait_for, counts[-1])

    def work_send() -> None:
        sock, address = client_socket(socket.SOCK_STREAM, arguments)
        counts.append(Count())
        with sock, doing(f"sending to {arguments.to[0]} port {arguments.to[1]}"):
            sock.connect(address)
            send(sock, arguments.count, arguments.size, arguments.interval, counts[-1])

    receives = arguments.mode == "receive"
    name = "reads" if receives else "sends"
    work = work_receive if receives else work_send
    return run(
        f"pieces {arguments.mode}",
        work,
        lambda: [*(count.record(name) for count in counts), *error_records(errors)],
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pieces", description="TCP sockets: sends and reads of any size.")
    modes = parser.add_subparsers(dest="mode", required=True, metavar="receive|send")
    receiver = modes.add_parser("receive", help="read from one connection after another, until SIGTERM")
    add_server_arguments(receiver)
    receiver.add_argument(
        "--buffer", type=_some_size, default=1 << 16, metavar="SIZE", help="most that a read takes; default 64KiB"
    )
    receiver.add_argument(
        "--wait-for", type=_some_size, default=1, metavar="SIZE", help="least that a read waits for; default 1B"
    )
    sender = modes.add_parser("send", help="send one sequence of bytes in equal pieces")
    add_client_arguments(sender)
    sender.add_argument("--count", type=number, required=True, metavar="N", help="how many sends")
    sender.add_argument("--size", type=_some_size, required=True, metavar="SIZE", help="of each, as in 100B")
    sender.add_argument("--interval", type=time_ns, default=0, metavar="TIME", help="between two; default: none")
    return parser


def _some_size(text: str) -> int:
    size = size_bytes(text)
    if not 0 < size <= 1 << 20:
        raise argparse.ArgumentTypeError(f"{text!r} is not from 1B to 1MiB")
    return size


if __name__ == "__main__":
    sys.exit(main())
