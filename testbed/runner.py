"""The order of things in one run, and nothing else: plan, build, prove, run, prove, record, judge, tear down."""

from __future__ import annotations

import os
import platform
import shlex
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from testbed import __version__, limits
from testbed.agent.client import AgentClient
from testbed.agent.crossing import told
from testbed.conditions.fate import FATE_VERSION
from testbed.engines.api import AddressTaken, Engine
from testbed.errors import CapabilityError, EngineError, HostError, TestbedError, counted
from testbed.judge import judge
from testbed.lookup import look_up, require
from testbed.measure.ledger import decode
from testbed.measure.records import Frame, Judgement, LinkProof, Records
from testbed.own_files import archives, grounded, standard_inputs
from testbed.plan import Plan, plan
from testbed.plan.images import completed
from testbed.project.root import Project
from testbed.report.terminal import render
from testbed.requirements import of_the_machine, unmet, unmet_there
from testbed.results import Results
from testbed.scenario import Scenario
from testbed.supervisor import Supervisor

TELL_EVERY_S = 2.0
PLAN_AGAIN = 64  # subnets that may turn out to be taken before we give up

Say = Callable[[str], None]


@dataclass(frozen=True)
class Run:
    """A run that came to its end, whatever that end was."""

    plan: Plan
    records: Records
    judgement: Judgement
    results: Results


@dataclass
class Runner:
    """Runs scenarios on one engine. `hold(run, engine)` is called before the hosts go, for `--keep`."""

    new_engine: Callable[[Project], Engine]
    engine_name: str
    engine_why: str
    results_root: Path
    say: Say
    strict: bool = False
    wires: int = 1
    hold: Callable[[Run, Engine], None] | None = None
    command_line: Sequence[str] = field(default_factory=lambda: sys.argv)

    def run(self, scenario: Scenario, text: str, project: Project, seed: int | None = None) -> Run:
        """One run, to its verdict. Raises HostError if nothing can be written; all else is in the outcome.

        KeyboardInterrupt and other interruptions are raised again after the records so far are saved and
        everything is torn down.
        """
        first = plan(scenario, seed)
        results = Results.create(self.results_root, first.scenario, first.seed)
        results.save_before(first, text, self._environment({}))
        records = Records(FATE_VERSION, first.seed, started_ns=time.monotonic_ns())
        reasons = unmet(first, self.engine_name)
        if reasons:
            return self._without_running(first, records, results, "; ".join(reasons))
        job = _Job(self, scenario, text, project, first, records, results)
        job.whole()
        return self.judged(job.plan, records, results)

    def judged(self, plan: Plan, records: Records, results: Results) -> Run:
        """Judge, and save the verdicts and the report. Under --strict a skip is an error."""
        judgement = judge(plan, records)
        if self.strict and judgement.outcome == "skip":
            reason = f"{judgement.reason} (an error under --strict)"
            judgement = replace(judgement, outcome="error", reason=reason)
        results.save_judgement(judgement, render(plan, records, judgement, self.engine_name, color=False))
        return Run(plan, records, judgement, results)

    def _without_running(self, plan: Plan, records: Records, results: Results, why: str) -> Run:
        records.skip = why
        results.save_records(records)
        return self.judged(plan, records, results)

    def _environment(self, engine: dict[str, Any]) -> dict[str, Any]:
        libraries = ("click", "docker", "pydantic", "PyYAML", "rich")
        return {
            "testbed": __version__,
            "fate": FATE_VERSION,
            "command_line": shlex.join(self.command_line),
            "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
            "cpus": os.cpu_count(),
            "python": platform.python_version(),
            "libraries": {name: metadata.version(name) for name in libraries},
            "engine": {"name": self.engine_name, "why": self.engine_why, **engine},
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }


