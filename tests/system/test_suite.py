"""Several commands at once: their order, their number, their ends, and what becomes of them when we end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from testbed.cli import cli
from testbed.measure.records import EXIT_STATUS, LESS_BUSY
from testbed.suite import Done, at_once
from tests.command import ROOT, clean_environment, said, testbed

SLEEPER = "import sys, time; open(sys.argv[1], 'w').close(); time.sleep(60)"
GATE = """
import os, sys, time
mine, others, wanted = sys.argv[1], sys.argv[2], int(sys.argv[3])
open(os.path.join(others, mine), "w").close()
while len(os.listdir(others)) < wanted: time.sleep(0.005)
"""


def python(text: str, *words: object) -> list[str]:
    return [sys.executable, "-c", text, *map(str, words)]


def test_they_end_as_they_will_and_are_told_as_they_end(tmp_path: Path) -> None:
    told: list[str] = []

    def tell(done: Done) -> None:
        told.append(done.name)
        if done.name == "b":
            (tmp_path / "told").touch()

    waits = "import os, sys, time\nwhile not os.path.exists(sys.argv[1]): time.sleep(0.005)\nprint('after b')"
    commands = [
        ("a", python(waits, tmp_path / "told")),
        ("b", python("import sys; sys.exit('a word')")),
        ("c", python("import os; os.kill(os.getpid(), 9)")),
    ]
    done = at_once(commands, 3, tell)
    assert [(one.name, one.status, one.stdout, one.stderr) for one in done] == [
        ("a", 0, "after b\n", ""), ("b", 1, "", "a word\n"), ("c", -9, "", ""),
    ]  # fmt: skip
    assert sorted(told) == ["a", "b", "c"] and told.index("b") < told.index("a")


def test_as_many_as_said_run_together(tmp_path: Path) -> None:
    commands = [(str(n), python(GATE, n, tmp_path, 3)) for n in range(3)]
    assert [one.status for one in at_once(commands, 3, lambda _: None)] == [0, 0, 0]


def test_never_more_than_said_run_together(tmp_path: Path) -> None:
    alone = "import os, sys\nos.mkdir(sys.argv[1])\nos.rmdir(sys.argv[1])"
    commands = [(str(n), python(alone, tmp_path / "lock")) for n in range(8)]
    assert [one.status for one in at_once(commands, 1, lambda _: None)] == [0] * 8


def test_much_output_stops_nobody() -> None:
    [done] = at_once([("a", python("print('x' * 1_000_000)"))], 1, lambda _: None)
    assert len(done.stdout) == 1_000_001


def test_an_exception_stops_those_that_run_and_waits_for_them(tmp_path: Path) -> None:
    careful = (
        "import signal, sys, time\n"
        "def stop(*_): time.sleep(0.1); open(sys.argv[2], 'w').close(); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, stop); open(sys.argv[1], 'w').close(); time.sleep(60)"
    )
    waits = "import os, sys, time\nwhile not os.path.exists(sys.argv[1]): time.sleep(0.005)"
    commands = [
        ("careful", python(careful, tmp_path / "up", tmp_path / "down")),
        ("quick", python(waits, tmp_path / "up")),
    ]

    def tell(done: Done) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        at_once(commands, 2, tell)
    assert (tmp_path / "down").exists()


def test_who_is_killed_takes_them_along(tmp_path: Path) -> None:
    text = (
        "import sys; from testbed.suite import at_once\n"
        f"at_once([('a', [sys.executable, '-c', {SLEEPER!r}, sys.argv[1]])], 1, print)"
    )
    with subprocess.Popen(python(text, tmp_path / "up"), cwd=ROOT) as parent:
        while not (tmp_path / "up").exists():
            time.sleep(0.005)
        [child] = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
        pidfd = os.pidfd_open(int(child))
        parent.kill()
    try:
        signal.pidfd_send_signal(pidfd, 0)
        gone = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)  # tests adopt orphans: it is our child by now
        assert gone is not None and gone.si_status == signal.SIGKILL
    finally:
        os.close(pidfd)


# ---------------------------------------------------------------- as the command line has it

SMALL = """
testbed: 1
about: A host says something.
hosts: {a: {run: echo hello}}
expect: ['a.stdout contains "WORD"']
"""


def write(directory: Path, **words: str) -> list[Path]:
    for name, word in words.items():
        (directory / f"{name}.yaml").write_text(SMALL.replace("WORD", word))
    return [directory / f"{name}.yaml" for name in words]


def test_run_with_jobs_shows_what_did_not_pass_and_a_table(namespaces_work: None, tmp_path: Path) -> None:
    paths = write(tmp_path, good="hello", bad="goodbye", fine="ell")
    words = ("--engine", "namespaces", "--results", tmp_path / "r", "--jobs", "3")
    done = testbed("run", *paths, *words)
    assert done.returncode == 1, said(done)
    *_, first, second, third, last = done.stdout.splitlines()
    assert first.startswith("pass         good ") and first.endswith("all 2 verdicts hold; 2 pass")
    assert second.startswith("fail         bad  ") and "without" in second
    assert third.startswith("pass         fine ")
    assert last == "fail: 1 fail, 2 pass"
    assert "a.stdout" in done.stdout and done.stdout.count("results: ") == 1, "only the failed run is shown whole"
    assert "3 of 3" in done.stderr
    assert all((tmp_path / "r" / path.stem / "latest/verdicts.json").exists() for path in paths)


def test_keep_and_jobs_exclude_each_other(tmp_path: Path) -> None:
    done = testbed("run", *write(tmp_path, good="hello"), "--keep", "--jobs", "2")
    assert done.returncode == 2 and "leave out --jobs" in done.stderr, said(done)


def test_ctrl_c_ends_all_of_them_with_its_status(namespaces_work: None, tmp_path: Path) -> None:
    paths = write(tmp_path, one="hello", two="hello")
    for path in paths:
        path.write_text(path.read_text().replace("echo hello", "sleep 50"))
    argv = [sys.executable, "-m", "testbed", "run", *map(str, paths), "--engine", "namespaces"]
    argv += ["--results", str(tmp_path / "r"), "--jobs", "2"]
    with subprocess.Popen(argv, cwd=ROOT, env=clean_environment(), stderr=subprocess.PIPE, text=True) as program:
        while len(list((tmp_path / "r").glob("*/2*/programs/a.a.stdout"))) < 2:
            assert program.poll() is None
            time.sleep(0.02)
        program.send_signal(signal.SIGINT)
        _, err = program.communicate(timeout=60)
    assert program.returncode == 130 and "interrupted by SIGINT" in err
    for path in paths:
        assert "interrupted" in next((tmp_path / "r" / path.stem).glob("2*/run.json")).read_text()


STAND_IN = """#!/bin/sh
# For `python -m testbed run FILE`: it says how each file ended, and keeps a line of each time that it was run.
name=$(basename "$4" .yaml)
echo "$name" >>"$KEPT"
case $name in
late) [ "$(grep -c late "$KEPT")" -gt 1 ] && { echo "pass: 1 pass"; exit 0; }
    echo "inconclusive: a time is 49 ms: try LESS BUSY, or a wider bound"; exit 5 ;;
