"""The command line: times and sizes with their units, numbers, HOST:PORT, and the arguments of both ends.

Each function that reads a text raises ArgumentTypeError for one that is wrong.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from decimal import Decimal

TIME_NS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "min": 60 * 10**9, "h": 3600 * 10**9}
SIZE_BYTES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def time_ns(text: str) -> int:
    """`1.5ms` -> 1500000."""
    return _quantity(text, TIME_NS, "5ms")


def size_bytes(text: str) -> int:
    """`64KiB` -> 65536."""
    return _quantity(text, SIZE_BYTES, "64KiB")


def _quantity(text: str, units: dict[str, int], example: str) -> int:
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]*)", text)
    if not match or match[2] not in units:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number with one of {' '.join(units)}, as in {example}"
        )
    value = Decimal(match[1]) * units[match[2]]
    if value != int(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of {next(iter(units))}")
    return int(value)


def number(text: str) -> int:
    """`20` -> 20, whole and from 0 to 2**32 - 1."""
    if not re.fullmatch(r"[0-9]+", text) or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, as in 20")
    return int(text)


def port(text: str) -> int:
    """`9000` -> 9000; 0 lets the kernel choose."""
    if not re.fullmatch(r"[0-9]+", text) or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, as in 9000")
    return int(text)


def host_and_port(text: str) -> tuple[str, int]:
    """`server:9000` or `[2001:2::1]:9000`."""
    match = re.fullmatch(r"(?:\[([^\[\]]+)\]|([^\[\]:]+)):([0-9]+)", text)
    if not match or not 0 < int(match[3]) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT, as in server:9000 or [2001:2::1]:9000")
    return match[1] or match[2], int(match[3])


def within(read: Callable[[str], int], low: int, high: int, unit: str = "") -> Callable[[str], int]:
    """Reads what `read` does, from `low` to `high` alone; `unit` is that of the two in the complaint."""

    def checked(text: str) -> int:
        if not low <= (value := read(text)) <= high:
            raise argparse.ArgumentTypeError(f"{text!r} is not from {low}{unit} to {high}{unit}")
        return value

    return checked


def some(read: Callable[[str], int], complaint: str) -> Callable[[str], int]:
    """Reads what `read` does, but for 0, of which the complaint is `'0ms' leaves no time at all`."""

    def checked(text: str) -> int:
        if not (value := read(text)):
            raise argparse.ArgumentTypeError(f"{text!r} {complaint}")
        return value

    return checked


def listed(read: Callable[[str], int]) -> Callable[[str], list[int]]:
    """Reads several with commas between them: `1,2` -> [1, 2]."""
    return lambda text: [read(word) for word in text.split(",")]


def sizes_up_to(most_bytes: int) -> Callable[[str], list[int]]:
    """Reads `1B,2kB` -> [1, 2000]."""

    def checked(text: str) -> list[int]:
        sizes = listed(size_bytes)(text)
        if max(sizes) > most_bytes:
            raise argparse.ArgumentTypeError(f"{text!r} has more than {most_bytes}B")
        return sizes

    return checked


def add_server_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=port, required=True, metavar="N")
    parser.add_argument("--bind", default="0.0.0.0", metavar="IP", help="default: every IPv4 address")


def add_client_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("to", type=host_and_port, metavar="HOST:PORT")
    parser.add_argument("--bind", metavar="IP", help="the address to send from")
    parser.add_argument("--device", metavar="NAME", help="the interface to send through, whatever the routes say")
