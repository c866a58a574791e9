"""Broadcast of a host with one impaired pair crosses links that nobody asked for, and is believed there."""

from __future__ import annotations

import pytest

from testbed.conditions.fate import draws
from testbed.conditions.shape import lost
from testbed.expect.trust import ledger_disagrees
from testbed.measure.records import Frame
from testbed.plan import Plan, plan
from testbed.scenario import parse

TEXT = """
testbed: 1
about: One of three pairs is impaired.
duration: 1 s
networks: {lan: , other: }
hosts: {a: {networks: [lan]}, b: {networks: [lan]}, c: {networks: [lan]}, d: {networks: [other]}}
links: {a -> b: {loss: 50 %}}
"""


def planned() -> Plan:
    return plan(parse(TEXT, "group.yaml"))


def frames(link: str, n: int = 8) -> list[Frame]:
    """Broadcasts as the wire records them: lost on the impaired pair as its dice say, on others never."""
    flow, impaired = "udp *1>9000", link == "a->b over lan"
    condition = planned().links[0].condition
    made = []
    for k in range(n):
        gone = impaired and lost(draws(1, link, flow, k), condition)
        at = 1000 * (k + 1)
        made.append(
            Frame(at, link, flow, k, 60, "loss" if gone else None, False, *((None,) * 2 if gone else (at, at)))
        )
    return made


def test_what_reaches_the_others_is_believed() -> None:
    ledger = [*frames("a->b over lan"), *frames("a->c over lan")]
    assert any(frame.cause == "loss" for frame in ledger)
    assert ledger_disagrees(planned(), ledger) == []


def test_on_them_nothing_may_be_lost_or_late() -> None:
    first, *more = frames("a->c over lan")
    gone = first._replace(cause="loss", due_ns=None, sent_ns=None)
    assert "the dice let it pass" in ledger_disagrees(planned(), [gone, *more])[0]
    late = first._replace(due_ns=first.in_ns + 1, sent_ns=first.in_ns + 1)
    assert "after its condition says" in ledger_disagrees(planned(), [late, *more])[0]


@pytest.mark.parametrize("link", ["b->a over lan", "a->d over lan", "a->a over lan", "a->c over other"])
def test_no_other_link_is_made_up(link: str) -> None:
    assert "a link that the plan does not have" in ledger_disagrees(planned(), frames(link))[0]
