"""The vocabulary of what a link does to a packet, in base units. No parsing and no dice here."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Condition:
    """What one direction of one pair does to each frame. The default does nothing: watched, not changed.

    Times are integer nanoseconds, ratios are 0..1, sizes are whole frames with their Ethernet header.
    At most one of the three queue limits is set, and only together with `rate_bit_s`.
    """

    delay_ns: int = 0
    jitter_ns: int = 0
    jitter_distribution: str = "uniform"  # or "normal"; plus or minus, as netem means it
    loss_ratio: float = 0.0
    duplicate_ratio: float = 0.0
    reorder_ratio: float = 0.0
    reorder_by_packets: int = 0
    rate_bit_s: int | None = None
    queue_packets: int | None = None
    queue_ns: int | None = None
    queue_bytes: int | None = None
    jitter_order: str = "free"  # or "kept": jitter makes no frame leave before an earlier one

    def to_json(self) -> dict[str, Any]:
        """Only what differs from the default, so that a record stays readable."""
        return {name: value for name, plain in _PLAIN.items() if (value := getattr(self, name)) != plain}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Condition:
        """The inverse of `to_json`. Raises ValueError for a key that this version does not know."""
        unknown = data.keys() - _PLAIN.keys()
        if unknown:
            raise ValueError(f"unknown condition {', '.join(sorted(unknown))}")
        return cls(**data)


_PLAIN = {field.name: field.default for field in fields(Condition)}
