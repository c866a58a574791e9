"""Where YAML stumbles: lines as they may have been meant, the likeliest first.

Guesses only. `repair` reads the whole file again with each, and says nothing of those that do not mend it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

import yaml

from testbed.scenario.source import Mark


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


_WORD = r"[A-Za-z_][\w-]*"
_START = r"(?P<before>\s*(?:- +)?)"
_SPACES = "\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
_ODD = re.compile(rf"^[ {_SPACES}]+|(?<=[:,{{\[])[ {_SPACES}]+|(?<=^-)[{_SPACES}]")
_PASTE = "write"


def guesses(lines: Sequence[str], complaint: Complaint, words: Mapping[str, bool]) -> Iterator[Slip]:
    """`words` are the keys of the format: what stands before a missing colon is sooner one of these.

    True for those that stand at the left of a file.
    """
    for makes, sign in _BY_SIGN:
        if sign in complaint.text:
            for make in makes:
                yield from make(lines, complaint, words)


def odd_spaces(lines: Sequence[str]) -> Slip | None:
    """Spaces that are none to YAML, where a line begins or behind a colon, comma or bracket."""
    found: dict[int, str] = {}
    first, column, begins, texts = 0, 0, 0, None
    for number, line in enumerate(lines, 1):
        for odd in _ODD.finditer(line):
            if set(odd[0]) == {" "}:
                continue
            texts = _texts("\n".join(lines)) if texts is None else texts
            if any(start <= begins + odd.start() < end for start, end in texts):
                continue
            better = found.get(number, line)
            found[number] = better[: odd.start()] + " " * len(odd[0]) + better[odd.end() :]
            if not first:
                first, column = number, next(i for i in range(*odd.span()) if line[i] in _SPACES) + 1
        begins += len(line) + 1
    if not found:
        return None
    code = ord(lines[first - 1][column - 1])
    message = f"a space that is none to YAML: U+{code:04X}, which editors and web pages put in"
    return Slip("yaml-space", message, Mark(first, column), found, "with plain spaces:")


def _texts(text: str) -> list[tuple[int, int]]:
    """Where texts in quotes, or of several lines, begin and end: what stands in them is the author's."""
    spans = []
    with suppress(yaml.YAMLError):  # as far as YAML gets
        for token in yaml.scan(text, yaml.SafeLoader):
            if isinstance(token, yaml.ScalarToken) and token.style is not None:
                spans.append((token.start_mark.index, token.end_mark.index))
    return spans


def _tabs(lines: Sequence[str], complaint: Complaint, words: Mapping[str, bool]) -> Iterator[Slip]:
    tabbed = {n: line for n, line in enumerate(lines, 1) if "\t" in line[: len(line) - len(line.lstrip())]}
    if not tabbed:
        return
    first = next(iter(tabbed))
    column = lines[first - 1].index("\t") + 1
    hint = "with spaces:" if len(tabbed) == 1 else "these lines with spaces:"
    for width in (4, 8, 2):
        better = {n: _indent(line).expandtabs(width) + line.lstrip() for n, line in tabbed.items()}
        yield Slip("yaml-tab", "a tab: YAML is indented with spaces", Mark(first, column), better, hint)


def _colons(lines: Sequence[str], complaint: Complaint, words: Mapping[str, bool]) -> Iterator[Slip]:
    """A key without its colon, or without the space behind it."""
    for number in dict.fromkeys((complaint.began.line, _line_before(lines, complaint.at.line), complaint.at.line)):
        line = lines[number - 1] if 0 < number <= len(lines) else ""
        if found := re.fullmatch(rf"{_START}(?P<word>{_WORD})(?P<sign>\s*=\s*|:)(?P<rest>\S.*)", line):
            what = (
                "a space must follow the colon" if found["sign"] == ":" else "a colon stands between key and value"
            )
        elif found := re.fullmatch(rf"{_START}(?P<word>{_WORD})(?P<rest>)", line.rstrip()):
            what = f"`{found['word']}` has no colon"
        elif found := re.fullmatch(rf"{_START}(?P<word>{_WORD})\s+(?P<rest>\S.*)", line):
            if found["word"] not in words:
                continue
            what = f"`{found['word']}` has no colon"
        else:
            continue
        better = f"{found['before']}{found['word']}:" + (f" {found['rest']}" if found["rest"] else "")
        column = found.end("word") + 1
        yield Slip("yaml-colon", what, Mark(number, column), {number: better}, _PASTE)


