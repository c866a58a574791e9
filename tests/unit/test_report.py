"""A run as a terminal shows it, where that is more than the tables of what was recorded."""

from __future__ import annotations

from testbed.judge import judge
from testbed.measure.records import Frame, LinkProof, Records
from testbed.plan import Plan, plan
from testbed.report.terminal import MOST_LINKS, render
from testbed.scenario import parse


def shown(hosts: int) -> list[str]:
    """Of a run in which each link carried three frames and lost one; the lines that are about links."""
    text = "testbed: 1\nabout: Many.\nduration: 1 s\nlinks: {h -> h: {delay: 1 ms}}\n"
    text += f"hosts: {{h: {{count: {hosts}}}}}\n"
    made = plan(parse(text, "many.yaml"))
    frames = [
        Frame(k, link.id, "udp 1>2", k, 60, "loss" if k == 2 else None, False, None if k == 2 else 9, None)
        for link in made.links
        for k in range(3)
    ]
    late = {link.id: {"lateness_p99_ns": 10_000 * number} for number, link in enumerate(made.links)}
    records = Records(seed=made.seed, ledger=frames, proof=LinkProof(end={"links": late}))
    return lines(made, records)


def lines(made: Plan, records: Records) -> list[str]:
    text = render(made, records, judge(made, records), "fake", color=False)
    return [line for line in text.splitlines() if "->" in line and "delay 1 ms" in line]


def test_every_link_has_a_row_while_there_are_few() -> None:
    few = shown(hosts=8)
    assert len(few) == 8 * 7 <= MOST_LINKS
    assert few[0].split() == "h-1 -> h-2 delay 1 ms 3 1 0.00 ms".split()
    assert few[-1].split() == "h-8 -> h-7 delay 1 ms 3 1 0.55 ms".split()


def test_many_links_of_one_condition_share_a_row_with_their_sums_and_the_latest() -> None:
    (row,) = shown(hosts=9)
    assert row.split() == "h-1 -> h-2 and 71 more delay 1 ms 216 72 0.71 ms".split()


def of_tcp(**hosts: tuple[str, str, str]) -> list[str]:
    """What a report says where hosts have (inherited, in force, by)."""
    made = plan(parse(f"testbed: 1\nduration: 1 s\nhosts: {{{': , '.join(hosts)}: }}\n", "tcp.yaml"))
    start = {
        name: {"congestion": dict(zip(("asked", "inherited", "in_force", "by"), ("?", *one), strict=True))}
        for name, one in hosts.items()
    }
    records = Records(seed=made.seed, proof=LinkProof(start={"hosts": start}))
    text = render(made, records, judge(made, records), "fake", color=False)
    return [line for line in text.splitlines() if line.startswith("TCP ")]


def test_the_report_says_how_tcps_algorithm_is_in_force_where_that_may_surprise() -> None:
    assert of_tcp(a=("cubic", "cubic", "inherited"), b=("bbr", "cubic", "sysctl")) == []
    assert of_tcp(a=("bbr", "cubic", "routes"), b=("bbr", "cubic", "routes")) == [
        "TCP uses cubic on every host: by routes, inherited was bbr. Routes override what a program sets by "
        "TCP_CONGESTION before it connects"
    ]
    assert of_tcp(a=("bbr", "cubic", "sysctl"), b=("bbr", "bbr", "inherited"), c=("bbr", "reno", "sysctl")) == [
        "TCP uses cubic on a: by sysctl, inherited was bbr",
        "TCP uses bbr on b: inherited",
        "TCP uses reno on c: by sysctl, inherited was bbr",
    ]


def test_many_links_of_two_conditions_have_two_rows() -> None:
    text = """
testbed: 1
about: Many of two kinds.
duration: 1 s
hosts: {h: {count: 9}, g: {}}
links: {h -> h: {delay: 1 ms}, h -> g: {delay: 1 ms, loss: 1 %}}
"""
    made = plan(parse(text, "kinds.yaml"))
    first, second = lines(made, Records(seed=made.seed))
    assert "h-1 -> g and 8 more" in first + second and "h-1 -> h-2 and 71 more" in first + second
