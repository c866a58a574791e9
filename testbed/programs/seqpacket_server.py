"""The server of `seqpacket`: one connection after the other, every record goes back."""

from __future__ import annotations

import socket
import time
from argparse import Namespace
from collections.abc import Iterator
from typing import Any

from testbed.programs._errors import doing
from testbed.programs._serving import accepted, say_ready

WHAT_TO_TRY = {
    "EADDRINUSE": "the path is there already: a server leaves it behind, remove it before the next one starts",
    "ECONNREFUSED": "the path is there, but nobody listens",
    "ENOENT": "no server has bound that path",
    "EPROTOTYPE": "the server has another type of socket",
}


class Echo:
    """A server: one connection after the other, every record goes back as far as it fitted into the buffer."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(
            ("connections", "received", "payload_bytes", "truncated", "ended", "errors"), 0
        )

    def work(self, kind: socket.SocketKind, arguments: Namespace) -> None:
        """Raises Failed."""
        with socket.socket(socket.AF_UNIX, kind) as listener:
            with doing(f"binding {arguments.path}", WHAT_TO_TRY):
                listener.bind(arguments.path)
            if arguments.no_listen:
                say_ready()
                while True:
                    time.sleep(3600)
            with doing("listening"):
                listener.listen()
            self.serve(listener, arguments.buffer)

    def serve(self, listener: socket.socket, buffer_bytes: int) -> None:
        """Never returns: SIGTERM ends it. Raises Failed."""
        for connection in accepted(listener.accept):
            self.counts["connections"] += 1
            with connection:
                try:
                    self._talk(connection, buffer_bytes)
                except OSError:  # one client that went away is no reason to leave the others
                    self.counts["errors"] += 1

    def _talk(self, connection: socket.socket, buffer_bytes: int) -> None:
        while True:
            record, _, flags, _ = connection.recvmsg(buffer_bytes)  # one call is one record, never a part of two
            if not record:  # end of file. So a record of no bytes at all could not be told from it
                self.counts["ended"] += 1
                return
            self.counts["received"] += 1
            self.counts["payload_bytes"] += len(record)
            self.counts["truncated"] += bool(flags & socket.MSG_TRUNC)  # the rest of the record is gone
            connection.sendall(record)

    def records(self) -> Iterator[dict[str, Any]]:
        yield self.counts
