"""The frames that show whether a network carries IP."""

from __future__ import annotations

import ipaddress
import struct

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


def test_that_of_ipv4_is_whole_too_and_for_nobody_who_would_answer() -> None:
    made = passage.frame(NEAR, FAR, passage.ETH_P_IP)
    assert made[:14] == bytes.fromhex("0242c6120003 0242c6120002 0800")
    assert len(made) == 34 and made[14:24] == bytes.fromhex("4500 0014 0000 0000 013b")
    assert ipaddress.ip_address(made[26:30]) == ipaddress.ip_address("198.18.0.2")
    assert ipaddress.ip_address(made[30:]) == ipaddress.ip_address("198.18.0.255")
    total = sum(struct.unpack("!10H", made[14:]))
    assert (total & 0xFFFF) + (total >> 16) == 0xFFFF, "its checksum"
    assert Labels().label(raw_key(made)) == "ip 59"


def test_nothing_is_sent_where_there_is_nobody_to_send_to() -> None:
    plain = Nic("eth0", "lan", "198.18.0.2", 24, "02:42:c6:12:00:02")
    other = Nic("eth0", "other", "198.18.1.2", 24, "02:42:c6:12:01:02")
    hosts = [Host("a", 1, (plain,), (), (), {}), Host("b", 1, (other,), (), (), {})]
    passage.prove(hosts)  # no host is open here: a socket would be an error
