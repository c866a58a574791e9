"""Many TCP connections to one port at once, held open: what a port is, and what a socket is.

All go to the same address and port. What tells them apart is the other end, whose port the kernel chooses.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from testbed.programs._cli import add_client_arguments, number, time_ns
from testbed.programs._life import run
from testbed.programs._serving import say_ready
from testbed.programs._sockets import connected, endpoint


class Connections:
    """What stands. The endpoints are those that the kernel names: getsockname(2), getpeername(2)."""

    def __init__(self) -> None:
        self._open = ExitStack()
        self.endpoints: list[tuple[str, str]] = []

    def open(self, arguments: argparse.Namespace) -> None:
        """Raises Failed."""
        for _ in range(arguments.count):
            sock = self._open.enter_context(connected(arguments))
            self.endpoints.append((endpoint(sock.getsockname()), endpoint(sock.getpeername())))

    def records(self) -> Iterator[dict[str, Any]]:
        for local, remote in self.endpoints:
            yield {"local": local, "remote": remote}
        yield {
            "connections": len(self.endpoints),
            "local_ports": len({local.rpartition(":")[2] for local, _ in self.endpoints}),
        }


def main(argv: list[str] | None = None) -> int:
    """The command `connections`. Returns the exit status: 0 done, 1 a socket error, 2 wrong arguments."""
    arguments = _parser().parse_args(argv)
    held = Connections()

    def work() -> None:
        held.open(arguments)
        say_ready()
        while True:
            signal.pause()

    return run("connections open", work, held.records)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="connections", description="Many TCP connections to one port.")
    modes = parser.add_subparsers(dest="mode", required=True, metavar="open")
    mode = modes.add_parser("open", help="open them, say READY, hold them until SIGTERM")
    add_client_arguments(mode)
    mode.add_argument("--count", type=number, required=True, metavar="N", help="how many")
    mode.add_argument("--timeout", type=time_ns, default=30 * 10**9, metavar="TIME", help="for each; default 30s")
    return parser


if __name__ == "__main__":
    sys.exit(main())
