"""What `ip` would be told to make a host right, and what is said of one that is not."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from testbed.agent import baseline, kernel
from testbed.agent.host import Host, Neighbour, Nic, Route
from testbed.errors import ConditionError

MAC0, MAC1 = "02:42:c6:12:00:02", "02:42:c6:12:01:02"
PEER, PEER_MAC = "198.18.0.3", "02:42:c6:12:00:03"


def host(**changes: Any) -> Host:
    values: dict[str, Any] = {
        "name": "a",
        "pid": 1,
        "nics": (Nic("eth0", "lan", "198.18.0.2", 24, MAC0), Nic("eth1", "wan", "198.18.1.2", 24, MAC1)),
        "routes": (Route("224.0.0.0/4", "eth0"), Route("255.255.255.255/32", "eth0")),
        "neighbours": (Neighbour(PEER, PEER_MAC, "eth0"),),
        "sysctls": {"net.ipv6.conf.all.disable_ipv6": "1", "net.ipv4.ip_local_port_range": "32768 60999"},
    }
    return Host(**(values | changes))


def link(name: str, mac: str, address: str | None, flags: tuple[str, ...] = ("UP",)) -> dict[str, Any]:
    inet = [{"family": "inet", "local": address, "prefixlen": 8 if name == "lo" else 24}] if address else []
    return {"ifname": name, "address": mac, "mtu": 1500, "flags": list(flags), "addr_info": inet}


def route(dst: str, dev: str = "eth0", **more: Any) -> dict[str, Any]:
    return {"type": "unicast", "dst": dst, "dev": dev, "flags": []} | more


def right() -> dict[str, Any]:
    """As `ip -j` and /proc/sys show a host that is as planned."""
    return copy.deepcopy(
        {
            "links": [
                link("lo", "00:00:00:00:00:00", "127.0.0.1"),
                link("eth0", MAC0, "198.18.0.2"),
                link("eth1", MAC1, "198.18.1.2"),
            ],
            "routes": [
                route("198.18.0.0/24", protocol="kernel", scope="link", prefsrc="198.18.0.2"),
                route("198.18.1.0/24", "eth1", protocol="kernel", scope="link", prefsrc="198.18.1.2"),
                route("224.0.0.0/4", scope="link"),
                route("255.255.255.255", scope="link"),
            ],
            "neighbours": [{"dst": PEER, "dev": "eth0", "lladdr": PEER_MAC, "state": ["PERMANENT"]}],
            "sysctls": {
                "net.ipv6.conf.all.disable_ipv6": "1",
                "net.ipv4.ip_local_port_range": "32768\t60999",
            },
        }
    )


def test_a_host_that_is_right_is_left_alone() -> None:
    assert baseline.link_commands(host(), right()) == []
    assert baseline.removals(host(), right()) == []
    assert baseline.additions(host(), right()) == ([], [])
    assert baseline.differences(host(), right()) == []


def test_swapped_interfaces_step_aside_first() -> None:
    seen = right()
    seen["links"][1]["ifname"], seen["links"][2]["ifname"] = "eth1", "eth0"
    assert baseline.link_commands(host(), seen) == [
        "link set dev eth1 down",
        "link set dev eth1 name tmp0",
        "link set dev eth0 down",
        "link set dev eth0 name tmp1",
        "link set dev tmp0 name eth0",
        "link set dev tmp1 name eth1",
        "link set dev eth0 up",
        "link set dev eth1 up",
    ]


def test_hardware_address_and_loopback() -> None:
    seen = right()
    seen["links"][1]["address"] = "aa:bb:cc:dd:ee:ff"
    seen["links"][0]["flags"] = []
    assert baseline.link_commands(host(), seen) == [
        f"link set dev eth0 address {MAC0}",
        "link set dev lo up",
    ]


def test_no_interface_with_the_address() -> None:
    seen = right()
    seen["links"][2]["addr_info"] = []
    with pytest.raises(
        ConditionError, match=r"a has no interface with 198.18.1.2 for wan; it has 198.18.0.2 on eth0"
    ):
        baseline.link_commands(host(), seen)


def test_routes_too_many_and_too_few() -> None:
    seen = right()
    seen["routes"] = [
        route("default", gateway="198.18.0.1", metric=100),
        *seen["routes"][:3],
        {"type": "blackhole", "dst": "10.0.0.0/8", "flags": []},
    ]
    assert baseline.removals(host(), seen) == [
        "route del default via 198.18.0.1 dev eth0 metric 100 table main",
        "route del blackhole 10.0.0.0/8 table main",
    ]
    assert baseline.additions(host(), seen) == ([kernel.Route("255.255.255.255/32", "eth0")], [])
    assert baseline.differences(host(), seen) == [
        "a route that is not in the plan: default via 198.18.0.1 dev eth0 metric 100",
        "a route that is not in the plan: blackhole 10.0.0.0/8",
        "no route 255.255.255.255/32 dev eth0",
    ]


def test_a_route_with_another_source_is_another_route() -> None:
    wanted = host(routes=(Route("10.0.0.0/8", "eth0", "198.18.0.2"),))
    seen = right()
    seen["routes"] = [*seen["routes"][:2], route("10.0.0.0/8", prefsrc="198.18.1.2")]
    assert baseline.removals(wanted, seen) == ["route del 10.0.0.0/8 dev eth0 table main"]
    assert baseline.additions(wanted, seen) == ([kernel.Route("10.0.0.0/8", "eth0", "198.18.0.2")], [])


def test_a_route_by_a_gateway_is_not_the_planned_one() -> None:
    seen = right()
    seen["routes"][2]["gateway"] = "198.18.0.9"
    assert baseline.removals(host(), seen) == ["route del 224.0.0.0/4 via 198.18.0.9 dev eth0 table main"]
    assert baseline.additions(host(), seen) == ([kernel.Route("224.0.0.0/4", "eth0")], [])


def test_the_kernels_own_route_may_stand_in_the_plan_too() -> None:
    wanted = host(routes=(*host().routes, Route("198.18.0.0/24", "eth0", "198.18.0.2")))
    assert baseline.differences(wanted, right()) == []
    seen = right()
    del seen["routes"][0]
    assert baseline.differences(wanted, seen) == ["no route 198.18.0.0/24 dev eth0 src 198.18.0.2"]


def test_a_route_that_the_kernel_made_for_a_foreign_address_goes() -> None:
    seen = right()
    seen["routes"].append(route("172.17.0.0/16", protocol="kernel", scope="link", prefsrc="172.17.0.2"))
    assert baseline.removals(host(), seen) == ["route del 172.17.0.0/16 dev eth0 table main"]


def test_neighbours() -> None:
    seen = right()
    seen["neighbours"] = [
        {"dst": PEER, "dev": "eth0", "lladdr": "aa:aa:aa:aa:aa:aa", "state": ["PERMANENT"]},
        {"dst": "198.18.0.77", "dev": "eth0", "lladdr": "aa:aa:aa:aa:aa:ab", "state": ["PERMANENT"]},
        {"dst": "198.18.0.78", "dev": "eth0", "state": ["FAILED"]},
    ]
    assert baseline.removals(host(), seen) == ["neigh del 198.18.0.77 dev eth0"]
    assert baseline.additions(host(), seen) == ([], [kernel.Neighbour(PEER, PEER_MAC, "eth0")])
    assert baseline.differences(host(), seen) == [
        f"neighbour {PEER} dev eth0 was to be {PEER_MAC} and is aa:aa:aa:aa:aa:aa",
        "neighbour 198.18.0.77 dev eth0 was to be absent and is aa:aa:aa:aa:aa:ab",
    ]


def spoil(seen: dict[str, Any], what: str) -> None:
    links = {entry["ifname"]: entry for entry in seen["links"]}
    match what:
        case "name":
            links["eth1"]["ifname"] = "eth7"
        case "address":
            links["eth0"]["addr_info"].append({"family": "inet", "local": "10.1.1.1", "prefixlen": 8})
        case "prefix":
            links["eth0"]["addr_info"][0]["prefixlen"] = 16
        case "mac":
            links["eth0"]["address"] = "00:00:00:00:00:01"
        case "down":
            links["eth1"]["flags"] = []
        case "foreign":
            seen["links"].append(link("eth9", "00:00:00:00:00:09", "10.9.9.9"))
        case "ipv6":
            links["eth0"]["addr_info"].append({"family": "inet6", "local": "fe80::1", "prefixlen": 64})
        case "sysctl":
            seen["sysctls"]["net.ipv4.ip_local_port_range"] = "1 2"
        case "sysctl gone":
            del seen["sysctls"]["net.ipv4.ip_local_port_range"]


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("name", ["no interface eth1: there are lo, eth0, eth7", "eth7 has 198.18.1.2, which is not in the plan"]),
        ("address", ["eth0 was to have 198.18.0.2/24 and has 10.1.1.1/8, 198.18.0.2/24"]),
        ("prefix", ["eth0 was to have 198.18.0.2/24 and has 198.18.0.2/16"]),
        ("mac", [f"eth0 was to have {MAC0} and has 00:00:00:00:00:01"]),
        ("down", ["eth1 is not up"]),
        ("foreign", ["eth9 has 10.9.9.9, which is not in the plan"]),
        ("ipv6", ["IPv6 is to be off and eth0 has fe80::1"]),
        ("sysctl", ["net.ipv4.ip_local_port_range was to be '32768 60999' and is '1 2'"]),
        ("sysctl gone", ["net.ipv4.ip_local_port_range was to be '32768 60999' and is None"]),
    ],
)
def test_each_difference_names_what_was_asked_and_what_is_there(what: str, said: list[str]) -> None:
    seen = right()
    spoil(seen, what)
    assert baseline.differences(host(), seen) == said


def test_ipv6_is_as_it_likes_where_the_plan_does_not_switch_it_off() -> None:
    seen = right()
    spoil(seen, "ipv6")
    assert baseline.differences(host(sysctls={}), seen) == []


# -- a host on a dual network, and on one without IPv6

DUAL = (
    Nic("eth0", "lan", "198.18.0.2", 24, MAC0, "2001:2::2", 64),
    Nic("eth1", "wan", "198.18.1.2", 24, MAC1),
)
LINK_LOCAL, PEER6 = "fe80::42:c6ff:fe12:2", "2001:2::3"


def dual_host() -> Host:
    return host(
        nics=DUAL,
        routes=(
            *host().routes,
            Route("2001:2::/64", "eth0"),
            Route("fe80::/64", "eth0"),
            Route("ff00::/8", "eth0"),
        ),
        neighbours=(*host().neighbours, Neighbour(PEER6, PEER_MAC, "eth0")),
        sysctls={"net.ipv6.conf.all.disable_ipv6": "0"},
    )


def address6(local: str, prefix_bits: int = 64, **more: Any) -> dict[str, Any]:
    return {"family": "inet6", "local": local, "prefixlen": prefix_bits} | more


def dual_right() -> dict[str, Any]:
    seen = right()
    seen["links"][0]["addr_info"].append(address6("::1", 128))
    seen["links"][1]["addr_info"] += [address6("2001:2::2", nodad=True), address6(LINK_LOCAL, nodad=True)]
    seen["routes"] += [
        route("::1", "lo", protocol="kernel", metric=256),
        route("2001:2::/64", protocol="kernel", metric=256),
        route("fe80::/64", protocol="kernel", metric=256),
        route("ff00::/8", "eth1", type="multicast", protocol="kernel", metric=256),
        route("ff00::/8", type="multicast", metric=1),
        route("ff00::/8", type="multicast", protocol="kernel", metric=256),
    ]
    seen["neighbours"].append({"dst": PEER6, "dev": "eth0", "lladdr": PEER_MAC, "state": ["PERMANENT"]})
    seen["sysctls"] = {"net.ipv6.conf.all.disable_ipv6": "0"}
    return seen


def test_the_link_local_address_is_the_macs() -> None:
    """The example of RFC 2464, section 5, has 34-56-78-9A-BC-DE: 36:56:78:FF:FE:9A:BC:DE."""
    assert baseline.link_local("34:56:78:9a:bc:de") == "fe80::3656:78ff:fe9a:bcde"
    assert baseline.link_local(MAC0) == LINK_LOCAL


def test_a_dual_host_that_is_right_is_left_alone() -> None:
    assert baseline.address_commands(dual_host(), dual_right()) == []
    assert baseline.removals(dual_host(), dual_right()) == []
    assert baseline.additions(dual_host(), dual_right()) == ([], [])
    assert baseline.differences(dual_host(), dual_right()) == []


def test_addresses_that_come_too_late_or_by_themselves_go() -> None:
    seen = dual_right()
    seen["links"][1]["addr_info"] = [
        address6("2001:2::2", tentative=True),
        address6("2001:2::99"),
        address6("fe80::dead"),
    ]
    seen["links"][2]["addr_info"].append(address6("fe80::beef"))
    assert baseline.address_commands(dual_host(), seen) == [
        "addr del 2001:2::2/64 dev eth0",
        "addr del 2001:2::99/64 dev eth0",
        "addr del fe80::dead/64 dev eth0",
        "addr del fe80::beef/64 dev eth1",
        "addr add 2001:2::2/64 dev eth0 nodad",
        f"addr add {LINK_LOCAL}/64 dev eth0 nodad",
    ]


def test_ipv6_routes_too_many_and_too_few() -> None:
    seen = dual_right()
    del seen["routes"][-2]
    seen["routes"] += [
        route("::/0", gateway="2001:2::1", metric=1024),
        route("ff00::/8", "eth1", type="multicast", metric=1),
        route("fe80::/64", "eth1", protocol="kernel", metric=256),
    ]
    assert baseline.removals(dual_host(), seen) == [
        "route del ::/0 via 2001:2::1 dev eth0 metric 1024 table main",
        "route del multicast ff00::/8 dev eth1 metric 1 table local",
        "route del fe80::/64 dev eth1 metric 256 table main",
    ]
    groups = kernel.Route("ff00::/8", "eth0", None, kernel.LOCAL, multicast=True, metric=1)
    assert baseline.additions(dual_host(), seen) == ([groups], [])
    assert "no route ff00::/8 dev eth0" in baseline.differences(dual_host(), seen)


@pytest.mark.parametrize(
    ("place", "address", "said"),
    [
        (1, address6("2001:2::9"), "eth0 was to have 2001:2::2/64, fe80::42:c6ff:fe12:2/64 and has 2001:2::2/64, "
         "2001:2::9/64, fe80::42:c6ff:fe12:2/64"),
        (2, address6("fe80::1"), "eth1 was to have no IPv6 address and has fe80::1/64"),
        (1, None, "eth0 was to have 2001:2::2/64, fe80::42:c6ff:fe12:2/64 and has 2001:2::2/64"),
    ],
)  # fmt: skip
def test_each_difference_of_ipv6_addresses(place: int, address: dict[str, Any] | None, said: str) -> None:
    seen = dual_right()
    addresses = seen["links"][place]["addr_info"]
    if address is None:
        addresses.pop()
    else:
        addresses.append(address)
    assert baseline.differences(dual_host(), seen) == [said]


@pytest.mark.parametrize("word", ["tentative", "dadfailed"])
def test_an_address_that_cannot_be_used_yet_is_a_difference(word: str) -> None:
    seen = dual_right()
    seen["links"][1]["addr_info"][1][word] = True
    assert baseline.differences(dual_host(), seen) == [f"2001:2::2 of eth0 is {word}"]


def test_an_ipv6_neighbour_is_a_neighbour() -> None:
    seen = dual_right()
    del seen["neighbours"][-1]
    assert baseline.additions(dual_host(), seen) == ([], [kernel.Neighbour(PEER6, PEER_MAC, "eth0")])
    assert baseline.differences(dual_host(), seen) == [
        f"neighbour {PEER6} dev eth0 was to be {PEER_MAC} and is absent"
    ]


def test_own_addresses_of_a_dual_host_are_awaited_until_the_kernel_has_routes_to_them() -> None:
    """It adds them from a work queue; what asked for the routes before that missed some of them."""
    wanted = dual_host()
    own = [
        route(address, nic.name) | {"type": "local"}
        for nic in wanted.nics
        if nic.ip6
        for address in (nic.ip6, baseline.link_local(nic.mac))
    ]
    elsewhere = [one | {"dev": "lo"} for one in own]
    answers = [[], own[:1], [*elsewhere, *own[1:]], [one | {"type": "anycast"} for one in own], own, []]
    baseline.await_own_routes(wanted, lambda: answers.pop(0))
    assert answers == [[]]


def test_an_own_address_that_the_kernel_never_has_a_route_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baseline, "_OWN_ROUTES_S", 0.0)
    with pytest.raises(ConditionError, match=r"the kernel has no route to its own .* on eth"):
        baseline.await_own_routes(dual_host(), list)
