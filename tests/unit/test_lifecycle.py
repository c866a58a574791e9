"""When programs start, get ready, are stopped: exact decisions, with time as a number."""

from __future__ import annotations

from dataclasses import replace

import pytest

from testbed.lifecycle import (
    LOOK_AT_LEAST_EVERY_NS,
    LOOK_EVERY_NS,
    RESTS_WITHIN_NS,
    SERVERS_PASS_ON,
    SERVERS_STAY_NS,
    UNSENT_AT_LEAST_NS,
    UNSENT_AT_MOST_NS,
    Action,
    Lifecycle,
    Look,
    Seen,
    Signal,
    Start,
)
from testbed.plan.types import Program, Ready

S = 1_000_000_000


def program(name: str, kind: str = "run", after: tuple[tuple[str, str], ...] = (), **more: object) -> Program:
    made = Program(
        id=f"h.{name}",
        name=name,
        host="h",
        kind=kind,  # type: ignore[arg-type]
        argv=(name,),
        after=tuple((f"h.{other}", event) for other, event in after),
        ready=Ready("auto", within_ns=10 * S),
        timeout_ns=60 * S,
        stdin=None,
        stdin_file=None,
        environment={},
        working_dir="/scenario",
        user=None,
        files=(),
        collect=(),
        metrics=(),
        stop_signal="TERM",
        stop_grace_ns=5 * S,
    )
    return replace(made, **more)  # type: ignore[arg-type]


def life(*programs: Program, timeout_s: int = 120, duration_s: float | None = None) -> Lifecycle:
    duration_ns = None if duration_s is None else int(duration_s * S)
    return Lifecycle(programs, start_ns=0, timeout_ns=timeout_s * S, duration_ns=duration_ns)


def step(run: Lifecycle, now_ns: int) -> list[Action]:
    """What is to be done where nothing is under way at the end, and every program at rest."""
    actions = run.step(now_ns)
    if Look(None) in actions:
        run.under_way(Seen(before_ns=1), now_ns)
        actions = [action for action in actions if action != Look(None)] + run.step(now_ns)
    return actions


def test_a_run_waits_for_the_serve_to_be_ready_and_the_serve_is_stopped_at_the_end() -> None:
    run = life(program("server", "serve"), program("client", after=(("server", "ready"),)))
    assert step(run, 0) == [Start("h.server")]
    run.started("h.server", 0)
    assert step(run, 1) == []
    run.ready("h.server", 2)
    assert step(run, 3) == [Start("h.client")]
    run.started("h.client", 3)
    run.ended("h.client", 0, 4)
    assert step(run, 5) == [Signal("h.server", "TERM")]
    assert step(run, 6) == [], "each action once"
    assert not run.over
    run.ended("h.server", 0, 7)
    assert run.over
    assert run.records["h.server"].stopped and not run.records["h.client"].stopped
    assert run.fail == ""


def test_a_serve_that_is_not_ready_in_time_blocks_what_waits_for_it() -> None:
    run = life(program("server", "serve"), program("client", after=(("server", "ready"),)))
    step(run, 0)
    run.started("h.server", 0)
    assert step(run, 10 * S) == []
    assert step(run, 10 * S + 1) == [Signal("h.server", "TERM")]
    assert run.records["h.server"].never_ready == "it was not ready within 10 s"
    assert run.blocked() == {"h.client": "h.server did not get ready"}


def test_a_serve_that_ends_before_it_is_ready_never_gets_ready() -> None:
    run = life(program("server", "serve"), program("client", after=(("server", "ready"),)))
    step(run, 0)
    run.started("h.server", 0)
    run.ended("h.server", 1, 5)
    step(run, 6)
    assert run.over and run.records["h.server"].never_ready == "it ended with 1 before it was ready"


