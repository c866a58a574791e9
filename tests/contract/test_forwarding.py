"""A host on two networks that is told to forward is a way from one to the other, on every engine."""

from __future__ import annotations

from tests.contract.labs import MakeEngine, lab

ROUTED = """
testbed: 1
about: Two hosts and a router between them.
duration: 1 s
networks: {left: {ip: dual}, right: {ip: dual}}
hosts:
  a: {networks: [left], cap_add: [NET_ADMIN, NET_RAW]}
  router:
    networks: [left, right]
    sysctls: {net.ipv4.ip_forward: 1, net.ipv6.conf.all.forwarding: 1}
  c: {networks: [right], cap_add: [NET_ADMIN, NET_RAW]}
"""


def test_a_host_that_forwards_is_a_way_between_its_networks(real_engine: MakeEngine) -> None:
    with lab(real_engine, ROUTED) as up:
        networks = {network.name: network for network in up.plan.networks}
        left, right = up.plan.host("router").interfaces
        (far,) = up.plan.host("c").interfaces
        ping = ("ping", "-c1", "-W2")
        assert up.command("a", (*ping, far.ip)).process.wait(20), "it is not there yet, and says so at once"
        ways = (("a", "right", left), ("c", "left", right))
        for host, to, via in ways:
            for subnet, gateway in ((networks[to].subnet, via.ip), (networks[to].subnet6, via.ip6)):
                added = up.command(host, ("ip", "route", "add", str(subnet), "via", str(gateway)))
                assert added.process.wait(20) and added.exit == 0, added.err
        for address in (far.ip, far.ip6):
            sent = up.command("a", (*ping, str(address)))
            assert sent.process.wait(20) and sent.exit == 0, (address, sent.out, sent.err)
