"""A command line as text into words, as POSIX quoting has it; and the `$variables` in any text.

No shell runs, so what only a shell understands is refused by name instead of being passed on as a word.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

_SIGNS = ("&&", "||", "|", ">", ";", "`", "$(")  # anywhere outside quotes
_LONE = ("*", "<", "&", "<<", "<<<")  # as a word of their own
_ESCAPED_IN_QUOTES = '"\\`\n'


class CommandSyntax(ValueError):
    """`sign` is the shell's own sign that was found, "" for quoting that does not end."""

    def __init__(self, message: str, sign: str = "") -> None:
        self.sign = sign
        super().__init__(message)


def split(text: str) -> tuple[str, ...]:
    """Words by POSIX quoting (XCU 2.2). An escaped dollar becomes `$$` and so stays one. Raises CommandSyntax."""
    words: list[str] = []
    word: list[str] | None = None
    bare = True  # nothing of this word was quoted
    position = 0

    def finish() -> None:
        nonlocal word, bare
        if word is not None:
            made = "".join(word)
            if bare and made in _LONE:
                raise CommandSyntax(f"`{made}` is for a shell, and none runs here", made)
            words.append(made)
        word, bare = None, True

    while position < len(text):
        sign = text[position]
        if sign in " \t\n":
            finish()
            position += 1
            continue
        word = [] if word is None else word
        if sign == "'":
            end = text.find("'", position + 1)
            if end < 0:
                raise CommandSyntax("a ' has no end")
            word.append(text[position + 1 : end])
            bare, position = False, end + 1
        elif sign == '"':
            inner, position = _double_quoted(text, position + 1)
            word.append(inner)
            bare = False
        elif sign == "\\":
            if position + 1 == len(text):
                raise CommandSyntax("a \\ stands at the end")
            following = text[position + 1]
            word.append("" if following == "\n" else "$$" if following == "$" else following)
            bare, position = False, position + 2
        else:
            found = next((s for s in _SIGNS if text.startswith(s, position)), None)
            if found == "$(" and text[position - 1 : position] == "$":  # the dollar itself, written twice
                found = None
            if found:
                raise CommandSyntax(f"`{found}` is for a shell, and none runs here", found)
            word.append(sign)
            position += 1
    finish()
    return tuple(words)


def _double_quoted(text: str, position: int) -> tuple[str, int]:
    """What stands between double quotes, and the position after them."""
    inner: list[str] = []
    while position < len(text):
        sign = text[position]
        if sign == '"':
            return "".join(inner), position + 1
        if sign == "\\" and position + 1 < len(text) and text[position + 1] in _ESCAPED_IN_QUOTES + "$":
            following = text[position + 1]
            inner.append("" if following == "\n" else "$$" if following == "$" else following)
            position += 2
        else:
            inner.append(sign)
            position += 1
    raise CommandSyntax('a " has no end')


@dataclass(frozen=True)
class Variable:
    """`$name` or `$host.ip`, `$host.network.ip`: `parts` are the words between the points."""

    parts: tuple[str, ...]
    written: str


_WORD = r"[A-Za-z][A-Za-z0-9_-]*"
_VARIABLE = re.compile(
    rf"\$(?:(?P<dollar>\$)|(?P<bare>{_WORD}(?:\.[A-Za-z0-9_-]+)?\.ip[46]?(?![A-Za-z0-9_-])|{_WORD})|\{{(?P<braced>[^}}]*)(?P<end>\}}?))",
    re.ASCII,
)


def expand(text: str, value: Callable[[Variable], str]) -> str:
    """`text` with each variable replaced. `$$` is a dollar; a dollar not before a letter or { is itself."""

    def replaced(found: re.Match[str]) -> str:
        if found["dollar"]:
            return "$"
        return value(_variable(found))

    return str(_VARIABLE.sub(replaced, text))


def variables(text: str) -> list[Variable]:
    """Every variable in `text`, in order."""
    return [_variable(found) for found in _VARIABLE.finditer(text) if not found["dollar"]]


def _variable(found: re.Match[str]) -> Variable:
    name = found["bare"] if found["bare"] is not None else found["braced"]
    return Variable(tuple(name.split(".")), found[0])