@dataclass
class _Job:
    """One run's state, from the first plan to the last record."""

    runner: Runner
    scenario: Scenario
    text: str
    project: Project
    plan: Plan
    records: Records
    results: Results
    pids: dict[str, int] = field(default_factory=dict)

    agent: AgentClient | None = None
    shift_ns: int = 0  # this machine's monotonic clock less the agent's

    def whole(self) -> None:
        """All of it. What goes wrong is in the records; interruptions pass through once everything is gone."""
        engine = self.runner.new_engine(self.project)
        try:
            self._recorded(engine)
            if self.runner.hold is not None and self.pids and not self.records.skip:
                self.runner.hold(self.runner.judged(self.plan, self.records, self.results), engine)
        finally:
            flying = sys.exc_info()[1]
            self._down(engine)
            if self.records.leftovers:
                self.results.save_records(self.records)
                if flying is not None:
                    flying.add_note(self.records.leftovers)

    def _recorded(self, engine: Engine) -> None:
        """Deploy and run, and have it on disk before anything is torn down."""
        try:
            self._deployed(engine)
        except CapabilityError as problem:
            self.records.skip = str(problem)
        except TestbedError as problem:
            self.records.error = str(problem)
        except Exception as problem:
            self.records.error = f"testbed itself failed: {problem!r}; traceback.txt has the details"
            (self.results.path / "traceback.txt").write_text(traceback.format_exc())
        except BaseException as problem:
            self.records.error = f"interrupted by {problem}" if str(problem) else "interrupted"
            raise
        finally:
            self.records.ended_ns = time.monotonic_ns()
            self.results.save_records(self.records)

    def _deployed(self, engine: Engine) -> None:
        say = self.runner.say
        began = time.monotonic()
        self.agent = agent = AgentClient(engine.open())
        before_ns = time.monotonic_ns()
        hello = agent.hello()
        self.shift_ns = _shift(before_ns, hello.get("monotonic_ns", before_ns), time.monotonic_ns())
        if hello.get("firewall"):
            say(f"the machine's firewall sees what hosts send to each other, because {told(hello['firewall'])}")
        words = of_the_machine(self.plan)
        if words and (reasons := unmet_there(self.plan, agent.lacking(words))):
            raise CapabilityError("; ".join(reasons))
        agent.prepare_wires(self.plan, self.runner.wires)
        self._up(engine, agent)
        described = engine.describe() | {"agent": hello}
        self.results.save_before(self.plan, self.text, self.runner._environment(described))
        self._put_files(engine)
        baseline = agent.hosts(self.plan, self.pids)
        by_groups = {host: seen["limits"] for host, seen in baseline.items()}
        described["limits"] = described.get("limits", {}) | limits.held(by_groups)
        self.results.save_environment(self.runner._environment(described))
        hosts, networks = len(self.plan.hosts), len(self.plan.networks)
        say(f"up in {time.monotonic() - began:.2f} s: hosts {hosts}, networks {networks}")
        if void := limits.void(by_groups):
            say(void)
        in_force = agent.conditions(self.plan)
        self.records.proof = LinkProof(start={"hosts": baseline, "conditions": in_force})
        if self.plan.links:
            say(f"conditions in force on {counted(len(self.plan.links), 'link')}, read back")
        require(self.plan, agent.lookup, self.runner.engine_name)
        look_up(self.plan, agent.lookup, self.project, self.runner.engine_name)
        self._run_programs(engine, agent)

    def _up(self, engine: Engine, agent: AgentClient) -> None:
        """Bring the hosts up, planning again around every subnet that turns out to be in use."""
        taken = engine.taken()
        for _ in range(PLAN_AGAIN):
            self.plan = grounded(plan(self.scenario, self.plan.seed, taken), self.project)
            try:
                self.pids = engine.up(self.plan, agent.door)
                self.plan = completed(self.plan, engine.images(self.plan))
                return
            except AddressTaken as problem:
                if problem.subnet in self._written_subnets() or problem.subnet in taken:
                    raise EngineError(
                        f"bringing up {self.plan.scenario}: {problem.subnet} is in use on this machine, and "
                        "the file asks for it; `testbed clean` removes what dead runs left, or leave `subnet:` out"
                    ) from problem
                self.runner.say(f"{problem.subnet} is in use, planning around it")
                taken |= {problem.subnet}
        raise EngineError(f"bringing up {self.plan.scenario}: {PLAN_AGAIN} subnets in a row were in use")

    def _written_subnets(self) -> set[str]:
        """Subnets that the file itself asks for: nothing can be planned around them."""
        written = {name for name, network in self.scenario.networks.items() if network.subnet is not None}
        return {network.subnet for network in self.plan.networks if network.name in written}

    def _put_files(self, engine: Engine) -> None:
        for host, archive in archives(self.plan, self.project):
            engine.put(host, archive)

    def _run_programs(self, engine: Engine, agent: AgentClient) -> None:
        names = [host.name for host in self.plan.hosts]
        before = agent.counters(names)
        stdin = standard_inputs(self.plan, self.project)
        supervisor = Supervisor(self.plan, engine, agent, self.results, stdin, self.runner.say)
        try:
            supervisor.run()
        finally:
            self.records.programs = supervisor.records()
            self.records.fail, self.records.stopping_ns = supervisor.fail, supervisor.stopping_ns
        after = agent.counters(names)
        self.records.kernel = {
            host: {name: value - before[host].get(name, 0) for name, value in counters.items()}
            for host, counters in after.items()
        }
        not_read = self._collect(engine)
        self._await_empty_links(agent)
        start, proof = self.records.proof.start, LinkProof(**agent.check())
        self.records.proof = replace(proof, problems=[*proof.problems, *not_read], start=start)
        ledger = agent.ledger()
        frames = decode(ledger) if ledger else []
        self.records.ledger = sorted((_shifted(frame, self.shift_ns) for frame in frames), key=_entry)
        self.records.complete = True

    def _await_empty_links(self, agent: AgentClient) -> None:
        """Until what programs sent last has left: nobody receives it, but it counts. Long waits are told."""
        told_s = time.monotonic()
        while not agent.drain():
            agent.still_there()
            if time.monotonic() - told_s >= TELL_EVERY_S:
                told_s = time.monotonic()
                self.runner.say("waiting until what programs sent at the end has left the links")

    def _collect(self, engine: Engine) -> list[tuple[str, str, str]]:
        """Copy out what `collect:` names, also after a failure; what is not there or too large is said.

        What a host does not give is an error of that host, as in LinkProof: the records of the others count.
        """
        not_read = []
        for program in self.plan.programs:
            for path in program.collect:
                try:
                    archive = engine.get(program.host, path)
                except EngineError as problem:
                    not_read.append(("error", program.host, f"{program.id} collect: {path}: {problem}"))
                    continue
                except FileNotFoundError:
                    self.runner.say(f"{program.id} collect: {path}: not there")
                    continue
                except OSError as problem:
                    self.runner.say(f"{program.id} collect: {path}: {problem.strerror}")
                    continue
                try:
                    left_out = self.results.save_collected(program.id, path, archive)
                except OSError as problem:
                    what = f"writing what {program.id} collects, {path}: {problem.strerror}"
                    raise HostError(f"{what}; free some space or try --results DIR") from problem
                for what in left_out:
                    self.runner.say(f"{program.id} collect: {what}")
            self.results.collected(self.plan, self.records.programs[program.id])
        return not_read

    def _down(self, engine: Engine) -> None:
        """Everything goes, also when a signal comes while it goes: the command line lets only one through."""
        try:
            try:
                if self.agent is not None:
                    self.agent.close()
                engine.down()
            except Exception:
                raise
            except BaseException:
                engine.down()
                raise
        except Exception as problem:
            self.records.leftovers = f"tearing down: {problem}"
            self.runner.say(self.records.leftovers)


def _shift(before_ns: int, there_ns: int, after_ns: int) -> int:
    """What to add to the agent's clock to get ours: 0 on one machine, where they are the same clock."""
    return 0 if before_ns <= there_ns <= after_ns else (before_ns + after_ns) // 2 - there_ns


def _shifted(frame: Frame, by_ns: int) -> Frame:
    if not by_ns:
        return frame
    due_ns = None if frame.due_ns is None else frame.due_ns + by_ns
    sent_ns = None if frame.sent_ns is None else frame.sent_ns + by_ns
    return frame._replace(in_ns=frame.in_ns + by_ns, due_ns=due_ns, sent_ns=sent_ns)


def _entry(frame: Frame) -> tuple[int, str, str, int, bool]:
    """The order of the ledger on disk: by the time in, and a copy after its original."""
    return frame.in_ns, frame.link, frame.flow, frame.k, frame.copy
