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
ASK = """
import json, socket, sys
from testbed.agent import kernel
with kernel.of(None, "asking") as now:
    print(json.dumps({
        "links": now.addresses(),
        "routes": now.routes(socket.AF_INET, kernel.MAIN),
        "routes6": now.routes(socket.AF_INET6, kernel.MAIN),
        "local6": now.routes(socket.AF_INET6, kernel.LOCAL),
        "neighbours": now.permanent_neighbours(),
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
    """By what was asked: our answer, and that of iproute2."""
    hooks = [f"tc -j -s filter show dev {dev} {side}" for dev in ("eth0", "p0", "down0") for side in SIDES]
    script = "\n".join([MAKE, '"$0" -c "$1"', *(f"{command}; echo" for command in (*TOLD.values(), *hooks))])
    done = subprocess.run(
        ["unshare", "--map-root-user", "--net", "sh", "-ec", script, sys.executable, ASK],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith(("[", "{"))]
    ours, *theirs = map(json.loads, lines)
    told = dict(zip(TOLD, theirs[: len(TOLD)], strict=True)) | {"filters": theirs[len(TOLD) :]}
    return {name: (ours[name], told[name]) for name in ours}


SIDES = ("egress", "ingress")


def some(entry: dict[str, Any], words: tuple[str, ...]) -> dict[str, Any]:
    return {word: entry[word] for word in words if word in entry}


@pytest.mark.parametrize("what", ["routes", "routes6", "local6", "neighbours", "qdiscs"])
def test_tables(both: dict[str, Any], what: str) -> None:
    ours, theirs = both[what]
    assert len(theirs) >= 2
    assert ours == [some(entry, WORDS[what]) for entry in theirs]


def test_interfaces(both: dict[str, Any]) -> None:
    ours, theirs = both["links"]
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
    assert {link["ifname"]: link["stats64"] for link in ours} == {
        link["ifname"]: {side: some(link["stats64"][side], ("packets", "dropped")) for side in ("rx", "tx")}
        for link in theirs
    }


def test_filters_and_what_they_counted(both: dict[str, Any]) -> None:
    ours, theirs = both["filters"]
    assert [len(hook) for hook in ours] == [len(hook) for hook in theirs]
    assert [len(hook) for hook in ours] == [7, 4, 0, 0, 0, 0]
    for mine, its in zip(chain(*ours), chain(*theirs), strict=True):
        assert (mine["kind"], mine["pref"], mine["chain"]) == (its["kind"], its["pref"], its.get("chain", 0))
        assert (mine["protocol"] == "all") == (its["protocol"] == "all")
        if mine["kind"] != "bpf" or "options" not in its:
            continue
        told = its["options"]
        assert int(mine["options"]["handle"], 0) == int(told["handle"], 0)
        assert mine["options"]["bytecode"] == told["bytecode"]
        assert mine["options"].get("direct-action", False) == told.get("direct-action", False)
        assert len(mine["options"].get("actions", ())) == len(told.get("actions", ()))
        for action, known in zip(mine["options"].get("actions", ()), told.get("actions", ()), strict=True):
            words = ("order", "kind", "mirred_action", "direction", "to_dev")
            assert some(action, words) == some(known, words)
            assert action["stats"] == some(known["stats"], ("packets", "overlimits"))
            if "mirred_action" in action:
                assert action["control_action"] == some(known["control_action"], ("type",))
    sent = ours[0][1]["options"]["actions"][0]["stats"]
    assert sent["packets"] >= 1, "a count of nothing proves little"
