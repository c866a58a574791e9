"""Every way in which a network can have been another than the one asked for, and what the proof says of it."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest

from testbed.agent import bpf, filters, links, proof
from testbed.agent.filters import Filter, Seen
from testbed.agent.host import Host, Nic
from testbed.agent.proof import Demand, Moment, View
from testbed.errors import ConditionError

MACS = {"a": "02:42:c6:12:00:02", "b": "02:42:c6:12:00:03", "c": "02:42:c6:12:00:04"}


def host(name: str, *networks: str) -> Host:
    nics = tuple(
        Nic(f"eth{n}", net, f"198.18.{n}.{ord(name)}", 24, MACS[name][:-4] + f"{n}{MACS[name][-3:]}")
        for n, net in enumerate(networks)
    )
    return Host(name, 1, nics, (), (), {}, mtus={nic.name: 1500 for nic in nics})


HOSTS = {name: host(name, "lan", "wan") for name in ("a", "b")} | {"c": host("c", "lan")}


def link(source: str, target: str, network: str = "lan", **condition: Any) -> dict[str, Any]:
    ends = [HOSTS[name].nic_of(network) for name in (source, target)]
    assert ends[0] and ends[1]
    return {
        "id": f"{source}->{target} over {network}",
        "source": source,
        "target": target,
        "network": network,
        "source_mac": ends[0].mac,
        "target_mac": ends[1].mac,
        "source_dev": ends[0].name,
        "condition": condition,
    }


# what is wanted


def test_group_frames_need_a_link_to_everyone_on_the_network() -> None:
    wanted = links.decide(7, [link("a", "b", delay_ns=5)], HOSTS)
    assert list(wanted.links) == ["a->b over lan", "a->c over lan"]
    assert wanted.asked == {"a->b over lan"}
    assert wanted.links["a->b over lan"] == {
        "id": "a->b over lan",
        "source": "a",
        "target": "b",
        "network": "lan",
        "source_mac": MACS["a"],
        "target_mac": MACS["b"],
        "condition": {"delay_ns": 5},
        "max_frame": 1514,
    }
    assert wanted.links["a->c over lan"]["condition"] == {}
    assert wanted.demand.links == {"a->b over lan": "a->b over lan", "a->c over lan": "a"}


def test_only_impaired_peers_are_filtered() -> None:
    wanted = links.decide(7, [link("a", "b")], HOSTS)
    assert wanted.filters == {
        "a": (
            Filter("eth0", "egress", 1, bpf.text(bpf.to_the_wire([MACS["b"]])), "w0"),
            Filter("w0", "ingress", 1, bpf.text(bpf.from_source(MACS["a"])), "eth0"),
        )
    }


def test_two_networks_have_two_ways_back() -> None:
    wanted = links.decide(7, [link("a", "b", "lan"), link("a", "b", "wan"), link("a", "c", "lan")], HOSTS)
    assert [(f.dev, f.side, f.number, f.to_dev) for f in wanted.filters["a"]] == [
        ("eth0", "egress", 1, "w0"),
        ("w0", "ingress", 1, "eth0"),
        ("eth1", "egress", 1, "w0"),
        ("w0", "ingress", 2, "eth1"),
    ]
    assert "c->a over lan" not in wanted.links
    assert wanted.filters.keys() == {"a"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"target": "z"}, "knows no host z on lan"),
        ({"network": "moon"}, "knows no host a on moon"),
        ({"source_mac": "02:00:00:00:00:00"}, "a has 02:42:c6:12:00:02 on lan and not 02:00:00:00:00:00"),
        ({"condition": {"colour": 1}}, "unknown condition colour"),
    ],
)
def test_a_link_that_does_not_fit_the_hosts(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConditionError, match=said):
        links.decide(1, [link("a", "b") | change], HOSTS)


def test_how_long_a_frame_may_stay() -> None:
    asked = [link("a", "b", delay_ns=4_000_000_000, jitter_ns=10**9, jitter_distribution="normal"), link("b", "a")]
    assert links.decide(1, asked, HOSTS).longest_stay_s == 8.0
    slow = link("b", "a", rate_bit_s=64_000, queue_packets=500)
    assert links.decide(1, [asked[0], slow], HOSTS).longest_stay_s == pytest.approx(501 * 1514 * 8 / 64_000)
    assert links.decide(1, [link("a", "b", rate_bit_s=1)], HOSTS).longest_stay_s == 3600, "a queue without end"


# filters as tc shows them


def shown(f: Filter, packets: int = 0, **changes: Any) -> list[dict[str, Any]]:
    lines = [
        dict(zip(("code", "jt", "jf", "k"), map(int, x.split()), strict=True)) for x in f.program.split(",")[1:]
    ]
    action = {
        "order": 1,
        "kind": "mirred",
        "mirred_action": "redirect",
        "direction": "egress",
        "to_dev": f.to_dev,
        "control_action": {"type": "stolen"},
        "stats": {"packets": packets, "overlimits": 1},
    }
    options = {"handle": f"{f.number:#x}", "bytecode": {"length": len(lines), "insns": lines}, "actions": [action]}
    if f.to_dev is None:
        options |= {"direct-action": True}
        del options["actions"]
    head = {"protocol": "all", "pref": f.number, "kind": "bpf", "chain": 0}
    return [head, head | {"options": options} | changes]


OUT = Filter("eth0", "egress", 1, bpf.text(bpf.to_the_wire([MACS["b"]])), "w0")
DOOR = Filter("br", "ingress", 1, bpf.text(bpf.DROP_ALL), None)


def test_filters_are_read_back_whole() -> None:
    assert filters.parse(["eth0"], [shown(OUT, 5), []]) == [Seen(OUT, 5, 1)]
    assert filters.parse(["br"], [[], shown(DOOR)]) == [Seen(DOOR, 0, 0)]


def spoiled(what: str) -> list[dict[str, Any]]:
    entries = deepcopy(shown(OUT))
    options = entries[1]["options"]
    action = options["actions"][0]
    match what:
        case "mirror":
            action["mirred_action"] = "mirror"
        case "to ingress":
            action["direction"] = "ingress"
        case "passes on":
            action["control_action"] = {"type": "pipe"}
        case "two actions":
            options["actions"].append({"order": 2, "kind": "gact"})
        case "no action":
            options["actions"] = []
        case "one protocol":
            entries[1]["protocol"] = "ip"
        case "another kind":
            entries[1]["kind"] = "u32"
        case "another chain":
            entries[1]["chain"] = 3
    return entries


@pytest.mark.parametrize(
    "what",
    [
        "mirror",
        "to ingress",
        "passes on",
        "two actions",
        "no action",
        "one protocol",
        "another kind",
        "another chain",
    ],
)
def test_a_filter_that_does_something_else_is_not_ours(what: str) -> None:
    found = [seen.filter for seen in filters.parse(["eth0"], [spoiled(what), []])]
    assert len(found) == 1
    assert not found[0].is_ours
    assert filters.differences([OUT], found)


def test_what_is_right_is_not_touched_and_keeps_its_counts() -> None:
    assert filters.commands(["eth0"], [OUT], [Seen(OUT, 9, 0)]) == ["qdisc replace dev eth0 clsact"]


def test_what_is_not_ours_is_not_removed_by_us() -> None:
    foreign = filters.parse(["eth0"], [spoiled("another kind"), []])
    assert filters.commands(["eth0"], [], foreign) == []


def test_commands() -> None:
    other = replace(OUT, program=bpf.text(bpf.to_the_wire([MACS["c"]])))
    gone = replace(OUT, side="ingress", number=2)
    assert filters.commands(["eth0"], [OUT], [Seen(other, 0, 0), Seen(gone, 0, 0)]) == [
        "qdisc replace dev eth0 clsact",
        "filter del dev eth0 ingress protocol all pref 2 handle 2 bpf",
        f'filter replace dev eth0 egress protocol all pref 1 handle 1 bpf bytecode "{OUT.program}," '
        "action mirred egress redirect dev w0",
    ]
    assert DOOR.replace_command() == (
        'filter replace dev br ingress protocol all pref 1 handle 1 bpf da bytecode "1,6 0 0 2,"'
    )


# the proof


def nic(
    index: int, dropped: tuple[int, int] = (0, 0), flags: tuple[str, ...] = ("UP", "LOWER_UP")
) -> dict[str, Any]:
    return {
        "ifindex": index,
        "mtu": 1500,
        "flags": list(flags),
        "stats64": {"rx": {"dropped": dropped[0]}, "tx": {"dropped": dropped[1]}},
    }


WANTED = links.decide(1, [link("a", "b", delay_ns=5), link("b", "a")], {"a": HOSTS["a"], "b": HOSTS["b"]})
DEMAND = WANTED.demand


def view(name: str, packets: int = 0) -> View:
    w0 = nic(9) | {"mtu": 65535, "gso_max_segs": 1}
    seen = tuple(Seen(f, packets, 0) for f in WANTED.filters[name])
    return View(seen, {"lo": nic(1), "eth0": nic(2), "eth1": nic(3), "w0": w0})


def report(n: int = 0) -> dict[str, Any]:
    return {
        "hosts": {name: {"frames_in": n, "unknown": 0} for name in "ab"},
        "links": {
            link: {"condition": DEMAND.conditions[link], "frames": n, "unasked": 0} for link in DEMAND.links
        },
        "ring": {"rx_drops": 0, "too_large": 0, "bad_age": 0, "tx_busy": 0, "tx_errors": 0},
    }


START = Moment({name: view(name) for name in "ab"}, report())


def end() -> Moment:
    return Moment({name: view(name, 100) for name in "ab"}, report(100))


def prove(now: Moment, offsets: dict[str, int] | None = None) -> list[proof.Problem]:
    return proof.not_in_force(DEMAND, START, now) + proof.lost_frames(DEMAND, START, now, offsets or {})


def test_a_run_in_which_nothing_is_wrong() -> None:
    assert prove(end()) == []


def with_view(name: str, change: Callable[[View], View]) -> Moment:
    now = end()
    return Moment({**now.views, name: change(now.views[name])}, now.report)


def with_link(dev: str, **changes: Any) -> Moment:
    return with_view("a", lambda v: replace(v, links={**v.links, dev: v.links[dev] | changes}))


def without_link(dev: str) -> Moment:
    return with_view("a", lambda v: replace(v, links={k: x for k, x in v.links.items() if k != dev}))


def with_filter(number: int, change: Callable[[Filter], Filter]) -> Moment:
    def changed(v: View) -> View:
        seen = list(v.filters)
        seen[number] = replace(seen[number], filter=change(seen[number].filter))
        return replace(v, filters=tuple(seen))

    return with_view("a", changed)


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (with_view("a", lambda v: replace(v, filters=v.filters[1:])), "missing: egress filter 1 of eth0"),
        (with_view("a", lambda v: replace(v, filters=v.filters[:1])), "missing: ingress filter 1 of w0"),
        (with_filter(0, lambda f: replace(f, to_dev="*")), "redirects to *"),
        (with_filter(0, lambda f: replace(f, program=bpf.text(bpf.DROP_ALL))), "1 instructions"),
        (with_filter(0, lambda f: replace(f, program=f.program[:-1] + "1")), "another program in its place"),
        (with_filter(1, lambda f: replace(f, number=2)), "too much: ingress filter 2 of w0"),
        (without_link("w0"), "w0 is missing"),
        (without_link("eth0"), "eth0 is missing"),
        (with_link("w0", ifindex=77), "w0 was replaced by another interface of that name"),
        (with_link("eth0", ifindex=77), "eth0 was replaced by another interface of that name"),
        (with_link("eth0", flags=["LOWER_UP"]), "eth0 is down"),
        (with_link("w0", flags=["UP"]), "w0 or its other end is down"),
        (with_link("w0", gso_max_segs=65535), "w0 lets through super-packets (gso_max_segs 65535)"),
        (with_link("w0", mtu=1500), "w0 has MTU 1500 and not 65535"),
        (with_view("a", lambda v: replace(v, checksum_offload=True)), "w0 leaves checksums to hardware"),
    ],
)
def test_what_is_missing_or_changed_is_an_error_of_that_host(now: Moment, said: str) -> None:
    problems = proof.not_in_force(DEMAND, START, now)
    assert {(outcome, who) for outcome, who, _ in problems} == {("error", "a")}
    assert any("not in force" in text and said in text for _, _, text in problems), problems


def with_report(*path: str, value: Any) -> Moment:
    made = end()
    data: dict[str, Any] = deepcopy(dict(made.report))
    at = data
    for key in path[:-1]:
        at = at[key]
    if value is None:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return Moment(made.views, data)


AB, BA = "a->b over lan", "b->a over lan"


@pytest.mark.parametrize(
    ("now", "problem"),
    [
        (with_report("links", AB, value=None), ("error", AB, f"{AB} is not in force: the wire does not hold it")),
        (
            with_report("links", AB, "condition", value={"delay_ns": 4}),
            ("error", AB, f"{AB} is not in force: asked {{'delay_ns': 5}}, the wire holds {{'delay_ns': 4}}"),
        ),
        (
            with_report("hosts", "a", "frames_in", value=104),
            (
                "error",
                "a",
                "the filters of a were not in force all the time: the wire read 4 frames more than they counted, "
                "so they were taken away and put back",
            ),
        ),
        (
            with_report("hosts", "b", "frames_in", value=97),
            ("inconclusive", "b", "the wire itself lost 3 frames: sent by b, they never reached its receive ring"),
        ),
        (
            with_report("ring", "rx_drops", value=2),
            ("inconclusive", "", "the wire itself lost 2 frames: its receive ring was full"),
        ),
        (
            with_report("ring", "too_large", value=2),
            ("inconclusive", "", "the wire itself lost 2 frames: 2 were larger than a slot"),
        ),
        (
            with_report("ring", "tx_errors", value=1),
            ("inconclusive", "", "the wire itself lost 1 frame: 1 was refused by the kernel on sending"),
        ),
        (
            with_report("hosts", "b", "unknown", value=1),
            (
                "inconclusive",
                "b",
                "the wire itself lost 1 frame: b sent them to or from an address that belongs to no link",
            ),
        ),
        (
            with_report("links", BA, "unasked", value=6),
            ("inconclusive", BA, f"the wire itself lost 6 frames: on {BA}"),
        ),
        (
            with_link("eth0", stats64={"rx": {"dropped": 0}, "tx": {"dropped": 8}}),
            ("inconclusive", "a", "the kernel dropped 8 frames at eth0 of a on sending, unasked"),
        ),
        (
            with_link("w0", stats64={"rx": {"dropped": 1}, "tx": {"dropped": 0}}),
            ("inconclusive", "a", "the kernel dropped 1 frame at w0 of a on receiving, unasked"),
        ),
    ],
)
def test_each_loss_and_each_contradiction(now: Moment, problem: proof.Problem) -> None:
    assert prove(now) == [problem]


def test_ring_drops_explain_what_was_not_read() -> None:
    now = with_report("hosts", "a", "frames_in", value=98)
    now.report["ring"]["rx_drops"] = 2
    assert prove(now) == [("inconclusive", "", "the wire itself lost 2 frames: its receive ring was full")]


def test_a_loss_whose_link_is_known_is_not_said_of_all() -> None:
    now = with_report("links", AB, "unasked", value=2)
    now.report["ring"] |= {"too_large": 1, "tx_errors": 1}
    why = "1 was larger than a slot, 1 was refused by the kernel on sending"
    assert prove(now) == [("inconclusive", AB, f"the wire itself lost 2 frames: on {AB} ({why})")]


def test_counts_are_compared_from_where_they_began() -> None:
    now = with_report("hosts", "a", "frames_in", value=60)
    assert prove(now, {"a": 40}) == []
    assert proof.unread({"a": 40}, end()) == {"a": -40}


def test_a_link_that_nobody_asked_for_answers_by_its_host() -> None:
    wanted = links.decide(1, [link("a", "b")], HOSTS)
    views = START.views
    now = Moment(views, {"hosts": {}, "links": {"a->b over lan": {}, "a->c over lan": {"unasked": 1}}, "ring": {}})
    found = proof.lost_frames(wanted.demand, Moment(views, {}), now, {})
    assert found == [("inconclusive", "a", "the wire itself lost 1 frame: on a->c over lan")]


def test_an_interface_that_no_link_passes_may_drop_what_it_likes() -> None:
    assert WANTED.devices == {"a": ("eth0", "w0"), "b": ("eth0", "w0")}
    assert prove(with_link("eth1", stats64={"rx": {"dropped": 3}, "tx": {"dropped": 4}})) == []


def test_a_host_that_only_receives_is_watched_too() -> None:
    wanted = links.decide(1, [link("a", "c")], HOSTS)
    assert wanted.filters.keys() == {"a"}
    assert wanted.devices == {"a": ("eth0", "w0"), "c": ("eth0",)}
    dropped = View((), {"eth0": nic(2, (5, 0))})
    start = Moment({"a": START.views["a"], "c": View((), {"eth0": nic(2)})}, {})
    found = proof.lost_frames(wanted.demand, start, Moment({"a": START.views["a"], "c": dropped}, {}), {})
    assert found == [("inconclusive", "c", "the kernel dropped 5 frames at eth0 of c on receiving, unasked")]


def test_the_demand_of_nothing() -> None:
    assert prove(Moment(START.views, START.report)) == []
    assert proof.not_in_force(Demand({}, {}), None, Moment({}, {})) == []
