"""The client of `seqpacket`: sends records and compares what comes back."""

from __future__ import annotations

import socket
from argparse import Namespace

from testbed.programs._errors import doing
from testbed.programs._records import IN_FLIGHT, LARGEST_RECORD, Book
from testbed.programs.seqpacket_server import WHAT_TO_TRY


def work(book: Book, kind: socket.SocketKind, arguments: Namespace) -> None:
    """Raises Failed."""
    with socket.socket(socket.AF_UNIX, kind) as sock:
        sock.settimeout(arguments.timeout / 1e9)
        with doing(f"connecting to {arguments.path}", WHAT_TO_TRY):
            sock.connect(arguments.path)
        send(sock, book)


def send(sock: socket.socket, book: Book) -> None:
    """Send every record over a connected socket, read what comes back, close one way, wait for the end of file.

    Raises Failed.
    """
    with doing("sending and receiving records"):
        while book.received < book.count:
            if book.sent < min(book.count, book.received + IN_FLIGHT):
                sock.sendall(book.record(book.sent))
                book.sent += 1
                continue
            data = sock.recv(2 * LARGEST_RECORD)
            if not data:
                raise EOFError(f"the peer closed after {book.received} of {book.count} records")
            book.arrived(data)
        sock.shutdown(socket.SHUT_WR)
        book.extra["end_of_file"] = "no" if sock.recv(2 * LARGEST_RECORD) else "yes"
    book.conclude()
