"""Links: which rule wins, what a rule means for each direction, queues that follow from rates."""

from __future__ import annotations

import textwrap

import pytest

from testbed.conditions.condition import Condition
from testbed.plan import Link, Plan, plan
from testbed.plan.links import FULL_FRAME_BYTES, default_queue_packets, references
from testbed.scenario import parse

GROUPS = "hosts: {a: {run: x}, b: , g: {count: 2, run: y}, h: {count: 2, run: z}}\n"


def planned(text: str) -> Plan:
    return plan(parse("testbed: 1\nabout: x\n" + textwrap.dedent(text), "t.yaml"))


def rules(text: str) -> dict[str, str]:
    return {link.id.removesuffix(" over lan"): link.rule for link in planned(text).links}


def test_one_way_and_both_ways() -> None:
    assert rules(GROUPS + "links: {a->b: {}}\n") == {"a->b": "a -> b"}
    assert rules(GROUPS + "links: {a<->b: {}}\n") == {"a->b": "a <-> b", "b->a": "a <-> b"}
    assert planned(GROUPS).links == ()


def test_groups_all_and_networks_mean_every_pair() -> None:
    assert set(rules(GROUPS + "links: {a -> g: {}}\n")) == {"a->g-1", "a->g-2"}
    assert set(rules(GROUPS + "links: {g -> h: {}}\n")) == {"g-1->h-1", "g-1->h-2", "g-2->h-1", "g-2->h-2"}
    assert set(rules(GROUPS + "links: {g -> g: {}}\n")) == {"g-1->g-2", "g-2->g-1"}
    assert set(rules(GROUPS + "links: {a -> all: {}}\n")) == {"a->b", "a->g-1", "a->g-2", "a->h-1", "a->h-2"}
    assert len(rules(GROUPS + "links: {all <-> all: {}}\n")) == len(rules(GROUPS + "links: {lan: {}}\n")) == 30
    assert set(rules(GROUPS + "links: {g-2 -> a: {}}\n")) == {"g-2->a"}


def test_the_more_specific_rule_wins_whole_and_the_losers_are_named() -> None:
    text = """\
        links:
          lan: {delay: 1 ms, loss: 1 %}
          g -> all: {delay: 2 ms}
          g -> a: {delay: 3 ms}
          g-1 -> a: {loss: 5 %}
        """
    links = {link.id.removesuffix(" over lan"): link for link in planned(GROUPS + textwrap.dedent(text)).links}
    assert links["g-1->a"].condition == Condition(loss_ratio=0.05)
    assert (links["g-1->a"].rule, links["g-1->a"].line) == ("g-1 -> a", 8)
    assert links["g-1->a"].overruled == ("lan", "g -> all", "g -> a")
    assert (links["g-2->a"].rule, links["g-2->a"].overruled) == ("g -> a", ("lan", "g -> all"))
    assert (links["g-2->h-1"].rule, links["g-2->h-1"].overruled) == ("g -> all", ("lan",))
    assert (links["a->g-1"].rule, links["a->g-1"].overruled) == ("lan", ())
    assert links["a->g-1"].condition == Condition(delay_ns=10**6, loss_ratio=0.01)


def test_the_order_of_the_rules_does_not_matter() -> None:
    first = "links: {g-1 -> a: {loss: 5 %}, g -> a: {loss: 4 %}, g -> all: {loss: 3 %}, lan: {loss: 2 %}}\n"
    last = "links: {lan: {loss: 2 %}, g -> all: {loss: 3 %}, g -> a: {loss: 4 %}, g-1 -> a: {loss: 5 %}}\n"
    conditions = [{link.id: link.condition for link in planned(GROUPS + text).links} for text in (first, last)]
    assert conditions[0] == conditions[1]


def test_rules_over_one_of_several_networks() -> None:
    made = planned("""\
        networks: {l: , m: }
        hosts: {a: {networks: [l, m], run: x}, b: {networks: [l, m]}, c: {networks: [m]}}
        links: {a -> b over m: {delay: 1 ms}, c -> a: {delay: 2 ms}, l: {loss: 3 %}, all -> c over m: {}}
        """)
    assert {link.id: link.rule for link in made.links} == {
        "a->b over m": "a -> b over m",
        "c->a over m": "c -> a",
        "a->b over l": "l",
        "b->a over l": "l",
        "a->c over m": "all -> c over m",
        "b->c over m": "all -> c over m",
    }


def test_every_word_of_a_condition() -> None:
    text = """\
        links:
          a -> b:
            delay: 20 ms
            jitter: {of: 2 ms, distribution: normal}
            loss: 10 %
            duplicate: 1 %
            reorder: {ratio: 5 %, by: 3 packets}
            rate: 10 Mbit/s
            queue: 64 KiB
        """
    assert planned(GROUPS + textwrap.dedent(text)).links[0].condition == Condition(
        delay_ns=20_000_000,
        jitter_ns=2_000_000,
        jitter_distribution="normal",
        loss_ratio=0.1,
        duplicate_ratio=0.01,
        reorder_ratio=0.05,
        reorder_by_packets=3,
        rate_bit_s=10_000_000,
        queue_bytes=65_536,
    )


