"""People's own files in a host, on every engine: a package in src/, certificates beside it, what npm installs."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from testbed.engines.docker_client import connect
from testbed.engines.docker_image import node_image
from tests.command import said, testbed
from tests.conftest import missing

HELLO = """
import json, os, sys
from sensor.parts.words import greeting

shown = {name: f"{os.stat(name).st_mode & 0o7777:o} {os.stat(name).st_uid}" for name in sys.argv[1:]}
print(json.dumps({"said": greeting(), "mtime": int(os.stat(__file__).st_mtime), **shown}))
"""


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return write(
        tmp_path / "project",
        {
            "pyproject.toml": "",
            "certs/ca.pem": "a certificate\n",
            "src/sensor/__init__.py": "",
            "src/sensor/__main__.py": HELLO,
            "src/sensor/parts/__init__.py": "",
            "src/sensor/parts/words.py": "def greeting(): return 'hello'\n",
            "src/sensor/tool": "plain",
            "src/sensor/key": "secret",
            "src/sensor/empty/.keep": "",
        },
    )


def run(project: Path, engine: str, text: str, name: str = "own", *words: str) -> subprocess.CompletedProcess[str]:
    path = (
        write(project, {f"tests/net/{name}.yaml": f"testbed: 1\nabout: Own code.\n{text}"})
        / f"tests/net/{name}.yaml"
    )
    return testbed("run", path, "--engine", engine, "--results", project / "results", *words, cwd=project)


def test_a_package_above_the_scenario_runs_in_a_host(project: Path, engine: str) -> None:
    (project / "src/sensor/tool").chmod(0o700)
    (project / "src/sensor/key").chmod(0o600)
    (project / "src/sensor/link").symlink_to("parts/words.py")
    done = run(
        project,
        engine,
        """hosts:
  a:
    programs:
      main:
        run: python3 -m sensor sensor/tool sensor/key sensor/empty sensor/link ca.pem
        files: {sensor: ../../src/sensor, ca.pem: ../../certs/ca.pem}
      linked: {run: readlink sensor/link, after: main}
      again: {run: cat elsewhere/words.py, after: main, files: {elsewhere: ../../src/sensor/parts}}
expect:
  - a.main.said == hello
  - a.main.mtime == 1600000000
  - a.linked.stdout contains "parts/words.py"
  - a.again.stdout contains "greeting"
""".replace("mtime == 1600000000", f"mtime == {int((project / 'src/sensor/__main__.py').stat().st_mtime)}"),
    )
    assert done.returncode == 0, said(done)
    shown = json.loads((project / "results/own/latest/programs/a.main.stdout").read_text())
    assert {name: shown[name] for name in ("sensor/tool", "sensor/key", "sensor/empty", "ca.pem")} == {
        "sensor/tool": "755 0", "sensor/key": "644 0", "sensor/empty": "755 0", "ca.pem": "644 0",
    }  # fmt: skip


def test_thousands_of_files_come_as_one_archive(project: Path, engine: str) -> None:
    """And to every member of a group. That one exec a file would take minutes shows that they do not."""
    for number in range(3000):
        place = project / f"data/{number % 50}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.txt").write_text(f"{number}\n")
    text = "hosts:\n  a: {count: 3, run: sh -c 'find data -type f | wc -l', files: {data: ../../data}}\n"
    done = run(project, engine, text + 'expect: [a.stdout contains "3000"]\n')
    assert done.returncode == 0, said(done)


def test_what_npm_installs_works(project: Path, namespaces_work: None) -> None:
    """node_modules/.bin/tool is a link, and what it leads to looks for its files beside where it really is."""
    if not shutil.which("node", path="/usr/local/bin:/usr/bin:/bin"):
        missing("node", "no `node` where hosts see it: apt-get install nodejs")
    write(
        project,
        {
            "web/node_modules/answer/package.json": '{"name": "answer", "main": "lib/index.js", "bin": "cli.js"}',
            "web/node_modules/answer/lib/index.js": "module.exports = 42",
            "web/node_modules/answer/cli.js": "#!/usr/bin/env node\nconsole.log(require('./lib') + 1)\n",
            "web/main.js": "console.log(require('answer'))",
        },
    )
    (project / "web/node_modules/answer/cli.js").chmod(0o755)
    (project / "web/node_modules/.bin").mkdir()
    (project / "web/node_modules/.bin/answer").symlink_to("../answer/cli.js")
    text = """hosts:
  a:
    programs:
      main: {run: node web/main.js, files: {web: ../../web}}
      tool: {run: web/node_modules/.bin/answer, after: main}
