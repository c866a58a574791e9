"""AF_UNIX: a stream socket whose address is a path, and programs that meet there and know nothing but the path.

The path is a name in the file system, and no network takes part (unix(7)): whoever sees the directory can connect.
A name that was left behind by a server that has gone is ECONNREFUSED, one that nobody made is ENOENT. Both ends
say on which host they run.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from testbed.programs._errors import doing, error_records, one_of_many
from testbed.programs._life import run
from testbed.programs._serving import say_ready


def introduce(sock: socket.socket) -> str:
    """Say this host's name, as a line, and return the peer's. Raises EOFError if it says none."""
    sock.sendall(os.uname().nodename.encode() + b"\n")
    with sock.makefile("rb") as lines:
        line = lines.readline(256)
    if not line.endswith(b"\n"):
        raise EOFError("the peer closed before it said who it is")
    return line.decode().rstrip()


class Server:
    """Whom a server met, and what went wrong with the others."""

    def __init__(self) -> None:
        self.met: list[str] = []
        self.errors: list[str] = []

    def records(self) -> Iterator[dict[str, Any]]:
        yield from ({"met": host} for host in self.met)
        yield from error_records(self.errors)
        yield {"connections": len(self.met) + len(self.errors), "errors": len(self.errors)}


def serve(path: str, server: Server) -> None:
    """Bind the name, meet whoever comes, and take the name away at the end. Never returns: SIGTERM ends it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        with doing(f"binding {path}"):
            listener.bind(path)
        try:
            with doing(f"listening at {path}"):
                listener.listen()
            say_ready()
            while True:
                with doing("accepting a client"):
                    connection, _ = listener.accept()
                with connection, one_of_many(server.errors):
                    server.met.append(introduce(connection))
        finally:
            Path(path).unlink(missing_ok=True)  # the kernel does not


def meet(path: str, records: list[dict[str, Any]]) -> None:
    """Connect to the name. The client's own end has none. Raises Failed."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        with doing(f"connecting to {path}"):
            sock.connect(path)
        with doing(f"talking at {path}"):
            records.append({"met": introduce(sock), "remote": sock.getpeername()})
            sock.recv(1)  # until the server has booked this meeting and closed


def main(argv: list[str] | None = None) -> int:
    """The command `unix`. Returns the exit status: 0 done, 1 a socket error; wrong arguments exit with 2."""
    arguments = _parser().parse_args(argv)
    if arguments.mode == "serve":
        server = Server()
        return run("unix serve", lambda: serve(arguments.path, server), server.records)
    records: list[dict[str, Any]] = []
    return run("unix meet", lambda: meet(arguments.path, records), lambda: records)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="unix", description="UNIX sockets: a named point where programs meet.")
    modes = parser.add_subparsers(dest="mode", required=True, metavar="serve|meet")
    helps = {"serve": "bind the name and meet whoever comes, until SIGTERM", "meet": "connect to it"}
    for name, what in helps.items():
        modes.add_parser(name, help=what).add_argument("path", metavar="PATH", help="as in /run/app/meet.sock")
    return parser


if __name__ == "__main__":
    sys.exit(main())
