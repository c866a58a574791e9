"""Expectations against one good run, as their author reads them: quantifiers, groups, values, variables."""

from __future__ import annotations

import pytest

from testbed.judge import judge
from testbed.measure.records import Records, Verdict
from tests.judge.good_run import expecting, good_run, plan_of

# sensor-1 lost 134 of 240, sensor-2 113; the collector got the other 233; the watcher saw levels of 7 and 12 ms


def verdict(text: str, records: Records | None = None) -> Verdict:
    planned = expecting(text)
    return judge(planned, records or good_run(planned)).verdicts[-1]


HOLDS = [
    "sensor.sent == 240",
    "every sensor.sent == 240",
    "any sensor.lost == 113",
    "sum of sensor.lost == 247",
    "sensor-2.lost == 113",
    "sensor-2.sensor.lost == 113",
    "sum of sensor.sent == 2 x sensor-1.sent",
    "sum of sensor.lost == sum of sensor->collector.dropped",
    "sensor.received == sensor->collector.delivered",
    "sensor->collector.sent == sensor.sent",
    "collector.received == sum of sensor->collector.delivered",
    "sensor.lost <= 60 % of sensor.sent",
    "sensor.lost >= 40 % of sensor.sent - 1",
    "sensor.sent == sensor.lost + sensor.received",
    "sensor.lost == sensor.sent - sensor.received",
    "sensor.exit == 0 or 3",
    "sensor.exit < 1",
    "sensor.exit != SIGKILL or timeout or 1",
    "sensor.loss_ratio ~ 50 %",
    "sensor.loss_ratio == sensor->collector.loss_ratio",
    "sensor.loss_ratio ~ 50 % +- 10 %",
    "sensor.loss_ratio between 40 % and 60 %",
    "sensor.round_trip_delay.min between 40 ms and 40.1 ms",
    "sensor.round_trip_delay.count == sensor.received",
    "sensor.round_trip_delay.p90 < 41 ms",
    "sensor.round_trip_delay.sd < 1 ms",
    "sensor->collector.one_way_delay.min >= 20 ms",
    "sensor->collector.one_way_delay.max > 1 h",  # a lost packet is infinitely late
    "sensor->collector.one_way_delay.mean ~ 20 ms +- 0.1 ms",
    "sensor->collector.loss_period.count > 30",
    "collector->sensor.loss_period.max == 0",  # nothing was lost there
    "collector->sensor.duplicated > 10",
    "collector->sensor.bytes == 25440 B",
    "watcher.level.count == 2",
    "watcher.level.first < watcher.level.last",
    "watcher.level.mean ~ 9.5 ms +- 0 ms",
    "watcher.stdout contains quiet",
    'watcher.stdout contains "all quiet on $name"',
    "watcher.stdout matches /^level [0-9]+ ms$/",
    "watcher.stdout does not contain riot",
    'watcher.stderr == ""',
    "watcher.lives == 1",
    "watcher.duration between 799 ms and 801 ms",
    "collector.ready_after < 51 ms",
    "sensor.kernel.UdpInDatagrams == collector.received",
    "sensor-1.sent > $index",
    "sensor.sent != $seed",
]


@pytest.mark.parametrize("text", HOLDS)
def test_it_holds(text: str) -> None:
    found = verdict(text)
    assert found.outcome == "pass", found


FAILS = [
    ("sensor.lost == 113", "1 of 2: sensor-1.lost is 134, not 113"),
    ("any sensor.lost == 5", "all of 2: sensor-1.lost is 134, not 5; sensor-2.lost is 113, not 5"),
    ("sum of sensor.lost == 248", "the sum of sensor.lost is 247, not 248"),
    ("sensor-1.lost <= 50 % of sensor.sent", "sensor-1.lost is 134, and 50 % of sensor-1.sent is 120"),
    (
        "collector.received == 2 x sum of sensor.sent",
        "collector.received is 233; 2 x the sum of sensor.sent is 960",
    ),
    ("sensor-1.sent == sensor.lost + 1", "sensor-1.sent is 240; sensor-1.lost is 134, which makes 135"),
]


@pytest.mark.parametrize(("text", "reason"), FAILS)
def test_it_fails_and_says_what_was_seen(text: str, reason: str) -> None:
    found = verdict(text)
    assert (found.outcome, found.reason) == ("fail", reason)


