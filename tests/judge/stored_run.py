"""One small good run, made without a network, and the ways to spoil it.

Its frames get their fates from the dice and the shaper, as on the wire, and its programs report what then came to
pass. So every rule of the judge has something to hold on to, and a test changes just one thing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from testbed.conditions.fate import FATE_VERSION, Stream
from testbed.conditions.shape import Shaper
from testbed.judge import judge
from testbed.measure.records import Frame, Judgement, LinkProof, ProgramRecord, Records, Verdict
from testbed.plan import Ends, Expectation, Plan, plan
from testbed.results import Results
from testbed.scenario import parse

TEXT = r"""
testbed: 1
about: Two sensors report through a lossy link, and a meter through one that jitters, copies and holds back.
seed: 7
timeout: 30 s
hosts:
  collector: {serve: collect --port 9000, ready: {listens: udp 9000}}
  sensor: {count: 2, run: probe collector, timeout: 20 s}
  meter:
    programs:
      gauge:
        run: gauge collector
        metrics: {level: {prints: '/level (\d+)/', unit: ms}, mood: {json: state.mood}}
      lamp: {run: lamp, after: gauge}
links:
  sensor -> collector: {delay: 20 ms, loss: 30 %}
  collector -> sensor: {delay: 20 ms}
  meter -> collector: {delay: 5 ms, jitter: 1 ms, duplicate: 10 %, reorder: {ratio: 10 %, by: 2 packets}}
  collector -> meter: {rate: 10 Mbit/s, queue: 2 packets}
expect:
  - sensor.lost == sensor->collector.dropped
  - sensor->collector.loss_ratio ~ 30 %
  - sensor.round_trip_delay.p95 between 40 ms and 41 ms
  - collector->sensor.one_way_delay.max < 21 ms
  - collector->meter.queue_dropped > 0
  - 'meter.gauge.stdout contains "level 12"'
  - that: sum of sensor.sent == 900
    because: each of them sends 450
"""

SENSORS = ("sensor-1", "sensor-2")
OUT, BACK = "sensor-1->collector over lan", "collector->sensor-1 over lan"
OTHER_OUT = "sensor-2->collector over lan"
METER_OUT, METER_BACK = "meter->collector over lan", "collector->meter over lan"
PACKETS, INTERVAL_NS, SIZE = 450, 1_000_000, 142
START_NS = 1_000_000_000
LATE_NS = 24_000  # the largest lateness on every link, and the p99 that the proof gives
MS = 1_000_000


@dataclass
class Case:
    """A run that may be spoiled: each test has one of its own."""

    plan: Plan
    records: Records

    @property
    def judged(self) -> Judgement:
        return judge(self.plan, self.records)

    def program(self, name: str) -> ProgramRecord:
        """`sensor-1`, or `meter.gauge`."""
        return next(r for id, r in self.records.programs.items() if name in (id, id.partition(".")[0]))

    def reports(self, name: str, *entries: object) -> None:
        """What the program reports, in place of what it did report."""
        self.program(name).stdout = b"".join(json.dumps(entry).encode() + b"\n" for entry in entries)

    def never_started(self, name: str) -> None:
        record = self.program(name)
        self.records.programs[record.id] = ProgramRecord(record.id, record.kind)

    # -- the ledger

    @property
    def ledger(self) -> list[Frame]:
        """The frames, to be changed in place."""
        assert isinstance(self.records.ledger, list)
        return self.records.ledger

    def find(self, link: str, cause: str | None = None, copy: bool = False, nth: int = 0) -> int:
        """The place in the ledger of the nth frame on a link that ended so."""
        places = [i for i, f in enumerate(self.ledger) if (f.link, f.cause, f.copy) == (link, cause, copy)]
        return places[nth]

    def change(self, at: int, **fields: object) -> None:
        """Rewrite one frame, and let the wire's own counts agree, so that they give nothing away."""
        self.ledger[at] = self.ledger[at]._replace(**fields)  # type: ignore[arg-type]
        self.recount()

    def recount(self) -> None:
        for link, counts in counted(self.plan, self.ledger).items():
            self.records.proof.end["links"][link].update(counts)

    def lateness(self, link: str, p99_ns: int) -> None:
        self.records.proof.end["links"][link]["lateness_p99_ns"] = p99_ns

    # -- the file

    def unlink(self) -> None:
        """As if no link had been named: none is watched, and there is no ledger."""
        self.plan = replace(self.plan, links=())
        self.records.ledger = []
        self.records.proof.end["links"].clear()

    def expect(self, *texts: str, because: str = "") -> None:
        """In place of what the file expects."""
        self.plan = replace(
            self.plan, expectations=tuple(Expectation(text, because, 90 + i, 5) for i, text in enumerate(texts))
        )

    def ends(self, outcome: str, text: str) -> None:
        self.plan = replace(self.plan, ends=Ends(outcome, text))  # type: ignore[arg-type]

    def verdict(self, text: str) -> Verdict:
        """The one verdict whose text has this in it."""
        (found,) = (verdict for verdict in self.judged.verdicts if text in verdict.text)
        return found


