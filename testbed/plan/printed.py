"""A plan as text, as `testbed plan` prints it: aligned, stable, nothing left out that decides a run."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence

from testbed.conditions.condition import Condition
from testbed.plan.hosts import sysctls
from testbed.plan.types import Host, Plan, Program
from testbed.scenario.units import (
    format_ns,
    format_packets,
    format_rate,
    format_ratio,
    format_size,
)

CONGESTION_NOTES = (
    "inherited where that is right, else by sysctl, else by routes, and the results say which;",
    "routes override what a program sets by TCP_CONGESTION before it connects",
)


def render(plan: Plan) -> str:
    """The whole plan in sections. Ends with a newline."""
    sections = [
        list(_head(plan)),
        _titled("networks", _table(_networks(plan))),
        _titled("hosts", _table(_interfaces(plan))),
        _titled("differs from our own host", _table(_differences(plan))),
        _titled("congestion control of TCP", [*_table(_congestion(plan)), *CONGESTION_NOTES]),
        _titled("routes", _table(_routes(plan))),
        _titled("links", _table(_links(plan))),
        _titled("start order", _table(_programs(plan))),
        _titled("expectations", _table(_expectations(plan))),
        _titled("notes", plan.notes),
    ]
    return "\n\n".join("\n".join(section) for section in sections if section) + "\n"


def condition_text(condition: Condition) -> str:
    """`delay 20 ms, loss 10 %`; "watched" for one that changes nothing."""
    return ", ".join(_condition(condition)) or "watched, not changed"


def _condition(condition: Condition) -> Iterator[str]:
    if condition.delay_ns:
        yield f"delay {format_ns(condition.delay_ns)}"
    if condition.jitter_ns:
        normal = " normal" if condition.jitter_distribution == "normal" else ""
        kept = " order kept" if condition.jitter_order == "kept" else ""
        yield f"jitter {format_ns(condition.jitter_ns)}{normal}{kept}"
    if condition.loss_ratio:
        yield f"loss {format_ratio(condition.loss_ratio)}"
    if condition.duplicate_ratio:
        yield f"duplicate {format_ratio(condition.duplicate_ratio)}"
    if condition.reorder_ratio:
        by = format_packets(condition.reorder_by_packets)
        yield f"reorder {format_ratio(condition.reorder_ratio)} by {by}"
    if condition.rate_bit_s is not None:
        yield f"rate {format_rate(condition.rate_bit_s)}"
    if condition.queue_packets is not None:
        yield f"queue {format_packets(condition.queue_packets)}"
    if condition.queue_ns is not None:
        yield f"queue {format_ns(condition.queue_ns)}"
    if condition.queue_bytes is not None:
        yield f"queue {format_size(condition.queue_bytes)}"


def _head(plan: Plan) -> Iterator[str]:
    yield f"{plan.scenario}: {_flat(plan.about)}" if plan.about else plan.scenario
    facts = [f"seed {plan.seed}", f"timeout {format_ns(plan.timeout_ns)}"]
    if plan.duration_ns is not None:
        facts.append(f"duration {format_ns(plan.duration_ns)}")
    if plan.tags:
        facts.append(f"tags {' '.join(plan.tags)}")
    if plan.requires:
        facts.append(f"requires {' '.join(plan.requires)}")
    if plan.volumes:
        facts.append(f"volumes {' '.join(plan.volumes)}")
    yield ", ".join(facts)
    if plan.ends.outcome != "pass":
        yield f'must end as {plan.ends.outcome}: "{plan.ends.text}"'
    if plan.fails_when:
        yield f"must fail with: {'; '.join(plan.fails_when)}"


def _networks(plan: Plan) -> Iterator[Sequence[str]]:
    for network in plan.networks:
        count = sum(any(one.network == network.name for one in host.interfaces) for host in plan.hosts)
        hosts = "1 host" if count == 1 else f"{count} hosts"
        subnet = " ".join(filter(None, (network.subnet, network.subnet6)))
        gateway = " ".join(filter(None, (network.gateway, network.gateway6)))
        yield network.name, subnet, f"gateway {gateway}, shut", hosts


def _interfaces(plan: Plan) -> Iterator[Sequence[str]]:
    for host in plan.hosts:
        if not host.interfaces:
            yield (host.name,)
        for interface in host.interfaces:
            name = host.name if interface is host.interfaces[0] else ""
            ip = f"{interface.ip}/{interface.prefix_bits}"
            yield name, interface.name, interface.network, ip, interface.mac
            if interface.ip6:
                yield "", "", "", f"{interface.ip6}/{interface.prefix6_bits}"


def _differences(plan: Plan) -> Iterator[Sequence[str]]:
    for host in plan.hosts:
        what = list(_different(host))
        if what:
            yield host.name, "; ".join(what)


def _different(host: Host) -> Iterator[str]:
    if host.image is not None:
        yield f"image {host.image}"
    if host.build is not None:
        yield f"built from {host.build}"
    if host.capabilities:
        yield f"capabilities {' '.join(host.capabilities)}"
    usual = sysctls(host.interfaces)
    for name, value in host.sysctls.items():
        if usual.get(name) != value:
            yield f"{name}={value}"
    for volume, path in host.volumes:
        yield f"volume {volume} on {path}"
    for mount in host.mounts:
        yield f"{mount.source} on {mount.path}, read-only"


def _congestion(plan: Plan) -> Iterator[Sequence[str]]:
    by_algorithm: dict[str, list[str]] = {}
    for host in plan.hosts:
        by_algorithm.setdefault(host.congestion, []).append(host.name)
    for algorithm, names in by_algorithm.items():
        yield algorithm, _few(names)


def _routes(plan: Plan) -> Iterator[Sequence[str]]:
    """Hosts with the same kind of table share a line each: a hundred sensors have one."""
    tables: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for host in plan.hosts:
        tables.setdefault(tuple((route.to, route.dev) for route in host.routes), []).append(host.name)
    for table, names in tables.items():
        for number, (to, dev) in enumerate(table):
            yield to, dev, _few(names) if number == 0 else ""


def _links(plan: Plan) -> Iterator[Sequence[str]]:
    """Directions of one rule with one condition share a line."""
    alike: dict[tuple[int, str, Condition, tuple[str, ...]], list[str]] = {}
    for link in plan.links:
        alike.setdefault((link.line, link.rule, link.condition, link.overruled), []).append(link.id)
    for (line, rule, condition, overruled), ids in alike.items():
        where = (f"line {line}", rule) if rule else ("", "named in expect")
        lost = f"instead of {' and '.join(overruled)}" if overruled else ""
        yield *where, condition_text(condition), _few(ids, 3), lost
    if not plan.links:
        yield ("none: nothing is watched, nothing is changed",)


def _programs(plan: Plan) -> Iterator[Sequence[str]]:
    serves = {program.id for program in plan.programs if program.kind == "serve"}
    for number, program in enumerate(plan.programs, 1):
        venv = f"with {program.venv}" if program.venv else ""
        yield str(number), program.id, program.kind, _command(program), _after(program, serves), venv


def _command(program: Program) -> str:
    return shlex.join(program.argv).replace("\n", "\\n") or "what its image serves"


def _after(program: Program, serves: set[str]) -> str:
    waits = dict(program.after)
    if not waits:
        return "at once"
    if serves and waits == dict.fromkeys(serves, "ready"):
        return "when every serve is ready" if len(serves) > 1 else f"when {next(iter(serves))} is ready"
    words = {"ready": "is ready", "started": "is started", "ended": "has ended"}
    return "when " + _few([f"{one} {words[state]}" for one, state in program.after])


def _expectations(plan: Plan) -> Iterator[Sequence[str]]:
    for expectation in plan.expectations:
        because = f"because {_flat(expectation.because)}" if expectation.because else ""
        yield f"line {expectation.line}", _flat(expectation.text), because


def _flat(text: str) -> str:
    return " ".join(text.split())


def _few(names: Sequence[str], most: int = 6) -> str:
    """All of a short list; of a long one the beginning and the count."""
    if len(names) <= most:
        return ", ".join(names)
    return f"{', '.join(names[: most - 1])} and {len(names) - most + 1} more"


def _titled(title: str, lines: Iterable[str]) -> list[str]:
    body = [f"  {line}" for line in lines]
    return [title, *body] if body else []


def _table(rows: Iterable[Sequence[str]]) -> list[str]:
    """Columns wide enough for what is in them; no blanks at the ends of lines."""
    cells = [list(row) for row in rows]
    columns = max((len(row) for row in cells), default=0)
    widths = [max((len(row[i]) for row in cells if i < len(row)), default=0) for i in range(columns)]
    return ["  ".join(cell.ljust(widths[i]) for i, cell in enumerate(row)).rstrip() for row in cells]
