"""TCP: requests and answers over one connection, and bulk in one direction.

Two servers: `echo` sends back what it gets (RFC 862); `sink` takes what it gets and, when its peer has no more
to send, answers with one line that says how much it was and its SHA-256. Two clients: `send` talks to `echo`,
`bulk` to `sink`. Nothing but the payload goes over a connection, so `nc` can stand in for any of the four.

The servers are in `stream_server`, the clients in `stream_client`.
"""

from __future__ import annotations

import argparse
import sys

from testbed.programs._cli import (
    add_client_arguments,
    add_server_arguments,
    number,
    size_bytes,
    some,
    time_ns,
    within,
)
from testbed.programs._life import run
from testbed.programs.stream_client import Bulk, Send
from testbed.programs.stream_server import Server, echo, sink

LARGEST_MESSAGE = 1 << 16  # a larger one could fill every buffer on the way there and back, and both ends wait
_some_time = some(time_ns, "leaves no time at all")


def main(argv: list[str] | None = None) -> int:
    """The command `stream`. Returns the exit status: 0 done, 1 a socket error; wrong arguments exit with 2."""
    arguments = _parser().parse_args(argv)
    name = f"stream {arguments.mode}"
    if arguments.mode in ("echo", "sink"):
        server = Server(echo if arguments.mode == "echo" else sink)
        return run(name, lambda: server.work(arguments), server.records)
    client: Send | Bulk = Send() if arguments.mode == "send" else Bulk()
    return run(name, lambda: client.work(arguments), client.records)


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
    size = within(size_bytes, 1, LARGEST_MESSAGE, "B")
    send.add_argument("--size", type=size, required=True, metavar="SIZE", help="of each, as in 100B")
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


def _whole_ms(text: str) -> int:
    time = _some_time(text)
    if time % 10**6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of ms, which the kernel counts in")
    return time


if __name__ == "__main__":
    sys.exit(main())
