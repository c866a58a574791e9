"""A run as a person reads it in a terminal: text in, text out; who calls decides where it goes."""

from __future__ import annotations

import io
import shlex
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from testbed.conditions.condition import Condition
from testbed.measure.link_metrics import by_link
from testbed.measure.records import Judgement, ProgramRecord, Records
from testbed.plan.types import CONGESTION, Interface, Link, Plan
from testbed.scenario.units import format_ns, format_packets, format_rate, format_ratio, format_size

COLOR = {"pass": "green", "fail": "red", "error": "red", "inconclusive": "yellow", "skip": "cyan"}
MOST_LINKS = 60
OVERRIDES = "Routes override what a program sets by TCP_CONGESTION before it connects"
SIGN = {"pass": "✓", "fail": "✗", "error": "!", "inconclusive": "?", "skip": "-"}


def render(
    plan: Plan, records: Records, judgement: Judgement, engine: str, color: bool, width: int = 100, where: str = ""
) -> str:
    """Hosts, programs, conditions in force, verdicts, where the results are, and the outcome as the last line."""
    out = io.StringIO()
    console = Console(
        file=out, width=width, force_terminal=color, no_color=not color, highlight=False, markup=False, emoji=False
    )
    lasted = f"{(records.ended_ns - records.started_ns) / 1e9:.1f} s" if records.ended_ns else "not run"
    console.print(Text(plan.scenario, style="bold"), Text(plan.about))
    console.print(f"engine {engine}, seed {plan.seed}, {lasted}\n")
    console.print(_hosts(plan, records))
    for line in _congestion(records):
        console.print(line, soft_wrap=True)
    if plan.links:
        console.print(_links(plan, records))
    if judgement.verdicts:
        console.print(_verdicts(judgement))
    if where:
        console.print(f"results: {where}", soft_wrap=True)
    console.print(Text(outcome_line(judgement), style=f"bold {COLOR[judgement.outcome]}"), soft_wrap=True)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def outcome_line(judgement: Judgement) -> str:
    """ "pass: 6 verdicts" and the like: the outcome is the first word."""
    counts = ", ".join(f"{n} {outcome}" for outcome, n in judgement.counts.items())
    reason = " ".join(judgement.reason.split())
    return f"{judgement.outcome}: " + "; ".join(part for part in (reason, counts) if part)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _address(interface: Interface, named: bool) -> str:
    both = " ".join(filter(None, (interface.ip, interface.ip6)))
    return f"{both} ({interface.network})" if named else both


def _hosts(plan: Plan, records: Records) -> Table:
    table = _table("host", "address", "program", "ended", "after")
    for host in plan.hosts:
        addresses = ", ".join(_address(i, len(plan.networks) > 1) for i in host.interfaces)
        first = True
        for id in host.programs or ("",):
            name = host.name if first else ""
            address = addresses if first else ""
            first = False
            if not id:
                table.add_row(name, address, "(none)", "", "")
                continue
            program, record = plan.program(id), records.programs.get(id)
            command = shlex.join(program.argv) or f"what {host.image or host.build} serves"
            table.add_row(name, address, f"{program.kind} {command}", *_end(record))
    table.add_row()
    return table


def _congestion(records: Records) -> list[str]:
    """TCP's algorithm, and how it is in force, where that is not what everybody expects."""
    alike: dict[tuple[str, str, str], list[str]] = {}
    for host, seen in records.proof.start.get("hosts", {}).items():
        if one := seen.get("congestion"):
            alike.setdefault((one["in_force"], one["by"], one["inherited"]), []).append(host)
    if all(algorithm == CONGESTION and by != "routes" for algorithm, by, _ in alike):
        return []
    lines = []
    for (algorithm, by, inherited), hosts in alike.items():
        where = "every host" if len(alike) == 1 else ", ".join(hosts)
        how = "inherited" if by == "inherited" else f"by {by}, inherited was {inherited}"
        lines.append(f"TCP uses {algorithm} on {where}: {how}" + (f". {OVERRIDES}" if by == "routes" else ""))
    return [*lines, ""]


