"""A command that is not there: a scenario that requires it is skipped, else the message says what to write."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from testbed.errors import CapabilityError, CommandNotFound
from testbed.lookup import look_up, require
from testbed.plan import Plan, plan
from testbed.project.root import Project
from testbed.scenario import parse

TWO = """
testbed: 1
about: Programs that may be missing.
hosts:
  server: {serve: nginx -c x, ready: {answers: curl localhost}}
  client: {run: curl server}
"""


def planned(text: str) -> Plan:
    return plan(parse(text, "two.yaml"))


class There:
    """What is in hosts: names of commands, or (host, name). Remembers along which PATH it was asked."""

    def __init__(self, *commands: str | tuple[str, str]) -> None:
        self.commands, self.paths = commands, dict[str, str | None]()

    def __call__(self, host: str, command: str, path: str | None, directory: str) -> str | None:
        self.paths[host] = path
        there = command in self.commands or (host, command) in self.commands
        return (command if command.startswith("/") else f"/usr/bin/{command}") if there else None


def message(text: str, there: There, base_dir: Path, engine: str = "namespaces") -> str:
    with pytest.raises(CommandNotFound) as problem:
        look_up(planned(text), there, Project.around(base_dir), engine)
    return str(problem.value)


# what is not there


def test_whoever_lacks_commands_is_told_all_of_them_and_what_installs_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    said = message(TWO, There(), tmp_path)
    assert "server.server: no command 'nginx' (PATH=" in said
    assert "server.server, client.client: no command 'curl' (PATH=" in said
    assert "install it on the machine (namespaces; Debian: apt-get install curl nginx)" in said
    said = message(TWO.replace("curl server", "unknown"), There("nginx", "curl"), tmp_path)
    assert "install it on the machine (namespaces), use an" in said


def test_nothing_is_said_where_all_are_there(tmp_path: Path) -> None:
    look_up(planned(TWO), There("nginx", "curl"), Project.around(tmp_path), "namespaces")


ONE = "testbed: 1\nabout: x\nhosts: {a: {run: COMMAND}}\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a virtual environment, programs that were built, and a tool elsewhere."""
    for path in ("proj/.venv/bin/python", "proj/build/server", "proj/tests/client", "opt/tool/bin/tool"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("")
        (tmp_path / path).chmod(0o755)
    (tmp_path / "proj/.venv/pyvenv.cfg").touch()
    (tmp_path / "proj/pyproject.toml").touch()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/link").symlink_to("../opt/tool/bin/tool")
    monkeypatch.setenv("PATH", f"{tmp_path}/opt/tool/bin:{tmp_path}/bin")
    return tmp_path / "proj/tests"


@pytest.mark.parametrize(
    ("command", "what", "engine"),
    [
        (
            "PROJ/.venv/bin/python x.py",
            "write `venv: ../.venv` beside it, and `python` as the command",
            "namespaces",
        ),
        (
            "../.venv/bin/python x.py",
            "write `venv: ../.venv` beside it, and `python` as the command",
            "namespaces",
        ),
        ("./client", "hosts get what `files` names: `files: [client]`, `./client`", "namespaces"),
        ("./client", "hosts get what `files` names: `files: [client]`, `./client`", "docker"),
        ("client", "hosts get what `files` names: `files: [client]`, `./client`", "namespaces"),
        ("../build/server", "`files: {server: ../build/server}` and `./server`", "namespaces"),
        ("tool --help", "opt/tool/bin/tool, which hosts do not see", "namespaces"),
        ("tool --help", "no home, /opt or /tmp: install it there, as below /usr/local", "namespaces"),
        ("link", "opt/tool/bin/tool). They see /usr", "namespaces"),
        ("tool --help", "a host has what its image has: use `files:`, `build:` or `image:`", "docker"),
        ("PROJ/.venv/bin/python x.py", "a host has what its image has", "docker"),
    ],
)
def test_a_command_of_the_machine_that_a_host_does_not_see(
    command: str, what: str, engine: str, project: Path
) -> None:
    text = ONE.replace("COMMAND", command.replace("PROJ", str(project.parent)))
    said = message(text, There(), project, engine)
    assert what in said
    assert "apt-get" not in said and "install it on the machine" not in said
    assert ("venv:" in said) == ("venv" in what)


def test_nothing_is_offered_that_would_be_refused_because_it_lies_outside_the_project(project: Path) -> None:
    said = message(ONE.replace("COMMAND", "tool"), There(), project)
    assert f"put it into the project, {project.parent}, and name it in `files:`" in said and "../" not in said
    (project.parent / "pyproject.toml").unlink()
    said = message(ONE.replace("COMMAND", f"{project.parent}/.venv/bin/python"), There(), project)
    assert f"`venv` uses one that lies in the project, {project}, or name its root with --root" in said


def test_a_command_that_is_seen_and_not_on_the_path_of_hosts(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/usr/lib/apt")
    assert os.access("/usr/lib/apt/apt-helper", os.X_OK)
    said = message(ONE.replace("COMMAND", "apt-helper"), There(), project)
    assert "it is at /usr/lib/apt/apt-helper: write that path" in said


SCRIPT = "testbed: 1\nabout: x\nhosts: {a: {run: ./go, files: {go: FILE}}}\n"


@pytest.mark.parametrize(
    "line", ["#!PROJ/.venv/bin/python\n", "#! PROJ/.venv/bin/python -u\nx", "#!PROJ/.venv/bin/python"]
)
@pytest.mark.parametrize("copied", [True, False])
def test_a_script_whose_interpreter_a_host_does_not_see(line: str, copied: bool, project: Path) -> None:
    script = line.replace("PROJ", str(project.parent))
    (project / "go.py").write_text(script)
    file = "go.py" if copied else "{text: " + repr(script).replace("'", '"') + "}"
    there = There("./go")
    said = message(SCRIPT.replace("FILE", file), lambda *words: "/scenario/go" if there(*words) else None, project)  # type: ignore[arg-type]
    assert f"a.a: no command '{project.parent}/.venv/bin/python' (./go begins with #!)" in said
    assert "write `venv: ../.venv` beside it" in said


@pytest.mark.parametrize(
    "line", ["#!/usr/bin/env python3", "#!/usr/bin/env -S A=b python3 -u", "\x7fELF", "", "#!"]
)
def test_a_script_whose_interpreter_is_there_and_what_is_no_script(line: str, project: Path) -> None:
    (project / "go.py").write_text(line)
    there = There("./go", "python3")
    look_up(
        planned(SCRIPT.replace("FILE", "go.py")),
        lambda *w: "/scenario/go" if there(*w) else None,
        Project.around(project),
        "docker",
    )


# what is required


def reason(text: str, there: There, engine: str = "namespaces") -> str:
    try:
        require(planned(text), there, engine)
    except CapabilityError as problem:
        return str(problem)
    return ""


@pytest.mark.parametrize("command", ["./tool -x", "sh -c './tool -x'", "/app/tool"])
def test_a_command_that_is_required_may_be_where_its_program_calls_it(command: str) -> None:
    """It came with `files` or `volumes`, and is along no PATH."""
    text = ONE.replace("COMMAND", command).replace("hosts:", "requires: [command:tool]\nhosts:")
    require(planned(text), There("./tool", "/app/tool"), "namespaces")
    require(planned(text), There("tool"), "namespaces")
    with pytest.raises(CapabilityError, match="it requires the command tool"):
        require(planned(text), There("sh"), "namespaces")


def test_a_command_that_is_required_and_not_there_is_a_reason_to_skip() -> None:
    text = TWO + "requires: [command:nginx, 'command:curl']\n"
    assert reason(text, There("nginx", "curl")) == ""
    assert reason(text, There("curl")) == (
        "it requires the command nginx, which this machine does not have: apt-get install nginx"
    )
    assert reason(text, There()) == (
        "it requires the commands nginx, curl, which this machine does not have: apt-get install curl nginx"
    )
    assert (
        reason(text, There("curl"), "docker")
        == "it requires the command nginx, which our node image does not have"
    )
    assert reason(TWO + "requires: [root]\n", There()) == ""


FOREIGN = """
testbed: 1
about: One host is of another image.
requires: ['command:redis-cli']
hosts:
  cache: {image: redis, serve: redis-server, ready: {answers: redis-cli ping}}
  client: {run: COMMAND}
"""


def test_it_is_asked_in_the_hosts_that_name_it_along_their_own_path() -> None:
    text = FOREIGN.replace("COMMAND", "nc -z cache 6379")
    there = There(("cache", "redis-cli"))
    assert reason(text, there, "docker") == ""
    assert there.paths == {"cache": None}, "the PATH of its image"
    assert reason(text, There(("client", "redis-cli")), "docker") == (
        "it requires the command redis-cli, which the image of cache does not have"
    )


@pytest.mark.parametrize(
    "command", ["sh -c 'redis-cli -h cache ping'", "/usr/bin/redis-cli -h cache", "sh -c 'x|redis-cli'"]
)
def test_every_host_that_names_it_needs_it(command: str) -> None:
    text = FOREIGN.replace("COMMAND", f'"{command}"')
    assert reason(text, There(("cache", "redis-cli")), "docker") == (
        "it requires the command redis-cli, which our node image does not have"
    )
    assert reason(text, There("redis-cli"), "docker") == ""


def test_where_no_command_names_it_one_host_must_have_it() -> None:
    text = FOREIGN.replace("redis-cli", "openssl").replace("answers: openssl ping", "listens: 6379")
    text = text.replace("COMMAND", "./probe")
    assert reason(text, There(("client", "openssl")), "docker") == reason(text, There(("cache", "openssl"))) == ""
    assert "openssl" in reason(text, There())
