"""What is refused before anything runs, at its place, and what is not because it might be right."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from testbed.errors import Problem
from testbed.expect import own_programs, static
from testbed.expect.grammar import parse as parse_expectation
from testbed.expect.names import Names, Unknown, matching
from testbed.measure.metrics import split_unit
from testbed.plan import Plan, plan
from testbed.scenario import parse

ROOT = Path(__file__).parents[2]
SCENARIO = r"""
testbed: 1
about: Something of everything.
networks: {lan: , back: }
hosts:
  collector:
    networks: [lan, back]
    programs:
      reports: {serve: datagram echo --port 9000}
      archive: {serve: stream sink --port 9001}
  sensor: {networks: [lan], count: 3, run: datagram probe collector:9000 --count 10 --interval 1ms}
  single: {networks: [lan], run: datagram probe collector:9000 --count 1 --interval 1ms}
  store:  {networks: [back, lan], run: stream bulk collector:9001 --bytes 1kB}
  far:    {networks: [back], run: stream send collector:9001 --count 3 --size 10B}
  foreign:
    networks: [lan]
    programs:
      ping: {run: ping -c 1 store, metrics: {rtt: {prints: '/time=(\S+)/', unit: ms}, word: {prints: '/(\w+)/'}}}
      nc:   {run: nc store 9}
  empty:  {networks: [lan]}
  image:  {networks: [lan], image: ours:1, run: datagram probe collector:9000 --count 1 --interval 1ms}
links:
  sensor -> collector: {loss: 10 %}
