"""Where YAML stumbles over a sign: comments of other languages, templates, tabs, escapes, quotes, commas.

Guesses, as in `slips`, which asks for them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence

from testbed.scenario.slip import PASTE, WORD, Complaint, Slip, line_before, outside_quotes
from testbed.scenario.source import Mark, quote

_COMMENT = re.compile(r"(\s*)(?://|/\*|--(?= ))(.*?)(?:\*/)?\s*")
_CONFLICT = re.compile(r"(?:<{7}|={7}|>{7})(?: .*)?")
_WIDE = re.compile(r"[\uff01-\uff5e]")
_KEY = rf"(?:{WORD}|{WORD} *<?-> *{WORD})"


def comments(lines: Sequence[str], complaint: Complaint, words: Mapping[str, bool]) -> Iterator[Slip]:
    """Lines that are a comment in another language."""
    found = {n: one for n, line in enumerate(lines, 1) if (one := _COMMENT.fullmatch(line))}
    if found:
        first, at = next(iter(found.items()))
        better = {number: f"{one[1]}# {one[2].strip()}".rstrip() for number, one in found.items()}
        yield Slip("yaml-comment", "a comment begins with #", Mark(first, at.end(1) + 1), better, PASTE)


def conflict(lines: Sequence[str], complaint: Complaint, words: Mapping[str, bool]) -> Iterator[Slip]:
    """What git leaves where two changes met: read as if the first side was kept."""
    signs = {number: line[0] for number, line in enumerate(lines, 1) if _CONFLICT.fullmatch(line)}
    if "<" in signs.values() and ">" in signs.values():
        better, dropped = {}, False
        for number in range(1, len(lines) + 1):
            dropped = {"=": True, ">": False, "<": False}.get(signs.get(number, ""), dropped)
            if number in signs or dropped:
                better[number] = ""
        hint = "leave out such lines, and one of the two sides between them"
        yield Slip("yaml-conflict", "a conflict that git left", Mark(next(iter(signs)), 1), better, hint)


def templates(lines: Sequence[str], complaint: Complaint, words: Mapping[str, bool]) -> Iterator[Slip]:
    """`{% if x %}`: nothing fills that in here."""
    found = {n: line for n, line in enumerate(lines, 1) if re.fullmatch(r"\s*\{%.*%\}\s*", line)}
    if found:
        first, line = next(iter(found.items()))
        at = Mark(first, line.index("{") + 1)
        hint = "write the file as it is meant, without such lines"
        yield Slip(
            "yaml-template", "`{%` is for a template, and nothing fills one in", at, dict.fromkeys(found, ""), hint
        )


def tabs(lines: Sequence[str], complaint: Complaint, words: Mapping[str, bool]) -> Iterator[Slip]:
    """A tab behind a colon, or where a line ends."""
    line = lines[complaint.at.line - 1] if complaint.at.line <= len(lines) else ""
    column = line.find("\t") + 1
    if column and line[: column - 1].strip():
        better = line.replace("\t", " ").rstrip()
        message = "a tab, where YAML takes spaces only"
        yield Slip(
            "yaml-tab", message, Mark(complaint.at.line, column), {complaint.at.line: better}, "with spaces:"
        )


def escapes(lines: Sequence[str], complaint: Complaint, words: Mapping[str, bool]) -> Iterator[Slip]:
    """`"\\d+"`: in double quotes a backslash begins one of YAML's own signs."""
    number, start = complaint.began.line, complaint.began.column
    line = lines[number - 1] if number <= len(lines) else ""
    found = re.match(r'"((?:[^"\\]|\\.)*)"', line[start - 1 :])
    if found:
        better = line[: start - 1] + quote(found[1].replace('\\"', '"')) + line[start - 1 + found.end() :]
        sign = line[complaint.at.column - 2 : complaint.at.column]
        message = f'`{sign}` is none of the signs that YAML knows in ""'
        hint = "in single quotes a \\ is itself:"
        at = Mark(complaint.at.line, complaint.at.column - 1)
        yield Slip("yaml-escape", message, at, {number: better}, hint)


