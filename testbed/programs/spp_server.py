"""The server of `spp`: every packet goes back under the header it came with. And what both ends count."""

from __future__ import annotations

import hashlib
import threading
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from testbed.programs._errors import error_name, error_records
from testbed.programs._ns import server_socket
from testbed.programs._serving import accepted
from testbed.programs.ns.packets import ATTENTION, END_OF_MESSAGE, SPP_BYTES, Spp
from testbed.programs.ns.sockets import SequencedPacketSocket


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

    def work(self, arguments: Namespace) -> None:
        """Never returns: SIGTERM ends it. Raises Failed."""
        listener = server_socket(lambda: SequencedPacketSocket(arguments.retransmit), arguments)
        for sock in accepted(listener.accept):
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
        yield from error_records(errors)
        yield {
            "connections": len(self.conversations),
            "received": sum(one.received for one in self.conversations),
            "payload_bytes": sum(one.payload_bytes for one in self.conversations),
            "attentions": sum(one.attentions for one in self.conversations),
            "errors": len(errors),
            **packet_counts([one.sock for one in self.conversations]),
        }
