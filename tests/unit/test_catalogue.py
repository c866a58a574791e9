"""Where scenario files are found in a directory."""

from __future__ import annotations

import os
from pathlib import Path

from testbed.catalogue import scenarios_in


def test_files_that_begin_as_a_scenario_are_found_in_order_and_others_not(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text("# a comment\n\ntestbed: 1\n")
    (tmp_path / "a.yml").write_text("testbed: 1\n")
    (tmp_path / "compose.yaml").write_text("services: {}\n")
    (tmp_path / "empty.yaml").touch()
    (tmp_path / "notes.txt").write_text("testbed: 1\n")
    (tmp_path / "below.yaml").mkdir()
    assert [path.name for path in scenarios_in(tmp_path)] == ["a.yml", "b.yaml"]


def test_a_pipe_keeps_nobody_waiting_and_what_cannot_be_read_is_not_passed_over(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "secret.yaml").write_text("testbed: 1\n")
    (tmp_path / "secret.yaml").chmod(0)
    (tmp_path / "dangling.yaml").symlink_to("nowhere")
    assert [path.name for path in scenarios_in(tmp_path)] == ["secret.yaml"]
