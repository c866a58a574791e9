"""Mappings from names of the author's choice, and lists: and what stands where one of them is wanted."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from testbed.scenario.fields import Refused, called, cut_hint, label, paste, reading_of, short, text_of
from testbed.scenario.source import List, Map, Nothing, Reading, Text, Value, mark_of


def _renamed(item: Value, what: str) -> list[tuple[Text, Value]]:
    """What an item of a list means where a mapping from names is wanted; nothing if that is not plain."""
    if isinstance(item, Text):
        name, sign, rest = item.partition("=")
        if what in ("variables", "sysctls") and sign:
            return [(Text(name, item.mark, item.end), Text(rest, item.mark, item.end))]
        return [(item, Nothing(item.mark))] if what in ("hosts", "links", "networks") else []
    if not isinstance(item, Map):
        return []
    ends = [item.get(one) or item.get(other) for one, other in (("from", "source"), ("to", "target"))]
    left = Map(item.mark)
    if what == "links" and all(isinstance(end, Text) for end in ends):
        for key, one in item.written():
            if key not in ("from", "to", "source", "target"):
                left.put(key, one)
        return [(Text(f"{ends[0]} -> {ends[1]}", item.mark, item.mark), left)]
    called_so = item.get("name")
    if isinstance(called_so, Text) and len(item) > 1:
        for key, one in item.written():
            if key != "name":
                left.put(key, one)
        return [(called_so, left)]
    if what == "programs" and "run" in item and len(item) > 0:
        return []  # it has no name: whoever reads this gives it one
    return list(item.written()) if len(item) == 1 else []


class Named:
    """A mapping from names of the author's choice. `listed`: what an item of its short form means."""

    def __init__(
        self, what: str, listed: Callable[[Value], Value] | None = None, may_be_empty: bool = False
    ) -> None:
        self._what, self._listed, self._may_be_empty = what, listed, may_be_empty

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_before_validator_function(self._map, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        full = handler(schema)
        names = full.get("propertyNames", {})
        if "patternProperties" in full:
            full["additionalProperties"] = False
            names = {"pattern": next(iter(full["patternProperties"]))}
        forms = [full]
        if self._listed:
            forms.append({"type": "array", "items": {"type": "string", **names}})
        if self._may_be_empty:
            forms.append({"type": "null"})
        return {"anyOf": forms} if len(forms) > 1 else full

    def _map(self, value: Any, info: ValidationInfo) -> Map:
        reading = reading_of(info)
        made = Map(mark_of(value))
        if isinstance(value, Map):
            for key, one in value.written():
                if key.cut_from is not None and isinstance(one, Nothing):
                    reading.add(key, f"{label(info)}`{short(key)}` has no value", cut_hint(key, reading))
                else:
                    made.put(key, one)
            return made
        if isinstance(value, List) and self._listed:
            for item in value:
                try:
                    key = text_of(item, reading, "a name")
                except Refused as problem:
                    mapped = isinstance(item, Map) and self._what == "files"
                    hint = "as in `files: {TARGET: SOURCE}`" if mapped else problem.hint
                    reading.add(item, f"{label(info)}{problem}", hint)
                    continue
                if key in made:
                    reading.add(item, f"{label(info)}`{short(key)}` is here twice")
                made.put(key, self._listed(key))
        elif not (isinstance(value, Nothing) and self._may_be_empty):
            self._misshapen(value, made, reading, info)
        return made

    def _misshapen(self, value: Value, made: Map, reading: Reading, info: ValidationInfo) -> None:
        if isinstance(value, Text) and self._listed:
            made.put(value, self._listed(value))
            hint = f"write `{info.field_name}: [{paste(value)}]`"
            message = f"{label(info)}expected a mapping or a list of {self._what}, found {called(value)}"
            reading.add(value, message, hint, code="shape")
        else:
            for key, one in mapping_meant(value, self._what, str(info.field_name), reading).written():
                made.put(key, one)


def mapping_meant(value: Value, what: str, name: str, reading: Reading) -> Map:
    """What stands where a mapping from names is wanted is reported, with the mapping to write; and read as that,
    as far as it can be known."""
    items = list(value) if isinstance(value, List) else []
    if isinstance(value, Text) and value.plain:  # `A=1, B=2`, `front, back`
        words = [word for word in re.split(r"[,\s]+", value) if word]
        assigned = what in ("variables", "sysctls") and all("=" in word for word in words)
        items = [Text(word, value.mark, value.end) for word in words] if assigned or what == "networks" else []
    pairs = [pair for item in items for pair in _renamed(item, what)]
    made = Map(mark_of(value))
    lines = ["write", f"{name}:"]
    for key, one in pairs:
        made.put(key, one)
        lines.append(f"  {paste(key)}: {_COMMAND if what == 'hosts' and isinstance(one, Nothing) else paste(one)}")
    whole = bool(pairs) and len(pairs) == len(items)
    if what == "programs" and not whole and all(isinstance(item, Map) for item in items) and items:
        lines, whole = [*lines[:2], *(f"  program-{n}: {paste(item)}" for n, item in enumerate(items, 1))], True
        for number, item in enumerate(items, 1):
            made.put(Text(f"program-{number}", mark_of(item), mark_of(item)), item)
    if what == "hosts":
        reading.hosts_in_doubt |= not whole or any(isinstance(one, Nothing) for _, one in pairs)
        if not whole:
            lines, whole = [*lines[:2], f"  NAME: {_COMMAND}"], True
    message = f"{name}: expected a mapping of {what}, found {called(value)}"
    reading.add(value, message, "\n".join(lines) if whole else "", code="shape")
    return made


_COMMAND = "{run: COMMAND}"


class Listed:
    """A list. Nothing else stands for one."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_before_validator_function(self._list, handler(source))

    def _list(self, value: Any, info: ValidationInfo) -> list[Value]:
        if isinstance(value, List):
            return list(_whole_items(value, reading_of(info)))
        reading, name = reading_of(info), info.field_name
        message, hint = f"{label(info)}expected a list of {self._what}, found {called(value)}", ""
        if (
            self._what == "expectations"
        ):  # these are long, have commas and brackets, and stand in lines of their own
            items = _dashes(value, reading) if isinstance(value, Text) else _as_expectations(value)
            hint = "\n".join(["write", f"{name}:", *(f"  - {one}" for one in items)]) if items else ""
        elif isinstance(value, Map) and self._what in ("requirements", "mounts"):
            words = [f"{key}:{one}" for key, one in value.written() if isinstance(one, Text)]
            hint = f"write `{name}: [{', '.join(words)}]`" if len(words) == len(value) > 0 else ""
        elif isinstance(value, Text):
            words = [word for word in re.split(r"[,\s]+-?|^-", value) if word]
            hint = f"write `{name}: [{', '.join(words)}]`"
        reading.add(value, message, hint, code="shape")
        return []


def _dashes(text: Text, reading: Reading) -> list[str]:
    """`-a` and `-b` in lines of their own, where YAML needs a space behind each dash."""
    if not text.plain or not text.startswith("-"):
        return [text]
    return [line.strip().removeprefix("-").strip() for line in reading.lines[text.mark.line - 1 : text.end.line]]


def _whole_items(items: List, reading: Reading) -> Iterator[Value]:
    """`[a contains "x, y"]`: a text in quotes that a comma cut in two."""
    left = iter(items)
    for item in left:
        if _cut(item):
            rest = next(left, None)
            assert isinstance(item, Text)
            if isinstance(rest, Text) and _cut(rest) and (line := reading.quoted(item.mark, rest.end)):
                message = f"`{short(item)}`: in [ ] a comma ends a text"
                reading.add(item, message, f"quoted it is text:\n{line}", code="yaml-comma")
                continue
            yield item
            if rest is not None:
                yield rest
            continue
        yield item


def _cut(value: Value) -> bool:
    return isinstance(value, Text) and value.plain and value.count('"') % 2 == 1


def _as_expectations(value: Value) -> list[str]:
    """`client.lost: 0` as `client.lost == 0`, and `all arrive: client.lost == 0` with its reason."""
    pairs = list(value.written()) if isinstance(value, Map) else []
    texts = [(key, one) for key, one in pairs if isinstance(one, Text)]
    return [
        f"{key} == {paste(one)}"
        if re.fullmatch(r"[\w.>-]+\.\w+", key)
        else f"{{that: {paste(one)}, because: {paste(key)}}}"
        for key, one in texts
    ]
