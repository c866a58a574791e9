"""Servers in other languages, each as it is built: what npm installs, a jar, a binary, static files for nginx.

On namespaces, whose hosts have this machine's programs; where one is not there, the test is skipped by its name.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.command import said, testbed
from tests.conftest import missing

PLACES = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"

JAVA = """
import java.net.*;
public class Server {
    public static void main(String[] words) throws Exception {
        try (ServerSocket listening = new ServerSocket(8080)) {
            while (true) {
                try (Socket one = listening.accept()) { one.getOutputStream().write("from a jar\\n".getBytes()); }
            }
        }
    }
}
"""
C = r"""
#include <arpa/inet.h>
#include <stdlib.h>
#include <unistd.h>
int main(int count, char **words) {
    int listening = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(atoi(words[1]))};
    if (bind(listening, (struct sockaddr *)&at, sizeof at) || listen(listening, 5)) return 1;
    for (;;) {
        int one = accept(listening, 0, 0);
        write(one, "from a binary\n", 14);
        close(one);
    }
}
"""
NGINX = """
daemon off;
user root;
master_process off;
pid nginx.pid;
events {}
http {
    access_log off;
    client_body_temp_path tmp;
    proxy_temp_path tmp;
    fastcgi_temp_path tmp;
    uwsgi_temp_path tmp;
    scgi_temp_path tmp;
    server { listen 8080; root /srv/www; }
}
"""


@pytest.fixture
def project(tmp_path: Path, namespaces_work: None) -> Path:
    root = tmp_path / "project"
    (root / "scenarios").mkdir(parents=True)
    (root / "testbed.toml").touch()
    return root


def needs(*names: str) -> None:
    for name in names:
        if not shutil.which(name, path=PLACES):
            missing(name, f"no `{name}` in {PLACES}")


def build(*words: str | Path, cwd: Path) -> None:
    done = subprocess.run([*map(str, words)], cwd=cwd, capture_output=True, text=True)
    if done.returncode and words[0] == "npm" and "network" in done.stderr:
        missing("npm", f"its registry does not answer: {done.stderr[-200:]}")
    assert done.returncode == 0, done.stderr


def run(project: Path, text: str) -> None:
    path = project / "scenarios/own.yaml"
    path.write_text(f"testbed: 1\nabout: Own code.\n{text}")
    done = testbed("run", path, "--engine", "namespaces", "--results", project / "results", cwd=project)
    assert done.returncode == 0, said(done)


@pytest.mark.parametrize("way", ["files: {web: ../web}", "volumes: [../web:/scenario/web:ro]"])
def test_what_npm_installs(project: Path, way: str) -> None:
    needs("node", "npm")
    web = project / "web"
    web.mkdir()
    (web / "package.json").write_text('{"name": "web", "version": "1.0.0"}')
    build("npm", "install", "--no-audit", "--no-fund", "--silent", "semver@7", cwd=web)
    assert (web / "node_modules/.bin/semver").is_symlink()
    answer = "c => c.end(require('semver').inc('1.2.3', 'minor'))"
    (web / "server.js").write_text(f"require('net').createServer({answer}).listen(8080)")
    on_host, on_program = (f"{way}, ", "") if way.startswith("volumes") else ("", f", {way}")
    run(
        project,
        f"""hosts:
  server: {{{on_host}serve: node web/server.js{on_program}}}
  tool: {{{on_host}run: web/node_modules/.bin/semver -i patch 1.2.3{on_program}}}
  client: {{run: nc server 8080}}
expect: [client.stdout contains "1.3.0", tool.stdout contains "1.2.4"]
""",
    )


def test_a_jar(project: Path) -> None:
    needs("java", "javac", "jar")
    (project / "target").mkdir()
    (project / "target/Server.java").write_text(JAVA)
    build("javac", "Server.java", cwd=project / "target")
    build("jar", "cfe", "server.jar", "Server", "Server.class", cwd=project / "target")
    run(
        project,
        """hosts:
  server:
    serve: java -jar server.jar
    files: {server.jar: ../target/server.jar}
    ready: {listens: 8080, within: 60 s}
  client: {run: nc server 8080}
expect: [client.stdout contains "from a jar"]
""",
    )


def test_a_binary_that_was_compiled_before(project: Path) -> None:
    needs("gcc")
    (project / "build").mkdir()
    (project / "build/server.c").write_text(C)
    build("gcc", "-o", "server", "server.c", cwd=project / "build")
    run(
        project,
        """hosts:
  copied: {serve: ./server 8080, files: {server: ../build/server}}
  shown: {volumes: [../build:/app:ro], serve: /app/server 8080}
  client: {run: sh -c 'nc copied 8080 && nc shown 8080'}
expect: [client.stdout contains "from a binary"]
""",
    )


def test_static_files_for_nginx(project: Path) -> None:
    needs("nginx", "curl")
    (project / "public/css").mkdir(parents=True)
    (project / "public/index.html").write_text("a page\n")
    (project / "public/css/a.css").write_text("a style\n")
    (project / "scenarios/nginx.conf").write_text(NGINX)
    run(
        project,
        """hosts:
  web:
    serve: nginx -p /scenario -c nginx.conf -e stderr
    files: [nginx.conf]
    volumes: [../public:/srv/www:ro]
    ready: {listens: 8080}
  client: {run: curl -sS http://web:8080/ http://web:8080/css/a.css}
expect: [client.stdout contains "a page", client.stdout contains "a style"]
""",
    )
