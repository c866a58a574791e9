"""Where an author's own files may be taken from, and what becomes of a directory on its way into a host."""

from __future__ import annotations

import os
import socket
import tarfile
from pathlib import Path

import pytest

from testbed.errors import Problem
from testbed.project import tree
from testbed.project.root import Project, Refused, find_root
from testbed.project.tree import Entry, Listing, below, listing, pack
from testbed.scenario import inspect


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project as people have it: a package, its scenarios, certificates, and a secret beside all that."""
    (tmp_path / "secret").write_text("secret")
    root = tmp_path / "project"
    for name, text in {
        "pyproject.toml": "",
        "src/sensor/__init__.py": "",
        "src/sensor/run": "#!/bin/sh\n",
        "src/sensor/data/empty.bin": "",
        "certs/ca.pem": "a certificate\n",
        "scenarios/lossy.yaml": "",
        "scenarios/beside.txt": "beside\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def found(project: Path, text: str, root: Path | None = None) -> list[Problem]:
    text = f"testbed: 1\nabout: x\nhosts: {{a: {{run: x, {text}}}}}\n"
    path = project / "scenarios/lossy.yaml"
    return inspect(text, str(path), Project.around(path.parent, root))[0]


# the root


@pytest.mark.parametrize("mark", [".git", "pyproject.toml", "testbed.toml"])
def test_the_root_is_the_nearest_directory_above_with_a_mark(tmp_path: Path, mark: str) -> None:
    inner = tmp_path / "a/b/c"
    inner.mkdir(parents=True)
    (tmp_path / ".git").mkdir()
    (tmp_path / "a" / mark).touch()
    assert find_root(inner) == tmp_path / "a"
    (inner / mark).touch()
    assert find_root(inner) == inner, "the scenario's own directory counts"


def test_without_a_mark_the_root_is_the_scenarios_own_directory(tmp_path: Path) -> None:
    inner = tmp_path / "a/b"
    inner.mkdir(parents=True)
    assert find_root(inner) == inner


def test_a_home_is_no_project_unless_somebody_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever keeps a home in git would else show all of it to any scenario that was saved there."""
    home = tmp_path / "home/anna"
    (home / "Downloads").mkdir(parents=True)
    (home / ".git").mkdir()
    (tmp_path / ".git").mkdir()
    monkeypatch.setenv("HOME", str(home))
    assert find_root(home / "Downloads") == home / "Downloads"
    assert find_root(home) == home, "of a scenario that lies there, it is the directory"
    assert Project.around(home / "Downloads", home).root == home


def test_a_root_that_is_named_must_be_above_the_scenario(project: Path) -> None:
    with pytest.raises(Refused, match=f"not below {project}/src; name a directory above"):
        Project.around(project / "scenarios", project / "src")


# what check says


def test_a_directory_and_what_lies_above_the_scenario_may_be_taken(project: Path) -> None:
    assert (
        found(project, "files: {sensor: ../src/sensor, ca.pem: ../certs/ca.pem}, stdin: {file: ../certs/ca.pem}")
        == []
    )


REFUSED = [
    ("files: {x: ../../secret}", 32, "`../../secret` is outside the project {root}", "--root DIR"),
    ("files: {x: ../src/out}", 32, "`../src/out` is a link that leads out of the project {root}", "copy there"),
    ("files: {x: ../src/away}", 32, "`../src/away` is a link that leads out of the project {root}", "copy there"),
    (
        "files: {x: ../src}",
        32,
        "`../src/away` is a link that leads out of the project, to {up}/nowhere",
        "replace it",
    ),
    ("files: {x: ../src/nothing}", 32, "`../src/nothing`: No such file or directory", "looked for in"),
    ("files: {x: ../pipe}", 32, "`../pipe` is a named pipe", "name what is beside it"),
    ("files: {x: ../sock}", 32, "`../sock` is a socket", "name what is beside it"),
    (
        "files: {x: ../round}",
        32,
        "`../round/a/back` is a link that leads back to {root}, which it",
        "remove the link",
    ),
    ("stdin: {file: ../src}", 35, "`../src` is no file", "{root}/src"),
    ("stdin: {file: ../../secret}", 35, "`../../secret` is outside the project {root}", "--root DIR"),
    ("files: {x: {text: hi}, x/y: {text: hi}}", 44, "`x/y`: /scenario/x would be both a file and a directory", ""),
    ("files: {x: ../certs, x/ca.pem/y: beside.txt}", 42, "/scenario/x/ca.pem would be both", ""),
    ("files: {x/ca.pem/y: beside.txt, x: ../certs}", 53, "/scenario/x/ca.pem would be both", ""),
]


