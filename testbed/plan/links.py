"""Links as they will be in force: one condition a direction, with the queue that follows from its rate."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from testbed.conditions.condition import Condition
from testbed.plan.types import Link
from testbed.scenario import model
from testbed.scenario.linkkeys import LinkKey
from testbed.scenario.links import Direction, Won
from testbed.scenario.topology import Topology

FULL_FRAME_BYTES = 1514
LEAST_QUEUE_PACKETS = 20  # two initial windows of TCP (RFC 6928)

_LABEL = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
_REFERENCE = re.compile(rf"(?<![\w.>-])({_LABEL})\s*->\s*({_LABEL})(?:\s+over\s+({_LABEL}))?(?=\s*\.)", re.ASCII)
_TEXTS = re.compile(r'"[^"]*"|\'[^\']*\'|matches\s+/.*/')


def links(there: Topology, scenario: model.Scenario, won: dict[Direction, Won]) -> tuple[Link, ...]:
    """First what `links` names, in its order, then what only an expectation names: watched, not changed."""
    conditions = {key: _condition(condition) for key, condition in scenario.links.items()}
    made: dict[Direction, Link] = {}
    for direction, one in won.items():
        overruled = tuple(str(key) for key in one.overruled)
        made[direction] = _link(direction, conditions[one.rule], one.rule, overruled)
    for expectation in scenario.expect:
        for direction in _watched(there, expectation.that):
            made.setdefault(direction, _link(direction, Condition(), None, ()))
    return tuple(_with_queue(link, made.get((link.target, link.source, link.network))) for link in made.values())


def _link(direction: Direction, condition: Condition, rule: LinkKey | None, overruled: tuple[str, ...]) -> Link:
    source, target, network = direction
    link_id = f"{source}->{target} over {network}"
    text, line = (str(rule), rule.mark.line) if rule else ("", 0)
    return Link(link_id, source, target, network, condition, text, line, overruled)


def _condition(written: model.Condition) -> Condition:
    queue = written.queue
    limit = {"packets": "queue_packets", "time": "queue_ns", "size": "queue_bytes"}
    return Condition(
        delay_ns=written.delay or (written.rtt or 0) // 2,
        jitter_ns=(written.jitter.of or 0) if written.jitter else 0,
        jitter_distribution=str(written.jitter.distribution) if written.jitter else "uniform",
        jitter_order=str(written.jitter.order) if written.jitter else "free",
        loss_ratio=written.loss or 0.0,
        duplicate_ratio=written.duplicate or 0.0,
        reorder_ratio=(written.reorder.ratio or 0.0) if written.reorder else 0.0,
        reorder_by_packets=(written.reorder.by or 0) if written.reorder else 0,
        rate_bit_s=written.rate,
        **({limit[queue.dimension]: int(queue.value)} if queue else {}),
    )


def default_queue_packets(rate_bit_s: int, round_trip_ns: int) -> int:
    """What is in flight in one round trip, in full frames, and never less than two initial windows of TCP."""
    in_flight_bits = rate_bit_s * round_trip_ns
    return max(LEAST_QUEUE_PACKETS, -(-in_flight_bits // (8 * FULL_FRAME_BYTES * 10**9)))


def has_default_queue(written: model.Condition) -> bool:
    return written.rate is not None and written.queue is None


def _with_queue(link: Link, back: Link | None) -> Link:
    condition = link.condition
    limited = (condition.queue_packets, condition.queue_ns, condition.queue_bytes) != (None, None, None)
    if condition.rate_bit_s is None or limited:
        return link
    round_trip_ns = condition.delay_ns + (back.condition.delay_ns if back else 0)
    packets = default_queue_packets(condition.rate_bit_s, round_trip_ns)
    return replace(link, condition=replace(condition, queue_packets=packets))


def references(text: str) -> Iterator[tuple[str, str, str | None]]:
    """The links that an expectation names: (a, b, network or None). Texts and regexes in it are no links."""
    for found in _REFERENCE.finditer(_TEXTS.sub('""', text)):
        yield found[1], found[2], found[3]


def _watched(there: Topology, text: str) -> Iterator[Direction]:
    """Every direction that an expectation means. What does not exist is the expectation's own problem."""
    for a, b, network in references(text):
        for source in there.members(a) or ():
            for target in there.members(b) or ():
                if source != target:
                    shared = there.shared(source, target)
                    yield from ((source, target, one) for one in shared if network in (None, one))
