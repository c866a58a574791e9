"""Every rule of the judge, shown by a run that it rejects, for that rule's own reason.

The good run passes. Each bad one differs from it in one thing, and where that thing is in the ledger, the wire's
counts are made to agree with it: what is left to reject it is the one rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from testbed.judge import judge
from testbed.measure.records import MEMORY_KILLS, Frame, Records
from testbed.plan.types import Expectation, Plan
from tests.judge.good_run import MS, counted, expecting, good_run, plan_of

Spoil = Callable[[Records], None]
TO = "sensor-1->collector over lan"  # delay 20 ms, loss 50 %
BACK = "collector->sensor-1 over lan"  # delay 20 ms, jitter 300 us, duplicate 10 %
SENSOR = "sensor-1.sensor"


def test_the_good_run_passes() -> None:
    judgement = judge(plan_of(), good_run())
    assert judgement.outcome == "pass", judgement
    assert [v.outcome for v in judgement.verdicts] == ["pass"] * 12
    assert judgement.reason == "all 12 verdicts hold"


# ---------------------------------------------------------------- tools


def frames(
    records: Records, link: str, copy: bool = False, cause: str | None = None
) -> Iterator[tuple[int, Frame]]:
    """(place in the ledger, frame) of those that are so."""
    for place, frame in enumerate(records.ledger):
        if (frame.link, frame.copy, frame.cause) == (link, copy, cause):
            yield place, frame


def replace_frame(place: int, **changes: object) -> Spoil:
    def spoil(records: Records) -> None:
        ledger = list(records.ledger)
        ledger[place] = ledger[place]._replace(**changes)
        set_ledger(records, ledger)

    return spoil


def set_ledger(records: Records, ledger: list[Frame]) -> None:
    """Put a ledger in place, and let the wire have counted just that."""
    records.ledger = ledger
    for link in records.proof.end["links"]:
        records.proof.end["links"][link] = counted([frame for frame in ledger if frame.link == link])


def first(link: str, copy: bool = False, cause: str | None = None, skip: int = 5) -> tuple[int, Frame]:
    """One frame of the good run, not among the first few."""
    found = list(frames(good_run(), link, copy, cause))
    return found[skip]


def drop(*places: int) -> Spoil:
    def spoil(records: Records) -> None:
        set_ledger(records, [frame for place, frame in enumerate(records.ledger) if place not in places])

    return spoil


def add(frame: Frame, after: int) -> Spoil:
    def spoil(records: Records) -> None:
        ledger = list(records.ledger)
        ledger.insert(after + 1, frame)
        set_ledger(records, ledger)

    return spoil


def swap(a: int, b: int) -> Spoil:
    def spoil(records: Records) -> None:
        ledger = list(records.ledger)
        ledger[a], ledger[b] = ledger[b], ledger[a]
        set_ledger(records, ledger)

    return spoil


def change(target: str, **changes: object) -> Spoil:
    """Change attributes: of a program's record, or of the records themselves ("")."""

    def spoil(records: Records) -> None:
        for name, value in changes.items():
            setattr(records.programs[target] if target else records, name, value)

    return spoil


def problem(outcome: str, who: str, text: str = "something is wrong") -> Spoil:
    return lambda records: records.proof.problems.append((outcome, who, text))


def forget(*path: str) -> Spoil:
    """Delete one key of the proof, or of another mapping of the records."""

    def spoil(records: Records) -> None:
        place = getattr(records.proof if path[0] in ("start", "end") else records, path[0])
        for key in path[1:-1]:
            place = place[key]
        del place[path[-1]]

    return spoil


def both(*spoils: Spoil) -> Spoil:
    def spoil(records: Records) -> None:
        for one in spoils:
            one(records)

    return spoil


def retell(record: str, old: str, new: str) -> Spoil:
    """Let a program have printed something else."""

    def spoil(records: Records) -> None:
        its = records.programs[record]
        assert old.encode() in its.stdout
        its.stdout = its.stdout.replace(old.encode(), new.encode())

    return spoil


def hold_another(link: str) -> Spoil:
    def spoil(records: Records) -> None:
        records.proof.start["conditions"]["links"][link] = {"delay_ns": 20 * MS}

    return spoil