def test_a_chain_of_blocked_programs_is_blocked_to_its_end() -> None:
    run = life(program("c", after=(("b", "ended"),)), program("b", after=(("a", "ended"),)), program("a"))
    assert step(run, 0) == [Start("h.a")]
    run.started("h.a", 0)
    run.ended("h.a", 3, 1)
    step(run, 2)
    assert run.blocked() == {"h.b": "h.a ended with 3", "h.c": "h.b did not start"}
    assert run.over


def test_a_run_beyond_its_timeout_gets_sigterm_then_sigkill_with_all_it_started() -> None:
    run = life(program("slow", timeout_ns=1 * S, stop_grace_ns=2 * S))
    step(run, 0)
    run.started("h.slow", 0)
    assert step(run, 1 * S) == []
    assert step(run, 1 * S + 1) == [Signal("h.slow", "TERM")]
    assert step(run, 2 * S) == []
    assert step(run, 3 * S + 2) == [Signal("h.slow", "KILL", tree=True)]
    run.ended("h.slow", "SIGKILL", 4 * S)
    step(run, 4 * S)
    assert run.over and run.records["h.slow"].exit == "timeout"


def test_a_run_that_heeds_sigterm_after_its_timeout_still_timed_out() -> None:
    run = life(program("slow", timeout_ns=1 * S))
    step(run, 0)
    run.started("h.slow", 0)
    step(run, 2 * S)
    run.ended("h.slow", 0, 3 * S)
    assert run.records["h.slow"].exit == "timeout"


def test_who_floods_its_output_is_killed_at_once_and_that_is_how_it_ended() -> None:
    run = life(program("loud", "serve"), program("client", after=(("loud", "ready"),)))
    step(run, 0)
    run.started("h.loud", 0)
    run.ready("h.loud", 1)
    step(run, 1)
    run.started("h.client", 1)
    run.flooded("h.loud")
    run.flooded("h.loud")
    assert step(run, 2) == [Signal("h.loud", "KILL", tree=True)]
    assert step(run, 3) == []
    run.ended("h.client", 0, 3)
    assert step(run, 4) == [], "it is not stopped again because the run is over"
    run.ended("h.loud", "SIGKILL", 5)
    assert (run.records["h.loud"].exit, run.records["h.loud"].stopped) == ("flood", False)


def test_who_flooded_and_ended_before_we_saw_it_has_flooded() -> None:
    run = life(program("quick"))
    step(run, 0)
    run.started("h.quick", 0)
    run.flooded("h.quick")
    run.ended("h.quick", 0, 1)
    assert step(run, 2) == []
    assert run.records["h.quick"].exit == "flood"


def test_the_whole_run_has_a_timeout_that_says_what_it_waited_for() -> None:
    run = life(program("endless", timeout_ns=999 * S), timeout_s=5)
    step(run, 0)
    run.started("h.endless", 0)
    assert step(run, 5 * S + 1) == [Signal("h.endless", "TERM")]
    assert run.fail == "the run was not over within its timeout of 5 s: h.endless"


def test_without_a_run_the_duration_ends_it() -> None:
    run = life(program("server", "serve"), duration_s=2)
    step(run, 0)
    run.started("h.server", 0)
    run.ready("h.server", 1)
    assert step(run, 2 * S - 1) == []
    assert step(run, 2 * S) == [Signal("h.server", "TERM")]


def test_a_duration_keeps_the_run_up_after_its_programs_ended() -> None:
    run = life(program("quick"), duration_s=2)
    step(run, 0)
    run.started("h.quick", 0)
    run.ended("h.quick", 0, 1)
    step(run, 1 * S)
    assert not run.over
    step(run, 2 * S)
    assert run.over


def test_a_serve_deaf_to_its_stop_signal_is_killed_after_the_grace_period() -> None:
    run = life(program("deaf", "serve", stop_signal="INT", stop_grace_ns=1 * S), duration_s=0)
    step(run, 0)
    run.started("h.deaf", 0)
    run.ready("h.deaf", 0)
    assert step(run, 1) == [Signal("h.deaf", "INT")]
    assert step(run, 1 * S + 2) == [Signal("h.deaf", "KILL", tree=True)]


