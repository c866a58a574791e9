"""The life of a program: its work until that ends or SIGTERM comes, then its records, then its exit status.

A record is a JSON object on a line of standard output; the last part of a key is its unit. Programs write
their records when the work is over, so that printing never disturbs what is measured.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterable
from typing import Any

from testbed.programs._errors import Failed, Unsupported


class Terminated(Exception):
    """SIGTERM came."""


def run(program: str, work: Callable[[], None], records: Callable[[], Iterable[dict[str, Any]]]) -> int:
    """Do the work until it ends or SIGTERM comes, write the records either way, and return the exit status."""
    failed = None
    try:
        _until_sigterm(work)
    except Failed as problem:
        failed = problem
    lines = [json.dumps(record) + "\n" for record in records()]
    if isinstance(failed, Unsupported):
        lines.insert(0, json.dumps({"unsupported": failed.lack}) + "\n")
    if failed:
        print(f"{program}: {failed}", file=sys.stderr, flush=True)
        lines.append(json.dumps({"error": failed.name}) + "\n")
    try:
        sys.stdout.write("".join(lines))
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has gone, as with `| head`: nothing more can be said, and nobody minds
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1 if failed else 0


def _until_sigterm(work: Callable[[], None]) -> None:
    """Two `try`, so that a signal which arrives while the inner one is being left is caught as well."""

    def stop(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated

    try:
        try:
            signal.signal(signal.SIGTERM, stop)
            work()
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # from here on, the records get out
    except Terminated:
        pass
