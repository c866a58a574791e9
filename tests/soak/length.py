"""How long the tests in here look: a short look in `make test`, a long one in `make soak`."""

from __future__ import annotations

import os
from typing import TypeVar

T = TypeVar("T")
LENGTH = os.environ.get("TESTBED_SOAK", "short")


def either(short: T, long: T) -> T:
    """What is asked for by TESTBED_SOAK. Raises ValueError for another word than `short` and `long`."""
    return {"short": short, "long": long}[LENGTH]


if LENGTH not in ("short", "long"):
    raise ValueError(f"TESTBED_SOAK={LENGTH}: it is `short` or `long`")
