"""Fills the rows of docs/sockets.md: `python -m tests.docs.catalogue [RESULTS_DIR ...] [--kernel RESULTS_DIR]`.

Which scenarios it has, and what stands around them, is written by hand. A promise stands in one place, the `about`
of its scenario; what it came to is read from results. Without these, what the document has is kept. Results of
`TESTBED_RESULTS=DIR make test-kernel` go behind `--kernel`: they are of another kernel, and the document says so.
"""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from testbed.plan import Plan, plan
from testbed.scenario import load

ROOT = Path(__file__).resolve().parent.parent.parent
DOCUMENT = ROOT / "docs" / "sockets.md"
LONGEST_FIGURE = 110
ROW = re.compile(r"^\|(.*)\| \[([a-z0-9-]+)\]\(\.\./scenarios/\2\.yaml\) \|(.*)\|(.*)\|$", re.MULTILINE)
KERNEL = "user-mode Linux"
WHERE = ("namespaces", "docker", KERNEL)


@dataclass(frozen=True)
class Row:
    """One promise. `seen`: what the last run came to, by where that was. What is alike is written once."""

    scenario: str
    promise: str
    programs: str
    seen: dict[str, str]

    def __str__(self) -> str:
        cells = [self.promise, f"[{self.scenario}](../scenarios/{self.scenario}.yaml)", self.programs]
        where: dict[str, list[str]] = {}  # by what was seen
        for name in WHERE:
            if name in self.seen:
                where.setdefault(self.seen[name], []).append(name)
        seen = "<br>".join(f"{', '.join(names)}: {text}" for text, names in where.items())
        return "".join(f"| {cell} " for cell in [*cells, seen]) + "|"


def rows(text: str) -> list[Row]:
    """The rows of the document, as they are."""
    found = (tuple(cell.strip() for cell in match.groups()) for match in ROW.finditer(text))
    return [Row(name, promise, programs, _seen(cell)) for promise, name, programs, cell in found]


def _seen(cell: str) -> dict[str, str]:
    entries = (entry.partition(": ") for entry in cell.split("<br>"))
    return {name: text for names, _, text in entries for name in names.split(", ")}


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
    parser = argparse.ArgumentParser(description="Fill the rows of docs/sockets.md.")
    parser.add_argument("results", nargs="*", type=Path, metavar="RESULTS_DIR")
    parser.add_argument("--kernel", action="append", default=[], type=Path, metavar="RESULTS_DIR")
    arguments = parser.parse_args()
    text = DOCUMENT.read_text()
    seen = {row.scenario: dict(row.seen) for row in rows(text)}
    for directory in [*arguments.results, *arguments.kernel]:
        for verdicts in directory.glob("*/latest/verdicts.json"):
            engine = json.loads(verdicts.with_name("environment.json").read_text())["engine"]["name"]
            name = verdicts.parent.parent.name
            if name in seen:
                where = KERNEL if directory in arguments.kernel else engine
                seen[name][where] = in_words(json.loads(verdicts.read_text()))
    filled = {row.scenario: str(refreshed(replace(row, seen=seen[row.scenario]))) for row in rows(text)}
    DOCUMENT.write_text(ROW.sub(lambda match: filled[match[2]], text))


if __name__ == "__main__":
    main()
