"""One end of SPP against another, over a network in memory that loses, doubles and delays. Time is a number."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from testbed.programs.ns.connection import (
    Attention,
    Closed,
    Connected,
    Connection,
    Event,
    Failed,
    Packet,
    PeerEnded,
    behind,
)
from testbed.programs.ns.packets import (
    ATTENTION,
    END,
    END_OF_MESSAGE,
    END_REPLY,
    LARGEST_DATA,
    SEND_ACKNOWLEDGEMENT,
    SYSTEM_PACKET,
    BadPacket,
    Spp,
)

MS = 10**6
TIMEOUT = 100 * MS

# What becomes of one packet: the delays of its copies in ms. None: lost; two: duplicated; unequal ones: reordered.
Fate = tuple[int, ...]
PERFECT: Fate = (5,)


class End:
    """A connection and what it said. `reads`: how often its user takes an event, for one that is slow."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.events: list[Event] = []
        self.closes = False  # as soon as its peer has asked
        self.reading = True
        self.sent: list[Spp] = []

    def take(self) -> None:
        while self.reading and (event := self.connection.next_event()) is not None:
            self.events.append(event)
            if isinstance(event, PeerEnded) and self.closes:
                self.connection.close()

    def records(self) -> list[tuple[int, bytes]]:
        """(datastream type, data) of each record, put together from its packets."""
        found, parts = [], b""
        for packet in (event for event in self.events if isinstance(event, Packet)):
            if packet.header.control & ATTENTION:
                continue
            parts += packet.data
            if packet.header.control & END_OF_MESSAGE:
                found.append((packet.header.datastream_type, parts))
                parts = b""
        assert parts == b""
        return found

    def has(self, kind: type) -> bool:
        return any(isinstance(event, kind) for event in self.events)


class World:
    """Two ends and a network with fates for each direction, in order; when they are used up it is perfect."""

    def __init__(
        self, fates: tuple[list[Fate], list[Fate]] = ([], []), window: int = 4, attempts: int = 40
    ) -> None:
        self.now_ns = 0
        self.client = End(Connection(0x1001, TIMEOUT, attempts, window))
        self.server: End | None = None
        self.window, self.attempts = window, attempts
        self.fates = (iter(fates[0]), iter(fates[1]))
        self.flying: list[tuple[int, int, int, bytes]] = []  # (when, order, to which end, packet)
        self.flown = 0
        self.client.connection.connect()
        self.prepare: Callable[[End], None] = lambda end: None

    def ends(self) -> list[tuple[int, End]]:
        return [(n, end) for n, end in enumerate((self.client, self.server)) if end is not None]

    def exchange(self) -> None:
        """Whatever either end has to send now, and whatever is there to be taken."""
        for n, end in self.ends():
            end.take()
            for packet in end.connection.packets_to_send(self.now_ns):
                self.check_window(n, packet)
                end.sent.append(Spp.unpack(packet))
                for delay_ms in next(self.fates[n], PERFECT):
                    self.flown += 1
                    heapq.heappush(self.flying, (self.now_ns + delay_ms * MS, self.flown, 1 - n, packet))
            end.take()

    def check_window(self, n: int, packet: bytes) -> None:
        """No packet beyond what the other end has said that it takes."""
        header = Spp.unpack(packet)
        other = self.ends()[1 - n][1] if self.server else None
        if other and other.sent and not header.control & SYSTEM_PACKET:
            allowed = max(behind(0, one.allocation) for one in other.sent)
            assert behind(0, header.sequence) <= allowed

    def step(self) -> bool:
        """Go on to the next thing that happens. False if nothing ever will."""
        self.exchange()
        times = [end.connection.timer_ns() for _, end in self.ends()] + [at for at, *_ in self.flying[:1]]
        coming = [at for at in times if at is not None]
        if not coming:
            return False
        self.now_ns = max(self.now_ns, min(coming))
        while self.flying and self.flying[0][0] <= self.now_ns:
            _, _, to, packet = heapq.heappop(self.flying)
            self.arrive(to, packet)
        return True

    def arrive(self, to: int, packet: bytes) -> None:
        if to == 0:
            self.client.connection.receive_packet(packet)
        elif self.server is not None:
            self.server.connection.receive_packet(packet)
        elif Spp.unpack(packet).destination_id == 0:  # a listener remembers whom it has accepted
            self.server = End(Connection.accept(packet, 0x2002, TIMEOUT, self.attempts, self.window))
            self.server.closes = True
            self.prepare(self.server)

    def run(self, until: Callable[[], bool] | None = None, steps: int = 20_000) -> None:
        """Until that is so, or else until nothing happens any more."""
        for _ in range(steps):
            if until and until():
                return
            if not self.step():
                assert until is None or until(), "nothing will ever happen any more"
                return
        raise AssertionError("this never ends")


