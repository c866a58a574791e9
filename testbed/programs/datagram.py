"""UDP: a server that echoes, and a probe that counts what came back, and how, and when.

The server is in `datagram_server`, the probe in `datagram_client`.
"""

from __future__ import annotations

import argparse
import sys

from testbed.programs._cli import add_client_arguments, add_server_arguments, number, size_bytes, time_ns, within
from testbed.programs._life import run
from testbed.programs.datagram_client import HEADER, Probe, work
from testbed.programs.datagram_server import Echo

LARGEST_DATAGRAM = 65507  # 65,535 less the IPv4 and UDP headers


def main(argv: list[str] | None = None) -> int:
    """The command `datagram`. Returns the exit status: 0 done, 1 a socket error; wrong arguments exit with 2."""
    arguments = _parser().parse_args(argv)
    if arguments.mode == "echo":
        echo = Echo()
        return run("datagram echo", lambda: echo.work(arguments), echo.records)
    book = Probe(arguments.id, arguments.size)
    return run("datagram probe", lambda: work(book, arguments), book.records)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="datagram", description="UDP sockets: an echo server and a probe.")
    modes = parser.add_subparsers(dest="mode", required=True, metavar="echo|probe")

    echo = modes.add_parser("echo", help="send every datagram back to where it came from, until SIGTERM")
    add_server_arguments(echo)

    probe = modes.add_parser("probe", help="send numbered datagrams and count what comes back")
    add_client_arguments(probe)
    probe.add_argument("--count", type=number, required=True, metavar="N", help="how many to send")
    probe.add_argument("--interval", type=time_ns, required=True, metavar="TIME", help="between two, as in 1ms")
    size = within(size_bytes, HEADER.size, LARGEST_DATAGRAM, "B")
    probe.add_argument("--size", type=size, default=64, metavar="SIZE", help="of each; default 64B")
    probe.add_argument(
        "--timeout",
        type=time_ns,
        default=10**9,
        metavar="TIME",
        help="how long to wait after the last; default 1s",
    )
    probe.add_argument("--id", type=number, default=0, metavar="N", help="written into each datagram; default 0")
    return parser


if __name__ == "__main__":
    sys.exit(main())
