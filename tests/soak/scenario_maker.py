"""Scenario files out of the published schema, and what people and editors do to files."""

from __future__ import annotations

import json
import random
import re
from typing import Any

STRINGS = (
    "x|a|b|c-1|lan|wan|5ms|20 ms|1.5 s|10 %|0 %|100 %|0.5|100 packets|64KiB|1MB|3|0|-1|10 Mbit/s|a -> b|a <-> b|"
    "all over lan|datagram echo --port 9000|datagram probe b:9000 --count 10|sh -c 'sleep 1'|cat /etc/passwd|"
    "../../etc/passwd|/etc/passwd|/proc/self/environ|data.txt|./data.txt|sub/../data.txt|$(touch /tmp/x)|`id`|"
    "; reboot|${a.ip}|$b.ip|$$|${|${a.nothing}|$HOME|vol:/data|vol:/../x|NET_RAW|NET_ADMIN|SYS_ADMIN|"
    "net.ipv4.ip_forward|198.18.0.0/24|10.0.0.0/8|0.0.0.0/0|2001:2::/64|198.18.0.9|255.255.255.255|::1|"
    "a.lost == 0|b.received > 10|a->b.dropped ~ 10 %|all b.x < 5 ms|any a.y contains 'z'|a.output matches /x(/|"
    "a.median <|sum of a.sent == b.received|not in force|root|nobody|1000:1000|SIGTERM|SIGKILL|KILL|"
    "ready|started|ended|tcp|sctp|netem|fail|error|inconclusive|normal|uniform|dual|ipv6|/(?P<n>[0-9]+)/|s|ms|%|"
    "é\u2028\x85|\ufeff|\n|x\ny|~|null|yes|1e9|010|" + "y" * 300
).split("|")
KEYS = "run serve hosts links a b lan command latency depends_on env healthcheck count after x-note <<".split()
VALUES: list[Any] = [None, True, 0, -1, 1.5, 10**30, float("inf"), "", [], {}, [[]], {"a": {"a": {}}}, ["x"] * 50]


class Maker:
    """Trees that the schema allows, more or less, from one seed."""

    def __init__(self, schema: dict[str, Any], dice: random.Random) -> None:
        self.schema, self.dice = schema, dice

    def tree(self) -> Any:
        made = self._of(self.schema, 0)
        if isinstance(made, dict):
            made |= {"testbed": 1, "about": "made"}
        for _ in range(self.dice.choice([0, 0, 0, 1, 1, 2, 5])):
            made = self._spoilt(made)
        return made

    def _of(self, schema: Any, depth: int) -> Any:
        if not isinstance(schema, dict) or not schema:
            return self.dice.choice(VALUES)
        if "$ref" in schema:
            return self._of(self.schema["$defs"][schema["$ref"].rpartition("/")[2]], depth)
        for several in ("anyOf", "oneOf"):
            if several in schema:
                return self._of(self.dice.choice(schema[several]), depth)
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self.dice.choice(schema["enum"])
        kind = schema.get("type")
        match self.dice.choice(kind) if isinstance(kind, list) else kind:
            case "object":
                return self._object(schema, depth + 1)
            case "array":
                least = schema.get("minItems", 0)
                return [
                    self._of(schema.get("items"), depth + 1) for _ in range(least + self.dice.choice([0, 1, 2]))
                ]
            case "integer" | "number":
                return self.dice.choice([schema.get("minimum", 0), schema.get("maximum", 1 << 40), 2, 7])
            case "boolean":
                return self.dice.random() < 0.5
            case "null":
                return None
            case _:
                return self._string(schema.get("pattern", ""))

    def _object(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        wanted = set(schema.get("required", ()))
        share = 0.5 if depth < 2 else 0.25 if depth < 5 else 0.05
        made = {
            key: self._of(its, depth)
            for key, its in schema.get("properties", {}).items()
            if its is not False and (key in wanted or self.dice.random() < share)
        }
        for pattern, its in schema.get("patternProperties", {}).items():
            names = [self._string(pattern) for _ in range(self.dice.choice([1, 2, 3]) if depth < 4 else 1)]
            made |= {name: self._of(its, depth) for name in names}
        if isinstance(others := schema.get("additionalProperties"), dict):
            made |= {self.dice.choice(STRINGS): self._of(others, depth)}
        return made

    def _string(self, pattern: str) -> str:
        fitting = [text for text in STRINGS if re.search(pattern, text)] if pattern else STRINGS
        return self.dice.choice(fitting or STRINGS)

    def _spoilt(self, tree: Any) -> Any:
        """One thing in it dropped, renamed, doubled in depth or of another type."""
        if not isinstance(tree, dict | list) or not tree or self.dice.random() < 0.1:
            return self.dice.choice([*VALUES, self.dice.choice(STRINGS)])
        if isinstance(tree, list):
            at = self.dice.randrange(len(tree))
            return [self._spoilt(item) if n == at else item for n, item in enumerate(tree)]
        key = self.dice.choice(list(tree))
        rest = {name: value for name, value in tree.items() if name != key}
        match self.dice.randrange(6):
            case 0:
                return rest
            case 1:
                return rest | {self.dice.choice([*KEYS, *STRINGS]): tree[key]}
            case _:
                return tree | {key: self._spoilt(tree[key])}

    def text(self) -> str:
        """A tree as YAML: JSON is YAML, too, but for what it has no words for."""
        return json.dumps(self.tree(), ensure_ascii=self.dice.random() < 0.5, indent=self.dice.choice([None, 2]))
