"""SOCK_SEQPACKET within a host: connections as with a stream, but what is sent as one record is received as one.

A server that echoes records, in `seqpacket_server`, and a client that sends them, in `seqpacket_client`, over
AF_UNIX; and `where`, which asks this kernel which families offer the type at all. For the same between hosts, see
`sctp`.
"""

from __future__ import annotations

import argparse
import socket
import sys
from collections.abc import Iterator
from typing import Any

from testbed.programs._errors import error_name
from testbed.programs._life import run
from testbed.programs._records import Book, add_buffer_argument, add_record_arguments
from testbed.programs.seqpacket_client import work
from testbed.programs.seqpacket_server import Echo

TYPES = {"seqpacket": socket.SOCK_SEQPACKET, "stream": socket.SOCK_STREAM, "datagram": socket.SOCK_DGRAM}
NAMES = {int(kind): name for name, kind in TYPES.items()}
AF_NS = 6  # the number in 4.3BSD's <sys/socket.h>; Linux never had this family and gave the number to NET/ROM
FAMILIES = {
    "unix": (socket.AF_UNIX, 0),
    "sctp": (socket.AF_INET, socket.IPPROTO_SCTP),
    "tcp": (socket.AF_INET, socket.IPPROTO_TCP),
    "ns": (AF_NS, 0),
}


def where(kind: socket.SocketKind) -> Iterator[dict[str, Any]]:
    """Ask the kernel for a socket of that type in each family: offered, or refused with an error. socket(2).

    Of one that was offered, its type is what the kernel says afterwards: SO_TYPE, socket(7).
    """
    answers: dict[str, Any] = {}
    for name, (family, protocol) in FAMILIES.items():
        try:
            with socket.socket(family, kind, protocol) as sock:
                its_type = sock.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
            answers |= {name: "offered", f"{name}_type": NAMES.get(its_type, str(its_type))}
        except OSError as problem:
            answers |= {name: "refused", f"{name}_error": error_name(problem)}
    yield answers


def main(argv: list[str] | None = None) -> int:
    """The command `seqpacket`. Returns the exit status: 0 done, 1 a socket error; wrong arguments exit with 2."""
    arguments = _parser().parse_args(argv)
    kind = TYPES[arguments.type]
    if arguments.mode == "where":
        return run("seqpacket where", lambda: None, lambda: where(kind))
    if arguments.mode == "echo":
        echo = Echo()
        return run("seqpacket echo", lambda: echo.work(kind, arguments), echo.records)
    book = Book(arguments.sizes, arguments.count)
    return run("seqpacket send", lambda: work(book, kind, arguments), book.records)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="seqpacket", description="SOCK_SEQPACKET: records, within a host.")
    modes = parser.add_subparsers(dest="mode", required=True, metavar="echo|send|where")
    echo = modes.add_parser("echo", help="serve: send every record back, until SIGTERM")
    client = modes.add_parser("send", help="send records to `seqpacket echo` and compare what comes back")
    kinds = modes.add_parser("where", help="which families offer this type of socket here")
    for mode in (echo, client):
        mode.add_argument("path", metavar="PATH", help="of the server's socket")
    for mode in (echo, client, kinds):
        types = ("seqpacket", "stream") if mode is not kinds else tuple(TYPES)
        mode.add_argument("--type", choices=types, default="seqpacket", help="another type, to see the difference")
    add_buffer_argument(echo)
    echo.add_argument("--no-listen", action="store_true", help="bind only: whoever connects is refused")
    add_record_arguments(client)
    return parser


if __name__ == "__main__":
    sys.exit(main())
