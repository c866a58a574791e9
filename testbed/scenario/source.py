"""The parts of a file that was read: text, mappings and lists that know where they stand, and the problems found.

No YAML and no meaning here: `tree` makes these out of YAML, `model` says what they mean.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple, Protocol

from testbed.errors import Problem


class Mark(NamedTuple):
    """Where something stands. Lines and columns from 1, `offset` in characters from 0. A file: its start."""

    line: int = 1
    column: int = 1
    offset: int = 0


NOWHERE = Mark()


class Text(str):
    """A scalar as written. Equal to any equal str; `style` is the sign that it stood behind: ' " | > or none."""

    mark: Mark
    end: Mark
    style: str
    cut_from: Mark | None  # a key that YAML made of what follows a comma in { }: where the value before it starts

    def __new__(cls, text: str, mark: Mark = NOWHERE, end: Mark = NOWHERE, style: str = "") -> Text:
        made = super().__new__(cls, text)
        made.mark, made.end, made.style, made.cut_from = mark, end, style, None
        return made

    @property
    def plain(self) -> bool:
        return not self.style

    @property
    def first_column(self) -> int:
        """Of the text itself, behind its quote; 0 where it begins in another line."""
        return 0 if self.style in ("|", ">") else self.mark.column + len(self.style)


class Nothing:
    """An empty value: `lan:`, `~` or `null`."""

    def __init__(self, mark: Mark = NOWHERE) -> None:
        self.mark = mark

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Nothing)

    def __hash__(self) -> int:
        return hash(Nothing)

    def __repr__(self) -> str:
        return "nothing"


class List(list["Value"]):
    def __init__(self, items: list[Value], mark: Mark = NOWHERE) -> None:
        super().__init__(items)
        self.mark = mark


class Map(dict[str, "Value"]):
    """A mapping in file order; `key(name)` is the key as it stands in the file."""

    def __init__(self, mark: Mark = NOWHERE) -> None:
        super().__init__()
        self.mark = mark
        self._keys: dict[str, Text] = {}

    def put(self, key: Text, value: Value) -> None:
        self[key] = value
        self._keys[key] = key

    def key(self, name: str) -> Text:
        return self._keys[name]

    def written(self) -> Iterator[tuple[Text, Value]]:
        for name, value in self.items():
            yield self._keys[name], value


Value = Text | Nothing | List | Map


def split_lines(text: str) -> list[str]:
    """Where YAML itself sees the end of a line (YAML 1.1, section 4.2)."""
    return re.split("\r\n|[\n\r\x85\u2028\u2029]", text)


Hint = str | Callable[[], str]  # what to write instead, or how to find that out if it takes long


class Report(Protocol):
    def __call__(self, at: object, message: str, hint: Hint = "", code: str = "meaning") -> None: ...


class Reading:
    """One file being read: its lines, and every problem found so far, each once."""

    def __init__(self, file: str, text: str = "") -> None:
        self.file, self.text = file, text.removeprefix("\ufeff")  # the mark that some editors begin a file with
        self.lines = split_lines(self.text)
        self.prefix = ""  # which saboteur is being looked at
        self.hosts_in_doubt = False  # some could not be read: who is there, and what they run, is not known
        self._problems: dict[Problem, None] = {}
        self._said: set[tuple[str, Mark, str, bool]] = set()

    @property
    def problems(self) -> list[Problem]:
        return sorted(self._problems)

    @property
    def is_hopeless(self) -> bool:
        """So many problems that looking for what was meant by each would take long and help nobody."""
        return len(self._problems) > 100

    def add(self, at: object, message: str, hint: Hint = "", warning: bool = False, code: str = "meaning") -> None:
        """`at` is a Mark or anything that has one; `code` is the kind of mistake, which stays as it is."""
        mark = at if isinstance(at, Mark) else mark_of(at)
        said = (self.prefix, mark, message, warning)
        if said in self._said:  # before the hint is looked for: each of a thousand members of a group may say so
            return
        self._said.add(said)
        if not isinstance(hint, str):
            hint = "" if self.is_hopeless else hint()
        plain = Problem(self.file, mark.line, mark.column, message, hint, warning, code)
        if plain not in self._problems:
            self._problems[replace(plain, message=self.prefix + message)] = None

    def told_of(self, at: object) -> bool:
        """Whether something was wrong already just there."""
        mark = mark_of(at)
        return any((one.line, one.column) == (mark.line, mark.column) for one in self._problems)

    def line(self, mark: Mark) -> str:
        return self.lines[mark.line - 1] if 0 < mark.line <= len(self.lines) else ""

    def quoted(self, start: Mark, end: Mark) -> str:
        """The line with the text from `start` to `end` in quotes, ready to paste; "" where it spans lines."""
        if not 0 < start.line <= len(self.lines) or start.line != end.line or start.offset >= end.offset:
            return ""
        line = self.line(start)
        first, last = start.column - 1, end.column - 1
        return line[:first] + quote(line[first:last]) + line[last:]


def mark_of(value: object) -> Mark:
    mark = getattr(value, "mark", NOWHERE)
    return mark if isinstance(mark, Mark) else NOWHERE


def quote(text: str) -> str:
    """As a single-quoted YAML scalar."""
    return "'" + text.strip().replace("'", "''") + "'"
