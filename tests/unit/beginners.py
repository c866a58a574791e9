"""Reads `beginners.txt`: files as a beginner breaks them, and what is said of each.

A case is the file at the top with some lines changed: `-` takes a line away, `+` puts one there. `@` is a problem
that is expected, with its place and its code; below it stands what to write: lines behind `|`, else words.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from testbed.errors import Problem

FILE = Path(__file__).with_suffix(".txt")


class Case(NamedTuple):
    name: str
    text: str
    expected: str


def cases() -> list[Case]:
    base, *parts = re.split(r"^=== ", FILE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    base = base.partition("\n\n")[2]
    return [_case(part, base.rstrip("\n") + "\n") for part in parts]


def _case(part: str, base: str) -> Case:
    name, *lines = part.rstrip("\n").split("\n")
    left = base.split("\n")
    changes = [line for line in lines if line[:1] in ("-", "+")]
    at = 0
    for change in changes:
        if change[0] == "-":
            at = left.index(change[1:], at)
            del left[at]
        else:
            left.insert(at, change[1:])
            at += 1
    expected = [line for line in lines if line[:1] in ("@", "|", "`")]
    assert len(changes) + len(expected) == len(lines), f"{name}: {lines}"
    return Case(name, "\n".join(left), "\n".join(expected))


def said(problems: list[Problem]) -> str:
    """What a golden case compares: code, place and what to write; no sentence."""
    lines = []
    for problem in problems:
        lines.append(f"@ {problem.line}:{problem.column} {'warning ' if problem.warning else ''}{problem.code}")
        first, *pasted = problem.hint.split("\n")
        words = re.findall(r"`[^`]+`", first)
        if pasted:
            lines += [f"|{line}" for line in pasted]
        elif words:
            lines.append(" ".join(words))
    return "\n".join(lines)
