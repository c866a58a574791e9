"""Values as people read them, in verdicts. Exact where a value is a whole number of base units."""

from __future__ import annotations

import math
from fractions import Fraction

from testbed.measure.samples import Counts, Dimension, Value
from testbed.scenario.units import RATE, SIZE, TIME, format_ns, format_rate, format_size

LONGEST_TEXT = 120  # characters of a program's text that a message quotes; it says how many there are


def shown(value: Value, dimension: Dimension) -> str:
    """`40.125 ms`, `203`, `10.15 % (203 of 2,000)`, `"text"`, `SIGKILL`."""
    if isinstance(value, Counts):
        ratio = f"{percent(value.ratio)} (" if value.of else "nothing ("
        return f"{ratio}{value.count:,} of {value.of:,})"
    if isinstance(value, str):
        return quoted(value) if dimension == "text" else value
    if value == math.inf:
        return "infinite (a lost packet)"
    if dimension == "ratio":
        return percent(value)
    if dimension in _EXACT and isinstance(value, int):
        return _EXACT[dimension](value)
    if dimension in _UNITS:
        return _scaled(float(value), _UNITS[dimension])
    return f"{value:,}" if isinstance(value, int) else f"{float(value):.10g}"


def _scaled(value: float, table: dict[str, int]) -> str:
    fitting = [unit for unit, scale in table.items() if scale <= abs(value)]
    unit = fitting[-1] if fitting else next(iter(table))
    return f"{value / table[unit]:.6g} {unit}"


def percent(ratio: float | Fraction) -> str:
    """`10.15 %`."""
    return f"{float(ratio) * 100:.6g} %"


def quoted(text: str) -> str:
    """A word bare, anything else in quotes; a long text by its beginning, with its length."""
    if text and text.isascii() and text.replace("_", "").replace("-", "").replace(".", "").isalnum():
        return text
    if len(text) <= LONGEST_TEXT:
        return _in_quotes(text)
    return f"{_in_quotes(text[:LONGEST_TEXT])}... ({len(text):,} characters)"


def _in_quotes(text: str) -> str:
    known = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t"}
    signs = (known.get(sign) or (sign if sign.isprintable() else rf"\x{ord(sign):02x}") for sign in text)
    return '"' + "".join(signs) + '"'


_EXACT = {"time": format_ns, "rate": format_rate, "size": format_size}
_UNITS: dict[str, dict[str, int]] = {
    "time": {unit: TIME[unit] for unit in ("ns", "us", "ms", "s")},
    "rate": RATE,
    "size": {unit: SIZE[unit] for unit in ("B", "kB", "MB", "GB")},
}
