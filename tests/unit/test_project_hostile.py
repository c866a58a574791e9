"""A stranger's scenario, a directory that changes meanwhile, a machine with other people on it: none gets more."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from testbed.engines.lab import rootfs
from testbed.errors import HostError, Problem, ScenarioError
from testbed.project import root as rooms
from testbed.project.root import Project, Refused, find_root
from testbed.project.tree import Entry, Listing, below, listing, pack
from testbed.project.venv import environment
from testbed.results import Results
from testbed.scenario import inspect, load


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets/key").write_text("secret")
    root = tmp_path / "project"
    (root / "data").mkdir(parents=True)
    (root / "data/key").write_text("public")
    (root / "testbed.toml").touch()
    return root


def found(project: Path, text: str) -> list[Problem]:
    text = f"testbed: 1\nabout: x\nhosts: {{a: {{run: x, {text}}}}}\n"
    return inspect(text, str(project / "lossy.yaml"), Project.around(project))[0]


@pytest.mark.parametrize(
    "text",
    [
        r'stdin: {file: "a\0b"}',
        r'venv: "a\0b"',
        r'build: "a\0b"',
        r'files: ["a\0b"]',
        r'volumes: ["./a\0b:/app:ro"]',
        r'stdin: {file: "a\ud800b"}',
        r'venv: "a\ud800b"',
    ],
)
def test_a_path_that_no_file_can_have_is_a_problem_of_the_file(project: Path, text: str) -> None:
    (problem,) = found(project, text)
    assert "which no file or command line can hold" in problem.message


def test_a_standard_input_larger_than_a_host_is_refused_without_being_read(project: Path) -> None:
    with (project / "big").open("wb") as file:
        file.truncate(1 << 42)
    (problem,) = found(project, "stdin: {file: big}")
    assert (problem.message, problem.column) == ("`big` is more than 1 GiB", 35)
    with pytest.raises(Refused, match="more than 1 GiB"):
        Project.around(project).read("big")


def test_directories_in_directories_have_an_end(project: Path) -> None:
    here = os.getcwd()  # noqa: PTH109
    try:
        os.chdir(project / "data")
        for _ in range(400):
            os.mkdir("d")  # noqa: PTH102
            os.chdir("d")
    finally:
        os.chdir(here)
    for text in ("files: {data: data}", "volumes: [./data:/app:ro]"):
        (problem,) = found(project, text)
        assert "is more than 200 directories deep" in problem.message, text
        assert len(problem.message) < 300
    (project / "data/bin").mkdir()
    (project / "data/bin/python").symlink_to("/usr/bin/python3")
    (project / "data/pyvenv.cfg").write_text("home = /usr/bin\n")
    (problem,) = found(project, "venv: data")
    assert "is more than 200 directories deep" in problem.message


def test_a_scenario_larger_than_any_is_not_read_to_its_end(project: Path) -> None:
    path = project / "huge.yaml"
    with path.open("wb") as file:
        file.truncate(1 << 42)
    with pytest.raises(ScenarioError, match="the file is larger than 256 KiB"):
        load(path)


# what changes meanwhile


def test_a_directory_that_became_a_link_meanwhile_is_not_followed(project: Path) -> None:
    things = list(below("/x", listing(str(project / "data"), str(project), True)))
    (project / "data").rename(project / "before")
    (project / "data").symlink_to("../secrets")
    with pytest.raises(OSError, match="another") as raised:
        pack(things)
    assert raised.value.filename == str(project / "data/key")


def test_a_link_that_is_put_there_between_looking_and_reading_is_not_followed(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = Project.around(project)
    assert ours.read("data/key") == b"public"
    find = Project.find

    def late(self: Project, source: str) -> str:
        real = find(self, source)
        (project / "data").rename(project / "before")
        (project / "data").symlink_to("../secrets")
        return real

    monkeypatch.setattr(Project, "find", late)
    with pytest.raises(Refused, match="another"):
        ours.read("data/key")


def test_a_directory_that_hosts_are_shown_is_no_link_that_is_put_there_after_looking(project: Path) -> None:
    userland = rootfs.Userland(str(project / "scratch"))
    (project / "also").symlink_to("../secrets")
    with pytest.raises(OSError, match="Not a directory"):
        rootfs.show_real(userland, str(project / "also"))
    (project.parent / "secrets/below").mkdir()
    with pytest.raises(OSError, match="it is another directory by now"):
        rootfs.show_real(userland, str(project / "also/below"))
    assert userland.shown == 0, "nothing was mounted"


def test_a_pipe_that_is_put_there_between_looking_and_reading_is_not_waited_for(project: Path) -> None:
    made = Listing([Entry("", "file", str(project / "pipe"))])
    os.mkfifo(project / "pipe")
    with pytest.raises(OSError, match="no file any more"):
        pack(below("/x", made))


# other people


def test_no_home_of_anybody_is_a_project_for_root_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`sudo testbed run` has root's home, and the file lies in Anna's, which she keeps in git."""
    home = tmp_path / "home/anna"
    (home / "Downloads").mkdir(parents=True)
    (home / ".git").mkdir()
    (home / "work/.git").mkdir(parents=True)
    person = pwd.struct_passwd(("anna", "x", 1000, 1000, "", str(home), "/bin/sh"))
    monkeypatch.setattr(rooms.pwd, "getpwall", lambda: [person])
    assert find_root(home / "Downloads") == home / "Downloads"
    assert find_root(home / "work") == home / "work", "what lies in it is one"


def test_what_is_no_file_is_no_part_of_a_virtual_environment(project: Path) -> None:
    """A host could speak through a named pipe or a socket with whoever has its other end on the machine."""
    (project / "venv/bin").mkdir(parents=True)
    (project / "venv/bin/python").symlink_to("/usr/bin/python3")
    (project / "venv/pyvenv.cfg").write_text("home = /usr/bin\n")
    assert environment(Project.around(project), "venv")
    os.mkfifo(project / "venv/pipe")
    with pytest.raises(Refused, match="`venv/pipe` is a named pipe"):
        environment(Project.around(project), "venv")


def test_results_are_not_written_through_a_link_that_came_with_a_project(project: Path) -> None:
    (project / "results").mkdir()
    (project / "results/lossy").symlink_to("../../secrets")
    with pytest.raises(HostError, match=r"lossy is a link, to .*; remove it, or try --results DIR"):
        Results.create(project / "results", "lossy", 1)
    assert [path.name for path in (project.parent / "secrets").iterdir()] == ["key"]
