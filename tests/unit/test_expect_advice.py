"""What to write where a program failed for a reason that its records show."""

from __future__ import annotations

from dataclasses import replace

import pytest

from testbed.expect.advice import advice
from testbed.measure.records import ProgramRecord
from testbed.plan import plan
from testbed.scenario import parse

TEXT = "testbed: 1\nabout: x\nhosts: {a: {run: x CAPS}}\n"


def said(
    stderr: str = "", stdout: str = "", caps: str = "", kind: str = "run", image: str = "", **record: object
) -> str:
    more = (f", cap_add: [{caps}]" if caps else "") + (f", image: {image}" if image else "")
    made = plan(parse(TEXT.replace(" CAPS", more), "one.yaml"))
    [program], [host] = made.programs, made.hosts
    program = replace(program, kind=kind)  # type: ignore[arg-type]
    kept = ProgramRecord("a.a", kind, stderr=stderr.encode(), stdout=stdout.encode(), **record)  # type: ignore[arg-type]
    return advice(program, host, kept)


def test_a_run_that_listened_to_its_end_is_meant_to_serve() -> None:
    listened = ("tcp 8080", "unix /run/x.sock")
    assert said(listened=listened) == (
        "; it listened on tcp 8080, unix /run/x.sock to its end: did you mean `serve:` in place of `run:`?"
    )
    assert said() == ""
    assert said(kind="serve", listened=listened) == ""


REFUSED = [
    "nginx: [emerg] bind() to 0.0.0.0:80 failed (13: Permission denied)",
    "Error: listen EACCES: permission denied 0.0.0.0:80",
    "listen tcp :80: bind: permission denied",
    'Traceback (most recent call last):\n  File "s.py", line 3, in <module>\n    s.bind(("", 80))\n'
    "PermissionError: [Errno 13] Permission denied",
    "socketserver.py\n    self.server_bind()\n  File x\n    self.socket.bind(self.server_address)\n"
    "PermissionError: [Errno 13] Permission denied",
    "thread 'main' panicked at: called unwrap on Os { code: 13, kind: PermissionDenied } for 0.0.0.0:443",
]


@pytest.mark.parametrize("words", REFUSED)
def test_a_port_below_1024_that_is_refused_takes_a_capability(words: str) -> None:
    assert said(words).endswith("write `cap_add: [NET_BIND_SERVICE]` for a")
    assert said(stdout=words) == said(words)
    assert said(words, caps="NET_BIND_SERVICE") == ""


@pytest.mark.parametrize("words", REFUSED)
def test_a_user_of_an_image_who_is_not_root_has_no_capability(words: str) -> None:
    assert said(words, image="x").endswith(
        "and only root has it: write `sysctls: {net.ipv4.ip_unprivileged_port_start: 0}` for a"
    )


def test_a_serve_that_goes_into_the_background_is_told_to_stay() -> None:
    assert said(kind="serve", exit=0) == "; a `serve` stays in the foreground until it is stopped"
    assert said(kind="serve", exit=1) == said(kind="serve", exit=0, stopped=True) == said(kind="run", exit=0) == ""


@pytest.mark.parametrize(
    "words",
    [
        "s6-overlay-suexec: fatal: can only run as pid 1",
        "runit: fatal: must be run as process no 1.",
        "init: must be run as PID 1",
    ],
)
def test_what_insists_on_being_process_1_is_told_who_that_is(words: str) -> None:
    assert said(words, image="x").startswith("; process 1 is what holds a open: name the server itself")
    assert said(words) == "", "nothing of ours insists on it"


def test_who_only_warns_of_not_being_process_1_is_not_taken_at_its_word() -> None:
    tini = (
        "[WARN  tini (7)] Tini is not running as PID 1 and isn't registered as a child subreaper.\n"
        "Zombie processes will not be re-parented to Tini, so zombie reaping won't work.\nTo fix the problem, use "
        "the -s option or set the environment variable TINI_SUBREAPER to register Tini as a child subreaper, or "
        "run Tini as PID 1.\nno route\n"
    )
    assert said(tini, image="x") == ""


@pytest.mark.parametrize(
    ("words", "capability"),
    [
        ("ping: socktype: SOCK_RAW\nping: socket: Operation not permitted", "NET_RAW"),
        ("tcpdump: eth0: You don't have permission to perform this capture on that device\n"
         "(socket: Operation not permitted)", "NET_RAW"),
        ("  s = socket.socket(AF_INET, SOCK_RAW, 1)\nPermissionError: [Errno 1] Operation not permitted",
         "NET_RAW"),
        ("RTNETLINK answers: Operation not permitted", "NET_ADMIN"),
    ],
)  # fmt: skip
def test_what_is_not_permitted_names_its_capability(words: str, capability: str) -> None:
    assert said(words).endswith(f"write `cap_add: [{capability}]` for a")
    assert said(words, caps=capability) == ""


@pytest.mark.parametrize(
    "words",
    [
        "",
        "open: /var/x: Permission denied",
        "bind: Address already in use",
        "kill: Operation not permitted",
        "server answered 403 permission\nand it was denied",
    ],
)
def test_nothing_is_said_where_nothing_is_plain(words: str) -> None:
    assert said(words) == ""
