"""rtnetlink(7): messages, attributes, and the dumps of one network namespace. No meaning is given to them here.

Only questions are asked. What is to be changed, `ip` and `tc` are told; what then is, other code than theirs
reads, and without a process for each host and question: at 100 hosts those took half the time.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from testbed.agent import namespaces
from testbed.errors import EngineError

_NLMSG_ERROR, _NLMSG_DONE, _NLMSG_OVERRUN = 2, 3, 4
_NLM_F_REQUEST, _NLM_F_DUMP, _NLM_F_DUMP_INTR = 0x1, 0x300, 0x10
_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence number, port
_ATTRIBUTE = struct.Struct("=HH")  # nlattr: length, type
_TYPE_MASK = 0x3FFF  # without the flags for nesting and byte order
_RECEIVE_BYTES = 1 << 18
_TIMEOUT_S = 60  # a kernel answers at once; this only ends a wait on one that hangs
_ATTEMPTS = 20


class _Interrupted(Exception):
    """What was asked for changed while it was being told: the answer may lack something."""


class Questions:
    """Questions to the kernel about one network namespace."""

    def __init__(self, sock: socket.socket, doing: str) -> None:
        self._sock, self._doing = sock, doing
        self._number = 0

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        """The bodies of all answers to `RTM_GET...` with that body. Raises EngineError if the kernel refuses."""
        for _ in range(_ATTEMPTS):
            self._number += 1
            length = _HEADER.size + len(body)
            flags = _NLM_F_REQUEST | _NLM_F_DUMP
            try:
                self._sock.send(_HEADER.pack(length, kind, flags, self._number, 0) + body)
                return list(self._answers())
            except _Interrupted:
                continue
            except OSError as problem:
                raise EngineError(f"{self._doing}: asking the kernel ({kind}): {problem}") from problem
        raise EngineError(f"{self._doing}: what the kernel was asked ({kind}) changed {_ATTEMPTS} times meanwhile")

    def _answers(self) -> Iterator[bytes]:
        interrupted = False
        while True:
            data = self._sock.recv(_RECEIVE_BYTES)
            at = 0
            while at + _HEADER.size <= len(data):
                length, kind, flags, number, _ = _HEADER.unpack_from(data, at)
                body = data[at + _HEADER.size : at + length]
                at += length + 3 & ~3
                if number != self._number:
                    continue  # of a question that was given up
                interrupted |= bool(flags & _NLM_F_DUMP_INTR)
                if kind in (_NLMSG_DONE, _NLMSG_ERROR):
                    status = struct.unpack_from("=i", body)[0] if len(body) >= 4 else 0
                    if status:
                        raise OSError(-status, os.strerror(-status))
                    if interrupted:
                        raise _Interrupted
                    return
                if kind == _NLMSG_OVERRUN:
                    raise _Interrupted
                yield body


@contextmanager
def asked(netns: int | None, doing: str) -> Iterator[Questions]:
    """Ask in the network namespace of that descriptor; None is where we are. Raises EngineError, OSError."""
    with namespaces.inside(netns):
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    with sock:
        sock.settimeout(_TIMEOUT_S)
        yield Questions(sock, doing)


def attributes(data: bytes, at: int = 0) -> dict[int, bytes]:
    """The attributes in `data` from `at` on, by type; nested ones are taken apart by calling this again."""
    found = {}
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            break
        found[kind & _TYPE_MASK] = data[at + _ATTRIBUTE.size : at + length]
        at += length + 3 & ~3
    return found


def u32(data: bytes) -> int:
    return int(struct.unpack_from("=I", data)[0])


def text(data: bytes) -> str:
    return data.rstrip(b"\0").decode(errors="replace")
