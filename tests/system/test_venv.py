"""Virtual environments in hosts: made by venv and by uv, over the machine's Python and one that lies elsewhere.

On namespaces, as root and as whoever runs these tests. What is installed comes from PyPI; without it these are
skipped by name.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from testbed.engines.namespaces import base_interpreter
from tests.command import said, testbed
from tests.conftest import missing

PACKAGE = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "sensor"
version = "1"
[project.scripts]
sensor = "sensor:main"
"""
SENSOR = """
import json, os, sys
def main():
    import six
    reads = lambda path: os.path.exists(path)
    print(json.dumps({
        "prefix": sys.prefix, "environment": os.environ["VIRTUAL_ENV"], "six": six.__file__, "own": __file__,
        "first": os.environ["PATH"].split(":")[0], "secret": any(map(reads, sys.argv[1:])),
    }))
"""


def command(*words: str | Path, cwd: Path | None = None) -> None:
    done = subprocess.run([*map(str, words)], cwd=cwd, capture_output=True, text=True)
    if done.returncode != 0 and "pip" in words and "onnection" in done.stderr:
        missing("pypi", done.stderr.strip()[-300:])
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def uv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("uv")
    command(sys.executable, "-m", "venv", where)
    command(where / "bin/python", "-m", "pip", "install", "-q", "uv")
    return where / "bin/uv"


def interpreter(which: str) -> str:
    """The machine's own one or one that lies elsewhere, in a home as pyenv's."""
    usual = shutil.which("python3", path="/usr/local/bin:/usr/bin")
    if which == "machine":
        return usual or missing("interpreter", "no python3 of the machine") or ""
    own = base_interpreter()
    if own.startswith("/usr"):
        missing("interpreter", "the tests' own Python is the machine's, none lies elsewhere")
    return own


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    (root / "src/sensor").mkdir(parents=True)
    (root / "scenarios").mkdir()
    (root / "pyproject.toml").write_text(PACKAGE)
    (root / "src/sensor/__init__.py").write_text(SENSOR)
    (tmp_path / "secret").write_text("secret")
    return root


def run(project: Path, text: str, engine: str = "namespaces", *more: str) -> subprocess.CompletedProcess[str]:
    path = project / "scenarios/own.yaml"
    path.write_text(f"testbed: 1\nabout: Own code.\n{text}")
    return testbed("run", path, "--engine", engine, "--results", project / "results", *more, cwd=project)


def the_sensor(project: Path) -> str:
    """A scenario in which the command of the package, installed with -e, finds its modules and no secret."""
    home = Path.home()
    secrets = [project.parent / "secret", home / ".ssh", home / ".bashrc", home / ".profile", home / ".cache"]
    there = " ".join(str(path) for path in secrets if path.exists())
    venv = project / ".venv"
    return f"""hosts:
  a: {{run: sensor {there}, venv: ../.venv}}
  b: {{run: python -c 'import sensor; sensor.main()', venv: ../.venv}}
expect:
  - a.prefix == "{venv}"
  - a.environment == "{venv}"
  - a.first == "{venv}/bin"
  - a.own == "{project}/src/sensor/__init__.py"
  - a.six contains "{venv}/lib"
  - a.secret == false
"""


@pytest.mark.parametrize("which", ["machine", "elsewhere"])
def test_what_venv_makes_works_with_an_editable_install(project: Path, namespaces_work: None, which: str) -> None:
    command(interpreter(which), "-m", "venv", project / ".venv")
    command(project / ".venv/bin/python", "-m", "pip", "install", "-q", "setuptools>=70", "six")
    command(
        project / ".venv/bin/python", "-m", "pip", "install", "-q", "--no-build-isolation", "-e", ".", cwd=project
    )
    done = run(project, the_sensor(project))
    assert done.returncode == 0, said(done)


@pytest.mark.parametrize("which", ["machine", "elsewhere"])
def test_what_uv_makes_works_with_an_editable_install(
    project: Path, namespaces_work: None, uv: Path, which: str
) -> None:
    command(uv, "venv", "-q", "--python", interpreter(which), project / ".venv")
    python = project / ".venv/bin/python"
    command(uv, "pip", "install", "-q", "--python", python, "setuptools>=70", "six")
    command(uv, "pip", "install", "-q", "--python", python, "--no-build-isolation", "-e", ".", cwd=project)
    done = run(project, the_sensor(project))
    assert done.returncode == 0, said(done)


