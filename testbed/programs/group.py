"""UDP to many: one datagram to all members of a multicast group, or by broadcast to everybody on a network.

To send takes little: the permission SO_BROADCAST for a broadcast, a reach (IP_MULTICAST_TTL) for a multicast. Who
hears it is decided by the receivers. A broadcast is heard by every socket with that port that is not bound to one
address of its host; a multicast by the sockets that joined the group.
"""

from __future__ import annotations

import argparse
import errno
import os
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Iterator
from ipaddress import IPv4Address, ip_address
from typing import Any

from testbed.programs._cli import add_client_arguments, add_server_arguments, number, time_ns, within
from testbed.programs._errors import doing, error_name, error_records
from testbed.programs._life import run
from testbed.programs._sending import pattern
from testbed.programs._serving import receive_until_sigterm
from testbed.programs._sockets import client_socket, enlarge_receive_buffer

SIZE_BYTES = 64
IP_MULTICAST_ALL = 49  # include/uapi/linux/in.h; Python 3.11 has no name for it
MREQN = struct.Struct("@4s4si")  # struct ip_mreqn, ip(7): group, address, interface (0: by the routes)


class Receiver:
    """A member of a group, or with none just a socket that hears broadcasts."""

    def __init__(self) -> None:
        self.received = 0
        self.peers: set[Any] = set()

    def work(self, arguments: argparse.Namespace) -> None:
        """Until SIGTERM, and then what is still in the socket. Raises Failed."""
        with receiving_socket(arguments.bind, arguments.port, arguments.join, arguments.device) as sock:
            enlarge_receive_buffer(sock)
            receive_until_sigterm(sock, lambda: self.receive(sock))

    def receive(self, sock: socket.socket) -> None:
        _, peer = sock.recvfrom(65536, socket.MSG_DONTWAIT)
        self.received += 1
        self.peers.add(peer)

    def records(self) -> Iterator[dict[str, Any]]:
        yield {"received": self.received, "peers": len(self.peers)}


def receiving_socket(bind: str, port: int, group: str | None, device: str | None) -> socket.socket:
    """Raises Failed."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # several programs of one host may be members
        with doing(f"binding {bind} port {port}"):
            sock.bind((bind, port))
        # else it would hear every group that any other program of this host has joined
        sock.setsockopt(socket.IPPROTO_IP, IP_MULTICAST_ALL, 0)
        if group is not None:
            with doing(f"joining {group}"):
                membership = MREQN.pack(socket.inet_aton(group), bytes(4), _index(device) if device else 0)
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
    except BaseException:
        sock.close()
        raise
    return sock


def _index(device: str) -> int:
    """The number of an interface. Raises OSError; that of `if_nametoindex` has no errno."""
    numbers = {name: number for number, name in socket.if_nameindex()}
    if device not in numbers:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
    return numbers[device]


class Sender:
    """Sends to a group or to everybody. It never learns who heard it."""

    def __init__(self) -> None:
        self.sent = 0
        self.errors: Counter[str] = Counter()

    def work(self, arguments: argparse.Namespace) -> None:
        """Raises Failed."""
        sock, to = client_socket(socket.SOCK_DGRAM, arguments)
        with sock:
            if ip_address(to[0]).is_multicast:
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, arguments.ttl)
            else:  # a broadcast without this permission is refused, EACCES
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            self.send(sock, to, arguments.count, arguments.interval)
            time.sleep(arguments.wait / 1e9)

    def send(self, sock: socket.socket, to: tuple[Any, ...], count: int, interval_ns: int) -> None:
        for n in range(count):
            try:
                sock.sendto(pattern(n, SIZE_BYTES), to)
                self.sent += 1
            except OSError as problem:
                self.errors[error_name(problem)] += 1
            time.sleep(interval_ns / 1e9)

    def records(self) -> Iterator[dict[str, Any]]:
        yield from error_records(self.errors)
        yield {"sent": self.sent, "errors": self.errors.total()}


# ---------------------------------------------------------------- the command line


def main(argv: list[str] | None = None) -> int:
    """The command `group`. Returns the exit status: 0 done, 1 a socket error; wrong arguments exit with 2."""
    arguments = _parser().parse_args(argv)
    if arguments.mode == "receive":
        receiver = Receiver()
        return run("group receive", lambda: receiver.work(arguments), receiver.records)
    sender = Sender()
    return run("group send", lambda: sender.work(arguments), sender.records)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="group", description="UDP sockets: multicast and broadcast.")
    modes = parser.add_subparsers(dest="mode", required=True, metavar="receive|send")

    receive = modes.add_parser("receive", help="count what comes, until SIGTERM")
    add_server_arguments(receive)
    receive.add_argument("--join", type=_multicast, metavar="IP", help="the group to join; default: none")
    receive.add_argument("--device", metavar="NAME", help="the interface to join on; default: by the routes")

    send = modes.add_parser("send", help="send to a multicast group or a broadcast address")
    add_client_arguments(send)
    send.add_argument("--count", type=number, default=1, metavar="N", help="how many; default 1")
    send.add_argument("--interval", type=time_ns, default=0, metavar="TIME", help="after each; default: none")
    send.add_argument(
        "--ttl", type=within(number, 0, 255), default=1, metavar="N", help="of multicast; default 1, this network"
    )
    send.add_argument(
        "--wait", type=time_ns, default=5 * 10**8, metavar="TIME", help="for the last to arrive; default 500ms"
    )
    return parser


def _multicast(text: str) -> str:
    try:
        if (address := IPv4Address(text)).is_multicast:
            return str(address)
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is no multicast address, as in 239.1.2.3")


if __name__ == "__main__":
    sys.exit(main())