few) echo "inconclusive: 10 are too few to tell"; exit 5 ;;
lame) echo "inconclusive: a time is 49 ms: try LESS BUSY, or a wider bound"; exit 5 ;;
wrong) echo "fail: lost is 9, not 0"; exit 1 ;;
*) echo "pass: 1 pass"; exit 0 ;;
esac
"""


def beside_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str]
) -> tuple[list[str], Result]:
    """The names in the order in which they were run, and what `run --jobs 2` made of the files."""
    for name in names:
        (tmp_path / f"{name}.yaml").write_text("testbed: 1\nhosts: {h: {run: 'true'}}\n")
    stand_in = tmp_path / "python"
    stand_in.write_text(STAND_IN.replace("LESS BUSY", LESS_BUSY))
    stand_in.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stand_in))
    monkeypatch.setenv("KEPT", str(tmp_path / "kept"))
    paths = [str(tmp_path / f"{name}.yaml") for name in names]
    done = CliRunner().invoke(cli, ["run", *paths, "--jobs", "2"])
    return (tmp_path / "kept").read_text().split(), done


def test_what_only_lateness_left_undecided_is_run_again_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once: those that run beside each other make each other late. What has failed has failed."""
    assert EXIT_STATUS["inconclusive"] == 5
    names = ["few", "good", "lame", "late", "wrong"]
    runs, done = beside_each_other(tmp_path, monkeypatch, names)
    assert sorted(runs[:5]) == names and runs[5:] == ["lame", "late"]
    assert done.exit_code == 1 and "1 fail, 2 inconclusive, 2 pass" in done.stdout.splitlines()[-1], done.output
    assert "again, by itself  late: 1 pass" in done.stderr


def test_where_nothing_was_beside_it_nothing_is_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs, done = beside_each_other(tmp_path, monkeypatch, ["late"])
    assert runs == ["late"] and done.exit_code == 5, done.output
