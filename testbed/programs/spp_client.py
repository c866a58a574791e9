"""The client of `spp`: sends records and counts which of them came back whole."""

from __future__ import annotations

import itertools
import socket
import time
from argparse import Namespace
from collections import deque
from collections.abc import Iterator
from typing import Any

from testbed.programs._errors import Failed
from testbed.programs._ns import opened, talking
from testbed.programs._sending import pattern
from testbed.programs.ns.packets import END_OF_MESSAGE, SPP_BYTES, Spp
from testbed.programs.ns.sockets import SO_HEADERS_ON_INPUT, SO_LAST_HEADER, SequencedPacketSocket
from testbed.programs.spp_server import Digest, packet_counts


class Send:
    """Records there and back. `--ahead` of them are under way at once, so that one can overtake another."""

    def __init__(self) -> None:
        self.sock: SequencedPacketSocket | None = None
        self.summary: dict[str, Any] = {"sent": 0, "received": 0, "corrupted": 0, "whole": "no"}
        self.samples: list[dict[str, Any]] = []
        self.digest = Digest()

    def records(self) -> Iterator[dict[str, Any]]:
        yield from self.samples
        counts = packet_counts([self.sock]) if self.sock else {}
        yield {**self.summary, "sha256": str(self.digest), **counts}

    def work(self, arguments: Namespace) -> None:
        self.sock = sock = opened(lambda: SequencedPacketSocket(arguments.retransmit))
        with talking(sock, lambda kind: Spp(END_OF_MESSAGE, kind), arguments) as peer:
            start_ns = time.monotonic_ns()
            sock.connect(peer)
            self.summary["connect_time_ms"] = (time.monotonic_ns() - start_ns) / 1e6
            self._exchange(sock, arguments)
        self.summary["whole"] = "yes"

    def _exchange(self, sock: SequencedPacketSocket, arguments: Namespace) -> None:
        types = itertools.cycle(arguments.write_types or [0])
        sizes = itertools.cycle(arguments.sizes)
        waiting: deque[bytes] = deque()
        for n in range(arguments.count):
            record = pattern(n, next(sizes))
            self.digest.add(record)
            prototype = Spp(END_OF_MESSAGE, next(types)).pack() if arguments.write_types else b""
            sock.send(prototype + record)
            self.summary["sent"] += 1
            waiting.append(record)
            if len(waiting) >= arguments.ahead:
                self._compare(sock, waiting.popleft())
        if arguments.attention:
            prototype = Spp().pack() if arguments.write_types else b""
            sock.send(prototype + b"!", socket.MSG_OOB)
        while waiting:
            self._compare(sock, waiting.popleft())

    def _compare(self, sock: SequencedPacketSocket, record: bytes) -> None:
        """The next record that comes back is this one, or is not."""
        answer = self._receive(sock)
        if answer is None:
            raise EOFError("the peer closed before it had returned everything")
        self.summary["received" if answer == record else "corrupted"] += 1
        if answer != record:  # all that follows would be compared with the wrong one
            n = self.summary["received"]
            raise Failed("EBADMSG", f"record {n} came back as {len(answer)} bytes that are not its {len(record)}")

    def _receive(self, sock: SequencedPacketSocket) -> bytes | None:
        """A record: as the socket puts it together, or out of packets with headers, by the end-of-message bit."""
        if not sock.getsockopt(SO_HEADERS_ON_INPUT):
            record = sock.recv()
            self._sample(sock.getsockopt(SO_LAST_HEADER))
            return record
        record = b""
        while (packet := sock.recv()) is not None:
            header = self._sample(packet)
            record += packet[SPP_BYTES:]
            if header.control & END_OF_MESSAGE:
                return record
        return None

    def _sample(self, header: bytes | int) -> Spp:
        assert isinstance(header, bytes)
        found = Spp.unpack(header)
        self.samples.append({"datastream_type": found.datastream_type})
        return found
