"""The sender of `message`: one socket that sends to everybody it is told, and hears what comes back."""

from __future__ import annotations

import socket
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator
from typing import Any

from testbed.programs._errors import doing, error_name, error_records
from testbed.programs._sending import pattern
from testbed.programs._sockets import look_up, readable_by
from testbed.programs.message_receiver import Messages

IP_MTU_DISCOVER, IP_PMTUDISC_DO = 10, 2  # include/uapi/linux/in.h, ip(7); Python 3.11 has no names for them


class Sender:
    """Sends from one socket and hears what comes back to it, from whomever, errors too."""

    def __init__(self) -> None:
        self.messages = Messages()
        self.unsent = self.received = 0
        self.peers: set[Any] = set()
        self.errors: Counter[str] = Counter()

    def work(self, arguments: Namespace) -> None:
        """Raises Failed."""
        addresses = []
        for host, its_port in arguments.to:
            family, address = look_up(host, its_port, socket.SOCK_DGRAM)
            addresses.append(address)
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            if arguments.bind is not None or arguments.port:
                with doing(f"binding {arguments.bind or 'any address'} port {arguments.port}"):
                    sock.bind((arguments.bind or "", arguments.port))
            if arguments.dont_fragment:
                sock.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
            if arguments.connect:
                with doing(f"connecting to {host} port {its_port}"):
                    sock.connect(addresses[0])
            n = 0
            for _ in range(arguments.count):
                for size in arguments.sizes:
                    for address in addresses:
                        self.send(sock, pattern(n, size), None if arguments.connect else address)
                    n += 1
                    self.hear_until(time.monotonic_ns() + arguments.interval, sock)
            self.hear_until(time.monotonic_ns() + arguments.timeout, sock)

    def send(self, sock: socket.socket, data: bytes, to: tuple[Any, ...] | None) -> None:
        """`to` is None on a connected socket. It may get the error of an earlier datagram in place of sending."""
        try:
            if to is None:
                sock.send(data)
            else:
                sock.sendto(data, to)
        except OSError as problem:
            self.unsent += 1
            self.errors[error_name(problem)] += 1
        else:
            self.messages.add(data)

    def hear_until(self, deadline_ns: int, sock: socket.socket) -> None:
        """Only a connected socket is told of an ICMP error (net/ipv4/udp.c); IP_RECVERR, ip(7), is for others."""
        while readable_by(deadline_ns, sock):
            try:
                _, peer = sock.recvfrom(1 << 16, socket.MSG_DONTWAIT)
                self.received += 1
                self.peers.add(peer)
            except BlockingIOError:  # select(2), BUGS
                continue
            except OSError as problem:
                self.errors[error_name(problem)] += 1

    def records(self) -> Iterator[dict[str, Any]]:
        yield from error_records(self.errors)
        yield {
            "sent": len(self.messages.sizes),
            "unsent": self.unsent,
            "payload_bytes": sum(self.messages.sizes),
            "received": self.received,
            "peers": len(self.peers),
            "errors": self.errors.total(),
            "digest": self.messages.digest(),
        }