def _end(record: ProgramRecord | None) -> tuple[str, str]:
    if record is None or record.started_ns is None:
        return "not started", ""
    lasted = f"{(record.ended_ns - record.started_ns) / 1e9:.2f} s" if record.ended_ns else ""
    if record.never_ready:
        return "never ready", lasted
    return (f"stopped ({record.exit})" if record.stopped else f"{record.exit}"), lasted


def describe(condition: Condition) -> str:
    """A condition as the scenario file writes it."""
    c, words = condition, []
    if c.delay_ns:
        words.append(f"delay {format_ns(c.delay_ns)}")
    if c.jitter_ns:
        normal = " normal" if c.jitter_distribution == "normal" else ""
        kept = " order kept" if c.jitter_order == "kept" else ""
        words.append(f"jitter {format_ns(c.jitter_ns)}{normal}{kept}")
    for name, ratio in (("loss", c.loss_ratio), ("duplicate", c.duplicate_ratio)):
        if ratio:
            words.append(f"{name} {format_ratio(ratio)}")
    if c.reorder_ratio:
        words.append(f"reorder {format_ratio(c.reorder_ratio)} by {format_packets(c.reorder_by_packets)}")
    if c.rate_bit_s is not None:
        words.append(f"rate {format_rate(c.rate_bit_s)}")
    if c.queue_packets is not None:
        words.append(f"queue {format_packets(c.queue_packets)}")
    if c.queue_ns is not None:
        words.append(f"queue {format_ns(c.queue_ns)}")
    if c.queue_bytes is not None:
        words.append(f"queue {format_size(c.queue_bytes)}")
    return ", ".join(words) or "watched, unchanged"


def _links(plan: Plan, records: Records) -> Table:
    crossed = by_link(records.ledger, records.stopping_ns)
    sent = {id: sum(not f.copy for f in its.frames) for id, its in crossed.items()}
    dropped = {id: sum(not f.copy and f.cause is not None for f in its.frames) for id, its in crossed.items()}
    table = _table(
        "link", "condition in force" if _in_force(records) else "condition asked for", "frames", "dropped"
    )
    table.add_column("late p99", justify="right")
    reported = records.proof.end.get("links", {})
    for links in _rows(plan.links):
        late = [p99 for link in links if (p99 := reported.get(link.id, {}).get("lateness_p99_ns")) is not None]
        table.add_row(
            _name(plan, links),
            describe(links[0].condition),
            str(sum(sent.get(link.id, 0) for link in links)),
            str(sum(dropped.get(link.id, 0) for link in links)),
            f"{max(late) / 1e6:.2f} ms" if late else "",
        )
    table.add_row()
    return table


def _rows(links: Sequence[Link]) -> list[list[Link]]:
    """A row a link; of more than anybody reads, a row a condition, with their sums and the latest of them."""
    if len(links) <= MOST_LINKS:
        return [[link] for link in links]
    rows: dict[tuple[str, Condition], list[Link]] = {}
    for link in links:
        rows.setdefault((link.network, link.condition), []).append(link)
    return list(rows.values())


def _name(plan: Plan, links: Sequence[Link]) -> str:
    first = links[0]
    name = f"{first.source} -> {first.target}" + (f" over {first.network}" if len(plan.networks) > 1 else "")
    return name if len(links) == 1 else f"{name} and {len(links) - 1:,} more"


def _in_force(records: Records) -> bool:
    return records.complete and not any(outcome == "error" for outcome, _, _ in records.proof.problems)


def _verdicts(judgement: Judgement) -> Table:
    table = _table("", "verdict", "observed")
    for verdict in judgement.verdicts:
        sign = Text(f"{SIGN[verdict.outcome]} {verdict.outcome}", style=COLOR[verdict.outcome])
        because = f" (because {verdict.because})" if verdict.because and verdict.outcome != "pass" else ""
        table.add_row(sign, verdict.text, verdict.reason + because)
    table.add_row()
    return table
