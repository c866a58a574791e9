"""The records of one run, opened once and asked for single values. Whatever has no value has a reason instead."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import cached_property

from testbed.errors import counted
from testbed.expect import slips
from testbed.expect.names import Member, Target
from testbed.limits import MEMORY_BYTES, OUTPUT_BYTES
from testbed.measure.link_metrics import LinkFrames, by_link
from testbed.measure.metrics import BUILT_IN, Declared, Reported, built_in, report
from testbed.measure.records import LESS_BUSY, MEMORY_KILLS, Outcome, ProgramRecord, Records
from testbed.measure.samples import Counts, Samples, TooFew, Value, aggregate
from testbed.measure.statistics import Number
from testbed.plan.types import Metric, Plan, Program
from testbed.scenario.fields import did_you_mean
from testbed.scenario.units import UNITS, format_ns, format_size

EXCUSED_NS = 50_000_000  # below, no timer worth the name runs out


class Undecided(Exception):
    """There is no value, or it allows no comparison. What that means for the verdict is in `outcome`."""

    def __init__(self, outcome: Outcome, reason: str) -> None:
        self.outcome = outcome
        super().__init__(reason)


class Evidence:
    """What a plan's run left behind."""

    def __init__(self, plan: Plan, records: Records, until_ns: int | None = None) -> None:
        """Links are read until then; by default until programs were told to stop."""
        self.plan, self.records = plan, records
        self._until_ns = records.stopping_ns if until_ns is None else until_ns
        self._reports: dict[str, Reported] = {}

    @cached_property
    def links(self) -> dict[str, LinkFrames]:
        """By link id; a link that no frame crossed has no frames."""
        found = by_link(self.records.ledger, self._until_ns)
        return {link.id: found.get(link.id) or LinkFrames([]) for link in self.plan.links}

    @cached_property
    def kept_in(self) -> dict[str, int]:
        """By link id, frames that were in it when the last `run` ended, and left after servers were stopped."""
        ends = [r.ended_ns for r in self.records.programs.values() if r.kind == "run" and r.ended_ns is not None]
        until_ns = self.records.stopping_ns
        if until_ns is None or not ends or self.records.fail:
            return {}
        last_ns = max(ends)
        return Counter(
            f.link
            for f in self.records.ledger
            if f.sent_ns is not None and f.in_ns <= last_ns and f.sent_ns > until_ns
        )

    def report(self, program: Program) -> Reported:
        """What a program reported, read once."""
        if program.id not in self._reports:
            record = self.records.programs[program.id]
            self._reports[program.id] = report(record, [_declared(metric) for metric in program.metrics])
        return self._reports[program.id]

    def value(self, target: Target, member: Member) -> Samples:
        """The one value of a member's metric, aggregated if the expectation says so. Raises Undecided."""
        return self._aggregated(target, member, self._samples(target, member))

    def _aggregated(self, target: Target, member: Member, samples: Samples) -> Samples:
        shown = target.shown(member)
        if target.aggregate is None:
            if len(samples.values) == 1:
                return samples
            raise Undecided(
                "error",
                f"{shown} has {len(samples.values):,} samples: say which value is meant, as in {shown}.max",
            )
        if target.metric == "loss_period" and target.aggregate in ("max", "sum") and not samples.values:
            return Samples("number", [0])  # nothing was lost: the longest run of losses is none
        try:
            return aggregate(samples, target.aggregate)
        except TooFew as problem:
            raise Undecided("inconclusive", f"{shown}: {problem}; take more samples") from problem
        except TypeError as problem:
            raise Undecided("error", f"{shown}: {problem}, and .{target.aggregate} is for numbers") from problem
        except ZeroDivisionError as problem:
            raise Undecided("inconclusive", f"{shown} is a ratio of nothing: 0 of 0") from problem

    # -- where samples come from

    def _samples(self, target: Target, member: Member) -> Samples:
        if target.kind == "kernel":
            return self._counter(member.host, target.metric)
        if member.link is not None:
            return self.links[member.link.id].samples(target.metric)
        assert member.program is not None
        record = self.records.programs[member.program.id]
        reported = self.report(member.program)
        if reported.unsupported:
            raise Undecided("skip", f"{member.label} says: {reported.unsupported}")
        if target.metric in BUILT_IN:
            samples = built_in(record, target.metric)
            if samples is None:
                raise self._without(member.program, record, target.metric)
            return samples
        if target.metric in reported.broken:
            raise Undecided("error", f"{member.label}.{target.metric}: {reported.broken[target.metric]}")
        samples = reported.samples.get(target.metric)
        if samples is None or (not samples.values and target.aggregate != "count"):
            raise self._unreported(member, record, target.metric, reported)
        return samples

    def _counter(self, host: str, name: str) -> Samples:
        counters = self.records.kernel.get(host)
        if counters is None:
            raise Undecided("error", f"the kernel counters of {host} are not in the records")
        if name not in counters:
            hint = did_you_mean(name, counters) or "`nstat -az` lists their names"
            raise Undecided("error", f"the kernel of {host} has no counter {name}: {hint}")
        return Samples("number", [counters[name]])

    def _without(self, program: Program, record: ProgramRecord, name: str) -> Undecided:
        """A built-in metric that has no value."""
        if record.started_ns is None:
            return Undecided("inconclusive", f"{program.id} was never started: {self.why_not_started(program)}")
        if name == "ready_after":
            if record.never_ready:
                return Undecided("fail", f"{program.id} did not get ready: {record.never_ready}")
            return Undecided("error", f"{program.id} has no ready_after: {_readiness(program)}")
        return Undecided("error", f"{program.id} has no {name}: its end is not on record")

    def _unreported(self, member: Member, record: ProgramRecord, name: str, reported: Reported) -> Undecided:
        assert member.program is not None
        program = member.program
        if record.started_ns is None:
            return Undecided("inconclusive", f"{program.id} was never started: {self.why_not_started(program)}")
        if died(program, record):
            return Undecided("fail", f"{program.id} {self.ending(program)} before it reported `{name}`")
        declared = next((metric for metric in program.metrics if metric.name == name), None)
        if declared is not None:
            looked = f"/{declared.prints}/" if declared.prints is not None else declared.json
            where = declared.file or "its output"
            return Undecided("error", f"{member.label}.{name}: nothing in {where} matches {looked}")
        known = reported.names
        has = f"it reported {', '.join(known)}" if known else "it reported nothing"
        there = [*known, *BUILT_IN]
        hint = slips.called(name, there) or did_you_mean(name, known) or did_you_mean(name, there)
        return Undecided("error", f"{member.label} never reported `{name}`; {has}{'; ' + hint if hint else ''}")

    # -- what else the records say

    def why_not_started(self, program: Program) -> str:
        """What kept it from starting, as far as the records tell."""
        for other_id, event in program.after:
            other = self.records.programs.get(other_id)
            if other is None:
                continue
            if other.started_ns is None:
                return f"{other_id} was not started either"
            if event == "ready" and other.ready_ns is None:
                return f"{other_id} did not get ready"
            if event == "ended" and other.exit != 0:
                return f"{other_id} {self.ending(self.plan.program(other_id))}"
        return self.records.fail

    def ending(self, program: Program) -> str:
        """How a program ended, as a verb."""
        record = self.records.programs[program.id]
        match record.exit:
            case None:
                return "was still running when the run was stopped" if record.stopped else "did not end"
            case "timeout":
                return f"did not end within its timeout of {format_ns(program.timeout_ns)} and was stopped"
            case "flood":
                return f"wrote more than {format_size(OUTPUT_BYTES)} to one of its outputs"
            case int(status):
                return f"ended with status {status}"
            case "SIGKILL" if record.stopped:
                return f"had to be killed, {format_ns(program.stop_grace_ns)} after {program.stop_signal},"
            case "SIGKILL" if killed := self.records.kernel.get(program.host, {}).get(MEMORY_KILLS):
                limit = f"{program.host} took more than the {format_size(MEMORY_BYTES)} of memory of a host"
                return f"was ended by SIGKILL ({limit}, and the kernel ended {killed} there)"
            case signal:
                return f"was ended by {signal}"

    def lateness_ns(self, member: Member) -> int:
        """What the network's own lateness may have added to a time that this member measured.

        Of a link: its p99. Of a program: the sum over both directions between its host and that peer for which
        it is largest, and the time that programs of either host waited for a processor. If no link concerns it:
        what a process on this machine that sleeps 1 ms at a time saw, and its own host's wait.
        """
        if member.link is not None:
            return self._late_ns(member.link.id)
        of_peer: dict[str, int] = {}
        for link in self.plan.links:
            if member.host in (link.source, link.target):
                peer = link.target if link.source == member.host else link.source
                of_peer[peer] = of_peer.get(peer, self._waited_ns(peer)) + self._late_ns(link.id)
        return self._waited_ns(member.host) + max(of_peer.values(), default=self.records.proof.canary_p99_ns)

    def overdue_ns(self, target: Target, member: Member, found: Value) -> Number:
        """By how much lateness has changed this time, known frame by frame: 0 but of a link's one_way_delay.

        Below 0 where it made an aggregate less, as it may a standard deviation. Raises Undecided as `value` does.
        """
        if member.link is None:
            return 0
        due = self._aggregated(target, member, self.links[member.link.id].due_samples(target.metric))
        [as_due] = due.values
        assert not isinstance(as_due, str | Counts) and not isinstance(found, str | Counts)
        return 0 if found == as_due else found - as_due  # infinite is infinite when it was due, too

    def excuse(self, members: Iterable[Member]) -> str:
        """Why what these counted or said may be our doing, as if a timer of theirs ran out; "" if it is not.

        It is if the latest frame from its host to a peer and the latest one back were late by more than EXCUSED_NS
        together: one question and its answer. The ledger is what it is however late, so what is compared with it
        has no excuse; nor has a program that was ended by a signal, its timeout or a flood.
        """
        hosts = []
        for member in members:
            if member.link is not None:
                return ""
            if member.program is not None:
                record = self.records.programs[member.program.id]
                if isinstance(record.exit, str) and not record.stopped:
                    return ""
            hosts.append(member.host)
        late_ns, host, peer = max((self._latest(host) for host in hosts), default=(0, "", ""))
        if late_ns <= EXCUSED_NS:
            return ""
        late = f"frames between {host} and {peer} left up to {format_ns(late_ns)} late, there and back together"
        return f"{late}, and a timer may have run out over that: try {LESS_BUSY}"

    def last_words(self, members: Iterable[Member]) -> tuple[Evidence, str]:
        """The evidence as it was when the last of these programs had ended, and what its links carried since they
        were told to stop; "" for nothing. They may have counted that, and the link's own metrics do not.
        """
        concerned, from_ns = list(members), self.records.stopping_ns
        records = [self.records.programs[m.program.id] for m in concerned if m.program is not None]
        ends = [record.ended_ns or self.records.ended_ns for record in records if record.stopped]
        links = {member.link.id for member in concerned if member.link is not None}
        if from_ns is None or not ends or not links:
            return self, ""
        last_ns = max(ends)
        sent = [f.sent_ns for f in self.records.ledger if f.link in links and f.sent_ns is not None]
        n = sum(from_ns < sent_ns <= last_ns for sent_ns in sent)
        said = f"{counted(n, 'frame')} left {', '.join(sorted(links))} while programs were being stopped"
        return Evidence(self.plan, self.records, last_ns), said if n else ""

    def _latest(self, host: str) -> tuple[int, str, str]:
        """(by how much the latest frames there and back were late, this host, the peer for which it is most)."""
        of_peer: Counter[str] = Counter()
        for link in self.plan.links:
            if host in (link.source, link.target):
                of_peer[link.target if link.source == host else link.source] += self.links[link.id].latest_ns
        return max(((late_ns, host, peer) for peer, late_ns in of_peer.items()), default=(0, host, ""))

    def _waited_ns(self, host: str) -> int:
        return int(self.records.proof.end.get("cpu_wait_p99_ns", {}).get(host, 0))

    def _late_ns(self, link_id: str) -> int:
        reported = self.records.proof.end.get("links", {}).get(link_id, {})
        late_ns = reported.get("lateness_p99_ns")
        return self.links[link_id].lateness_p99_ns() if late_ns is None else int(late_ns)


def _declared(metric: Metric) -> Declared:
    if metric.unit is None:
        return Declared(metric.name, metric.prints, metric.json, metric.file)
    dimension, scale = UNITS[metric.unit]
    plain = "number" if dimension == "packets" else dimension
    return Declared(metric.name, metric.prints, metric.json, metric.file, plain, scale)


def _readiness(program: Program) -> str:
    if program.kind == "run":
        return "readiness is a `serve:` program's"
    return "the run was over before it was ready"


def died(program: Program, record: ProgramRecord) -> bool:
    """Whether it ended in a way that kept it from reporting. A program that we stopped may end by that signal."""
    if record.exit is None:
        return False
    if record.stopped:
        return record.exit == "SIGKILL" and program.stop_signal != "SIGKILL"
    return record.exit != 0
