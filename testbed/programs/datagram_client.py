"""The client of `datagram`: a probe that counts what came back, and how, and when.

It needs nothing but an echo from its peer: any UDP echo server in any language will do. All that it counts is
about the round trip. What it cannot see from its end (on which way a datagram was lost) it does not guess.
"""

from __future__ import annotations

import socket
import struct
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from testbed.programs._errors import doing, error_name, error_records
from testbed.programs._sending import pattern
from testbed.programs._sockets import client_socket, enlarge_receive_buffer, readable_by

HEADER = struct.Struct("!IIQ")  # the probe's id, the datagram's number, when it was sent (monotonic ns)
SO_TIMESTAMPNS = 35  # include/uapi/asm-generic/socket.h; Python 3.11 has no name for it
TIMESPEC = struct.Struct("@ll")


class Probe:
    """The book of one probe: what was sent, what came back. It knows no socket and no clock."""

    def __init__(self, probe_id: int, size: int) -> None:
        self.probe_id, self.size = probe_id, size
        self.sent_ns: dict[int, int] = {}  # number -> when
        self.copies: Counter[int] = Counter()  # number -> how often it came back intact
        self.delays_ns: list[int] = []
        self.unsent = self.reordered = self.corrupted = 0
        self.late_ns = 0  # the furthest that a sending was behind its time
        self.errors: Counter[str] = Counter()
        self._highest = -1

    def datagram(self, number: int, sent_ns: int) -> bytes:
        return HEADER.pack(self.probe_id, number, sent_ns) + pattern(number, self.size - HEADER.size)

    def arrived(self, data: bytes, now_ns: int) -> None:
        """Book one datagram that came back.

        A corrupted one counts as not received (RFC 7680, section 2), a second copy counts as duplicated and for
        nothing else (RFC 5560), and one is reordered if a higher number was here before it (RFC 4737, section 3).
        """
        number = HEADER.unpack_from(data)[1] if len(data) >= HEADER.size else -1
        sent_ns = self.sent_ns.get(number)
        if sent_ns is None or data != self.datagram(number, sent_ns):
            self.corrupted += 1
            return
        self.copies[number] += 1
        if self.copies[number] > 1:
            return
        self.delays_ns.append(now_ns - sent_ns)
        if number < self._highest:
            self.reordered += 1
        else:
            self._highest = number

    def loss_periods(self) -> list[int]:
        """The lengths of the runs of consecutive losses, in datagrams (RFC 3357)."""
        fates = groupby(number not in self.copies for number in sorted(self.sent_ns))
        return [sum(1 for _ in period) for lost, period in fates if lost]

    def records(self) -> Iterator[dict[str, Any]]:
        yield from ({"round_trip_delay_ms": delay_ns / 1e6} for delay_ns in self.delays_ns)
        yield from ({"loss_period": length} for length in self.loss_periods())
        yield from error_records(self.errors)
        sent, received = len(self.sent_ns), len(self.copies)
        summary: dict[str, Any] = {
            "id": self.probe_id,
            "sent": sent,
            "unsent": self.unsent,
            "received": received,
            "lost": sent - received,
            "duplicated": self.copies.total() - received,
            "reordered": self.reordered,
            "corrupted": self.corrupted,
            "errors": self.errors.total(),
            "send_lateness_ms": self.late_ns / 1e6,
        }
        if sent:
            summary["loss_ratio"] = {"count": sent - received, "of": sent}
        if received:
            summary["reordered_ratio"] = {"count": self.reordered, "of": received}
            twice = sum(copies > 1 for copies in self.copies.values())
            summary["duplicate_ratio"] = {"count": twice, "of": received}
        yield summary


def work(book: Probe, arguments: Namespace) -> None:
    """Raises Failed."""
    sock, address = client_socket(socket.SOCK_DGRAM, arguments)
    with sock:
        host, its_port = arguments.to
        with doing(f"connecting to {host} port {its_port}"):  # so that ICMP errors reach us; nothing is sent
            sock.connect(address)
        probe(sock, book, arguments.count, arguments.interval, arguments.timeout)


def probe(sock: socket.socket, book: Probe, count: int, interval_ns: int, timeout_ns: int) -> None:
    """Send `count` datagrams at a steady pace over a connected socket, book what comes back, wait for the last.

    The n-th is due at start + n * interval, whatever became of those before it: errors of sleeping do not add up.
    """
    enlarge_receive_buffer(sock)
    sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
    start_ns = time.monotonic_ns()
    for n in range(count):
        due_ns = start_ns + n * interval_ns
        _receive_until(due_ns, sock, book)
        _send(n, sock, book)
        book.late_ns = max(book.late_ns, book.sent_ns.get(n, due_ns) - due_ns)
    _receive_until(time.monotonic_ns() + timeout_ns, sock, book)


def _send(n: int, sock: socket.socket, book: Probe) -> None:
    """The kernel reports an ICMP error of an earlier datagram in place of sending this one, once: so try twice."""
    for _ in range(2):
        now_ns = book.sent_ns[n] = time.monotonic_ns()  # booked first: SIGTERM may come at any moment
        try:
            sock.send(book.datagram(n, now_ns))
            return
        except OSError as problem:
            del book.sent_ns[n]
            book.errors[error_name(problem)] += 1
    book.unsent += 1


def _receive_until(deadline_ns: int, sock: socket.socket, book: Probe) -> None:
    """Book what arrives until then; at least what is here already, however late it is."""
    while readable_by(deadline_ns, sock):
        try:
            book.arrived(*_receive(sock))
        except BlockingIOError:  # select(2), BUGS: the datagram may be thrown away in between for its checksum
            continue
        except OSError as problem:
            book.errors[error_name(problem)] += 1


def _receive(sock: socket.socket) -> tuple[bytes, int]:
    """A datagram and when the kernel got it: how long we took to wake up is no part of the network's delay."""
    data, ancillary, _, _ = sock.recvmsg(65536, socket.CMSG_SPACE(TIMESPEC.size), socket.MSG_DONTWAIT)
    wall_ns, now_ns = time.time_ns(), time.monotonic_ns()  # in this order: a pause between them only adds delay
    for level, kind, stamp in ancillary:
        if (level, kind, len(stamp)) == (socket.SOL_SOCKET, SO_TIMESTAMPNS, TIMESPEC.size):
            seconds, ns = TIMESPEC.unpack(stamp)
            age_ns = wall_ns - seconds * 10**9 - ns
            if 0 <= age_ns < 10**9:  # else somebody has set the wall clock
                return data, now_ns - age_ns
    return data, now_ns
