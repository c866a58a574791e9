"""From the records of a run to its outcome. A pure function: an old run can be judged again, with nothing running.

`fail` always means the program under test, on a network that is proven. So the records are doubted first, then
the network, and the programs last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from testbed.errors import counted, last_line
from testbed.expect.advice import advice, insists_on_being_first
from testbed.expect.evaluate import Evaluator
from testbed.expect.evidence import Evidence, died
from testbed.expect.grammar import GrammarError, parse
from testbed.expect.names import Member, Names, Unknown, exits_named
from testbed.expect.syntax import Parsed
from testbed.expect.trust import distrust
from testbed.measure.records import SEVERITY, Judgement, Outcome, ProgramRecord, Records, Verdict
from testbed.plan.types import Ends, Expectation, Host, Plan, Program
from testbed.scenario.units import format_ns


def judge(plan: Plan, records: Records) -> Judgement:
    """All verdicts of one run, and what comes of them. Never raises for what is in the records."""
    try:
        judgement = _judge(plan, records)
    except Exception as problem:  # a judge that crashes has found nothing out
        judgement = Judgement("error", f"the judge itself failed: {problem!r}", ())
    return _as_the_file_says(plan.ends, judgement)


def _judge(plan: Plan, records: Records) -> Judgement:
    if records.error:
        return Judgement("error", "; ".join(filter(None, (records.error, records.leftovers))), ())
    if records.skip:
        return (
            Judgement("error", records.leftovers, ()) if records.leftovers else Judgement("skip", records.skip, ())
        )
    doubts = distrust(plan, records)
    if doubts:
        return Judgement("error", "; ".join(doubts), ())
    court = _Court(plan, records)
    verdicts = tuple(court.verdicts())
    # What we left behind is our error, and takes nothing from what was found out before.
    leftovers = [Fault("error", "", records.leftovers)] if records.leftovers else []
    return _merged(verdicts, [*court.faults, *leftovers])


def _merged(verdicts: Sequence[Verdict], faults: Sequence[Fault]) -> Judgement:
    """Faults of the network count as verdicts of their own: without a proof there is no pass."""
    found: list[tuple[Outcome, str]] = [(fault.outcome, fault.text) for fault in faults]
    found += [(v.outcome, f"{v.text}: {v.reason}") for v in verdicts]
    if not found:
        return Judgement("pass", "nothing was expected", ())
    outcome = min((outcome for outcome, _ in found), key=SEVERITY.index)
    if outcome == "pass" and any(v.outcome == "skip" for v in verdicts):
        outcome = "skip"  # a program said that this cannot be done here: what the others did shows nothing
    reasons = [reason for one, reason in found if one == outcome]
    if outcome == "pass":
        return Judgement(
            outcome,
            "its one verdict holds" if len(verdicts) == 1 else f"all {len(verdicts)} verdicts hold",
            tuple(verdicts),
        )
    more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
    return Judgement(outcome, reasons[0] + more, tuple(verdicts))


def _as_the_file_says(ends: Ends, judgement: Judgement) -> Judgement:
    """A file that must not pass passes by ending as it says, for the reason that it says.

    An error, a skip or an inconclusive run that it does not ask for stays what it is: only a program fails.
    """
    if ends.outcome == "pass" or judgement.outcome == "skip":
        return judgement
    wanted = f"the file says that it ends as {ends.outcome} because of {ends.text!r}"
    if judgement.outcome != ends.outcome:
        outcome: Outcome = judgement.outcome if judgement.outcome in ("error", "inconclusive") else "fail"
        return replace(
            judgement, outcome=outcome, reason=f"{wanted}; it ended as {judgement.outcome}: {judgement.reason}"
        )
    reasons = [judgement.reason, *(v.reason for v in judgement.verdicts if v.outcome == ends.outcome)]
    if not any(ends.text in reason for reason in reasons):
        return replace(judgement, outcome="fail", reason=f"{wanted}; but the reason was: {judgement.reason}")
    return replace(
        judgement, outcome="pass", reason=f"ended as {ends.outcome}, as the file says: {judgement.reason}"
    )


@dataclass(frozen=True)
class Fault:
    """Something wrong with the network: `error` if not as asked, `inconclusive` if it lost frames itself."""

    outcome: Outcome
    who: str  # a link, a host, or "" for everything
    text: str


class _Court:
    """The verdicts of one run whose records are to be believed."""

    def __init__(self, plan: Plan, records: Records) -> None:
        self.plan, self.records = plan, records
        self.names, self.evidence = Names(plan), Evidence(plan, records)
        self.evaluator = Evaluator(self.names, self.evidence)
        self.faults = list(self._faults())

    def verdicts(self) -> Iterator[Verdict]:
        if self.records.fail:
            text = f"the run is over within {format_ns(self.plan.timeout_ns)}"
            yield self._weighed(Verdict("fail", text, self.records.fail, implied=True), _hosts_of(self.plan))
        parsed = [(expectation, _parsed(expectation)) for expectation in self.plan.expectations]
        switched_off = exits_named(self.names, [p for _, p in parsed if isinstance(p, Parsed)])
        for program in self.plan.programs:
            if program.id not in switched_off:
                verdict = self._guarded(_implied_text(program), lambda p=program: self._implied(p))  # type: ignore[misc]
                verdict = replace(verdict, line=program.line, implied=True)
                yield self._weighed(verdict, {program.host})
        for expectation, one in parsed:
            yield self._expected(expectation, one)

    # -- what the file expects

    def _expected(self, expectation: Expectation, parsed: Parsed | GrammarError) -> Verdict:
        if isinstance(parsed, GrammarError):
            verdict = Verdict("error", expectation.text, f"{parsed}{_hint(parsed.hint)}")
            return replace(verdict, line=expectation.line, because=expectation.because)
        verdict = self._guarded(expectation.text, lambda: self._evaluated(parsed))
        verdict = replace(verdict, line=expectation.line, because=expectation.because)
        return self._weighed(verdict, self._concerned(parsed), explicit=True)

    def _evaluated(self, parsed: Parsed) -> tuple[Outcome, str]:
        """What does not hold of a program that could not do its part, or of its host and links, shows nothing."""
        outcome, reason = self.evaluator.evaluate(parsed)
        if outcome not in ("pass", "skip"):
            concerned = self._concerned(parsed)
            for program in self.plan.programs:
                unsupported = self.evidence.report(program).unsupported
                if unsupported and self._touches(Fault("skip", program.host, unsupported), concerned):
                    return "skip", f"{program.id} says: {unsupported}; {reason}"
        return outcome, reason

    def _guarded(self, text: str, evaluate: Callable[[], tuple[Outcome, str]]) -> Verdict:
        """A crash in one verdict is that verdict's error, and no other's."""
        try:
            outcome, reason = evaluate()
        except Unknown as problem:
            outcome, reason = "error", f"{problem}{_hint(problem.hint)}"
        except Exception as problem:
            outcome, reason = "error", f"judging this failed: {problem!r}"
        return Verdict(outcome, text, reason)

    def _concerned(self, parsed: Parsed) -> set[str]:
        """The links that are named, and the hosts of the programs and kernels that are."""
        concerned: set[str] = set()
        for reading in parsed.readings():
            try:
                target = self.names.resolve(reading.metric)
            except Unknown:
                continue
            for member in target.members:
                concerned |= {member.link.id} if member.link else {member.host}
        return concerned

    # -- what is implied

    def _implied(self, program: Program) -> tuple[Outcome, str]:
        record = self.records.programs[program.id]
        if record.never_ready:
            why = f"{record.never_ready}{self._last_words(program, record)}"
            outcome: Outcome = "error" if insists_on_being_first(self._host(program), record) else "fail"
            return outcome, f"{program.id} did not get ready: {why}"
        if record.started_ns is None:
            why = self.evidence.why_not_started(program)
            if not why:  # then we should have started it
                return "error", f"{program.id} was never started, and nothing on record kept it from starting"
            return "inconclusive", f"{program.id} was never started: {why}"
        unsupported = self.evidence.report(program).unsupported
        if unsupported and not died(program, record):
            return "skip", f"{program.id} says: {unsupported}"
        how = f"{program.id} {self.evidence.ending(program)}"
        if program.kind == "run":
            good = record.exit == 0 and not record.stopped
            return ("pass", how) if good else self._failed(program, how)
        if not record.stopped:
            lived = f" after {(record.ended_ns - record.started_ns) / 1e9:.3g} s," if record.ended_ns else ""
            return self._failed(program, f"{how}{lived} before the run was over")
        if record.ready_ns is None:
            return "inconclusive", f"{program.id} was not ready yet when the run was stopped: {self.records.fail}"
        return "pass", f"{program.id} was ready after {format_ns(record.ready_ns - record.started_ns)}"

    def _last_words(self, program: Program, record: ProgramRecord) -> str:
        last = last_line(record.stderr, 300)
        return (f"; its last words: {last}" if last else "") + advice(program, self._host(program), record)

    def _host(self, program: Program) -> Host:
        return next(host for host in self.plan.hosts if host.name == program.host)

    def _failed(self, program: Program, how: str) -> tuple[Outcome, str]:
        """It ended as it should not: by itself, which a late wire may have made it do, or not even that."""
        record = self.records.programs[program.id]
        reason = f"{how}{self._last_words(program, record)}"
        by_itself = isinstance(record.exit, int) and not record.stopped
        excuse = self.evidence.excuse([Member(program.id, (program.host,), program)]) if by_itself else ""
        return ("inconclusive", f"{reason}; {excuse}") if excuse else ("fail", reason)

    # -- the network

    def _faults(self) -> Iterator[Fault]:
        for outcome, who, text in self.records.proof.problems:
            known: Outcome = "inconclusive" if outcome == "inconclusive" else "error"
            yield Fault(known, who, text)
        for link_id, frames in self.evidence.links.items():
            if frames.unasked:
                yield Fault(
                    "inconclusive",
                    link_id,
                    f"the wire itself lost {counted(frames.unasked, 'frame')} on {link_id}",
                )
        for link_id, n in self.evidence.kept_in.items():
            when = "when the last `run` ended left it only after servers were stopped"
            yield Fault(
                "inconclusive",
                link_id,
                f"{counted(n, 'frame')} that {'was' if n == 1 else 'were'} in {link_id} {when}",
            )

    def _weighed(self, verdict: Verdict, concerned: set[str], explicit: bool = False) -> Verdict:
        """What a verdict is worth on this network.

        A network that was not as asked makes no program fail. Where the wire lost frames by itself, what was
        expected of that link, or of the programs at its ends, is not decided, whichever way it went.
        """
        errors = [fault for fault in self.faults if fault.outcome == "error"]
        if errors and verdict.outcome == "fail":
            return replace(
                verdict, outcome="error", reason=f"{verdict.reason}; on a network not proven: {errors[0].text}"
            )
        lossy = [
            fault for fault in self.faults if fault.outcome == "inconclusive" and self._touches(fault, concerned)
        ]
        if lossy and (verdict.outcome == "fail" or (explicit and verdict.outcome == "pass")):
            return replace(verdict, outcome="inconclusive", reason=f"{verdict.reason}; {lossy[0].text}")
        return verdict

    def _touches(self, fault: Fault, concerned: set[str]) -> bool:
        if not fault.who:
            return True
        for link in self.plan.links:
            around = {link.id, link.source, link.target}
            at_fault = fault.who == link.id or fault.who in (link.source, link.target)
            if at_fault and concerned & around:
                return True
        return fault.who in concerned


def _hosts_of(plan: Plan) -> set[str]:
    return {host.name for host in plan.hosts}


def _parsed(expectation: Expectation) -> Parsed | GrammarError:
    try:
        return parse(expectation.text)
    except GrammarError as problem:
        return problem


def _implied_text(program: Program) -> str:
    if program.kind == "run":
        return f"{program.id} exits 0 within {format_ns(program.timeout_ns)}"
    return f"{program.id} gets ready within {format_ns(program.ready.within_ns)} and lives to the end"


def _hint(hint: str) -> str:
    return f" ({hint})" if hint else ""
