"""A real run over the real wire: judged again from disk it says the same, until a file of it is touched."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from testbed.judge import judge
from testbed.results import LEDGER, Results
from tests.command import said, testbed

TEXT = """
testbed: 1
about: A few datagrams cross a lossy link and come back.
seed: 3
hosts:
  server: {serve: datagram echo --port 9000}
  client: {run: datagram probe server:9000 --count 60 --interval 1ms}
links:
  client <-> server: {delay: 5 ms, loss: 30 %, duplicate: 10 %, jitter: 1 ms}
expect:
  - client->server.dropped > 5
  - client->server.duplicated > 0
  - client->server.sent >= 60
"""


@pytest.fixture(scope="module")
def real(namespaces_work: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("real")
    file = directory / "tiny.yaml"
    file.write_text(TEXT)
    done = testbed("run", file, "--engine", "namespaces", "--results", directory / "results")
    assert done.returncode == 0, said(done)
    return (directory / "results" / "tiny" / "latest").resolve()


def test_judged_again_it_says_what_it_said(real: Path) -> None:
    judgement = judge(*Results(real).load())
    said_then = json.loads((real / "verdicts.json").read_text())
    assert json.loads(json.dumps(asdict(judgement) | {"counts": judgement.counts})) == said_then
    assert judgement.outcome == "pass" and len(judgement.verdicts) == 5


def test_its_ledger_cannot_lose_a_loss(real: Path) -> None:
    plan, records = Results(real).load()
    lost = next(i for i, frame in enumerate(records.ledger) if frame.cause == "loss")
    records.ledger = [frame for i, frame in enumerate(records.ledger) if i != lost]
    judgement = judge(plan, records)
    assert judgement.outcome == "error" and "is cut off" in judgement.reason


def test_from_the_command_line_a_touched_ledger_is_no_pass(real: Path) -> None:
    path = real / LEDGER
    whole = path.read_text()
    try:
        path.write_text(whole.replace('"cause":"loss"', '"cause":null', 1))
        done = testbed("judge", real)
    finally:
        path.write_text(whole)
    assert done.returncode == 3 and "the wire counted" in done.stdout, said(done)
    assert testbed("judge", real).returncode == 0
