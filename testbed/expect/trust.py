"""May the records be believed? Whatever is missing, cut off, doubled or contradicts the plan is said in words.

The ledger is checked against three witnesses: its own order, the counts that the wire gave for the proof, and the
dice, which are thrown again here. A ledger that agrees with all of them is what the wire did; that the wire did
what was asked, and that nothing slipped past it, is the proof's part.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from testbed.conditions.bounds import longest_wait_ns, transmission_ns
from testbed.conditions.condition import Condition
from testbed.conditions.fate import FATE_VERSION, Draws, Stream
from testbed.conditions.shape import HOLD_NS, duplicated, held, jitter_ns, lost
from testbed.errors import counted as how_many
from testbed.measure.link_metrics import LinkFrames
from testbed.measure.records import Frame, Records
from testbed.plan.types import Link, Plan

CAUSES = ("loss", "queue", "unasked")


def distrust(plan: Plan, records: Records) -> list[str]:
    """Why these records allow no verdict; empty if they do."""
    return [*_incomplete(plan, records), *_unproven(plan, records), *ledger_disagrees(plan, records.ledger)]


def _incomplete(plan: Plan, records: Records) -> Iterator[str]:
    if not records.programs and plan.programs:
        yield "the records are empty: no program is in them"
    elif not records.complete:
        yield "the records are not complete: the run did not come to its end"
    if records.seed != plan.seed:
        yield f"the records are of seed {records.seed}, and the plan is of seed {plan.seed}"
    if records.fate_version != FATE_VERSION:
        yield (
            f"the records are of fate {records.fate_version}, and this version throws the dice of fate "
            f"{FATE_VERSION}: judge them with the version that made them"
        )
    for program in plan.programs:
        if records.programs and program.id not in records.programs:
            yield f"{program.id} is not in the records"
    if (stopping_ns := records.stopping_ns) is not None and not records.fail:
        for record in records.programs.values():
            if record.kind == "run" and (record.ended_ns or 0) > stopping_ns:
                yield f"servers were stopped before {record.id} had ended"
    outside = [f for f in records.ledger if not records.started_ns <= f.in_ns <= records.ended_ns]
    if outside:
        yield f"{how_many(len(outside), 'frame')} of the ledger came in before the run began or after it ended"
    for host in plan.hosts:
        if records.programs and host.name not in records.kernel:
            yield f"the kernel counters of {host.name} are not in the records"


def _unproven(plan: Plan, records: Records) -> Iterator[str]:
    """What was read back when the conditions came into force, and what the wire counted until the end."""
    in_force = records.proof.start.get("conditions", {}).get("links", {})
    counted = records.proof.end.get("links", {})
    problems = [] if counted else records.proof.problems
    why_not = [text for outcome, who, text in problems if outcome == "error" and not who]
    yield from why_not  # of nothing being counted: once, and not for each link
    frames: defaultdict[str, list[Frame]] = defaultdict(list)
    for frame in records.ledger:
        frames[frame.link].append(frame)
    for link in plan.links:
        asked, has = link.condition.to_json(), in_force.get(link.id)
        if has is None:
            yield f"{link.id} was not read back when the conditions came into force"
        elif _condition(has) != asked:
            yield f"{link.id}: asked {asked}, read back {_condition(has)}"
        if why_not:
            continue
        if link.id not in counted:
            yield f"the proof at the end says nothing of {link.id}"
        elif counted[link.id].get("condition", asked) != asked:
            yield f"{link.id}: asked {asked}, at the end the wire held {counted[link.id]['condition']}"
        else:
            yield from _miscounted(link.id, frames[link.id], counted[link.id])


def _condition(read_back: dict[str, object]) -> object:
    return read_back.get("condition", read_back)


def _miscounted(link_id: str, frames: list[Frame], counted: dict[str, int]) -> Iterator[str]:
    in_ledger = {
        "frames": sum(not frame.copy for frame in frames),
        "sent": sum(frame.cause is None for frame in frames),
        **{cause: sum(frame.cause == cause for frame in frames) for cause in CAUSES},
    }
    for what, n in in_ledger.items():
        if n != counted.get(what):
            cut = "cut off" if n < counted.get(what, 0) else "longer than it should be"
            word = {"frames": "entered", "sent": "left"}.get(what, f"ended by {what}")
            its = f"{how_many(n, 'frame')} {word}"
            yield f"the ledger of {link_id} is {cut}: {its}, and the wire counted {counted.get(what)}"
            return
    latest_ns = LinkFrames(frames).latest_ns
    if counted.get("lateness_max_ns", latest_ns) != latest_ns:
        late = f"the latest frame left {latest_ns} ns late, and the wire counted {counted['lateness_max_ns']} ns"
        yield f"the ledger of {link_id} was changed: {late}"


# ---------------------------------------------------------------- the ledger


def ledger_disagrees(plan: Plan, ledger: Iterable[Frame]) -> list[str]:
    """Where the ledger contradicts itself or the dice of its plan, one line for each link at most."""
    links = {link.id: link for link in [*plan.links, *_group_links(plan)]}
    frames: defaultdict[str, list[Frame]] = defaultdict(list)
    for frame in ledger:
        frames[frame.link].append(frame)
    found = []
    for link_id, its in frames.items():
        if link_id not in links:
            found.append(
                f"the ledger has {how_many(len(its), 'frame')} on {link_id}, a link that the plan does not have"
            )
            continue
        wrong = next(_wrong_in(plan.seed, links[link_id], its), None)
        if wrong:
            found.append(f"the ledger of {link_id} cannot be true: {wrong}")
    return found


def _group_links(plan: Plan) -> Iterator[Link]:
    """Links that nobody asked for and that are there all the same.

    As soon as one pair of a host on a network goes through the wire, its multicast and broadcast do, to every
    host on that network, also to those to which nothing was asked to happen: and to these nothing does.
    """
    asked = {link.id for link in plan.links}
    for source, network in sorted({(link.source, link.network) for link in plan.links}):
        for host in plan.hosts:
            link_id = f"{source}->{host.name} over {network}"
            if host.name != source and link_id not in asked and any(i.network == network for i in host.interfaces):
                yield Link(link_id, source, host.name, network, Condition(), "", 0)


def _wrong_in(seed: int, link: Link, frames: list[Frame]) -> Iterator[str]:
    yield from _out_of_order(frames)
    wait_ns = longest_wait_ns(link.condition, max(frame.size_bytes for frame in frames))
    flows: defaultdict[str, list[Frame]] = defaultdict(list)
    copies: dict[tuple[str, int], Frame] = {}
    for frame in frames:
        if not frame.copy:
            flows[frame.flow].append(frame)
        elif (frame.flow, frame.k) in copies:
            yield f"{_name(frame)} is there twice"
        else:
            copies[frame.flow, frame.k] = frame
    thrown: list[_Thrown] = []
    for flow, its in flows.items():
        its.sort(key=lambda frame: frame.k)
        yield from _misnumbered(its)
        dice = islice(iter(Stream(seed, link.id, flow)), len(its))
        for frame, draws in zip(its, dice, strict=True):
            copy = copies.pop((flow, frame.k), None) if copies else None
            yield from _against_dice(link, frame, copy, draws, wait_ns)
            if link.condition.jitter_order == "kept":
                thrown.append(_Thrown(frame, copy, draws))
    for copy in copies.values():
        yield f"{_name(copy)} has a copy and is not there itself"
    if link.condition.jitter_order == "kept":
        yield from _out_of_turn(link.condition, thrown, wait_ns)


def _out_of_order(frames: list[Frame]) -> Iterator[str]:
    """Records hold the ledger by the time in, a copy right behind its original."""
    in_ns = 0
    for frame in frames:
        if frame.in_ns < in_ns:
            yield f"{_name(frame)} stands behind one that came in later"
        in_ns = frame.in_ns


def _misnumbered(frames: list[Frame]) -> Iterator[str]:
    """Within a flow, every number from 0 on, each once, in the order of coming in."""
    in_ns = frames[0].in_ns
    for number, frame in enumerate(frames):
        if frame.k != number:
            behind = f"follows on number {number - 1}" if number else "is the first that is there"
            what = "is there twice" if frame.k < number else behind
            yield f"{_name(frame)} {what}"
        if frame.in_ns < in_ns:
            yield f"{_name(frame)} came in before its predecessor"
        in_ns = frame.in_ns


def _against_dice(
    link: Link, frame: Frame, copy: Frame | None, draws: Draws, wait_ns: int | None
) -> Iterator[str]:
    condition = link.condition
    if frame.cause not in (None, *CAUSES):
        yield f"{_name(frame)} has the cause {frame.cause}, which there is not"
    if frame.cause == "unasked" and frame.due_ns is None:
        return  # the wire lost it before any decision
    if lost(draws, condition) != (frame.cause == "loss"):
        drawn = "lose it" if lost(draws, condition) else "let it pass"
        yield f"{_name(frame)} has the cause {frame.cause or 'delivered'}, and the dice {drawn}"
    if duplicated(draws, condition) != (copy is not None):
        yield f"{_name(frame)} has {'a' if copy else 'no'} copy, and the dice {'none' if copy else 'one'}"
    yield from _untimely(link, frame, draws, wait_ns)
    if copy is not None:
        if copy.cause == "loss":
            yield f"{_name(copy)} was lost, and a copy is not drawn for again"
        if (copy.in_ns, copy.size_bytes) != (frame.in_ns, frame.size_bytes):
            yield f"{_name(copy)} came in at another time or with another size than its original"
        yield from _untimely(link, copy, draws, wait_ns)


def _untimely(link: Link, frame: Frame, draws: Draws, wait_ns: int | None) -> Iterator[str]:
    """Is it due when the condition says, and did it leave no earlier? `wait_ns`: the longest time in the queue."""
    condition = link.condition
    if frame.cause == "queue" and condition.rate_bit_s is None:
        yield f"{_name(frame)} was dropped by a queue, and the link has none"
    if frame.cause in ("loss", "queue"):
        if frame.due_ns is not None or frame.sent_ns is not None:
            yield f"{_name(frame)} was dropped and left"
        return
    if frame.due_ns is None or (frame.sent_ns is None) != (frame.cause == "unasked"):
        yield f"{_name(frame)} has the cause {frame.cause or 'delivered'} and no time to go with it"
        return
    earliest_ns = _earliest_ns(condition, frame, draws)
    if wait_ns is not None and held(draws, condition):
        wait_ns += HOLD_NS
    latest_ns = None if wait_ns is None else earliest_ns + wait_ns
    if frame.due_ns < earliest_ns:
        yield f"{_name(frame)} was due {earliest_ns - frame.due_ns} ns before its condition allows"
    if latest_ns is not None and frame.due_ns > latest_ns and condition.jitter_order != "kept":
        yield f"{_name(frame)} was due {frame.due_ns - latest_ns} ns after its condition says"
    if frame.sent_ns is not None and frame.sent_ns < frame.due_ns:
        yield f"{_name(frame)} left {frame.due_ns - frame.sent_ns} ns before it was due"


def _earliest_ns(condition: Condition, frame: Frame, draws: Draws) -> int:
    """When it would be due if it waited for nobody."""
    passing_ns = condition.delay_ns + jitter_ns(draws, condition) + transmission_ns(condition, frame.size_bytes)
    return frame.in_ns + passing_ns


# ---------------------------------------------------------------- where order is kept


class _Thrown(NamedTuple):
    frame: Frame
    copy: Frame | None
    draws: Draws


def _out_of_turn(condition: Condition, thrown: list[_Thrown], wait_ns: int | None) -> Iterator[str]:
    """Is nobody due before an earlier one, and later than by itself only as much as that one makes it?

    A held frame makes others wait until it would have been due without being held, of which the ledger says only
    within which bounds it was. Of those that came in within the same nanosecond, the order in which they are due
    is the order in which they came: nothing else is known of it.
    """
    lowest_ns, highest_ns = 0, 0  # within these the latest one so far was due, held or not
    sent_ns = 0

    def turn(one: _Thrown) -> tuple[int, int, bool, int]:
        frame, _, draws = one
        free = not held(draws, condition)
        due_ns = (frame.due_ns or 0) if free else _earliest_ns(condition, frame, draws)
        return frame.in_ns, due_ns, free, frame.sent_ns or 0

    for frame, copy, draws in sorted(thrown, key=turn):
        for one in (frame, copy):
            if one is None or one.due_ns is None:
                continue
            lowest_ns = max(lowest_ns, _earliest_ns(condition, one, draws))
            if wait_ns is not None:
                highest_ns = max(highest_ns, _earliest_ns(condition, one, draws) + wait_ns)
            hold_ns = HOLD_NS if held(draws, condition) else 0
            if one.due_ns < lowest_ns:
                yield f"{_name(one)} was due {lowest_ns - one.due_ns} ns before an earlier one"
            if wait_ns is not None and one.due_ns > highest_ns + hold_ns:
                yield f"{_name(one)} was due {one.due_ns - highest_ns - hold_ns} ns after its condition says"
            if hold_ns:
                continue
            lowest_ns = highest_ns = one.due_ns
            if one.sent_ns is not None and one.sent_ns < sent_ns:
                yield f"{_name(one)} left {sent_ns - one.sent_ns} ns before an earlier one"
            sent_ns = max(sent_ns, one.sent_ns or 0)


def _name(frame: Frame) -> str:
    return f"{'the copy of ' if frame.copy else ''}number {frame.k} of {frame.flow}"
