"""One good run as the testbed would have recorded it, small and built in code. Bad ones are made from it.

Two sensors report to a collector over links that lose half of what they carry; a watcher, which is no program of
ours, prints lines. Fates are decided by the same dice and the same shaper as in the wire, times are made up.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from testbed.conditions.fate import FATE_VERSION, Stream
from testbed.conditions.shape import Shaper
from testbed.measure.records import Frame, LinkProof, ProgramRecord, Records
from testbed.plan import Plan, plan
from testbed.plan.types import Link
from testbed.scenario import parse

MS = 10**6
COUNT = 240  # datagrams of each sensor; at 50 % a verdict needs 195
LATE_NS = 50_000  # by which every frame leaves late
EXPECT = r"""
expect:
  - sensor.lost == sensor->collector.dropped
  - sensor->collector.loss_ratio ~ 50 %
  - sensor.round_trip_delay.min >= 40 ms
  - sensor.round_trip_delay.median < 41 ms
  - sum of sensor.sent == collector.received + sum of sensor.lost
  - collector.kernel.UdpInDatagrams == collector.received
  - watcher.level.max <= 12 ms
  - watcher.stdout contains "all quiet on $name"
"""
SCENARIO = """
testbed: 1
about: Two sensors miss exactly what the network lost.
seed: 7
timeout: 30 s
hosts:
  collector: {serve: datagram echo --port 9000}
  sensor: {count: 2, run: datagram probe collector:9000 --count 240 --interval 1ms --bind $ip, timeout: 10 s}
  watcher:
    run: watch collector
    metrics: {level: {prints: '/level (\\d+) ms/', unit: ms}}
links:
  sensor -> collector: {delay: 20 ms, loss: 50 %}
  collector -> sensor: {delay: 20 ms, jitter: 300 us, duplicate: 10 %}
"""


def plan_of(expect: str = EXPECT, more: str = "", scenario: str = SCENARIO) -> Plan:
    """The plan of the good run, or of one with other expectations."""
    return plan(parse(scenario + more + expect, "good-run.yaml"), None)


def expecting(*expectations: str) -> Plan:
    """The good run's plan with these expectations."""
    quoted = "".join("  - '" + text.replace("'", "''") + "'\n" for text in expectations)
    return plan_of(f"\nexpect:\n{quoted}")


def good_run(plan: Plan | None = None) -> Records:
    """The records of a run of that plan in which all was well. A new object every time, to be spoiled."""
    plan = plan or plan_of()
    ledger = [frame for link in plan.links for frame in crossing(plan.seed, link)]
    ledger.sort(key=lambda frame: (frame.in_ns, frame.link, frame.flow, frame.k, frame.copy))
    arrived = sum(frame.cause is None and frame.link.startswith("sensor") for frame in ledger)
    programs = {
        "collector.collector": _record(
            "collector", "serve", [{"received": arrived, "echoed": arrived, "errors": 0}]
        ),
        "sensor-1.sensor": _record("sensor-1", "run", list(_sensor(ledger, "sensor-1"))),
        "sensor-2.sensor": _record("sensor-2", "run", list(_sensor(ledger, "sensor-2"))),
        "watcher.watcher": _record("watcher", "run", []),
    }
    programs["watcher.watcher"].stdout = b"level 7 ms\nall quiet on watcher\nlevel 12 ms\n"
    return Records(
        fate_version=FATE_VERSION,
        seed=plan.seed,
        programs={program.id: programs[program.id] for program in plan.programs},
        kernel={host.name: {"UdpInDatagrams": arrived, "TcpRetransSegs": 0} for host in plan.hosts},
        ledger=ledger,
        proof=proof(plan, ledger),
        started_ns=0,
        ended_ns=2000 * MS,
        complete=True,
    )


def counted(frames: list[Frame]) -> dict[str, int]:
    """What the wire would have counted of these frames."""
    return {
        "frames": sum(not frame.copy for frame in frames),
        "sent": sum(frame.cause is None for frame in frames),
        **{cause: sum(frame.cause == cause for frame in frames) for cause in ("loss", "queue", "unasked")},
        "lateness_p50_ns": LATE_NS,
        "lateness_p99_ns": LATE_NS,
        "lateness_max_ns": max((f.sent_ns - f.due_ns for f in frames if f.sent_ns and f.due_ns), default=0),
    }


def crossing(seed: int, link: Link, count: int = COUNT) -> Iterator[Frame]:
    """Datagrams, one a millisecond: a sensor's on their way there, or as many on their way back."""
    flow = "udp *1>9000" if link.target == "collector" else "udp 9000>*1"
    shaper = Shaper(link.condition)
    start_ns = 1000 * MS + (0 if link.target == "collector" else 20 * MS)
    for k, draws in zip(range(count), Stream(seed, link.id, flow), strict=False):
        in_ns = start_ns + k * MS
        fate = shaper.decide(draws, 106, in_ns)
        sent_ns = None if fate.due_ns is None else fate.due_ns + LATE_NS
        yield Frame(in_ns, link.id, flow, k, 106, fate.cause, False, fate.due_ns, sent_ns)
        for cause, due_ns in fate.copies:
            sent_ns = None if due_ns is None else due_ns + LATE_NS
            yield Frame(in_ns, link.id, flow, k, 106, cause, True, due_ns, sent_ns)


def _sensor(ledger: list[Frame], host: str) -> Iterator[dict[str, Any]]:
    arrived = sum(frame.cause is None for frame in ledger if frame.link.startswith(f"{host}->"))
    for n in range(arrived):
        yield {"round_trip_delay_ms": 40.1 + n / 1000}
    lost = COUNT - arrived
    yield {"sent": COUNT, "received": arrived, "lost": lost, "loss_ratio": {"count": lost, "of": COUNT}}


def _record(host: str, kind: str, entries: list[dict[str, Any]]) -> ProgramRecord:
    program_id = f"{host}.{host.partition('-')[0]}"
    stdout = "".join(json.dumps(entry) + "\n" for entry in entries).encode()
    if kind == "serve":
        return ProgramRecord(program_id, "serve", 900 * MS, 950 * MS, 1900 * MS, 0, stopped=True, stdout=stdout)
    return ProgramRecord(program_id, "run", 1000 * MS, None, 1800 * MS, 0, stdout=stdout)


def proof(plan: Plan, ledger: list[Frame]) -> LinkProof:
    start = {"conditions": {"links": {link.id: link.condition.to_json() for link in plan.links}}}
    links = {link.id: counted([frame for frame in ledger if frame.link == link.id]) for link in plan.links}
    return LinkProof(start=start, end={"links": links}, canary_p99_ns=80_000)