def good_run() -> Case:
    """A run that passes."""
    made, ledger = planned(), good_ledger()
    in_force = {link.id: {"condition": link.condition.to_json()} for link in made.links}
    proof = LinkProof(
        [],
        {"hosts": {}, "conditions": {"links": in_force}},
        {"links": {id: counts | {"lateness_p99_ns": LATE_NS} for id, counts in counted(made, ledger).items()}},
        canary_p99_ns=50_000,
    )
    records = Records(
        FATE_VERSION,
        made.seed,
        programs(ledger),
        {host.name: {"UdpInDatagrams": 100 + i, "TcpRetransSegs": 0} for i, host in enumerate(made.hosts)},
        list(ledger),
        proof,
        START_NS - 10 * MS,
        START_NS + 900 * MS,
        START_NS + 600 * MS,
        complete=True,
    )
    return Case(made, records)


@cache
def planned() -> Plan:
    return plan(parse(TEXT, "stored.yaml"))


@cache
def good_ledger() -> tuple[Frame, ...]:
    """Every sensor is echoed by the collector; the meter sends pairs and gets bursts back."""
    found: list[Frame] = []
    for number, sensor in enumerate(SENSORS):
        sent = [START_NS + number * 1000 + k * INTERVAL_NS for k in range(PACKETS)]
        out = crossed(f"{sensor}->collector over lan", "udp *1>9000", sent)
        found += out
        found += crossed(f"collector->{sensor} over lan", "udp 9000>*1", arrivals(out))
    found += crossed(METER_OUT, "udp *1>9000", [START_NS + k * INTERVAL_NS for k in range(60)])
    found += crossed(METER_BACK, "udp 9000>*1", [START_NS + k // 6 * 5 * MS + k % 6 * 1000 for k in range(60)])
    return tuple(sorted(found, key=lambda f: (f.in_ns, f.link, f.flow, f.k, f.copy)))


def crossed(link_id: str, flow: str, times_ns: Iterable[int]) -> list[Frame]:
    """What becomes of frames that enter a link at these times."""
    made = planned()
    condition = next(link.condition for link in made.links if link.id == link_id)
    shaper, held, found = Shaper(condition), dict[int, int](), list[Frame]()
    for k, (in_ns, draws) in enumerate(zip(times_ns, Stream(made.seed, link_id, flow), strict=False)):
        fate = shaper.decide(draws, SIZE, in_ns)
        if fate.ticket is not None:
            held[fate.ticket] = len(found)
        for copy, (cause, due_ns) in enumerate([(fate.cause, fate.due_ns), *fate.copies]):
            found.append(Frame(in_ns, link_id, flow, k, SIZE, cause, copy == 1, due_ns, None))
        for release in fate.released:
            at = held[release.ticket]
            found[at] = found[at]._replace(due_ns=release.due_ns)
    return [f if f.due_ns is None else f._replace(sent_ns=f.due_ns + late_ns(f)) for f in found]


def late_ns(frame: Frame) -> int:
    return LATE_NS - frame.k % 5 * 1000


def arrivals(frames: Iterable[Frame]) -> list[int]:
    return [f.sent_ns for f in frames if f.sent_ns is not None]


def counted(made: Plan, ledger: Iterable[Frame]) -> dict[str, dict[str, int]]:
    """What the wire reports of each link at the end."""
    of_link: dict[str, Counter[str]] = {link.id: Counter() for link in made.links}
    for frame in ledger:
        counts = of_link.setdefault(frame.link, Counter())
        counts["frames"] += not frame.copy
        counts[frame.cause or "sent"] += 1
    causes = ("frames", "sent", "loss", "queue", "unasked")
    return {link.id: {cause: of_link[link.id][cause] for cause in causes} for link in made.links}


def programs(ledger: Iterable[Frame]) -> dict[str, ProgramRecord]:
    """What the programs of such a run report."""
    frames, records = list(ledger), dict[str, ProgramRecord]()
    for index, sensor in enumerate(SENSORS, 1):
        out = [f for f in frames if f.link == f"{sensor}->collector over lan"]
        back = [f for f in frames if f.link == f"collector->{sensor} over lan"]
        times = [
            b.sent_ns - o.in_ns for o, b in zip((f for f in out if f.sent_ns), back, strict=True) if b.sent_ns
        ]
        lost = len(out) - len(times)
        summary = {"sent": len(out), "lost": lost, "loss_ratio": {"count": lost, "of": len(out)}, "id": index}
        entries: list[dict[str, object]] = [{"round_trip_delay_ms": ns / MS} for ns in times]
        id = f"{sensor}.sensor"
        records[id] = ran(id, 500 + index, *entries, {**summary, "state": "ok"})
    received = sum(f.link in (OUT, OTHER_OUT) and f.cause is None for f in frames)
    records["collector.collector"] = ProgramRecord(
        "collector.collector", "serve", START_NS - 5 * MS, START_NS - MS, START_NS + 800 * MS, 0, stopped=True,
        stdout=f'READY\n{{"received": {received}, "payload_bytes": {received * 100}}}\n'.encode(),
        stderr=b"",
    )  # fmt: skip
    records["meter.gauge"] = ran("meter.gauge", 60, {"state": {"mood": "calm"}})
    records["meter.gauge"].stdout += b"level 12\nlevel 14\nat $HOME\n"
    records["meter.lamp"] = ran("meter.lamp", 1)
    records["meter.lamp"].stdout, records["meter.lamp"].stderr = b"on\n", b"a lamp\nis lit\n"
    return records


def ran(id: str, ms: int, *entries: dict[str, object]) -> ProgramRecord:
    stdout = b"".join(json.dumps(entry).encode() + b"\n" for entry in entries)
    return ProgramRecord(id, "run", START_NS, None, START_NS + ms * MS, 0, stdout=stdout)


def stored(case: Case, root: Path) -> Results:
    """The run on disk, as a real one is."""
    results = Results.create(root, "stored", case.plan.seed)
    results.save_before(case.plan, TEXT, {})
    for id, record in case.records.programs.items():
        results.output(id, "stdout").write_bytes(record.stdout)
        results.output(id, "stderr").write_bytes(record.stderr)
    results.save_records(case.records)
    return results


Spoil = Callable[[Case], None]


@dataclass(frozen=True)
class Row:
    """One way to spoil the run, and what the judge must say."""

    spoil: Spoil
    outcome: str
    reason: str

    @property
    def name(self) -> str:
        return self.spoil.__name__


class Table:
    """Rows, each a function with its outcome and a part of the reason in front of it."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def __call__(self, outcome: str, reason: str) -> Callable[[Spoil], Spoil]:
        def put(spoil: Spoil) -> Spoil:
            assert spoil.__name__ not in [row.name for row in self.rows], spoil.__name__
            self.rows.append(Row(spoil, outcome, reason))
            return spoil

        return put
