"""Connections that stop being HTTP: a program's three streams, or the agent's, over one socket.

The SDK has this too, and its way is not ours for two reasons. It reads the bare socket and so loses what the HTTP
layer had read ahead together with the answer's headers: a short-lived program's first output. And over TLS it can
neither end our direction alone (SSLSocket.shutdown drops the encryption of both) nor read and write at the same
time (*seen*: the interpreter crashes). So the request is written here, and TLS runs in memory.
"""

from __future__ import annotations

import json
import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, TypeVar

from testbed.errors import EngineError

STDOUT, STDERR = 1, 2
CHUNK_BYTES = 1 << 16
HEAD_BYTES = 1 << 16  # no answer's headers are longer
_FRAME = struct.Struct(">BxxxI")  # Docker Engine API, "Attach to a container", stream format
T = TypeVar("T")


@dataclass(frozen=True)
class Address:
    """Where a daemon listens: the path of a UNIX socket, or host and port, with the TLS that it wants."""

    where: str | tuple[str, int]
    tls: ssl.SSLContext | None = None

    def dial(self, timeout_s: float | None) -> socket.socket:
        """A connected socket. Raises OSError."""
        if not isinstance(self.where, str):
            return socket.create_connection(self.where, timeout_s)
        made = socket.socket(socket.AF_UNIX)
        try:
            made.settimeout(timeout_s)
            made.connect(self.where)
        except BaseException:
            made.close()
            raise
        return made


class _Transport(Protocol):
    """Calls that never wait: BlockingIOError says that it has to be tried again."""

    def recv(self) -> bytes: ...

    def send(self, data: memoryview) -> int: ...

    def flush(self) -> None: ...

    def end(self) -> None: ...


class _Plain:
    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    def recv(self) -> bytes:
        return self._socket.recv(CHUNK_BYTES)

    def send(self, data: memoryview) -> int:
        return self._socket.send(data)

    def flush(self) -> None: ...

    def end(self) -> None:
        self._socket.shutdown(socket.SHUT_WR)


class _Tls:
    """TLS between two buffers in memory, which are carried to and from the socket here."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, name: str) -> None:
        """Does the handshake, on a socket that blocks. Raises OSError."""
        self._socket, self._in, self._out = sock, ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_hostname=name)
        self._waiting, self._early = b"", bytearray()  # ciphertext to be sent; what came before it was asked for
        while True:
            try:
                self._tls.do_handshake()
                sock.sendall(self._out.read())
                return
            except ssl.SSLWantReadError:
                sock.sendall(self._out.read())
                self._take()

    def recv(self) -> bytes:
        if self._early:
            data, self._early = bytes(self._early), bytearray()
            return data
        while True:
            try:
                return self._tls.read(CHUNK_BYTES)
            except ssl.SSLWantReadError:
                self._take()
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""

    def send(self, data: memoryview) -> int:
        self.flush()
        taken = self._tls.write(data)
        with suppress(BlockingIOError):
            self.flush()
        return taken

    def flush(self) -> None:
        self._waiting += self._out.read()
        while self._waiting:
            self._waiting = self._waiting[self._socket.send(self._waiting) :]

    def end(self) -> None:
        """close_notify. OpenSSL also looks for the other side's and throws away data that it finds instead, so
        nothing may be left to be found."""
        with suppress(ssl.SSLError):
            while data := self._tls.read(CHUNK_BYTES):
                self._early += data
        with suppress(ssl.SSLError):
            self._tls.unwrap()
        self.flush()

    def _take(self) -> None:
        data = self._socket.recv(CHUNK_BYTES)
        if data:
            self._in.write(data)
        else:
            self._in.write_eof()


class Stream:
    """Frames of stdout and stderr come in, stdin goes out. Two threads may use it at once."""

    def __init__(self, sock: socket.socket, transport: _Transport | None = None, early: bytes = b"") -> None:
        """`early` is what came together with the answer's headers. Takes the socket over."""
        sock.setblocking(False)
        self._socket, self._transport = sock, transport or _Plain(sock)
        self._buffer = bytearray(early)
        self._lock = threading.Lock()  # held during calls that do not wait, and never while waiting

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """Pairs of STDOUT or STDERR and content until the other side closes. A lost connection ends it too."""
        with suppress(OSError, EOFError, ValueError):  # ValueError: closed by another thread
            while True:
                kind, size = _FRAME.unpack(self._read(_FRAME.size))
                yield kind, self._read(size)

    def write(self, data: bytes) -> None:
        """Raises OSError."""
        left = memoryview(data)

        def give() -> int:
            return self._transport.send(left[:CHUNK_BYTES])

        while left:
            left = left[self._when_ready(select.POLLOUT, give) :]
        self._when_ready(select.POLLOUT, self._transport.flush)

    def end_of_input(self) -> None:
        """Close our direction only. Never raises: the other side may be gone already."""
        with suppress(OSError, ValueError):
            with suppress(BlockingIOError), self._lock:
                self._transport.end()
            self._when_ready(select.POLLOUT, self._transport.flush)

    def close(self) -> None:
        """Also wakes a thread that waits in `frames`. Never raises; twice is once."""
        with suppress(OSError):  # it is closed already, by us or by the other side
            self._socket.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._socket.close()

    def _read(self, size: int) -> bytes:
        while len(self._buffer) < size:
            data = self._when_ready(select.POLLIN, self._transport.recv)
            if not data:
                raise EOFError
            self._buffer += data
        found = bytes(self._buffer[:size])
        del self._buffer[:size]
        return found

    def _when_ready(self, event: int, act: Callable[[], T]) -> T:
        poll = select.poll()
        while True:
            try:
                with self._lock:
                    return act()
            except BlockingIOError:
                poll.register(self._socket, event)
            poll.poll()


def hijack(address: Address, path: str, body: object, timeout_s: float) -> Stream:
    """POST to a daemon and take the connection over. Raises OSError, and EngineError with what the daemon says."""
    sock = address.dial(timeout_s)
    try:
        host = "docker" if isinstance(address.where, str) else address.where[0]
        transport: _Transport = _Tls(sock, address.tls, host) if address.tls else _Plain(sock)
        content = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        )
        sent = transport.send(memoryview(head.encode() + content))
        assert sent == len(head) + len(content), "a request is shorter than any buffer"
        transport.flush()
        early = _answered(transport)
        return Stream(sock, transport, early)
    except BaseException:
        sock.close()
        raise


def _answered(transport: _Transport) -> bytes:
    """Read an answer's headers; returns what came after them. Raises OSError, EngineError."""
    said = b""
    while b"\r\n\r\n" not in said and len(said) < HEAD_BYTES:
        data = transport.recv()
        if not data:
            raise EngineError(f"the Docker daemon closed the connection after {said[:200]!r}")
        said += data
    head, _, rest = said.partition(b"\r\n\r\n")
    status = head.split(None, 2)[1]
    if status in (b"101", b"200"):
        return rest
    length = next((int(v) for k, _, v in _headers(head) if k.lower() == b"content-length"), 0)
    while len(rest) < length and (data := transport.recv()):
        rest += data
    raise EngineError(f"Docker answered {status.decode()}: {_message(rest)}")


def _headers(head: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    return (line.partition(b":") for line in head.split(b"\r\n")[1:])


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["message"])
    except (ValueError, LookupError, TypeError):
        return body.decode(errors="replace").strip() or "no message"