def _indents(lines: Sequence[str], complaint: Complaint, words: Mapping[str, bool]) -> Iterator[Slip]:
    """The line where YAML stumbles, or all from there on that are indented as far, moved below a line above."""
    line = lines[complaint.at.line - 1] if complaint.at.line <= len(lines) else ""
    mine = len(_indent(line))
    # Of each indent, the last line that has it.
    above = {
        len(_indent(one)): one for one in lines[: complaint.at.line - 1] if one.strip() and one.strip()[0] != "#"
    }
    word = re.match(rf"\s*({_WORD}):", line)
    left = bool(word and words.get(word[1], False))  # of two that are as near: a top key to the left, others below

    opens = line.rstrip().endswith(":")

    def likeliest(indent: int) -> tuple[int, bool, int]:
        """The nearest one. Of two as near: top keys to the left; below, what opens a block goes with its like."""
        if left and mine < 2:
            return abs(indent - mine), False, indent
        alike = indent > 0 and above[indent].rstrip().endswith(":") == opens
        return abs(indent - mine), not alike, -indent

    for other in sorted(above.keys() - {mine}, key=likeliest)[:4]:
        message = f"indented by {_spaces(mine)}, which fits no line above"
        at, hint = Mark(complaint.at.line, mine + 1), f"with {_spaces(other)}:"
        alone = {complaint.at.line: " " * other + line.lstrip()}
        yield Slip("yaml-indent", message, at, alone, hint)
        block = dict(alone)
        for number in range(complaint.at.line + 1, len(lines) + 1):
            text = lines[number - 1]
            if text.strip() and len(_indent(text)) < mine:
                break
            if text.strip():
                block[number] = " " * (len(_indent(text)) + other - mine) + text.lstrip()
        if len(block) > 1:
            yield Slip("yaml-indent", message, at, block, f"these lines {hint}")


def _commas(lines: Sequence[str], complaint: Complaint, words: Mapping[str, bool]) -> Iterator[Slip]:
    """In { }: a key of the format right behind another value."""
    line = lines[complaint.at.line - 1] if complaint.at.line <= len(lines) else ""
    found = re.fullmatch(
        rf"(?P<before>.*\S)(?P<gap>\s*[;|]\s*|\s+)(?P<word>{_WORD})", line[: complaint.at.column - 1]
    )
    if found and found["word"] in words:
        better = f"{found['before'].rstrip(';')}, {line[found.start('word') :]}"
        at = Mark(complaint.at.line, found.end("before") + 1)
        yield Slip("yaml-comma", f"a comma is missing before `{found['word']}`", at, {at.line: better}, _PASTE)


def _brackets(lines: Sequence[str], complaint: Complaint, words: Mapping[str, bool]) -> Iterator[Slip]:
    """One that closes what was not opened, and one that is not closed."""
    number, column = complaint.at.line, complaint.at.column
    line = lines[number - 1] if number <= len(lines) else ""
    sign = line[column - 1 : column]
    if sign in ("}", "]"):
        other = "]" if sign == "}" else "}"
        changed = {number: line[: column - 1] + other + line[column:]}
        yield Slip("yaml-bracket", f"`{sign}` closes what `{_OPENS[other]}` opened", complaint.at, changed, _PASTE)
        without = {number: line[: column - 1] + line[column:]}
        yield Slip("yaml-bracket", f"`{sign}` closes nothing", complaint.at, without, _PASTE)
    for place in dict.fromkeys((complaint.began.line, _line_before(lines, number))):
        text = lines[place - 1] if 0 < place <= len(lines) else ""
        opened = _open_brackets(text)
        if opened:
            at = complaint.began if place == complaint.began.line else Mark(place, opened[-1][0])
            code = re.search(r"\s+#\s.*$", text)
            end = code.start() if code else len(text.rstrip())
            better = text[:end] + "".join(_CLOSES[one] for _, one in reversed(opened)) + text[end:]
            yield Slip("yaml-bracket", f"`{opened[-1][1]}` is not closed", at, {place: better}, _PASTE)


