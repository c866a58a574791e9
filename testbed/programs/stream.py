"""TCP: requests and answers over one connection, and bulk in one direction.

Two servers: `echo` sends back what it gets (RFC 862); `sink` takes what it gets and, when its peer has no more
to send, answers with one line that says how much it was and its SHA-256. Two clients: `send` talks to `echo`,
`bulk` to `sink`. Nothing but the payload goes over a connection, so `nc` can stand in for any of the four.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from testbed.programs._cli import add_client_arguments, add_server_arguments, number, size_bytes, time_ns
from testbed.programs._errors import Failed, Unsupported, doing, error_name
from testbed.programs._life import run
from testbed.programs._sending import pattern
from testbed.programs._serving import say_ready
from testbed.programs._sockets import client_socket, server_socket

CHUNK_BYTES = 1 << 16
LARGEST_MESSAGE = 1 << 16  # a larger one could fill every buffer on the way there and back, and both ends wait
TOTAL_RETRANS_OFFSET = 100  # of tcpi_total_retrans in struct tcp_info, include/uapi/linux/tcp.h


# ---------------------------------------------------------------- the servers


@dataclass
class Conversation:
    """One connection of a server, written by its own thread and read when all is over."""

    payload_bytes: int = 0
    error: str | None = None


Converse = Callable[[socket.socket, Conversation], None]


def echo(connection: socket.socket, conversation: Conversation) -> None:
    """Send back what comes, until the peer has no more to send."""
    while data := connection.recv(CHUNK_BYTES):
        conversation.payload_bytes += len(data)
        connection.sendall(data)


def sink(connection: socket.socket, conversation: Conversation) -> None:
    """Take what comes until the peer has no more to send, then say what it was."""
    digest = hashlib.sha256()
    while data := connection.recv(CHUNK_BYTES):
        conversation.payload_bytes += len(data)
        digest.update(data)
    connection.sendall(_receipt(conversation.payload_bytes, digest.hexdigest()))


def _receipt(payload_bytes: int, sha256: str) -> bytes:
    return json.dumps({"payload_bytes": payload_bytes, "sha256": sha256}).encode() + b"\n"


class Server:
    """Accepts connections and gives each a thread of its own, in which plain blocking calls are enough."""

    def __init__(self, converse: Converse) -> None:
        self.converse = converse
        self.conversations: list[Conversation] = []

    def serve(self, listener: socket.socket, once: bool) -> None:
        """Never returns, SIGTERM ends it; with `once`, returns when the first connection has ended."""
        with doing("listening"):
            listener.listen(128)
        say_ready()
        while True:
            with doing("accepting a connection"):
                connection, _ = listener.accept()
            self.conversations.append(Conversation())
            # a daemon: a connection that still talks must not keep the records from being written
            thread = threading.Thread(target=self._talk, args=(connection, self.conversations[-1]), daemon=True)
            thread.start()
            if once:
                return thread.join()

    def _talk(self, connection: socket.socket, conversation: Conversation) -> None:
        with connection:
            try:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.converse(connection, conversation)
            except OSError as problem:
                conversation.error = error_name(problem)

    def records(self) -> Iterator[dict[str, Any]]:
        errors = [c.error for c in self.conversations if c.error]
        yield from ({"error": name} for name in dict.fromkeys(errors))
        yield {
            "connections": len(self.conversations),
            "payload_bytes": sum(c.payload_bytes for c in self.conversations),
            "errors": len(errors),
        }


# ---------------------------------------------------------------- the clients


class Client:
    """One connection, and the records that both clients have in common."""

    def __init__(self) -> None:
        self.summary: dict[str, Any] = {}
        self.samples: list[dict[str, Any]] = []

    def records(self) -> Iterator[dict[str, Any]]:
        yield from self.samples
        yield self.summary

    def connect(self, arguments: argparse.Namespace) -> socket.socket:
        """Raises Failed. `connect_time` is what one round trip costs, plus a second for each lost SYN."""
        sock, address = client_socket(socket.SOCK_STREAM, arguments)
        try:
            sock.settimeout(arguments.timeout / 1e9)
            if arguments.user_timeout:  # tcp(7): how long sent data may stay unacknowledged; of SYNs as well
                user_timeout_ms = arguments.user_timeout // 10**6
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, user_timeout_ms)
            if congestion := getattr(arguments, "congestion", None):
                self._choose_congestion(sock, congestion)
            start_ns = time.monotonic_ns()
            with doing(f"connecting to {arguments.to[0]} port {arguments.to[1]}"):
                sock.connect(address)
            self.summary["connect_time_ms"] = (time.monotonic_ns() - start_ns) / 1e6
        except Failed:
            sock.close()
            raise
        return sock

    def _choose_congestion(self, sock: socket.socket, name: str) -> None:
        try:
            with doing(f"choosing {name} out of /proc/sys/net/ipv4/tcp_available_congestion_control"):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name.encode())
        except Failed as problem:
            raise Unsupported(problem.name, str(problem), f"no congestion control {name} here") from problem

    def ask_kernel(self, sock: socket.socket) -> None:
        """What this end's TCP did and saw: tcp(7), TCP_INFO and TCP_CONGESTION."""
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        if len(info) >= TOTAL_RETRANS_OFFSET + 4:
            self.summary["retransmits"] = struct.unpack_from("=I", info, TOTAL_RETRANS_OFFSET)[0]
        name = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
        self.summary["congestion"] = name.rstrip(b"\0").decode()

    def conclude(self, whole: bool) -> None:
        """A loss is something to measure, but a stream that is not whole breaks TCP's promise. Raises Failed."""
        if not whole:
            raise Failed("EBADMSG", "the peer did not get, or did not return, exactly the bytes that were sent")
        self.summary["whole"] = "yes"