def connected(window: int = 4, attempts: int = 40) -> tuple[World, Connection, Connection]:
    world = World(window=window, attempts=attempts)
    world.run(until=lambda: world.server is not None and world.server.has(Connected))
    assert world.server
    world.exchange()
    return world, world.client.connection, world.server.connection


# ---------------------------------------------------------------- what is on the wire


def test_three_packets_open_a_connection() -> None:
    world, client, server = connected(window=4)
    assert world.server
    assert world.client.sent == [
        Spp(SYSTEM_PACKET | SEND_ACKNOWLEDGEMENT, 0, 0x1001, 0, 0, 0, 3),
        Spp(SYSTEM_PACKET, 0, 0x1001, 0x2002, 0, 0, 3),
    ]
    assert world.server.sent == [Spp(SYSTEM_PACKET | SEND_ACKNOWLEDGEMENT, 0, 0x2002, 0x1001, 0, 0, 3)]
    assert (client.state, server.state) == ("open", "open")
    assert world.client.events == world.server.events == [Connected()]


def test_a_record_of_three_packets_has_the_end_of_message_on_its_last() -> None:
    world, client, _ = connected()
    client.send(bytes(2 * LARGEST_DATA + 1), datastream_type=7)
    headers = [Spp.unpack(packet) for packet in client.packets_to_send(world.now_ns)]
    assert [(h.sequence, h.control, h.datastream_type) for h in headers] == [
        (0, 0, 7),
        (1, 0, 7),
        (2, END_OF_MESSAGE | SEND_ACKNOWLEDGEMENT, 7),
    ]


def test_a_group_of_packets_may_be_written_piece_by_piece() -> None:
    world, client, _ = connected()
    client.send(b"ab", control=0)
    client.send(b"cd", control=0)
    client.send(b"", control=END_OF_MESSAGE)
    world.run(until=lambda: len(world.server.events) == 4)  # type: ignore[union-attr]
    assert world.server and world.server.records() == [(0, b"abcd")]


def test_the_window_stops_the_sender_and_its_last_packet_asks() -> None:
    world, client, _ = connected(window=4)
    assert world.server
    world.server.reading = False
    for n in range(6):
        client.send(bytes([n]))
    out = [Spp.unpack(packet) for packet in client.packets_to_send(world.now_ns)]
    assert [h.sequence for h in out] == [0, 1, 2, 3]
    assert [h.control & SEND_ACKNOWLEDGEMENT for h in out] == [0, 0, 0, SEND_ACKNOWLEDGEMENT]
    assert client.unsent == 2


def test_a_lost_opening_of_the_window_is_asked_for() -> None:
    """The reader makes room, the packet that says so is lost, and nothing is under way that could be repeated."""
    world, client, server = connected(window=4)
    assert world.server
    world.server.reading = False
    for n in range(6):
        client.send(bytes([n]))
    world.run(until=lambda: not client._unacknowledged and client.unsent == 2)
    world.flying.clear()
    world.server.reading = True
    world.server.take()
    assert server.packets_to_send(world.now_ns)  # and lost
    world.run(until=lambda: len(world.server.records()) == 6)  # type: ignore[union-attr]
    assert client.retransmitted == 0


