"""The servers of `stream`: what comes over each connection goes back, or is taken and answered with a receipt."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from argparse import Namespace
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from testbed.programs._errors import error_name, error_records
from testbed.programs._serving import accepted
from testbed.programs._sockets import server_socket

CHUNK_BYTES = 1 << 16


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
    connection.sendall(receipt(conversation.payload_bytes, digest.hexdigest()))


def receipt(payload_bytes: int, sha256: str) -> bytes:
    """The line with which the sink answers."""
    return json.dumps({"payload_bytes": payload_bytes, "sha256": sha256}).encode() + b"\n"


class Server:
    """Accepts connections and gives each a thread of its own, in which plain blocking calls are enough."""

    def __init__(self, converse: Converse) -> None:
        self.converse = converse
        self.conversations: list[Conversation] = []

    def work(self, arguments: Namespace) -> None:
        """Raises Failed."""
        with server_socket(socket.SOCK_STREAM, arguments.bind, arguments.port) as listener:
            self.serve(listener, arguments.once)

    def serve(self, listener: socket.socket, once: bool) -> None:
        """Never returns, SIGTERM ends it; with `once`, returns when the first connection has ended."""
        for connection in accepted(listener.accept):
            self.conversations.append(Conversation())
            # a daemon: a connection that still talks must not keep the records from being written
            thread = threading.Thread(target=self._talk, args=(connection, self.conversations[-1]), daemon=True)
            thread.start()
            if once:
                thread.join()
                return

    def _talk(self, connection: socket.socket, conversation: Conversation) -> None:
        with connection:
            try:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.converse(connection, conversation)
            except OSError as problem:
                conversation.error = error_name(problem)

    def records(self) -> Iterator[dict[str, Any]]:
        errors = [c.error for c in self.conversations if c.error]
        yield from error_records(errors)
        yield {
            "connections": len(self.conversations),
            "payload_bytes": sum(c.payload_bytes for c in self.conversations),
            "errors": len(errors),
        }