def ended_holding_another(link: str) -> Spoil:
    def spoil(records: Records) -> None:
        records.proof.end["links"][link]["condition"] = {"delay_ns": 20 * MS}

    return spoil


def wire_died(records: Records) -> None:
    """The ledger and the proof of a run whose wire was killed: nothing was counted, and the agent says why."""
    records.ledger = []
    records.proof.end["links"].clear()
    records.proof.problems.append(("error", "", "the wire ended with status -9"))


AT, LOST = first(TO), first(TO, cause="loss")
SINGLE = next(pair for pair in frames(good_run(), BACK) if not any(
    frame.k == pair[1].k for _, frame in frames(good_run(), BACK, copy=True)))  # fmt: skip
COPY = first(BACK, copy=True)
NEIGHBOURS = [place for place, frame in enumerate(good_run().ledger) if frame.link == TO][10:12]

# ---------------------------------------------------------------- records and network that prove nothing

UNBELIEVABLE: dict[str, tuple[Spoil, str]] = {
    "nothing at all": (change("", programs={}, complete=False), "the records are empty"),
    "no end": (change("", complete=False), "not complete"),
    "another seed": (change("", seed=8), "of seed 8, and the plan is of seed 7"),
    "other dice": (change("", fate_version=2), "the records are of fate 2"),
    "a program is missing": (forget("programs", SENSOR), "sensor-1.sensor is not in the records"),
    "counters are missing": (forget("kernel", "sensor-2"), "counters of sensor-2 are not in the records"),
    "a link was never read back": (forget("start", "conditions", "links", TO), f"{TO} was not read back"),
    "a link was not as asked": (hold_another(TO), "read back {'delay_ns': 20000000}"),
    "a link changed on the way": (ended_holding_another(TO), "at the end the wire held {'delay_ns': 20000000}"),
    "no proof at the end": (forget("end", "links", TO), f"the proof at the end says nothing of {TO}"),
    "ledger empty": (change("", ledger=[]), f"the ledger of {TO} is cut off: 0 frames entered"),
    "ledger cut off": (
        lambda records: change("", ledger=records.ledger[:-30])(records),
        "is cut off: 226 frames entered, and the wire counted 240",
    ),
    "ledger longer than the wire's count": (
        lambda records: change("", ledger=[*records.ledger, records.ledger[-1]])(records),
        "is longer than it should be: 241 frames entered, and the wire counted 240",
    ),
    "a frame twice": (add(AT[1], AT[0]), f"number {AT[1].k} of udp *1>9000 is there twice"),
    "a frame missing in the middle": (drop(AT[0]), f"number {AT[1].k + 1} of udp *1>9000 follows on"),
    "frames out of order": (swap(*NEIGHBOURS), "stands behind one that came in later"),
    "numbers against time": (
        both(replace_frame(NEIGHBOURS[0], k=11), replace_frame(NEIGHBOURS[1], k=10)),
        "number 11 of udp *1>9000 came in before its predecessor",
    ),
    "a link that nobody planned": (
        replace_frame(AT[0], link="sensor-1->moon over lan"),
        "on sensor-1->moon over lan, a link that the plan does not have",
    ),
    "a frame passed that the dice lose": (
        replace_frame(LOST[0], cause=None, due_ns=LOST[1].in_ns + 20 * MS, sent_ns=LOST[1].in_ns + 20 * MS),
        "has the cause delivered, and the dice lose it",
    ),
    "a frame was lost that the dice let pass": (
        replace_frame(AT[0], cause="loss", due_ns=None, sent_ns=None),
        "has the cause loss, and the dice let it pass",
    ),
    "a cause that there is not": (
        replace_frame(AT[0], cause="tuesday", due_ns=None, sent_ns=None),
        "has the cause tuesday, which there is not",
    ),
    "a copy is missing": (drop(COPY[0]), "has no copy, and the dice one"),
    "a copy that was not asked for": (
        add(SINGLE[1]._replace(copy=True), SINGLE[0]),
        "has a copy, and the dice none",
    ),
    "two copies": (add(COPY[1], COPY[0]), "is there twice"),
    "a copy of nothing": (
        lambda records: add(records.ledger[-1]._replace(copy=True, k=999), len(records.ledger) - 1)(records),
        "the copy of number 999 of udp 9000>*1 has a copy and is not there itself",
    ),
    "due too early": (replace_frame(AT[0], due_ns=AT[1].in_ns + 19 * MS), "was due 1000000 ns before"),
    "due too late": (
        replace_frame(AT[0], due_ns=AT[1].in_ns + 21 * MS, sent_ns=AT[1].in_ns + 21 * MS),
        "was due 1000000 ns after its condition says",
    ),
    "left too early": (replace_frame(AT[0], sent_ns=AT[1].in_ns), "left 20000000 ns before it was due"),
    "dropped by a queue that there is not": (
        replace_frame(AT[0], cause="queue", due_ns=None, sent_ns=None),
        "dropped by a queue, and the link has none",
    ),
    "lost, and sent all the same": (
        replace_frame(LOST[0], due_ns=LOST[1].in_ns, sent_ns=LOST[1].in_ns),
        "was dropped and left",
    ),
    "delivered, and never sent": (replace_frame(AT[0], sent_ns=None), "no time to go with it"),
    "an error of our own": (change("", error="the agent died"), "the agent died"),
    "a condition was not in force": (problem("error", TO, "the filter is gone"), "the filter is gone"),
    "a problem of a kind that nobody knows": (problem("shrug", "", "odd"), "odd"),
}


