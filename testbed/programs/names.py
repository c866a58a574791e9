"""TCP: the two names of a socket, getsockname(2) and getpeername(2), as both ends of a connection see them.

The server tells each client, in one line, how it calls itself and how it calls the client. What is local at one
end is remote at the other. A server that is bound to the wildcard address learns from the connection, and only
there, by which of its addresses it was called.
"""

from __future__ import annotations

import argparse
import json
import socket
import sys
from typing import Any

from testbed.programs._cli import add_client_arguments, add_server_arguments, time_ns
from testbed.programs._errors import Failed, doing, error_records, one_of_many
from testbed.programs._life import run
from testbed.programs._serving import accepted
from testbed.programs._sockets import connected, endpoint, server_socket


def names(sock: socket.socket) -> dict[str, str]:
    return {"local": endpoint(sock.getsockname()), "remote": endpoint(sock.getpeername())}


def serve(listener: socket.socket, records: list[dict[str, Any]], errors: list[str]) -> None:
    """One connection after another. Never returns: SIGTERM ends it."""
    records.append({"bound": endpoint(listener.getsockname())})
    for connection in accepted(listener.accept):
        with connection, one_of_many(errors):
            records.append({})  # stays empty if the client has reset the connection by now
            records[-1] |= names(connection)
            connection.sendall(json.dumps(records[-1]).encode() + b"\n")


def ask(sock: socket.socket, record: dict[str, Any]) -> None:
    """Over a connected socket: are the server's names ours, the other way round? Raises Failed."""
    record |= names(sock) | {"agree": "no"}
    with doing("waiting for the server's names"), sock.makefile("rb") as lines:
        answer = lines.readline(4096)
    if answer != json.dumps({"local": record["remote"], "remote": record["local"]}).encode() + b"\n":
        raise Failed(
            "EBADMSG", f"this end is {record['local']} to {record['remote']}, and the server says {answer!r}"
        )
    record["agree"] = "yes"


def main(argv: list[str] | None = None) -> int:
    """The command `names`. Returns the exit status: 0 done, 1 a socket error; wrong arguments exit with 2."""
    arguments = _parser().parse_args(argv)
    records: list[dict[str, Any]] = []
    errors: list[str] = []

    def work_server() -> None:
        with server_socket(socket.SOCK_STREAM, arguments.bind, arguments.port) as listener:
            serve(listener, records, errors)

    def work_client() -> None:
        with connected(arguments) as sock:
            records.append({})
            ask(sock, records[-1])

    def said() -> list[dict[str, Any]]:
        if arguments.mode == "ask":
            return records
        connections = sum("bound" not in record for record in records)
        return [*records, *error_records(errors), {"connections": connections, "errors": len(errors)}]

    return run(f"names {arguments.mode}", work_server if arguments.mode == "serve" else work_client, said)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="names", description="TCP sockets: what each end calls itself and its peer."
    )
    modes = parser.add_subparsers(dest="mode", required=True, metavar="serve|ask")
    server = modes.add_parser("serve", help="tell each client the names of its connection, until SIGTERM")
    add_server_arguments(server)
    client = modes.add_parser("ask", help="connect, and compare the names that both ends see")
    add_client_arguments(client)
    client.add_argument(
        "--timeout", type=time_ns, default=30 * 10**9, metavar="TIME", help="of a wait; default 30s"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
