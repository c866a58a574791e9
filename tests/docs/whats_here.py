"""Writes docs/whats-here.md from the first sentence of every module: `python -m tests.docs.whats_here`.

A sentence stands in one place, the module itself; a test compares the document with what this makes.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
DOCUMENT = ROOT / "docs" / "whats-here.md"

INTRODUCTION = """# What is where

One sentence a file, the first one of the file itself. Imports point one way, downwards in this list of rooms:
the command line, the runner and its helpers, the engines and the agent, the pure rooms, the errors. `make
lint` enforces it. The pure rooms decide and touch nothing; engines and agent act and never import each other;
what runs inside hosts imports nothing of ours.

A run goes through them like this: `scenario` reads the file, `plan` decides every address and start, an
engine brings hosts up, the agent sets each host's baseline and the conditions of its links and reads them
back, the supervisor starts and stops programs as the lifecycle says, the agent proves the conditions again,
`results` keeps the evidence, and the judge reads nothing but that evidence.

Outside `testbed/`: `scenarios/` are examples, documents and tests at once, and those in `scenarios/negative/`
must not pass; `compose/` has the node image; `tests/unit/` needs no root and no kernel, `tests/contract/`
holds every engine to one suite, `tests/system/` runs whole things, `tests/judge/` holds bad runs that must be
rejected, `tests/docs/` checks the documents, `tests/kernel/` boots another kernel for what this one may lack,
`tests/soak/` looks for what is rare; `benchmarks/` measures beside floors and peers;
`findings/` has a script for each surprise that other software had for us.
"""

ROOMS = {
    "": "The life of a run, and what everybody shares",
    "scenario": "scenario: what the author wrote (pure)",
    "project": "project: what the author has on disk",
    "plan": "plan: what will be built (pure)",
    "conditions": "conditions: what a link does to a packet (pure)",
    "measure": "measure: evidence, metrics, statistics (pure)",
    "expect": "expect: what must be true (pure)",
    "report": "report: results as text (pure)",
    "engines": "engines: where hosts come from",
    "engines/lab": "engines/lab: what runs inside a lab of bare namespaces",
    "agent": "agent: the hands on the kernel, and the wire",
    "programs": "programs: what runs inside hosts",
    "programs/ns": "programs/ns: the Network Systems protocols, in user space (packets and connection are pure)",
}


def render() -> str:
    """The whole document."""
    parts = [INTRODUCTION]
    for room, title in ROOMS.items():
        parts.append(f"\n## {title}\n")
        for path in sorted((ROOT / "testbed" / room).glob("*.py")):
            if path.stat().st_size:
                parts.append(f"- `{path.relative_to(ROOT)}`: {sentence(path)}")
    return "\n".join(parts) + "\n"


def sentence(path: Path) -> str:
    """The first sentence of a module. Raises ValueError if it has none."""
    text = " ".join((ast.get_docstring(ast.parse(path.read_text())) or "").split())
    first = re.split(r"(?<=[.?!]) (?=[A-Z`])", text)[0]
    if len(first) < 10:
        raise ValueError(f"{path} does not say what lives in it")
    return first


if __name__ == "__main__":
    DOCUMENT.write_text(render())