def _quotes(lines: Sequence[str], complaint: Complaint, words: Mapping[str, bool]) -> Iterator[Slip]:
    """A quote that nothing closes, or that a later one closes which was meant to open."""
    for number in range(complaint.began.line, complaint.at.line + 1):
        line = lines[number - 1] if 0 < number <= len(lines) else ""
        opened = _open_quote(line)
        if not opened:
            continue
        sign = line[opened - 1]
        for end in dict.fromkeys((len(line.rstrip()), line.rfind("}"), line.rfind("]"), line.find(",", opened))):
            if end >= opened:
                better = {number: line[:end] + sign + line[end:]}
                yield Slip("yaml-quote", f"{sign} is not closed", Mark(number, opened), better, _PASTE)


def _percent(lines: Sequence[str], complaint: Complaint, words: Mapping[str, bool]) -> Iterator[Slip]:
    """`loss: %5`."""
    line, start = lines[complaint.at.line - 1], complaint.at.column - 1
    found = re.match(r"%\s*([0-9]+(?:\.[0-9]+)?)", line[start:])
    if found:
        better = f"{line[:start]}{found[1]} %{line[start + found.end() :]}"
        yield Slip(
            "unit",
            f"`{found[0]}` is no ratio: % stands behind its number",
            complaint.at,
            {complaint.at.line: better},
            _PASTE,
        )


def _fence(lines: Sequence[str], complaint: Complaint, words: Mapping[str, bool]) -> Iterator[Slip]:
    fences = {number: "" for number, line in enumerate(lines, 1) if line.startswith("```")}
    if fences:
        at = Mark(next(iter(fences)), 1)
        yield Slip("yaml-fence", "a fence of Markdown is no part of the file", at, fences, "leave out such lines")


def _second(lines: Sequence[str], complaint: Complaint, words: Mapping[str, bool]) -> Iterator[Slip]:
    """`---` at the end, as some write it."""
    if lines[complaint.at.line - 1].strip() == "---" and not any(map(str.strip, lines[complaint.at.line :])):
        yield Slip(
            "yaml-documents",
            "one file is one scenario",
            complaint.at,
            {complaint.at.line: ""},
            "leave out this line",
        )


_OPENS, _CLOSES = {"}": "{", "]": "["}, {"{": "}", "[": "]"}
_Make = Callable[[Sequence[str], Complaint, Mapping[str, bool]], Iterator[Slip]]
_BY_SIGN: tuple[tuple[tuple[_Make, ...], str], ...] = (
    ((_fence,), ""),
    ((_percent,), "'%'"),
    ((_tabs,), "'\\t'"),
    ((_second,), "single document"),
    ((_commas, _brackets), "parsing a flow"),
    ((_brackets,), "but found '}'"),
    ((_brackets,), "but found ']'"),
    ((_quotes,), "quoted scalar"),
    ((_quotes,), "but found '<scalar>'"),
    ((_colons,), "could not find expected ':'"),
    ((_colons, _indents), "mapping values are not allowed"),
    ((_colons, _indents), "<block mapping start>"),
    ((_colons, _indents), "<block sequence start>"),
    ((_indents,), "block sequence entries are not allowed"),
    ((_indents,), "expected <block end>"),
)


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]


def _spaces(number: int) -> str:
    return "1 space" if number == 1 else f"{number} spaces" if number else "no space"


def _line_before(lines: Sequence[str], number: int) -> int:
    """The last line before this one that says something; 0 if there is none."""
    before = range(min(number - 1, len(lines)), 0, -1)
    return next((one for one in before if lines[one - 1].strip() and lines[one - 1].strip()[0] != "#"), 0)


def _outside_quotes(line: str) -> Iterator[tuple[int, str]]:
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


def _open_quote(line: str) -> int:
    """The column of a quote that is not closed in its line; 0 if there is none."""
    last = next(reversed(list(_outside_quotes(line))), (0, ""))
    return last[0] if last[1] in ('"', "'") and last[1] else 0


def _open_brackets(line: str) -> list[tuple[int, str]]:
    """(column, sign) of those that the line opens and does not close."""
    opened: list[tuple[int, str]] = []
    for column, sign in _outside_quotes(line):
        if sign in _CLOSES:
            opened.append((column, sign))
        elif sign in _OPENS and opened and opened[-1][1] == _OPENS[sign]:
            opened.pop()
    return opened
