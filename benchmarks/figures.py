"""A figure, what it is measured against, and the table of all of them. Pure."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    """`ours` and `theirs` in `unit`; `most` and `least` are the aims, of their ratio where there is a `beside`."""

    name: str
    ours: float
    unit: str
    beside: str = ""  # the floor or the peer
    theirs: float | None = None
    most: float | None = None
    least: float | None = None

    @property
    def ratio(self) -> float | None:
        return self.ours / self.theirs if self.theirs else None

    @property
    def met(self) -> bool | None:
        """None where there is no aim."""
        value = self.ours if self.theirs is None else self.ratio
        if value is None or (self.most is None and self.least is None):
            return None
        return (self.most is None or value <= self.most) and (self.least is None or value >= self.least)

    @property
    def aim(self) -> str:
        unit = " x" if self.theirs is not None else f" {self.unit}"
        parts = [f"<= {self.most:g}{unit}"] if self.most is not None else []
        parts += [f">= {self.least:g}{unit}"] if self.least is not None else []
        return ", ".join(parts)

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"ratio": self.ratio, "met": self.met}


@dataclass(frozen=True)
class Skipped:
    """What was not measured, and why."""

    name: str
    why: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


Row = Figure | Skipped


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def alternately(times: int, *measures: Callable[[], float]) -> list[float]:
    """The median of each, taken in turns: a machine that is slow for a while is slow for all of them."""
    taken = [[measure() for measure in measures] for _ in range(times)]
    return [statistics.median(one[at] for one in taken) for at in range(len(measures))]


def table(rows: Sequence[Row]) -> str:
    """Ready to print, without a newline at its end."""
    heads = ("what", "ours", "beside", "theirs", "ratio", "aim", "")
    lines = [heads, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    right = (1, 3, 4)
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _cells(row: Row) -> tuple[str, ...]:
    if isinstance(row, Skipped):
        return row.name, "", f"not measured: {row.why}", "", "", "", ""
    ratio = "" if row.ratio is None else f"{row.ratio:.2f} x"
    theirs = "" if row.theirs is None else shown(row.theirs, row.unit)
    met = {None: "", True: "met", False: "missed"}[row.met]
    return row.name, shown(row.ours, row.unit), row.beside, theirs, ratio, row.aim, met


def shown(value: float, unit: str) -> str:
    """Three digits that say something."""
    if value >= 1000:
        return f"{value:,.0f} {unit}"
    return f"{value:.3g} {unit}"
