"""What several runs came to together: one outcome, and one last line that says how many ran and why not all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from testbed.measure.records import SEVERITY, Outcome
from testbed.packages import without_install


@dataclass(frozen=True)
class Ended:
    """One run that came to its end. `row` is its line in the table, if that says more than its name."""

    name: str
    outcome: Outcome
    why: str = ""
    row: str = ""


def merged(outcomes: Iterable[Outcome]) -> Outcome:
    """The gravest of them. A skip is the least of all: a suite passes if all that ran did, and something ran."""
    found = set(outcomes)
    return next(outcome for outcome in SEVERITY if outcome in found or outcome == SEVERITY[-1])


def last_line(ended: Sequence[Ended], note: str = "") -> str:
    """The merged outcome, how many there are of each, `note`, and what was skipped, by reason."""
    if not ended:
        return "nothing was run"
    outcomes = [one.outcome for one in ended]
    parts = [", ".join(f"{n} {o}" for o in SEVERITY if (n := outcomes.count(o))), note, _skipped(ended)]
    return f"{merged(outcomes)}: {'; '.join(part for part in parts if part)}"


def _skipped(ended: Sequence[Ended]) -> str:
    skipped = [one for one in ended if one.outcome == "skip"]
    if not skipped or len(ended) == 1:
        return ""
    names: dict[str, list[str]] = {}  # by what is missing
    packages: set[str] = set()
    for one in skipped:
        why, wanted = without_install(one.why)
        names.setdefault(why, []).append(one.name)
        packages.update(wanted)
    whom = "; ".join(", ".join(who) + (f" ({why})" if why else "") for why, who in names.items())
    line = f"{len(ended) - len(skipped)} of {len(ended)} ran, skipped: {whom}"
    return f"{line}; to run them too: apt-get install {' '.join(sorted(packages))}" if packages else line
