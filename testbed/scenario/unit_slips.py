"""What a text that is no quantity was meant to be: whole quantities, ready to be written. Text in, text out."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from fractions import Fraction

# Spellings from tc, compose and daily use that are refused, because they mean two things or nothing here.
_MEANT: dict[str, tuple[str, ...]] = {
    **{
        f"{prefix.lower()}{word}": (f"{prefix}bit/s",)
        for prefix in ("", "k", "M", "G")
        for word in ("bps", "b/s", "bits/s", "bit/s", "bit", "bit/sec")
    },
    "kb": ("kB", "KiB"), "ki": ("KiB",), "mi": ("MiB",), "gi": ("GiB",), "byte": ("B",), "bytes": ("B",),
    **dict.fromkeys("msec msecs millisecond milliseconds millis".split(), ("ms",)),
    **dict.fromkeys("usec usecs µs μs microsecond microseconds".split(), ("us",)),
    **dict.fromkeys("nsec nanosecond nanoseconds".split(), ("ns",)),
    **dict.fromkeys("sec secs second seconds".split(), ("s",)),
    **dict.fromkeys("mins minute minutes".split(), ("min",)),
    **dict.fromkeys("hr hrs hour hours".split(), ("h",)),
    **dict.fromkeys("percent pct procent %%".split(), ("%",)),
    **dict.fromkeys("pkt pkts p".split(), ("packets",)),
}  # fmt: skip
_LETTERS: dict[str, dict[str, tuple[str, ...]]] = {
    "k": {"size": ("kB", "KiB"), "rate": ("kbit/s",)},
    "m": {"time": ("min", "ms"), "size": ("MB", "MiB"), "rate": ("Mbit/s",)},
    "g": {"size": ("GB", "GiB"), "rate": ("Gbit/s",)},
}
_BARE: dict[str, tuple[str, ...]] = {"time": ("ms", "s"), "size": ("B",), "packets": ("packets",)}
_PARTS = re.compile(r"(?:(\d+) *h(?:ours?)?)? *(?:(\d+) *m(?:in)?)? *(?:(\d+) *s(?:ec)?)?", re.ASCII)
_TWO = re.compile(r"(\d+(?:\.\d+)?) *([a-z]*) *(-|±|\+/-|\+-| |,|\.\.) *(\d+(?:\.\d+)?) *([a-z]+)", re.ASCII)
_NUMBER = re.compile(r"([+-]?[0-9]{1,40}(?:\.[0-9]{1,40})?)\s*(.*)", re.ASCII | re.DOTALL)


def hint(text: str, wanted: str | None, units: Mapping[str, str]) -> str:
    """A question that proposes what may be meant; "" where nothing suggests itself.

    `wanted` is the dimension that is asked for, `units` has the dimension of each that there is.
    """
    flat = " ".join(text.split())
    if comment := re.fullmatch(r"([0-9].*?) ?(?:#|//).*", flat):
        return f"a comment begins with ` #`: write `{comment[1]} # …`"
    if flat != text.strip() and re.fullmatch(r"[0-9.]+ ?(\S+)", flat) and flat.lstrip("0123456789. ") in units:
        return f"the space in it is none to YAML: did you mean `{flat}`?"
    if odd := next((sign for sign in flat if unicodedata.category(sign) == "Cf"), ""):
        clean = "".join(sign for sign in flat if unicodedata.category(sign) != "Cf")
        return f"U+{ord(odd):04X} in it is not seen: did you mean `{clean}`?"
    normal = unicodedata.normalize("NFKC", flat)
    if normal != flat and (same := re.fullmatch(r"[0-9.]+ ?(\S+)", normal)) and same[1] in units:
        return f"did you mean `{normal}`?"
    if wanted == "time" and (two := _TWO.fullmatch(flat)) and (two[2] or two[3] not in " ,"):
        return _with_jitter(*two.groups())
    found = [one for one in dict.fromkeys(_meant(flat, wanted, units)) if one]
    byte = re.fullmatch(r"[0-9.]+ *[kMGT]?(?:B/s|Bps)", flat)
    why = " (a rate is in bits, eight to a byte)" if byte and found else ""
    return f"did you mean {' or '.join(f'`{one}`' for one in found)}{why}?" if found else ""


def _meant(text: str, wanted: str | None, units: Mapping[str, str]) -> list[str]:
    if (wanted == "time" or (wanted is None and ":" in text)) and (parts := _seconds(text)):
        return [parts]
    if wanted == "ratio" and (ratio := _ratio(text)):
        return [ratio]
    if text.lower() in ("none", "no", "off", "zero", "never", "nothing"):
        return {"ratio": ["0 %"], "time": ["0 ms"] if text.lower() != "never" else []}.get(wanted or "", [])
    found = _NUMBER.fullmatch(_digits(text))
    if found is None:
        return []
    number, unit = found.groups()
    if not unit:
        return _with_unit(number, wanted)
    day = re.fullmatch(r"d|days?", unit)
    if day and wanted == "time":
        return [f"{_plain(Decimal(number) * 24)} h"]
    if wanted in (None, "rate") and (byte := re.fullmatch(r"([kMGK]?)(?:B/s|Bps)", unit)):
        return [f"{_plain(Decimal(number) * 8)} {byte[1].replace('K', 'k')}bit/s"]
    same = tuple(known for known in units if known.lower() == unit.lower())
    letters = _LETTERS.get(unit.lower(), {})
    meant = letters.get(wanted or "", ()) or _MEANT.get(unit.lower(), ()) or same
    meant = tuple(one for one in meant if wanted in (None, units[one]))
    return [f"{number} {one}" for one in meant if number + " " + one != text]


def _digits(text: str) -> str:
    """Without separators and exponents, and with a point for a comma."""
    text = re.sub(r"(?<=\d)_(?=\d)", "", text)
    text = re.sub(r"^(\d{1,3}(?:,\d{3})+)(?!\d)", lambda found: found[0].replace(",", ""), text)
    text = re.sub(r"^(\d+),(\d+)", r"\1.\2", text)
    text = re.sub(r"^(-?)\.(?=\d)", r"\g<1>0.", text)
    text = re.sub(r"^(\d+)\.(?!\d)", r"\1", text)
    exponent = re.match(r"[0-9.]+[eE][+-]?[0-9]{1,2}(?![0-9])", text)
    if exponent:
        try:
            text = _plain(Decimal(exponent[0])) + text[exponent.end() :]
        except InvalidOperation:
            return text
    return text


def _ratio(text: str) -> str:
    """`%5`, `5 % %`, `1/20`."""
    if found := re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) *‰", text):
        return f"{_plain(Decimal(found[1]) / 10)} %"
    if found := re.fullmatch(r"% *([0-9]+(?:\.[0-9]+)?)", text):
        return f"{found[1]} %"
    if (found := re.fullmatch(r"([0-9]{1,9}) */ *([0-9]{1,9})", text)) and int(found[1]) <= int(found[2]) > 0:
        share = Fraction(int(found[1]), int(found[2])) * 100
        exact = Decimal(share.numerator) / Decimal(share.denominator)
        return f"{_plain(exact)} %" if Fraction(exact) == share else ""
    return ""


def _seconds(text: str) -> str:
    """`1m30s`, `1:30`, `1 h 5 min` in seconds."""
    clock = re.fullmatch(r"(?:([0-9]{1,4}):)?([0-9]{1,4}):([0-9]{1,4})", text)
    found = clock or _PARTS.fullmatch(text)
    parts = found.groups() if found else ()
    if not clock and sum(one is not None for one in parts) < 2:
        return ""
    return f"{sum(int(one or 0) * scale for one, scale in zip(parts, (3600, 60, 1), strict=True))} s"


def _with_unit(number: str, wanted: str | None) -> list[str]:
    value = Decimal(number)
    if wanted == "ratio":
        whole = value == int(value)
        shares = [] if not 0 <= value <= 100 else [value] if whole and value != 1 else [value * 100]
        shares = [Decimal(1), Decimal(100)] if value == 1 else shares if value < 1 or whole else [value]
        return [f"{_plain(one)} %" for one in shares if 0 <= one <= 100]
    if wanted == "rate":
        scale = next((unit for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")) if value >= size), "")
        divisor = {"G": 10**9, "M": 10**6, "k": 10**3}.get(scale, 1)
        return [f"{_plain(value / divisor)} {scale}bit/s" if scale else f"{number} Mbit/s"]
    if wanted == "time" and 0 < value < 1:
        return [f"{_plain(value * 1000)} ms"]
    return [f"{number} {unit}" for unit in _BARE.get(wanted or "", ())]


def _with_jitter(first: str, unit: str, sign: str, second: str, last: str) -> str:
    """`20ms ± 5ms` and `20-30 ms`: a delay and how far it goes up and down."""
    if sign in ("-", "..") and Decimal(second) > Decimal(first) and unit in ("", last):
        middle, half = (Decimal(first) + Decimal(second)) / 2, (Decimal(second) - Decimal(first)) / 2
        return f"did you mean `delay: {_plain(middle)} {last}, jitter: {_plain(half)} {last}`?"
    return f"did you mean `delay: {first} {unit or last}, jitter: {second} {last}`?"


def _plain(number: Decimal) -> str:
    text = f"{number:f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) or "0"
