"""Networks with `ip: dual`: what is planned for them, printed of them, and what their variables stand for."""

from __future__ import annotations

import json
import textwrap

import pytest

from testbed import requirements
from testbed.errors import HostError
from testbed.expect import static
from testbed.plan import Neighbour, Network, Plan, Route, plan, render
from testbed.plan.hosts import SYSCTLS
from testbed.scenario import parse

THREE = """\
    networks: {lan: {ip: dual}, back: , wan: {ip: dual, subnet: 198.18.7.0/24}}
    hosts:
      server: {networks: {back: , lan: , wan: {address: 198.18.7.10}}}
      client: {networks: [wan, lan], run: "x [$server.ip6]:9 $server.lan.ip6 $client.ip6 $server.ip $server.ip4"}
      other: {networks: [back]}
    """


def planned(text: str, taken: frozenset[str] = frozenset()) -> Plan:
    return plan(parse("testbed: 1\nabout: x\n" + textwrap.dedent(text), "t.yaml"), 1, taken)


def test_subnets_and_addresses() -> None:
    made = planned(THREE)
    assert made.networks == (
        Network("lan", "198.18.0.0/24", "198.18.0.1", "2001:2::/64", "2001:2::1"),
        Network("back", "198.18.1.0/24", "198.18.1.1"),
        Network("wan", "198.18.7.0/24", "198.18.7.1", "2001:2:0:1::/64", "2001:2:0:1::1"),
    )
    server, client, other = made.hosts
    assert [(i.name, i.ip, i.ip6, i.prefix6_bits) for i in server.interfaces] == [
        ("eth0", "198.18.1.2", None, None),
        ("eth1", "198.18.0.2", "2001:2::2", 64),
        ("eth2", "198.18.7.10", "2001:2:0:1::a", 64),  # its place in the IPv4 subnet, 10
    ]
    assert [i.ip6 for i in client.interfaces] == ["2001:2:0:1::2", "2001:2::3"]
    assert [i.ip6 for i in other.interfaces] == [None]
    assert Plan.from_json(json.loads(json.dumps(made.to_json()))) == made


def test_many_hosts_have_their_place_also_beyond_a_quarter_of_thousand() -> None:
    made = planned("networks: {n: {ip: dual}}\nhosts: {a: {count: 300, run: x}}\n")
    assert (made.hosts[-1].interfaces[0].ip, made.hosts[-1].interfaces[0].ip6) == ("198.18.1.45", "2001:2::12d")


@pytest.mark.parametrize(
    ("taken", "subnets"),
    [
        ({"2001:2::/64"}, ["2001:2:0:1::/64", "2001:2:0:2::/64"]),
        ({"2001:2:0:1::5/128", "10.0.0.0/8"}, ["2001:2::/64", "2001:2:0:2::/64"]),
        ({"2001:2::/50"}, ["2001:2:0:4000::/64", "2001:2:0:4001::/64"]),
        ({"2001:db8::/32"}, ["2001:2::/64", "2001:2:0:1::/64"]),
    ],
)
def test_what_is_taken_is_planned_around(taken: set[str], subnets: list[str]) -> None:
    assert [n.subnet6 for n in planned(THREE, frozenset(taken)).networks if n.subnet6] == subnets


def test_no_room_is_the_machines_owners_to_mend() -> None:
    with pytest.raises(HostError, match="no room in 2001:2::/48 for the network lan"):
        planned(THREE, frozenset({"2001::/16"}))


def test_the_ipv6_routes_and_neighbours() -> None:
    server, client, other = planned(THREE).hosts
    assert [r for r in server.routes if ":" in r.to] == [
        Route("2001:2::/64", "eth1"),
        Route("fe80::/64", "eth1"),
        Route("2001:2:0:1::/64", "eth2"),
        Route("fe80::/64", "eth2"),
        Route("ff00::/8", "eth1"),
    ]
    assert [n for n in client.neighbours if ":" in n.ip] == [
        Neighbour("2001:2:0:1::a", "02:42:c6:12:07:0a", "eth0"),
        Neighbour("2001:2::2", "02:42:c6:12:00:02", "eth1"),
    ]
    assert not any(":" in n.ip for n in other.neighbours) and not any(":" in r.to for r in other.routes)


