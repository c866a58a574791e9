"""Sockets of the Network Systems family as the arguments of `idp` and `spp` want them: of servers, of clients."""

from __future__ import annotations

import socket
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from testbed.programs._errors import doing
from testbed.programs.ns.packets import Idp, Spp
from testbed.programs.ns.sockets import (
    SO_DEFAULT_HEADERS,
    SO_HEADERS_ON_INPUT,
    SO_HEADERS_ON_OUTPUT,
    IdpSocket,
    Name,
    SequencedPacketSocket,
)

Socket = TypeVar("Socket", IdpSocket, SequencedPacketSocket)


def opened(make: Callable[[], Socket]) -> Socket:
    """Raises Failed, EPERM without the capability."""
    with doing("opening a raw socket of IP protocol 22 (it needs the capability NET_RAW)"):
        return make()


def server_socket(make: Callable[[], Socket], arguments: Namespace) -> Socket:
    """A socket that is bound, and shows headers and takes them unless --plain. Raises Failed."""
    sock = opened(make)
    with doing(f"binding {arguments.bind} socket {arguments.port}"):
        sock.bind((arguments.bind, arguments.port))
    if arguments.port == 0:
        print(f"port {sock.getsockname()[1]}", file=sys.stderr, flush=True)
    for option in (SO_HEADERS_ON_INPUT, SO_HEADERS_ON_OUTPUT):
        sock.setsockopt(option, not arguments.plain)
    return sock


@contextmanager
def talking(sock: Socket, header: Callable[[int], Idp | Spp], arguments: Namespace) -> Iterator[Name]:
    """The socket of a client, bound and with its options set; yields whom to talk to. Closes it. Raises Failed.

    `header` makes one of a type, for --default-type.
    """
    host, number_there = arguments.to
    with doing(f"looking up {host}"):
        address = socket.gethostbyname(host)
    with doing(f"talking to {host} socket {number_there}"), sock:
        sock.bind((arguments.bind, 0))
        sock.settimeout(arguments.timeout / 1e9)
        if arguments.default_type is not None:
            sock.setsockopt(SO_DEFAULT_HEADERS, header(arguments.default_type).pack())
        sock.setsockopt(SO_HEADERS_ON_OUTPUT, arguments.write_types is not None)
        sock.setsockopt(SO_HEADERS_ON_INPUT, arguments.read_headers)
        yield address, number_there
