"""rtnetlink(7): messages, attributes, dumps and requests of a network namespace. What they mean is not known here.

A process of `ip` or `tc` for each host and question took most of the time that many hosts need. These two are
still told what is done seldom, or what is long to say.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from testbed.agent import namespaces
from testbed.errors import EngineError

_NLMSG_ERROR, _NLMSG_DONE, _NLMSG_OVERRUN = 2, 3, 4
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_DUMP, _NLM_F_DUMP_INTR = 0x1, 0x4, 0x300, 0x10
BESIDE, REPLACE, ONLY_NEW = 0x400, 0x500, 0x600  # NLM_F_CREATE, and NLM_F_REPLACE or NLM_F_EXCL
_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence number, port
_ATTRIBUTE = struct.Struct("=HH")  # nlattr: length, type
_TYPE_MASK = 0x3FFF  # without the flags for nesting and byte order
_RECEIVE_BYTES = 1 << 18
_AT_ONCE = 128  # requests of one send: a socket takes 200 kB, and each comes back in the answer to an error
_TIMEOUT_S = 60  # a kernel answers at once; this only ends a wait on one that hangs
_ATTEMPTS = 20


class _Interrupted(Exception):
    """What was asked for changed while it was being told: the answer may lack something."""


class Request(NamedTuple):
    """One thing to be done: `RTM_NEW...`, its flags and body, and what it is in words, for a message."""

    kind: int
    flags: int
    body: bytes
    what: str


class Questions:
    """Questions to the kernel about one network namespace, and requests."""

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

    def do(self, requests: Sequence[Request]) -> None:
        """All of them, in order. Raises EngineError that names the first one that the kernel refuses."""
        for at in range(0, len(requests), _AT_ONCE):
            some = requests[at : at + _AT_ONCE]
            try:
                self._do_some(some)
            except OSError as problem:
                raise EngineError(f"{self._doing}: {some[0].what}, and what follows: {problem}") from problem

    def _do_some(self, requests: Sequence[Request]) -> None:
        first = self._number + 1
        data = bytearray()
        for request in requests:
            self._number += 1
            last = request is requests[-1]  # an answer to each error, and to the last: all are done then
            flags = _NLM_F_REQUEST | request.flags | (_NLM_F_ACK if last else 0)
            length = _HEADER.size + len(request.body)
            data += _HEADER.pack(length, request.kind, flags, self._number, 0) + request.body
            data += bytes(-length % 4)
        self._sock.send(data)
        while True:
            answer = self._sock.recv(_RECEIVE_BYTES)
            _, kind, _, number, _ = _HEADER.unpack_from(answer)
            if kind != _NLMSG_ERROR or not first <= number <= self._number:
                continue
            (status,) = struct.unpack_from("=i", answer, _HEADER.size)
            if status:
                what = requests[number - first].what
                raise EngineError(f"{self._doing}: {what}: the kernel refuses: {os.strerror(-status)}")
            return

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


def attribute(kind: int, value: bytes) -> bytes:
    """One, padded to where the next may begin."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + bytes(-len(value) % 4)


def u32(data: bytes) -> int:
    return int(struct.unpack_from("=I", data)[0])


def text(data: bytes) -> str:
    return data.rstrip(b"\0").decode(errors="replace")