class Send(Client):
    """Requests and answers, one at a time: the next is sent when the last has come back."""

    def __init__(self) -> None:
        super().__init__()
        self.summary = {"sent": 0, "received": 0, "corrupted": 0, "whole": "no"}

    def work(self, arguments: argparse.Namespace) -> None:
        with self.connect(arguments) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # a request must not wait for more to send
            start_ns = time.monotonic_ns()
            for n in range(arguments.count):
                _sleep_until(start_ns + n * arguments.interval)
                with doing(f"message {n} of {arguments.count}"):
                    self._exchange(sock, n, arguments.size)
            self.ask_kernel(sock)
        self.conclude(self.summary["received"] == arguments.count)

    def _exchange(self, sock: socket.socket, n: int, size: int) -> None:
        request = pattern(n, size)
        sent_ns = time.monotonic_ns()
        self.summary["sent"] += 1
        sock.sendall(request)
        answer = _receive(sock, size)
        self.samples.append({"round_trip_delay_ms": (time.monotonic_ns() - sent_ns) / 1e6})
        self.summary["received" if answer == request else "corrupted"] += 1


class Bulk(Client):
    """One way, as fast as it goes. The clock stops when the peer has said that it has everything."""

    def __init__(self) -> None:
        super().__init__()
        self.summary = {"payload_bytes": 0, "whole": "no"}

    def work(self, arguments: argparse.Namespace) -> None:
        with self.connect(arguments) as sock:
            start_ns = time.monotonic_ns()
            with doing(f"sending {arguments.bytes} bytes"):
                sha256 = self._send(sock, arguments.bytes)
                sock.shutdown(socket.SHUT_WR)
            with doing("waiting for the receipt"), sock.makefile("rb") as answers:
                answer = answers.readline(4096)
            took_ns = time.monotonic_ns() - start_ns
            self.ask_kernel(sock)
        self.summary["transfer_time_ms"] = took_ns / 1e6
        self.conclude(answer == _receipt(arguments.bytes, sha256))
        self.summary["goodput_bit_s"] = round(arguments.bytes * 8 * 1e9 / took_ns)

    def _send(self, sock: socket.socket, total: int) -> str:
        """Send bytes that never repeat, so that a block in the wrong place is seen. Returns their SHA-256."""
        digest, numbers = hashlib.sha256(), random.Random(0)
        for start in range(0, total, CHUNK_BYTES):
            chunk = numbers.randbytes(min(CHUNK_BYTES, total - start))
            digest.update(chunk)
            sock.sendall(chunk)
            self.summary["payload_bytes"] += len(chunk)
        return digest.hexdigest()