def apostrophes(lines: Sequence[str], complaint: Complaint, words: Mapping[str, bool]) -> Iterator[Slip]:
    """`'A client's talk'`, and names in quotes on both sides of an arrow."""
    number = complaint.at.line
    line = lines[number - 1] if number <= len(lines) else ""
    if found := re.fullmatch(rf"(\s*(?:- +)?(?:{_KEY}: +)?)'(.+)'(\s*)", line):
        inner = re.sub("'+", "'", found[2])
        better = {number: f"{found[1]}{quote(inner)}{found[3]}"}
        yield Slip("yaml-quote", "a ' within '' stands twice", complaint.at, better, PASTE)
    if found := re.fullmatch(rf"(\s*)[\"']({WORD})[\"'] *(<?->) *[\"']({WORD})[\"']( *:.*)", line):
        at = Mark(number, found.end(1) + 1)
        better = {number: f"{found[1]}{found[2]} {found[3]} {found[4]}{found[5]}"}
        yield Slip("yaml-quote", "names stand without quotes", at, better, PASTE)


def comma_too_many(lines: Sequence[str], complaint: Complaint, words: Mapping[str, bool]) -> Iterator[Slip]:
    line = lines[complaint.at.line - 1] if complaint.at.line <= len(lines) else ""
    column = complaint.at.column
    if line[column - 1 : column] == ",":
        before = line[: column - 1].rstrip()
        gap = " " if before.endswith(",") and not before.endswith("{") else ""
        better = {complaint.at.line: before + gap + line[column:].lstrip(", ")}
        yield Slip("yaml-comma", "a comma with nothing before it", complaint.at, better, PASTE)


def comma_at_the_end(lines: Sequence[str], complaint: Complaint, words: Mapping[str, bool]) -> Iterator[Slip]:
    """In JSON, or in brackets over several lines: the line before goes on without one."""
    number = line_before(lines, complaint.at.line)
    line = lines[number - 1].rstrip() if number else ""
    if line and line[-1] not in ",{[:":
        message = "a comma is missing where this line ends"
        yield Slip("yaml-comma", message, Mark(number, len(line) + 1), {number: f"{line},"}, PASTE)


def wide(lines: Sequence[str], complaint: Complaint, words: Mapping[str, bool]) -> Iterator[Slip]:
    """`timeout： 30 s`: signs of the width of Chinese ones, which look much like those that are meant."""
    found = {
        n: line for n, line in enumerate(lines, 1) if any(True for c, s in outside_quotes(line) if _WIDE.match(s))
    }
    if found:
        first = next(iter(found))
        column = next(c for c, sign in outside_quotes(found[first]) if _WIDE.match(sign))
        sign = found[first][column - 1]
        better = {
            n: _WIDE.sub(lambda one: unicodedata.normalize("NFKC", one[0]), line) for n, line in found.items()
        }
        message = f"`{sign}` is U+{ord(sign):04X}, and no `{unicodedata.normalize('NFKC', sign)}`"
        yield Slip("yaml-sign", message, Mark(first, column), better, PASTE)


def merged(lines: Sequence[str], complaint: Complaint, words: Mapping[str, bool]) -> Iterator[Slip]:
    """`a -> b: <<: *slow`."""
    line = lines[complaint.at.line - 1] if complaint.at.line <= len(lines) else ""
    if found := re.fullmatch(r"(\s*\S.*?: +)<<: *(\*[\w-]+\s*)", line):
        at = Mark(complaint.at.line, found.end(1) + 1)
        message = "`<<` stands in a mapping; alone it is not needed"
        yield Slip("yaml-merge", message, at, {complaint.at.line: found[1] + found[2]}, PASTE)
