"""The receiver of `message`: one socket that takes datagrams from anybody, or from its one peer alone."""

from __future__ import annotations

import hashlib
import socket
import struct
from argparse import Namespace
from collections.abc import Iterator
from typing import Any

from testbed.programs._errors import doing
from testbed.programs._serving import receive_until_sigterm
from testbed.programs._sockets import server_socket


class Messages:
    """Datagrams in their order: each one's size, and one SHA-256 over all sizes and contents."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self._sha256 = hashlib.sha256()

    def add(self, data: bytes) -> None:
        self.sizes.append(len(data))
        self._sha256.update(struct.pack("!I", len(data)) + data)  # the size too: a boundary elsewhere is seen

    def digest(self) -> str:
        return self._sha256.hexdigest()


class Receiver:
    """Takes datagrams into a buffer of that size. What does not fit is gone, and MSG_TRUNC says so."""

    def __init__(self, buffer_bytes: int) -> None:
        self.buffer_bytes = buffer_bytes
        self.messages = Messages()
        self.truncated = 0
        self.peers: set[Any] = set()

    def work(self, arguments: Namespace) -> None:
        """Until SIGTERM, and then what is still in the socket. Raises Failed.

        An empty datagram is a message like others, and not the end.
        """
        with server_socket(socket.SOCK_DGRAM, arguments.bind, arguments.port) as sock:
            if arguments.peer is not None:
                host, its_port = arguments.peer
                with doing(
                    f"connecting to {host} port {its_port}"
                ):  # sends nothing; what others sent before stays
                    sock.connect((host, its_port))
            receive_until_sigterm(sock, lambda: self.receive(sock))

    def receive(self, sock: socket.socket) -> None:
        data, _, flags, peer = sock.recvmsg(self.buffer_bytes, 0, socket.MSG_DONTWAIT)
        self.messages.add(data)
        self.truncated += bool(flags & socket.MSG_TRUNC)
        self.peers.add(peer)

    def records(self) -> Iterator[dict[str, Any]]:
        yield from ({"message_bytes": size} for size in self.messages.sizes)
        yield {
            "received": len(self.messages.sizes),
            "truncated": self.truncated,
            "payload_bytes": sum(self.messages.sizes),
            "peers": len(self.peers),
            "digest": self.messages.digest(),
        }