@pytest.mark.parametrize(("event", "ready"), [("started", False), ("ready", True)])
def test_after_can_wait_for_the_start_alone(event: str, ready: bool) -> None:
    run = life(program("server", "serve"), program("client", after=(("server", event),)))
    step(run, 0)
    run.started("h.server", 0)
    assert (step(run, 1) == [Start("h.client")]) is not ready


def test_programs_without_dependencies_all_start_at_once() -> None:
    run = life(*(program(f"p{n}") for n in range(50)))
    assert step(run, 0) == [Start(f"h.p{n}") for n in range(50)]


def test_a_serve_that_died_before_it_was_stopped_was_not_stopped() -> None:
    run = life(program("server", "serve"), program("client", after=(("server", "ready"),)))
    step(run, 0)
    run.started("h.server", 0)
    run.ready("h.server", 1)
    step(run, 2)
    run.started("h.client", 2)
    run.ended("h.client", 0, 10)
    assert step(run, 20) == [Signal("h.server", "TERM")]
    run.ended("h.server", "SIGSEGV", 15)
    assert not run.records["h.server"].stopped, "it had crashed by itself; we had only not seen it yet"


def test_a_run_that_ended_in_time_but_was_seen_late_did_not_time_out() -> None:
    run = life(program("quick", timeout_ns=1 * S))
    step(run, 0)
    run.started("h.quick", 0)
    assert step(run, 1 * S + 5) == [Signal("h.quick", "TERM")]
    run.ended("h.quick", 0, 1 * S - 5)
    assert run.records["h.quick"].exit == 0


def test_a_run_that_is_over_is_not_late_by_being_looked_at_late() -> None:
    run = life(program("quick"), timeout_s=5)
    step(run, 0)
    run.started("h.quick", 0)
    run.ended("h.quick", 0, 4 * S)
    step(run, 5 * S + 1)
    assert run.over and run.fail == ""


# what is under way at the end


def ended(timeout_s: int = 120, forwarding: int = 0) -> Lifecycle:
    """Its server is ready, and its client has ended at 4."""
    programs = program("server", "serve"), program("client", after=(("server", "ready"),))
    run = Lifecycle(programs, start_ns=0, timeout_ns=timeout_s * S, forwarding=forwarding)
    run.step(0)
    run.started("h.server", 0)
    run.ready("h.server", 2)
    run.step(3)
    run.started("h.client", 3)
    run.ended("h.client", 0, 4)
    return run


def test_a_serve_is_stopped_once_what_was_under_way_has_left() -> None:
    run = ended()
    assert run.step(5) == [Look(None)], "what is there now"
    assert run.step(6) == [], "no second question before the answer"
    run.under_way(Seen(100, 7, 2 * S, left_in_ns=60 * S), now_ns=7)
    assert not run.stopping
    assert run.step(7 + 2 * S - 1) == [], "nothing can have changed"
    assert run.step(7 + 2 * S) == [Look(100)], "what was there then: what came in since is nobody's to wait for"
    run.under_way(Seen(100, 0, 0, left_in_ns=58 * S), now_ns=3 * S)
    assert run.step(3 * S + 1) == [Signal("h.server", "TERM")]
    assert run.stopping_ns == 3 * S
    run.ended("h.server", 0, 4 * S)
    assert run.over and run.fail == ""


def test_nothing_under_way_stops_it_at_once() -> None:
    run = ended()
    assert run.step(5) == [Look(None)]
    run.under_way(Seen(100, 0, 0, left_in_ns=3 * S), now_ns=6)
    assert run.step(7) == [Signal("h.server", "TERM")]


