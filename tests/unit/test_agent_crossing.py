"""What is made of counts at both ends of a way that the machine's firewall sees."""

from __future__ import annotations

import pytest

from testbed.agent import bpf
from testbed.agent.crossing import Count, problems

A, B, C = "02:42:c6:12:00:02", "02:42:c6:12:00:03", "02:42:c6:12:00:04"
ON = ["net.bridge.bridge-nf-call-iptables"]
EVERYBODY, BRIDGES, GROUP = "ff:ff:ff:ff:ff:ff", "01:80:c2:00:00:0e", "01:00:5e:01:02:03"
NOT_FOR_BRIDGES = "01:80:c2:00:00:10"


def frame(to: str, source: str, rest: str = "0806") -> bytes:
    return bytes.fromhex((to + source).replace(":", "") + rest).ljust(60, b"\0")


WHOLE4, FIRST4, LAST4 = (f"0800 45000030 0000{bits} 4011" for bits in ("4000", "2000", "0010"))
WHOLE6, PART6 = (f"86dd 60000000 0010 {following} 40" for following in ("11", "2c"))


def counts(program: bpf.Program, what: bytes, packet_type: int) -> bool:
    return bpf.run(program, what, packet_type) == bpf.MATCH


@pytest.mark.parametrize("rest", ["0806", WHOLE4, WHOLE6, "88cc"])
def test_what_goes_to_one_host_is_counted_at_both_ends(rest: str) -> None:
    sent = frame(B, A, rest)
    assert counts(bpf.leaving_to([B, C], A), sent, bpf.PACKET_OUTGOING)
    assert counts(bpf.arriving_from([A, C]), sent, bpf.PACKET_HOST)
    assert not counts(bpf.leaving_to_all(A), sent, bpf.PACKET_OUTGOING)


@pytest.mark.parametrize("to", [EVERYBODY, GROUP, NOT_FOR_BRIDGES])
@pytest.mark.parametrize("packet_type", [1, 2])
def test_what_goes_to_all_is_counted_at_both_ends(to: str, packet_type: int) -> None:
    sent = frame(to, A, WHOLE4)
    assert counts(bpf.leaving_to_all(A), sent, bpf.PACKET_OUTGOING)
    assert counts(bpf.arriving_from([A, C]), sent, packet_type)
    assert not counts(bpf.leaving_to([B, C], A), sent, bpf.PACKET_OUTGOING)


@pytest.mark.parametrize(
    "sent",
    [
        frame(B, A, FIRST4),
        frame(B, A, LAST4),
        frame(EVERYBODY, A, LAST4),
        frame(B, A, PART6),
        frame(BRIDGES, A),
        frame(B, "02:42:c6:12:00:63"),
        frame(EVERYBODY, "02:42:c6:12:00:63"),
    ],
    ids=[
        "first fragment",
        "last fragment",
        "fragment to all",
        "fragment of IPv6",
        "for bridges",
        "forged",
        "forged to all",
    ],
)
def test_what_bridges_and_firewalls_change_is_counted_at_no_end(sent: bytes) -> None:
    assert not counts(bpf.leaving_to([B, C], A), sent, bpf.PACKET_OUTGOING)
    assert not counts(bpf.leaving_to_all(A), sent, bpf.PACKET_OUTGOING)
    assert not counts(bpf.arriving_from([A, C]), sent, bpf.PACKET_HOST)


def test_each_end_counts_its_own_only() -> None:
    assert not counts(bpf.leaving_to([B], A), frame(B, A), bpf.PACKET_HOST), "that arrives"
    assert not counts(bpf.leaving_to([B], A), frame("02:42:c6:12:00:63", A), bpf.PACKET_OUTGOING), "nobody's"
    assert not counts(bpf.arriving_from([A]), frame(B, A), bpf.PACKET_OUTGOING), "that leaves"
    assert not counts(bpf.arriving_from([A]), frame(C, A), bpf.PACKET_OTHERHOST), "flooded to all ports"


def test_what_goes_to_all_has_to_arrive_at_all_others() -> None:
    assert Count(3, to_one=5, to_all=2, received=9).lost == 0
    assert Count(3, to_one=5, to_all=2, received=8).lost == 1
    assert Count(2, to_one=5, received=6).lost == 0, "what was under way when it began"


def test_a_loss_is_an_error_that_names_the_switch_and_where() -> None:
    (problem,) = problems({"lan": Count(2, 100, 0, 95), "wan": Count(2, 7, 0, 7)}, 0, ON)
    assert problem[:2] == ("error", "")
    assert "5 of 100 on lan" in problem[2] and "wan" not in problem[2]
    assert "net.bridge.bridge-nf-call-iptables is 1" in problem[2] and "or set it to 0" in problem[2]
    assert problems({"lan": Count(2, 100, 1, 101)}, 3, ON) == []


def test_what_interfaces_dropped_is_a_slow_machine_and_no_firewall() -> None:
    (problem,) = problems({"lan": Count(2, 100, 0, 95)}, 5, ON)
    assert problem[:2] == ("inconclusive", "") and "5 of 100 on lan" in problem[2]
    assert problems({"lan": Count(2, 100, 0, 95)}, 4, ON)[0][0] == "error"
