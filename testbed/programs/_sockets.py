"""Sockets as the arguments of a command want them: of servers, of clients; names, and waiting for what comes."""

from __future__ import annotations

import argparse
import select
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from testbed.programs._errors import Failed, doing

IP_VERSION: dict[int, str] = {socket.AF_INET: "IPv4", socket.AF_INET6: "IPv6"}
Address = tuple[Any, ...]  # as the socket calls give it


def server_socket(kind: socket.SocketKind, bind: str, port: int) -> socket.socket:
    """A socket bound to that address and port, and listening if it is a stream. Raises Failed.

    With port 0, standard error says which it got.
    """
    with doing(f"binding {bind} port {port}"):
        family, _, _, _, address = socket.getaddrinfo(bind, port, type=kind, flags=socket.AI_PASSIVE)[0]
        sock = socket.socket(family, kind)
        try:
            if kind == socket.SOCK_STREAM:  # else a server cannot come back while its old connections time out
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
        except OSError:
            sock.close()
            raise
    if port == 0:
        print(f"port {sock.getsockname()[1]}", file=sys.stderr, flush=True)
    if kind == socket.SOCK_STREAM:
        with doing("listening"):
            sock.listen()
    return sock


def look_up(host: str, its_port: int | None, kind: socket.SocketKind) -> tuple[socket.AddressFamily, Address]:
    """The family and the address that a host goes by, the first if it has several. Raises Failed."""
    with doing(f"looking up {host}"):
        family, _, _, _, address = socket.getaddrinfo(host, its_port, type=kind)[0]
    return family, address


def client_socket(kind: socket.SocketKind, arguments: argparse.Namespace) -> tuple[socket.socket, Address]:
    """A socket that is not yet connected, and the address to connect it to. Raises Failed.

    Of the arguments, those of `add_client_arguments` count.
    """
    host, its_port = arguments.to
    family, address = look_up(host, its_port, kind)
    sock = socket.socket(family, kind)
    try:
        if arguments.device is not None:
            with doing(f"binding to device {arguments.device}"):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, arguments.device.encode())
        if arguments.bind is not None:
            with doing(f"binding {arguments.bind}"):
                sock.bind((arguments.bind, 0))
    except Failed:
        sock.close()
        raise
    return sock, address


@contextmanager
def connected(arguments: argparse.Namespace) -> Iterator[socket.socket]:
    """A TCP connection. Of the arguments, those of a client and `timeout` count, for each wait. Raises Failed."""
    sock, address = client_socket(socket.SOCK_STREAM, arguments)
    with sock:
        sock.settimeout(arguments.timeout / 1e9)
        with doing(f"connecting to {arguments.to[0]} port {arguments.to[1]}"):
            sock.connect(address)
        yield sock


def endpoint(address: Address) -> str:
    """An address as the socket calls give it, in the form that the command line takes: `[2001:2::1]:9000`."""
    host, its_port = address[:2]
    return f"[{host}]:{its_port}" if ":" in host else f"{host}:{its_port}"


def enlarge_receive_buffer(sock: socket.socket) -> None:
    """To 1 MiB; the kernel caps it. A datagram lost here would look like a loss of the network."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)


def readable_by(deadline_ns: int, sock: socket.socket) -> bool:
    """Wait until something is there, until then. True also for what is here already, however late it is."""
    return bool(select.select([sock], [], [], max(0, deadline_ns - time.monotonic_ns()) / 1e9)[0])
