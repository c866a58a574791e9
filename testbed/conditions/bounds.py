"""How long a frame may rightly stay in a link: exact upper bounds, from all that a condition says. No dice here.

Whoever waits for a link to become empty must wait so long, and whoever reads in a ledger that a frame stayed
longer need not believe it. Both ask here, so that neither knows a limit that the other one forgot.
"""

from __future__ import annotations

from testbed.conditions.condition import Condition
from testbed.conditions.shape import HOLD_NS, NORMAL_LIMIT


def transmission_ns(condition: Condition, size_bytes: int) -> int:
    """How long the transmitter has one frame; 0 without a rate."""
    rate = condition.rate_bit_s
    return 0 if rate is None else -(-8_000_000_000 * size_bytes // rate)


def longest_wait_ns(condition: Condition, largest_bytes: int) -> int | None:
    """How long a frame may wait until its own transmission begins: the frame under way, and what may be queued.

    `largest_bytes`: the largest frame that comes. None: a rate whose queue has no end.
    """
    if condition.rate_bit_s is None:
        return 0
    one_ns = transmission_ns(condition, largest_bytes)
    if condition.queue_packets is not None:  # one place is its own, and one frame is under way
        return condition.queue_packets * one_ns
    if condition.queue_bytes is not None:  # each frame's transmission is rounded up to a whole nanosecond
        return one_ns + transmission_ns(condition, condition.queue_bytes) + condition.queue_bytes
    return condition.queue_ns


def longest_stay_ns(condition: Condition, largest_bytes: int) -> int | None:
    """How long a frame or its copy may be in the link from its coming in until it is due. None: without end."""
    wait_ns = longest_wait_ns(condition, largest_bytes)
    if wait_ns is None:
        return None
    jitter_ns = condition.jitter_ns * (NORMAL_LIMIT if condition.jitter_distribution == "normal" else 1)
    held_ns = HOLD_NS if condition.reorder_ratio and condition.reorder_by_packets else 0
    return wait_ns + transmission_ns(condition, largest_bytes) + condition.delay_ns + jitter_ns + held_ns
