"""The types of single values, and the base of every mapping that the format knows.

Validators do not stop at the first problem: they add it to the `Reading` that comes as pydantic's context and go
on with a stand-in, so that one pass finds everything. Stand-ins never reach a caller: with a problem it raises.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from pydantic import (
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from testbed.scenario import units
from testbed.scenario.source import Hint, List, Map, Mark, Nothing, Reading, Text, Value, mark_of, quote

LATER = "is known, but not in this version"
NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
READ_DIFFERENTLY = re.compile(r"(?i:on|off|yes|no)|0[0-9]+|[0-9]+(?::[0-9]+)+", re.ASCII)


class Refused(Exception):
    """A value that is not what its field takes. `at` is more exact than the value's own place, if given."""

    def __init__(self, message: str, hint: Hint = "", at: object = None, code: str = "value") -> None:
        self.message, self.hint, self.at, self.code = message, hint, at, code
        super().__init__(message)


class Reads:
    """How one field is read: `parse` takes the value as it stands in the file and gives what the model holds.

    `show` is the inverse, for printing in full; `otherwise` stands in for what was refused.
    """

    def __init__(
        self,
        parse: Callable[[Any, Reading], Any],
        schema: dict[str, Any],
        show: Callable[[Any], Any] = lambda value: value,
        otherwise: Any = None,
        is_name: bool = False,
    ) -> None:
        self._parse, self._schema, self._show, self._otherwise = parse, schema, show, otherwise
        self._is_name = is_name  # a name of the author's choice says by itself what it is

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_plain_validator_function(
            self._validate, serialization=core_schema.plain_serializer_function_ser_schema(self._show)
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return dict(self._schema)

    def _validate(self, value: Any, info: ValidationInfo) -> Any:
        reading = reading_of(info)
        try:
            return self._parse(value, reading)
        except (Refused, units.UnitError) as problem:
            stands_in = problem.code == "shape" or isinstance(value, Nothing)
            if stands_in and reading.told_of(getattr(problem, "at", None) or value):
                return self._stand_in(value)
            before = "" if self._is_name else label(info)
            code = "name" if self._is_name and problem.code == "value" else problem.code
            reading.add(getattr(problem, "at", None) or value, f"{before}{problem}", problem.hint, code=code)
        return self._stand_in(value)

    def _stand_in(self, value: Any) -> Any:
        if self._otherwise is not SAME:
            return self._otherwise
        return value if isinstance(value, Text) else Text("?", mark_of(value))


SAME = object()  # the refused text itself stands in


def reading_of(info: ValidationInfo) -> Reading:
    if not isinstance(info.context, Reading):
        raise TypeError("a scenario is read by testbed.scenario.parse, which supplies the Reading")
    return info.context


def label(info: ValidationInfo) -> str:
    return f"{info.field_name}: " if info.field_name else ""


def called(value: object) -> str:
    """What stands in the file, for "expected X, found Y"."""
    if isinstance(value, Map):
        return "a mapping"
    if isinstance(value, List):
        return "a list"
    if isinstance(value, Nothing):
        return "nothing"
    return f"`{short(str(value))}`"


def short(text: str, width: int = 60) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= width else flat[: width - 3] + "..."


SPELLED_ALIKE = 0.72  # of keys, which are many and short: less alike is another word


def closest(word: str, known: Iterable[str], cutoff: float = 0.6) -> list[str]:
    return difflib.get_close_matches(word[:80], list(dict.fromkeys(known)), n=2, cutoff=cutoff)


def did_you_mean(word: str, known: Iterable[str], otherwise: str = "", cutoff: float = 0.6) -> str:
    close = closest(word, known, cutoff)
    return f"did you mean {' or '.join(f'`{one}`' for one in close)}?" if close else otherwise


def text_of(value: Value, reading: Reading, what: str = "text") -> Text:
    """A scalar, as text. Raises Refused for anything else, and for words that YAML readers disagree on."""
    if isinstance(value, Map):
        raise Refused(f"expected {what}, found a mapping", _misread_colon(value, reading), value, "shape")
    if isinstance(value, Nothing):
        raise Refused(f"expected {what}, found nothing", 'an empty text is written ""', value, "shape")
    if not isinstance(value, Text):
        raise Refused(f"expected {what}, found {called(value)}", at=value, code="shape")
    if value.plain and READ_DIFFERENTLY.fullmatch(value):
        raise Refused(
            f"{value} without quotes is read differently by different YAML readers",
            f"write '{value}'",
            value,
            "yaml-word",
        )
    bad = next((c for c in value if c == "\0" or "\ud800" <= c <= "\udfff"), None)
    if bad is not None:
        raise Refused(
            f"the text has the character U+{ord(bad):04X}, which no file or command line can hold", at=value
        )
    return value


def _misread_colon(value: Map, reading: Reading) -> str:
    """`- a.stdout contains "x: y"`: YAML made a key of what comes before the colon."""
    line = reading.line(value.mark).rstrip()
    key = next(iter(value.written()), None)
    if key is None or line[value.mark.column - 1 : value.mark.column] == "{" or len(value) > 1:
        return ""
    last = key[1]
    end = last.end if isinstance(last, Text) else Mark(value.mark.line, len(line) + 1, value.mark.offset + 1)
    repaired = reading.quoted(value.mark, end)
    return f"YAML saw a key before `: `; quoted it is text:\n{repaired}" if repaired else ""


def comment_hint(text: Text, reading: Reading) -> str:
    """Where YAML took the rest of a line for a comment: the line with all of it in quotes, else ""."""
    if not text.plain or text.mark.line != text.end.line:
        return ""
    line = reading.line(text.mark).rstrip()
    rest = line[text.end.column - 1 :]
    if not re.match(r"[ \t]+#", rest):
        return ""
    end = Mark(text.mark.line, len(line) + 1, text.mark.offset + len(line))
    return f"YAML takes what follows ` #` for a comment; quoted it is text:\n{reading.quoted(text.mark, end)}"


def warn_of_comment(text: Text, reading: Reading) -> None:
    """`nc -l #5`: a comment that does not look like one."""
    rest = reading.line(text.end)[text.end.column - 1 :]
    found = re.match(r"[ \t]+(#[^\s#]\S*)", rest)
    if text.plain and found:
        reading.add(
            text, f"YAML takes `{short(found[1])}` for a comment", comment_hint(text, reading), warning=True
        )


def cut_hint(key: Text, reading: Reading) -> str:
    """Where a comma in { } cut a text in two: the line with the text in quotes, else ""."""
    if key.cut_from is None:
        return ""
    return f"in {{ }} a comma ends a text; quoted it is text:\n{reading.quoted(key.cut_from, key.end)}"


def paste(value: Value) -> str:
    """A value as it can be written in one line, in YAML's own short form."""
    if isinstance(value, Map):
        return "{" + ", ".join(f"{paste(key)}: {paste(one)}" for key, one in value.written()) + "}"
    if isinstance(value, List):
        return "[" + ", ".join(map(paste, value)) + "]"
    if isinstance(value, Nothing):
        return "{}"
    text = str(value)
    if (
        re.fullmatch(r"[^\s,{}\[\]#&*!|>'\"%@`?:-](?:[^,{}\[\]#:\n]|:(?=\S)|(?<=\S)#)*", text)
        and text == text.strip()
    ):
        return text
    return quote(text) if "\n" not in text else json.dumps(text, ensure_ascii=False)


class Part(BaseModel):
    """A mapping with fixed keys. Fields are named as the keys of the file; their values are in base units."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, populate_by_name=False)

    a: ClassVar[str] = "a mapping"  # what it is called in messages
    main: ClassVar[str] = ""  # the field that its short form gives
    needs: ClassVar[tuple[str, ...]] = ()
    vital: ClassVar[dict[str, tuple[str, ...]]] = {}  # keys of which one must be there -> those that do instead
    may_be_empty: ClassVar[bool] = False
    later: ClassVar[frozenset[str]] = frozenset()  # reserved keys
    instead: ClassVar[dict[str, str]] = {}  # other tools' words, and what to write
    places: ClassVar[dict[str, str]] = {}  # where each key of the format stands, wherever that is

    _mark: Mark = PrivateAttr(default=Mark())
    _keys: dict[str, Text] = PrivateAttr(default_factory=dict)
    _broken: bool = PrivateAttr(default=False)

    @model_validator(mode="wrap")
    @classmethod
    def _read(cls, value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
        reading = reading_of(info)
        written = cls._mapping(value, reading, info)
        if written is None:
            made = cls.model_construct()
            made._broken = True
            return made
        written = cls.with_needed(written, reading)
        known = cls.known()
        for key, _ in written.written():
            if key not in known:
                cls.unknown_key(key, reading)
        for needed in () if cls.misnamed(written) else cls.needs:
            if needed not in written:
                reading.add(written, f"{cls.a} needs `{needed}`", cls.need_hint(needed), code="key-missing")
        cls.look(written, reading)
        made = handler({key: one for key, one in written.items() if key in known})
        made._mark = mark_of(value)
        made._keys = {key: key for key, _ in written.written()}
        return made

    @classmethod
    def _mapping(cls, value: Any, reading: Reading, info: ValidationInfo) -> Map | None:
        if isinstance(value, Map):
            return value
        if isinstance(value, Nothing) and cls.may_be_empty:
            return Map(value.mark)
        if cls.main and not isinstance(value, Nothing):
            made = Map(mark_of(value))
            made.put(Text(cls.main, mark_of(value)), value)
            return made
        reading.hosts_in_doubt |= cls.a in ("a host", "a program")
        if reading.told_of(value):
            return None
        message = f"{label(info)}{cls.a} is a mapping, found {called(value)}"
        reading.add(value, message, cls.shape_hint(value), code="shape")
        return None

    @classmethod
    def with_needed(cls, written: Map, reading: Reading) -> Map:
        """Where a key is missing without which nothing else makes sense, and another one surely means it: that one
        is reported, and its value read as if it had been written right."""
        known, made = cls.known(), Map(written.mark)
        for key, one in written.written():
            meant = "" if key in known or key in cls.later else cls.key_meant(key)
            if meant and not any(other in written or other in made for other in cls.vital[meant]):
                cls.unknown_key(key, reading)
                made.put(Text(meant, key.mark, key.end), Text("1", mark_of(one)) if meant == "testbed" else one)
            else:
                made.put(key, one)
        return made

    @classmethod
    def key_meant(cls, key: str) -> str:
        """The vital key that a message about this unknown one proposes; "" for none."""
        found = re.match(r"did you mean `(\w+)", cls.instead.get(key, ""))
        word = found[1] if found else next(iter(closest(key.lower(), cls.vital)), "")
        return word if word in cls.vital else ""

    @classmethod
    def misnamed(cls, written: Map) -> bool:
        """Whether a key is unknown: what is missing was surely meant by that. Nothing stands for a `vital` one."""
        return not cls.vital and any(key not in cls.known() and key not in cls.later for key in written)

    @classmethod
    def need_hint(cls, needed: str) -> str:
        """What to write where a key is missing."""
        return ""

    @classmethod
    def known(cls) -> dict[str, str]:
        """Key in the file -> field."""
        return {field.alias or name: name for name, field in cls.model_fields.items()}

    @classmethod
    def offered(cls) -> list[str]:
        """The keys that a message may propose."""
        return list(cls.known())

    @classmethod
    def unknown_key(cls, key: Text, reading: Reading) -> None:
        if key in cls.later:
            reading.add(key, f"`{key}` {LATER}", code="key-later")
            return
        word, colon, rest = key.partition(":")
        if colon and word in cls.offered():
            why = "a space must follow the colon" if key.plain else "the quotes make one text of it"
            hint = f"{why}: write `{word}: {short(rest)}`"
            reading.add(key, f"unknown key `{short(key)}` in {cls.a}", hint, code="yaml-colon")
            return
        hint = cut_hint(key, reading) or cls.instead.get(key, "")
        flat = key.lower().replace("-", "_")
        if not hint and "->" in key:
            hint = f"a link stands under `links`: `links: {{{short(key)}: {{delay: 20 ms}}}}`"
        if not hint and key in cls.places:
            hint = f"`{key}` stands {cls.places[key]}"
        if longer := next((one for one in cls.offered() if flat.startswith(f"{one}_")), "") if not hint else "":
            hint = f"did you mean `{longer}`?"
        if not hint and not reading.is_hopeless:
            offered = f"known here: {', '.join(cls.offered())}"
            close = closest(flat, [*cls.offered(), *cls.instead], SPELLED_ALIKE)
            hint = cls.instead.get(close[0], "") if close else offered
            hint = hint or did_you_mean(flat, cls.offered(), offered, SPELLED_ALIKE)
        if odd := next((sign for sign in key if not sign.isascii()), ""):
            hint = f"its `{odd}` is U+{ord(odd):04X}, no letter of a key; {hint}"
        reading.add(key, f"unknown key `{short(key)}` in {cls.a}", hint, code="key-unknown")

    @classmethod
    def look(cls, written: Map, reading: Reading) -> None:
        """Rules about which keys stand together. Called before the values are read."""

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        full = handler.resolve_ref_schema(handler(schema))
        if cls.needs:
            full["required"] = list(cls.needs)
        forms = [full]
        if cls.main:
            forms.insert(0, full["properties"][cls.main])
        if cls.may_be_empty:
            forms.append({"type": "null"})
        return {"anyOf": forms} if len(forms) > 1 else full

    @classmethod
    def shape_hint(cls, value: Value) -> str:
        return ""

    @model_serializer(mode="wrap")
    def _show(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What is not given is not printed. `after: []` is given: it is not what stands there without a word."""
        shown, fields = handler(self), type(self).model_fields
        given = {
            name: value not in (None, {}, ()) or (value is not None and fields[name].default is None)
            for name in fields
            for value in [getattr(self, name)]
        }
        return {key: shown[key] for key, name in self.known().items() if given[name]}

    @property
    def mark(self) -> Mark:
        return self._mark

    @property
    def broken(self) -> bool:
        """It was no mapping at all, and this is a stand-in."""
        return self._broken

    def at(self, key: str = "") -> Mark:
        """Where a key stands; where the whole part stands if it was not written."""
        return self._keys[key].mark if key in self._keys else self._mark

    def wrote(self, key: str) -> bool:
        return key in self._keys

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]