def test_names_have_the_ipv4_address_first_and_without_ipv6_nothing_changes() -> None:
    server, client, other = planned(THREE).hosts
    assert client.names[:8] == (
        ("127.0.0.1", ("localhost",)),
        ("::1", ("localhost",)),
        ("198.18.1.2", ("server.back",)),
        ("198.18.0.2", ("server.lan",)),
        ("198.18.7.10", ("server", "server.wan")),
        ("2001:2::2", ("server.lan",)),
        ("2001:2:0:1::a", ("server", "server.wan")),
        ("198.18.7.2", ("client", "client.wan")),
    )
    assert not any(":" in address for address, _ in other.names)
    assert ("2001:2::2", ("server", "server.lan")) in server.names, "its first dual network, if not its first one"


def test_kernel_settings_by_interface() -> None:
    server, _, other = planned(THREE).hosts
    four = {k: v for k, v in other.sysctls.items() if k.startswith("net.ipv4.conf.")}
    assert {k: v for k, v in other.sysctls.items() if k not in four} == SYSCTLS
    assert {k.split(".")[3] for k in four} == {"all", *(nic.name for nic in other.interfaces)}
    assert {k: v for k, v in server.sysctls.items() if k.startswith("net.ipv6")} == {
        "net.ipv6.conf.all.disable_ipv6": "0",
        "net.ipv6.conf.default.disable_ipv6": "1",
        "net.ipv6.conf.all.forwarding": "0",
        "net.ipv6.conf.all.accept_dad": "0",
        "net.ipv6.conf.eth0.disable_ipv6": "1",
        **{
            f"net.ipv6.conf.{nic}.{name}": value
            for nic in ("eth1", "eth2")
            for name, value in {
                "disable_ipv6": "0",
                "accept_ra": "0",
                "autoconf": "0",
                "accept_dad": "0",
                "addr_gen_mode": "1",
            }.items()
        },
    }


def test_variables_in_commands() -> None:
    argv = planned(THREE).program("client.client").argv
    assert argv == ("x", "[2001:2:0:1::a]:9", "2001:2::2", "2001:2:0:1::2", "198.18.7.10", "198.18.7.10")


def test_ip6_is_of_a_shared_network_that_has_it_else_of_the_hosts_first_that_does() -> None:
    made = planned("""\
        networks: {a: , b: {ip: dual}, c: {ip: dual}}
        hosts:
          x: {networks: [a, c], run: y $z.ip6 $z.ip}
          z: {networks: [a, b, c]}
          far: {networks: [a], run: y $z.ip6}
        """)
    assert made.program("x.x").argv == ("y", "2001:2:0:1::3", "198.18.0.3")
    assert made.program("far.far").argv == ("y", "2001:2::2")


def test_variables_in_expectations() -> None:
    text = THREE + "expect: ['client.stdout contains \"$server.ip6 $server.lan.ip6\"', "
    text += "'client.stdout contains \"$other.ip6\"', 'client.stdout contains \"$server.back.ip6\"']\n"
    problems = static.problems(planned(textwrap.dedent(text)))
    assert [problem.message for problem in problems] == [
        "`$other.ip6`: other has no IPv6 address there",
        "`$server.back.ip6`: server has no IPv6 address there",
    ]


def test_a_printed_plan_has_both() -> None:
    text = render(planned(THREE))
    assert "  lan   198.18.0.0/24 2001:2::/64      gateway 198.18.0.1 2001:2::1, shut      2 hosts\n" in text
    assert (
        "\n          eth1  lan   198.18.0.2/24     02:42:c6:12:00:02\n                      2001:2::2/64\n" in text
    )
    assert "  ff00::/8            eth1\n" in text
    assert "differs from our own host" not in text


def test_a_machine_without_ipv6_skips_by_name() -> None:
    made = planned(THREE)
    assert requirements.of_the_machine(made) == ["ipv6"]
    assert requirements.unmet(made, "namespaces") == requirements.unmet(made, "docker") == []
    assert requirements.unmet_there(made, {"ipv6": "it is not there"}) == [
        "network lan, wan has `ip: dual`: it is not there"
    ]
    assert requirements.unmet_there(made, {}) == []