@pytest.mark.parametrize("name", UNBELIEVABLE)
def test_what_cannot_be_believed_is_an_error_for_its_own_reason(name: str) -> None:
    spoil, reason = UNBELIEVABLE[name]
    records = good_run()
    spoil(records)
    judgement = judge(plan_of(), records)
    assert judgement.outcome == "error"
    assert reason in judgement.reason, judgement.reason


def test_a_wire_that_died_is_the_whole_reason() -> None:
    records = good_run()
    wire_died(records)
    judgement = judge(plan_of(), records)
    assert (judgement.outcome, judgement.reason) == ("error", "the wire ended with status -9")


@pytest.mark.parametrize("name", UNBELIEVABLE)
def test_nothing_that_cannot_be_believed_blames_a_program(name: str) -> None:
    """Also where a program did fail: `fail` is for a network that is proven."""
    records = good_run()
    UNBELIEVABLE[name][0](records)
    if SENSOR in records.programs:
        records.programs[SENSOR].exit = 1
    judgement = judge(plan_of(), records)
    assert judgement.outcome == "error"
    assert all(verdict.outcome != "fail" for verdict in judgement.verdicts)


# ---------------------------------------------------------------- frames that the wire itself lost


def unasked(link: str) -> Spoil:
    place, _ = first(link)
    return replace_frame(place, cause="unasked", due_ns=None, sent_ns=None)


ENDS = {"sensor.lost ==", "round_trip", "sum of", "kernel"}  # of programs and kernels at the ends of each link
WAY_THERE = {*ENDS, "->collector.loss_ratio"}
SHAKY: dict[str, tuple[Spoil, set[str]]] = {
    # what is wrong -> the expectations that it leaves undecided
    "unasked on a way there": (unasked(TO), WAY_THERE),
    "unasked on a way back": (unasked(BACK), ENDS),
    "a problem of a link": (problem("inconclusive", BACK), ENDS),
    "a problem of a host": (problem("inconclusive", "sensor-2"), WAY_THERE),
    "a problem of everything": (problem("inconclusive", ""), {*WAY_THERE, "watcher.level", "watcher.stdout"}),
}


@pytest.mark.parametrize("name", SHAKY)
def test_what_the_wire_lost_leaves_that_links_expectations_undecided(name: str) -> None:
    spoil, touched = SHAKY[name]
    records = good_run()
    spoil(records)
    judgement = judge(plan_of(), records)
    assert judgement.outcome == "inconclusive"
    for verdict in judgement.verdicts:
        expected = "inconclusive" if any(part in verdict.text for part in touched) else "pass"
        assert verdict.outcome == expected, verdict


@pytest.mark.parametrize("name", SHAKY)
def test_a_program_that_failed_on_a_link_that_lost_frames_is_not_blamed(name: str) -> None:
    records = good_run()
    SHAKY[name][0](records)
    for sensor in ("sensor-1.sensor", "sensor-2.sensor"):
        records.programs[sensor].exit = 1
    judgement = judge(plan_of(), records)
    at_fault = [v for v in judgement.verdicts if v.implied and v.outcome == "inconclusive"]
    assert at_fault, judgement


