"""Which trees of a machine a virtual environment needs, and what it must not get a host to see."""

from __future__ import annotations

import json
import os
import pwd
import sys
from pathlib import Path

import pytest

from testbed.project import venv
from testbed.project.root import Project, Refused
from testbed.project.venv import environment
from testbed.requirements import unmet
from testbed.runner import plan
from testbed.scenario import inspect, parse


class Machine:
    """A home with pyenv's Python, and a project with an environment over it. All of it below `root`."""

    def __init__(self, root: Path) -> None:
        self.home = root / "home/anna"
        self.prefix = self.python(self.home / ".pyenv/versions/3.11.7")
        self.project = self.home / "project"
        self.venv = self.project / ".venv"
        self.site = self.venv / "lib/python3.11/site-packages"
        self.site.mkdir(parents=True)
        (self.project / "pyproject.toml").touch()
        (self.project / "scenarios").mkdir()
        (self.project / "src/sensor").mkdir(parents=True)
        self.over(self.prefix)

    def python(self, prefix: Path) -> Path:
        """An interpreter, as far as its files show."""
        (prefix / "bin").mkdir(parents=True)
        (prefix / "bin/python3.11").write_text("#!\n")
        (prefix / "bin/python3.11").chmod(0o755)
        (prefix / "bin/python3").symlink_to("python3.11")
        (prefix / "lib/python3.11").mkdir(parents=True)
        (prefix / "lib/python3.11/os.py").touch()
        return prefix

    def over(self, prefix: Path, target: Path | None = None) -> None:
        (self.venv / "bin").mkdir(exist_ok=True)
        (self.venv / "bin/python").unlink(missing_ok=True)
        (self.venv / "bin/python").symlink_to(target or prefix / "bin/python3")
        (self.venv / "pyvenv.cfg").write_text(f"home = {prefix}/bin\nversion = 3.11.7\n")

    def trees(self, root: Path | None = None) -> list[tuple[str, str]]:
        return environment(Project.around(self.project / "scenarios", root), "../.venv").trees

    def refused(self) -> Refused:
        with pytest.raises(Refused) as raised:
            self.trees()
        return raised.value


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path)
    monkeypatch.setenv("HOME", str(made.home))
    return made


def both(*paths: Path) -> list[tuple[str, str]]:
    return [(str(path), str(path)) for path in paths]


def test_a_host_sees_the_environment_and_the_interpreter_and_nothing_else_of_a_home(machine: Machine) -> None:
    assert machine.trees() == both(machine.venv, machine.prefix)


def test_an_interpreter_that_hosts_see_anyway_is_not_shown_again(machine: Machine) -> None:
    (machine.venv / "pyvenv.cfg").write_text("home = /usr/bin\n")
    (machine.venv / "bin/python").unlink()
    (machine.venv / "bin/python").symlink_to("/usr/bin/env")
    assert machine.trees() == both(machine.venv)


def test_an_interpreter_that_is_called_by_a_link_is_shown_by_that_too(machine: Machine) -> None:
    """As uv has them: cpython-3.11 is a link to cpython-3.11.7."""
    called = machine.home / ".local/share/uv/python/cpython-3.11"
    real = machine.python(called.with_name("cpython-3.11.7"))
    called.symlink_to(real.name)
    machine.over(called, called / "bin/python3.11")
    assert machine.trees() == [*both(machine.venv, real), (str(real), str(called))]
    machine.over(real, called / "bin/python3.11")
    assert machine.trees() == [*both(machine.venv, real), (str(real), str(called))], "only its link is called so"


def test_an_environment_that_calls_itself_by_a_link_is_found_there_too(machine: Machine) -> None:
    (machine.home / "link").symlink_to(machine.project)
    (machine.venv / "bin/activate").write_text(f'VIRTUAL_ENV="{machine.home}/link/.venv"\n')
    assert (str(machine.venv), f"{machine.home}/link/.venv") in machine.trees()
    (machine.venv / "bin/activate").write_text('VIRTUAL_ENV="/etc"\n')
    assert machine.trees() == both(machine.venv, machine.prefix)


