"""What this machine lacks of what a scenario may require, found by trying it: here is where its hosts will be."""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from testbed.agent import namespaces
from testbed.errors import CommandError

_CONGESTION = Path("/proc/sys/net/ipv4/tcp_available_congestion_control")


def lacking(words: Iterable[str]) -> dict[str, str]:
    """Of these requirements, those that are not met here, each with its reason. Raises KeyError."""
    return {word: reason for word in words if (reason := _lacking(word))}


def _lacking(word: str) -> str:
    if word.startswith("cpus:"):
        have = len(os.sched_getaffinity(0))
        wanted = f"{word[5:]} processor{'' if word == 'cpus:1' else 's'}"
        there = f"{have} {'is' if have == 1 else 'are'} there"
        return "" if have >= int(word[5:]) else f"it requires {wanted}, and {there}"
    if _PRESENT[word]():
        return ""
    return f"it requires {word}, which this kernel ({platform.release()}) does not have"


def _has_netem() -> bool:
    """In a network of its own, which ends with the try: then the kernel loads its module."""
    with namespaces.fresh():
        try:
            namespaces.run(["tc", "qdisc", "add", "dev", "lo", "root", "netem"], doing="trying netem")
        except CommandError:
            return False
    return True


def _has_sctp() -> bool:
    """By asking for a socket: then the kernel loads its module, for any user, and hosts have net.sctp.* to set."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP).close()
    except OSError:
        return False
    return True


def _has_ipv6() -> bool:
    return Path("/proc/sys/net/ipv6").exists()


def _has_bbr() -> bool:
    """By asking for it: then the kernel loads its module, if root of the machine asks."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as some, suppress(OSError):
        some.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"bbr")
    return "bbr" in _CONGESTION.read_text().split()


_PRESENT: dict[str, Callable[[], bool]] = {
    "netem": _has_netem,
    "sctp": _has_sctp,
    "ipv6": _has_ipv6,
    "bbr": _has_bbr,
}
