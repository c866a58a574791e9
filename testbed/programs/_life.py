"""The life of a program: its work until that ends or SIGTERM comes, then its records, then its exit status.

A record is a JSON object on a line of standard output; the last part of a key is its unit. Programs write
their records when the work is over, so that printing never disturbs what is measured.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from testbed.programs._errors import Failed, Unsupported

REPEAT_AFTER_S = 0.02


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
            with _insisting(stop):
                work()
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # from here on, the records get out
    except Terminated:
        pass


@contextmanager
def _insisting(handler: Callable[..., None]) -> Iterator[None]:
    """See to it that SIGTERM reaches its handler, and soon.

    Python only notes a signal, and calls the handler when it runs its own code again. One that comes after its
    last look and before a system call begins would wait until that call ends, which accept(2) may never do (seen:
    once in 700 servers). So a thread hears of each that is noted, and repeats it until it is handled. It takes no
    signal itself. An alarm now and then was tried: it cuts short what is received with MSG_WAITALL.
    """
    main = threading.get_ident()
    noted, note = os.pipe()
    os.set_blocking(note, False)

    def repeat() -> None:
        while number := os.read(noted, 1):
            while number[0] == signal.SIGTERM:
                time.sleep(REPEAT_AFTER_S)
                if signal.getsignal(signal.SIGTERM) is not handler:
                    break
                signal.pthread_kill(main, signal.SIGTERM)
        os.close(noted)

    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    threading.Thread(target=repeat, daemon=True).start()
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    before = signal.set_wakeup_fd(note)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(note)
