"""The plan: a pure function of the scenario, the seed and the subnets that are taken. Same input, same bytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath

from testbed.errors import HostError, Problem, ScenarioError, counted
from testbed.plan import hosts, links, programs
from testbed.plan.types import Ends, Expectation, Link, Plan
from testbed.scenario.addresses import Addresses, allocate
from testbed.scenario.links import resolve
from testbed.scenario.model import Scenario
from testbed.scenario.order import start_order
from testbed.scenario.source import Hint, Text, mark_of
from testbed.scenario.topology import Topology, topology
from testbed.scenario.units import format_ns, format_packets
from testbed.scenario.variables import Scope


def build(scenario: Scenario, seed: int | None = None, taken: frozenset[str] = frozenset()) -> Plan:
    """Decide everything. `seed` replaces the scenario's; `taken` holds subnets, in CIDR form, that cannot be used.

    Raises HostError when what is taken leaves no room; a Scenario that was read has no other problem.
    """
    seed = scenario.seed if seed is None else seed
    there = topology(scenario)
    addresses = _addresses(there, taken)
    won = resolve(there, list(scenario.links), _impossible)
    order = start_order(there, _impossible)
    made_links = links.links(there, scenario, won)
    scopes = {name: Scope(there, addresses, member, seed) for name, member in there.hosts.items()}
    return Plan(
        scenario=str(scenario.name or PurePath(scenario.file).stem),
        about=str(scenario.about or ""),
        file=PurePath(scenario.file).name,
        tags=tuple(map(str, scenario.tags)),
        seed=seed,
        timeout_ns=scenario.timeout,
        duration_ns=scenario.duration,
        requires=tuple(map(str, scenario.requires)),
        networks=hosts.networks(there, addresses),
        hosts=hosts.hosts(there, addresses),
        groups={str(name): members for name, members in there.groups.items()},
        volumes=tuple(map(str, scenario.volumes)),
        programs=tuple(programs.program(one, scopes[one.id.partition(".")[0]]) for one in order),
        links=made_links,
        expectations=tuple(
            Expectation(str(one.that), str(one.because or ""), mark_of(one.that).line, _column(one.that))
            for one in scenario.expect
        ),
        ends=Ends(scenario.ends.outcome, str(scenario.ends.text)),  # type: ignore[arg-type]
        fails_when=tuple(map(str, scenario.fails_when)),
        notes=tuple(_notes(scenario, made_links)),
    )


def _column(text: str) -> int:
    """Where the text begins, so that offsets in it are columns; 0 where they are not."""
    return text.first_column if isinstance(text, Text) else 0


def _impossible(at: object, message: str, hint: Hint = "", code: str = "meaning") -> None:
    """What reading the file would have refused: the Scenario was made in some other way."""
    mark = mark_of(at)
    hint = hint if isinstance(hint, str) else hint()
    raise ScenarioError([Problem("", mark.line, mark.column, message, hint, code=code)])


def _addresses(there: Topology, taken: frozenset[str]) -> Addresses:
    def report(at: object, message: str, hint: Hint = "", code: str = "meaning") -> None:
        tried = f" ({counted(len(taken), 'subnet')} taken)" if taken else ""
        raise HostError(f"giving addresses: {message}{tried}{f': {hint}' if hint else ''}")

    return allocate(there, taken, report)


def _notes(scenario: Scenario, made: tuple[Link, ...]) -> Iterator[str]:
    for key, written in scenario.links.items():
        if written.jitter is not None and written.jitter.order == "free":
            bounded = written.jitter.distribution == "uniform"
            spread = f", packets up to {format_ns(2 * (written.jitter.of or 0))} apart" if bounded else ""
            yield f"{key}: jitter may reorder{spread}; with `order: kept` it does not"
        if links.has_default_queue(written):
            packets = sorted({one.condition.queue_packets or 0 for one in made if one.rule == str(key)})
            shown = " or ".join(map(format_packets, packets))
            yield f"{key}: no queue given, so {shown}: one round trip at that rate, at least 20"
