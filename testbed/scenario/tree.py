"""YAML text as a tree in which every scalar is text and everything knows where it stands.

No meaning here: no key is known, no type is judged. Only YAML's own rules, and ours on top of them: no key twice,
no tags, no aliases without end.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

import yaml

from testbed.scenario.repair import BEGINS, compose, mark
from testbed.scenario.source import List, Map, Mark, Nothing, Reading, Text, Value

MOST_NODES = 50_000  # after aliases are followed
DEEPEST = 40
_TAGS: dict[type[yaml.Node], frozenset[str]] = {
    yaml.ScalarNode: frozenset("str int float bool null timestamp merge value".split()),
    yaml.SequenceNode: frozenset(["seq"]),
    yaml.MappingNode: frozenset(["map"]),
}


def read(
    reading: Reading,
    same_key: Callable[[tuple[str, ...], str], str] = lambda path, key: key,
    words: Mapping[str, bool] = MappingProxyType({}),
) -> Map | None:
    """The file's tree, or None when there is none to go on with; problems are added to `reading`.

    `same_key(path, key)` gives what makes two keys of the mapping at `path` the same one; `words` are ours.
    """
    node = compose(reading, words)
    if node is None:
        return None
    try:
        value = _Builder(reading, same_key).build(node)
    except _TooMany as problem:
        reading.add(Mark(1, 1), str(problem), code="file")
        return None
    if isinstance(value, Map):
        return value
    reading.add(value, "a scenario is a mapping that begins with `testbed: 1`", f"as in\n{BEGINS}", code="shape")
    return None


class _TooMany(Exception):
    pass


class _Builder:
    def __init__(self, reading: Reading, same_key: Callable[[tuple[str, ...], str], str]) -> None:
        self._reading, self._same_key = reading, same_key
        self._nodes = 0
        self._open: set[int] = set()

    def build(self, node: yaml.Node) -> Value:
        return self._value(node, ())

    def _value(self, node: yaml.Node, path: tuple[str, ...]) -> Value:
        self._nodes += 1
        if self._nodes > MOST_NODES:
            raise _TooMany(f"the file has more than {MOST_NODES} values, aliases followed")
        here = mark(node.start_mark)
        if id(node) in self._open or len(path) > DEEPEST:
            circle = id(node) in self._open
            self._reading.add(
                here, "an alias stands inside its own anchor" if circle else "nested too deep", code="yaml"
            )
            return Nothing(here)
        tag = node.tag.removeprefix("tag:yaml.org,2002:")
        if tag not in _TAGS[type(node)]:
            hint = "write the value bare, or quote it"
            self._reading.add(here, f"a tag, `{node.tag[:60]}`: a scenario has none", hint, code="yaml-tag")
        if isinstance(node, yaml.ScalarNode):
            empty = node.style is None and node.value in ("", "~", "null", "Null", "NULL")
            return Nothing(here) if empty else Text(node.value, here, mark(node.end_mark), node.style or "")
        self._open.add(id(node))
        made: Value = Nothing(here)
        if isinstance(node, yaml.SequenceNode):
            items = [self._value(item, (*path, "-")) for item in node.value]
            made = List([part for item in items for part in self._items(item, node)], here)
        elif isinstance(node, yaml.MappingNode) and not self._is_template(node, here):
            made = self._map(node, path, here)
        self._open.discard(id(node))
        return made

    def _is_template(self, node: yaml.MappingNode, here: Mark) -> bool:
        """`{{ value }}`: a mapping with a mapping for its key, to YAML."""
        if len(node.value) == 1 and isinstance(node.value[0][0], yaml.MappingNode) and node.flow_style:
            hint = "write the value itself; commands have `$name` and others (docs/format.md)"
            message = "`{{` is for a template, and nothing fills one in"
            self._reading.add(here, message, hint, code="yaml-template")
            return True
        return False

    def _items(self, item: Value, node: yaml.SequenceNode) -> list[Value]:
        """`- ` one space too far in: YAML reads it as going on with the text of the line above."""
        if node.flow_style or not (isinstance(item, Text) and item.plain and item.mark.line < item.end.line):
            return [item]
        dash = mark(node.start_mark).column - 1
        parts: list[list[str]] = [[]]
        marks = [item.mark]
        for number in range(item.mark.line, item.end.line + 1):
            line = self._reading.lines[number - 1]
            text = line[item.mark.column - 1 :] if number == item.mark.line else line.lstrip()
            if number > item.mark.line and text.startswith("- "):
                column = len(line) - len(text) + 1
                at = Mark(number, column)
                hint = f"write\n{' ' * dash}{text}"
                message = "`- ` stands further in than the item above it, which YAML takes for one text with it"
                self._reading.add(at, message, hint, code="yaml-indent")
                parts.append([])
                marks.append(Mark(number, column + 2))
                text = text[2:].lstrip()
            parts[-1].append(text.strip())
        if len(parts) == 1:
            return [item]
        return [Text(" ".join(filter(None, part)), at, at) for part, at in zip(parts, marks, strict=True)]

    def _map(self, node: yaml.MappingNode, path: tuple[str, ...], here: Mark) -> Map:
        own, merged = Map(here), []
        seen: dict[str, Text] = {}
        cut_from: Mark | None = None
        for key_node, value_node in node.value:
            key = Text("", mark(key_node.start_mark), mark(key_node.end_mark))
            if not isinstance(key_node, yaml.ScalarNode):
                hint = "quote it if it begins with [ or {"
                ends = key_node.value if isinstance(key_node, yaml.SequenceNode) else []
                if path == ("links",) and len(ends) == 2 and all(isinstance(end, yaml.ScalarNode) for end in ends):
                    hint = f"write `{ends[0].value} <-> {ends[1].value}`"
                self._reading.add(key, "a key is one word, not a list or mapping", hint, code="yaml")
                self._reading.hosts_in_doubt |= path == ("hosts",)
                continue
            key = Text(key_node.value, key.mark, key.end, key_node.style or "")
            value = self._value(value_node, (*path, key))
            if key.plain and key == "<<":
                merged.extend(self._merged(key, value))
                continue
            same = self._same_key(path, key)
            if same in seen:
                before = seen[same].mark
                where = f"also in line {before.line}, column {before.column}"
                self._reading.add(
                    key, f"`{key[:60]}` is here twice: {where}", "leave one of them", code="key-twice"
                )
                if path == ("hosts",):
                    self._reading.hosts_in_doubt = True
                continue
            seen[same] = key
            if node.flow_style and isinstance(value, Nothing) and self._bare(key):
                key.cut_from = cut_from
                if self._decimal_comma(own, key):
                    continue
            else:
                cut_from = value.mark if isinstance(value, Text) and value.plain else None
            own.put(key, value)
        return self._under(own, merged, seen, path)

    def _decimal_comma(self, own: Map, key: Text) -> bool:
        """`loss: 0,5 %` in { }: said once, and read as `0.5 %`."""
        before = next(reversed(own.values()), None)
        if not (isinstance(before, Text) and before.plain and before.isdecimal() and key[:1].isdecimal()):
            return False
        name, whole = next(reversed(own)), f"{before}.{key}"
        message = f"{name}: `{before},{key}`: the decimal sign is a point"
        self._reading.add(before, message, f"did you mean `{whole}`?", code="unit")
        own.put(own.key(name), Text(whole, before.mark, key.end))
        return True

    def _bare(self, key: Text) -> bool:
        """In { }: a key without a colon."""
        return bool(re.match(r"\s*[,}]", self._reading.text[key.end.offset : key.end.offset + 200]))

    def _merged(self, key: Text, value: Value) -> list[Map]:
        maps = value if isinstance(value, List) else [value]
        if all(isinstance(one, Map) for one in maps):
            return [one for one in maps if isinstance(one, Map)]
        self._reading.add(key, "`<<` merges a mapping, or a list of mappings", "as in `<<: *anchor`", code="yaml")
        return []

    def _under(self, own: Map, merged: list[Map], seen: dict[str, Text], path: tuple[str, ...]) -> Map:
        """What is merged comes first, in its order; what is written here replaces it."""
        if not merged:
            return own
        made = Map(own.mark)
        for one in merged:
            for key, value in one.written():
                same = self._same_key(path, key)
                if same not in seen:
                    seen[same] = key
                    made.put(key, value)
        for key, value in own.written():
            made.put(key, value)
        return made
