"""The server of `datagram`: every datagram goes back to where it came from."""

from __future__ import annotations

import socket
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator
from typing import Any

from testbed.programs._errors import error_name, error_records
from testbed.programs._serving import receive_until_sigterm
from testbed.programs._sockets import enlarge_receive_buffer, server_socket


class Echo:
    """A server: every datagram goes back to where it came from, as it is."""

    def __init__(self) -> None:
        self.received = self.payload_bytes = 0
        self.peers: set[tuple[Any, ...]] = set()
        self.errors: Counter[str] = Counter()

    def work(self, arguments: Namespace) -> None:
        """Until SIGTERM, and then what is still in the socket. Raises Failed."""
        with server_socket(socket.SOCK_DGRAM, arguments.bind, arguments.port) as sock:
            enlarge_receive_buffer(sock)
            receive_until_sigterm(sock, lambda: self.answer(sock))

    def answer(self, sock: socket.socket) -> None:
        data, peer = sock.recvfrom(65536, socket.MSG_DONTWAIT)
        self.received += 1
        self.payload_bytes += len(data)
        self.peers.add(peer)
        try:
            sock.sendto(data, peer)
        except OSError as problem:  # one peer that cannot be answered is no reason to leave the others
            self.errors[error_name(problem)] += 1

    def records(self) -> Iterator[dict[str, Any]]:
        yield from error_records(self.errors)
        yield {
            "received": self.received,
            "echoed": self.received - self.errors.total(),
            "payload_bytes": self.payload_bytes,
            "peers": len(self.peers),
            "errors": self.errors.total(),
        }