@pytest.mark.parametrize(
    ("queue", "condition"),
    [
        ("50 ms", Condition(rate_bit_s=10**6, queue_ns=50_000_000)),
        ("9 packets", Condition(rate_bit_s=10**6, queue_packets=9)),
        ("1 kB", Condition(rate_bit_s=10**6, queue_bytes=1000)),
    ],
)
def test_a_queue_in_time_packets_or_bytes(queue: str, condition: Condition) -> None:
    made = planned(GROUPS + f"links: {{a -> b: {{rate: 1 Mbit/s, queue: {queue}}}}}\n")
    assert made.links[0].condition == condition
    assert made.notes == ()


@pytest.mark.parametrize("key", ["a <-> b", "lan"])
def test_a_round_trip_is_half_each_way(key: str) -> None:
    made = planned(f"hosts: {{a: {{run: x}}, b: }}\nlinks: {{{key}: {{rtt: 40 ms}}}}\n")
    assert [(link.id, link.condition.delay_ns) for link in made.links] == [
        ("a->b over lan", 20_000_000),
        ("b->a over lan", 20_000_000),
    ]


def test_a_queue_without_a_word_holds_one_round_trip_of_full_frames() -> None:
    made = planned(GROUPS + "links: {a -> b: {delay: 30 ms, rate: 100 Mbit/s}, b -> a: {delay: 10 ms}}\n")
    packets = -(-(100_000_000 * 40 // 1000) // (8 * FULL_FRAME_BYTES))
    assert packets == 331
    assert made.links[0].condition.queue_packets == packets
    assert made.links[1].condition.queue_packets is None
    assert made.notes == ("a -> b: no queue given, so 331 packets: one round trip at that rate, at least 20",)


@pytest.mark.parametrize(
    ("rate_bit_s", "round_trip_ns", "packets"),
    [(10**6, 0, 20), (10**6, 10**7, 20), (10**9, 10**8, 8257), (12_112, 20 * 10**9, 20), (12_112, 21 * 10**9, 21)],
)
def test_the_default_queue_has_a_floor(rate_bit_s: int, round_trip_ns: int, packets: int) -> None:
    assert default_queue_packets(rate_bit_s, round_trip_ns) == packets


def test_jitter_that_may_reorder_is_said_so() -> None:
    jitter = "{delay: 9 ms, jitter: 2 ms}"
    assert planned(GROUPS + f"links: {{a -> b: {jitter}}}\n").notes == (
        "a -> b: jitter may reorder, packets up to 4 ms apart; with `order: kept` it does not",
    )
    normal = "{delay: 9 ms, jitter: {of: 2 ms, distribution: normal}}"
    assert planned(GROUPS + f"links: {{a -> b: {normal}}}\n").notes == (
        "a -> b: jitter may reorder; with `order: kept` it does not",
    )
    limited = jitter.replace("}", ", rate: 1 Mbit/s, queue: 9 packets}")
    assert planned(GROUPS + f"links: {{a -> b: {limited}}}\n").notes == (
        "a -> b: jitter may reorder, packets up to 4 ms apart; with `order: kept` it does not",
    )
    kept = jitter.replace("2 ms}", "{of: 2 ms, order: kept}}")
    for condition in (kept, limited.replace("jitter: 2 ms", "jitter: {of: 2 ms, order: kept}")):
        made = planned(GROUPS + f"links: {{a -> b: {condition}}}\n")
        assert (made.notes, made.links[0].condition.jitter_order) == ((), "kept")


def test_what_an_expectation_names_is_watched_too() -> None:
    made = planned(
        GROUPS + "links: {a -> b: {loss: 1 %}}\nexpect: [a->b.sent == b -> g over lan.sent + g-1->a.bytes]\n"
    )
    watched = Link("b->g-1 over lan", "b", "g-1", "lan", Condition(), "", 0)
    assert [link.id for link in made.links] == [
        "a->b over lan",
        "b->g-1 over lan",
        "b->g-2 over lan",
        "g-1->a over lan",
    ]
    assert made.links[1] == watched


def test_what_an_expectation_names_over_several_networks_is_watched_on_each() -> None:
    text = "networks: {l: , m: }\nhosts: {a: {networks: [l, m], run: x}, b: {networks: [l, m]}}\nexpect: ["
    assert len(planned(text + "a->b.sent == 1]\n").links) == 2
    assert [link.id for link in planned(text + "a->b over m.sent == 1]\n").links] == ["a->b over m"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a.lost == a->b.dropped", [("a", "b", None)]),
        ("a -> b over lan .sent > c-1->d-2.sent", [("a", "b", "lan"), ("c-1", "d-2", None)]),
        ("sum of g->a.sent == 5", [("g", "a", None)]),
        ('a.stdout contains "b->c.d"', []),
        ("a.stdout contains 'b->c.d'", []),
        ("a.stdout matches /b->c.d/", []),
        ("a->b", []),
        ("a<->b.sent == 1", []),
    ],
)
def test_the_links_that_an_expectation_names(text: str, found: list[tuple[str, str, str | None]]) -> None:
    assert list(references(text)) == found


def test_expectations_about_nobody_watch_nothing() -> None:
    assert planned(GROUPS + "expect: [nobody->a.sent == 1, a->a.sent == 1, a->b over wan.sent == 1]\n").links == ()
