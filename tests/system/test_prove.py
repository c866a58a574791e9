"""`testbed prove`: a saboteur proves something only of a file that passes by itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.command import said, testbed

Write = Callable[..., list[Path]]

SOUND = """
testbed: 1
about: A host says hello.
hosts: {a: {run: echo hello}}
expect: ['a.stdout contains "WORD"']
fails_when:
  another word: {hosts: {a: {run: echo goodbye}}}
  no word: {hosts: {a: {run: "true"}}}
"""


@pytest.fixture
def write(tmp_path: Path, namespaces_work: None) -> Write:
    def made(**files: str) -> list[Path]:
        paths = [tmp_path / f"{name}.yaml" for name in files]
        for path, text in zip(paths, files.values(), strict=True):
            path.write_text(text)
        return paths

    return made


def prove(*paths: Path, words: tuple[str, ...] = ()) -> tuple[int, list[str], str]:
    done = testbed("prove", *paths, "--engine", "namespaces", "--results", paths[0].parent / "r", *words)
    return done.returncode, done.stdout.splitlines(), said(done)


def test_the_file_itself_must_pass_then_each_saboteur_must_fail(write: Write) -> None:
    [path] = write(sound=SOUND.replace("WORD", "hello"))
    status, lines, shown = prove(path)
    assert status == 0, shown
    assert lines[0].startswith("pass  sound by itself: the run ended as pass: "), shown
    assert lines[1].startswith("pass  sound when another word: the run ended as fail: "), shown
    assert [line.split() for line in lines[3:6]] == [
        "pass sound by itself".split(),
        "pass sound when another word".split(),
        "pass sound when no word".split(),
    ]
    assert lines[-1] == "pass: 3 pass", shown


NOT_PASSING = {
    "fail": (1, SOUND.replace("WORD", "hi"), "without"),
    "error": (
        3,
        SOUND.replace("WORD", "hello").replace("{run: echo hello}", "{run: nosuchcommand}"),
        "no command",
    ),
    "skip": (4, SOUND.replace("WORD", "hello") + "requires: ['cpus:4096']\n", "4096"),
}


@pytest.mark.parametrize("outcome", NOT_PASSING)
@pytest.mark.parametrize("jobs", [(), ("--jobs", "2")], ids=["one after another", "at once"])
def test_a_file_that_does_not_pass_proves_nothing(write: Write, outcome: str, jobs: tuple[str, ...]) -> None:
    status, text, why = NOT_PASSING[outcome]
    [path] = write(mine=text)
    got, lines, shown = prove(path, words=jobs)
    assert got == status, shown
    if outcome != "skip" or not jobs:  # several at once show in full only what is no skip
        plain = f"{outcome}  mine by itself: the run ended as {outcome}: "
        assert any(line.startswith(plain) and why in line for line in lines), shown
    last = lines[-2] if jobs else lines[-1]
    assert last.startswith(outcome), shown
    assert last.endswith(f"1 {outcome}; mine does not pass by itself: its 2 saboteurs were not tried"), shown
    assert "mine when" not in "\n".join(lines), "nothing is proven by a run that fails anyway"


def test_a_skip_is_an_error_of_the_proof_when_strict(write: Write) -> None:
    [path] = write(mine=NOT_PASSING["skip"][1])
    status, _, shown = prove(path, words=("--strict",))
    assert status == 3, shown


@pytest.mark.parametrize("jobs", [(), ("--jobs", "2")], ids=["one after another", "at once"])
def test_one_file_that_does_not_pass_is_named_among_others(write: Write, jobs: tuple[str, ...]) -> None:
    paths = write(bad=SOUND.replace("WORD", "hi"), good=SOUND.replace("WORD", "hello"))
    status, lines, shown = prove(*paths, words=jobs)
    assert status == 1, shown
    assert any("bad does not pass by itself" in line for line in lines), shown
    assert any(line.startswith("pass") and "good" in line for line in lines), shown


def test_a_file_that_must_end_as_fail_is_proven_by_that_end(write: Write) -> None:
    """`ends` says how the file itself ends: then it passes, and a saboteur that changes the reason is caught."""
    text = SOUND.replace("WORD", "hi") + 'ends: {fail: "hello"}\n'
    [path] = write(mine=text.replace('  no word: {hosts: {a: {run: "true"}}}\n', ""))
    status, lines, shown = prove(path)
    assert status == 0, shown
    assert lines[-1] == "pass: 2 pass", shown


def test_nothing_to_prove_runs_nothing(write: Write) -> None:
    [path] = write(mine=SOUND.replace("WORD", "hello").partition("fails_when")[0])
    status, lines, shown = prove(path)
    assert status == 0 and lines == ["nothing was run"] and "no `fails_when`" in shown, shown
    assert not (path.parent / "r").exists()