def test_a_run_whose_wire_lost_frames_does_not_pass_even_if_nobody_expected_anything_of_it() -> None:
    records = good_run()
    problem("inconclusive", BACK, "the ring was full")(records)
    judgement = judge(expecting("watcher.stdout contains quiet"), records)
    assert judgement.outcome == "inconclusive" and judgement.reason == "the ring was full"


# ---------------------------------------------------------------- programs that failed


def out_of_memory(host: str) -> Spoil:
    def spoil(records: Records) -> None:
        records.kernel[host][MEMORY_KILLS] = 1
        records.programs[SENSOR].exit = "SIGKILL"

    return spoil


GUILTY: dict[str, tuple[Spoil, str]] = {
    "status": (change(SENSOR, exit=3), "sensor-1.sensor ended with status 3"),
    "signal": (change(SENSOR, exit="SIGSEGV"), "sensor-1.sensor was ended by SIGSEGV"),
    "its last words": (change(SENSOR, exit=1, stderr=b"a\nno route\n\n"), "status 1; its last words: no route"),
    "timeout": (change(SENSOR, exit="timeout"), "did not end within its timeout of 10 s"),
    "flood": (change(SENSOR, exit="flood"), "sensor-1.sensor wrote more than 64 MiB to one of its outputs"),
    "memory": (
        out_of_memory("sensor-1"),
        "SIGKILL (sensor-1 took more than the 2 GiB of memory of a host, and the kernel ended 1 there)",
    ),
    "cut short": (change(SENSOR, exit="SIGTERM", stopped=True), "sensor-1.sensor was ended by SIGTERM"),
    "still there": (change(SENSOR, exit=None, stopped=True), "was still running when the run was stopped"),
    "server ended": (change("collector.collector", stopped=False), "status 0 after 1 s, before the run"),
    "server crashed": (
        change("collector.collector", stopped=False, exit="SIGABRT"),
        "was ended by SIGABRT after 1 s, before the run was over",
    ),
    "never ready": (
        change("collector.collector", ready_ns=None, never_ready="it was not ready within 10 s"),
        "collector.collector did not get ready: it was not ready within 10 s",
    ),
    "the run's own timeout": (change("", fail="not over within its timeout of 30 s"), "timeout of 30 s"),
    "died before it reported": (
        change(SENSOR, exit="SIGSEGV", stdout=b""),
        "sensor-1.sensor was ended by SIGSEGV before it reported `lost`",
    ),
    "killed after its grace, with nothing said": (
        change("collector.collector", exit="SIGKILL", stdout=b""),
        "collector.collector had to be killed, 5 s after SIGTERM, before it reported `received`",
    ),
    "one off the ledger": (
        retell(SENSOR, '"lost": 134', '"lost": 133'),
        "sensor-1.lost is 133; sensor-1->collector.dropped is 134",
    ),
    "faster than light": (retell(SENSOR, "40.1}", "39.9}"), "round_trip_delay.min is 39.9 ms, not >= 40 ms"),
    "too slow": (retell("watcher.watcher", "level 12", "level 13"), "watcher.level.max is 13 ms, not <= 12 ms"),
    "not a word of it": (retell("watcher.watcher", "all quiet", "all riot"), 'without "all quiet on watcher"'),
}  # fmt: skip


@pytest.mark.parametrize("name", GUILTY)
def test_a_program_that_failed_fails_for_its_own_reason(name: str) -> None:
    spoil, reason = GUILTY[name]
    records = good_run()
    spoil(records)
    judgement = judge(plan_of(), records)
    assert judgement.outcome == "fail"
    assert any(reason in v.reason for v in judgement.verdicts if v.outcome == "fail"), judgement


def test_a_server_that_we_stopped_may_end_by_that_signal() -> None:
    records = good_run()
    change("collector.collector", exit="SIGTERM")(records)
    assert judge(plan_of(), records).outcome == "pass"


