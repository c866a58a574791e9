"""The order of a run, on the fake engine: whatever breaks, the outcome says so and nothing is left."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from testbed.engines import fake
from testbed.engines.fake import FakeEngine
from testbed.errors import EngineError
from testbed.judge import judge
from testbed.measure.records import Frame
from testbed.project.root import Project
from testbed.results import Results
from testbed.runner import Run, Runner, _shift, _shifted
from testbed.scenario import parse

GOOD = """
testbed: 1
about: A client hears from a server.
hosts:
  server: {serve: do serve 80}
  client: {run: do ask server 80, files: {/scenario/note: {text: hello}}, collect: [/scenario/note]}
expect:
  - client.stdout contains "server"
"""


class Bench:
    """A runner over one prepared fake engine, in a directory of its own."""

    def __init__(self, tmp_path: Path) -> None:
        self.tmp_path, self.said = tmp_path, list[str]()
        self.engine = FakeEngine()

    def run(self, text: str = GOOD, **options: object) -> Run:
        runner = Runner(
            lambda _: self.engine, "fake", "a test", self.tmp_path / "results", self.say, command_line=["testbed"]
        )
        for name, value in options.items():
            setattr(runner, name, value)
        return runner.run(parse(text, "bench.yaml"), text, Project.around(self.tmp_path))

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_good_run_passes_and_leaves_records_that_judge_the_same_again(bench: Bench) -> None:
    run = bench.run()
    assert run.judgement.outcome == "pass", run.judgement
    assert fake.ALL_LABS == []
    assert judge(*Results(run.results.path).load()) == run.judgement
    assert (run.results.path / "collected/client.client/scenario/note").read_bytes() == b"hello"
    assert json.loads((run.results.path / "verdicts.json").read_text())["outcome"] == "pass"
    assert "pass" in (run.results.path / "report.txt").read_text().splitlines()[-1]
    environment = json.loads((run.results.path / "environment.json").read_text())
    assert environment["engine"]["name"] == "fake" and environment["kernel"] and environment["libraries"]


def test_the_server_is_ready_before_the_client_starts(bench: Bench) -> None:
    bench.run()
    order = [line for line in bench.said if line.startswith(("server.", "client."))]
    assert [line.split(":")[0] for line in order] == [
        "server.server started",
        "server.server ready",
        "client.client started",
        "client.client ended",
        "server.server ended",
    ]


def test_a_question_may_take_its_time_and_its_answer_counts(bench: Bench) -> None:
    """As on Docker, where asking alone takes longer than the pause between two questions."""
    asking = "{serve: do sleep 60, ready: {answers: do sleep 0.3, within: 3 s}}"
    run = bench.run(GOOD.replace("{serve: do serve 80}", asking).replace("do ask server 80", "do print server"))
    assert run.judgement.outcome == "pass", run.judgement
    assert "server.server ready" in bench.said


def test_conditions_are_asked_for_before_any_program_and_proven_after_all(bench: Bench) -> None:
    bench.run()
    asked = bench.engine.requests
    assert asked.index("conditions") < asked.index("lookup") < asked.index("sockets") < asked.index("check")
    assert asked[-1] == "ledger"


@pytest.mark.parametrize("step", ["open", "up", "hosts", "conditions", "counters", "check", "ledger", "down"])
def test_whatever_breaks_is_an_error_with_its_reason_and_nothing_stays(bench: Bench, step: str) -> None:
    bench.engine.breaks = {step: f"{step} broke"}
    run = bench.run()
    assert run.judgement.outcome == "error"
    assert f"{step} broke" in run.judgement.reason
    assert fake.ALL_LABS == []
    assert judge(*Results(run.results.path).load()).outcome == "error"


def test_a_host_that_does_not_give_what_is_collected_takes_nothing_from_the_others(bench: Bench) -> None:
    class Shut(FakeEngine):
        def get(self, host: str, path: str) -> bytes:
            if host == "server":
                raise EngineError("the host is gone")
            return super().get(host, path)

    bench.engine = Shut()
    run = bench.run(GOOD.replace("do serve 80}", "do serve 80, collect: [/log]}"))
    assert run.judgement.outcome == "error"
    assert run.judgement.reason == "server.server collect: /log: the host is gone"
    assert [verdict.outcome for verdict in run.judgement.verdicts] == ["pass", "pass", "pass"]
    assert (run.results.path / "collected/client.client/scenario/note").read_bytes() == b"hello"
    assert judge(*Results(run.results.path).load()) == run.judgement


ANOTHER = "it requires {}, which the other machine does not have"


@pytest.mark.parametrize("word", ["ipv6", "sctp", "netem", "bbr", "cpus:1"])
def test_what_the_machine_of_the_hosts_lacks_is_a_skip_whatever_this_one_has(bench: Bench, word: str) -> None:
    """The daemon, and so the hosts, may be on another machine than the orchestrator."""
    bench.engine.lacks = {word: ANOTHER.format(word)}
    run = bench.run(GOOD.replace("about:", f"requires: ['{word}']\nabout:"))
    assert (run.judgement.outcome, run.judgement.reason) == ("skip", ANOTHER.format(word))
    assert bench.engine.requests == ["hello", "lacking"], "nothing is built for a skip"
    assert fake.ALL_LABS == [] and bench.engine.processes == {}


def test_what_this_machine_lacks_is_no_reason_if_that_of_the_hosts_has_it(bench: Bench) -> None:
    run = bench.run(GOOD.replace("about:", "requires: [sctp, netem, ipv6, bbr, 'cpus:999']\nabout:"))
    assert run.judgement.outcome == "pass", run.judgement
    assert "lacking" in bench.engine.requests


def test_a_dual_network_needs_ipv6_where_the_hosts_are(bench: Bench) -> None:
    bench.engine.lacks = {"ipv6": ANOTHER.format("ipv6")}
    run = bench.run(GOOD.replace("hosts:", "networks: {lan: {ip: dual}}\nhosts:"))
    assert run.judgement.outcome == "skip"
    assert run.judgement.reason == f"network lan has `ip: dual`: {ANOTHER.format('ipv6')}"


def test_who_requires_nothing_asks_nothing_and_what_needs_another_engine_opens_none(
    bench: Bench,
) -> None:
    bench.run()
    assert "lacking" not in bench.engine.requests
    bench.engine.requests.clear()
    run = bench.run(GOOD.replace("about:", "requires: [docker, sctp]\nabout:"), engine_name="namespaces")
    assert run.judgement.reason == "it requires the docker engine, and this is namespaces"
    assert bench.engine.requests == []


@pytest.mark.parametrize("step", ["open", "up", "hosts", "conditions"])
def test_nothing_runs_on_a_network_that_is_not_as_asked(bench: Bench, step: str) -> None:
    bench.engine.breaks = {step: "no"}
    bench.run()
    assert bench.engine.processes == {}


def test_a_failing_program_fails_the_run(bench: Bench) -> None:
    run = bench.run(GOOD.replace("do ask server 80", "do exit 3"))
    assert run.judgement.outcome == "fail"
    assert any("3" in v.reason for v in run.judgement.verdicts if v.outcome == "fail")


def test_a_server_that_never_gets_ready_fails_and_its_client_never_starts(bench: Bench) -> None:
    text = GOOD.replace("do serve 80", "do sleep 60").replace(
        "server: {serve", "server: {ready: {listens: 80, within: 100 ms}, serve"
    )
    run = bench.run(text)
    assert run.judgement.outcome == "fail"
    assert run.records.programs["client.client"].started_ns is None
    assert run.records.programs["server.server"].never_ready


def test_a_program_beyond_its_timeout_is_ended_and_says_timeout(bench: Bench) -> None:
    run = bench.run(GOOD.replace("do ask server 80", "do stubborn 60, timeout: 50 ms, stop_grace_period: 50 ms"))
    assert run.records.programs["client.client"].exit == "timeout"
    assert run.judgement.outcome == "fail"


def test_a_command_that_is_not_there_is_an_error_before_anything_runs(bench: Bench) -> None:
    run = bench.run(GOOD.replace("do ask server 80", "frobnicate"))
    assert run.judgement.outcome == "error" and "frobnicate" in run.judgement.reason
    assert bench.engine.processes == {}


def test_a_subnet_in_use_is_planned_around(bench: Bench) -> None:
    bench.engine = FakeEngine(taken=["198.18.0.0/24"])
    run = bench.run()
    assert run.judgement.outcome == "pass"
    assert run.plan.networks[0].subnet != "198.18.0.0/24"


def test_an_ipv6_subnet_in_use_is_planned_around_also_where_the_ipv4_one_is_the_files(bench: Bench) -> None:
    bench.engine = FakeEngine(taken=["2001:2::/64"])
    run = bench.run(GOOD + "networks: {lan: {subnet: 198.18.7.0/24, ip: dual}}\n")
    assert run.judgement.outcome == "pass"
    assert (run.plan.networks[0].subnet, run.plan.networks[0].subnet6) == ("198.18.7.0/24", "2001:2:0:1::/64")


def test_one_subnet_in_use_is_planned_around_where_another_is_the_files(bench: Bench) -> None:
    bench.engine = FakeEngine(taken=["198.18.0.0/24"])
    text = GOOD + "networks: {lan: , other: {subnet: 198.18.7.0/24}}\n"
    run = bench.run(
        text.replace("r: {serve", "r: {networks: [lan], serve").replace("t: {run", "t: {networks: [lan], run")
    )
    assert run.judgement.outcome == "pass", run.judgement
    assert [n.subnet for n in run.plan.networks] == ["198.18.1.0/24", "198.18.7.0/24"]


def test_a_subnet_that_the_file_asks_for_and_is_in_use_is_an_error(bench: Bench) -> None:
    bench.engine = FakeEngine(taken=["198.18.7.0/24"])
    run = bench.run(GOOD + "networks: {lan: {subnet: 198.18.7.0/24}}\n")
    assert run.judgement.outcome == "error" and "198.18.7.0/24" in run.judgement.reason


def test_a_link_that_leads_out_of_the_directory_is_not_followed(bench: Bench) -> None:
    (bench.tmp_path / "secret").symlink_to("/etc/hostname")
    run = bench.run(GOOD.replace("{/scenario/note: {text: hello}}", "[secret]"))
    assert run.judgement.outcome == "error" and "leads out" in run.judgement.reason


def test_a_requirement_that_is_missing_skips_and_is_an_error_when_strict(bench: Bench) -> None:
    text = GOOD + "requires: ['cpus:4096']\n"
    bench.engine.lacks = {"cpus:4096": "it requires 4096 processors, and 2 are there"}
    assert bench.run(text).judgement.outcome == "skip"
    strict = bench.run(text, strict=True)
    assert strict.judgement.outcome == "error" and "4096" in strict.judgement.reason


def interrupting(bench: Bench, at: str) -> Callable[[str], None]:
    def say(text: str) -> None:
        if at in text:
            raise KeyboardInterrupt

    return say


@pytest.mark.parametrize("at", ["up in", "server.server started", "client.client started", "client.client ended"])
def test_an_interruption_tears_down_saves_and_goes_on(bench: Bench, at: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        bench.run(say=interrupting(bench, at))
    assert fake.ALL_LABS == []
    _, records = Results((bench.tmp_path / "results/bench/latest").resolve()).load()
    assert not records.complete and "interrupted" in records.error


def test_a_defect_of_ours_is_an_error_with_its_traceback_on_disk(bench: Bench) -> None:
    def put(*_: object) -> None:
        raise ZeroDivisionError("a defect")

    bench.engine.put = put  # type: ignore[method-assign]
    run = bench.run()
    assert run.judgement.outcome == "error" and "ZeroDivisionError" in run.judgement.reason
    assert "a defect" in (run.results.path / "traceback.txt").read_text()
    assert fake.ALL_LABS == []


def test_keep_holds_while_the_hosts_are_up_and_lets_go_after(bench: Bench) -> None:
    seen = []

    def hold(run: Run, engine: FakeEngine) -> None:
        seen.append((run.judgement.outcome, engine.plan is not None, engine.entrance("client")))

    run = bench.run(hold=hold)
    assert seen == [("pass", True, "(a fake host cannot be entered: client)")]
    assert run.judgement.outcome == "pass" and fake.ALL_LABS == []


def test_a_failed_program_stays_a_failure_when_tearing_down_goes_wrong_and_both_are_told(bench: Bench) -> None:
    bench.engine.breaks = {"down": "a container stayed"}
    run = bench.run(GOOD.replace("do ask server 80", "do exit 3"))
    assert run.judgement.outcome == "fail"
    assert run.records.leftovers == "tearing down: a container stayed" and run.records.leftovers in bench.said
    _, loaded = Results(run.results.path).load()
    assert loaded.leftovers == run.records.leftovers


def test_an_error_stays_the_reason_and_what_could_not_be_torn_down_is_told_with_it(bench: Bench) -> None:
    bench.engine.breaks = {"check": "the wire died", "down": "a container stayed"}
    run = bench.run()
    assert run.judgement.outcome == "error"
    assert run.judgement.reason == "the wire died; tearing down: a container stayed"


def test_the_records_are_on_disk_before_anything_is_torn_down(bench: Bench) -> None:
    states = []
    whole = bench.engine.down

    def down() -> None:
        states.append(Results((bench.tmp_path / "results/bench/latest").resolve()).load()[1].complete)
        whole()

    bench.engine.down = down  # type: ignore[method-assign]
    bench.run()
    assert states == [True]


def test_the_conditions_last_as_long_as_the_hosts_are_kept(bench: Bench) -> None:
    closed = []

    def hold(run: Run, engine: FakeEngine) -> None:
        closed.append(engine.channel_closed)

    bench.run(hold=hold)
    assert closed == [False] and bench.engine.channel_closed


def test_what_a_program_cannot_do_here_is_an_error_when_strict(bench: Bench) -> None:
    text = GOOD.replace("do ask server 80", """[do, print, '{"unsupported": "no SCTP here"}']""").split("expect:")[
        0
    ]
    assert bench.run(text).judgement.outcome == "skip"
    bench.engine = FakeEngine()
    strict = bench.run(text, strict=True).judgement
    assert strict.outcome == "error" and "no SCTP here" in strict.reason


def test_a_ledger_of_another_clock_is_told_in_ours() -> None:
    frame = Frame(10, "a->b over lan", "udp *1>9", 0, 60, None, False, 20, 30)
    assert _shift(100, 150, 200) == 0, "one machine: the answer lies between question and receipt"
    by_ns = _shift(100, 1_000, 200)
    assert by_ns == -850 and _shifted(frame, 850)[:1] == (860,)
    assert _shifted(frame, 850).due_ns == 870 and _shifted(frame, 850).sent_ns == 880
    assert _shifted(frame._replace(due_ns=None, sent_ns=None), 5).due_ns is None


@pytest.mark.parametrize(("does", "hint"), [("serve 80", True), ("sleep 60", False)])
@pytest.mark.parametrize("whole", [False, True])
def test_a_run_that_had_to_be_stopped_while_it_listened_is_perhaps_meant_to_serve(
    bench: Bench, does: str, hint: bool, whole: bool
) -> None:
    """Its own timeout, or that of the whole run."""
    limit = "timeout: 300 ms" if whole else ""
    own = "" if whole else ", timeout: 300 ms"
    run = bench.run(f"testbed: 1\nabout: x\n{limit}\nhosts: {{server: {{run: do {does}{own}}}}}\n")
    assert run.judgement.outcome == "fail", run.judgement
    told = " ".join(verdict.reason for verdict in run.judgement.verdicts)
    assert ("it listened on tcp 80 to its end: did you mean `serve:`" in told) == hint, told
