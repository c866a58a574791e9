"""What a program's records say: its own metrics, those that the scenario declares for it, and the built-in ones.

A line of standard output that is one JSON object is a record, and so is an indented one from its `{` to its `}`:
iperf3 prints its whole report so. Each of its keys is one sample of a metric. What is no record is left alone:
programs may print what they like. Nothing is judged here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from typing import Any

from testbed.measure.records import ProgramRecord
from testbed.measure.samples import Counts, Dimension, Samples, Value

BUILT_IN: dict[str, Dimension] = {
    "exit": "status",
    "stdout": "text",
    "stderr": "text",
    "duration": "time",
    "ready_after": "time",
    "lives": "number",
}

# The last part of a key is its unit, and is dropped from the name. `_bit_s` stands before `_s`.
_SUFFIXES: tuple[tuple[str, Dimension, int], ...] = (
    ("_bit_s", "rate", 1),
    ("_bytes", "size", 1),
    ("_ratio", "ratio", 1),
    ("_ns", "time", 1),
    ("_us", "time", 10**3),
    ("_ms", "time", 10**6),
    ("_s", "time", 10**9),
)


# A metric that is called like its unit has it: nothing is left to be dropped, so its name stays.
CALLED_LIKE_UNIT: dict[str, tuple[Dimension, int]] = {
    "bytes": ("size", 1),
    "bit_s": ("rate", 1),
    "ns": ("time", 1),
    "us": ("time", 10**3),
    "ms": ("time", 10**6),
    "seconds": ("time", 10**9),
}


@dataclass(frozen=True)
class Declared:
    """A metric that the scenario declares for a foreign program. `scale` turns its unit into the base unit."""

    name: str
    prints: str | None = None  # a regex: its first group, or the whole match, is a sample
    json_path: str | None = None  # a.b.c into each record
    file: str | None = None  # a collected path; None: standard output
    dimension: Dimension | None = None  # None: what stands there, a number or a word
    scale: Fraction = Fraction(1)


@dataclass
class Reported:
    """All that one program reported."""

    samples: dict[str, Samples] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)  # metric -> why its samples cannot be used
    unsupported: str = ""  # the program's own words, if it said that this cannot be done here

    @property
    def names(self) -> list[str]:
        """What the program reported, in its order, each name once."""
        return list(dict.fromkeys([*self.samples, *self.broken]))


def report(record: ProgramRecord, declared: Iterable[Declared] = ()) -> Reported:
    """Read a program's output once, whole. Never raises for what a program printed."""
    found = _Collected()
    unsupported = ""
    records = list(_records(record.stdout))
    for entry in records:
        for key, value in entry.items():
            if key == "unsupported" and isinstance(value, str):
                unsupported = unsupported or value or "unsupported"
            elif isinstance(value, str | int | Decimal | float | dict):
                found.add_reported(key, value)
    for metric in declared:
        found.forget(metric.name)
        text = record.stdout if metric.file is None else record.collected.get(metric.file)
        if text is None:
            found.broken[metric.name] = f"{metric.file} was not collected"
            continue
        for value in _declared_values(metric, text, records if metric.file is None else None):
            found.add_declared(metric, value)
        found.values.setdefault(metric.name, (metric.dimension or "number", []))
    return found.reported(unsupported)


def built_in(record: ProgramRecord, name: str) -> Samples | None:
    """One of BUILT_IN; None if it has no value: no end of one that lives, no output of one that never started."""
    began, ready, ended = record.started_ns, record.ready_ns, record.ended_ns
    value: Value | None
    match name:
        case "exit":
            value = record.exit
        case "stdout" | "stderr":
            value = None if began is None else getattr(record, name).decode(errors="replace")
        case "duration":
            value = None if began is None or ended is None else ended - began
        case "ready_after":
            value = None if began is None or ready is None else ready - began
        case _:
            value = 0 if began is None else 1
    return None if value is None else Samples(BUILT_IN[name], [value])


def _records(stdout: bytes) -> Iterator[dict[str, Any]]:
    """Line by line, but from a line that is `{` to one that is `}`: there indented JSON begins and ends."""
    held: list[bytes] = []
    for line in stdout.splitlines():
        alone = line.rstrip()
        if alone == b"{":
            yield from _of(held)
            held = [line]
        elif alone == b"}" and held:
            whole = list(_of([b"\n".join([*held, line])]))
            yield from whole or _of(held)
            held = []
        elif held:
            held.append(line)
        else:
            yield from _of([line])
    yield from _of(held)


