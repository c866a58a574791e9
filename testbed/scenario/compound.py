"""Values that are more than one word: commands, what to wait for, how a file must end, pieces of scenario."""

from __future__ import annotations

import re
from typing import Annotated, Any, NamedTuple

from testbed.scenario import commands
from testbed.scenario.fields import (
    Reads,
    Refused,
    called,
    comment_hint,
    did_you_mean,
    paste,
    short,
    text_of,
    warn_of_comment,
)
from testbed.scenario.source import List, Map, Nothing, Reading, Text, Value
from testbed.scenario.values import SCALAR, absolute_path, one_of, some_text


class Command(NamedTuple):
    """`argv` with its variables not yet expanded; `text` is the one-line form it was written in, if it was."""

    argv: tuple[str, ...]
    text: str | None


class Ends(NamedTuple):
    outcome: str = "pass"
    text: str = ""


# -- programs --------------------------------------------------------------------------------------------


def command(value: Value, reading: Reading) -> Command:
    """Text in POSIX quoting, or a list of words taken as they are."""
    if isinstance(value, List):
        words = tuple(text_of(item, reading, "a word of a command") for item in value)
        if not words or not words[0]:
            raise Refused("the command is empty")
        if len(words[0].split()) > 1 and "/" not in words[0]:
            hint = f"write it as text, or a word an item: `[{', '.join(words[0].split())}]`"
            if len(words) > 1:
                hint = "several commands are several `programs`, or one `sh -c '…'`"
            message = f"the first word of a list is a program, and `{short(words[0])}` has a space in it"
            reading.add(value, message, hint, warning=True, code="shape")
        return Command(words, None)
    text = text_of(value, reading, "a command")
    try:
        words = tuple(Text(word, text.mark, text.end) for word in commands.split(text))
    except commands.CommandSyntax as problem:
        hint = comment_hint(text, reading)
        if problem.sign:
            inner = text.replace("'", "'\\''")
            hint = f"ask for one: sh -c '{inner}'"
        raise Refused(str(problem), hint) from problem
    if not words or not words[0]:
        raise Refused("the command is empty")
    _of_a_shell(words[0], text)
    warn_of_comment(text, reading)
    return Command(words, text)


def _of_a_shell(first: str, text: Text) -> None:
    """What only a shell would understand, of a command's first word and its line ends. Raises Refused."""
    if found := re.fullmatch(r"([A-Za-z_]\w*)=(.*)", first, re.ASCII):
        hint = f"write `environment: {{{found[1]}: {paste(Text(found[2]))}}}` beside it"
        raise Refused(f"`{short(first)}` is for a shell, and none runs here", hint)
    if first.startswith("~/"):
        message = f"`{short(first)}`: `~` is for a shell, and hosts see no home"
        raise Refused(message, f"bring it by `files: [{first[2:]}]`, as docs/own-code.md shows")
    if text.plain and text.mark.line < text.end.line and "\\ " in text:
        raise Refused(
            "a \\ at the end of a line is for a shell", "leave it out: YAML joins the lines", code="yaml-line"
        )


def show_command(value: Command) -> Any:
    return value.text if value.text is not None else list(value.argv)


_COMMAND_SCHEMA = {
    "anyOf": [{"type": "string", "minLength": 1}, {"type": "array", "items": SCALAR, "minItems": 1}]
}
CommandLine = Annotated[Command, Reads(command, _COMMAND_SCHEMA, show_command, otherwise=Command(("?",), None))]


def sockets(value: Value, reading: Reading) -> tuple[str, ...]:
    """`80`, `udp 53`, `/run/x.sock`, or a list of them, as "tcp 80", "udp 53", "unix /run/x.sock"."""
    items = value if isinstance(value, List) else [value]
    if not items:
        raise Refused("the list is empty")
    made = []
    for item in items:
        text = item if isinstance(item, Text) else text_of(item, reading, "a port or a path")
        found = re.fullmatch(r"(?:(tcp|udp) +)?([1-9][0-9]{0,4})", text)
        if found and int(found[2]) < 65536:
            made.append(f"{found[1] or 'tcp'} {found[2]}")
        elif text.startswith(("/", "unix /")):
            made.append(f"unix {absolute_path(Text(text.removeprefix('unix '), text.mark), reading)}")
        else:
            port = re.fullmatch(r"(?:(tcp|udp)[:/]|(?:\S*:)?)([1-9][0-9]{0,4})(?:[:/](tcp|udp))?", text.lower())
            meant = f"{port[1] or port[3] or ''} {port[2]}".strip() if port and int(port[2]) < 65536 else ""
            hint = f"did you mean `{meant}`?" if meant else "`80`, `udp 53`, or `/run/x.sock`"
            raise Refused(f"`{short(text)}` is nothing to listen on", hint, text)
    return tuple(made)


