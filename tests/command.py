"""The command line as a user has it: a process of its own, with its output and exit status."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENGINES = ("namespaces", "docker")


def testbed(
    *words: str | Path, cwd: Path = ROOT, timeout_s: float = 300, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run `testbed WORDS`; stdin is empty, and TESTBED_ENGINE of the caller does not count."""
    return subprocess.run(
        [sys.executable, "-m", "testbed", *map(str, words)],
        cwd=cwd,
        env=clean_environment() | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )


def start(*words: str | Path, cwd: Path = ROOT, **environment: str) -> subprocess.Popen[str]:
    """Begin `testbed WORDS`, to be spoken to while it runs; otherwise as `testbed`."""
    return subprocess.Popen(
        [sys.executable, "-m", "testbed", *map(str, words)],
        cwd=cwd,
        env=clean_environment() | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


testbed.__test__ = False  # type: ignore[attr-defined]  # pytest would collect it by its name


def clean_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in ("TESTBED_ENGINE", "NO_COLOR")}


def said(done: subprocess.CompletedProcess[str]) -> str:
    """Both outputs, for a failed assertion to show."""
    return f"exit {done.returncode}\n--- stdout\n{done.stdout}\n--- stderr\n{done.stderr}"
