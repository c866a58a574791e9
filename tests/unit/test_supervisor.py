"""What a program says is kept whole, or that it could not be is an error."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from testbed.supervisor import Output


def test_output_that_does_not_fit_is_an_error_also_if_a_part_did(tmp_path: Path) -> None:
    """A limit of the size of files does what a full disk does: the first write is cut short, the next refused."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    output = Output(tmp_path / "out", searched=True)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            output.write(b"0123456789abcdef")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        output.close()
    assert (tmp_path / "out").read_bytes() == b"0123456789"
    assert not output.matches("0"), "what could not be kept was not seen either"


def test_of_a_flood_the_beginning_is_kept_to_the_byte(tmp_path: Path) -> None:
    output = Output(tmp_path / "out", limit_bytes=10)
    for piece in (b"0123", b"456789"):
        output.write(piece)
    assert not output.flooded, "as much as is kept is no flood"
    output.write(b"ab")
    output.write(b"c")
    output.close()
    assert output.flooded and (tmp_path / "out").read_bytes() == b"0123456789"


def test_nothing_is_kept_in_memory_of_what_nobody_searches(tmp_path: Path) -> None:
    output = Output(tmp_path / "out")
    output.write(b"READY")
    output.close()
    assert not output.matches("READY")