def test_the_left_host_is_the_one_whose_variables_are_meant() -> None:
    planned = expecting('sensor.stdout contains "$name at $ip"', 'collector.stdout contains "$sensor-2.ip $$"')
    records = good_run(planned)
    for host in ("sensor-1", "sensor-2"):
        ip = planned.host(host).interfaces[0].ip
        records.programs[f"{host}.sensor"].stdout += f"{host} at {ip}\n".encode()
    records.programs["collector.collector"].stdout += f"{planned.host('sensor-2').interfaces[0].ip} $\n".encode()
    assert [v.outcome for v in judge(planned, records).verdicts[-2:]] == ["pass", "pass"]
    records.programs["sensor-2.sensor"].stdout = records.programs["sensor-2.sensor"].stdout.replace(
        b"-2 at", b"-1 at"
    )
    assert [v.outcome for v in judge(planned, records).verdicts[-2:]] == ["fail", "pass"]


def test_any_is_content_with_one_even_if_others_cannot_say() -> None:
    planned = expecting("any sensor.lost == 113", "any sensor.lost == 5", "every sensor.lost > 5")
    records = good_run(planned)
    records.programs["sensor-1.sensor"].stdout = b""
    assert [v.outcome for v in judge(planned, records).verdicts[-3:]] == ["pass", "error", "error"]


def test_a_sum_needs_all_of_its_members() -> None:
    planned = expecting("sum of sensor.lost > 5")
    records = good_run(planned)
    records.programs["sensor-1.sensor"].stdout = b""
    records.programs["sensor-1.sensor"].exit = "SIGSEGV"
    found = judge(planned, records).verdicts[-1]
    assert found.outcome == "fail" and "was ended by SIGSEGV before it reported `lost`" in found.reason


@pytest.mark.parametrize(
    ("stdout", "outcome", "reason"),
    [
        (b"", "error", "watcher.level: nothing in its output matches /level (\\d+) ms/"),
        (b'{"lvl": 3}\n', "error", "nothing in its output matches"),
    ],
)
def test_a_declared_metric_without_samples_has_only_a_count(stdout: bytes, outcome: str, reason: str) -> None:
    planned = expecting("watcher.level.count == 0", "watcher.level.max < 1 s")
    records = good_run(planned)
    records.programs["watcher.watcher"].stdout = stdout
    count, most = judge(planned, records).verdicts[-2:]
    assert count.outcome == "pass"
    assert most.outcome == outcome and reason in most.reason


def test_samples_that_contradict_themselves_are_an_error_of_who_asks() -> None:
    planned = expecting("watcher.x == 1", "watcher.y == 1")
    records = good_run(planned)
    records.programs["watcher.watcher"].stdout = b'{"x_ms": 1}\n{"x_bytes": 1}\n{"y": 1}\n'
    x, y = judge(planned, records).verdicts[-2:]
    assert (x.outcome, x.reason) == ("error", "watcher.x: it was reported as time and as size")
    assert y.outcome == "pass"


def test_infinite_less_infinite_is_not_decided() -> None:
    one, other = (f"sensor-{n}->collector.one_way_delay.max" for n in (1, 2))
    found = verdict(f"sensor-1.round_trip_delay.max < {one} - {other}")
    assert found.outcome == "inconclusive" and "infinite less infinite" in found.reason


def test_a_host_without_its_own_program_metric_still_has_its_kernel() -> None:
    assert verdict("sensor.kernel.TcpRetransSegs == 0").outcome == "pass"


def test_because_and_line_go_with_the_verdict() -> None:
    planned = plan_of("\nexpect:\n  - {that: sensor.sent == 240, because: that is how many}\n")
    found = judge(planned, good_run(planned)).verdicts[-1]
    assert (found.because, found.line > 0, found.implied) == ("that is how many", True, False)


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("watcher.bytes == 3 MB", "pass"),
        ("watcher.bytes == 3000000", "pass"),  # bare, it is in the unit that the metric is called by
        ("watcher.bytes between 2 MB and 4000000", "pass"),
        ("watcher.bytes < 3000000", "fail"),
        ("watcher.bytes < 3 s", "error"),
        ("watcher.seconds < 3 s", "pass"),
        ("watcher.seconds < 2", "fail"),
        ("watcher.sent < 3 MB", "error"),
    ],
)
def test_a_metric_that_is_called_like_its_unit_has_that_unit(text: str, outcome: str) -> None:
    planned = expecting(text)
    records = good_run(planned)
    watcher = next(record for record in records.programs.values() if record.id.startswith("watcher"))
    watcher.stdout += b'{"bytes": 3000000, "seconds": 2.5, "sent": 3}\n'
    found = verdict(text, records)
    assert found.outcome == outcome, found


def test_a_metric_that_was_never_reported_may_be_known_by_another_name() -> None:
    found = verdict("watcher.exit_code == 0")
    assert found.outcome == "error" and found.reason.endswith("did you mean `exit`?"), found
