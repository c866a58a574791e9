"""What a program says is kept whole, or that it could not be is an error."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from testbed.supervisor import Output


def test_output_that_does_not_fit_is_an_error_also_if_a_part_did(tmp_path: Path) -> None:
    """A limit of the size of files does what a full disk does: the first write is cut short, the next refused."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    output = Output(tmp_path / "out")
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            output.write(b"0123456789abcdef")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        output.close()
    assert (tmp_path / "out").read_bytes() == b"0123456789"
    assert not output.matches("0"), "what could not be kept was not seen either"