def test_what_is_late_is_looked_at_often_and_a_long_wait_now_and_then() -> None:
    run = ended()
    run.step(5)
    run.under_way(Seen(100, 1, 0, left_in_ns=3 * S), now_ns=10)
    assert (run.step(9 + LOOK_EVERY_NS), run.step(10 + LOOK_EVERY_NS)) == ([], [Look(100)])
    run.under_way(Seen(100, 1, 90 * S, left_in_ns=95 * S), now_ns=S)
    later_ns = S + LOOK_AT_LEAST_EVERY_NS
    assert (run.step(later_ns - 1), run.step(later_ns)) == ([], [Look(100)])


def test_a_wire_that_never_lets_it_go_is_not_waited_for() -> None:
    run = ended()
    run.step(5)
    run.under_way(Seen(100, 1, 0, left_in_ns=0), now_ns=9 * S)
    assert run.step(9 * S) == [Signal("h.server", "TERM")]


def test_the_time_that_links_take_is_not_the_runs() -> None:
    run = ended(timeout_s=5)
    run.step(5)
    run.under_way(Seen(100, 1, 60 * S, left_in_ns=63 * S), now_ns=6)
    assert run.step(50 * S) == [Look(100)]
    run.under_way(Seen(100, 0, 0, left_in_ns=13 * S), now_ns=50 * S)
    run.step(51 * S)
    assert run.stopping and run.fail == ""


def test_a_run_that_is_out_of_time_waits_for_nothing_under_way() -> None:
    run = Lifecycle([program("endless", timeout_ns=999 * S)], start_ns=0, timeout_ns=5 * S)
    run.step(0)
    run.started("h.endless", 0)
    assert run.step(5 * S + 1) == [Signal("h.endless", "TERM")]


def test_a_serve_that_dies_while_the_last_packets_are_under_way_has_not_lived_to_the_end() -> None:
    run = ended()
    run.step(5)
    run.under_way(Seen(100, 1, S, left_in_ns=4 * S), now_ns=6)
    run.ended("h.server", 1, 7)
    run.step(2 * S)
    run.under_way(Seen(100, 0, 0, left_in_ns=2 * S), now_ns=2 * S)
    assert run.step(2 * S + 1) == [] and run.over
    assert not run.records["h.server"].stopped


def test_a_serve_that_died_before_others_were_stopped_has_not_lived_to_the_end_though_it_is_told_later() -> None:
    run = ended()
    run.step(5)
    run.under_way(Seen(100), 6)
    run.gone("h.server", 7)
    assert run.step(8) == [Signal("h.server", "TERM")], "who knows what it has left behind"
    run.ended("h.server", 1, 2 * S)
    record = run.records["h.server"]
    assert run.over and not record.stopped and (record.exit, record.ended_ns) == (1, 7)


def test_a_run_that_was_gone_when_its_time_was_over_has_ended_in_time() -> None:
    run = Lifecycle([program("quick", timeout_ns=S)], start_ns=0, timeout_ns=9 * S)
    run.step(0)
    run.started("h.quick", 0)
    assert run.step(S + 1) == [Signal("h.quick", "TERM")]
    run.gone("h.quick", S + 2)
    run.ended("h.quick", 0, 2 * S)
    record = run.records["h.quick"]
    assert (record.exit, record.stopped, record.ended_ns) == (0, False, S + 2)


def test_what_a_kernel_still_has_to_send_is_waited_for_while_it_gets_less() -> None:
    run = ended()
    run.step(5)
    now_ns = 6
    for left in (300_000, 200_000, 100_000):
        run.under_way(Seen(100, unsent_bytes=left), now_ns)
        now_ns += UNSENT_AT_LEAST_NS
        assert run.step(now_ns) == [Look(100)], left
    run.under_way(Seen(100, unsent_bytes=0), now_ns)
    assert run.step(now_ns) == [Signal("h.server", "TERM")]