def test_it_is_read_only_and_its_programs_are_found_without_a_path(project: Path, namespaces_work: None) -> None:
    command(interpreter("elsewhere"), "-m", "venv", project / ".venv")
    text = """hosts:
  a:
    programs:
      pip: {run: pip --version, venv: ../.venv}
      write: {run: sh -c 'echo x > $VIRTUAL_ENV/x; test ! -e $VIRTUAL_ENV/x', venv: ../.venv}
      other: {run: sh -c 'test -z "$VIRTUAL_ENV"'}
expect: [a.pip.stdout contains ".venv/lib", a.write.stderr contains "Read-only file system"]
""".replace("$VIRT", "$$VIRT")
    done = run(project, text)
    assert done.returncode == 0, said(done)
    assert not (project / ".venv/x").exists()


def test_docker_skips_it_and_says_why(project: Path, docker_daemon: str, namespaces_work: None) -> None:
    command(sys.executable, "-m", "venv", "--without-pip", project / ".venv")
    text = "hosts: {a: {run: python -c 'print(1)', venv: ../.venv}}\n"
    done = run(project, text, "docker")
    assert done.returncode == 4 and "`venv:` needs the namespaces engine" in done.stdout, said(done)
    done = run(project, text, "auto")
    assert done.returncode == 0 and "engine namespaces: the scenario requires it" in done.stderr, said(done)


def test_a_hostile_environment_shows_nothing(project: Path, namespaces_work: None) -> None:
    """As root on behalf of a file by a stranger: its `home` points at a secret."""
    command(sys.executable, "-m", "venv", "--without-pip", project / ".venv")
    secret = project.parent / "keys"
    (secret / "bin").mkdir(parents=True)
    (secret / "bin/id_ed25519").write_text("secret")
    settings = project / ".venv/pyvenv.cfg"
    settings.write_text(f"home = {secret}/bin\n")
    done = run(project, f"hosts: {{a: {{run: cat {secret}/bin/id_ed25519, venv: ../.venv}}}}\n")
    assert done.returncode == 2 and "there is no interpreter of Python" in done.stderr, said(done)
    assert not (project / "results").exists()


QUIC = """
import asyncio, json, ssl, sys
from aioquic.asyncio import connect, serve
from aioquic.quic.configuration import QuicConfiguration

async def client(host):
    configuration = QuicConfiguration(is_client=True, alpn_protocols=["echo"])
    configuration.verify_mode = ssl.CERT_NONE
    async with connect(host, 4433, configuration=configuration) as connection:
        reader, writer = await connection.create_stream()
        writer.write(b"x" * 20_000)
        writer.write_eof()
        print(json.dumps({"echoed": len(await reader.read())}))

def echo(reader, writer):
    async def work():
        writer.write(await reader.read())
        writer.write_eof()
    tasks.append(asyncio.ensure_future(work()))

tasks = []

async def server():
    configuration = QuicConfiguration(is_client=False, alpn_protocols=["echo"])
    configuration.load_cert_chain("cert.pem", "key.pem")
    await serve("0.0.0.0", 4433, configuration=configuration, stream_handler=echo)
    await asyncio.Future()

asyncio.run(client(sys.argv[1]) if len(sys.argv) > 1 else server())
"""


def test_a_real_quic_client_and_server_from_pypi(project: Path, namespaces_work: None) -> None:
    if not shutil.which("openssl"):
        missing("openssl", "no `openssl` to make a certificate with: apt-get install openssl")
    command(sys.executable, "-m", "venv", project / ".venv")
    command(project / ".venv/bin/python", "-m", "pip", "install", "-q", "aioquic")
    (project / "src/quic.py").write_text(QUIC)
    subject = ["-subj", "/CN=server", "-days", "2", "-nodes", "-newkey", "rsa:2048"]
    command("openssl", "req", "-x509", *subject, "-keyout", project / "key.pem", "-out", project / "cert.pem")
    text = """hosts:
  server:
    serve: python quic.py
    venv: ../.venv
    files: {quic.py: ../src/quic.py, cert.pem: ../cert.pem, key.pem: ../key.pem}
  client: {run: python quic.py server, venv: ../.venv, files: {quic.py: ../src/quic.py}}
links: {client <-> server: {delay: 20 ms, loss: 5 %}}
expect: [client.echoed == 20000, client->server.delivered > 10]
"""
    done = run(project, text)
    assert done.returncode == 0, said(done)


def test_whose_they_are_does_not_matter(project: Path, namespaces_work: None) -> None:
    """Root runs it in somebody else's project: root in a host reads what everybody may."""
    if os.geteuid() != 0:
        missing("root", "only root can give files away")
    command(interpreter("machine"), "-m", "venv", "--without-pip", project / ".venv")
    for path in (project, *project.rglob("*")):
        os.chown(path, 54321, 54321, follow_symlinks=False)
    text = "hosts: {a: {run: python -c 'print(1)', venv: ../.venv}}\n"
    done = run(project, text)
    assert done.returncode == 0, said(done)
    (project / ".venv/lib").chmod(0o700)
    done = run(project, text)
    assert done.returncode == 2 and "cannot be read" in done.stderr, said(done)
