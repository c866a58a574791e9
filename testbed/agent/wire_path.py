"""The data path of the wire: frames in, fates decided, frames out when they are due, one record each.

No control protocol and no waiting here; `wire_loop` calls `take`, `send_due` and asks `next_due_ns`. Everything in
this file that runs once a frame is written for the interpreter: local names and tuples.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from heapq import heappop, heappush
from typing import Any

from testbed.agent.rings import Port, RxRing, is_busy, slot_bytes_for
from testbed.agent.wire_link import Flow, Link, LinkSpec
from testbed.conditions.fate import Stream
from testbed.conditions.flow import raw_key
from testbed.conditions.shape import HOLD_NS, Release, Shaper
from testbed.measure.ledger import NEVER, Writer

MOST_PENDING_BYTES = 512 << 20  # frames held in memory; beyond it the wire loses frames and says so
ENTRY_BYTES = 400  # what the interpreter takes for one of them, besides the frame
OLDEST_NS = 1_000_000_000  # an age outside 0..1 s is no age: a clock was set; unless nobody looked for longer
READING_ERROR_NS = 100_000  # how far two clocks, read one after the other, may seem to disagree
GIVE_UP_NS = 50_000_000  # how long a frame is offered to a port that is busy, while all others wait
RING_IN_READS = 64  # reads of 256 frames that empty the largest ring twice over
LEDGER_WRITE_BYTES = 256 << 10
NO_END = 1 << 63

# due, order, link, flow, k, frame, in, copy, ticket
Entry = tuple[int, int, Link, Flow, int, bytes, int, bool, int | None]


class HostCounts:
    """What came in from one host."""

    __slots__ = ("frames_in", "unknown")

    def __init__(self) -> None:
        self.frames_in = self.unknown = 0


class Path:
    """The state of the wire between two requests. `ledger_fd` is written to and never closed here."""

    def __init__(self, ledger_fd: int) -> None:
        self.links: dict[str, Link] = {}  # by id; what is not in force any more stays for its counts
        self.hosts: dict[str, HostCounts] = {}
        self.slot_bytes = 0
        self.too_large = self.bad_age = self.tx_busy = self.tx_errors = self.stray = 0
        self.after_end = 0  # frames that came in after `over_ns`
        self.over_ns = NO_END  # what comes in later is no part of the run: it goes nowhere, and no link counts it
        self.last_frame_ns = 0
        self._last_in_ns = 0  # of the frame that was read last
        self._empty_ns = 0  # when the ring was last found empty: nothing in it is older
        self._ledger_fd = ledger_fd
        self._records = Writer()
        self._seed = 0
        self._ring: RxRing | None = None
        self._old_drops = 0
        self._ports: dict[str, Port] = {}  # by host
        self._by_addresses: dict[bytes, Link] = {}  # the first 12 bytes of a frame
        self._by_source: dict[bytes, list[Link]] = {}  # a source address: all its links, for group frames
        self._arrivals: dict[int, HostCounts] = {}  # by the index of the interface that a frame came in on
        self._sources: dict[bytes, int] = {}  # source address -> the only interface it may come in on
        self._senders: dict[str, Callable[[bytes], int]] = {}  # by host
        self._refusing: set[str] = set()  # hosts whose port stayed busy: nobody waits for them until they take one
        self._pending: list[Entry] = []
        self._pending_bytes = 0
        self._void: set[int] = set()  # the orders of entries that were released under another time
        self._order = 0

    # -- conditions

    def apply(self, seed: int, devices: Mapping[str, str], specs: Iterable[LinkSpec]) -> None:
        """Put the whole state in force: nothing else passes. Raises ValueError or OSError, then nothing passes.

        What came in before is decided by what was in force before, and leaves when it is due. Flows go on
        counting; a link whose condition changes begins with an empty queue.
        """
        specs = list(specs)
        self.take_all()
        self.shut()
        if self.links and seed != self._seed:
            raise ValueError(f"the seed cannot change from {self._seed} to {seed}: dice are thrown already")
        shapers = self._validate(devices, specs)
        self._open(devices, specs)
        self._seed = seed
        for spec, shaper in zip(specs, shapers, strict=True):
            link = self.links.get(spec.id)
            if link is None:
                self.links[spec.id] = link = Link(spec, self._records.link(spec.id))
            elif link.spec.condition != spec.condition:
                link.shaper = shaper
            link.spec = spec
        self._by_addresses = {spec.target_mac + spec.source_mac: self.links[spec.id] for spec in specs}
        for spec in specs:
            self._by_source.setdefault(spec.source_mac, []).append(self.links[spec.id])
        self._sources = {spec.source_mac: self._ports[spec.source].ifindex for spec in specs}

    def shut(self) -> None:
        """From now on nothing is let in. What was let in before still leaves when it is due."""
        self._by_addresses, self._by_source, self._sources = {}, {}, {}

    def condition(self, link_id: str) -> dict[str, Any] | None:
        """What a frame of that link meets now, from what would decide it; None: it would be dropped."""
        spec = self.links[link_id].spec
        link = self._by_addresses.get(spec.target_mac + spec.source_mac)
        return link.shaper.condition.to_json() if link is self.links[link_id] else None

    def _validate(self, devices: Mapping[str, str], specs: list[LinkSpec]) -> list[Shaper]:
        seen: dict[bytes, LinkSpec] = {}
        owners: dict[bytes, str] = {}
        if len({spec.id for spec in specs}) < len(specs):
            raise ValueError("two links have the same id")
        shapers = []
        for spec in specs:
            if spec.source not in devices:
                raise ValueError(f"link {spec.id}: no device is given for its source {spec.source}")
            twin = seen.setdefault(spec.target_mac + spec.source_mac, spec)
            if twin is not spec:
                raise ValueError(f"links {twin.id} and {spec.id} have the same two hardware addresses")
            if owners.setdefault(spec.source_mac, spec.source) != spec.source:
                raise ValueError(f"link {spec.id}: its source address also belongs to {owners[spec.source_mac]}")
            try:
                shapers.append(Shaper(spec.condition))
            except ValueError as problem:
                raise ValueError(f"link {spec.id}: {problem}") from problem
        return shapers

    def _open(self, devices: Mapping[str, str], specs: list[LinkSpec]) -> None:
        """Ports for exactly these hosts, and a ring whose slots hold the largest frame."""
        slot_bytes = slot_bytes_for(max((spec.max_frame_bytes for spec in specs), default=0))
        if self._ring is None or slot_bytes != self._ring.slot_bytes:
            self._close_ring()
            self._ring = RxRing(slot_bytes)
            self._empty_ns = time.monotonic_ns()
        self.slot_bytes = slot_bytes
        for host in list(self._ports):
            self._ports.pop(host).close()
        self._arrivals, self._senders = {}, {}
        for host, device in devices.items():
            port = self._ports[host] = Port(device)
            counts = self.hosts.setdefault(host, HostCounts())
            self._arrivals[port.ifindex], self._senders[host] = counts, port.send

    # -- in

    def ready(self) -> bool:
        return self._ring is not None and self._ring.ready()

    def ring_fd(self) -> int | None:
        return None if self._ring is None else self._ring.fileno()

    def ring_drops(self) -> int:
        return self._old_drops + (self._ring.drops() if self._ring else 0)

    def take(self, most: int) -> int:
        """Read up to `most` frames and decide their fates. Returns how many there were."""
        if self._ring is None:
            return 0
        empty_ns, looked_ns = self._empty_ns, time.monotonic_ns()
        arrivals = self._ring.read(most)
        if len(arrivals) < most:
            self._empty_ns = looked_ns
        if not arrivals:
            return 0
        now_ns, ahead_ns = clocks()
        oldest_ns = max(OLDEST_NS, now_ns - empty_ns)  # more if this process was kept from looking
        self.last_frame_ns = now_ns
        by_addresses, sources, over_ns = self._by_addresses, self._sources, self.over_ns
        in_ns = self._last_in_ns
        for arrival in arrivals:
            ifindex, stamp_ns, frame, size, whole = arrival
            host = self._arrivals.get(ifindex)
            if host is None:
                self.stray += 1
                continue
            host.frames_in += 1
            in_ns = stamp_ns + ahead_ns
            if not 0 <= now_ns - in_ns <= oldest_ns:
                now_ns, ahead_ns = clocks()  # it came in after the last reading
                in_ns = stamp_ns + ahead_ns
                if not -READING_ERROR_NS <= now_ns - in_ns <= oldest_ns:
                    self.bad_age += 1
                    in_ns = now_ns
                in_ns = min(in_ns, now_ns)
            if in_ns > over_ns:
                self.after_end += 1
                continue
            if not whole:
                self.too_large += 1
            source = frame[6:12]
            if sources.get(source) != ifindex:
                host.unknown += 1
            elif frame[0] & 1:
                for link in self._by_source[source]:
                    self._admit(link, link.spec.target_mac + frame[6:], size, in_ns, whole)
            else:
                to = by_addresses.get(frame[:12])
                if to is None:
                    host.unknown += 1
                else:
                    self._admit(to, frame, size, in_ns, whole)
        self._last_in_ns = in_ns
        return len(arrivals)

    @property
    def read_until_ns(self) -> int:
        """What came in before that has been read."""
        return max(self._empty_ns, self._last_in_ns)

    def take_all(self) -> None:
        """Read what is in the ring now, and not for ever what comes in meanwhile."""
        for _ in range(RING_IN_READS):
            if not self.take(256):
                break

    def _admit(self, link: Link, frame: bytes, size: int, in_ns: int, whole: bool) -> None:
        key = raw_key(frame)
        flow = link.flows.get(key)
        if flow is None:
            flow = self._new_flow(link, key)
        k = flow.k
        flow.k = k + 1
        if in_ns < link.last_in_ns:
            in_ns = link.last_in_ns  # clocks differ by a hair from batch to batch; the ring's order is the truth
        else:
            link.last_in_ns = in_ns
        counts = link.counts
        counts.frames += 1
        draws = flow.draw()
        if not whole or self._pending_bytes > MOST_PENDING_BYTES:
            counts.unasked += 1
            self._records.frame(flow.number, k, size, "unasked", False, in_ns, NEVER, NEVER)
            return
        cause, due_ns, copies, ticket, released = link.shaper.decide(draws, size, in_ns)
        if due_ns is None:
            self._drop(link, flow, k, size, cause, False, in_ns)
        else:
            self._push(due_ns, link, flow, k, frame, in_ns, False, ticket)
        for copy_cause, copy_due_ns in copies:
            if copy_due_ns is None:
                self._drop(link, flow, k, size, copy_cause, True, in_ns)
            else:
                self._push(copy_due_ns, link, flow, k, frame, in_ns, True, ticket)
        for release in released:
            self._release(link, release)

    def _new_flow(self, link: Link, key: bytes) -> Flow:
        label = link.labels.label(key)
        flow = Flow(self._records.flow(link.number, label), Stream(self._seed, link.spec.id, label))
        link.flows[key] = flow
        return flow

    def _drop(self, link: Link, flow: Flow, k: int, size: int, cause: str | None, copy: bool, in_ns: int) -> None:
        if cause == "loss":
            link.counts.loss += 1
        else:
            link.counts.queue += 1
        self._records.frame(flow.number, k, size, cause, copy, in_ns, NEVER, NEVER)

    def _push(
        self, due_ns: int, link: Link, flow: Flow, k: int, frame: bytes, in_ns: int, copy: bool, ticket: int | None
    ) -> None:
        self._order = order = self._order + 1
        entry = (due_ns, order, link, flow, k, frame, in_ns, copy, ticket)
        heappush(self._pending, entry)
        self._pending_bytes += len(frame) + ENTRY_BYTES
        if ticket is not None:
            link.held.setdefault(ticket, []).append(entry)

    def _release(self, link: Link, release: Release) -> None:
        """Frames with that ticket leave at another time; the entries under the old one become void."""
        for entry in link.held.pop(release.ticket, ()):
            latest_ns, order, _, flow, k, frame, in_ns, copy, _ = entry
            self._void.add(order)
            self._pending_bytes -= len(frame) + ENTRY_BYTES
            due_ns = max(release.due_ns, latest_ns - HOLD_NS) if copy else release.due_ns
            self._push(due_ns, link, flow, k, frame, in_ns, copy, None)

    # -- out

    def next_due_ns(self) -> int | None:
        return self._pending[0][0] if self._pending else None

    @property
    def pending(self) -> int:
        """Frames decided and not gone."""
        return len(self._pending) - len(self._void)

    def under_way(self, before_ns: int) -> tuple[int, int]:
        """Of what came in until then, how many frames and copies are not gone, and when the last is due; or 0, 0.

        One that is in the ring counts as one that is due at once, because nobody knows yet.
        """
        dues = [entry[0] for entry in self._pending if entry[6] <= before_ns and entry[1] not in self._void]
        if self.read_until_ns <= before_ns and self._ring is not None:
            dues.append(time.monotonic_ns())
        return len(dues), max(dues, default=0)

    def send_due(self, most: int) -> int:
        """Send up to `most` frames that are due. Returns how many left, or -1 if a port was busy."""
        pending, void, senders = self._pending, self._void, self._senders
        clock, put = time.monotonic_ns, self._records.frame
        now_ns = clock()
        count = 0
        while pending and pending[0][0] <= now_ns and count < most:
            entry = heappop(pending)
            due_ns, order, link, flow, k, frame, in_ns, copy, ticket = entry
            if void and order in void:
                void.discard(order)
                continue
            if ticket is not None:
                link.held.pop(ticket, None)  # it waited as long as it may; its copy follows by itself
            try:
                senders[link.spec.source](frame)
            except (OSError, KeyError) as problem:
                if self._offer_again(entry, problem, now_ns):
                    return -1
                continue
            if self._refusing:
                self._refusing.discard(link.spec.source)
            count += 1
            now_ns = clock()
            self._pending_bytes -= len(frame) + ENTRY_BYTES
            counts = link.counts
            counts.sent += 1
            counts.lateness.add(now_ns - due_ns)
            put(flow.number, k, len(frame), None, copy, in_ns, due_ns, now_ns)
        return count

    def _offer_again(self, entry: Entry, problem: Exception, now_ns: int) -> bool:
        """True if the frame is back among the pending ones; False if it is given up, which is on record."""
        host = entry[2].spec.source
        if isinstance(problem, OSError) and is_busy(problem):
            self.tx_busy += 1
            if host not in self._refusing and now_ns - entry[0] < GIVE_UP_NS:
                heappush(self._pending, entry)
                return True
            self._refusing.add(host)
        self.tx_errors += 1
        self._give_up(entry)
        return False

    def _give_up(self, entry: Entry) -> None:
        due_ns, _, link, flow, k, frame, in_ns, copy, _ = entry
        self._pending_bytes -= len(frame) + ENTRY_BYTES
        link.counts.unasked += 1
        self._records.frame(flow.number, k, len(frame), "unasked", copy, in_ns, due_ns, NEVER)

    def abandon(self) -> int:
        """Drop whatever is pending, as "unasked". Returns how many frames that were."""
        entries = [entry for entry in sorted(self._pending) if entry[1] not in self._void]
        for entry in entries:
            entry[2].held.clear()
            self._give_up(entry)
        self._pending.clear()
        self._void.clear()
        return len(entries)

    # -- ledger and end

    def write_ledger(self, at_least: int = 0, end: bool = False) -> None:
        """Hand the records to the kernel if they are `at_least` so many bytes. `end` closes them with a count."""
        if not end and self._records.size_bytes < at_least:
            return
        data = memoryview(self._records.finish() if end else self._records.take())
        while data:
            data = data[os.write(self._ledger_fd, data) :]

    @property
    def ledger_bytes(self) -> int:
        """How long the ledger is, as written."""
        return os.fstat(self._ledger_fd).st_size

    def _close_ring(self) -> None:
        if self._ring is not None:
            self._old_drops += self._ring.drops()
            self._ring.close()
            self._ring = None

    def close(self) -> None:
        self._close_ring()
        for port in self._ports.values():
            port.close()
        self._ports.clear()


def clocks() -> tuple[int, int]:
    """CLOCK_MONOTONIC now, and how far it is ahead of CLOCK_REALTIME; read again if something came in between."""
    monotonic, realtime = time.monotonic_ns, time.time_ns
    best_ns = ahead_ns = now_ns = 0
    for attempt in range(4):
        before = monotonic()
        middle = realtime()
        now_ns = monotonic()
        if attempt == 0 or now_ns - before < best_ns:
            best_ns, ahead_ns = now_ns - before, (before + now_ns) // 2 - middle
        if best_ns < 2_000:
            break
    return now_ns, ahead_ns
