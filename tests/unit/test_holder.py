"""The holder: the file is well formed on every machine that we know, and on this one it does its work."""

from __future__ import annotations

import os
import platform
import select
import signal
import struct
import subprocess
from pathlib import Path

import pytest

from testbed.engines.holder import HEADERS_BYTES, MACHINES, holder_elf
from testbed.errors import EngineError

here = pytest.mark.skipif(platform.machine() not in MACHINES, reason=f"no holder for {platform.machine()}")


@pytest.mark.parametrize(("machine", "number"), MACHINES.items())
def test_the_file_loads_whole_and_starts_at_its_code(machine: str, number: int) -> None:
    elf = holder_elf(machine)
    kind, found, _, entry, headers = struct.unpack_from("<2HI2Q", elf, 16)
    assert (elf[:6], kind, found, headers) == (b"\x7fELF\x02\x01", 2, number, 64)
    load, flags, offset, start, _, in_file, in_memory, _ = struct.unpack_from("<2I6Q", elf, headers)
    assert (load, flags, offset, in_file, in_memory) == (1, 5, 0, len(elf), len(elf))
    assert entry - start == HEADERS_BYTES


def test_aarch64_instructions() -> None:
    """Checked against what binutils assembles for the same source."""
    assembled = (
        "d2800220 100001a1 d2800002 d2800103 d28010c8 d4000001 "
        "d2800000 d2800001 d2800002 d2800003 d2800004 d2800928 d4000001 17fffff9 00000001"
    )
    words = struct.unpack_from("<15I", holder_elf("aarch64"), HEADERS_BYTES)
    assert [f"{word:08x}" for word in words] == assembled.split()


def test_an_unknown_machine_is_refused_by_name() -> None:
    with pytest.raises(EngineError, match=r"'vax'.*aarch64.*x86_64"):
        holder_elf("vax")


@here
def test_it_sleeps_ignores_children_and_ends_by_sigkill(tmp_path: Path) -> None:
    path = tmp_path / "holder"
    path.write_bytes(holder_elf(platform.machine()))
    path.chmod(0o755)
    process = subprocess.Popen([path], stdin=subprocess.DEVNULL)
    pidfd = os.pidfd_open(process.pid)
    try:
        ignored = 0  # what it was born with may be more than 0
        while not ignored >> signal.SIGCHLD - 1 & 1 and process.poll() is None:  # its very first call
            status = Path(f"/proc/{process.pid}/status").read_text()
            ignored = int(status.split("SigIgn:")[1].split()[0], 16)
        assert ignored >> signal.SIGCHLD - 1 & 1
        process.send_signal(signal.SIGCHLD)
        assert select.select([pidfd], [], [], 0.1)[0] == []
    finally:
        process.kill()
        os.close(pidfd)
        assert process.wait(timeout=5) == -signal.SIGKILL
