"""TCP: the life of a server, one call after another: socket, bind, listen, accept, transfer, close.

So that nobody has to guess how far the other is, the visitor says when: it asks for each step with a datagram to
the same port number, which is free for UDP, and goes on when the answer has come. In between it tries to connect,
and what it gets is what the server's kernel makes of that state.
"""

from __future__ import annotations

import argparse
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from testbed.programs._cli import add_client_arguments, add_server_arguments, time_ns
from testbed.programs._errors import Failed, doing, error_name
from testbed.programs._life import run
from testbed.programs._serving import say_ready
from testbed.programs._sockets import client_socket, server_socket

STATES = {1: "ESTABLISHED", 7: "CLOSE", 10: "LISTEN"}  # include/net/tcp_states.h
MESSAGE = b"there and back"


def state(sock: socket.socket) -> str:
    """The state that the kernel has this socket in: the first byte of TCP_INFO (tcp(7))."""
    number = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
    return STATES.get(number, str(number))


class Server:
    """Every step of a server's life, in order; those after `bind` each when it is asked for."""

    def __init__(self, fault: str | None) -> None:
        self.fault = fault  # what it is to do wrong, so that somebody can be seen to notice
        self.records: list[dict[str, Any]] = []

    def work(self, arguments: argparse.Namespace) -> None:
        with server_socket(socket.SOCK_DGRAM, arguments.bind, arguments.port) as asked:
            self.live(asked)

    def live(self, asked: socket.socket) -> None:
        """Take the address of `asked`, a UDP socket, for TCP. Never returns: SIGTERM ends it. Raises Failed."""
        address = asked.getsockname()
        living = doing(f"living at {address[0]} port {address[1]}")
        with living, socket.socket(asked.family, socket.SOCK_STREAM) as listener:
            self._did("socket", listener)
            # else it could not come back while old connections of that port time out
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            self._did("bind", listener)
            if self.fault == "listen-early":
                listener.listen()
            say_ready()

            with self._step("listen", asked):
                if self.fault != "no-listen":
                    listener.listen()
                self._did("listen", listener)
            with self._step("accept", asked):
                connection, _ = listener.accept()
                self._did("accept", connection)
            with self._step("transfer", asked):
                connection.sendall(connection.recv(len(MESSAGE), socket.MSG_WAITALL))
                self.records.append({"step": "transfer"})
            with self._step("close", asked):
                connection.close()
                if self.fault != "no-close":
                    listener.close()
                self.records.append({"step": "close"})
            asked.recv(100)  # until SIGTERM: nobody has anything left to ask for

    @contextmanager
    def _step(self, name: str, asked: socket.socket) -> Iterator[None]:
        """Wait until the visitor asks for this step, let it be done, answer that it is."""
        request, visitor = asked.recvfrom(100)
        if request != name.encode():
            raise Failed("EBADMSG", f"a visitor asks for {request!r}, and {name} is next")
        yield
        asked.sendto(request, visitor)

    def _did(self, step: str, sock: socket.socket) -> None:
        self.records.append({"step": step, f"state_after_{step}": state(sock)})


class Visitor:
    """Tries to connect in every state that the server is in, and has it go on to the next."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.summary: dict[str, Any] = {"whole": "no", "eof": "no"}

    def visit(self) -> None:
        """Ends where connecting is not as it has to be. Raises Failed."""
        if early := self._connect("before_listen"):
            return early.close()  # the server would accept this one next
        self._ask_for("listen")
        connection = self._connect("after_listen")  # the kernel completes it, before any accept
        if not connection:
            return None
        with connection, doing("talking to the server"):
            self._ask_for("accept")
            connection.sendall(MESSAGE)
            self._ask_for("transfer")
            self.summary["whole"] = "yes" if connection.recv(100) == MESSAGE else "no"
            self._ask_for("close")
            self.summary["eof"] = "no" if connection.recv(100) else "yes"
        if late := self._connect("after_close"):
            late.close()
        return None

    def _connect(self, when: str) -> socket.socket | None:
        sock, address = client_socket(socket.SOCK_STREAM, self.arguments)
        sock.settimeout(self.arguments.timeout / 1e9)
        try:
            sock.connect(address)
        except OSError as problem:
            self.summary[when] = error_name(problem)
            sock.close()
            return None
        self.summary[when] = "connected"
        return sock

    def _ask_for(self, step: str) -> None:
        sock, address = client_socket(socket.SOCK_DGRAM, self.arguments)
        with sock, doing(f"asking for {step}"):
            sock.settimeout(self.arguments.timeout / 1e9)
            sock.connect(address)
            sock.send(step.encode())
            sock.recv(100)


def main(argv: list[str] | None = None) -> int:
    """The command `life`. Returns the exit status: 0 done, 1 a socket error; wrong arguments exit with 2."""
    arguments = _parser().parse_args(argv)
    if arguments.mode == "visit":
        visitor = Visitor(arguments)
        return run("life visit", visitor.visit, lambda: [visitor.summary])
    server = Server(arguments.fault)
    return run("life serve", lambda: server.work(arguments), lambda: server.records)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="life", description="TCP sockets: the life of a server, step by step.")
    modes = parser.add_subparsers(dest="mode", required=True, metavar="serve|visit")
    server = modes.add_parser("serve", help="live once, each step when it is asked for; then wait for SIGTERM")
    add_server_arguments(server)
    server.add_argument("--fault", choices=("listen-early", "no-listen", "no-close"), help="do this wrong")
    visitor = modes.add_parser("visit", help="try to connect in every state of the server")
    add_client_arguments(visitor)
    visitor.add_argument(
        "--timeout", type=time_ns, default=5 * 10**9, metavar="TIME", help="of a wait; default 5s"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