expect:
"""


def planned(*expectations: str) -> Plan:
    lines = "".join("  - '" + text.replace("'", "''") + "'\n" for text in expectations)
    return plan(parse(SCENARIO + lines, "some.yaml"), None)


def problems(*expectations: str) -> list[Problem]:
    return static.problems(planned(*expectations))


REFUSED = [
    # expectation, what is pointed at, what is said, what is advised
    # names
    ("sensr.lost == 1", "sensr", "`sensr` is no program and no host", "did you mean `sensor"),
    ("sensor->collectr.sent == 1", "sensor", "there is no host `collectr`", "did you mean `collector`?"),
    (
        "collector.report.received == 1",
        "report",
        "`report` is no program of collector, which runs several",
        "`reports`",
    ),
    (
        "collector.received == 1",
        "received",
        "`received` is no program of collector, which runs",
        "it runs reports, archive",
    ),
    (
        "collector.reports == 1",
        "collector",
        "is a program: which of its metrics is meant",
        "collector.reports.exit",
    ),
    ("empty.lost == 1", "empty", "`empty` runs no program", "empty.kernel.COUNTER"),
    (
        "sensor.recieved == 1",
        "sensor",
        "runs datagram probe, which reports no `recieved`",
        "did you mean `received`?",
    ),
    (
        "store.lost == 1",
        "store",
        "store runs stream bulk, which reports no `lost`",
        "it reports congestion, connect_time",
    ),
    ("sensor.lost.p50 == 1", "sensor", "`p50` in `sensor.lost.p50` is no aggregate", "`median`"),
    ("sensor.a.b.c.d == 1", "sensor", "is no aggregate", "sd"),
    ("sensor.kernel.a.b == 1", "sensor", "a counter's name is one word", "client.kernel.UdpInDatagrams"),
    ("sensor->collector.droped == 1", "sensor", "`droped` is no metric of a link", "`dropped`"),
    ("sensor->collector over lam.sent == 1", "sensor", "there is no network `lam`", "did you mean `lan`?"),
    ("collector->store.sent == 1", "collector", "collector and store share 2 networks", "over lan"),
    (
        "sensor->far.sent == 1",
        "sensor",
        "share no network, so no link leads from sensor-1 to far",
        "sensor-1 is on lan; far is on back",
    ),
    (
        "sensor->collector over back.sent == 1",
        "sensor",
        "no link leads from sensor to collector over back",
        "sensor-1 is on lan",
    ),
    ("single->single.sent == 1", "single", "leads from a host to itself", ""),
    ("sensor.lost == colector.kernel.UdpInDatagrams", "colector", "is no program and no host", "`collector`"),
    # variables
    ("sensor.id == $indx", "$indx", "`$indx` stands for nothing", "did you mean `$index`?"),
    ('sensor.stdout contains "at $sensor.ip"', '"at', "sensor is 3 hosts", "$sensor-1.ip is one"),
    ("sum of sensor.lost == $index", "$index", "is of one host, and the left side is about several", ""),
    ("sensor.stdout contains $far.lan.ip", "$far", "far has no address there", "it is on back"),
    # members
    (
        "single.lost == sensor.lost",
        "sensor.lost",
        "is 3 metrics, none of them of single",
        "write `sum of sensor.lost`",
    ),
    (
        "sum of sensor.lost == sensor.sent",
        "sensor.sent",
        "is 3 metrics, and the left side is one sum",
        "write `sum of",
    ),
    ("sensor.lost == sensor->sensor.dropped", "sensor->", "is 6 metrics, 4 of them of sensor-1", "write `sum of"),
    # samples
    ("sensor.round_trip_delay < 5 ms", "sensor", "has many samples: which value is meant?", ".p99"),
    ("sensor->collector.one_way_delay < 5 ms", "sensor", "has many samples", ".max"),
    ("sensor.lost == 2 x sensor->collector.loss_period", "sensor->", "has many samples", ""),
    ("sensor.error.max == 1", "sensor", "`error` is a text: .max is for numbers", ""),
    ("foreign.nc.stdout.mean > 1", "foreign", "`stdout` is a text: .mean is for numbers", ""),
    # dimensions
    ("sensor.lost == 5 ms", "5 ms", "a number and a time cannot be compared", "a unit is missing, as in 20 ms"),
    ("store.payload == 5", "5", "a size and a number cannot be compared; a unit is missing, as in 200 B", ""),
    ("sensor.loss_ratio < 5", "5", "a ratio and a number cannot be compared", "as in 10 %"),
    ("sensor.lost == store.payload", "store", "a number and a size cannot be compared", ""),
    ("sensor.lost == 5 + 3 B", "3 B", "a number and a size cannot be compared", ""),
    ("sensor.lost == yes", "yes", "a number and a text cannot be compared; a text of digits", ""),
    ("foreign.ping.rtt.max < 5", "5", "a time and a number cannot be compared", ""),
    ("foreign.nc.exit == 5 ms", "5 ms", "a status and a time cannot be compared", ""),
    ("foreign.nc.stdout < yes", "< yes", "`<` is for numbers, and foreign.nc.stdout is text", "contains"),
    ("sensor.lost contains yes", "contains", "`contains` is for text, and sensor.lost is a number", ""),
    ("sum of foreign.nc.stdout == yes", "foreign", "the sum of foreign.nc.stdout means nothing: it is a text", ""),
    ("sum of sensor->collector.loss_ratio < 5 %", "sensor", "means nothing: it is a ratio", ""),
    # equality and ~
    ("store.connect_time == 5 ms", "==", "`==` on a measured time", "+- VALUE"),
    ("store.goodput != 5 Mbit/s", "!=", "`!=` on a measured rate", ""),
    ("sensor->collector.loss_ratio == 10 %", "==", "a ratio is equal to 0 % or 100 % only", "write ~"),
    ("sensor->collector.loss_ratio ~ 0 %", "~", "~ 0 % is no test", "== 0 %"),
    ("sensor->collector.loss_ratio ~ 100 %", "~", "~ 100 % is no test", "== 100 %"),
    ("sensor->collector.loss_ratio ~ 0.1", "0.1", "a ratio and a number cannot be compared", "10 %"),
    ("sensor.lost ~ 10", "~", "sensor.lost has no counts, so ~ needs a tolerance", "+- 2 ms"),
    ("store.connect_time ~ 40 ms", "~", "has no counts, so ~ needs a tolerance", ""),
    ("sensor.loss_ratio.max ~ 10 %", "~", "has no counts", ""),
    ("sensor.round_trip_delay.max ~ 40 ms +- 5 %", "5 %", "a time and a ratio cannot be compared", ""),
    # what cannot fail, and what cannot hold
    ("sensor.lost >= 0", ">=", "this cannot fail: sensor.lost is always at least 0", ""),
    ("sensor.lost > -1", ">", "this cannot fail", ""),
    ("sensor.lost != -1", "!=", "this cannot fail: sensor.lost is never -1", ""),
    ("sensor.lost.count >= 0", ">=", "this cannot fail", ""),
    ("store.connect_time >= 0 ms", ">=", "this cannot fail", ""),
    (
        "sensor->collector.loss_ratio <= 100 %",
        "<=",
        "this cannot fail: sensor->collector.loss_ratio is always from 0 % to 100 %",
        "",
    ),
    ("sensor.loss_ratio between 0 % and 100 %", "between", "this cannot fail", ""),
    ("collector.kernel.UdpInDatagrams >= 0", ">=", "this cannot fail", ""),
    ("sensor.lost == sensor.lost", "==", "both sides are the same metric", ""),
    ("sensor.lost <= sensor.lost", "<=", "both sides are the same metric", ""),
    ('foreign.nc.stdout contains ""', "contains", "every text contains an empty one", ""),
    ("foreign.nc.stdout matches //", "matches", "every text contains an empty one", ""),
    ("sensor.lost < 0", "<", "this cannot hold", ""),
    ("sensor.lost == -1 or -2", "==", "this cannot hold: sensor.lost is never -1 or -2", ""),
    ("sensor->collector.loss_ratio > 100 %", ">", "this cannot hold", ""),
    (
        "sensor.lost between 5 and 2",
        "between",
        "this cannot hold: the first value of between is the larger one",
        "",
    ),
    # the grammar
    ("sensor.lost = 5", "=", "expected a test, found `=`", "write `sensor.lost == 5`"),
]


@pytest.mark.parametrize(("text", "at", "message", "hint"), REFUSED, ids=[row[0] for row in REFUSED])
def test_what_is_certainly_wrong_is_refused_at_its_place(text: str, at: str, message: str, hint: str) -> None:
    (problem,) = problems(text)
    assert message in problem.message and (hint in problem.hint or hint in problem.message)
    written = (SCENARIO + f"  - '{text}'").splitlines()
    line = written[problem.line - 1]
    assert (problem.file, line) == ("some.yaml", f"  - '{text}'")
    assert line[problem.column - 1 :].startswith(at), line[problem.column - 1 :]
    assert not problem.warning


ALLOWED = [
    "sensor.lost == sensor->collector.dropped",
    "sensor-2.lost == sensor->collector.dropped",
    "sensor->collector.delivered == collector->sensor.sent",
    "collector.reports.received == sum of sensor.received",
    "reports.received > 3",  # the only program of that name
    "any sensor.exit == 0 or SIGKILL or timeout",
    "sensor.exit < 3",
    "sensor.loss_ratio ~ 10 %",
    "sensor.loss ~ 10 %",
    "sensor.loss_ratio == sensor->collector.loss_ratio",
    "sensor.loss_ratio == 0 % or 100 %",
    "sensor.loss_ratio between 0 % and 99 %",
    "single.round_trip_delay < 5 ms",  # of one datagram: one sample
    "collector->store over back.sent == 0",
    "all->collector over lan.sent >= 1",
    "sensor.stdout contains '$name $index $ip $seed $collector.ip $far.back.ip $$'",
    "sensor.id == $index",
    "foreign.ping.rtt.max < 5 ms",
    "foreign.ping.rtt.count == 1",
    "foreign.ping.word == yes or 5",
    # of a program that is not ours, nothing is certain
    "foreign.nc.anything >= 0",
    "foreign.nc.anything.p99 ~ 5 ms +- 1 ms",
    "foreign.nc.anything ~ 10 %",
    "foreign.nc.anything == 5 or five or 5 ms",
    "image.anything >= 0",
    "sensor.lost >= single.lost",
    "sensor.exit >= 0",  # a signal is no number
    "sensor.lost <= 2 x sensor.lost",
    "sensor.round_trip_delay.min >= 40 ms - 2 ms",
]


@pytest.mark.parametrize("text", ALLOWED)
def test_what_may_be_right_is_not_refused(text: str) -> None:
    assert problems(text) == []


def test_all_problems_of_all_expectations_come_at_once() -> None:
    found = problems("sensr.lost == colector.x", "sensor.lost >= 0", "sensor.sent == 3", "sensor.lost == $x + $y")
    assert [problem.message.split("`")[1] if "`" in problem.message else "cannot fail" for problem in found] == [
        "sensr",
        "colector",
        "cannot fail",
        "$x",
        "$y",
    ]


def test_one_problem_is_told_once_for_a_group() -> None:
    assert len(problems("sensor.recieved == 3")) == 1


def test_a_program_of_several_hosts_must_be_named_in_full() -> None:
    text = SCENARIO.replace("      nc:   {run", "      reports:   {run") + "  - reports.received == 1\n"
    (problem,) = static.problems(plan(parse(text, "some.yaml"), None))
    assert "`reports` is a program of 2 hosts" in problem.message
    assert problem.hint == "write collector.reports.received or foreign.reports.received"


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("{serve: datagram ecko --port 9}", ["datagram has no mode `ecko`"]),
        ("{count: 3, serve: [frames, listen]}", ["frames has no mode `listen`"]),
        ("{run: datagram --help}", []),
        ("{run: 'datagram $name'}", []),
        ("{run: nc ecko 9}", []),
        ("{image: ours, run: datagram ecko}", []),  # somebody else's datagram
    ],
)
def test_a_mode_that_our_program_does_not_have_is_a_problem(host: str, said: list[str]) -> None:
    scenario = parse(f"testbed: 1\nduration: 1 s\nhosts:\n  a: {host}\n", "some.yaml")
    assert [problem.message for problem in own_programs.unknown_modes(scenario)] == said


def test_notes_say_how_much_a_test_needs() -> None:
    made = planned(
        "sensor->collector.loss_ratio ~ 10 %", "single.loss_ratio ~ 1 %", "store.connect_time ~ 4 ms +- 1 ms"
    )
    assert static.notes(made) == [
        "sensor->collector.loss_ratio ~ 10 % needs 1,489 packets or more",
        "single.loss_ratio ~ 1 % needs 16,020 packets or more",
    ]


def test_notes_pass_over_what_is_wrong() -> None:
    assert (
        static.notes(planned("sensor->collector.loss_ratio ~ 0 %", "x = 3", "single.loss_ratio ~ single.loss"))
        == []
    )


# ---------------------------------------------------------------- what a name stands for


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sensor.lost", ["sensor-1.lost", "sensor-2.lost", "sensor-3.lost"]),
        ("sensor-2.lost", ["sensor-2.lost"]),
        ("sensor-2.sensor.lost", ["sensor-2.lost"]),
        ("reports.received", ["collector.reports.received"]),
        ("collector.reports.received", ["collector.reports.received"]),
        ("foreign.ping.rtt.p99", ["foreign.ping.rtt.p99"]),
        ("empty.kernel.UdpInDatagrams", ["empty.kernel.UdpInDatagrams"]),
        ("sensor.kernel.X", ["sensor-1.kernel.X", "sensor-2.kernel.X", "sensor-3.kernel.X"]),
        ("sensor->collector.sent", [f"sensor-{n}->collector.sent" for n in (1, 2, 3)]),
        ("sensor-1->collector over lan.sent", ["sensor-1->collector over lan.sent"]),
    ],
)
def test_a_name_stands_for(text: str, expected: list[str]) -> None:
    plan_ = planned("sensor-1->collector over lan.sent == 1")
    target = Names(plan_).resolve(parse_expectation(f"{text} == 1").metric)
    assert [target.shown(member) for member in target.members] == expected


@pytest.mark.parametrize(
    ("left", "right", "pairs"),
    [
        ("sensor.lost", "sensor->collector.sent", [f"sensor-{n}->collector" for n in (1, 2, 3)]),
        ("sensor.lost", "collector->sensor.sent", [f"collector->sensor-{n}" for n in (1, 2, 3)]),
        ("sensor-3.lost", "sensor->collector.sent", ["sensor-3->collector"]),
        ("sensor->collector.sent", "collector->sensor.sent", [f"collector->sensor-{n}" for n in (1, 2, 3)]),
        ("sensor->collector.sent", "sensor.lost", ["sensor-1", "sensor-2", "sensor-3"]),
        (
            "sensor->sensor.sent",
            "sensor->sensor.delivered",
            [
                "sensor-1->sensor-2",
                "sensor-1->sensor-3",
                "sensor-2->sensor-1",
                "sensor-2->sensor-3",
                "sensor-3->sensor-1",
                "sensor-3->sensor-2",
            ],
        ),
        ("sensor.lost", "sensor.kernel.X", ["sensor-1", "sensor-2", "sensor-3"]),
        ("sensor.lost", "reports.received", ["collector.reports"] * 3),
    ],
)
def test_members_are_matched_by_their_host(left: str, right: str, pairs: list[str]) -> None:
    text = f"{left} == {right}"
    names = Names(planned(text))
    first, second = (names.resolve(reading.metric) for reading in parse_expectation(text).readings())
    assert [matching(member, first.several, second).label for member in first.members] == pairs


def test_what_cannot_be_matched_says_to_write_a_sum() -> None:
    text = "single.lost == sensor->collector.sent"
    names = Names(planned(text))
    first, second = (names.resolve(reading.metric) for reading in parse_expectation(text).readings())
    with pytest.raises(Unknown, match="is 3 metrics, none of them of single") as caught:
        matching(first.members[0], first.several, second)
    assert caught.value.hint == "write `sum of sensor->collector.sent`"


# ---------------------------------------------------------------- our own programs, as documented


def test_what_our_programs_report_is_what_their_reference_says() -> None:
    text = "".join(path.read_text() + "\n# " for path in (ROOT / "docs/programs").glob("*.md"))
    documented: dict[tuple[str, str], set[str]] = {}
    for heading, body in re.findall(r"^## ([^\n]+)\n(.*?)(?=^##? )", text, re.MULTILINE | re.DOTALL):
        rows = re.findall(r"^\| (`[^|]+) \|", body, re.MULTILINE)
        keys = {key for row in rows for key in re.findall(r"`([a-z0-9_]+)`", row)}
        for command in heading.split(", "):
            if keys and len(command.split()) == 2:
                documented[tuple(command.split())] = keys  # type: ignore[index]
    ours = {
        command: {word.split(":")[0] for word in words.split()}
        for command, words in own_programs._REPORTED.items()
    }
    common = {"error"}  # of the clients, told in the text below the tables
    assert {command: keys | common for command, keys in documented.items()} == {
        command: keys | common for command, keys in ours.items()
    }


def test_their_units_are_those_of_the_keys() -> None:
    made = planned("sensor.sent == 10")
    program = made.program("store.store")
    found = own_programs.reported_by(program, made.host("store"))
    assert found is not None
    assert (found["goodput"].dimension, found["payload"].dimension, found["whole"].dimension) == (
        "rate",
        "size",
        "text",
    )
    assert split_unit("goodput_bit_s") == ("goodput", "rate", 1)
    assert own_programs.reported_by(made.program("image.image"), made.host("image")) is None
