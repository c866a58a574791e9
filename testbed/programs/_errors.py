"""Errors in words: what was being done, what came back by its symbol, what to try; and what a kernel lacks."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

WHAT_TO_TRY = {
    "EACCES": "ports below 1024 need the capability NET_BIND_SERVICE",
    "EADDRINUSE": "another program has this port",
    "EADDRNOTAVAIL": "--bind takes an address of this host",
    "EAI_AGAIN": "in a host of the testbed, names come from /etc/hosts alone",
    "EAI_NONAME": "in a host of the testbed, names come from /etc/hosts alone",
    "ECONNREFUSED": "nothing listens there",
    "EHOSTUNREACH": "nobody on that network answers for this address",
    "ENETUNREACH": "no route: are both hosts on one network?",
    "ENODEV": "see `ip link`",
    "EPERM": "raw and packet sockets need the capability NET_RAW",
    "ETIMEDOUT": "--timeout sets how long to wait",
}
LACKING = ("EAFNOSUPPORT", "EPROTONOSUPPORT", "ESOCKTNOSUPPORT")


class Failed(Exception):
    """A socket error that prevents the work. `name` is its symbol, the message is for people."""

    def __init__(self, name: str, message: str) -> None:
        self.name = name
        super().__init__(message)


class Unsupported(Failed):
    """The machine's lack and nobody's failure: a scenario is skipped for it. `lack` says what is missing."""

    def __init__(self, name: str, message: str, lack: str) -> None:
        super().__init__(name, message)
        self.lack = lack


@contextmanager
def doing(what: str, hints: Mapping[str, str] = WHAT_TO_TRY) -> Iterator[None]:
    """Turn an OSError or EOFError of the body into Failed: what was being done, what came back, what to try.

    `hints` by the symbol of the error; those for IP when nothing else is said.
    """
    try:
        yield
    except (OSError, EOFError) as problem:
        name = error_name(problem)
        hint = f" ({hints[name]})" if name in hints else ""
        raise Failed(name, f"{what}: {name}: {getattr(problem, 'strerror', None) or problem}{hint}") from problem


@contextmanager
def opening(one: str, all_of_them: str) -> Iterator[None]:
    """Make a socket of a kind that a kernel may lack in here: `opening("a packet socket", "packet sockets")`.

    Raises Unsupported where the kernel has none (socket(2)), and Failed for all else: EPERM without a capability.
    """
    try:
        with doing(f"opening {one}"):
            yield
    except Failed as problem:
        if problem.name in LACKING:
            raise Unsupported(problem.name, str(problem), f"no {all_of_them} here") from problem
        raise


@contextmanager
def one_of_many(errors: list[str]) -> Iterator[None]:
    """A connection of a server that has others to serve: if it breaks, the symbol of its error is noted here."""
    try:
        yield
    except (OSError, EOFError) as problem:
        errors.append(error_name(problem))


def error_records(errors: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Each symbol once."""
    yield from ({"error": name} for name in dict.fromkeys(errors))


def error_name(problem: OSError | EOFError) -> str:
    """The symbol of an error: ECONNREFUSED, EAI_NONAME; ETIMEDOUT for a socket's own timeout; EOF."""
    if isinstance(problem, EOFError):
        return "EOF"
    if isinstance(problem, socket.gaierror):
        names = [name for name in dir(socket) if name.startswith("EAI_")]
        return next((name for name in names if getattr(socket, name) == problem.errno), "EAI_FAIL")
    if isinstance(problem, TimeoutError):
        return "ETIMEDOUT"
    return errno.errorcode.get(problem.errno or 0, "EIO")
