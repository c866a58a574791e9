"""One link as the wire holds it: its dice, its flows, its counts. No socket and no clock here."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from testbed.conditions.condition import Condition
from testbed.conditions.fate import Draws, Stream
from testbed.conditions.flow import Labels
from testbed.conditions.shape import Shaper

_LATENESS_BITS = 40  # 18 minutes; what is later goes into the last bucket


@dataclass(frozen=True)
class LinkSpec:
    """One link of a `conditions` request."""

    id: str
    source: str
    target: str
    network: str
    source_mac: bytes
    target_mac: bytes
    condition: Condition
    max_frame_bytes: int

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> LinkSpec:
        """Raises ValueError naming the link for whatever is missing or makes no sense."""
        try:
            spec = cls(
                id=data["id"],
                source=data["source"],
                target=data["target"],
                network=data["network"],
                source_mac=_mac(data["source_mac"]),
                target_mac=_mac(data["target_mac"]),
                condition=Condition.from_json(data["condition"]),
                max_frame_bytes=int(data["max_frame"]),
            )
        except (KeyError, TypeError, AttributeError) as problem:
            raise ValueError(f"link {data.get('id', '?')}: missing or of the wrong type: {problem}") from problem
        except ValueError as problem:
            raise ValueError(f"link {data.get('id', '?')}: {problem}") from problem
        return spec


def _mac(text: str) -> bytes:
    octets = bytes.fromhex(text.replace(":", ""))
    if len(octets) != 6 or octets[0] & 1:
        raise ValueError(f"{text!r} is not the hardware address of one interface")
    return octets


class Flow:
    """One flow of one link: its number in the ledger, how many frames it had, its dice."""

    __slots__ = ("draw", "k", "number")

    def __init__(self, number: int, stream: Stream) -> None:
        self.number, self.k = number, 0
        self.draw: Callable[[], Draws] = iter(stream).__next__


class Lateness:
    """How late frames left, as counts in buckets one eighth of their value wide: the memory never grows."""

    __slots__ = ("_buckets", "most_ns")

    def __init__(self) -> None:
        self._buckets = array("I", bytes(4 * 8 * (_LATENESS_BITS - 2)))
        self.most_ns = 0

    def add(self, late_ns: int) -> None:
        """Count one frame. Negative: it left early, which the wire never does."""
        bits = late_ns.bit_length()
        if bits > 4:
            bits = min(bits, _LATENESS_BITS)
            self._buckets[(bits - 4) * 8 + min(late_ns >> (bits - 4), 15)] += 1
        else:
            self._buckets[late_ns] += 1
        if late_ns > self.most_ns:
            self.most_ns = late_ns

    def quantile(self, q: float) -> int:
        """What a part `q` of the frames stayed within, rounded up by at most one eighth; 0 without frames."""
        total = sum(self._buckets)
        seen = 0
        for number, count in enumerate(self._buckets):
            seen += count
            if count and seen >= q * total:
                upper = number if number < 16 else ((number & 7) + 9 << (number >> 3) - 1) - 1
                return min(upper, self.most_ns)
        return 0


@dataclass(slots=True)
class Counts:
    """Of one link. `frames` came in; the others are what became of them and of their copies."""

    frames: int = 0
    sent: int = 0
    loss: int = 0
    queue: int = 0
    unasked: int = 0
    lateness: Lateness = field(default_factory=Lateness)

    def to_json(self) -> dict[str, int]:
        late = self.lateness
        return {
            "frames": self.frames,
            "sent": self.sent,
            "loss": self.loss,
            "queue": self.queue,
            "unasked": self.unasked,
            "lateness_p50_ns": late.quantile(0.50),
            "lateness_p99_ns": late.quantile(0.99),
            "lateness_max_ns": late.most_ns,
        }


class Link:
    """A link in force. Its flows and counts outlive a change of its condition."""

    __slots__ = ("counts", "flows", "held", "labels", "last_in_ns", "number", "shaper", "spec")

    def __init__(self, spec: LinkSpec, number: int) -> None:
        self.spec, self.number = spec, number
        self.shaper = Shaper(spec.condition)
        self.labels = Labels()
        self.flows: dict[bytes, Flow] = {}
        self.counts = Counts()
        self.held: dict[int, list[Any]] = {}  # ticket -> the pending entries of that frame and its copy
        self.last_in_ns = 0
