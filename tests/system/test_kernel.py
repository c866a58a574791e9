"""What we read of a kernel is what `ip` and `tc` read of it, in a namespace that has one of everything."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import chain
from typing import Any

import pytest

from tests.command import ROOT

MAKE = """
ip link set lo up
ip link add br0 type bridge
ip link add eth0 address 02:42:c6:12:00:02 gso_max_segs 1 type veth peer name p0
ip link set p0 master br0
ip link set br0 up
ip link set p0 up
ip link set eth0 mtu 1400 arp off up
ip link add down0 type veth peer name down1
ip address add 198.18.0.2/24 dev eth0
ip address add 198.18.9.1 peer 198.18.9.2 dev eth0
ip address add 2001:2::2/64 dev eth0 nodad
ip address add 2001:2::3/64 dev down0
ip link set eth0 arp on
ip route add default via 198.18.0.9 metric 7
ip route add 224.0.0.0/4 dev eth0
ip route add 255.255.255.255 dev eth0 src 198.18.0.2
ip route add blackhole 10.0.0.0/8
ip route add unreachable 10.1.0.0/16 proto static
ip route add 10.2.0.0/16 nexthop via 198.18.0.8 nexthop via 198.18.0.7
ip -6 route add default via 2001:2::9 metric 5
ip -6 route add multicast ff00::/8 metric 1 dev eth0 table local
ip neigh add 198.18.0.3 lladdr 02:42:c6:12:00:03 nud permanent dev eth0
ip neigh add 2001:2::4 lladdr 02:42:c6:12:00:04 nud permanent dev eth0
ip neigh add 198.18.0.4 lladdr 02:42:c6:12:00:04 nud reachable dev eth0
tc qdisc add dev eth0 clsact
tc qdisc add dev p0 clsact
tc filter add dev eth0 egress protocol all pref 1 handle 1 bpf bytecode "2,32 0 0 26,6 0 0 4294967295," \
  action mirred egress redirect dev br0
tc filter add dev eth0 egress protocol ip pref 2 handle 2 bpf bytecode "1,6 0 0 0," \
  action mirred ingress mirror dev p0 pipe action mirred egress redirect dev br0
tc filter add dev eth0 egress protocol ipv6 pref 3 u32 match u32 0 0 action mirred egress redirect dev br0
tc filter add dev eth0 ingress protocol all pref 4 handle 4 bpf da bytecode "1,6 0 0 2,"
tc filter add dev eth0 ingress protocol all pref 5 chain 3 handle 5 bpf da bytecode "1,6 0 0 2,"
ping -c 2 -i 0.01 -W 0.01 198.18.0.3 || :
"""
ADD = """
import json
from testbed.agent import kernel
from testbed.agent.kernel import Neighbour, Route
with kernel.of(None, "adding") as now:
    now.add(
        [
            Route("10.9.0.0/16", "eth0"), Route("10.9.8.7/32", "br0", "198.18.0.2", metric=3),
            Route("2001:3::/64", "eth0"), Route("ff00::/8", "br0", None, kernel.LOCAL, multicast=True, metric=2),
        ],
        [Neighbour("198.18.0.3", "02:42:c6:12:00:99", "eth0"), Neighbour("2001:2::7", "02:42:c6:12:00:07", "eth0")]
        + [Neighbour(f"198.18.1.{n}", f"02:42:c6:12:01:{n:02x}", "eth0") for n in range(1, 200)],
    )
    try:
        now.add([Route("10.9.0.0/16", "eth0")], [])
    except kernel.EngineError as problem:
        print(json.dumps([str(problem)]))
"""
ASK = """
import json, socket
from testbed.agent import kernel
with kernel.of(None, "asking") as now:
    print(json.dumps({
        "links": now.addresses(),
        "routes": now.routes(socket.AF_INET, kernel.MAIN),
        "routes6": now.routes(socket.AF_INET6, kernel.MAIN),
        "local6": now.routes(socket.AF_INET6, kernel.LOCAL),
        "neighbours": now.permanent_neighbours(socket.AF_INET, socket.AF_INET6),
        "qdiscs": now.qdiscs(),
        "filters": now.filters(["eth0", "p0", "down0"]),
    }))
