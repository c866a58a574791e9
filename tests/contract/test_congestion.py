"""TCP's congestion control on every engine: at both ends of a connection the plan's, whatever the machine has."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.agent.baseline import link_local
from testbed.errors import CapabilityError
from tests.contract.labs import Lab, MakeEngine, lab
from tests.parcel import put

TEXT = """
testbed: 1
about: A host with what there is by default, and hosts that choose, on networks of both kinds.
duration: 1 s
networks: {plain: , left: {ip: dual}, right: {ip: dual}}
hosts:
  usual: {networks: [plain, left, right]}
  old: {networks: [left, right, plain], congestion: reno}
  said: {networks: [plain, left], sysctls: {net.ipv4.tcp_congestion_control: reno}}
  theirs: {networks: [plain], congestion: machine}
links: {usual <-> old over plain: {delay: 1 ms}}
"""
ASKED = {"usual": "cubic", "old": "reno", "said": "reno", "theirs": "machine"}
SCRIPT = Path(__file__).with_name("algorithm.py")
LOOPBACK = ["127.0.0.1", "127.1.2.3", "localhost"]


@pytest.fixture(scope="module")
def up(real_engine: MakeEngine) -> Iterator[Lab]:
    with lab(real_engine, TEXT) as made:
        for host in ASKED:
            put(made.engine, host, ("/scenario/algorithm.py", SCRIPT.read_bytes()))
            server = made.command(host, ("python3", "/scenario/algorithm.py", "serve", "7000"))
            made.await_port(host, server.process, 7000)
        yield made


def algorithm(up: Lab, host: str) -> str:
    """What the plan asks for there, or what the machine has."""
    asked = up.plan.host(host).congestion
    assert asked == ASKED[host]
    return str(up.baseline[host]["congestion"]["inherited"]) if asked == "machine" else asked


def ask(up: Lab, host: str, addresses: list[str], *more: str) -> dict[str, list[str]]:
    running = up.command(host, ("python3", "/scenario/algorithm.py", "ask", "7000", *addresses, *more))
    assert running.process.wait(30) and running.exit == 0, running.err
    found: dict[str, list[str]] = json.loads(running.out)
    return found


@pytest.mark.parametrize("client", ASKED)
@pytest.mark.parametrize("server", ASKED)
def test_both_ends_of_every_connection_have_what_their_host_has(up: Lab, client: str, server: str) -> None:
    near, far = up.plan.host(client), up.plan.host(server)
    on = {nic.network: nic.name for nic in near.interfaces}
    to = [ip for nic in far.interfaces if nic.network in on for ip in (nic.ip, nic.ip6) if ip]
    to += [f"{link_local(n.mac)}%{on[n.network]}" for n in far.interfaces if n.network in on and n.ip6]
    if client == server:
        to += LOOPBACK + (["::1"] if any(nic.ip6 for nic in near.interfaces) else [])
    assert to
    ends = [algorithm(up, client), algorithm(up, server)]
    assert ask(up, client, to) == dict.fromkeys(to, ends)


def test_what_is_in_force_is_on_record_and_how_it_came_to_be(up: Lab) -> None:
    for host in ASKED:
        found = up.baseline[host]["congestion"]
        assert (found["asked"], found["in_force"]) == (up.plan.host(host).congestion, algorithm(up, host))
        assert found["by"] in ("inherited", "sysctl", "routes")
        assert (found["by"] == "inherited") == (found["inherited"] == found["in_force"])
    assert up.baseline["old"]["congestion"]["by"] != "routes", "every kernel allows reno"


def test_what_a_program_chooses_before_it_connects_holds_but_where_routes_have_a_say(up: Lab) -> None:
    to = next(nic.ip for nic in up.plan.host("theirs").interfaces)
    found = ask(up, "usual", [to], "--choose", "reno")[to][0]
    by = up.baseline["usual"]["congestion"]["by"]
    assert found == ("cubic" if by == "routes" else "reno"), by
    to = next(nic.ip for nic in up.plan.host("theirs").interfaces)
    assert ask(up, "theirs", [to], "--choose", "reno")[to][0] == "reno"


def test_an_algorithm_that_the_kernel_lacks_is_a_reason_to_skip(real_engine: MakeEngine) -> None:
    text = """
testbed: 1
duration: 1 s
hosts: {a: {sysctls: {net.ipv4.tcp_congestion_control: nothing}}}
"""
    why = "host a has `congestion: nothing`, and this kernel has only "
    with pytest.raises(CapabilityError, match=why) as raised, lab(real_engine, text):
        pass
    assert "reno" in str(raised.value)


OWN_ROUTE = """
testbed: 1
about: A host that makes a route by itself.
duration: 1 s
hosts: {a: {cap_add: [NET_ADMIN]}, b: }
"""


def test_a_route_that_a_program_made_and_that_does_not_say_it_is_an_error_where_routes_say_it(
    real_engine: MakeEngine,
) -> None:
    with lab(real_engine, OWN_ROUTE) as made:
        peer = made.plan.host("b").interfaces[0].ip

        def problems(*way: str) -> list[str]:
            words = ("ip", "route", "replace", "198.51.100.0/24", "via", peer, *way)
            added = made.command("a", words)
            assert added.process.wait(20) and added.exit == 0, added.err
            seen = made.agent.check()["problems"]
            return [text for outcome, who, text in seen if (outcome, who) == ("error", "a")]

        by_routes = made.baseline["a"]["congestion"]["by"] == "routes"
        assert problems() == [], "no TCP was spoken there"
        put(made.engine, "a", ("/scenario/algorithm.py", SCRIPT.read_bytes()))
        server = made.command("a", ("python3", "/scenario/algorithm.py", "serve", "7000"))
        made.await_port("a", server.process, 7000)
        assert ask(made, "a", ["127.0.0.1"]) == {"127.0.0.1": ["cubic", "cubic"]}
        found = problems()
        assert len(found) == by_routes, found
        assert all("congctl cubic" in text and "198.51.100.0/24 dev eth0 says nothing" in text for text in found)
        assert problems("congctl", "cubic") == []
