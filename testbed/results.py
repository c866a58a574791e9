"""The results directory: the only room that writes what a run leaves on disk, and reads it back.

Every file appears whole or not at all: it is written beside its place and renamed. Program output is the one
exception: it is appended as it comes, so that it survives whatever happens to us.
"""

from __future__ import annotations

import io
import json
import os
import re
import tarfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

from testbed.errors import HostError
from testbed.measure.ledger import from_json_line, to_json_line
from testbed.measure.records import Frame, Judgement, LinkProof, ProgramRecord, Records
from testbed.plan.types import Plan

SCENARIO, PLAN, ENVIRONMENT, RUN = "scenario.yaml", "plan.json", "environment.json", "run.json"
LEDGER, KERNEL, PROOF = "ledger.jsonl", "kernel.json", "proof.json"
VERDICTS, REPORT = "verdicts.json", "report.txt"


class Results:
    """One run's directory: `ROOT/NAME/<time>-<seed>/`, with `ROOT/NAME/latest` pointing at the newest."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, root: Path, name: str, seed: int) -> Results:
        """Make a new directory and point `latest` at it. Raises HostError with what to try."""
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        try:
            for attempt in range(1, 1000):
                path = root / name / (f"{stamp}-{seed}" if attempt == 1 else f"{stamp}-{seed}.{attempt}")
                try:
                    path.mkdir(parents=True)
                except FileExistsError:
                    continue  # two runs in one second: both keep their results
                _point(root / name / "latest", path.name)
                return cls(path)
        except OSError as problem:
            raise HostError(f"making a results directory under {root}: {problem}; try --results DIR") from problem
        raise HostError(f"making a results directory under {root / name}: a thousand exist for {stamp}")

    # before

    def save_before(self, plan: Plan, scenario_text: str, environment: dict[str, Any]) -> None:
        """What was asked, what will be built, and where: on disk before anything is built."""
        self._write(SCENARIO, [scenario_text])
        self._write_json(PLAN, plan)
        self._write_json(ENVIRONMENT, environment)
        self._write_json(RUN, {"state": "started"})

    def output(self, program_id: str, stream: str) -> Path:
        """Where a program's stdout or stderr is appended to."""
        path = self.path / "programs" / f"{program_id}.{stream}"
        path.parent.mkdir(exist_ok=True)
        return path

    # after

    def save_records(self, records: Records) -> None:
        """All the evidence of a run, except program output and collected files, which are there already."""
        self._write(LEDGER, (to_json_line(frame) + "\n" for frame in records.ledger))
        self._write_json(KERNEL, records.kernel)
        self._write_json(PROOF, records.proof, levels=4)
        run = _shallow(records, without=("ledger", "kernel", "proof"))
        programs = {
            id: _shallow(program, without=("stdout", "stderr", "collected"))
            for id, program in records.programs.items()
        }
        self._write_json(RUN, run | {"programs": programs, "state": "ended", "frames": len(records.ledger)})

    def save_collected(self, program_id: str, path: str, archive: bytes) -> list[str]:
        """Unpack what `collect:` brought, regular files only; returns what was left out and why."""
        root = self.path / "collected" / program_id
        left_out = []
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            for member in tar:
                parts = [part for part in (PurePosixPath(path).parent / member.name).parts if part != "/"]
                if ".." in parts:
                    left_out.append(f"{member.name}: it points outside")
                elif member.isfile() and (content := tar.extractfile(member)) is not None:
                    target = root.joinpath(*parts)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(content.read())
                elif not member.isdir():
                    left_out.append(f"{member.name}: not a regular file")
        return left_out

    # after judging

    def save_judgement(self, judgement: Judgement, report: str) -> None:
        self._write_json(VERDICTS, _shallow(judgement) | {"counts": judgement.counts})
        self._write(REPORT, [report])

    # reading

    def load(self) -> tuple[Plan, Records]:
        """The plan and the records of a run. Raises HostError naming the file that is missing or broken."""
        try:
            plan = Plan.from_json(self._read_json(PLAN))
            run = self._read_json(RUN)
            if run.get("state") != "ended":
                return plan, Records(
                    seed=plan.seed, error="the run never came to its end: its start is all there is"
                )
            programs = {id: self._program(plan, id, data) for id, data in run.pop("programs").items()}
            expected_frames = run.pop("frames")
            del run["state"]
            ledger = self._ledger()
            if len(ledger) != expected_frames:
                raise HostError(f"reading {self.path / LEDGER}: {len(ledger)} lines of {expected_frames}")
            proof = self._read_json(PROOF)
            proof["problems"] = [(str(a), str(b), str(c)) for a, b, c in proof["problems"]]
            kernel = self._read_json(KERNEL)
            return plan, Records(**run, programs=programs, kernel=kernel, proof=LinkProof(**proof), ledger=ledger)
        except (KeyError, TypeError, ValueError, AttributeError) as problem:
            raise HostError(f"reading the results in {self.path}: no records of a run: {problem}") from problem

    def _program(self, plan: Plan, id: str, data: dict[str, Any]) -> ProgramRecord:
        record = ProgramRecord(**data)
        if not re.fullmatch(r"[a-z0-9-]+\.[a-z0-9-]+", id):
            raise ValueError(f"{id!r} is not the id of a program")
        record.stdout, record.stderr = (self._bytes(f"programs/{id}.{stream}") for stream in ("stdout", "stderr"))
        declared = {metric.file for p in plan.programs if p.id == id for metric in p.metrics if metric.file}
        for path in sorted(declared):
            inside = self.path / "collected" / id / path.lstrip("/")
            if inside.is_file() and ".." not in Path(path).parts:
                record.collected[path] = inside.read_bytes()
        return record

    def collected(self, plan: Plan, record: ProgramRecord) -> None:
        """Put the collected files that a metric reads into the record, as `load` does."""
        record.collected = self._program(plan, record.id, {"id": record.id, "kind": record.kind}).collected

    def _ledger(self) -> list[Frame]:
        with self._open(LEDGER) as file:
            return [from_json_line(line) for line in file]

    def _bytes(self, name: str) -> bytes:
        path = self.path / name
        return path.read_bytes() if path.exists() else b""

    def _open(self, name: str) -> io.TextIOWrapper:
        try:
            return (self.path / name).open(encoding="utf-8")
        except OSError as problem:
            raise HostError(f"reading {self.path / name}: {problem.strerror}") from problem

    def _read_json(self, name: str) -> dict[str, Any]:
        with self._open(name) as file:
            try:
                return dict(json.load(file))
            except ValueError as problem:
                raise HostError(f"reading {self.path / name}: it is not whole JSON: {problem}") from problem

    # writing

    def _write_json(self, name: str, data: Any, levels: int = 2) -> None:
        self._write(name, chain(_readable(data, levels), "\n"))

    def _write(self, name: str, pieces: Iterable[str]) -> None:
        path = self.path / name
        beside = path.with_name(f".{name}.{os.getpid()}")
        try:
            with beside.open("w", encoding="utf-8") as file:
                file.writelines(pieces)
            beside.replace(path)  # no fsync: who loses power has lost the run, and dozens of them take 50 ms
        except OSError as problem:
            beside.unlink(missing_ok=True)
            what = f"writing {path}: {problem.strerror}"
            raise HostError(f"{what}; free some space or try --results DIR") from problem


