"""10,000 scenario files, or a few: each ends with exit 0 or 2, and nothing is run or read for it."""

from __future__ import annotations

import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import testbed
from testbed.cli import cli
from tests.soak.length import either
from tests.soak.scenario_maker import Maker
from tests.unit.test_scenario_fuzz import SEEDS, mutated

FILES, IN_ONE = either((200, 200), (10_000, 500))
LONGEST_S = 1.0  # of the processor, so that a busy machine does not matter
SCHEMA = json.loads((Path(testbed.__file__).parent / "scenario.schema.json").read_text())
RUNS = ("subprocess.Popen", "os.exec", "os.system", "os.posix_spawn", "os.fork", "socket.connect", "ctypes.dlopen")

watched: list[tuple[str, str]] | None = None


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if watched is not None and (event == "open" or event in RUNS or event.startswith(("os.remove", "os.mkdir"))):
        watched.append((event, str(arguments[0])))


sys.addaudithook(_audit)


@contextmanager
def watching() -> Iterator[list[tuple[str, str]]]:
    """What Python did meanwhile that leaves it: opened, ran, connected to."""
    global watched
    watched = []
    try:
        yield watched
    finally:
        watched = None


def texts(dice: random.Random) -> Iterator[str]:
    """Half of them from the schema, half of them mutations of what ships."""
    shipped = [path.read_text() for path in SEEDS]
    maker = Maker(SCHEMA, dice)
    for _ in range(IN_ONE // 2):
        yield maker.text()
        yield mutated(dice.choice(shipped), dice)


@pytest.mark.parametrize("seed", range(FILES // IN_ONE))
def test_any_file_is_accepted_or_refused(seed: int, tmp_path: Path) -> None:
    path = tmp_path / "made.yaml"
    path.write_text("")
    CliRunner().invoke(cli, ["plan", str(path)])  # all that is imported late is imported now
    ended: Counter[int] = Counter()
    for number, text in enumerate(texts(random.Random(seed))):
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        for command in (["check"], ["check", "--full"], ["plan"]):
            started = time.process_time()
            with watching() as seen:
                done = CliRunner().invoke(cli, [*command, str(path)])
            took_s = time.process_time() - started
            what = f"seed {seed}, file {number}, {' '.join(command)}:\n{text}\n{done.output}"
            assert done.exception is None or isinstance(done.exception, SystemExit), f"{what}{done.exc_info}"
            assert done.exit_code in (0, 2), what
            assert "Traceback" not in done.output, what
            assert took_s < LONGEST_S, f"{took_s} s: {what}"
            elsewhere = [(event, name) for event, name in seen if event != "open" or not inside(name, tmp_path)]
            assert not elsewhere, f"{elsewhere}: {what}"
            ended[done.exit_code] += 1
    assert min(ended[0], ended[2]) > IN_ONE / 20, f"a fuzzer that makes one kind only proves little: {ended}"


def inside(name: str, directory: Path) -> bool:
    library = (sys.prefix, sys.base_prefix, str(Path(testbed.__file__).parent))
    return Path(name).resolve().is_relative_to(directory) or name.startswith(library)
