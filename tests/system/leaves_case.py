"""Run by test_leaves.py alone: a session that waits while others are busy, and leaves what it is told."""

from __future__ import annotations

import os
import subprocess
import sys

from testbed import groups


def test_it_waits() -> None:
    if os.environ["LEAVES"] == "a control group" and os.fork() == 0:
        groups.make("lab-left")
        os._exit(0)
    if os.environ["LEAVES"] == "a process":
        subprocess.Popen(
            ["sleep", "60"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
    print("busy", flush=True)
    assert sys.stdin.readline() == "go on\n"