def _receive(sock: socket.socket, size: int) -> bytes:
    """Exactly `size` bytes. Raises EOFError if the peer closes before."""
    data = bytearray()
    while len(data) < size:
        part = sock.recv(size - len(data))
        if not part:
            raise EOFError(f"the peer closed after {len(data)} of {size} bytes")
        data += part
    return bytes(data)


def _sleep_until(due_ns: int) -> None:
    time.sleep(max(0, due_ns - time.monotonic_ns()) / 1e9)


# ---------------------------------------------------------------- the command line


def main(argv: list[str] | None = None) -> int:
    """The command `stream`. Returns the exit status: 0 done, 1 a socket error; wrong arguments exit with 2."""
    arguments = _parser().parse_args(argv)
    name = f"stream {arguments.mode}"
    if arguments.mode in ("echo", "sink"):
        server = Server(echo if arguments.mode == "echo" else sink)
        return run(name, lambda: _listen(server, arguments), server.records)
    client: Send | Bulk = Send() if arguments.mode == "send" else Bulk()
    return run(name, lambda: client.work(arguments), client.records)


def _listen(server: Server, arguments: argparse.Namespace) -> None:
    with server_socket(socket.SOCK_STREAM, arguments.bind, arguments.port) as listener:
        server.serve(listener, arguments.once)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="stream", description="TCP sockets: two servers and their clients.")
    modes = parser.add_subparsers(dest="mode", required=True, metavar="echo|send|sink|bulk")
    for name, what in (("echo", "send back what comes"), ("sink", "take what comes and answer with its SHA-256")):
        server = modes.add_parser(name, help=f"serve: {what}, until SIGTERM")
        add_server_arguments(server)
        server.add_argument("--once", action="store_true", help="end with the first connection")
    send = modes.add_parser("send", help="requests and answers over one connection to `stream echo`")
    bulk = modes.add_parser("bulk", help="send much at once to `stream sink`")
    send.add_argument("--count", type=number, required=True, metavar="N", help="how many requests")
    send.add_argument("--size", type=_message_size, required=True, metavar="SIZE", help="of each, as in 100B")
    send.add_argument("--interval", type=time_ns, default=0, metavar="TIME", help="between two; default: none")
    bulk.add_argument("--bytes", type=size_bytes, required=True, metavar="SIZE", help="how much, as in 10MB")
    bulk.add_argument("--congestion", metavar="NAME", help="the congestion control, as in cubic, reno, bbr")
    for client in (send, bulk):
        add_client_arguments(client)
        client.add_argument(
            "--timeout", type=_some_time, default=30 * 10**9, metavar="TIME", help="of each wait; default 30s"
        )
        client.add_argument(
            "--user-timeout", type=_whole_ms, metavar="TIME", help="TCP_USER_TIMEOUT; default: the kernel's own"
        )
    return parser


def _message_size(text: str) -> int:
    size = size_bytes(text)
    if not 0 < size <= LARGEST_MESSAGE:
        raise argparse.ArgumentTypeError(f"{text!r} is not from 1B to {LARGEST_MESSAGE}B")
    return size


def _some_time(text: str) -> int:
    time = time_ns(text)
    if not time:
        raise argparse.ArgumentTypeError(f"{text!r} leaves no time at all")
    return time


def _whole_ms(text: str) -> int:
    time = _some_time(text)
    if time % 10**6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of ms, which the kernel counts in")
    return time


if __name__ == "__main__":
    sys.exit(main())
