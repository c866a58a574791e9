"""Records that are sent, and compared with what comes back: what `seqpacket` and `sctp` have in common."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from testbed.programs._cli import listed, number, size_bytes, time_ns, within
from testbed.programs._errors import Failed
from testbed.programs._sending import pattern

LARGEST_RECORD = 1 << 14
IN_FLIGHT = 8  # records: so few fit into the socket buffers, and neither end ever waits for the other to read
record_size = within(size_bytes, 1, LARGEST_RECORD, "B")


class Book:
    """What a client sent and what came back, in order. It knows no socket."""

    def __init__(self, sizes: list[int], count: int) -> None:
        self.sizes, self.count = sizes, count
        self.sent = self.intact = self.shortened = self.corrupted = 0
        self.extra: dict[str, Any] = {}

    @property
    def received(self) -> int:
        return self.intact + self.shortened + self.corrupted

    def record(self, n: int) -> bytes:
        """The n-th; the sizes take turns."""
        return pattern(n, self.sizes[n % len(self.sizes)])

    def arrived(self, data: bytes) -> None:
        """The n-th that comes back is compared with the n-th that was sent: its bytes, its order, its borders."""
        expected = self.record(self.received)
        if data == expected:
            self.intact += 1
        elif data and expected.startswith(data):
            self.shortened += 1
        else:
            self.corrupted += 1

    def conclude(self) -> None:
        """A record cut short is something to measure; a missing or foreign one is not. Raises Failed."""
        if self.intact + self.shortened != self.count:
            raise Failed("EBADMSG", f"of {self.count} records, {self.intact} came back as they were sent")

    def records(self) -> Iterator[dict[str, Any]]:
        names = ("sent", "received", "intact", "shortened", "corrupted")
        whole = "yes" if self.intact == self.count else "no"
        yield {**self.extra, **{name: getattr(self, name) for name in names}, "whole": whole}


def add_buffer_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--buffer", type=record_size, default=LARGEST_RECORD, metavar="SIZE", help="of each receive; default 16KiB"
    )


def add_record_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--count", type=number, required=True, metavar="N", help="how many records")
    parser.add_argument(
        "--sizes", type=listed(record_size), required=True, metavar="SIZE,…", help="of records, taking turns"
    )
    parser.add_argument("--timeout", type=time_ns, default=30 * 10**9, metavar="TIME", help="of each wait; 30s")
