"""What `testbed plan` prints: everything that decides a run, aligned, the same every time."""

from __future__ import annotations

from testbed.conditions.condition import Condition
from testbed.plan import plan, render
from testbed.plan.printed import condition_text
from testbed.scenario import parse

SCENARIO = """\
testbed: 1
about: Everything at once.
tags: [udp]
seed: 7
timeout: 30 s
requires: [docker]
networks: {lan: {subnet: 198.18.7.0/24}, backhaul: }
hosts:
  collector:
    networks: [lan, backhaul]
    image: some/thing:2
    cap_drop: [CHOWN, DAC_OVERRIDE, FSETID, FOWNER, MKNOD, SETGID, SETUID, SETFCAP, SETPCAP, SYS_CHROOT, KILL]
    volumes: [spool:/var/spool]
    sysctls: {net.ipv4.tcp_sack: 0}
    serve: collector --port 9000
  sensor: {count: 2, networks: [lan], congestion: machine, run: probe collector:9000 'a b'}
  admin: {networks: [backhaul], run: x, after: {sensor: ended, collector: started}}
volumes: {spool: }
links:
  lan: {delay: 1 ms}
  sensor -> collector: {delay: 20 ms, jitter: 2 ms, loss: 10 %}
  admin -> collector: {rate: 10 Mbit/s}
expect:
  - sensor.lost == sensor->collector.dropped
  - {that: collector->admin.sent > 0, because: it answers}
ends: {fail: too slow}
fails_when: {no loss: {links: {sensor -> collector: {loss: 0 %}}}}
"""

PRINTED = """\
everything: Everything at once.
seed 7, timeout 30 s, tags udp, requires docker, volumes spool
must end as fail: "too slow"
must fail with: no loss

networks
  lan       198.18.7.0/24  gateway 198.18.7.1, shut  3 hosts
  backhaul  198.18.0.0/24  gateway 198.18.0.1, shut  2 hosts

hosts
  collector  eth0  lan       198.18.7.2/24  02:42:c6:12:07:02
             eth1  backhaul  198.18.0.2/24  02:42:c6:12:00:02
  sensor-1   eth0  lan       198.18.7.3/24  02:42:c6:12:07:03
  sensor-2   eth0  lan       198.18.7.4/24  02:42:c6:12:07:04
  admin      eth0  backhaul  198.18.0.3/24  02:42:c6:12:00:03

differs from our own host
  collector  image some/thing:2; capabilities NET_BIND_SERVICE AUDIT_WRITE; net.ipv4.tcp_sack=0; volume spool on \
/var/spool

congestion control of TCP
  cubic    collector, admin
  machine  sensor-1, sensor-2
  inherited where that is right, else by sysctl, else by routes, and the results say which;
  routes override what a program sets by TCP_CONGESTION before it connects

routes
  198.18.7.0/24       eth0  collector
  198.18.0.0/24       eth1
  224.0.0.0/4         eth0
  255.255.255.255/32  eth0
  198.18.7.0/24       eth0  sensor-1, sensor-2
  224.0.0.0/4         eth0
  255.255.255.255/32  eth0
  198.18.0.0/24       eth0  admin
  224.0.0.0/4         eth0
  255.255.255.255/32  eth0

"""


def printed(text: str, file: str = "everything.yaml") -> str:
    return render(plan(parse(text, file)))


def section(text: str, title: str) -> list[str]:
    """The lines of one section, without its title."""
    lines = text.split("\n")
    start = lines.index(title) + 1
    return lines[start : lines.index("", start)]


def test_the_sections_up_to_the_links() -> None:
    assert printed(SCENARIO).partition("\nlinks\n")[0] + "\n" == PRINTED


def test_links_say_the_condition_the_rule_that_won_and_the_ones_that_lost() -> None:
    lines = [[cell for cell in line.strip().split("  ") if cell] for line in section(printed(SCENARIO), "links")]
    assert [[cell.strip() for cell in line] for line in lines] == [
        [
            "line 20",
            "lan",
            "delay 1 ms",
            "collector->sensor-1 over lan, collector->sensor-2 over lan and 2 more",
        ],
        [
            "line 21",
            "sensor -> collector",
            "delay 20 ms, jitter 2 ms, loss 10 %",
            "sensor-1->collector over lan, sensor-2->collector over lan",
            "instead of lan",
        ],
        ["line 22", "admin -> collector", "rate 10 Mbit/s, queue 20 packets", "admin->collector over backhaul"],
        ["named in expect", "watched, not changed", "collector->admin over backhaul"],
    ]


def test_the_order_and_what_each_program_waits_for() -> None:
    assert section(printed(SCENARIO), "start order") == [
        "  1  collector.collector  serve  collector --port 9000       at once",
        "  2  sensor-1.sensor      run    probe collector:9000 'a b'  when collector.collector is ready",
        "  3  sensor-2.sensor      run    probe collector:9000 'a b'  when collector.collector is ready",
        "  4  admin.admin          run    x                           "
        "when sensor-1.sensor has ended, sensor-2.sensor has ended, collector.collector is started",
    ]


def test_expectations_and_notes() -> None:
    assert section(printed(SCENARIO), "expectations") == [
        "  line 24  sensor.lost == sensor->collector.dropped",
        "  line 25  collector->admin.sent > 0                 because it answers",
    ]
    assert section(printed(SCENARIO), "notes") == [
        "  sensor -> collector: jitter may reorder, packets up to 4 ms apart; with `order: kept` it does not",
        "  admin -> collector: no queue given, so 20 packets: one round trip at that rate, at least 20",
    ]


def test_a_plan_without_links_says_so() -> None:
    text = printed("testbed: 1\nhosts: {a: {run: x}}\n")
    assert section(text, "links") == ["  none: nothing is watched, nothing is changed"]
    assert text.startswith("everything\nseed 1, timeout 2 min\n\nnetworks\n")
    assert text.endswith("at once\n")


def test_no_line_ends_in_blanks_and_texts_of_many_lines_stay_one() -> None:
    text = printed("testbed: 1\nabout: |\n  two\n  lines\nhosts:\n  a:\n    run: sh -c 'x\n\n      y'\n")
    assert text.startswith("everything: two lines\n")
    assert [line for line in text.split("\n") if line != line.rstrip()] == []
    assert len(section(text, "start order")) == 1


def test_conditions_in_words() -> None:
    assert condition_text(Condition()) == "watched, not changed"
    full = Condition(10**6, 10**5, "normal", 0.1, 0.01, 0.05, 3, 10**6, queue_bytes=65536)
    assert condition_text(full) == (
        "delay 1 ms, jitter 100 us normal, loss 10 %, duplicate 1 %, reorder 5 % by 3 packets, rate 1 Mbit/s, "
        "queue 64 KiB"
    )
    kept = Condition(10**6, 10**5, jitter_order="kept")
    assert condition_text(kept) == "delay 1 ms, jitter 100 us order kept"
    assert condition_text(Condition(rate_bit_s=1000, queue_ns=10**6)) == "rate 1 kbit/s, queue 1 ms"


def test_a_hundred_sensors_do_not_fill_the_screen() -> None:
    text = printed("testbed: 1\nhosts: {s: {serve: x}, a: {count: 100, run: y}}\nlinks: {a <-> s: {loss: 1 %}}\n")
    links = ["  line 3  a <-> s  loss 1 %  a-1->s over lan, s->a-1 over lan and 198 more"]
    assert section(text, "links") == links
    assert len(section(text, "routes")) == 3
