"""Messages between the orchestrator and the builder of a lab: JSON with descriptors, over a UNIX stream socket."""

from __future__ import annotations

import array
import json
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Any

LENGTH = struct.Struct(">II")  # bytes of JSON, number of descriptors
MOST_DESCRIPTORS = 8


def send(sock: socket.socket, message: dict[str, Any], descriptors: Sequence[int] = ()) -> None:
    """Send one message whole, on a blocking socket. Raises OSError when the other end is gone."""
    body = json.dumps(message).encode()
    data = memoryview(LENGTH.pack(len(body), len(descriptors)) + body)
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    sent = sock.sendmsg([data], rights)
    if sent < len(data):
        sock.sendall(data[sent:])


class Reader:
    """Puts messages together from what arrives. Whoever takes a message owns its descriptors."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._bytes = bytearray()
        self._descriptors: list[int] = []

    def receive(self) -> Iterator[tuple[dict[str, Any], list[int]]]:
        """The messages that one read completes, perhaps none. Raises EOFError when the other end is gone."""
        room = socket.CMSG_SPACE(MOST_DESCRIPTORS * array.array("i").itemsize)
        try:
            data, rights, _, _ = self._sock.recvmsg(1 << 18, room, socket.MSG_CMSG_CLOEXEC)
        except ConnectionError:
            data, rights = b"", []
        for _, _, content in rights:
            self._descriptors += array.array("i", content)
        if not data:
            self.close()
            raise EOFError
        self._bytes += data
        while len(self._bytes) >= LENGTH.size:
            length, count = LENGTH.unpack_from(self._bytes)
            end = LENGTH.size + length
            if len(self._bytes) < end:
                break
            message = json.loads(self._bytes[LENGTH.size : end])
            mine, self._descriptors = self._descriptors[:count], self._descriptors[count:]
            del self._bytes[:end]
            yield message, mine

    def close(self) -> None:
        """Close the descriptors that nobody took."""
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors.clear()
