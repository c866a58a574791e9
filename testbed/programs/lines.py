"""TCP: numbered lines over one connection, in both directions at once, and the order in which they arrive.

A stream knows bytes and no messages, so programs agree on a mark between them: here the newline. Each end sends
lines 0, 1, 2, … and reads the other's at the same time. The client closes its sending half after its last line.
The server closes when it has sent its own and has read the client's end-of-file; so the client, when it reads the
server's, knows that everything has arrived. Nothing else goes over the connection: `nc` can be either end.
"""

from __future__ import annotations

import argparse
import socket
import sys
import threading
import time
from collections.abc import Iterable
from typing import Any

from testbed.programs._cli import add_client_arguments, add_server_arguments, number, time_ns
from testbed.programs._errors import Failed, doing, error_name
from testbed.programs._life import run
from testbed.programs._sending import sleep_until
from testbed.programs._serving import accepted
from testbed.programs._sockets import connected, server_socket


def line(n: int) -> bytes:
    return b"line %d\n" % n


class Conversation:
    """One end of one connection: what it said and what it heard."""

    def __init__(self) -> None:
        self.sent = self.sent_after_eof = self.received = self.in_order = self.received_while_sending = 0
        self.sending = self.eof = False
        self.error: str | None = None

    def send(self, sock: socket.socket, numbers: Iterable[int], interval_ns: int) -> None:
        """Send these lines, each at its time. The sending half stays open."""
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # a line must not wait for the next one
        self.sending = True
        start_ns = time.monotonic_ns()
        for place, n in enumerate(numbers):
            sleep_until(start_ns + place * interval_ns)
            sock.sendall(line(n))
            self.sent += 1
            self.sent_after_eof += self.eof
        self.sending = False

    def receive(self, sock: socket.socket) -> None:
        """Read lines until the peer has no more. The k-th is in order if it is the k-th that was sent."""
        with sock.makefile("rb") as lines:
            for text in lines:
                self.in_order += text == line(self.received)
                self.received_while_sending += self.sending
                self.received += 1
        self.eof = True

    def both(self, sock: socket.socket, numbers: Iterable[int], interval_ns: int, ends_first: bool) -> None:
        """Send and receive at the same time: one thread for each direction, since each may have to wait."""
        receiver = threading.Thread(target=self._guarded_receive, args=(sock,), daemon=True)
        receiver.start()
        self.send(sock, numbers, interval_ns)
        if ends_first:
            sock.shutdown(socket.SHUT_WR)  # the peer reads end-of-file; what it still sends arrives here
        receiver.join()

    def _guarded_receive(self, sock: socket.socket) -> None:
        try:
            self.receive(sock)
        except OSError as problem:
            self.error = error_name(problem)

    def record(self) -> dict[str, Any]:
        names = ("sent", "sent_after_eof", "received", "in_order", "received_while_sending")
        return {name: getattr(self, name) for name in names}


def serve(arguments: argparse.Namespace, conversations: list[Conversation]) -> None:
    """One connection after another. Never returns: SIGTERM ends it. Raises Failed."""
    with server_socket(socket.SOCK_STREAM, arguments.bind, arguments.port) as listener:
        for connection in accepted(listener.accept):
            conversation = Conversation()
            conversations.append(conversation)
            with connection:
                try:
                    if arguments.after_peer:
                        conversation.receive(connection)
                        conversation.send(connection, range(arguments.count), arguments.interval)
                    else:
                        conversation.both(connection, range(arguments.count), arguments.interval, ends_first=False)
                except OSError as problem:
                    conversation.error = error_name(problem)


def talk(arguments: argparse.Namespace, conversations: list[Conversation]) -> None:
    """The client's part. Raises Failed."""
    numbers = range(arguments.count)
    with connected(arguments) as sock:
        conversation = Conversation()
        conversations.append(conversation)
        with doing("talking"):
            if arguments.close:
                conversation.send(sock, numbers, arguments.interval)
                return
            order = reversed(numbers) if arguments.reverse else numbers
            conversation.both(sock, order, arguments.interval, ends_first=True)
    if conversation.error:
        raise Failed(conversation.error, f"receiving: {conversation.error}")


def main(argv: list[str] | None = None) -> int:
    """The command `lines`. Returns the exit status: 0 done, 1 a socket error; wrong arguments exit with 2."""
    arguments = _parser().parse_args(argv)
    conversations: list[Conversation] = []
    work = serve if arguments.mode == "serve" else talk

    def records() -> Iterable[dict[str, Any]]:
        yield from (conversation.record() for conversation in conversations)
        if arguments.mode == "serve":
            yield from ({"error": c.error} for c in conversations if c.error)
            yield {"connections": len(conversations)}

    return run(f"lines {arguments.mode}", lambda: work(arguments, conversations), records)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lines", description="TCP sockets: numbered lines, both ways at once.")
    modes = parser.add_subparsers(dest="mode", required=True, metavar="serve|talk")
    server = modes.add_parser("serve", help="talk to one client after another, until SIGTERM")
    add_server_arguments(server)
    server.add_argument("--after-peer", action="store_true", help="send only when the peer has no more to send")
    client = modes.add_parser("talk", help="connect, talk, and end when the peer has no more to send")
    add_client_arguments(client)
    client.add_argument("--reverse", action="store_true", help="send the last line first: a receiver must notice")
    client.add_argument("--close", action="store_true", help="close the whole connection after the last line")
    client.add_argument(
        "--timeout", type=time_ns, default=30 * 10**9, metavar="TIME", help="of a wait; default 30s"
    )
    for mode in (server, client):
        mode.add_argument("--count", type=number, default=0, metavar="N", help="lines to send; default 0")
        mode.add_argument("--interval", type=time_ns, default=0, metavar="TIME", help="between two; default: none")
    return parser


if __name__ == "__main__":
    sys.exit(main())
