"""YAML's own errors in words of ours, with the line as it was meant where that can be proven.

A repair is offered only after the whole file was read again with it: nothing is left to complain about, or only
further down. Reading then goes on with the repaired text, so that one slip hides no other problem.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import yaml

from testbed.scenario.source import NOWHERE, Mark, Reading, quote, split_lines

LARGEST_FILE = 256 * 1024  # characters; YAML is read in pure Python, so this is about a second
_MOST_REPAIRS = 20
_MOST_WORK = 2 * LARGEST_FILE  # characters read again in search of repairs


def mark(of: yaml.Mark | None) -> Mark:
    """A mark of PyYAML's, which counts from 0, as ours."""
    return NOWHERE if of is None else Mark(of.line + 1, of.column + 1, of.index)


class _Loader(yaml.SafeLoader):
    """Only ever used to compose: nothing is constructed from the nodes."""


def compose(reading: Reading) -> yaml.Node | None:
    """The node graph of `reading.text`, after as many repairs as it takes; None when that fails."""
    if len(reading.text) > LARGEST_FILE:
        reading.add(Mark(), f"the file is larger than {LARGEST_FILE // 1024} KiB")
        return None
    work = 0
    for _ in range(_MOST_REPAIRS):
        node, complaint = _compose(reading.text)
        if complaint is None:
            if node is None:
                reading.add(Mark(1, 1), "the file is empty", "a scenario begins with `testbed: 1`")
            return node
        better: str | None = None
        hint = _HINTS.get(complaint.kind, "")
        for number, line in _candidates(reading, complaint.at):
            work += len(reading.text)
            if work > _MOST_WORK:
                break
            text = "\n".join([*reading.lines[: number - 1], line, *reading.lines[number:]])
            _, left = _compose(text)
            if left is None or left.at.line > max(number, complaint.at.line):
                better, hint = text, f"YAML misread the line; quoted it is text:\n{line}"
                break
        reading.add(complaint.at, complaint.message, hint)
        if better is None:
            return None
        reading.text, reading.lines = better, split_lines(better)
    return None


class _Complaint:
    def __init__(self, message: str, at: Mark, kind: str = "") -> None:
        self.message, self.at, self.kind = message, at, kind


_HINTS = {
    "tab": "indent with spaces",
    "alias": "an anchor, &NAME, stands before its alias; a text that begins with * is quoted",
    "documents": "one file is one scenario",
    "token": "a text that begins with one of @ ` % & * ! | > [ ] { } stands in quotes",
}


def _compose(text: str) -> tuple[yaml.Node | None, _Complaint | None]:
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_node(), None
        finally:
            loader.dispose()
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        at = Mark(before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1, error.position)
        code = ord(error.character) if isinstance(error.character, str) else int(error.character)
        return None, _Complaint(f"the character U+{code:04X} is not allowed in YAML", at)
    except yaml.MarkedYAMLError as error:
        at_end = "<stream end>" in str(error.problem) and error.context_mark is not None
        at = mark(error.context_mark if at_end else error.problem_mark or error.context_mark)
        what = " ".join(part for part in (error.context, error.problem) if part)
        return None, _Complaint(f"not YAML: {what}", at, _kind(what))
    except yaml.YAMLError as error:
        return None, _Complaint(f"not YAML: {' '.join(str(error).split())[:200]}", Mark(1, 1))
    except RecursionError:
        return None, _Complaint("brackets are nested too deep", Mark(1, 1))
    except (ValueError, OverflowError):
        return None, _Complaint("not YAML: an escape names a character that does not exist", Mark(1, 1))


def _kind(what: str) -> str:
    signs = {"'\\t'": "tab", "alias": "alias", "single document": "documents", "cannot start any token": "token"}
    return next((kind for sign, kind in signs.items() if sign in what), "")


_FIRST = r"(?P<before>[{,]\s*[A-Za-z_][\w-]*:\s+)(?P<value>.*?)(?=\s*(?:,\s*[A-Za-z_][\w-]*:\s|"
_PAIR = re.compile(_FIRST + r"\}))")
_GREEDY = re.compile(_FIRST + r"\}\s*(?:#.*)?$))")
_BLOCK = re.compile(r"(?P<before>\s*(?:- +)*(?:[\w.-]+(?: *<?-> *[\w-]+(?: over [\w-]+)?)?:\s+|- +))(?P<value>.*)")
_ITEM = re.compile(r"(?P<before>\s*(?:- +)+)(?P<value>.*)")


def _candidates(reading: Reading, at: Mark) -> Iterator[tuple[int, str]]:
    """Lines at or just before the complaint, each with one value of it in quotes."""
    for number in (at.line, at.line - 1):
        if not 0 < number <= len(reading.lines):
            continue
        line = reading.lines[number - 1]
        if len(line) > 2000:
            continue
        for pattern in (_PAIR, _GREEDY):
            for found in pattern.finditer(line):
                yield from _quoted(number, line, found)
        for pattern in (_BLOCK, _ITEM):
            block = pattern.fullmatch(line)
            if block:
                yield from _quoted(number, line, block)


def _quoted(number: int, line: str, found: re.Match[str]) -> Iterator[tuple[int, str]]:
    value = found["value"].rstrip()
    start, end = found.start("value"), found.start("value") + len(value)
    whole = value[:1] == value[-1:] == '"' and value.count('"') == 2
    if not value or whole or value[0] in "'{[" or re.fullmatch(r"[*&][\w-]+", value):
        return
    comment = re.search(r"\s+#\s", value)
    if comment and value[: comment.start()].count('"') % 2 == 0 and value[: comment.start()].count("'") % 2 == 0:
        yield number, line[:start] + quote(value[: comment.start()]) + line[start + comment.start() :]
    yield number, line[:start] + quote(value) + line[end:]