def _of(texts: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """Those of these texts that are one JSON object each."""
    for text in texts:
        text = text.strip()
        if text.startswith(b"{") and text.endswith(b"}"):
            try:
                entry = json.loads(text, parse_float=Decimal, parse_constant=_refuse)
            except (ValueError, RecursionError):
                continue
            if isinstance(entry, dict):
                yield entry


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


def split_unit(key: str) -> tuple[str, Dimension | None, int]:
    """`delay_ms` is the time `delay`, in 10**6 ns; `bytes` is a size. Without a unit, the dimension is None."""
    if key in CALLED_LIKE_UNIT:
        return key, *CALLED_LIKE_UNIT[key]
    for suffix, dimension, scale in _SUFFIXES:
        if key.endswith(suffix) and len(key) > len(suffix):
            return key.removesuffix(suffix), dimension, scale
    return key, None, 1


class _Collected:
    def __init__(self) -> None:
        self.values: dict[str, tuple[Dimension, list[Value]]] = {}
        self.broken: dict[str, str] = {}
        self._aliases: dict[str, str] = {}  # the short name of a ratio -> its full name

    def add_reported(self, key: str, value: Any) -> None:
        name, dimension, scale = split_unit(key)
        if key in CALLED_LIKE_UNIT and isinstance(value, str | bool):
            dimension, scale = None, 1  # a word, of a program for which it is no unit
        if isinstance(value, dict):
            if set(value) != {"count", "of"}:
                return  # an object of the program's own: only `metrics: {json: ...}` looks into it
            dimension, scale = "ratio", 1
        if dimension == "ratio" and name != key:
            self._aliases[name] = key  # `loss_ratio` is what RFC 7680 calls it, `loss` what is left without unit
            name = key
        self._add(name, dimension, Fraction(scale), value)

    def add_declared(self, metric: Declared, value: Any) -> None:
        if isinstance(value, str) and (metric.dimension is not None or _NUMBER.fullmatch(value.strip())):
            if not _NUMBER.fullmatch(value.strip()):
                self.broken[metric.name] = f"`{value[:60]}` is no number"
                return
            value = Decimal(value.strip())
        dimension, scale = metric.dimension, metric.scale
        if dimension is None and metric.name in CALLED_LIKE_UNIT and isinstance(value, int | Decimal):
            dimension, plain = CALLED_LIKE_UNIT[metric.name]
            scale = Fraction(plain)
        self._add(metric.name, dimension, scale, value)

    def forget(self, name: str) -> None:
        """What the scenario declares replaces what the program reports under the same name."""
        self.values.pop(name, None)
        self.broken.pop(name, None)
        self._aliases.pop(name, None)

    def _add(self, name: str, dimension: Dimension | None, scale: Fraction, value: Any) -> None:
        try:
            made, natural = _value(value, scale)
        except ValueError as problem:
            self.broken.setdefault(name, str(problem))
            return
        if natural == "number":
            natural = dimension or "number"
        elif dimension not in (None, natural):
            self.broken.setdefault(name, f"`{str(made)[:60]}` is a {natural}, and the name says {dimension}")
            return
        known, values = self.values.setdefault(name, (natural, []))
        if known != natural:
            self.broken.setdefault(name, f"it was reported as {known} and as {natural}")
            return
        values.append(made)

    def reported(self, unsupported: str) -> Reported:
        samples = {name: Samples(dimension, values) for name, (dimension, values) in self.values.items()}
        for short, full in self._aliases.items():
            if short not in samples and full in samples:
                samples[short] = samples[full]
            if short not in samples and full in self.broken:
                self.broken.setdefault(short, self.broken[full])
        return Reported({n: s for n, s in samples.items() if n not in self.broken}, self.broken, unsupported)


_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]{1,3})?")


def _value(value: Any, scale: Fraction) -> tuple[Value, Dimension]:
    """In base units, exactly, and what it is by itself. Raises ValueError."""
    if isinstance(value, bool):
        return ("true" if value else "false"), "text"
    if isinstance(value, str):
        return value, "text"
    if isinstance(value, dict):
        count, of = value["count"], value["of"]
        whole = all(isinstance(n, int) and not isinstance(n, bool) for n in (count, of))
        if not whole or not 0 <= count <= of:
            raise ValueError(f"{count} of {of} is no ratio with its counts")
        return Counts(count, of), "ratio"
    if isinstance(value, Decimal) and abs(value.adjusted()) > 250:
        raise ValueError(f"{value} is no number of this world")
    exact = Fraction(value) * scale
    return (int(exact) if exact.denominator == 1 else exact), "number"


def _declared_values(metric: Declared, text: bytes, records: list[dict[str, Any]] | None) -> Iterator[Any]:
    if metric.prints is not None:
        for found in re.finditer(metric.prints, text.decode(errors="replace"), re.MULTILINE):
            value = found[1] if found.re.groups else found[0]
            if value is not None:
                yield value
        return
    path = (metric.json_path or "").split(".")
    for entry in _records(text) if records is None else records:
        value = _at(entry, path)
        if isinstance(value, str | int | Decimal) or (isinstance(value, dict) and set(value) == {"count", "of"}):
            yield value


def _at(entry: Any, path: list[str]) -> Any:
    for word in path:
        if not isinstance(entry, dict) or word not in entry:
            return None
        entry = entry[word]
    return entry
