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

from testbed.errors import HostError, counted
from testbed.limits import DEEP, too_deep
from testbed.measure.ledger import from_json_line, to_json_line
from testbed.measure.records import Congestion, Frame, Judgement, LinkProof, ProgramRecord, Records
from testbed.plan.types import Plan
from testbed.rebuild import rebuild

SCENARIO, PLAN, ENVIRONMENT, RUN = "scenario.yaml", "plan.json", "environment.json", "run.json"
LEDGER, KERNEL, PROOF = "ledger.jsonl", "kernel.json", "proof.json"
VERDICTS, REPORT = "verdicts.json", "report.txt"
RESULTS_FORMAT = 1
LONGEST_PATH = 4096  # bytes, with the one that ends it: PATH_MAX
STREAMS = ("stdout", "stderr")


class Results:
    """One run's directory: `ROOT/NAME/<time>-<seed>/`, with `ROOT/NAME/latest` pointing at the newest."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, root: Path, name: str, seed: int) -> Results:
        """Make a new directory and point `latest` at it. Raises HostError with what to try."""
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        try:
            if (root / name).is_symlink():  # it came with the project: what is beyond is not ours to write to
                where = f"{root / name} is a link, to {(root / name).resolve()}"
                raise HostError(f"making a results directory: {where}; remove it, or try --results DIR")
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
        self.save_environment(environment)
        self._write_json(RUN, {"results_format": RESULTS_FORMAT, "state": "started"})

    def save_environment(self, environment: dict[str, Any]) -> None:
        self._write_json(ENVIRONMENT, environment)

    def output(self, program_id: str, stream: str) -> Path:
        """Where a program's stdout or stderr is appended to."""
        path = self.path / "programs" / f"{program_id}.{stream}"
        path.parent.mkdir(exist_ok=True)
        return path

    # after

    def save_records(self, records: Records) -> None:
        """All the evidence of a run, except program output and collected files, which are there already.

        Of these it says how long they are: what is cut off later is not taken for all that there was.
        """
        self._write(LEDGER, (to_json_line(frame) + "\n" for frame in records.ledger))
        self._write_json(KERNEL, records.kernel)
        self._write_json(PROOF, records.proof, levels=4)
        run = _shallow(records, without=("ledger", "kernel", "proof"))
        programs = {
            id: _shallow(program, without=(*STREAMS, "collected"))
            | {f"{stream}_bytes": len(getattr(program, stream)) for stream in STREAMS}
            | {"collected_bytes": {path: len(content) for path, content in program.collected.items()}}
            for id, program in records.programs.items()
        }
        ended = {"results_format": RESULTS_FORMAT, "state": "ended", "frames": len(records.ledger)}
        self._write_json(RUN, run | ended | {"programs": programs})

    def save_collected(self, program_id: str, path: str, archive: bytes) -> list[str]:
        """Unpack what `collect:` brought, regular files only; returns what was left out and why.

        Raises OSError.
        """
        root = self.path / "collected" / program_id
        left_out: list[str] = []
        deep = f"{path}: something in it is {too_deep().strerror}"
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            for member in tar:
                parts = [part for part in (PurePosixPath(path).parent / member.name).parts if part != "/"]
                if ".." in parts:
                    left_out.append(f"{member.name}: it points outside")
                elif len(parts) > DEEP or len(os.fsencode(str(root.joinpath(*parts)))) >= LONGEST_PATH:
                    left_out += [deep] if deep not in left_out else []
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
            if (number := run.pop("results_format")) != RESULTS_FORMAT:
                raise ValueError(f"results format {number!r}, this version reads {RESULTS_FORMAT}")
            if run.pop("state") != "ended":
                return plan, Records(
                    seed=plan.seed, error="the run never came to its end: its start is all there is"
                )
            expected_frames = run.pop("frames")
            programs = {id: self._program(plan, id, data) for id, data in run.pop("programs").items()}
            ledger = self._ledger()
            if len(ledger) != expected_frames:
                raise HostError(
                    f"reading {self.path / LEDGER}: {counted(len(ledger), 'line')} of {expected_frames:,}"
                )
            proof = _checked(rebuild(LinkProof, self._read_json(PROOF), "proof"))
            kernel = rebuild(dict[str, dict[str, int]], self._read_json(KERNEL), "kernel")
            records = rebuild(Records, run, "", programs=programs, kernel=kernel, proof=proof, ledger=ledger)
            return plan, records
        except KeyError as problem:
            raise HostError(
                f"reading the results in {self.path}: no records of a run: {problem} is missing"
            ) from problem
        except (TypeError, ValueError, AttributeError, RecursionError) as problem:
            raise HostError(f"reading the results in {self.path}: no records of a run: {problem}") from problem

    def _program(self, plan: Plan, id: str, data: dict[str, Any]) -> ProgramRecord:
        if not re.fullmatch(r"[a-z0-9-]+\.[a-z0-9-]+", id) or data.get("id") != id:
            raise ValueError(f"{id!r} is not the id of a program")
        there = {stream: self._whole(f"programs/{id}.{stream}", data.pop(f"{stream}_bytes")) for stream in STREAMS}
        sizes, collected = data.pop("collected_bytes"), self._collected(plan, id)
        for path in sorted({*sizes, *collected}):
            if (size := len(collected.get(path, b""))) != sizes.get(path):
                raise HostError(
                    f"reading {path} as {id} left it: {counted(size, 'byte')} of {sizes.get(path, 0):,}"
                )
        record: ProgramRecord = rebuild(ProgramRecord, data, id, **there, collected=collected)
        return record

    def _collected(self, plan: Plan, id: str) -> dict[str, bytes]:
        """The collected files of a program that a metric reads, by their paths in the host."""
        declared = {metric.file for p in plan.programs if p.id == id for metric in p.metrics if metric.file}
        found = {}
        for path in sorted(declared):
            inside = self.path / "collected" / id / path.lstrip("/")
            if inside.is_file() and ".." not in Path(path).parts:
                found[path] = inside.read_bytes()
        return found

    def collected(self, plan: Plan, record: ProgramRecord) -> None:
        """Put the collected files that a metric reads into the record, as `load` does."""
        record.collected = self._collected(plan, record.id)

    def _ledger(self) -> list[Frame]:
        with self._open(LEDGER) as file:
            return [from_json_line(line) for line in file]

    def _whole(self, name: str, size_bytes: int) -> bytes:
        """A file that has to be so long; without one it may be missing. Raises HostError."""
        path = self.path / name
        content = path.read_bytes() if path.exists() else b""
        if len(content) != size_bytes:
            raise HostError(f"reading {path}: {counted(len(content), 'byte')} of {size_bytes:,}")
        return content

    def _open(self, name: str) -> io.TextIOWrapper:
        try:
            return (self.path / name).open(encoding="utf-8")
        except OSError as problem:
            raise HostError(f"reading {self.path / name}: {problem.strerror}") from problem

    def _read_json(self, name: str) -> dict[str, Any]:
        with self._open(name) as file:
            try:
                found: dict[str, Any] = rebuild(dict[str, Any], json.load(file))
                return found
            except TypeError as problem:
                raise HostError(f"reading {self.path / name}: {problem}") from problem
            except (ValueError, RecursionError) as problem:
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


def _checked(proof: LinkProof) -> LinkProof:
    """The same, if those parts of it that are judged are of the right types. Raises TypeError."""
    in_force = rebuild(dict[str, Any], proof.start.get("conditions", {}), "proof.start.conditions")
    rebuild(dict[str, dict[str, Any]], in_force.get("links", {}), "proof.start.conditions.links")
    hosts = rebuild(dict[str, dict[str, Any]], proof.start.get("hosts", {}), "proof.start.hosts")
    for host, seen in hosts.items():
        if "congestion" in seen:
            rebuild(Congestion, seen["congestion"], f"proof.start.hosts.{host}.congestion")
    counted = rebuild(dict[str, dict[str, Any]], proof.end.get("links", {}), "proof.end.links")
    for link, counts in counted.items():
        numbers = {what: n for what, n in counts.items() if what != "condition"}
        rebuild(dict[str, int], numbers, f"proof.end.links.{link}")
    rebuild(dict[str, int], proof.end.get("cpu_wait_p99_ns", {}), "proof.end.cpu_wait_p99_ns")
    return proof


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
