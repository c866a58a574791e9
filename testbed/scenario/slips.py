"""Where YAML stumbles: lines as they may have been meant, the likeliest first.

Guesses only. `repair` reads the whole file again with each, and says nothing of those that do not mend it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress

import yaml

from testbed.scenario import slips_signs
from testbed.scenario.slip import PASTE, WORD, Complaint, Slip, line_before, outside_quotes
from testbed.scenario.source import Mark, quote

_START = r"(?P<before>\s*(?:- +)?)"
_SPACES = "\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
_UNSEEN = re.compile("[\u00ad\u200b-\u200f\u2060-\u2064\ufeff]")
_ODD = re.compile(rf"^[ {_SPACES}]+|(?<=[:,{{\[])[ {_SPACES}]+|(?<=^-)[{_SPACES}]")


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


def unseen(lines: Sequence[str], words: Mapping[str, bool]) -> Slip | None:
    """Signs that take no room on a screen, within or before a key of the format: pages and chats put them in.

    In a text of the author's they are the author's: some languages and signs need them.
    """
    found: dict[int, str] = {}
    at = Mark()
    for number, line in enumerate(lines, 1):
        key = re.match(r"[ \t]*(?:- +)?([^\s:'\"{}\[\]]+):(?=\s|$)", line) if _UNSEEN.search(line) else None
        if key and _UNSEEN.search(key[1]) and _UNSEEN.sub("", key[1]) in words:
            at = at if found else Mark(number, next(_UNSEEN.finditer(line)).start() + 1)
            found[number] = _UNSEEN.sub("", line[: key.end()]) + line[key.end() :]
    if not found:
        return None
    message = f"a sign that is not seen: U+{ord(lines[at.line - 1][at.column - 1]):04X}"
    return Slip("yaml-space", message, at, found, "without it:")


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
    for number in dict.fromkeys((complaint.began.line, line_before(lines, complaint.at.line), complaint.at.line)):
        line = lines[number - 1] if 0 < number <= len(lines) else ""
        if found := re.fullmatch(rf"{_START}(?P<word>{WORD})(?P<sign>\s*=\s*|:)(?P<rest>\S.*)", line):
            what = (
                "a space must follow the colon" if found["sign"] == ":" else "a colon stands between key and value"
            )
        elif found := re.fullmatch(rf"{_START}(?P<word>{WORD})(?P<rest>)", line.rstrip()):
            what = f"`{found['word']}` has no colon"
        elif found := re.fullmatch(rf"{_START}(?P<word>{WORD})\s+(?P<rest>\S.*)", line):
            if found["word"] not in words:
                continue
            what = f"`{found['word']}` has no colon"
        else:
            continue
        better = f"{found['before']}{found['word']}:" + (f" {found['rest']}" if found["rest"] else "")
        column = found.end("word") + 1
        yield Slip("yaml-colon", what, Mark(number, column), {number: better}, PASTE)


def _indents(lines: Sequence[str], complaint: Complaint, words: Mapping[str, bool]) -> Iterator[Slip]:
    """The line where YAML stumbles, or all from there on that are indented as far, moved below a line above."""
    line = lines[complaint.at.line - 1] if complaint.at.line <= len(lines) else ""
    mine = len(_indent(line))
    # Of each indent, the last line that has it.
    above = {
        len(_indent(one)): one for one in lines[: complaint.at.line - 1] if one.strip() and one.strip()[0] != "#"
    }
    word = re.match(rf"\s*({WORD}):", line)
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


def _further_in(lines: Sequence[str], complaint: Complaint, words: Mapping[str, bool]) -> Iterator[Slip]:
    """The lines of a text behind `|` or `>`, which are not indented below it."""
    first = complaint.began.line
    opens = lines[line_before(lines, first) - 1] if 1 < first <= len(lines) else ""
    if not re.search(r":\s+[|>][+-]?\s*$", opens):
        return
    mine, least = len(_indent(lines[first - 1])), len(_indent(opens)) + 2
    block: dict[int, str] = {}
    for number in range(first, len(lines) + 1):
        line = lines[number - 1]
        if not line.strip() or len(_indent(line)) < mine or re.match(rf"\s*(?:- +)?{WORD}:(?:\s|$)", line):
            break
        block[number] = " " * (least - mine) + line
        message = "the lines of this text stand no further in than its key"
        hint = "with more spaces:" if len(block) == 1 else "these lines with more spaces:"
        yield Slip("yaml-indent", message, Mark(first, mine + 1), dict(block), hint)


def _goes_on(lines: Sequence[str], complaint: Complaint, words: Mapping[str, bool]) -> Iterator[Slip]:
    """A line that goes on with a value of the line before."""
    number = complaint.began.line
    before = lines[line_before(lines, number) - 1] if 1 < number <= len(lines) else ""
    if re.match(rf"\s*(?:- +)?{WORD}:\s+\S", before):
        line = lines[number - 1]
        indent = len(before) - len(before.lstrip(" -")) + 2
        at = Mark(number, len(_indent(line)) + 1)
        better = {number: " " * indent + line.lstrip()}
        message = "it has no colon; if it goes on with the line above, it stands further in"
        yield Slip("yaml-indent", message, at, better, "with more spaces:")


def _because(lines: Sequence[str], complaint: Complaint, words: Mapping[str, bool]) -> Iterator[Slip]:
    """`because:` below an expectation that is a text."""
    number = complaint.at.line
    line = lines[number - 1] if number <= len(lines) else ""
    above = line_before(lines, number)
    found = re.fullmatch(r"(\s*- +)(?!that:)(\S.*)", lines[above - 1]) if above else None
    if found and re.match(r"\s*because:", line):
        text = found[2] if ": " not in found[2] and found[2][0] not in "\"'" else quote(found[2])
        better = {above: f"{found[1]}that: {text}", number: " " * len(found[1]) + line.lstrip()}
        message = "an expectation with `because` has `that`, too"
        yield Slip("shape", message, Mark(number, len(_indent(line)) + 1), better, "these lines:")


def _commas(lines: Sequence[str], complaint: Complaint, words: Mapping[str, bool]) -> Iterator[Slip]:
    """In { }: a key of the format right behind another value."""
    line = lines[complaint.at.line - 1] if complaint.at.line <= len(lines) else ""
    found = re.fullmatch(
        rf"(?P<before>.*\S)(?P<gap>\s*[;|]\s*|\s+)(?P<word>{WORD})", line[: complaint.at.column - 1]
    )
    if found and found["word"] in words:
        better = f"{found['before'].rstrip(';')}, {line[found.start('word') :]}"
        at = Mark(complaint.at.line, found.end("before") + 1)
        yield Slip("yaml-comma", f"a comma is missing before `{found['word']}`", at, {at.line: better}, PASTE)


def _brackets(lines: Sequence[str], complaint: Complaint, words: Mapping[str, bool]) -> Iterator[Slip]:
    """One that closes what was not opened, and one that is not closed."""
    number, column = complaint.at.line, complaint.at.column
    line = lines[number - 1] if number <= len(lines) else ""
    sign = line[column - 1 : column]
    if sign in ("}", "]"):
        other = "]" if sign == "}" else "}"
        changed = {number: line[: column - 1] + other + line[column:]}
        yield Slip("yaml-bracket", f"`{sign}` closes what `{_OPENS[other]}` opened", complaint.at, changed, PASTE)
        without = {number: line[: column - 1] + line[column:]}
        yield Slip("yaml-bracket", f"`{sign}` closes nothing", complaint.at, without, PASTE)
    for place in dict.fromkeys((complaint.began.line, line_before(lines, number))):
        text = lines[place - 1] if 0 < place <= len(lines) else ""
        opened = _open_brackets(text)
        if opened:
            at = complaint.began if place == complaint.began.line else Mark(place, opened[-1][0])
            code = re.search(r"\s+#\s.*$", text)
            end = code.start() if code else len(text.rstrip())
            better = text[:end] + "".join(_CLOSES[one] for _, one in reversed(opened)) + text[end:]
            yield Slip("yaml-bracket", f"`{opened[-1][1]}` is not closed", at, {place: better}, PASTE)


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
                yield Slip("yaml-quote", f"{sign} is not closed", Mark(number, opened), better, PASTE)


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
            PASTE,
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
    ((_fence, slips_signs.conflict, slips_signs.comments), ""),
    ((_percent, slips_signs.templates), "'%'"),
    ((_tabs, slips_signs.tabs), "'\\t'"),
    ((slips_signs.escapes,), "escape character"),
    ((_further_in,), "could not find expected ':'"),
    ((_second,), "single document"),
    ((slips_signs.comma_too_many, _commas, _brackets, slips_signs.comma_at_the_end), "parsing a flow"),
    ((_brackets,), "but found '}'"),
    ((_brackets,), "but found ']'"),
    ((_quotes,), "quoted scalar"),
    ((slips_signs.apostrophes, _quotes), "but found '<scalar>'"),
    ((_colons, slips_signs.wide, _goes_on), "could not find expected ':'"),
    ((_because, slips_signs.merged, _colons, _indents), "mapping values are not allowed"),
    ((_colons, _indents), "<block mapping start>"),
    ((_colons, _indents), "<block sequence start>"),
    ((_indents,), "block sequence entries are not allowed"),
    ((_indents,), "expected <block end>"),
)


def _indent(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]


def _spaces(number: int) -> str:
    return "1 space" if number == 1 else f"{number} spaces" if number else "no space"


def _open_quote(line: str) -> int:
    """The column of a quote that is not closed in its line; 0 if there is none."""
    last = next(reversed(list(outside_quotes(line))), (0, ""))
    return last[0] if last[1] in ('"', "'") and last[1] else 0


def _open_brackets(line: str) -> list[tuple[int, str]]:
    """(column, sign) of those that the line opens and does not close."""
    opened: list[tuple[int, str]] = []
    for column, sign in outside_quotes(line):
        if sign in _CLOSES:
            opened.append((column, sign))
        elif sign in _OPENS and opened and opened[-1][1] == _OPENS[sign]:
            opened.pop()
    return opened