def test_nothing_is_acknowledged_unasked_and_everything_when_asked() -> None:
    world, client, server = connected(window=16)
    client.send(b"a")
    client.send(b"b")
    first, second = client.packets_to_send(world.now_ns)
    server.receive_packet(first)
    assert server.packets_to_send(world.now_ns) == []
    server.receive_packet(second)
    (answer,) = server.packets_to_send(world.now_ns)
    assert Spp.unpack(answer) == Spp(SYSTEM_PACKET, 0, 0x2002, 0x1001, 0, 2, 15)


def test_data_that_goes_back_is_the_acknowledgement() -> None:
    world, client, server = connected()
    client.send(b"question")
    for packet in client.packets_to_send(world.now_ns):
        server.receive_packet(packet)
    server.send(b"answer")
    (answer,) = server.packets_to_send(world.now_ns)
    assert Spp.unpack(answer).acknowledge == 1


def test_a_lost_packet_is_sent_again_alone_and_asks() -> None:
    world, client, server = connected(window=16)
    for n in range(3):
        client.send(bytes([n]))
    lost, *others = client.packets_to_send(world.now_ns)
    for packet in others:
        server.receive_packet(packet)
    assert server.early == 2
    assert client.timer_ns() == world.now_ns + TIMEOUT
    (again,) = client.packets_to_send(world.now_ns + TIMEOUT)
    assert Spp.unpack(again) == replace(Spp.unpack(lost), control=Spp.unpack(lost).control | SEND_ACKNOWLEDGEMENT)
    server.receive_packet(again)
    (answer,) = server.packets_to_send(world.now_ns)
    assert Spp.unpack(answer).acknowledge == 3


