"""The frame that shows whether a network carries IPv6."""

from __future__ import annotations

import ipaddress

from testbed.agent import passage
from testbed.agent.host import Host, Nic
from testbed.conditions.flow import Labels, raw_key

NEAR = Nic("eth0", "lan", "198.18.0.2", 24, "02:42:c6:12:00:02", "2001:2::2", 64)
FAR = Nic("eth1", "lan", "198.18.0.3", 24, "02:42:c6:12:00:03", "2001:2::3", 64)


def test_it_is_a_whole_packet_with_nothing_in_it() -> None:
    made = passage.frame(NEAR, FAR)
    assert made[:14] == bytes.fromhex("0242c6120003 0242c6120002 86dd")
    assert made[14:22] == bytes.fromhex("60000000 0000 3b 01")
    assert ipaddress.ip_address(made[22:38]) == ipaddress.ip_address("2001:2::2")
    assert ipaddress.ip_address(made[38:]) == ipaddress.ip_address("2001:2::3")
    assert Labels().label(raw_key(made)) == "ip6 59"


def test_nothing_is_sent_where_there_is_no_ipv6_or_nobody_to_send_to() -> None:
    plain = Nic("eth0", "lan", "198.18.0.2", 24, "02:42:c6:12:00:02")
    hosts = [Host(name, 1, (nic,), (), (), {}) for name, nic in (("a", plain), ("b", plain), ("c", NEAR))]
    passage.prove(hosts)  # no host is open here: a socket would be an error
