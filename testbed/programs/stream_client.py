"""The clients of `stream`: requests and answers, one at a time, and bulk in one direction."""

from __future__ import annotations

import hashlib
import random
import socket
import struct
import time
from argparse import Namespace
from collections.abc import Iterator
from typing import Any

from testbed.programs._errors import Failed, Unsupported, doing
from testbed.programs._sending import pattern, sleep_until
from testbed.programs._sockets import client_socket
from testbed.programs.stream_server import CHUNK_BYTES, receipt

TOTAL_RETRANS_OFFSET = 100  # of tcpi_total_retrans in struct tcp_info, include/uapi/linux/tcp.h


class Client:
    """One connection, and the records that both clients have in common."""

    def __init__(self) -> None:
        self.summary: dict[str, Any] = {}
        self.samples: list[dict[str, Any]] = []

    def records(self) -> Iterator[dict[str, Any]]:
        yield from self.samples
        yield self.summary

    def connect(self, arguments: Namespace) -> socket.socket:
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
            if congestion:  # again: a route that has one of its own has overridden it
                self._choose_congestion(sock, congestion)
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

    def work(self, arguments: Namespace) -> None:
        with self.connect(arguments) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # a request must not wait for more to send
            start_ns = time.monotonic_ns()
            for n in range(arguments.count):
                sleep_until(start_ns + n * arguments.interval)
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

    def work(self, arguments: Namespace) -> None:
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
        self.conclude(answer == receipt(arguments.bytes, sha256))
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
