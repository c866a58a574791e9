"""What is sent, and when: payloads that can be told apart, and a steady pace."""

from __future__ import annotations

import time

_PATTERN = bytes(range(256)) * 257


def pattern(number: int, length: int) -> bytes:
    """`length` bytes (65,536 at most) that differ from those of the 255 numbers before and after."""
    start = number % 256
    return _PATTERN[start : start + length]


def sleep_until(due_ns: int) -> None:
    """By the monotonic clock. The n-th is due at start + n * interval: errors of sleeping do not add up."""
    time.sleep(max(0, due_ns - time.monotonic_ns()) / 1e9)
