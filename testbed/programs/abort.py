"""TCP: a peer that dies in mid-transfer, and what the other end is told.

A socket that is closed with SO_LINGER at zero (socket(7)) sends a reset in place of an orderly end and throws away
what was under way, as if its program had crashed. The sender gets ECONNRESET from one call, once. From then on the
connection does not exist, and every further send is EPIPE (RFC 9293, section 3.10.7.4; send(2)).
"""

from __future__ import annotations

import argparse
import socket
import struct
import sys
from typing import Any

from testbed.programs._cli import add_client_arguments, add_server_arguments, size_bytes, time_ns
from testbed.programs._errors import Failed, doing, error_name, error_records, one_of_many
from testbed.programs._life import run
from testbed.programs._serving import accepted
from testbed.programs._sockets import connected, server_socket

CHUNK = bytes(1 << 14)
ABORT = struct.pack("ii", 1, 0)  # struct linger: on, for 0 seconds


class Server:
    """Takes so much from each connection and then aborts it, unless the peer ends before."""

    def __init__(self, after_bytes: int) -> None:
        self.after_bytes = after_bytes
        self.connections = self.aborted = self.payload_bytes = 0
        self.errors: list[str] = []

    def work(self, arguments: argparse.Namespace) -> None:
        """Never returns: SIGTERM ends it. Raises Failed."""
        with server_socket(socket.SOCK_STREAM, arguments.bind, arguments.port) as listener:
            for connection in accepted(listener.accept):
                self.connections += 1
                with connection, one_of_many(self.errors):
                    self._take(connection)

    def _take(self, connection: socket.socket) -> None:
        left = self.after_bytes
        while left and (data := connection.recv(min(left, len(CHUNK)))):
            left -= len(data)
            self.payload_bytes += len(data)
        if not left:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)  # for the close that follows
            self.aborted += 1

    def records(self) -> list[dict[str, Any]]:
        counts = {name: getattr(self, name) for name in ("connections", "aborted", "payload_bytes")}
        return [*error_records(self.errors), {**counts, "errors": len(self.errors)}]


class Client:
    """Sends until it has sent all or is told that the connection is gone, and then asks once more."""

    def __init__(self) -> None:
        self.payload_bytes = 0
        self.first_error: str | None = None

    def work(self, arguments: argparse.Namespace) -> None:
        """Raises Failed."""
        with connected(arguments) as sock:
            self.send(sock, arguments.bytes)

    def send(self, sock: socket.socket, total: int) -> None:
        """Raises Failed with what the second send got, after the first has failed."""
        try:
            while self.payload_bytes < total:
                self.payload_bytes += sock.send(CHUNK[: total - self.payload_bytes])
        except OSError as problem:
            self.first_error = error_name(problem)
            with doing(f"sending once more, after {self.first_error}"):
                sock.send(CHUNK)
            raise Failed("EBADMSG", f"after {self.first_error} the socket took more") from None

    def records(self) -> list[dict[str, Any]]:
        errors = [{"error": self.first_error}] if self.first_error else []
        return [*errors, {"payload_bytes": self.payload_bytes}]


def main(argv: list[str] | None = None) -> int:
    """The command `abort`. Returns the exit status: 0 done, 1 a socket error; wrong arguments exit with 2."""
    arguments = _parser().parse_args(argv)
    if arguments.mode == "serve":
        server = Server(arguments.after)
        return run("abort serve", lambda: server.work(arguments), server.records)
    client = Client()
    return run("abort send", lambda: client.work(arguments), client.records)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="abort", description="TCP sockets: a connection that is reset.")
    modes = parser.add_subparsers(dest="mode", required=True, metavar="serve|send")
    server = modes.add_parser("serve", help="take so much from each connection, then reset it; until SIGTERM")
    add_server_arguments(server)
    server.add_argument("--after", type=size_bytes, required=True, metavar="SIZE", help="how much, as in 100kB")
    client = modes.add_parser("send", help="send, and say what the kernel says when the connection is gone")
    add_client_arguments(client)
    client.add_argument("--bytes", type=size_bytes, required=True, metavar="SIZE", help="how much, as in 1MB")
    client.add_argument(
        "--timeout", type=time_ns, default=30 * 10**9, metavar="TIME", help="of a wait; default 30s"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
