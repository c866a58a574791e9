"""Fills the rows of docs/sockets.md: `python -m tests.docs.catalogue [RESULTS_DIR ...]`.

Which scenarios it has, and what stands around them, is written by hand. A promise stands in one place, the `about`
of its scenario; what it came to is read from results. Without these, what the document has is kept.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from testbed.plan import Plan, plan
from testbed.scenario import load

ROOT = Path(__file__).resolve().parent.parent.parent
DOCUMENT = ROOT / "docs" / "sockets.md"
LONGEST_FIGURE = 110
ROW = re.compile(r"^\|(.*)\| \[([a-z0-9-]+)\]\(\.\./scenarios/\2\.yaml\) \|(.*)\|(.*)\|(.*)\|$", re.MULTILINE)


@dataclass(frozen=True)
class Row:
    """One promise. `seen`: what the last run on each engine came to."""

    scenario: str
    promise: str
    programs: str
    seen: dict[str, str]

    def __str__(self) -> str:
        cells = [self.promise, f"[{self.scenario}](../scenarios/{self.scenario}.yaml)", self.programs]
        return "".join(f"| {cell} " for cell in [*cells, self.seen["namespaces"], self.seen["docker"]]) + "|"


def rows(text: str) -> list[Row]:
    """The rows of the document, as they are."""
    found = (tuple(cell.strip() for cell in match.groups()) for match in ROW.finditer(text))
    return [
        Row(name, promise, programs, {"namespaces": namespaces, "docker": docker})
        for promise, name, programs, namespaces, docker in found
    ]


def refreshed(row: Row) -> Row:
    """The row with what its file says."""
    planned = planned_as(row.scenario)
    ours = {path.stem for path in (ROOT / "docs/programs").glob("*.md")}
    words = dict.fromkeys(Path(program.argv[0]).name for program in planned.programs)
    linked = ", ".join(f"[{word}](programs/{word}.md)" if word in ours else f"`{word}`" for word in words)
    return replace(row, promise=planned.about, programs=linked)


def planned_as(scenario: str) -> Plan:
    return plan(load(ROOT / "scenarios" / f"{scenario}.yaml"))


def in_words(judged: dict[str, Any]) -> str:
    """`pass, 6 of 6: ` and the most telling figure that the file itself asks for; a skip with its reason."""
    verdicts = judged["verdicts"]
    if judged["outcome"] == "skip":
        return _cell(f"skip: {re.sub(r' [(][^)]*[)]', '', judged['reason'])}")  # without this kernel's name
    passed = sum(verdict["outcome"] == "pass" for verdict in verdicts)
    written = [verdict for verdict in verdicts if not verdict["implied"]]
    figure = min(written, key=plainness)["reason"] if written else "smoke test"
    if len(figure) > LONGEST_FIGURE:
        figure = figure[:LONGEST_FIGURE].rsplit(" ", 1)[0] + " …"
    return _cell(f"{judged['outcome']}, {passed} of {len(verdicts)}: {figure}")


def plainness(verdict: dict[str, Any]) -> int:
    """0 for a test with statistics, then what was measured, what was compared, an error's name, and all else."""
    patterns = (r"% interval", r" is [0-9.,]+ (?:[mu]?s|[kMG]?bit/s)\b", "; ", r" is E[A-Z]{3,}")
    reason = verdict["reason"]
    return next((n for n, pattern in enumerate(patterns) if re.search(pattern, reason)), len(patterns))


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split())


def main() -> None:
    text = DOCUMENT.read_text()
    seen = {row.scenario: dict(row.seen) for row in rows(text)}
    for directory in map(Path, sys.argv[1:]):
        for verdicts in directory.glob("*/latest/verdicts.json"):
            engine = json.loads(verdicts.with_name("environment.json").read_text())["engine"]["name"]
            name = verdicts.parent.parent.name
            if name in seen:
                seen[name][engine] = in_words(json.loads(verdicts.read_text()))
    filled = {row.scenario: str(refreshed(replace(row, seen=seen[row.scenario]))) for row in rows(text)}
    DOCUMENT.write_text(ROW.sub(lambda match: filled[match[2]], text))


if __name__ == "__main__":
    main()
