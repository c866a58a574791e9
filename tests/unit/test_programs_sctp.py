"""What a server over SCTP gets, on loopback. It takes a kernel with SCTP: without it, a named skip.

`make test-kernel` runs this file under one.
"""

from __future__ import annotations

import json
import signal
import socket
import struct
import time

import pytest

from testbed.programs import _serving, sctp
from tests.conftest import missing

SCTP_STATUS = 14  # include/uapi/linux/sctp.h
STATUS = struct.Struct("=iiIH")  # association, state, window, chunks without acknowledgement; and more behind


def one_to_one() -> socket.socket:
    """Skips where the kernel has no SCTP."""
    try:
        return socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP)
    except OSError as problem:
        missing("sctp", str(problem))
        raise


def unacknowledged(sock: socket.socket) -> int:
    """How many chunks of data the other kernel has not confirmed: of struct sctp_status (RFC 6458, 8.2.1)."""
    chunks: int
    _, _, _, chunks = STATUS.unpack_from(sock.getsockopt(socket.IPPROTO_SCTP, SCTP_STATUS, 256))
    return chunks


def test_records_that_are_in_the_socket_at_sigterm_are_booked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with one_to_one() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def send_and_stop() -> None:
        with one_to_one() as client:
            client.settimeout(30)
            client.connect(("127.0.0.1", port))
            client.setsockopt(socket.IPPROTO_SCTP, sctp.SCTP_NODELAY, 1)
            for size in (1, 400, 4000):
                client.send(bytes(size))
            deadline = time.monotonic() + 30
            while unacknowledged(client):
                assert time.monotonic() < deadline, "the server's kernel has not got it all"
                time.sleep(0.001)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(_serving, "say_ready", send_and_stop)
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert sctp.main(["echo", "--bind", "127.0.0.1", "--port", str(port), "--buffer", "1000B"]) == 0
    finally:
        signal.signal(signal.SIGTERM, before)
    summary = json.loads(capsys.readouterr().out)
    assert (summary["received"], summary["payload_bytes"], summary["pieces"]) == (3, 4401, 3)
    assert (summary["peers"], summary["associations"]) == (1, 1)
