"""One end of a connection of the Sequenced Packet Protocol: bytes in, events out. No socket, no clock, no thread.

Source: "Internet Transport Protocols", XNSS 028112, the part on SPP; where it leaves the choice, 4.3BSD's spp(4).
What goes in and comes out are packets of SPP: the 12-byte header and data, without that of IDP.

- `connect` or `Connection.accept`, then `send`, `send_attention` and `close` say what is wanted.
- `receive_packet` takes what came; `next_event` says what it means. Call that until there is no more.
- `packets_to_send` gives what has to go out by now, retransmissions included; `timer_ns` says when to ask again.

Times are nanoseconds of any clock that never goes back. Sequence numbers count packets of data, from 0 and modulo
2**16; a system packet carries the next one and does not use it up. The acknowledge number is the first that is yet
to be seen here, the allocation number the last that is welcome. Nobody acknowledges unasked: the last packet that
the window or the queue has asks for it, and so does each retransmission.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from testbed.programs.ns.packets import (
    ATTENTION,
    END,
    END_OF_MESSAGE,
    END_REPLY,
    LARGEST_DATA,
    SEND_ACKNOWLEDGEMENT,
    SPP_BYTES,
    SYSTEM_PACKET,
    BadPacket,
    Spp,
)

WINDOW = 16  # packets that this end takes before its user has
LARGEST_BACKOFF = 3  # the time-out doubles with each one in silence, this often at most
DALLY_TIMEOUTS = 4  # how long the end that closed last stays to acknowledge again what it had acknowledged


@dataclass(frozen=True)
class Connected:
    """Both ends know both connection ids."""


@dataclass(frozen=True)
class Packet:
    """Data in its turn: each packet once, in order. END_OF_MESSAGE in `header.control`: the last of a record."""

    header: Spp
    data: bytes


@dataclass(frozen=True)
class Attention:
    """A packet with the attention bit came, maybe ahead of its turn. It comes again as a Packet in its turn."""

    data: bytes


@dataclass(frozen=True)
class PeerEnded:
    """The peer has sent its last and asks to close: send what is left, then `close`."""


@dataclass(frozen=True)
class Closed:
    """Both ends have agreed to close and know it."""


@dataclass(frozen=True)
class Failed:
    """The peer has said nothing for so many time-outs that it is given up."""


Event = Connected | Packet | Attention | PeerEnded | Closed | Failed


@dataclass
class _Outgoing:
    control: int
    datastream_type: int
    data: bytes
    sequence: int = 0
    sent_ns: int = 0


def behind(a: int, b: int) -> int:
    """How far sequence number a is behind b, from -32768 to 32767."""
    return (b - a + 0x8000) % 0x10000 - 0x8000


class Connection:
    """`timeout_ns`: how long to wait for an answer; `attempts`: how often in complete silence before giving up."""

    def __init__(self, local_id: int, timeout_ns: int, attempts: int = 10, window: int = WINDOW) -> None:
        if not 0 < local_id < 0x10000 or not 0 < window < 0x8000:
            raise ValueError(f"connection id {local_id} or window {window} is not from 1 to 65,535 or 32,767")
        self.local_id, self.peer_id = local_id, 0
        self.timeout_ns, self.attempts, self.window = timeout_ns, attempts, window
        self.state = "idle"  # connecting | accepting | open | dallying | closed | failed
        self.retransmitted = self.duplicated = self.early = (
            0  # packets: sent again; came again; came before their turn
        )
        self._events: deque[Event] = deque()
        self._queue: deque[_Outgoing] = deque()  # never sent
        self._unacknowledged: deque[_Outgoing] = deque()  # sent, in order
        self._sequence = 0  # of the next new packet
        self._peer_allocation = 0xFFFF  # nothing may be sent
        self._expected = 0  # the acknowledge number
        self._waiting: dict[int, Packet] = {}  # came before their turn
        self._taken = 0  # how many the user has had: as far as the window moves
        self._told_allocation = window - 1
        self._answer = False  # something has to be sent, be it only a system packet
        self._silent = 0  # time-outs since the peer was heard
        self._sent_ns: int | None = None  # when anything was last sent
        self._heard = False  # restarts the dallying
        self._end = self._end_reply = self._peer_end = self._peer_end_reply = self._last_word = False

    # ------------------------------------------------------------ what the user wants

    def connect(self) -> None:
        """Open the connection from this end."""
        self._expect("idle")
        self.state = "connecting"

    @classmethod
    def accept(
        cls, opening: bytes, local_id: int, timeout_ns: int, attempts: int = 10, window: int = WINDOW
    ) -> Connection:
        """The other end of one that `opening` asks for. Raises BadPacket if that does not open a connection."""
        header = Spp.unpack(opening)
        if header.destination_id or not header.source_id:
            raise BadPacket("a packet that opens a connection has a source connection id and no other")
        connection = cls(local_id, timeout_ns, attempts, window)
        connection.state, connection.peer_id = "accepting", header.source_id
        connection._peer_allocation = header.allocation
        return connection

    def send(self, data: bytes, control: int = END_OF_MESSAGE, datastream_type: int = 0) -> None:
        """Queue data, in as many packets as it takes; END_OF_MESSAGE in `control` goes onto the last of them.

        Other bits of `control` do not count. Raises ValueError for a datastream type that closes a connection, or
        when the connection is closing.
        """
        if datastream_type in (END, END_REPLY):
            raise ValueError(f"datastream type {datastream_type} closes a connection: call close()")
        parts = [data[at : at + LARGEST_DATA] for at in range(0, len(data), LARGEST_DATA)] or [b""]
        for part in parts[:-1]:
            self._put(0, datastream_type, part)
        self._put(control & END_OF_MESSAGE, datastream_type, parts[-1])

    def send_attention(self, byte: bytes, datastream_type: int = 0) -> None:
        """Queue one byte that the peer's user is told of as soon as it arrives. Raises ValueError for others."""
        if len(byte) != 1:
            raise ValueError(f"an attention packet carries one byte, not {len(byte)}")
        self._put(ATTENTION, datastream_type, byte)

    def close(self) -> None:
        """After all that is queued, ask the peer to close, or agree if it has asked."""
        self._require_sending()
        if self._peer_end:
            self._reply()
        else:
            self._put(END_OF_MESSAGE, END, b"")
            self._end = True

    @property
    def unsent(self) -> int:
        """Packets that wait for the window."""
        return len(self._queue)

    # ------------------------------------------------------------ from the network

    def receive_packet(self, packet: bytes) -> None:
        """Take one packet of SPP. What does not belong to this connection is ignored."""
        try:
            header = Spp.unpack(packet)
        except BadPacket:
            return
        if self.state == "connecting" and header.source_id:
            known = (header.source_id, self.local_id)
        else:
            known = (self.peer_id, self.local_id)
        if (header.source_id, header.destination_id) != known or self.state in ("idle", "closed", "failed"):
            return
        if self.state in ("connecting", "accepting"):
            self._answer = self.state == "connecting"  # the third packet: now the peer knows as well
            self.state, self.peer_id = "open", header.source_id
            self._events.append(Connected())
        self._silent, self._heard = 0, True
        self._acknowledged(header)
        if header.control & SEND_ACKNOWLEDGEMENT:
            self._answer = True
        if not header.control & SYSTEM_PACKET:
            self._sequenced(header, packet[SPP_BYTES:])
        self._look_for_the_end()

    def _acknowledged(self, header: Spp) -> None:
        if behind(self._peer_allocation, header.allocation) > 0:  # an older packet may say less
            self._peer_allocation = header.allocation
        if behind(header.acknowledge, self._sequence) >= 0:  # else it is of what was never sent
            while self._unacknowledged and behind(self._unacknowledged[0].sequence, header.acknowledge) > 0:
                self._unacknowledged.popleft()

    def _sequenced(self, header: Spp, data: bytes) -> None:
        ahead = behind(self._expected, header.sequence)
        if ahead < 0 or header.sequence in self._waiting:
            self.duplicated += 1
            return
        if behind(header.sequence, self._allocation) < 0:  # more than was allowed
            return
        self.early += ahead > 0
        self._waiting[header.sequence] = packet = Packet(header, data)
        if header.control & ATTENTION:
            self._events.append(Attention(packet.data))
        while (following := self._waiting.pop(self._expected, None)) is not None:
            self._expected = (self._expected + 1) % 0x10000
            self._deliver(following)

    def _deliver(self, packet: Packet) -> None:
        kind = packet.header.datastream_type
        if kind not in (END, END_REPLY):
            self._events.append(packet)
            return
        self._taken += 1  # no user takes these
        if kind == END:
            self._peer_end = True
            if self._end:  # both have asked at the same time
                self._reply()
            else:
                self._events.append(PeerEnded())
        else:
            self._peer_end_reply = True
            if not self._end_reply:
                self._last_word = True
                self._reply()

    def next_event(self) -> Event | None:
        """The next of what happened. A Packet that is taken makes room in the window."""
        if not self._events:
            return None
        event = self._events.popleft()
        if isinstance(event, Packet):
            self._taken += 1
            if 2 * behind(self._told_allocation, self._allocation) >= self.window:
                self._answer = True  # else a peer that waits for the window would not know
        return event

    # ------------------------------------------------------------ to the network

    def packets_to_send(self, now_ns: int) -> list[bytes]:
        """What has to be sent by now, in this order."""
        out: list[bytes] = []
        if self.state == "dallying" and self._heard:
            self._sent_ns, self._heard = now_ns, False  # it counts from the last word that was heard
        due_ns = self.timer_ns()
        if due_ns is not None and due_ns <= now_ns:
            self._time_out(now_ns, out)
        if self.state == "open":
            while self._queue and not self._window_is_full:
                self._send_new(self._queue.popleft(), now_ns, out)
        if self._answer and not out and self.state in ("open", "dallying"):
            out.append(self._packet(SYSTEM_PACKET, 0, b"", self._sequence))
        if out:
            self._sent_ns = now_ns
        return out

    def timer_ns(self) -> int | None:
        """When to call `packets_to_send` though nothing has come: None for never, the past for at once."""
        wait_ns = self.timeout_ns << min(self._silent, LARGEST_BACKOFF)
        if self.state in ("connecting", "accepting"):
            return 0 if self._sent_ns is None else self._sent_ns + wait_ns
        if self.state == "dallying":
            return (self._sent_ns or 0) + DALLY_TIMEOUTS * self.timeout_ns
        if self.state != "open":
            return None
        if self._unacknowledged:
            return self._unacknowledged[0].sent_ns + wait_ns
        # Nothing is under way, so no answer will come by itself: ask, or one lost packet could stop both ends.
        closing = (self._end or self._end_reply) and not self._peer_end_reply
        waiting = self._window_is_full if self._queue else closing
        return (self._sent_ns or 0) + wait_ns if waiting else None

    def _time_out(self, now_ns: int, out: list[bytes]) -> None:
        if self.state == "dallying":
            self._finish("closed", Closed())
            return
        if self._sent_ns is not None:
            self._silent += 1
        if self._silent > self.attempts:
            # With the peer's END-REPLY in hand nothing is missing but its thanks.
            self._finish(*(("closed", Closed()) if self._peer_end_reply else ("failed", Failed())))
        elif self.state == "open" and self._unacknowledged:
            # Only the first: what else is missing is overdue as well, and follows when this one is acknowledged.
            first = self._unacknowledged[0]
            first.sent_ns = now_ns
            self.retransmitted += 1
            out.append(
                self._packet(
                    first.control | SEND_ACKNOWLEDGEMENT, first.datastream_type, first.data, first.sequence
                )
            )
        else:
            out.append(self._packet(SYSTEM_PACKET | SEND_ACKNOWLEDGEMENT, 0, b"", self._sequence))

    def _send_new(self, item: _Outgoing, now_ns: int, out: list[bytes]) -> None:
        item.sequence, item.sent_ns = self._sequence, now_ns
        self._sequence = (self._sequence + 1) % 0x10000
        self._unacknowledged.append(item)
        last = not self._queue or item.sequence == self._peer_allocation
        ask = SEND_ACKNOWLEDGEMENT if last else 0
        out.append(self._packet(item.control | ask, item.datastream_type, item.data, item.sequence))

    def _packet(self, control: int, datastream_type: int, data: bytes, sequence: int) -> bytes:
        """Every packet says how far we are, so every packet is an answer."""
        self._answer, self._told_allocation = False, self._allocation
        ids = (self.local_id, self.peer_id)
        return Spp(control, datastream_type, *ids, sequence, self._expected, self._allocation).pack() + data

    @property
    def _window_is_full(self) -> bool:
        return behind(self._sequence, self._peer_allocation) < 0

    @property
    def _allocation(self) -> int:
        return (self._taken + self.window - 1) % 0x10000

    # ------------------------------------------------------------ the end

    def _reply(self) -> None:
        self._put(END_OF_MESSAGE, END_REPLY, b"")
        self._end_reply = True

    def _look_for_the_end(self) -> None:
        """Both END-REPLYs are there and ours is acknowledged.

        If ours was the last word, the peer had seen everything when it acknowledged that. Else it may still ask.
        """
        if self._peer_end_reply and self._end_reply and not self._queue and not self._unacknowledged:
            if self._last_word:
                self._finish("closed", Closed())
            elif self.state == "open":
                self.state = "dallying"

    def _finish(self, state: str, event: Event) -> None:
        self.state = state
        self._events.append(event)

    def _put(self, control: int, datastream_type: int, data: bytes) -> None:
        if datastream_type != END_REPLY:
            self._require_sending()
        self._queue.append(_Outgoing(control, datastream_type, data))

    def _require_sending(self) -> None:
        if self.state not in ("connecting", "accepting", "open") or self._end or self._end_reply:
            raise ValueError(
                f"nothing can be sent: the connection is {self.state if not self._end else 'closing'}"
            )

    def _expect(self, state: str) -> None:
        if self.state != state:
            raise ValueError(f"the connection is {self.state}, not {state}")
