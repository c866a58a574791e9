"""What an image serves by itself is a program as others: waited for, kept, judged, stopped. Whole runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testbed.engines.docker import DockerEngine
from testbed.engines.docker_client import api_closed, connect
from testbed.engines.docker_image import node_image
from testbed.project.root import Project
from testbed.runner import Run, Runner
from testbed.scenario import parse

RunIt = Callable[..., Run]

SERVER = """
import os, signal, socket, sys, time
print("began as", os.getuid(), "in", os.getcwd(), "and sees", socket.gethostbyname("client"), flush=True)
server = socket.create_server(("", 9000))
"""
SERVES = 'COPY server.py /server.py\nENTRYPOINT ["python3", "/server.py"]\n'
DIES = 'time.sleep(1); print("no more", file=sys.stderr); sys.exit(3)'
LIVES = "signal.pause()"


@pytest.fixture(scope="module")
def node(docker_daemon: str) -> Iterator[str]:
    with api_closed(connect(docker_daemon)) as api:
        yield node_image(api, lambda _: None)


@pytest.fixture
def run_it(docker_daemon: str, node: str, tmp_path: Path) -> RunIt:
    """run_it(what the Dockerfile says after its FROM, what the server does, keys of `own`, of `client`, more)."""

    def run(dockerfile: str, does: str, own: str = "", client: str = "run: nc -z own 9000", more: str = "") -> Run:
        (tmp_path / "image").mkdir(exist_ok=True)
        (tmp_path / "image/Dockerfile").write_text(f"FROM {node}\n{dockerfile}\n")
        (tmp_path / "image/server.py").write_text(SERVER + does)
        hosts = f"  own: {{build: image, {own}}}\n  client: {{{client}}}\n"
        text = f"testbed: 1\nabout: x\nhosts:\n{hosts}{more}\n"

        def new_engine(project: Project) -> DockerEngine:
            return DockerEngine(project, host=docker_daemon)

        runner = Runner(new_engine, "docker", "a test", tmp_path / "r", lambda _: None)
        return runner.run(parse(text, "own.yaml"), text, Project.around(tmp_path))

    return run


def output(run: Run, stream: str = "stdout") -> str:
    return run.results.output("own.own", stream).read_text()


def test_one_that_dies_in_mid_run_has_failed_and_what_it_said_and_the_other_verdicts_stay(run_it: RunIt) -> None:
    run = run_it(SERVES, DIES, client="run: sleep 3", more="expect: [client.exit == 0]")
    assert run.judgement.outcome == "fail", run.judgement
    assert "own.own ended with status 3 after 1" in run.judgement.reason
    assert run.judgement.reason.endswith("before the run was over; its last words: no more")
    assert [verdict.outcome for verdict in run.judgement.verdicts] == ["fail", "pass"]
    assert output(run).startswith("began as 0 in /scenario and sees 198.18.")
    assert output(run, "stderr") == "no more\n"
    run = run_it(SERVES, DIES, client="run: sleep 3", more="expect: [own.exit == 3, own.stdout contains began]")
    assert run.judgement.outcome == "pass", run.judgement


def test_others_wait_until_it_is_ready_and_it_is_stopped_as_its_image_wants(run_it: RunIt) -> None:
    """It listens late, so that a client which did not wait would be refused."""
    does = "signal.signal(signal.SIGQUIT, lambda *_: sys.exit('asked to stop')); " + LIVES
    image = 'COPY server.py /\nENTRYPOINT ["sh", "-c", "sleep 1; exec $0 $@"]\nCMD ["python3", "/server.py"]'
    run = run_it(f"{image}\nSTOPSIGNAL 3\nUSER 7:7\nWORKDIR /somewhere\nHEALTHCHECK CMD false", does)
    assert run.judgement.outcome == "pass", run.judgement
    assert output(run).startswith("began as 7 in /somewhere") and output(run, "stderr") == "asked to stop\n"
    program = run.plan.program("own.own")
    assert (program.argv[-2:], program.stop_signal) == (("python3", "/server.py"), "SIGQUIT")


def test_what_the_file_says_of_it_holds_beside_what_the_image_says(run_it: RunIt) -> None:
    does = """
print(os.environ["FROM_THE_IMAGE"], os.environ["FROM_THE_FILE"], open("own.conf").read(), flush=True)
open("/tmp/log", "w").write("done")
server.close()
signal.sigwait([signal.SIGRTMIN + 3])
"""
    own = (
        "environment: {FROM_THE_FILE: $name}, files: {own.conf: {text: copied}}, collect: [own.conf, /tmp/log], "
        "ready: {prints: /copied/}"
    )
    image = f"{SERVES}ENV FROM_THE_IMAGE=yes\nWORKDIR /home\nSTOPSIGNAL SIGRTMIN+3"
    run = run_it(image, does, own, "run: sleep 1")
    assert run.judgement.outcome == "pass", run.judgement
    assert output(run).splitlines()[1:] == ["yes own copied"]
    collected = run.results.path / "collected/own.own"
    assert (collected / "home/own.conf").read_text() == "copied" and (collected / "tmp/log").read_text() == "done"


@pytest.mark.parametrize(
    ("image", "outcome", "why"),
    [
        ("ENTRYPOINT []\nCMD []", "error", "has neither ENTRYPOINT nor CMD; give the host a program"),
        ('ENTRYPOINT ["no-such", "thing"]', "error", "own.own: no command 'no-such' (PATH=/usr/local/sbin:"),
        ('ENTRYPOINT ["true"]', "fail", "it ended with 0 before it was ready; a `serve` stays in the foreground"),
        (
            'ENTRYPOINT ["sh", "-c", "echo init: must be run as PID 1 >&2; exit 100"]',
            "error",
            "process 1 is what holds own open: name the server itself under `serve`",
        ),
    ],
)
def test_one_that_serves_nothing_says_so(run_it: RunIt, image: str, outcome: str, why: str) -> None:
    run = run_it(image, LIVES)
    assert run.judgement.outcome == outcome, run.judgement
    assert why in run.judgement.reason