@pytest.mark.parametrize(
    ("stay_ns", "patience_ns"),
    [(0, UNSENT_AT_LEAST_NS), (2 * S, 4 * S), (3600 * S, UNSENT_AT_MOST_NS)],
)
def test_what_nobody_acknowledges_is_not_waited_for_for_ever(stay_ns: int, patience_ns: int) -> None:
    run = ended()
    run.step(5)
    stuck = Seen(100, unsent_bytes=1, stay_ns=stay_ns)
    run.under_way(stuck, 0)
    assert run.step(patience_ns) == [Look(100)]
    run.under_way(stuck, patience_ns)
    assert run.step(patience_ns + LOOK_EVERY_NS) == [Look(100)], "just not given up yet"
    run.under_way(stuck, patience_ns + LOOK_EVERY_NS)
    assert run.step(patience_ns + LOOK_EVERY_NS) == [Signal("h.server", "TERM")]


def test_what_a_host_forwards_has_its_time_on_the_next_link_too() -> None:
    run = ended(forwarding=1)
    run.step(5)
    run.under_way(Seen(100, 7, S, left_in_ns=60 * S, stay_ns=60 * S), S)
    assert run.step(2 * S) == [Look(100)]
    run.under_way(Seen(100), 2 * S)
    assert run.step(2 * S) == [Look(None)], "what the router has sent on meanwhile"
    run.under_way(Seen(200, 7, S, left_in_ns=60 * S, stay_ns=60 * S), 2 * S)
    assert run.step(3 * S) == [Look(200)]
    run.under_way(Seen(200, unread_bytes=9), 3 * S)
    assert run.step(4 * S) == [Look(200)], "and the server reads it"
    run.under_way(Seen(200), 4 * S)
    assert run.step(4 * S) == [Signal("h.server", "TERM")], "one host forwards, and so once"


def talk(run: Lifecycle, stay_ns: int) -> int:
    """How often what is under way is waited for, where that never ends."""
    run.step(5)
    for times in range(1, 9):
        run.under_way(Seen(100, 1, 0, left_in_ns=stay_ns, stay_ns=stay_ns), times * S)
        assert run.step(times * S + LOOK_EVERY_NS) == [Look(100)]
        run.under_way(Seen(100, stay_ns=stay_ns), times * S + LOOK_EVERY_NS)
        if run.step(times * S + LOOK_EVERY_NS) != [Look(None)]:
            assert run.stopping
            return times
    raise AssertionError("for ever")


@pytest.mark.parametrize(
    ("servers", "stay_ns", "times"),
    [(1, S, 1), (2, S, 2), (3, S, 3), (9, S, 1 + SERVERS_PASS_ON), (9, SERVERS_STAY_NS + 1, 1)],
)
def test_what_servers_may_have_to_pass_on_has_its_time_too(servers: int, stay_ns: int, times: int) -> None:
    """They may as well talk for ever, so only now and then, and on links that are not slow."""
    run = Lifecycle([program("server", "serve", id=f"h{n}.s", host=f"h{n}") for n in range(servers)], 0, 60 * S)
    run.step(0)
    for one in list(run.records):
        run.started(one, 0)
        run.ready(one, 1)
    assert talk(run, stay_ns) == times


@pytest.mark.parametrize("busy", [Seen(100, unread_bytes=1), Seen(100, running=True)])
def test_servers_read_what_came_last_and_have_a_second_to_come_to_rest(busy: Seen) -> None:
    run = ended()
    run.step(5)
    run.under_way(busy, S)
    assert run.step(S + LOOK_EVERY_NS) == [Look(100)]
    run.under_way(Seen(100), S + LOOK_EVERY_NS)
    assert run.step(S + LOOK_EVERY_NS) == [Signal("h.server", "TERM")]
    run = ended()
    run.step(5)
    run.under_way(busy, S)
    run.step(2 * S)
    run.under_way(busy, S + RESTS_WITHIN_NS + 1)
    assert run.stopping, "one that never rests, or never reads"