expect: [a.main.stdout contains "42", a.tool.stdout contains "43"]
"""
    done = run(project, "namespaces", text)
    assert done.returncode == 0, said(done)


def test_what_leads_out_of_the_project_is_refused_before_anything_is_built(project: Path, engine: str) -> None:
    write(project.parent, {"secret": "a secret"})
    (project / "src/sensor/out").symlink_to("../../../secret")
    text = "hosts: {a: {run: cat sensor/out, files: {sensor: ../../src/sensor}}}\n"
    done = run(project, engine, text)
    assert done.returncode == 2 and not (project / "results").exists(), said(done)
    assert "`../../src/sensor/out` is a link that leads out of the project" in done.stderr
    for command in ("check", "plan"):
        done = testbed(command, project / "tests/net/own.yaml", cwd=project)
        assert done.returncode == 2 and "leads out" in done.stderr, said(done)


def test_the_root_can_be_named_and_is_not_the_scenarios_to_choose(project: Path, engine: str) -> None:
    (project / "pyproject.toml").unlink()
    text = "hosts: {a: {run: cat ca.pem, files: {ca.pem: ../../certs/ca.pem}}}\n"
    done = run(project, engine, text)
    assert done.returncode == 2 and "--root DIR" in done.stderr, said(done)
    done = run(project, engine, text, "own", "--root", str(project))
    assert done.returncode == 0, said(done)
    done = run(project, engine, text, "own", "--root", str(project), "--jobs", "2")
    assert done.returncode == 0, said(done)
    done = run(project, engine, text, "own", "--root", str(project / "certs"))
    assert done.returncode == 2 and "it is not below" in done.stderr, said(done)


def test_a_directory_is_shown_in_its_place_and_read_only(project: Path, engine: str) -> None:
    write(project.parent, {"secret": "a secret"})
    (project / "src/sensor/out").symlink_to(project.parent / "secret")
    (project / "src/sensor/link").symlink_to("parts/words.py")
    (project / "src/sensor/tool").write_text("#!/bin/sh\necho ran\n")
    (project / "src/sensor/tool").chmod(0o750)
    (project / "src/data").mkdir()
    places = "/app/x /app/sensor/__init__.py /srv/again/x"
    script = f"for path in {places}; do echo x > $path; done 2>&1; rm /app/sensor/key 2>&1; true"
    (project / "src/sensor/write").write_text(script)
    text = """volumes: {spool: }
hosts:
  a:
    volumes: [spool:/app/data, ../../src:/app:ro, ../../src:/srv/again:ro, ../../certs:/app/sensor/empty:ro]
    programs:
      main: {run: python3 -B -m sensor /app/sensor/tool, working_dir: /app}
      tool: {run: sensor/tool, working_dir: /app}
      link: {run: cat /app/sensor/link /srv/again/sensor/link /app/sensor/empty/ca.pem}
      out: {run: sh -c 'cat /app/sensor/out || echo not there'}
      write: {run: sh /srv/again/sensor/write}
      spool: {run: sh -c 'echo x > /app/data/x'}
      flags: {run: grep ' /app ' /proc/self/mounts}
  b: {volumes: [../../src:/app:ro], run: cat /app/sensor/key}
expect:
  - a.main.said == hello
  - a.tool.stdout contains "ran"
  - a.link.stdout contains "a certificate"
  - a.out.stdout contains "not there"
  - a.write.stdout contains "Read-only file system"
  - a.flags.stdout contains " ro,"
"""
    done = run(project, engine, text)
    assert done.returncode == 0, said(done)
    refused = (project / "results/own/latest/programs/a.write.stdout").read_text()
    assert refused.count("Read-only file system") == 4, refused
    flags = (project / "results/own/latest/programs/a.flags.stdout").read_text()
    assert engine == "docker" or "ro,nosuid,nodev" in flags, "with docker a copy has no such bits and no devices"
    assert (project / "results/own/latest/programs/a.link.stdout").read_text().count("hello") == 2
    assert (project / "src/sensor/key").read_text() == "secret"


def test_a_mount_that_has_no_place_says_where_to_put_it(project: Path, namespaces_work: None) -> None:
    done = run(project, "namespaces", "hosts: {a: {run: ls /usr/mine, volumes: [../../src:/usr/mine:ro]}}\n")
    assert done.returncode == 3, said(done)
    assert "mounting on /usr/mine" in done.stdout and "as on /srv/data" in done.stdout, said(done)


def test_an_image_that_serves_by_itself_finds_the_directory(project: Path, docker_daemon: str) -> None:
    """Nothing is copied in later: an image's own program starts with its container."""
    api = connect(docker_daemon)
    serve = "import http.server as h; h.HTTPServer(('', 80), h.SimpleHTTPRequestHandler).serve_forever()"
    look = f"import os; print(os.listdir('/app')); os.chdir('/app'); {serve}"
    entry = json.dumps(["/opt/testbed/python", "-c", look])
    write(project, {"image/Dockerfile": f"FROM {node_image(api, print)}\nENTRYPOINT {entry}\n"})
    text = """hosts:
  web: {build: ../../image, volumes: [../../certs:/app:ro], cap_add: [NET_BIND_SERVICE]}
  client: {run: curl -sS --retry 20 --retry-connrefused --retry-delay 1 http://web/ca.pem}
expect: [client.stdout contains "a certificate"]
"""
    done = run(project, "docker", text)
    assert done.returncode == 0, said(done)