# what it must not show


SECRETS = [".ssh", ".ssh/bin", ""]


@pytest.mark.parametrize("secret", SECRETS)
def test_what_is_no_interpreter_is_not_shown(machine: Machine, secret: str) -> None:
    (machine.home / ".ssh/bin").mkdir(parents=True)
    (machine.home / ".ssh/id_ed25519").write_text("secret")
    home = machine.home / secret
    (machine.venv / "pyvenv.cfg").write_text(f"home = {home}\n")
    problem = machine.refused()
    assert "there is no interpreter of Python" in problem.message and "python3 -m venv --clear" in problem.hint


def test_a_directory_is_no_interpreter_for_what_a_link_in_it_leads_to(machine: Machine) -> None:
    secret = machine.home / ".ssh"
    (secret / "bin").mkdir(parents=True)
    (secret / "lib").symlink_to(machine.prefix / "lib")
    (secret / "bin/python3.11").symlink_to(machine.prefix / "bin/python3.11")
    machine.over(secret)
    assert "there is no interpreter of Python" in machine.refused().message


def test_a_home_that_python_was_installed_into_is_not_shown(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.python(machine.home)
    machine.over(machine.home)
    assert "installed into the home" in machine.refused().message
    monkeypatch.setenv("HOME", "/root")  # root runs it for anna
    entry = pwd.struct_passwd(("anna", "x", 1000, 1000, "", str(machine.home), "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwall", lambda: [entry])
    assert "installed into the home" in machine.refused().message


def test_a_link_to_something_else_is_no_interpreter(machine: Machine) -> None:
    other = machine.python(machine.home / "other")
    machine.over(machine.prefix, other / "bin/python3")
    assert f"leads to {other}/bin/python3.11, which is not in {machine.prefix}" in machine.refused().message


def test_what_is_no_environment_or_lost_its_interpreter_says_so(machine: Machine) -> None:
    (machine.prefix / "bin/python3.11").rename(machine.prefix / "bin/python3.12")
    assert "there is no interpreter" in machine.refused().message
    (machine.venv / "pyvenv.cfg").write_text("home = /gone/bin\n")
    assert "has its interpreter in /gone/bin, and it is not there" in machine.refused().message
    (machine.venv / "bin/python").unlink()
    assert "no whole virtual environment" in machine.refused().message
    (machine.venv / "pyvenv.cfg").unlink()
    problem = machine.refused()
    assert "it has no pyvenv.cfg" in problem.message and "python3 -m venv ../.venv" in problem.hint


def test_settings_that_are_a_link_out_of_the_project_are_not_read(machine: Machine) -> None:
    outside = machine.home / "secret.cfg"
    outside.write_text((machine.venv / "pyvenv.cfg").read_text())
    (machine.venv / "pyvenv.cfg").unlink()
    (machine.venv / "pyvenv.cfg").symlink_to(outside)
    assert "it has no pyvenv.cfg" in machine.refused().message


def test_a_link_over_another_one_that_hosts_do_not_see_is_named(machine: Machine) -> None:
    """A link of a host leads where its own file system has something, and each step must be there."""
    (machine.project / "other").mkdir()
    (machine.project / "other/python").symlink_to(machine.prefix / "bin/python3")
    machine.over(machine.prefix, target=Path("../../other/python"))
    problem = machine.refused()
    assert (
        problem.message
        == f"`../.venv/bin/python` is a link over {machine.project}/other/python, which hosts do not see"
    )
    assert problem.hint == f"make it lead to {machine.prefix}/bin/python3.11 itself"


def test_a_part_that_hosts_do_not_see_is_named(machine: Machine) -> None:
    """What `uv pip install --link-mode=symlink` makes."""
    cached = machine.home / ".cache/uv/thing.py"
    cached.parent.mkdir(parents=True)
    cached.touch()
    (machine.site / "thing.py").symlink_to(cached)
    problem = machine.refused()
    assert f"is a link to {cached}, which hosts do not see" in problem.message
    assert "../.venv/lib/python3.11/site-packages/thing.py" in problem.message and "link-mode" in problem.hint


# what was installed with -e


def test_sources_that_a_pth_file_names_are_shown(machine: Machine) -> None:
    (machine.site / "__editable__.sensor-1.pth").write_text(f"# x\nimport os\n/gone\n{machine.project}/src\n")
    assert machine.trees() == both(machine.venv, machine.prefix, machine.project / "src")


def test_sources_that_a_finder_names_are_shown(machine: Machine) -> None:
    (machine.site / "__editable__.sensor-1.pth").write_text("import __editable___sensor_finder; x()\n")
    finder = f"MAPPING: dict[str, str] = {{'sensor': '{machine.project}/src/sensor'}}\n"
    (machine.site / "__editable___sensor_1_finder.py").write_text(finder)
    assert machine.trees() == both(machine.venv, machine.prefix, machine.project / "src/sensor")


def test_sources_with_a_loader_of_their_own_are_shown_whole(machine: Machine) -> None:
    info = machine.site / "sensor-1.dist-info/direct_url.json"
    info.parent.mkdir()
    url = {"url": f"file://{machine.project}/src", "dir_info": {"editable": True}}
    info.write_text(json.dumps(url))
    assert machine.trees() == both(machine.venv, machine.prefix, machine.project / "src")
    info.write_text(json.dumps(url | {"dir_info": {}}))
    assert machine.trees() == both(machine.venv, machine.prefix)
    info.write_text("[" * 100_000)
    assert machine.trees() == both(machine.venv, machine.prefix)


def test_what_is_the_whole_project_has_the_environment_in_it(machine: Machine) -> None:
    (machine.site / "_sensor.pth").write_text(f"{machine.project}\n")
    assert machine.trees() == both(machine.prefix, machine.project)


def test_sources_outside_the_project_are_refused_and_the_root_that_holds_both_is_named(machine: Machine) -> None:
    other = machine.home / "other/src"
    other.mkdir(parents=True)
    (machine.site / "__editable__.other-1.pth").write_text(f"{other}\n")
    problem = machine.refused()
    assert f"installed with -e from {other}, outside the project" in problem.message
    assert f"--root {machine.home}" in problem.hint
    assert machine.trees(machine.home)[-1] == (str(other), str(other))


# where it can be


def test_check_finds_it_at_its_place(machine: Machine) -> None:
    (machine.venv / "pyvenv.cfg").unlink()
    text = "testbed: 1\nabout: x\nhosts: {a: {run: x, venv: ../.venv}}\n"
    path = machine.project / "scenarios/x.yaml"
    (problem,) = inspect(text, str(path), Project.around(path.parent))[0]
    assert (problem.line, problem.column) == (3, 27) and "no virtual environment" in problem.message


def test_docker_has_no_such_interpreter_and_the_file_is_skipped() -> None:
    scenario = parse("testbed: 1\nhosts: {a: {run: x, venv: ../.venv}}\n", "x.yaml")
    (reason,) = unmet(plan(scenario), "docker")
    assert "`venv:` needs the namespaces engine" in reason and "a.a" in reason and "`build:`" in reason
    assert unmet(plan(scenario), "namespaces") == []
    assert "namespaces" in scenario.engines, "so `auto` does not choose docker"


def test_no_engine_has_both_an_image_and_an_environment() -> None:
    text = "testbed: 1\nabout: x\nhosts: {a: {run: x, venv: ../.venv}, b: {image: nginx}}\n"
    (problem,) = inspect(text, "x.yaml")[0]
    assert problem.message == "no engine has both `venv` and the `image` of a host"


def test_every_prefix_of_this_machine_is_one(tmp_path: Path) -> None:
    assert venv._is_prefix(os.path.realpath(sys.base_prefix))