def _point(link: Path, target: str) -> None:
    beside = link.with_name(f".latest.{os.getpid()}")
    beside.unlink(missing_ok=True)
    beside.symlink_to(target)
    beside.replace(link)


def _readable(value: Any, levels: int, margin: str = "") -> Iterator[str]:
    """JSON, piece by piece: each item of the first `levels` levels begins a line, what is below stays on it.

    Not `indent`: it takes Python's slow encoder, half a second for the plan of a hundred hosts.
    """
    value = _shallow(value) if is_dataclass(value) else value
    if not levels or not value or not isinstance(value, dict | list | tuple):
        yield _json(value)
        return
    begin, end = "{}" if isinstance(value, dict) else "[]"
    named = sorted(value.items()) if isinstance(value, dict) else [("", item) for item in value]
    for name, item in named:
        yield f"{begin}\n{margin} " + (f"{_json(name)}: " if isinstance(value, dict) else "")
        yield from _readable(item, levels - 1, margin + " ")
        begin = ","
    yield f"\n{margin}{end}"


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, frozenset | set):
        return sorted(value)
    if is_dataclass(value):
        return _shallow(value)
    raise TypeError(f"{value!r} has no place in JSON")


def _shallow(value: Any, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """The fields of a dataclass, and nothing copied: `asdict` copies a ledger too."""
    return {field.name: getattr(value, field.name) for field in fields(value) if field.name not in without}
