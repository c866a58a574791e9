"""Quantities with units: text to exact base units and back. Nothing of YAML, nothing of scenarios.

Base units: nanoseconds, bit/s, bytes, ratio 0..1, packets. Arithmetic is decimal, so `0.1 us` is 100 ns and
a value that is no whole number of base units is refused, never rounded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import Literal

from testbed.scenario import unit_slips

Dimension = Literal["time", "rate", "size", "ratio", "packets", "number"]

TIME = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "min": 60 * 10**9, "h": 3600 * 10**9}
RATE = {"bit/s": 1, "kbit/s": 10**3, "Mbit/s": 10**6, "Gbit/s": 10**9}
SIZE = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_TABLES: tuple[tuple[Dimension, dict[str, int]], ...] = (("time", TIME), ("rate", RATE), ("size", SIZE))
UNITS: dict[str, tuple[Dimension, Fraction]] = {
    **{unit: (dimension, Fraction(scale)) for dimension, table in _TABLES for unit, scale in table.items()},
    "%": ("ratio", Fraction(1, 100)),
    "packets": ("packets", Fraction(1)),
    "packet": ("packets", Fraction(1)),
}
_ONE_OF: dict[Dimension, str] = {
    "time": "ns us ms s min h, as in `20 ms`",
    "rate": "bit/s kbit/s Mbit/s Gbit/s, as in `10 Mbit/s`",
    "size": "B kB MB GB KiB MiB GiB, as in `64 KiB`",
    "ratio": "%, as in `10 %`",
    "packets": "packets, as in `100 packets`",
    "number": "no unit",
}
_UNITS_ARE = "units: "
_A: dict[Dimension, str] = {
    "time": "a time",
    "rate": "a rate",
    "size": "a size",
    "ratio": "a ratio",
    "packets": "a number of packets",
    "number": "a bare number",
}
_BASE: dict[Dimension, str] = {"time": "ns", "rate": "bit/s", "size": "B", "packets": "packets"}
_LARGEST = 2**63 - 1

_PATTERN = re.compile(r"\s*(-?[0-9]{1,40}(?:\.[0-9]{1,40})?)[ \t]*([A-Za-z%µμ].*?)?\s*", re.ASCII)
_SLIPS = (
    (r"[0-9]+(:[0-9]+)+", "clock notation is not read"),
    (r"-?[0-9][0-9_,]*[_,][0-9].*", "digits stand without separators, and the decimal sign is a point"),
    (r"-?[0-9.]+[eE][+-]?[0-9].*", "no exponent: write the digits or a larger unit"),
    (r"-?\.[0-9].*", "a digit stands before the decimal point"),
)


class UnitError(ValueError):
    """Text that is no quantity, or not of the dimension asked for. `hint` says what to write instead."""

    code = "unit"

    def __init__(self, message: str, hint: str = "") -> None:
        self.hint = hint
        super().__init__(message)


@dataclass(frozen=True)
class Quantity:
    """A value in base units: int, but for a ratio (float, 1.0 is 100 %) and a number that has a fraction."""

    value: int | float
    dimension: Dimension


def parse_quantity(text: str) -> Quantity:
    """`20 ms`, `10Mbit/s`, `64 KiB`, `10 %`, `100 packets`, `1.5`, with or without a minus. Raises UnitError."""
    exact, dimension = _exact(text, None)
    if dimension in ("ratio", "number"):
        whole = dimension == "number" and exact.denominator == 1
        return Quantity(int(exact) if whole else float(exact), dimension)
    return Quantity(_whole(exact, text, dimension), dimension)


def parse_duration_ns(text: str) -> int:
    """A time, at least zero, as whole nanoseconds. Raises UnitError."""
    return _positive_whole(text, "time")


def parse_rate_bit_s(text: str) -> int:
    """A rate, at least zero, as whole bits a second. Raises UnitError."""
    return _positive_whole(text, "rate")


def parse_size_bytes(text: str) -> int:
    """A size, at least zero, as whole bytes. Raises UnitError."""
    return _positive_whole(text, "size")


def parse_packets(text: str) -> int:
    """A whole number of packets, at least zero. Raises UnitError."""
    return _positive_whole(text, "packets")


def parse_ratio(text: str) -> float:
    """A share from 0 % to 100 % as 0..1, the float nearest to what is written. Raises UnitError."""
    exact, _ = _exact(text, "ratio")
    if not 0 <= exact <= 1:
        raise UnitError(f"`{_short(text)}` is outside 0 % to 100 %")
    return float(exact)


def _positive_whole(text: str, dimension: Dimension) -> int:
    exact, _ = _exact(text, dimension)
    if exact < 0:
        raise UnitError(f"`{_short(text)}` is below zero")
    return _whole(exact, text, dimension)


def _exact(text: str, wanted: Dimension | None) -> tuple[Fraction, Dimension]:
    found = _PATTERN.fullmatch(text)
    slip = next((hint for pattern, hint in _SLIPS if re.fullmatch(pattern, text.strip())), "")
    unit = (found[2] or "") if found else ""
    scale = UNITS.get(unit)
    if found is not None and not slip and (scale or not (unit or wanted)):
        dimension: Dimension = scale[0] if scale else "number"
        number = Fraction(found[1])
        if wanted and dimension != wanted:
            raise UnitError(
                f"`{_short(text)}` is {_A[dimension]}, not {_A[wanted]}", f"{_UNITS_ARE}{_ONE_OF[wanted]}"
            )
        return (number * scale[1] if scale else number), dimension
    meant = unit_slips.hint(text, wanted, {unit: dimension for unit, (dimension, _) in UNITS.items()})
    if found is None or slip:
        form = f"a number and a unit: {_ONE_OF[wanted]}" if wanted else "a number and a unit, as in `20 ms`"
        raise UnitError(
            f"`{_short(text)}` is no {wanted or 'quantity'}", "; ".join(filter(None, (slip, meant))) or form
        )
    if not unit:
        assert wanted is not None
        raise UnitError(f"`{_short(text)}` has no unit", meant or f"{_UNITS_ARE}{_ONE_OF[wanted]}")
    choice = [wanted] if wanted else [dimension for dimension, _ in UNITS.values()]
    known = _UNITS_ARE + "; ".join(_ONE_OF[dimension] for dimension in dict.fromkeys(choice))
    raise UnitError(f"`{_short(text)}`: `{_short(unit)}` is no unit", meant or known)


def _whole(exact: Fraction, text: str, dimension: Dimension) -> int:
    if exact.denominator != 1:
        raise UnitError(f"`{_short(text)}` is not a whole number of {_BASE[dimension]}")
    if abs(exact) > _LARGEST:
        raise UnitError(f"`{_short(text)}` is too large")
    return int(exact)


def _short(text: str) -> str:
    """Messages stay one line, whatever was in the file."""
    flat = " ".join(text.split())
    return flat if len(flat) <= 60 else flat[:57] + "..."


def format_ns(value_ns: int) -> str:
    """`20 ms`. Exact: `parse_duration_ns` gives the same value back."""
    for unit in ("h", "min"):
        if value_ns and value_ns % TIME[unit] == 0:
            return f"{value_ns // TIME[unit]} {unit}"
    return _scaled(value_ns, ("s", "ms", "us", "ns"), TIME)


def format_rate(value_bit_s: int) -> str:
    """`10 Mbit/s`. Exact."""
    return _scaled(value_bit_s, ("Gbit/s", "Mbit/s", "kbit/s", "bit/s"), RATE)


def format_size(value_bytes: int) -> str:
    """`64 KiB` where it is a whole number of those, else decimal: `1.5 kB`. Exact."""
    if value_bytes and value_bytes % 1000:
        for unit in ("GiB", "MiB", "KiB"):
            if value_bytes % SIZE[unit] == 0:
                return f"{value_bytes // SIZE[unit]} {unit}"
    return _scaled(value_bytes, ("GB", "MB", "kB", "B"), SIZE)


def format_ratio(value: float) -> str:
    """`10 %` for 0.1: the shortest text that gives the same float back."""
    return f"{_plain(Decimal(repr(float(value))) * 100)} %"


def format_packets(value: int) -> str:
    """`100 packets`, `1 packet`."""
    return f"{value} packet" if value == 1 else f"{value} packets"


def format_quantity(quantity: Quantity) -> str:
    """As it would be written in a scenario. Exact."""
    value = quantity.value
    if quantity.dimension == "ratio":
        return format_ratio(value)
    if quantity.dimension == "number":
        return _plain(Decimal(repr(value)))
    writers = {"time": format_ns, "rate": format_rate, "size": format_size, "packets": format_packets}
    return writers[quantity.dimension](int(value))


def _scaled(value: int, units: tuple[str, ...], table: dict[str, int]) -> str:
    unit = next((u for u in units if abs(value) >= table[u]), units[-1])
    whole, rest = divmod(abs(value), table[unit])
    digits = str(rest).zfill(len(str(table[unit])) - 1).rstrip("0") if rest else ""
    sign = "-" if value < 0 else ""
    return f"{sign}{whole}{'.' + digits if digits else ''} {unit}"


def _plain(number: Decimal) -> str:
    """Without exponent and trailing zeros."""
    text = f"{number:f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) or "0"
