"""The command line as a stranger uses it: right and wrong words, Ctrl-C, and what goes to which output."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.command import ROOT, clean_environment, said, start, testbed

QUICK = """
testbed: 1
about: A quick one.
hosts:
  server: {serve: datagram echo --port 9000}
  client: {run: datagram probe server:9000 --count 20 --interval 1ms --timeout 200ms}
expect:
  - client.lost == 0
"""


@pytest.fixture
def quick(tmp_path: Path) -> Path:
    path = tmp_path / "quick.yaml"
    path.write_text(QUICK)
    return path


def test_verdicts_go_to_stdout_and_progress_to_stderr(quick: Path, namespaces_work: None) -> None:
    done = testbed("run", quick, "--engine", "namespaces", "--results", quick.parent / "r")
    assert done.returncode == 0, said(done)
    lines = done.stdout.splitlines()
    assert lines[-1].startswith("pass:")
    assert lines[-2].startswith("results: ") and (quick.parent / "r/quick/latest/run.json").exists()
    assert "client.lost == 0" in done.stdout and "client.lost" not in done.stderr
    assert "engine namespaces: asked for" in done.stderr and "engine namespaces: asked" not in done.stdout
    assert f"scenario {quick}" in done.stderr, "the choice is printed"


def test_no_escape_codes_unless_on_a_terminal(quick: Path, namespaces_work: None) -> None:
    done = testbed("run", quick, "--engine", "namespaces", "--results", quick.parent / "r")
    assert "\x1b" not in done.stdout + done.stderr


def test_progress_that_nobody_reads_any_more_ends_no_run(quick: Path, namespaces_work: None) -> None:
    with start("run", quick, "--engine", "namespaces", "--results", quick.parent / "r") as process:
        assert process.stdout is not None and process.stderr is not None
        assert "scenario" in process.stderr.readline()
        process.stderr.close()
        assert "pass: " in process.stdout.read()
    assert process.returncode == 0


@pytest.mark.parametrize(("no_color", "colored"), [("", True), ("1", False)])
def test_a_terminal_gets_color_and_no_color_is_honoured(
    quick: Path, namespaces_work: None, no_color: str, colored: bool
) -> None:
    words = f"{sys.executable} -m testbed run {quick} --engine namespaces --results {quick.parent / 'r'}"
    environment = clean_environment() | {"TERM": "xterm-256color"} | ({"NO_COLOR": no_color} if no_color else {})
    done = subprocess.run(
        ["script", "-qec", words, "/dev/null"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, said(done)
    assert bool(re.search(r"\x1b\[[0-9;]*3[1-6]m", done.stdout)) is colored


def test_a_name_is_looked_up_as_a_path_then_here_then_among_the_shipped(tmp_path: Path) -> None:
    env = {"PYTHONPATH": str(ROOT)}
    assert str(ROOT / "scenarios/udp-loss.yaml") in testbed("plan", "udp-loss", cwd=tmp_path, **env).stderr
    (tmp_path / "scenarios").mkdir()
    (tmp_path / "scenarios/udp-loss.yaml").write_text(QUICK)
    assert "scenario scenarios/udp-loss.yaml" in testbed("plan", "udp-loss", cwd=tmp_path, **env).stderr
    (tmp_path / "udp-loss").write_text(QUICK)
    assert "scenario udp-loss\n" in testbed("plan", "udp-loss", cwd=tmp_path, **env).stderr


@pytest.mark.parametrize("command", ["run", "plan", "check", "prove"])
def test_a_name_that_is_nowhere_is_exit_2_with_near_misses(command: str) -> None:
    done = testbed(command, "udp-los")
    assert done.returncode == 2 and "udp-loss" in done.stderr, said(done)


@pytest.mark.parametrize("command", ["run", "plan", "check", "prove"])
def test_all_problems_of_a_wrong_file_come_at_once_with_line_and_column(command: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(
        "testbed: 1\nabout: x\nhosts:\n  a: {command: sleep 1}\n  b: {run: ls}\nlinks:\n  a -> c: {delay: 20}\n"
    )
    done = testbed(command, path)
    assert done.returncode == 2, said(done)
    assert re.search(r"wrong.yaml:4:\d+: .*command", done.stderr) and "run" in done.stderr
    assert re.search(r"wrong.yaml:7:\d+: ", done.stderr)
    assert "Traceback" not in done.stderr


def test_a_wrong_form_hides_no_missing_file_no_wrong_mode_and_no_malformed_expectation(tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(
        "testbed: 1\nabout: x\nhosts:\n  a: {run: datagram prob a:9, afer: b, files: [nope.py]}\n"
        "expect:\n  - a.exit = 0\n  - a.stdout contians x\n  - {that: a.exit is 0, becuse: y}\n"
    )
    done = testbed("check", path)
    assert done.returncode == 2, said(done)
    for line, word in (
        (4, "afer"),
        (4, "nope.py"),
        (4, "prob"),
        (6, "=="),
        (7, "contains"),
        (8, "becuse"),
        (8, "found `is`"),
    ):
        assert re.search(rf"wrong.yaml:{line}:\d+: (.*\n *)?.*{word}", done.stderr), (line, word, said(done))


def test_an_expectation_that_cannot_be_is_found_before_anything_runs(tmp_path: Path) -> None:
    path = tmp_path / "quick.yaml"
    path.write_text(QUICK.replace("client.lost == 0", "clint.lost == 0"))
    done = testbed("check", path)
    assert done.returncode == 2 and re.search(r"quick.yaml:8:\d+: .*clint", done.stderr), said(done)
    assert "client" in done.stderr


def test_a_mode_that_our_program_does_not_have_is_found_before_anything_runs(tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(
        "testbed: 1\nabout: x\nhosts:\n  a: {serve: datagram ecko --port 9}\n  b: {run: stream bulk a:9}\n"
        "fails_when:\n  short: {hosts: {b: {run: stream bluk a:9}}}\n"
    )
    done = testbed("check", path)
    assert done.returncode == 2, said(done)
    assert [line.removeprefix(str(path)).strip() for line in done.stderr.splitlines()] == [
        ":4:14: datagram has no mode `ecko`",
        "did you mean `echo`?",
        ":7:28: stream has no mode `bluk`",
        "did you mean `bulk`?",
        "2 problems",
    ]


def test_check_says_ok_and_full_prints_a_file_that_checks(quick: Path) -> None:
    assert testbed("check", "scenarios/", "scenarios/negative/").returncode == 0
    full = testbed("check", "--full", quick)
    assert full.returncode == 0, said(full)
    again = quick.parent / "again" / "quick.yaml"
    again.parent.mkdir()
    again.write_text(full.stdout)
    assert testbed("check", again).returncode == 0
    assert testbed("check", "--full", again).stdout == full.stdout


def test_check_says_beforehand_how_many_packets_a_test_of_a_ratio_needs() -> None:
    done = testbed("check", "udp-loss")
    assert done.returncode == 0 and "1,489" in done.stdout, said(done)


def test_plan_is_the_same_twice_and_touches_nothing(quick: Path) -> None:
    plans = [testbed("plan", quick, PATH="/nonexistent", DOCKER_HOST="unix:///nonexistent") for _ in range(2)]
    assert plans[0].stdout == plans[1].stdout and plans[0].returncode == 0, said(plans[0])
    for word in ("198.18.0.2", "eth0", "224.0.0.0/4", "datagram echo"):
        assert word in plans[0].stdout


def test_list_names_every_shipped_scenario_with_its_promise() -> None:
    done = testbed("list")
    assert done.returncode == 0
    for path in (ROOT / "scenarios").glob("*.yaml"):
        assert re.search(rf"^{path.stem} +\w.*\.", done.stdout, re.MULTILINE), path.stem


def test_doctor_works_where_an_engine_does(namespaces_work: None) -> None:
    done = testbed("doctor", DOCKER_HOST="unix:///nonexistent/docker.sock")
    assert done.returncode == 0, said(done)
    assert re.search(r"^works +engine namespaces", done.stdout, re.MULTILINE)
    assert re.search(r"^missing +engine docker", done.stdout, re.MULTILINE)


def test_doctor_says_what_is_missing_and_how_to_get_it(tmp_path: Path) -> None:
    done = testbed("doctor", DOCKER_HOST="unix:///nonexistent/docker.sock", PATH=str(tmp_path))
    assert "apt-get install iproute2" in done.stdout or "/ip" in done.stdout, said(done)
    assert "docker.io" in done.stdout


def test_judge_judges_again_and_with_mended_expectations(quick: Path, namespaces_work: None) -> None:
    results = quick.parent / "r"
    first = testbed("run", quick, "--engine", "namespaces", "--results", results)
    assert first.returncode == 0, said(first)
    latest = results / "quick/latest"
    assert testbed("judge", latest).returncode == 0
    mended = quick.parent / "mended" / "quick.yaml"
    mended.parent.mkdir()
    mended.write_text(QUICK.replace("client.lost == 0", "client.lost == 7"))
    again = testbed("judge", latest, "--with", mended)
    assert again.returncode == 1 and "client.lost == 7" in again.stdout, said(again)
    declared = QUICK.replace("200ms}", "200ms, metrics: {lines: {prints: '/sent/'}}}")
    mended.write_text(declared.replace("client.lost == 0", "client.lines.count >= 1"))
    again = testbed("judge", latest, "--with", mended)
    assert again.returncode == 0 and "client.lines.count" in again.stdout, said(again)
    (latest / "run.json").write_text("{")
    broken = testbed("judge", latest)
    assert broken.returncode == 3 and "run.json" in broken.stderr, said(broken)


def test_two_scenarios_are_merged_into_one_status(quick: Path, namespaces_work: None) -> None:
    bad = quick.parent / "bad.yaml"
    bad.write_text(QUICK.replace("client.lost == 0", "client.lost == 1"))
    done = testbed("run", quick, bad, "--engine", "namespaces", "--results", quick.parent / "r")
    assert done.returncode == 1, said(done)
    assert done.stdout.splitlines()[-1] == "fail: 1 fail, 1 pass"


def test_a_skip_is_exit_4_and_an_error_when_strict(tmp_path: Path) -> None:
    path = tmp_path / "quick.yaml"
    path.write_text(QUICK + "requires: ['cpus:4096']\n")
    done = testbed("run", path, "--engine", "namespaces", "--results", tmp_path / "r")
    assert done.returncode == 4 and "4096" in done.stdout, said(done)
    strict = testbed("run", path, "--engine", "namespaces", "--results", tmp_path / "r", "--strict")
    assert strict.returncode == 3, said(strict)


def test_a_scenario_that_requires_docker_is_skipped_where_there_is_none(tmp_path: Path) -> None:
    path = tmp_path / "quick.yaml"
    path.write_text(QUICK + "requires: [docker]\n")
    done = testbed("run", path, "--results", tmp_path / "r", DOCKER_HOST="unix:///nonexistent/s")
    assert done.returncode == 4 and "docker" in done.stdout.splitlines()[-1], said(done)


def test_nothing_runs_while_one_of_the_files_is_wrong(quick: Path) -> None:
    wrong = quick.parent / "wrong.yaml"
    wrong.write_text("testbed: 1\n")
    done = testbed("run", quick, wrong, "--engine", "namespaces", "--results", quick.parent / "r")
    assert done.returncode == 2 and not (quick.parent / "r").exists(), said(done)


def test_a_reader_that_goes_away_is_no_failed_program() -> None:
    command = f"{sys.executable} -m testbed list | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, env=clean_environment(), capture_output=True, text=True
    )
    assert done.stdout.strip() in ("0", "141") and "Traceback" not in done.stderr, said(done)


def test_no_docker_where_docker_is_asked_for_is_an_error_that_says_what_to_try(quick: Path) -> None:
    results = quick.parent / "r"
    done = testbed("run", quick, "--engine", "docker", "--results", results, DOCKER_HOST="unix:///nonexistent/s")
    assert done.returncode == 3 and "DOCKER_HOST" in done.stdout + done.stderr, said(done)
    assert "Traceback" not in done.stderr


def test_auto_takes_namespaces_without_a_daemon_and_says_why(quick: Path, namespaces_work: None) -> None:
    done = testbed("run", quick, "--results", quick.parent / "r", DOCKER_HOST="unix:///nonexistent/s")
    assert done.returncode == 0, said(done)
    assert re.search(r"engine namespaces: no Docker daemon", done.stderr)
    environment = json.loads((quick.parent / "r/quick/latest/environment.json").read_text())
    assert "no Docker daemon" in environment["engine"]["why"]


SLOW = QUICK.replace("--count 20", "--count 20000")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_tears_down_and_is_the_exit_status(
    number: signal.Signals, status: int, tmp_path: Path, namespaces_work: None
) -> None:
    path = tmp_path / "quick.yaml"
    path.write_text(SLOW)
    with start("run", path, "--engine", "namespaces", "--results", tmp_path / "r", cwd=tmp_path) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "client.client started" in line:
                break
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    assert process.returncode == status, out + err
    assert "torn down" in err
    run = json.loads((tmp_path / "r/quick/latest/run.json").read_text())
    assert not run["complete"] and "interrupted" in run["error"]


def test_ctrl_c_while_it_is_still_being_loaded_ends_it_without_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    done = testbed("list", PYTHONPATH=str(tmp_path))
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_keep_holds_the_hosts_says_how_to_enter_one_and_leaves_on_ctrl_c(
    quick: Path, namespaces_work: None
) -> None:
    words = ("run", quick, "--engine", "namespaces", "--results", quick.parent / "r", "--keep")
    with start(*words, cwd=quick.parent) as process:
        assert process.stderr is not None and process.stdout is not None
        entrance = ""
        for line in process.stderr:
            if line.strip().startswith("client: "):
                entrance = line.strip().removeprefix("client: ")
                break
        inside = subprocess.run(
            ["sh", "-c", entrance], input="hostname; ip -br address\n", capture_output=True, text=True, timeout=20
        )
        assert "client" in inside.stdout and "198.18.0." in inside.stdout, f"{entrance}: {inside}"
        time.sleep(0.2)
        assert process.poll() is None, "it holds"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0 and out.splitlines()[-1].startswith("pass:"), out + err
    after = subprocess.run(["sh", "-c", entrance], input="hostname\n", capture_output=True, text=True, timeout=20)
    assert after.returncode != 0, "the host is gone"


def test_results_that_cannot_be_written_say_so(quick: Path) -> None:
    done = testbed("run", quick, "--engine", "namespaces", "--results", "/proc/nowhere")
    assert done.returncode == 3 and "--results" in done.stderr and "Traceback" not in done.stderr, said(done)


def test_make_help_names_the_targets_of_the_readme() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0
    for target in ("scenario", "test"):
        assert re.search(rf"^{target} ", done.stdout, re.MULTILINE)


def test_wrong_flags_are_exit_2() -> None:
    assert testbed("run", "udp-loss", "--engine", "podman").returncode == 2
    assert testbed("run").returncode == 2
    assert testbed("frobnicate").returncode == 2


@pytest.mark.parametrize(
    ("program", "advice"),
    [
        (
            """{run: "python3 -m http.server 80", timeout: 20 s}""",
            "write `cap_add: [NET_BIND_SERVICE]` for a",
        ),
        (
            "{run: 'python3 -m http.server 8080', timeout: 1 s}",
            "it listened on tcp 8080 to its end: did you mean `serve:`",
        ),
        ("{run: ping -c 1 -W 1 a, timeout: 20 s}", "write `cap_add: [NET_RAW]` for a"),
        ("{run: ip link set eth0 down, timeout: 20 s}", "write `cap_add: [NET_ADMIN]` for a"),
    ],
)
def test_a_failure_that_one_line_mends_says_which(
    program: str, advice: str, namespaces_work: None, tmp_path: Path
) -> None:
    path = tmp_path / "one.yaml"
    path.write_text(f"testbed: 1\nabout: x\nhosts:\n  a: {program}\n  b: {{}}\n")
    done = testbed("run", path, "--engine", "namespaces", "--results", tmp_path / "r")
    assert done.returncode == 1, said(done)
    assert advice in " ".join(done.stdout.split()), said(done)


@pytest.mark.parametrize(
    ("content", "said_of_it"),
    [
        (b"testbed: 1\nabout: caf\xe9\n", ":2:11: not UTF-8: byte 0xe9\n    save the file as UTF-8"),
        ("testbed: 1\n".encode("utf-16"), ":1:1: not UTF-8: byte 0xff\n    it is UTF-16"),
        (b"\x7fELF\x02\x01\x01\0\0\0\xb7", ":1:11: not UTF-8: byte 0xb7\n    it is no text file"),
        (b"", ":1:1: the file is empty\n    a scenario begins so:\ntestbed: 1\n"),
    ],
)
def test_what_is_no_text_or_nothing_is_said_at_its_place(content: bytes, said_of_it: str, tmp_path: Path) -> None:
    path = tmp_path / "one.yaml"
    path.write_bytes(content)
    done = testbed("check", path)
    assert done.returncode == 2 and f"{path}{said_of_it}" in done.stderr, said(done)


def test_a_file_whose_name_is_no_name_says_how_to_rename_it(tmp_path: Path) -> None:
    path = tmp_path / "My_test.yml"
    path.write_text(QUICK)
    done = testbed("check", path)
    assert done.returncode == 2 and ":1:1: `My_test` is no name" in done.stderr, said(done)
    assert "rename it to `my-test.yml`" in done.stderr
