"""What a run leaves on disk, and that it comes back the same or not at all."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import testbed.results
from testbed.errors import HostError
from testbed.measure.records import Frame, LinkProof, ProgramRecord, Records
from testbed.plan import Plan, plan
from testbed.results import Results
from testbed.scenario import parse

TEXT = """
testbed: 1
about: One program on one host, with a metric read from a collected file.
hosts:
  a:
    programs:
      p: {run: do print x, collect: [/scenario/log], metrics: {n: {prints: '/n=(\\d+)/', file: /scenario/log}}}
"""


def planned() -> Plan:
    return plan(parse(TEXT, "results.yaml"))


def a_run(root: Path) -> tuple[Results, Plan, Records]:
    made, results = planned(), Results.create(root, "results", 7)
    results.save_before(made, TEXT, {"kernel": "a kernel"})
    results.output("a.p", "stdout").write_bytes(b"hello\n")
    results.output("a.p", "stderr").write_bytes(b"")
    record = ProgramRecord("a.p", "run", 1, None, 9, 0, stdout=b"hello\n")
    results.save_collected("a.p", "/scenario/log", archive({"log": b"n=5\n"}))
    record.collected = {"/scenario/log": b"n=5\n"}
    records = Records(
        seed=7,
        programs={"a.p": record},
        kernel={"a": {"TcpRetransSegs": 3}},
        ledger=[Frame(1, "a->b over lan", "udp *1>9", 0, 60, None, False, 2, 3)],
        proof=LinkProof([("inconclusive", "", "late")], {"x": 1}, {"y": 2}, 5),
        complete=True,
    )
    return results, made, records


def archive(files: dict[str, bytes], link: tuple[str, str] | None = None) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        if link:
            member = tarfile.TarInfo(link[0])
            member.type, member.linkname = tarfile.SYMTYPE, link[1]
            tar.addfile(member)
    return out.getvalue()


def test_a_run_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    results, made, records = a_run(tmp_path)
    results.save_records(records)
    loaded_plan, loaded = Results(results.path).load()
    assert loaded_plan == made
    assert loaded == records


def test_a_run_that_never_ended_is_an_error_and_no_traceback(tmp_path: Path) -> None:
    results, _, _ = a_run(tmp_path)
    _, records = results.load()
    assert "never came to its end" in records.error and not records.complete


def test_two_runs_in_one_second_keep_both_and_latest_is_the_newer(tmp_path: Path) -> None:
    first, second = (Results.create(tmp_path, "x", 1) for _ in range(2))
    assert first.path != second.path
    assert (tmp_path / "x" / "latest").resolve() == second.path.resolve()


@pytest.mark.parametrize("name", ["plan.json", "run.json", "ledger.jsonl", "kernel.json", "proof.json"])
def test_a_file_that_is_missing_or_cut_is_named(tmp_path: Path, name: str) -> None:
    results, _, records = a_run(tmp_path)
    results.save_records(records)
    whole = (results.path / name).read_bytes()
    (results.path / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(HostError):
        results.load()
    (results.path / name).unlink()
    with pytest.raises(HostError, match=name):
        results.load()


def test_a_ledger_line_taken_away_is_noticed(tmp_path: Path) -> None:
    results, _, records = a_run(tmp_path)
    results.save_records(records)
    (results.path / "ledger.jsonl").write_text("")
    with pytest.raises(HostError, match="0 lines of 1"):
        results.load()


def test_an_id_that_points_outside_is_refused(tmp_path: Path) -> None:
    results, _, records = a_run(tmp_path)
    results.save_records(records)
    run = json.loads((results.path / "run.json").read_text())
    run["programs"]["../../etc/x"] = run["programs"].pop("a.p") | {"id": "../../etc/x"}
    (results.path / "run.json").write_text(json.dumps(run))
    with pytest.raises(HostError, match="not the id of a program"):
        results.load()


def test_collected_archives_cannot_write_outside_and_links_are_left_out(tmp_path: Path) -> None:
    results, _, _ = a_run(tmp_path)
    bad = archive({"../../../evil": b"x", "fine": b"y"}, link=("shadow", "/etc/shadow"))
    left_out = results.save_collected("a.p", "/var/log/", bad)
    assert len(left_out) == 2
    assert {p.name for p in (results.path / "collected" / "a.p").rglob("*") if p.is_file()} == {"fine", "log"}
    assert not list(tmp_path.rglob("evil"))


def test_what_is_too_deep_for_a_file_system_is_left_out_and_said_once(tmp_path: Path) -> None:
    results, _, _ = a_run(tmp_path)
    deep = {"x" + "/d" * 500: b"", "x" + "/d" * 501: b"", "x/" + "/".join(["n" * 250] * 30): b"", "x/fine": b"y"}
    left_out = results.save_collected("a.p", "/tmp/x", archive(deep))
    assert left_out == ["/tmp/x: something in it is too deep: more than 200 directories, or a path of 4,096 bytes"]
    assert [p.name for p in (results.path / "collected" / "a.p/tmp/x").rglob("*") if p.is_file()] == ["fine"]


def test_writing_where_nobody_may_write_says_what_to_try(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    with pytest.raises(HostError, match="--results"):
        Results.create(blocked, "x", 1)


def test_no_half_written_file_is_ever_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results, _, records = a_run(tmp_path)
    before = (results.path / "run.json").read_text()
    pieces = testbed.results._readable

    def full(value: Any, levels: int) -> Iterator[str]:
        yield next(pieces(value, levels))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("testbed.results._readable", full)
    with pytest.raises(HostError, match="No space left"):
        results.save_records(records)
    assert (results.path / "run.json").read_text() == before
    assert not [p for p in results.path.iterdir() if p.name.startswith(".")]
