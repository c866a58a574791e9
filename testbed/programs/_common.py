"""What the programs share: units and addresses on the command line, SIGTERM, errors in words, and records.

A record is a JSON object on a line of standard output; the last part of a key is its unit. Programs write
their records when the work is over, so that printing never disturbs what is measured.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import re
import select
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from decimal import Decimal
from typing import Any

TIME_NS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "min": 60 * 10**9, "h": 3600 * 10**9}
SIZE_BYTES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}

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

MOST_WAITING = 1 << 16  # more packets than wait in any socket; one that never gets empty must not hold us
IP_VERSION: dict[int, str] = {socket.AF_INET: "IPv4", socket.AF_INET6: "IPv6"}
LACKING = ("EAFNOSUPPORT", "EPROTONOSUPPORT", "ESOCKTNOSUPPORT")

_PATTERN = bytes(range(256)) * 257


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


class Terminated(Exception):
    """SIGTERM came."""


# ---------------------------------------------------------------- the command line: types for argparse


def time_ns(text: str) -> int:
    """`1.5ms` -> 1500000. Raises ArgumentTypeError."""
    return _quantity(text, TIME_NS, "5ms")


def size_bytes(text: str) -> int:
    """`64KiB` -> 65536. Raises ArgumentTypeError."""
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
    """`20` -> 20, whole and from 0 to 2**32 - 1. Raises ArgumentTypeError."""
    if not re.fullmatch(r"[0-9]+", text) or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, as in 20")
    return int(text)


def port(text: str) -> int:
    """`9000` -> 9000; 0 lets the kernel choose. Raises ArgumentTypeError."""
    if not re.fullmatch(r"[0-9]+", text) or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port, as in 9000")
    return int(text)


def host_and_port(text: str) -> tuple[str, int]:
    """`server:9000` or `[2001:2::1]:9000`. Raises ArgumentTypeError."""
    match = re.fullmatch(r"(?:\[([^\[\]]+)\]|([^\[\]:]+)):([0-9]+)", text)
    if not match or not 0 < int(match[3]) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT, as in server:9000 or [2001:2::1]:9000")
    return match[1] or match[2], int(match[3])


def add_server_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=port, required=True, metavar="N")
    parser.add_argument("--bind", default="0.0.0.0", metavar="IP", help="default: every IPv4 address")


def add_client_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("to", type=host_and_port, metavar="HOST:PORT")
    parser.add_argument("--bind", metavar="IP", help="the address to send from")
    parser.add_argument("--device", metavar="NAME", help="the interface to send through, whatever the routes say")


# ---------------------------------------------------------------- sockets and their errors


def server_socket(kind: socket.SocketKind, bind: str, port: int) -> socket.socket:
    """A socket bound to that address and port; if that is 0, standard error says which it got. Raises Failed."""
    with doing(f"binding {bind} port {port}"):
        family, _, _, _, address = socket.getaddrinfo(bind, port, type=kind, flags=socket.AI_PASSIVE)[0]
        sock = socket.socket(family, kind)
        try:
            if kind == socket.SOCK_STREAM:  # else a server cannot come back while its old connections time out
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
        except OSError:
            sock.close()
            raise
    if port == 0:
        print(f"port {sock.getsockname()[1]}", file=sys.stderr, flush=True)
    return sock


def client_socket(kind: socket.SocketKind, arguments: argparse.Namespace) -> tuple[socket.socket, tuple[Any, ...]]:
    """A socket that is not yet connected, and the address to connect it to. Raises Failed.

    Of the arguments, those of `add_client_arguments` count.
    """
    host, its_port = arguments.to
    with doing(f"looking up {host}"):
        family, _, _, _, address = socket.getaddrinfo(host, its_port, type=kind)[0]
    sock = socket.socket(family, kind)
    try:
        if arguments.device is not None:
            with doing(f"binding to device {arguments.device}"):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, arguments.device.encode())
        if arguments.bind is not None:
            with doing(f"binding {arguments.bind}"):
                sock.bind((arguments.bind, 0))
    except Failed:
        sock.close()
        raise
    return sock, address


def endpoint(address: tuple[Any, ...]) -> str:
    """An address as the socket calls give it, in the form that the command line takes: `[2001:2::1]:9000`."""
    host, its_port = address[:2]
    return f"[{host}]:{its_port}" if ":" in host else f"{host}:{its_port}"


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


def error_records(errors: list[str]) -> Iterator[dict[str, Any]]:
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


# ---------------------------------------------------------------- the life of a program


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


@contextmanager
def uninterrupted() -> Iterator[None]:
    """SIGTERM that comes during the body takes effect after it: what was received gets booked.

    In a program with one thread: the kernel gives a signal to any thread that does not block it.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def receive_until_sigterm(sock: socket.socket, receive: Callable[[], object], late: bool = False) -> None:
    """READY, then `receive` whenever something is there; after SIGTERM, what is still in the socket.

    `receive` takes one datagram or packet with MSG_DONTWAIT, and books it. `late`: nothing before SIGTERM. So who
    stops a receiver when all is delivered finds all of it booked. Never returns. Raises Terminated and Failed.
    """
    try:
        say_ready()
        while True:
            select.select([] if late else [sock], [], [])
            with uninterrupted(), doing("receiving"), suppress(BlockingIOError):  # select(2), BUGS
                receive()
    finally:
        with doing("receiving"), suppress(BlockingIOError):
            for _ in range(MOST_WAITING):
                receive()


def say_ready() -> None:
    """The line that whoever starts a server waits for."""
    print("READY", flush=True)


def pattern(number: int, length: int) -> bytes:
    """`length` bytes (65,536 at most) that differ from those of the 255 numbers before and after."""
    start = number % 256
    return _PATTERN[start : start + length]