def test_what_was_not_started_is_not_decided_and_says_what_kept_it() -> None:
    records = good_run()
    change("collector.collector", ready_ns=None, never_ready="it ended with 1 before it was ready", exit=1)(
        records
    )
    change(SENSOR, started_ns=None, ended_ns=None, exit=None, stdout=b"")(records)
    judgement = judge(plan_of(), records)
    assert judgement.outcome == "fail"
    of_sensor = [v for v in judgement.verdicts if v.text.startswith(SENSOR)]
    assert [(v.outcome, v.reason) for v in of_sensor] == [
        ("inconclusive", "sensor-1.sensor was never started: collector.collector did not get ready")
    ]
    assert not any(v.outcome == "fail" and "sensor.lost" in v.text for v in judgement.verdicts)


# ---------------------------------------------------------------- expectations that cannot be decided

LOSS, DELAY = "sensor->collector.loss_ratio", "sensor->collector.one_way_delay"
UNDECIDED: dict[str, tuple[str, str, str]] = {
    # what is shown -> expectation, outcome, reason
    "sample too small": (
        f"{LOSS} ~ 60 %",
        "inconclusive",
        "too few to tell 60 % from 80 % or 20 %: 279 are needed",
    ),
    "dice against ~": (f"{LOSS} ~ 85 %", "fail", "with 85 % it would be so far off once in"),
    "too few for p99": (
        "sensor.round_trip_delay.p99 < 1 s",
        "inconclusive",
        "needs 1,000 samples, and there are 106",
    ),
    "a program late by the wire": ("sensor.round_trip_delay.max < 40.15 ms", "inconclusive", "late by 100 us"),
    "a program later than the wire": ("sensor.round_trip_delay.max < 40.05 ms", "fail", "not < 40.05 ms"),
    "a link late by the wire": (f"{DELAY}.min < 20.01 ms", "inconclusive", "made it late by 50 us"),
    "a link later than the wire": (f"{DELAY}.min < 19.9 ms", "fail", "not < 19.9 ms"),
    "late by the machine": ("watcher.duration between 1 ms and 799.95 ms", "inconclusive", "late by 80 us"),
    "later than the machine": ("watcher.duration ~ 700 ms +- 1 ms", "fail", "is 800 ms, not 700 ms +- 1 ms"),
    "a lower bound, late": ("sensor.round_trip_delay.min >= 40.15 ms", "fail", "is 40.1 ms, not >= 40.15 ms"),
    "never reported": (
        "watcher.levle.max < 1 s",
        "error",
        "watcher never reported `levle`; it reported level; did you",
    ),
    "several samples": ("watcher.level < 1 s", "error", "watcher.level has 2 samples"),
    "dimensions": ("watcher.level.max < 12 B", "error", "a time and a size cannot be compared"),
    "a bare number": ("watcher.level.max < 12", "error", "a unit is missing, as in 20 ms"),
    "equal times": ("watcher.level.max == 12 ms", "error", "measured, so never equal"),
    "no such counter": ("watcher.kernel.UdpInDatagram == 0", "error", "did you mean `UdpInDatagrams`?"),
    "no counts": ("watcher.level.max ~ 10 %", "error", "~ needs a tolerance"),
    "not watched": ("sensor-1->sensor-2.sent == 0", "error", "was not watched in this plan"),
    "nonsense": ("watcher.level maximum 3", "error", "expected a test, found `maximum`"),
}


@pytest.mark.parametrize("name", UNDECIDED)
def test_an_expectation_that_is_not_met_says_why_in_its_own_way(name: str) -> None:
    """As in `testbed judge --with`: what a run recorded, against expectations that nobody checked before it."""
    text, outcome, reason = UNDECIDED[name]
    plan = replace(plan_of(), expectations=(Expectation(text, "", 1, 1),))
    judgement = judge(plan, good_run())
    assert judgement.outcome == outcome, judgement
    assert reason in judgement.verdicts[-1].reason, judgement.verdicts[-1].reason


def test_a_ratio_of_nothing_is_not_decided() -> None:
    records = good_run()
    set_ledger(records, [])
    judgement = judge(
        expecting("sensor->collector.loss_ratio ~ 50 %", "sensor->collector.loss_ratio < 60 %"), records
    )
    assert [v.outcome for v in judgement.verdicts[-2:]] == ["inconclusive", "inconclusive"]
    assert (
        "195 are needed" in judgement.verdicts[-2].reason and "ratio of nothing" in judgement.verdicts[-1].reason
    )


