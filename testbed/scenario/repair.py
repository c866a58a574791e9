"""YAML's own errors in words of ours, with the line as it was meant where that can be proven.

A repair is offered only after the whole file was read again with it: nothing is left to complain about, or only
further down. Reading then goes on with the repaired text, so that one slip hides no other problem.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType

import yaml

from testbed.scenario.slip import Complaint, Slip
from testbed.scenario.slips import guesses, odd_spaces, unseen
from testbed.scenario.source import NOWHERE, Mark, Reading, quote, split_lines

LARGEST_FILE = 256 * 1024  # characters; YAML is read in pure Python, so this is about a second
_MOST_REPAIRS = 20
_MOST_WORK = 2 * LARGEST_FILE  # characters read again in search of repairs


def mark(of: yaml.Mark | None) -> Mark:
    """A mark of PyYAML's, which counts from 0, as ours."""
    return NOWHERE if of is None else Mark(of.line + 1, of.column + 1, of.index)


class _Loader(yaml.SafeLoader):
    """Only ever used to compose: nothing is constructed from the nodes."""


def compose(reading: Reading, words: Mapping[str, bool] = MappingProxyType({})) -> yaml.Node | None:
    """The node graph of `reading.text`, after as many repairs as it takes; None when that fails.

    `words` are the keys of the format.
    """
    if len(reading.text) > LARGEST_FILE:
        reading.add(Mark(), f"the file is larger than {LARGEST_FILE // 1024} KiB", code="file")
        return None
    if (odd := unseen(reading.lines, words)) is not None:
        _mend(reading, odd)
    if (odd := odd_spaces(reading.lines)) is not None:
        _mend(reading, odd)
    work = 0
    for _ in range(_MOST_REPAIRS):
        node, complaint = _compose(reading.text)
        if complaint is None:
            if node is None:
                reading.add(Mark(1, 1), "the file is empty", f"a scenario begins so:\n{BEGINS}", code="file-empty")
            return node
        further: Slip | None = None  # mends this one, and there is another one further down
        for slip in _guesses(reading, complaint, words):
            work += len(reading.text)
            if work > _MOST_WORK:
                break
            _, left = _compose(_with(reading, slip))
            if left is None:
                further = slip
                break
            if further is None and left.at.line > max(*slip.lines, complaint.at.line):
                further = slip
        if further is None:
            code, message, hint = _in_our_words(complaint)
            # What has no colon is where it begins; YAML sees that at what comes next.
            at = complaint.began if "could not find expected ':'" in complaint.text else complaint.at
            reading.add(at, message, hint, code=code)
            return None
        _mend(reading, further)
    return None


BEGINS = (
    "testbed: 1\nabout: What my programs promise.\nhosts:\n  server: {serve: COMMAND}\n  client: {run: COMMAND}"
)


def _guesses(reading: Reading, complaint: Complaint, words: Mapping[str, bool]) -> Iterator[Slip]:
    """Lines that stumble at their own first colon, or that lack one, are sooner slips of the hand than texts."""
    code, message, _ = _in_our_words(complaint)
    if code == "yaml-bracket":
        code, message = "yaml-text", "a sign in this text is one of YAML's own"
    quotes = [
        Slip(code, message, complaint.at, {number: line}, _QUOTED)
        for number, line in _candidates(reading, complaint.at)
    ]
    line = reading.line(complaint.at)
    signs = ("parsing a flow", "but found '}'", "but found ']'", "'%'")
    first = ": " not in line[: complaint.at.column - 1] or any(sign in complaint.text for sign in signs)
    slips = list(guesses(reading.lines, complaint, words))
    plain = [slip for slip in slips if slip.code in _PLAIN]
    yield from [*slips, *quotes] if first else [*plain, *quotes, *slips]


# Nobody means these as a part of a text.
_PLAIN = frozenset("yaml-comment yaml-conflict yaml-escape yaml-merge yaml-sign yaml-tab yaml-template".split())
_QUOTED = "YAML misread the line; quoted it is text:"


def _with(reading: Reading, slip: Slip) -> str:
    return "\n".join(slip.lines.get(number, line) for number, line in enumerate(reading.lines, 1))


def _mend(reading: Reading, slip: Slip) -> None:
    """Say what was found, and go on with the text as it was meant."""
    shown = [slip.lines[number] for number in sorted(slip.lines)][: 1 if slip.hint[:5] != "these" else None]
    hint = "\n".join([slip.hint, *filter(str.strip, shown)])
    reading.add(slip.at, slip.message, hint, code=slip.code)
    reading.text = _with(reading, slip)
    reading.lines = split_lines(reading.text)