def test_the_time_out_doubles_in_silence_and_starts_again_when_the_peer_is_heard() -> None:
    world, client, server = connected(attempts=10)
    client.send(b"x")
    now_ns, waits = world.now_ns, []
    client.packets_to_send(now_ns)
    for _ in range(5):
        timer = client.timer_ns()
        assert timer is not None
        waits.append((timer - now_ns) // TIMEOUT)
        now_ns = timer
        assert len(client.packets_to_send(now_ns)) == 1
    assert waits == [1, 2, 4, 8, 8]
    server.send(b"y")
    client.receive_packet(server.packets_to_send(now_ns)[0])
    assert client.timer_ns() == now_ns + TIMEOUT


def test_complete_silence_is_failed_after_so_many_attempts() -> None:
    lonely = Connection(1, TIMEOUT, attempts=3)
    lonely.connect()
    sent, now_ns = 0, 0
    while (timer := lonely.timer_ns()) is not None:
        now_ns = max(now_ns, timer)
        sent += len(lonely.packets_to_send(now_ns))
    assert (sent, lonely.state, lonely.next_event()) == (4, "failed", Failed())
    assert now_ns == (1 + 2 + 4 + 8) * TIMEOUT


def test_attention_is_told_at_once_and_comes_again_in_its_turn() -> None:
    world, client, server = connected()
    client.send(b"before")
    client.send_attention(b"!")
    before, attention = client.packets_to_send(world.now_ns)
    assert Spp.unpack(attention).control == ATTENTION | SEND_ACKNOWLEDGEMENT
    server.receive_packet(attention)
    assert server.next_event() == Attention(b"!")
    assert server.next_event() is None
    server.receive_packet(attention)
    server.receive_packet(before)
    events = [server.next_event() for _ in range(3)]
    assert [event.data for event in events if isinstance(event, Packet)] == [b"before", b"!"]
    assert events[2] is None


@pytest.mark.parametrize("byte", [b"", b"12"])
def test_attention_is_one_byte(byte: bytes) -> None:
    _, client, _ = connected()
    with pytest.raises(ValueError, match="one byte"):
        client.send_attention(byte)


def test_sequence_numbers_go_round() -> None:
    world, client, server = connected()
    for end in (client, server):  # as after 65,534 packets
        end._sequence = end._expected = end._taken = 0xFFFE
        end._peer_allocation, end._told_allocation = 1, 1
    for n in range(9):
        client.send(bytes([n]))
        server.send(bytes([n, n]))
    assert world.server
    world.check_window = lambda n, packet: None  # type: ignore[method-assign]
    world.run(until=lambda: len(world.server.records()) == len(world.client.records()) == 9)  # type: ignore[union-attr]
    assert world.server.records() == [(0, bytes([n])) for n in range(9)]


# ---------------------------------------------------------------- whom it listens to


@pytest.mark.parametrize(
    "wrong",
    [
        {"source_id": 0x3003},
        {"destination_id": 0x3003},
        {"destination_id": 0},
        {"source_id": 0},
    ],
)
def test_a_packet_of_another_connection_is_ignored(wrong: dict[str, int]) -> None:
    _, _, server = connected()
    right = Spp(END_OF_MESSAGE, 0, 0x1001, 0x2002, 0, 0, 15)
    server.receive_packet(replace(right, **wrong).pack() + b"data")  # type: ignore[arg-type]
    assert server.next_event() is None
    server.receive_packet(right.pack() + b"data")
    assert server.next_event() == Packet(right, b"data")


def test_what_is_no_packet_is_ignored() -> None:
    _, _, server = connected()
    for junk in (b"", bytes(11)):
        server.receive_packet(junk)
    assert server.next_event() is None


@pytest.mark.parametrize("opening", [b"short", Spp(source_id=0).pack(), Spp(0, 0, 1, 2).pack()])
def test_only_an_opening_can_be_accepted(opening: bytes) -> None:
    with pytest.raises(BadPacket):
        Connection.accept(opening, 5, TIMEOUT)


def test_more_than_was_allowed_is_refused() -> None:
    _, _, server = connected(window=4)
    server.receive_packet(Spp(0, 0, 0x1001, 0x2002, 4, 0, 3).pack() + b"x")
    assert not server._waiting
    server.receive_packet(Spp(0, 0, 0x1001, 0x2002, 3, 0, 3).pack() + b"x")
    assert list(server._waiting) == [3]


def test_a_copy_of_what_is_long_delivered_is_counted_and_dropped() -> None:
    world, client, server = connected()
    client.send(b"x")
    (packet,) = client.packets_to_send(world.now_ns)
    for _ in range(3):
        server.receive_packet(packet)
    assert server.duplicated == 2
    assert isinstance(server.next_event(), Packet)
    assert server.next_event() is None
    assert not server._waiting


def test_an_older_packet_does_not_take_back_what_a_newer_one_allowed() -> None:
    world, client, _ = connected(window=4)
    for allocation in (9, 5):
        client.receive_packet(Spp(SYSTEM_PACKET, 0, 0x2002, 0x1001, 0, 0, allocation).pack())
    for n in range(12):
        client.send(bytes([n]))
    assert len(client.packets_to_send(world.now_ns)) == 10


def test_an_acknowledgement_of_what_was_never_sent_counts_for_nothing() -> None:
    world, client, _ = connected()
    client.send(b"x")
    client.packets_to_send(world.now_ns)
    client.receive_packet(Spp(SYSTEM_PACKET, 0, 0x2002, 0x1001, 0, 2, 3).pack())
    assert len(client._unacknowledged) == 1


# ---------------------------------------------------------------- the end


def test_three_packets_close_a_connection() -> None:
    world, client, server = connected()
    assert world.server
    client.send(b"last")
    client.close()
    world.run()
    ends = [(h.datastream_type, h.control & END_OF_MESSAGE) for h in world.client.sent if h.datastream_type]
    assert ends == [(END, END_OF_MESSAGE), (END_REPLY, END_OF_MESSAGE)]
    assert [h.datastream_type for h in world.server.sent if h.datastream_type] == [END_REPLY]
    assert world.client.events == [Connected(), Closed()]
    assert [type(event) for event in world.server.events] == [Connected, Packet, PeerEnded, Closed]
    assert (client.state, server.state) == ("closed", "closed")


def test_the_end_that_closed_last_stays_as_long_as_it_is_asked() -> None:
    world, client, server = connected()
    client.close()
    world.run(until=lambda: server.state == "dallying")
    since_ns = world.now_ns
    server.packets_to_send(since_ns)
    assert server.timer_ns() == since_ns + 4 * TIMEOUT
    again = Spp(END_OF_MESSAGE | SEND_ACKNOWLEDGEMENT, END_REPLY, 0x1001, 0x2002, 1, 1, 3).pack()
    server.receive_packet(again)
    (answer,) = server.packets_to_send(since_ns + 3 * TIMEOUT)
    assert Spp.unpack(answer).acknowledge == 2
    assert server.timer_ns() == since_ns + 7 * TIMEOUT
    assert server.packets_to_send(since_ns + 7 * TIMEOUT) == []
    assert server.state == "closed"
    server.receive_packet(again)
    assert server.packets_to_send(since_ns + 7 * TIMEOUT) == []


def test_a_last_word_that_took_long_is_answered_all_the_same() -> None:
    world, client, server = connected()
    client.close()
    world.run(until=lambda: bool(world.client.connection._peer_end_reply))
    (last_word,) = client.packets_to_send(world.now_ns)
    server.receive_packet(last_word)
    assert server.state == "dallying"
    late_ns = world.now_ns + 9 * TIMEOUT
    assert len(server.packets_to_send(late_ns)) == 1
    assert server.timer_ns() == late_ns + 4 * TIMEOUT


def test_the_end_that_was_asked_may_send_what_it_has() -> None:
    world, client, server = connected()
    assert world.server
    world.server.closes = False
    client.close()
    world.run(until=lambda: world.server.has(PeerEnded))  # type: ignore[union-attr]
    server.send(b"one more")
    server.close()
    world.run()
    assert world.client.records() == [(0, b"one more")]
    assert world.client.has(Closed) and world.server.has(Closed)


def test_both_may_close_at_once() -> None:
    world, client, server = connected()
    client.close()
    server.close()
    world.run()
    assert (client.state, server.state) == ("closed", "closed")


def test_an_end_that_waits_for_a_peer_that_is_gone_gives_up() -> None:
    world, client, _ = connected(attempts=3)
    assert world.server
    world.server.closes = False
    client.close()
    world.run(until=lambda: world.server.has(PeerEnded) and not client._unacknowledged)  # type: ignore[union-attr]
    world.server = None
    world.arrive = lambda to, packet: None  # type: ignore[method-assign]
    world.run()
    assert world.client.has(Failed)


def test_nothing_can_be_sent_after_close() -> None:
    _, client, _ = connected()
    client.close()
    for wrong in (lambda: client.send(b"x"), client.close, lambda: client.send_attention(b"x")):
        with pytest.raises(ValueError, match="nothing can be sent: the connection is closing"):
            wrong()


@pytest.mark.parametrize("kind", [END, END_REPLY])
def test_the_types_that_close_are_not_the_users(kind: int) -> None:
    _, client, _ = connected()
    with pytest.raises(ValueError, match="call close"):
        client.send(b"", datastream_type=kind)


@pytest.mark.parametrize(("local_id", "window"), [(0, 4), (0x10000, 4), (1, 0), (1, 0x8000)])
def test_ids_and_windows_have_bounds(local_id: int, window: int) -> None:
    with pytest.raises(ValueError, match="is not from 1"):
        Connection(local_id, TIMEOUT, window=window)


# ---------------------------------------------------------------- any network below a bound


def no_long_silence(fates: list[Fate]) -> bool:
    """At most four lost in a row: 40 attempts see them through, also when both ways take turns at losing."""
    return all(any(fates[i : i + 5]) for i in range(len(fates) - 4))


delays = st.integers(0, 3 * TIMEOUT // MS)  # so long that retransmissions overtake what they repeat
fates = st.lists(st.one_of(st.just(()), st.tuples(delays), st.tuples(delays, delays)), max_size=80).filter(
    no_long_silence
)
lengths = st.one_of(
    st.integers(0, 4), st.sampled_from([LARGEST_DATA - 1, LARGEST_DATA, LARGEST_DATA + 1, 3 * LARGEST_DATA])
)
records = st.lists(st.tuples(st.integers(0, 253), lengths), max_size=12)


def content(n: int, length: int) -> bytes:
    return bytes((n + i) % 251 for i in range(length))


@settings(max_examples=300)
@given(fates, fates, records, records, st.integers(1, 8))
@example([(), (), ()], [(), (), ()], [(0, 1)], [(1, 0)], 1)
@example([(5,)] * 3 + [()] * 4, [(5,)] * 2 + [()] * 4, [], [], 4)  # a close that is lost each way
def test_every_record_comes_once_in_order_and_whole(
    there: list[Fate], back: list[Fate], up: list[tuple[int, int]], down: list[tuple[int, int]], window: int
) -> None:
    world = World((there, back), window)

    def send_all(end: End, what: list[tuple[int, int]]) -> None:
        for n, (kind, length) in enumerate(what):
            end.connection.send(content(n, length), datastream_type=kind)

    world.prepare = lambda server: send_all(server, down)
    send_all(world.client, up)
    world.client.connection.close()
    world.run()
    assert world.server
    assert world.server.records() == [(kind, content(n, length)) for n, (kind, length) in enumerate(up)]
    assert world.client.records() == [(kind, content(n, length)) for n, (kind, length) in enumerate(down)]
    assert world.client.has(Closed) and world.server.has(Closed)
    assert not world.client.has(Failed) and not world.server.has(Failed)


@settings(max_examples=100)
@given(fates, fates, st.integers(1, 30), st.integers(1, 8))
def test_both_may_close_at_any_time(there: list[Fate], back: list[Fate], steps: int, window: int) -> None:
    world = World((there, back), window)
    world.prepare = lambda server: server.connection.close()
    for n in range(steps):
        world.client.connection.send(bytes([n]))
    world.client.connection.close()
    world.run()
    assert world.server
    assert world.server.records() == [(0, bytes([n])) for n in range(steps)]
    assert world.client.has(Closed) and world.server.has(Closed)


@settings(max_examples=100)
@given(fates, fates, st.lists(st.booleans(), max_size=60), st.integers(1, 8))
def test_a_reader_that_pauses_loses_nothing(
    there: list[Fate], back: list[Fate], pauses: list[bool], window: int
) -> None:
    world = World((there, back), window)
    for n in range(20):
        world.client.connection.send(bytes([n]))
    world.client.connection.close()
    for pause in pauses:
        if world.server:
            world.server.reading = not pause
            assert len(world.server.connection._events) <= window + 4  # and what is not data
        world.step()
    world.client.reading = True
    if world.server:
        world.server.reading = True
    world.prepare = lambda server: None
    world.run()
    assert world.server
    assert world.server.records() == [(0, bytes([n])) for n in range(20)]


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_no_bytes_from_the_network_break_it(junk: list[bytes]) -> None:
    world, _client, server = connected()
    for data in junk:
        server.receive_packet(data)
        server.receive_packet(Spp(0, 0, 0x1001, 0x2002).pack()[:6] + data)
        server.packets_to_send(world.now_ns)
        while server.next_event():
            pass