"""
TOLD = {
    "links": "ip -j -d -s address show",
    "routes": "ip -j -d route show table main",
    "routes6": "ip -j -d -6 route show table main",
    "local6": "ip -j -d -6 route show table local",
    "neighbours": "ip -j neigh show nud permanent",
    "qdiscs": "tc -j qdisc show",
}
WORDS = {
    "routes": ("type", "dst", "dev", "gateway", "metric", "prefsrc", "protocol"),
    "neighbours": ("dst", "dev", "lladdr", "state"),
    "qdiscs": ("kind", "dev"),
}
WORDS["routes6"] = WORDS["local6"] = WORDS["routes"]


@pytest.fixture(scope="module")
def both(namespaces_work: None) -> dict[str, Any]:
    """By what was asked: our answer, that of iproute2, and ours again: kernels speak up by themselves."""
    hooks = [f"tc -j -s filter show dev {dev} {side}" for dev in ("eth0", "p0", "down0") for side in SIDES]
    told = [f"{command}; echo" for command in (*TOLD.values(), *hooks)]
    script = "\n".join([MAKE, '"$0" -c "$1"', '"$0" -c "$2"', *told, '"$0" -c "$2"'])
    done = subprocess.run(
        ["unshare", "--map-root-user", "--net", "sh", "-ec", script, sys.executable, ADD, ASK],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith(("[", "{"))]
    (refused,), ours, *theirs, later = map(json.loads, lines)
    found = dict(zip(TOLD, theirs[: len(TOLD)], strict=True)) | {"filters": theirs[len(TOLD) :]}
    return {name: (ours[name], found[name], later[name]) for name in ours} | {"refused": refused}


def between(before: dict[str, int], told: dict[str, int], after: dict[str, int]) -> bool:
    """Counts only grow."""
    return all(before[word] <= told[word] <= after[word] for word in before)


SIDES = ("egress", "ingress")


def some(entry: dict[str, Any], words: tuple[str, ...]) -> dict[str, Any]:
    return {word: entry[word] for word in words if word in entry}


@pytest.mark.parametrize("what", ["routes", "routes6", "local6", "neighbours", "qdiscs"])
def test_tables(both: dict[str, Any], what: str) -> None:
    ours, theirs, _ = both[what]
    assert len(theirs) >= 2
    assert ours == [some(entry, WORDS[what]) for entry in theirs]


def test_what_was_added_is_there(both: dict[str, Any]) -> None:
    _, routes, _ = both["routes"]
    by_dst = {route["dst"]: route for route in routes}
    assert some(by_dst["10.9.0.0/16"], ("type", "dev", "scope", "protocol", "metric")) == {
        "type": "unicast", "dev": "eth0", "scope": "link", "protocol": "boot"
    }  # fmt: skip
    assert some(by_dst["10.9.8.7"], ("dev", "prefsrc", "metric")) == {
        "dev": "br0", "prefsrc": "198.18.0.2", "metric": 3
    }  # fmt: skip
    assert "2001:3::/64" in [route["dst"] for route in both["routes6"][1]]
    groups = [some(r, ("type", "dev", "metric")) for r in both["local6"][1] if r["dst"] == "ff00::/8"]
    assert {"type": "multicast", "dev": "br0", "metric": 2} in groups
    known = {entry["dst"]: entry["lladdr"] for entry in both["neighbours"][1]}
    assert known["198.18.0.3"] == "02:42:c6:12:00:99", "it is put in the place of the one before"
    assert known["2001:2::7"] == "02:42:c6:12:00:07" and known["198.18.1.199"] == "02:42:c6:12:01:c7"
    assert "adding: adding Route(to='10.9.0.0/16', dev='eth0'" in both["refused"]
    assert both["refused"].endswith("the kernel refuses: File exists")


def test_interfaces(both: dict[str, Any]) -> None:
    ours, theirs, later = both["links"]
    assert len(ours) == len(theirs) == 6
    for mine, its in zip(ours, theirs, strict=True):
        assert mine["flags"] == [word for word in mine["flags"] if word in its["flags"]]
        for word in ("UP", "LOWER_UP", "NOARP", "LOOPBACK"):
            assert (word in mine["flags"]) == (word in its["flags"]), word
        words = ("ifindex", "ifname", "mtu", "address", "master", "gso_max_segs")
        assert some(mine, words) == some(its, words)
        told = [
            some(address, ("family", "local", "prefixlen", "tentative", "dadfailed"))
            for address in its["addr_info"]
        ]
        assert mine["addr_info"] == told
    eth0 = next(link for link in ours if link["ifname"] == "eth0")
    assert eth0["gso_max_segs"] == 1 and len(eth0["addr_info"]) >= 3
    for mine, its, after in zip(ours, theirs, later, strict=True):
        for side in ("rx", "tx"):
            assert between(mine["stats64"][side], its["stats64"][side], after["stats64"][side])


def test_filters_and_what_they_counted(both: dict[str, Any]) -> None:
    ours, theirs, later = both["filters"]
    assert [len(hook) for hook in ours] == [len(hook) for hook in theirs]
    assert [len(hook) for hook in ours] == [7, 4, 0, 0, 0, 0]
    for mine, its, after in zip(chain(*ours), chain(*theirs), chain(*later), strict=True):
        assert (mine["kind"], mine["pref"], mine["chain"]) == (its["kind"], its["pref"], its.get("chain", 0))
        assert (mine["protocol"] == "all") == (its["protocol"] == "all")
        if mine["kind"] != "bpf" or "options" not in its:
            continue
        told = its["options"]
        assert int(mine["options"]["handle"], 0) == int(told["handle"], 0)
        assert mine["options"]["bytecode"] == told["bytecode"]
        assert mine["options"].get("direct-action", False) == told.get("direct-action", False)
        assert len(mine["options"].get("actions", ())) == len(told.get("actions", ()))
        actions = (one["options"].get("actions", ()) for one in (mine, its, after))
        for action, known, counted in zip(*actions, strict=True):
            words = ("order", "kind", "mirred_action", "direction", "to_dev")
            assert some(action, words) == some(known, words)
            assert between(action["stats"], known["stats"], counted["stats"])
            if "mirred_action" in action:
                assert action["control_action"] == some(known["control_action"], ("type",))
    sent = ours[0][1]["options"]["actions"][0]["stats"]
    assert sent["packets"] >= 1, "a count of nothing proves little"
