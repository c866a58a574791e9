"""A defect of ours, at the command line: a line that says where its details are, and status 3."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from testbed import cli, doctor


def failed(monkeypatch: pytest.MonkeyPatch) -> Result:
    def defect() -> None:
        raise KeyError("no such thing")

    monkeypatch.setattr(doctor, "examine", defect)
    assert isinstance(cli.cli, click.Group)
    return CliRunner().invoke(cli.cli, ["doctor"])


def test_it_is_one_line_and_the_traceback_is_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    done = failed(monkeypatch)
    (kept,) = tmp_path.iterdir()
    assert done.exit_code == 3
    assert done.stderr.splitlines() == [
        f"error: testbed itself failed: KeyError('no such thing'); please report it with what is in {kept}"
    ]
    assert "Traceback" in kept.read_text() and "in defect" in kept.read_text()


def test_where_nothing_can_be_written_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    done = failed(monkeypatch)
    assert done.exit_code == 3
    assert done.stderr.endswith("the details could not be kept: No such file or directory\n")
