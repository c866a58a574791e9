"""Sequenced packets between hosts: the Sequenced Packet Protocol of the Network Systems family, in user space.

As a stream, but with the boundaries of records, and with headers that are the user's: a server that sends every
packet back under the header it came with, and a client that counts which of its records came back whole. The
protocol is in `ns.connection`, the socket in `ns.sockets`; both ends need the capability NET_RAW.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from testbed.programs._cli import host_and_port, number, port, size_bytes, time_ns
from testbed.programs._errors import Failed, doing, error_name
from testbed.programs._life import run
from testbed.programs._sending import pattern
from testbed.programs._serving import say_ready
from testbed.programs.ns.connection import WINDOW
from testbed.programs.ns.packets import ATTENTION, END_OF_MESSAGE, LARGEST_DATA, SPP_BYTES, Spp
from testbed.programs.ns.sockets import (
    SO_DEFAULT_HEADERS,
    SO_HEADERS_ON_INPUT,
    SO_HEADERS_ON_OUTPUT,
    SO_LAST_HEADER,
    TIMEOUT_NS,
    SequencedPacketSocket,
)

LARGEST_RECORD = 1 << 16
OPENING = "opening a raw socket of IP protocol 22 (it needs the capability NET_RAW)"


class Digest:
    """Of records: equal if, and only if, they are the same ones in the same order with the same boundaries."""

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()

    def add(self, record: bytes) -> None:
        self._sha256.update(len(record).to_bytes(8, "big") + record)

    def __str__(self) -> str:
        return self._sha256.hexdigest()


def packet_counts(sockets: list[SequencedPacketSocket]) -> dict[str, int]:
    """What the protocol had to do, summed over sockets."""
    return {
        "packets_sent": sum(sock.idp.sent for sock in sockets),
        "retransmits": sum(sock.core.retransmitted for sock in sockets),
        "duplicated": sum(sock.core.duplicated for sock in sockets),
        "early": sum(sock.core.early for sock in sockets),
    }


# ---------------------------------------------------------------- the server


@dataclass
class Conversation:
    """One connection of the server, written by its own thread and read when all is over."""

    sock: SequencedPacketSocket
    received: int = 0
    payload_bytes: int = 0
    attentions: int = 0
    types: list[int] = field(default_factory=list)  # one for each packet
    digest: Digest = field(default_factory=Digest)
    error: str | None = None


class Echo:
    """Accepts connections and gives each a thread of its own, in which plain blocking calls are enough."""

    def __init__(self, plain: bool = False, ignore_ends: bool = False) -> None:
        self.plain, self.ignore_ends = plain, ignore_ends
        self.conversations: list[Conversation] = []

    def serve(self, listener: SequencedPacketSocket) -> None:
        """Never returns: SIGTERM ends it."""
        for option in (SO_HEADERS_ON_INPUT, SO_HEADERS_ON_OUTPUT):
            listener.setsockopt(option, not self.plain)
        say_ready()
        while True:
            with doing("accepting a connection"):
                sock, _ = listener.accept()
            self.conversations.append(Conversation(sock))
            threading.Thread(target=self._talk, args=(self.conversations[-1],), daemon=True).start()

    def _talk(self, conversation: Conversation) -> None:
        try:
            with conversation.sock as sock:
                if self.plain:
                    while (record := sock.recv()) is not None:
                        self._book(conversation, record)
                        sock.send(record)
                else:
                    self._packets(conversation, sock)
        except OSError as problem:
            conversation.error = error_name(problem)

    def _packets(self, conversation: Conversation, sock: SequencedPacketSocket) -> None:
        """Each comes with its header in front and goes back as it is: that is the prototype of the answer's.

        None goes back before its record is whole, or a large record would have both ends wait to be read.
        """
        packets: list[bytes] = []
        while (packet := sock.recv()) is not None:
            header = Spp.unpack(packet)
            conversation.types.append(header.datastream_type)
            if header.control & ATTENTION:
                conversation.attentions += 1
                continue
            if self.ignore_ends:
                header = replace(header, control=END_OF_MESSAGE)
                packet = header.pack() + packet[SPP_BYTES:]
            packets.append(packet)
            if header.control & END_OF_MESSAGE:
                self._book(conversation, b"".join(one[SPP_BYTES:] for one in packets))
                for one in packets:
                    sock.send(one)
                packets.clear()

    def _book(self, conversation: Conversation, record: bytes) -> None:
        conversation.received += 1
        conversation.payload_bytes += len(record)
        conversation.digest.add(record)

    def records(self) -> Iterator[dict[str, Any]]:
        for one in self.conversations:
            yield {"sha256": str(one.digest)}
            yield from ({"datastream_type": kind} for kind in one.types)
        errors = [one.error for one in self.conversations if one.error]
        yield from ({"error": name} for name in dict.fromkeys(errors))
        yield {
            "connections": len(self.conversations),
            "received": sum(one.received for one in self.conversations),
            "payload_bytes": sum(one.payload_bytes for one in self.conversations),
            "attentions": sum(one.attentions for one in self.conversations),
            "errors": len(errors),
            **packet_counts([one.sock for one in self.conversations]),
        }


# ---------------------------------------------------------------- the client


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

    def work(self, arguments: argparse.Namespace) -> None:
        with doing(OPENING):
            self.sock = sock = SequencedPacketSocket(arguments.retransmit)
        host, number_there = arguments.to
        with doing(f"looking up {host}"):
            address = socket.gethostbyname(host)
        with doing(f"talking to {host} socket {number_there}"), sock:
            sock.bind((arguments.bind, 0))
            sock.settimeout(arguments.timeout / 1e9)
            if arguments.default_type is not None:
                sock.setsockopt(SO_DEFAULT_HEADERS, Spp(END_OF_MESSAGE, arguments.default_type).pack())
            sock.setsockopt(SO_HEADERS_ON_OUTPUT, arguments.write_types is not None)
            sock.setsockopt(SO_HEADERS_ON_INPUT, arguments.read_headers)
            start_ns = time.monotonic_ns()
            sock.connect((address, number_there))
            self.summary["connect_time_ms"] = (time.monotonic_ns() - start_ns) / 1e6
            self._exchange(sock, arguments)
        self.summary["whole"] = "yes"

    def _exchange(self, sock: SequencedPacketSocket, arguments: argparse.Namespace) -> None:
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


# ---------------------------------------------------------------- the command line


def main(argv: list[str] | None = None) -> int:
    """The command `spp`. Returns the exit status: 0 done, 1 a socket error; wrong arguments exit with 2."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.mode == "echo":
        echo = Echo(arguments.plain, arguments.ignore_end_of_message)
        return run("spp echo", lambda: _listen(echo, arguments), echo.records)
    packets = -(-max(arguments.sizes) // LARGEST_DATA)
    if arguments.ahead > 1 and arguments.ahead * packets > WINDOW:  # both ends could wait for the other to read
        parser.error(
            f"--ahead {arguments.ahead} records of {packets} packets are more than the window of {WINDOW}"
        )
    send = Send()
    return run("spp send", lambda: send.work(arguments), send.records)


def _listen(echo: Echo, arguments: argparse.Namespace) -> None:
    with doing(OPENING):
        listener = SequencedPacketSocket(arguments.retransmit)
    with doing(f"binding {arguments.bind} socket {arguments.port}"):
        listener.bind((arguments.bind, arguments.port))
    if arguments.port == 0:
        print(f"port {listener.getsockname()[1]}", file=sys.stderr, flush=True)
    echo.serve(listener)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="spp", description="Sequenced packets over IDP: a server and a client.")
    modes = parser.add_subparsers(dest="mode", required=True, metavar="echo|send")
    echo = modes.add_parser("echo", help="send every packet back under its own header, until SIGTERM")
    echo.add_argument("--port", type=port, required=True, metavar="N", help="the NS socket number; 0: any")
    echo.add_argument("--plain", action="store_true", help="ask for no headers and write none")
    echo.add_argument("--ignore-end-of-message", action="store_true", help="take every packet for a whole record")
    send = modes.add_parser("send", help="send records to `spp echo` and count what comes back")
    send.add_argument("to", type=host_and_port, metavar="HOST:PORT")
    send.add_argument("--count", type=_some, required=True, metavar="N", help="how many records")
    send.add_argument("--sizes", type=_sizes, required=True, metavar="SIZE,...", help="of them, in turn: 1B,2kB")
    send.add_argument("--ahead", type=_some, default=1, metavar="N", help="how many may be under way; default 1")
    types = send.add_mutually_exclusive_group()
    types.add_argument("--default-type", type=_type, metavar="N", help="the datastream type: SO_DEFAULT_HEADERS")
    types.add_argument(
        "--write-types", type=_types, metavar="N,...", help="in turn, one with each record: SO_HEADERS_ON_OUTPUT"
    )
    send.add_argument("--read-headers", action="store_true", help="of each packet: SO_HEADERS_ON_INPUT")
    send.add_argument("--attention", action="store_true", help="send an attention byte after the last record")
    send.add_argument(
        "--timeout", type=_time, default=30 * 10**9, metavar="TIME", help="of each wait; default 30s"
    )
    for mode in (echo, send):
        mode.add_argument("--bind", default="0.0.0.0", metavar="IP", help="default: every IPv4 address")
        mode.add_argument(
            "--retransmit", type=_time, default=TIMEOUT_NS, metavar="TIME", help="after how long; default 200ms"
        )
    return parser


def _some(text: str) -> int:
    if not number(text):
        raise argparse.ArgumentTypeError("0 is none at all")
    return number(text)


def _time(text: str) -> int:
    if not time_ns(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no time at all")
    return time_ns(text)


def _sizes(text: str) -> list[int]:
    sizes = [size_bytes(word) for word in text.split(",")]
    if max(sizes) > LARGEST_RECORD:
        raise argparse.ArgumentTypeError(f"{text!r} has more than {LARGEST_RECORD}B")
    return sizes


def _type(text: str) -> int:
    if number(text) > 253:
        raise argparse.ArgumentTypeError(f"{text!r} is not from 0 to 253; 254 and 255 close a connection")
    return number(text)


def _types(text: str) -> list[int]:
    return [_type(word) for word in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
