"""Programs as they will be started: words, environment, files and what they wait for, with nothing left open."""

from __future__ import annotations

import posixpath

from testbed.plan.types import OF_THE_IMAGE, File, Metric, Program, Ready
from testbed.scenario import model
from testbed.scenario.model import WORKING_DIR
from testbed.scenario.order import Started
from testbed.scenario.variables import Scope

SECOND_NS = 10**9
READY_WITHIN_NS = 10 * SECOND_NS
TIMEOUT_NS = 60 * SECOND_NS
STOP_GRACE_NS = 5 * SECOND_NS
ENVIRONMENT = {
    "PATH": "/opt/testbed/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
}


def program(started: Started, scope: Scope) -> Program:
    """`scope` is the program's own host. Raises Refused where `semantics` would have reported it."""
    written, host = started.program, scope.host
    name = started.id.removeprefix(f"{host.name}.")
    command = written.run or written.serve
    working_dir = str(written.working_dir or (WORKING_DIR if command else OF_THE_IMAGE))
    stdin = written.stdin
    return Program(
        id=started.id,
        name=name,
        host=host.name,
        kind="run" if written.run is not None else "serve",
        argv=tuple(scope.expand(word) for word in command.argv) if command else (),
        after=started.after,
        ready=_ready(written.ready, scope),
        timeout_ns=written.timeout or TIMEOUT_NS,
        stdin=scope.expand(stdin.text) if stdin and stdin.text is not None else None,
        stdin_file=posixpath.normpath(str(stdin.file)) if stdin and stdin.file is not None else None,
        environment=_environment(written, name, scope),
        working_dir=working_dir,
        user=None if written.user is None else str(written.user),
        files=tuple(_file(target, source, working_dir) for target, source in written.files.items()),
        collect=tuple(str(posixpath.join(working_dir, path)) for path in written.collect),
        metrics=tuple(_metric(key, metric, working_dir) for key, metric in written.metrics.items()),
        stop_signal=str(written.stop_signal or ("SIGTERM" if command else OF_THE_IMAGE)),
        stop_grace_ns=STOP_GRACE_NS if written.stop_grace_period is None else written.stop_grace_period,
        venv=None if written.venv is None else posixpath.normpath(str(written.venv)),
        line=written.at("run" if written.run is not None else "serve").line,
    )


def _environment(written: model.Program, name: str, scope: Scope) -> dict[str, str]:
    """Complete for our own image. A foreign image keeps its own PATH, HOME and LANG, as compose users expect."""
    host = scope.host.written
    foreign = host.image is not None or host.build is not None
    own = {"TESTBED_SEED": str(scope.seed), "TESTBED_HOST": scope.host.name, "TESTBED_PROGRAM": name}
    given = {str(key): scope.expand(value) for key, value in written.environment.items()}
    return {**({} if foreign else ENVIRONMENT), **own, **given}


def _ready(written: model.Ready | None, scope: Scope) -> Ready:
    if written is None:
        return Ready("auto", READY_WITHIN_NS)
    within_ns = written.within or max(READY_WITHIN_NS, 2 * (written.wait or 0))
    if written.listens is not None:
        return Ready("listens", within_ns, sockets=written.listens)
    if written.prints is not None:
        return Ready("prints", within_ns, regex=str(written.prints))
    if written.answers is not None:
        return Ready("answers", within_ns, argv=tuple(scope.expand(word) for word in written.answers.argv))
    if written.wait is not None:
        return Ready("wait", within_ns, wait_ns=written.wait)
    return Ready("auto", within_ns)


def _file(target: str, source: model.FileSource, working_dir: str) -> File:
    path = posixpath.normpath(str(posixpath.join(working_dir, target)))
    if source.text is not None:
        return File(path, text=str(source.text))
    return File(path, source=posixpath.normpath(str(source.source or "")))


def _metric(name: str, written: model.Metric, working_dir: str) -> Metric:
    def text(value: str | None) -> str | None:
        return None if value is None else str(value)

    file = None if written.file is None else str(posixpath.join(working_dir, written.file))
    return Metric(str(name), text(written.prints), text(written.json_path), text(written.unit), file)