@pytest.mark.parametrize(("text", "column", "message", "hint"), REFUSED, ids=[case[0] for case in REFUSED])
def test_what_a_run_would_trip_over_is_found_before_it(
    project: Path, monkeypatch: pytest.MonkeyPatch, text: str, column: int, message: str, hint: str
) -> None:
    (project / "src/out").symlink_to("../../secret")
    (project / "src/away").symlink_to("../../nowhere")
    os.mkfifo(project / "pipe")
    (project / "round/a").mkdir(parents=True)
    (project / "round/a/back").symlink_to("../..")
    listening = socket.socket(socket.AF_UNIX)
    monkeypatch.chdir(project)  # the path of a socket has at most 108 bytes
    listening.bind("sock")
    listening.close()
    problem, *_ = found(project, text)
    values = {"root": project, "up": project.parent}
    assert (problem.line, problem.column) == (3, column)
    assert message.format(**values) in problem.message, problem
    assert hint.format(**values) in problem.hint, problem


def test_what_is_wrong_with_a_path_is_said_once(project: Path) -> None:
    (problem,) = found(project, "files: {x: /etc/passwd}")
    assert "no relative path" in problem.message
    (problem,) = found(project, "files: [../certs/ca.pem]")
    assert problem.hint == "{ca.pem: ../certs/ca.pem}"


def test_files_of_a_saboteur_are_looked_at_too(project: Path) -> None:
    text = "testbed: 1\nabout: x\nhosts: {a: {run: x}}\nfails_when:\n  b: {hosts: {a: {files: {t: ../gone}}}}\n"
    path = project / "scenarios/lossy.yaml"
    (problem,) = inspect(text, str(path), Project.around(path.parent))[0]
    assert problem.message == "with `b` of fails_when: `../gone`: No such file or directory"


def test_without_a_mark_the_message_says_how_to_name_the_root(project: Path) -> None:
    (project / "pyproject.toml").unlink()
    (problem,) = found(project, "files: {x: ../certs/ca.pem}")
    assert "outside the project" in problem.message and "`.git`, `pyproject.toml`, `testbed.toml`" in problem.hint
    assert "--root DIR" in problem.hint
    assert found(project, "files: {x: ../certs/ca.pem}", root=project) == []


def test_many_troubles_of_one_directory_are_counted(project: Path) -> None:
    for number in range(8):
        (project / f"src/link-{number}").symlink_to("/etc/passwd")
    problems = [problem.message for problem in found(project, "files: {x: ../src}")]
    assert len(problems) == 6 and problems[-1] == "`../src` has 3 more that cannot go into a host"


def test_a_virtual_environment_in_a_directory_is_named(project: Path) -> None:
    (project / ".venv/bin").mkdir(parents=True)
    (project / ".venv/pyvenv.cfg").touch()
    (project / ".venv/bin/python").symlink_to("/usr/bin/python3")
    problem = found(project, "files: {x: ..}")[0]
    assert "`../.venv/bin/python` is a link that leads out" in problem.message and "`venv:`" in problem.hint


# directories that hosts are shown


MOUNTS = [
    ("volumes: [../src:/app:ro]", "", ""),
    ("volumes: [../nothing:/app:ro]", "`../nothing`: No such file or directory", "looked for in"),
    ("volumes: [../../:/app:ro]", "`../../` is outside the project {root}", "--root DIR"),
    ("volumes: [../out:/app:ro]", "`../out` is a link that leads out of the project {root}", "copy there"),
    (
        "volumes: [../certs/ca.pem:/app:ro]",
        "is no directory",
        "files: {{ca.pem: ../certs/ca.pem}}",
    ),
    ("volumes: [../pipes:/app:ro]", "`../pipes/pipe` is a named pipe", "name what is beside it"),
    ("volumes: [../src:/app:ro, ../certs:/app/sensor/data:ro]", "", ""),
    (
        "volumes: [../certs:/app/sensor/more:ro, ../src:/app:ro]",
        "no directory ../src/sensor/more",
        "what is on /app",
    ),
]


@pytest.mark.parametrize(("text", "message", "hint"), MOUNTS, ids=[case[0] for case in MOUNTS])
def test_what_a_mount_would_trip_over_is_found(project: Path, text: str, message: str, hint: str) -> None:
    (project / "out").symlink_to("..")
    (project / "src/out").symlink_to("../../secret")
    (project / "pipes").mkdir()
    os.mkfifo(project / "pipes/pipe")
    problems = found(project, text)
    if not message:
        assert problems == [], "a link in it that leads out is only a link, and is not followed"
        return
    (problem,) = problems
    assert (problem.line, problem.column) == (3, 22 + text.index("["))
    assert message.format(root=project) in problem.message and hint.format() in problem.hint, problem