def _in_our_words(complaint: Complaint) -> tuple[str, str, str]:
    """(code, message, hint) for what could not be mended, or only be quoted."""
    for sign, code, message, hint in _WORDS:
        if sign in complaint.text:
            return code, message.replace("WHAT", _what(complaint.text)), hint
    return "yaml", complaint.text, ""


def _what(text: str) -> str:
    """What YAML found: `'%'` of "found character '%' that cannot start any token"."""
    found = re.findall(r"'([^']*)'", text)
    return found[-1] if found else text


_TOKEN = "a text that begins with one of @ ` % & * ! | > [ ] { } stands in quotes"
_WORDS = (
    ("'\\t'", "yaml-tab", "a tab: YAML is indented with spaces", "indent with spaces"),
    (
        "undefined alias",
        "yaml-alias",
        "`*WHAT` stands for nothing",
        "an anchor, &NAME, stands before its alias; a text that begins with * is quoted",
    ),
    ("scanning an alias", "yaml-token", "`*` begins no text", _TOKEN),
    ("single document", "yaml-documents", "a second document begins here", "one file is one scenario"),
    ("cannot start any token", "yaml-token", "`WHAT` begins no text", _TOKEN),
    ("mapping keys are not allowed", "yaml-token", "`?` begins no text", _TOKEN),
    (
        "mapping values are not allowed",
        "yaml-colon",
        "a second `: ` in one line: YAML takes what stands before it for a key",
        "a text with `: ` in it stands in quotes",
    ),
    (
        "could not find expected ':'",
        "yaml-colon",
        "a line without a colon, where a key stands",
        "as in `key: value`",
    ),
    (
        "parsing a flow node",
        "yaml-bracket",
        "a value is missing before `WHAT`",
        "a text with , [ ] { } in it stands in quotes",
    ),
    (
        "parsing a flow mapping",
        "yaml-bracket",
        "`{` is not closed, or a comma is missing",
        "as in `{delay: 20 ms, loss: 5 %}`; a text with , : { } in it stands in quotes",
    ),
    (
        "parsing a flow sequence",
        "yaml-bracket",
        "`[` is not closed, or a comma is missing",
        "as in `[udp, loss]`; a text with , [ ] in it stands in quotes",
    ),
    (
        "'<document start>'",
        "yaml",
        "this is no YAML that begins with `testbed: 1`",
        f"a scenario begins so:\n{BEGINS}",
    ),
    (
        "quoted scalar",
        "yaml-quote",
        "a quote is not closed",
        "a quote in a text stands twice ('') or behind a \\ (in \"\")",
    ),
    ("but found '<scalar>'", "yaml-quote", "a text goes on behind its closing quote", "put all of it in quotes"),
    (
        "expected <block end>",
        "yaml-indent",
        "indented as no line above",
        "lines that belong together are indented by as many spaces",
    ),
    (
        "sequence entries are not allowed",
        "yaml-indent",
        "`- ` stands where no list is",
        "a list begins in a line of its own",
    ),
)


def _compose(text: str) -> tuple[yaml.Node | None, Complaint | None]:
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
        return None, Complaint(f"the character U+{code:04X} is not allowed in YAML", at, at)
    except yaml.MarkedYAMLError as error:
        at_end = "<stream end>" in str(error.problem) and error.context_mark is not None
        at = mark(error.context_mark if at_end else error.problem_mark or error.context_mark)
        what = " ".join(part for part in (error.context, error.problem) if part)
        return None, Complaint(f"not YAML: {what}", at, mark(error.context_mark or error.problem_mark))
    except yaml.YAMLError as error:
        return None, Complaint(f"not YAML: {' '.join(str(error).split())[:200]}", Mark(), Mark())
    except RecursionError:
        at = _deepest(text)
        return None, Complaint("brackets are nested too deep", at, at)
    except (ValueError, OverflowError):
        return None, Complaint("not YAML: an escape names a character that does not exist", Mark(), Mark())


def _deepest(text: str) -> Mark:
    """Where a bracket opens in more others than any scenario has."""
    open_brackets = line = start = 0
    for offset, sign in enumerate(text):
        open_brackets += (sign in "[{") - (sign in "]}")
        if sign == "\n":
            line, start = line + 1, offset + 1
        if open_brackets > 50:
            return Mark(line + 1, offset - start + 1, offset)
    return Mark()


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