def test_a_program_that_cannot_do_this_here_skips_the_run() -> None:
    records = good_run()
    records.programs["watcher.watcher"].stdout = b'{"unsupported": "no SCTP here"}\n'
    judgement = judge(plan_of(), records)
    assert judgement.outcome == "skip" and "no SCTP here" in judgement.reason
    assert judgement.counts == {"pass": 9, "skip": 3}


def test_what_does_not_hold_of_others_is_no_skip_and_a_crash_is_still_a_failure() -> None:
    records = good_run()
    records.programs["watcher.watcher"].stdout = b'{"unsupported": "no SCTP here"}\n'
    assert judge(plan_of(), records).outcome == "skip"
    records.programs["watcher.watcher"].exit = "SIGSEGV"
    records.programs["watcher.watcher"].stopped = False
    assert judge(plan_of(), records).outcome == "fail", "a crash is no lack of support"
    records = good_run()
    records.programs["watcher.watcher"].stdout = b'{"unsupported": "no SCTP here"}\n'
    retell(SENSOR, '"lost": 134', '"lost": 133')(records)
    judgement = judge(plan_of(), records)
    assert judgement.outcome == "fail" and "1 of 2: sensor-1.lost is 133" in judgement.reason


def test_a_skip_of_the_whole_run_is_told() -> None:
    records = Records(skip="no Docker here")
    judgement = judge(plan_of(), records)
    assert (judgement.outcome, judgement.reason) == ("skip", "no Docker here")


def test_naming_the_exit_switches_off_what_is_implied_of_that_program() -> None:
    records = good_run()
    records.programs[SENSOR].exit = 3
    texts = [v.text for v in judge(expecting("sensor-1.exit == 3"), records).verdicts]
    assert SENSOR not in " ".join(texts) and any("sensor-2.sensor exits 0" in text for text in texts)
    assert judge(expecting("sensor-1.exit == 3"), records).outcome == "pass"
    assert judge(expecting("sensor-1.exit == 0 or SIGKILL"), records).outcome == "fail"
    both_off = judge(expecting("any sensor.exit == 3"), records)
    assert both_off.outcome == "pass" and "sensor-2.sensor exits" not in " ".join(
        v.text for v in both_off.verdicts
    )


# ---------------------------------------------------------------- a file that must not pass


def ending(outcome: str, text: str) -> Plan:
    return plan_of(more=f"\nends: {{{outcome}: {text!r}}}\n")


@pytest.mark.parametrize(
    ("plan", "spoil", "outcome", "reason"),
    [
        (ending("fail", "status 3"), change(SENSOR, exit=3), "pass", "ended as fail, as the file says"),
        (ending("fail", "status 4"), change(SENSOR, exit=3), "fail", "but the reason was"),
        (ending("fail", "status 3"), change("", error="status 3"), "error", "it ended as error: status 3"),
        (ending("fail", "status 3"), change(SENSOR, exit=0), "fail", "it ended as pass"),
        (ending("error", "agent died"), change("", error="the agent died"), "pass", "ended as error"),
        (
            ending("inconclusive", "ring"),
            problem("inconclusive", TO, "the ring was full"),
            "pass",
            "ended as inconc",
        ),
        (ending("fail", "status 3"), change("", skip="no Docker here"), "skip", "no Docker here"),
    ],
)
def test_a_file_that_must_not_pass_passes_only_as_it_says(
    plan: Plan, spoil: Spoil, outcome: str, reason: str
) -> None:
    records = good_run(plan)
    spoil(records)
    judgement = judge(plan, records)
    assert judgement.outcome == outcome and reason in judgement.reason


# ---------------------------------------------------------------- a judge that crashes


def test_a_crash_in_one_verdict_is_that_verdicts_error() -> None:
    records = good_run()
    records.programs["watcher.watcher"].stdout = None  # type: ignore[assignment]
    judgement = judge(plan_of(), records)
    assert judgement.outcome == "error"
    crashed = [v for v in judgement.verdicts if "judging this failed" in v.reason]
    assert {v.outcome for v in crashed} == {"error"} and all("watcher" in v.text for v in crashed)
    assert sum(v.outcome == "pass" for v in judgement.verdicts) == 12 - len(crashed)


def test_a_crash_of_the_judge_is_an_error_and_no_exception() -> None:
    records = good_run()
    records.ledger = None  # type: ignore[assignment]
    assert judge(plan_of(), records).reason.startswith("the judge itself failed")