_SOCKET = {"anyOf": [{"type": "integer", "minimum": 1, "maximum": 65535}, {"type": "string"}]}
Sockets = Annotated[
    tuple[str, ...], Reads(sockets, {"anyOf": [*_SOCKET["anyOf"], {"type": "array", "items": _SOCKET}]}, list)
]
_STATES = ("ready", "started", "ended")
_OTHER_STATES = {
    **dict.fromkeys("healthy up listening available ok".split(), "ready"),
    **dict.fromkeys("running start begun".split(), "started"),
    **dict.fromkeys("done finished completed completed_successfully exited stopped success".split(), "ended"),
}


def after(value: Value, reading: Reading) -> dict[str, str | None]:
    """A name, a list of names, or a mapping from names to states. None: the state that fits the program's kind."""
    if isinstance(value, Text):
        return {text_of(value, reading): None}
    made: dict[str, str | None] = {}
    if isinstance(value, List):
        for item in value:
            made[text_of(item, reading, "the name of a program")] = None
        return made
    if not isinstance(value, Map):
        raise Refused(f"expected the names of programs, found {called(value)}")
    for key, state in value.written():
        if isinstance(state, Map) and "condition" in state:
            hint = "service_started: `started`, service_healthy: `ready`, service_completed_successfully: `ended`"
            raise Refused("a state is one word", hint, state)
        meant = _OTHER_STATES.get(str(state).removeprefix("service_"), "") if isinstance(state, Text) else ""
        if meant:
            raise Refused(f"`{short(str(state))}` is no state", f"did you mean `{meant}`?", state)
        made[key] = str(one_of(_STATES, "state")(state, reading))
    return made


def show_after(value: dict[str, str | None]) -> Any:
    return dict(value) if any(value.values()) else list(value)


_AFTER_SCHEMA = {
    "anyOf": [
        {"type": "string"},
        {"type": "array", "items": {"type": "string"}},
        {"type": "object", "additionalProperties": {"enum": list(_STATES)}},
    ]
}
After = Annotated[dict[str, str | None], Reads(after, _AFTER_SCHEMA, show_after)]

# -- the end ---------------------------------------------------------------------------------------------

_OUTCOMES = ("fail", "error", "inconclusive")


def ends(value: Value, reading: Reading) -> Ends:
    if isinstance(value, Map):
        written = list(value.written())
        if len(written) != 1:
            raise Refused("`ends` names one outcome", "as in {fail: part of the reason}")
        outcome, reason = written[0]
        if outcome not in _OUTCOMES:
            hint = did_you_mean(outcome, _OUTCOMES, f"one of {', '.join(_OUTCOMES)}")
            raise Refused(f"`{short(outcome)}` is no outcome", hint)
        return Ends(str(outcome), some_text(reason, reading))
    if isinstance(value, Text) and value == "pass":
        return Ends()
    hint = "{fail: part of the reason}, {error: ...}, {inconclusive: ...}, or pass"
    raise Refused(f"expected how the run ends, found {called(value)}", hint)


_ENDS_SCHEMA = {
    "anyOf": [
        {"const": "pass"},
        {
            "type": "object",
            "properties": {outcome: {"type": "string", "minLength": 1} for outcome in _OUTCOMES},
            "additionalProperties": False,
            "minProperties": 1,
            "maxProperties": 1,
        },
    ]
}
EndsWith = Annotated[
    Ends,
    Reads(ends, _ENDS_SCHEMA, lambda e: "pass" if e.outcome == "pass" else {e.outcome: e.text}, otherwise=Ends()),
]


def piece(value: Value, reading: Reading) -> Map:
    """A piece of scenario, kept as written: it means something only after it was merged over the file."""
    if not isinstance(value, Map):
        hint = "as in {links: {a -> b: {loss: 0 %}}}"
        raise Refused(f"expected a piece of a scenario, found {called(value)}", hint)
    for key, _ in value.written():
        if key in ("testbed", "name", "fails_when"):
            raise Refused(f"`{key}` cannot be changed by a saboteur", at=key)
    return value


def plain(value: Value) -> Any:
    """A raw piece as YAML prints it."""
    if isinstance(value, Map):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, List):
        return [plain(one) for one in value]
    return None if isinstance(value, Nothing) else str(value)


Piece = Annotated[Map, Reads(piece, {"type": "object"}, plain, otherwise=Map())]
