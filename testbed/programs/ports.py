"""Ports: numbers of 16 bits by which a host tells its processes apart, for TCP and for UDP by themselves.

`bind` takes a port and lets it go, `serve` is one process with a socket on each of its ports, and `ask` is many
clients in one: each of its sockets gets a port from the kernel and asks the server which one it sees.
"""

from __future__ import annotations

import argparse
import select
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from testbed.programs._cli import add_client_arguments, number, port
from testbed.programs._errors import doing
from testbed.programs._life import run
from testbed.programs._serving import say_ready
from testbed.programs._sockets import client_socket, enlarge_receive_buffer

KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
ANSWER_TIMEOUT_S = 2


def bound(kind: socket.SocketKind, address: tuple[str, int], shared: bool = False) -> socket.socket:
    """A socket that owns this port, as nobody else can now. Raises Failed, EADDRINUSE or EACCES.

    `shared`: others may bind it too, if they say the same and belong to the same user (socket(7), SO_REUSEPORT).
    """
    with doing(f"binding {address[0]} port {address[1]}"):
        sock = socket.socket(socket.AF_INET, kind)
        try:
            if shared:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(address)
        except OSError:
            sock.close()
            raise
    return sock


class Bind:
    """Takes one port and lets it go."""

    def __init__(self) -> None:
        self.port: int | None = None

    def work(self, kind: socket.SocketKind, address: tuple[str, int]) -> None:
        with bound(kind, address) as sock:
            if kind == socket.SOCK_STREAM:
                with doing(f"listening on port {address[1]}"):
                    sock.listen()
            self.port = sock.getsockname()[1]

    def records(self) -> Iterator[dict[str, Any]]:
        yield {"bound": "no"} if self.port is None else {"bound": "yes", "port": self.port}


class Server:
    """One process that owns several UDP ports. It tells each client the port that the datagram came from."""

    def __init__(self) -> None:
        self.received: dict[int, int] = {}  # by port
        self.misdelivered = 0

    def serve(self, bind: str, ports: list[int], shared: bool) -> None:
        """Never returns: SIGTERM ends it. Raises Failed."""
        with ExitStack() as stack:
            sockets = [stack.enter_context(bound(socket.SOCK_DGRAM, (bind, port), shared)) for port in ports]
            for sock in sockets:
                enlarge_receive_buffer(sock)
                self.received[sock.getsockname()[1]] = 0
            if 0 in ports:
                print("port", *self.received, file=sys.stderr, flush=True)
            say_ready()
            while True:
                for sock in select.select(sockets, [], [])[0]:
                    self._answer(sock)

    def _answer(self, sock: socket.socket) -> None:
        its_port = sock.getsockname()[1]
        with doing(f"answering on port {its_port}"):
            data, client = sock.recvfrom(100)
            self.received[its_port] += 1
            self.misdelivered += data != str(its_port).encode()  # what `ask` wrote: the port that it sent to
            sock.sendto(str(client[1]).encode(), client)

    def records(self) -> Iterator[dict[str, Any]]:
        for its_port, count in self.received.items():
            yield {"port": its_port, "received": count}
        yield {"misdelivered": self.misdelivered}


class Ask:
    """Many UDP sockets, each a client of its own. The kernel chooses their ports when they connect (ip(7))."""

    def __init__(self) -> None:
        self.local_ports: list[int] = []
        self.answered = self.misnamed = 0

    def work(self, arguments: argparse.Namespace) -> None:
        """One question after the other; all sockets stay open, so that no port is given out twice."""
        with ExitStack() as stack:
            for n in range(arguments.count):
                sock, address = client_socket(socket.SOCK_DGRAM, arguments)
                stack.enter_context(sock)
                sock.settimeout(ANSWER_TIMEOUT_S)
                with doing(f"question {n} to {arguments.to[0]} port {arguments.to[1]}"):
                    sock.connect(address)
                    self.local_ports.append(sock.getsockname()[1])
                    sock.send(str(arguments.to[1]).encode())
                    answer = sock.recv(100)
                self.answered += 1
                self.misnamed += answer != str(self.local_ports[-1]).encode()

    def records(self) -> Iterator[dict[str, Any]]:
        yield from ({"local_port": its_port} for its_port in self.local_ports)
        yield {"answered": self.answered, "misnamed": self.misnamed, "local_ports": len(set(self.local_ports))}


def main(argv: list[str] | None = None) -> int:
    """The command `ports`. Returns the exit status: 0 done, 1 a socket error; wrong arguments exit with 2."""
    arguments = _parser().parse_args(argv)
    name = f"ports {arguments.mode}"
    if arguments.mode == "bind":
        taker, address = Bind(), (arguments.bind, arguments.port)
        return run(name, lambda: taker.work(KINDS[arguments.protocol], address), taker.records)
    if arguments.mode == "serve":
        server = Server()
        return run(name, lambda: server.serve(arguments.bind, arguments.port, arguments.shared), server.records)
    client = Ask()
    return run(name, lambda: client.work(arguments), client.records)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ports", description="Ports: who has which, and who gets what.")
    modes = parser.add_subparsers(dest="mode", required=True, metavar="bind|serve|ask")
    take = modes.add_parser("bind", help="take a port and let it go")
    take.add_argument("protocol", choices=KINDS, metavar="tcp|udp")
    take.add_argument("--port", type=port, required=True, metavar="N")
    serve = modes.add_parser("serve", help="one process on several UDP ports, until SIGTERM")
    serve.add_argument("--port", type=port, required=True, action="append", metavar="N", help="one or more")
    serve.add_argument("--shared", action="store_true", help="with other processes (SO_REUSEPORT)")
    for mode in (take, serve):
        mode.add_argument("--bind", default="0.0.0.0", metavar="IP", help="default: every IPv4 address")
    ask = modes.add_parser("ask", help="ask `ports serve` once from each of N sockets")
    add_client_arguments(ask)
    ask.add_argument("--count", type=number, required=True, metavar="N", help="how many sockets")
    return parser


if __name__ == "__main__":
    sys.exit(main())
