"""One guess of what a line was meant to be, and the little that all who guess need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from testbed.scenario.source import Mark

WORD = r"[A-Za-z_][\w-]*"
PASTE = "write"


class Complaint(NamedTuple):
    """What YAML said: its words, where it stumbled, and where that began which it was reading then."""

    text: str
    at: Mark
    began: Mark


class Slip(NamedTuple):
    """One guess. `lines` replaces lines by their numbers; the lowest one is shown, to paste."""

    code: str
    message: str
    at: Mark
    lines: dict[int, str]
    hint: str


def line_before(lines: Sequence[str], number: int) -> int:
    """The last line before this one that says something; 0 if there is none."""
    before = range(min(number - 1, len(lines)), 0, -1)
    return next((one for one in before if lines[one - 1].strip() and lines[one - 1].strip()[0] != "#"), 0)


def outside_quotes(line: str) -> Iterator[tuple[int, str]]:
    """(column, sign) of what stands outside quotes; of a quote that is not closed, its own place, at last."""
    column = 0
    while column < len(line):
        sign = line[column]
        if sign in "\"'" and not line[:column].rstrip()[-1:].isalnum():
            end = line.find(sign, column + 1)
            if end < 0:
                yield column + 1, sign
                return
            column = end
        elif sign == "#" and line[column - 1 : column] in ("", " "):
            return
        else:
            yield column + 1, sign
        column += 1