def test_what_a_host_could_not_read_is_no_mount(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root runs it for somebody else: root in a host has no right to read what others keep to themselves."""
    (project / "src/key").write_text("secret")
    (project / "src/key").chmod(0o600)
    assert found(project, "volumes: [../src:/app:ro]") == []
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    monkeypatch.setattr(os, "getegid", lambda: os.getgid() + 1)
    monkeypatch.setattr(os, "getgroups", list)
    (problem,) = found(project, "volumes: [../src:/app:ro]")
    assert problem.message == "`../src/key` cannot be read" and "`chmod a+rX` it" in problem.hint
    assert found(project, "files: {x: ../src}") == [], "what is copied belongs to the host"


# how much


def test_more_than_a_host_holds_is_refused(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "FILES", 3)
    (problem,) = found(project, "files: {x: ../src}")
    assert problem.message == "`../src` has more than 3 files and directories"
    monkeypatch.setattr(tree, "FILES", 9)
    (problem,) = found(project, "files: {x: ../src, y: ../src}")
    assert problem.message == "with `../src`, more than 9 files and directories go into one host"


def test_more_than_1_gib_is_refused_and_a_file_with_holes_is_as_large_as_it_says(project: Path) -> None:
    with (project / "src/big").open("wb") as file:
        file.truncate((1 << 30) + 1)
    (problem,) = found(project, "files: {x: ../src}")
    assert problem.message == "`../src` has more than 1 GiB" and "name what it needs of it" in problem.hint


def test_a_listing_ends_where_it_is_too_much(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "FILES", 2)
    assert len(listing(str(project), str(project), follow=True).entries) == 3


# links


def test_links_are_followed_where_they_leave_what_is_copied_and_kept_within(project: Path) -> None:
    """As npm has it: node_modules/.bin/tool is a link, and the tool looks for its files where that leads."""
    lib = project / "src/lib"
    (lib / "tool").mkdir(parents=True)
    (lib / "tool/cli.js").write_text("x")
    (lib / ".bin").mkdir()
    (lib / ".bin/tool").symlink_to("../tool/cli.js")
    (lib / ".bin/absolute").symlink_to(lib / "tool/cli.js")
    (lib / "ca.pem").symlink_to("../../certs/ca.pem")
    (lib / "certs").symlink_to("../../certs")
    (project / "certs/again.pem").symlink_to("ca.pem")
    made = {entry.path: entry for entry in listing(str(lib), str(project), follow=True).entries}
    assert made[".bin/tool"][1:4] == ("link", "", "../tool/cli.js")
    assert made[".bin/absolute"][1:4] == ("link", "", "../tool/cli.js")
    assert made["ca.pem"][1:3] == ("file", f"{project}/certs/ca.pem")
    assert made["certs"].kind == "directory" and made["certs/ca.pem"].kind == "file"
    assert made["certs/again.pem"][1:4] == ("link", "", "ca.pem")
    assert listing(str(lib), str(project), follow=True).troubles == []


def test_a_directory_that_is_shown_keeps_its_links_wherever_they_lead(project: Path) -> None:
    (project / "src/out").symlink_to("/etc/passwd")
    made = listing(str(project / "src"), str(project), follow=False)
    assert [entry.leads_to for entry in made.entries if entry.kind == "link"] == ["/etc/passwd"]
    assert made.troubles == []


# the archive


def test_an_archive_has_modes_times_and_links_and_belongs_to_root(project: Path) -> None:
    os.utime(project / "src/sensor/__init__.py", (5, 1_600_000_000))
    (project / "src/sensor/tool").write_bytes(b"plain")
    (project / "src/sensor/tool").chmod(0o700)
    (project / "src/sensor/key").write_bytes(b"secret")
    (project / "src/sensor/key").chmod(0o600)
    (project / "src/sensor/link").symlink_to("tool")
    things = [*below("/scenario/sensor", listing(str(project / "src/sensor"), str(project), True)), ("/x", b"hi")]
    with pack(things) as packed, tarfile.open(fileobj=packed) as tar:
        made = {member.name: member for member in tar}
        assert {(member.uid, member.gid) for member in made.values()} == {(0, 0)}
        modes = {name.removeprefix("scenario/"): f"{member.mode:o}" for name, member in made.items()}
        assert modes == {
            "sensor": "755", "sensor/__init__.py": "644", "sensor/data": "755", "sensor/data/empty.bin": "644",
            "sensor/key": "644", "sensor/link": "777", "sensor/run": "755", "sensor/tool": "755", "x": "644",
        }  # fmt: skip
        assert made["scenario/sensor/__init__.py"].mtime == 1_600_000_000
        assert made["scenario/sensor/link"].linkname == "tool"
        assert tar.extractfile("x").read() == b"hi"  # type: ignore[union-attr]


def test_a_directory_that_is_there_anyway_is_left_as_it_is() -> None:
    entry = Entry("", "directory")
    things = [("/scenario", entry), ("/scenario/a", entry)]
    with pack(things, keep={"/scenario"}) as packed, tarfile.open(fileobj=packed) as tar:
        assert tar.getnames() == ["scenario/a"]


def test_a_file_that_became_a_link_meanwhile_is_not_read(project: Path) -> None:
    made = Listing([Entry("", "file", str(project / "src/swapped"))])
    (project / "src/swapped").symlink_to("../../secret")
    with pytest.raises(OSError, match="symbolic links"):
        pack(below("/x", made))
