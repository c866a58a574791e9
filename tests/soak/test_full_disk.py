"""However little room there is for the results, a run says so, and what it could write is whole."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.command import ROOT, clean_environment, said
from tests.disturbed import SHORT, Left
from tests.soak.length import either

SIZES_KIB = either(  # a short run takes some 140
    {"namespaces": [4, 40, 120], "docker": [40]},
    {"namespaces": [*range(4, 48, 4), *range(48, 136, 8)], "docker": [*range(4, 136, 24)]},
)
SCRIPT = """
mount -t tmpfs -o size=$1k none "$2" || exit 99
shift
directory=$1
shift
"$@" --results "$directory"
status=$?
find "$directory" -name '*.json' -not -size 0 -print0 | xargs -0r -n 1 cat
exit $status
"""


def test_a_disk_that_gets_full_is_named(engine: str, left: Left, tmp_path: Path) -> None:
    for kib in SIZES_KIB[engine]:
        argv = [sys.executable, "-m", "testbed", "run", str(SHORT), "--engine", engine]
        done = subprocess.run(
            ["unshare", "--map-root-user", "--mount", "sh", "-c", SCRIPT, "sh", str(kib), str(tmp_path), *argv],
            cwd=ROOT,
            env=clean_environment(),
            capture_output=True,
            text=True,
            timeout=120,
        )
        what = f"{kib} KiB: {said(done)}"
        assert done.returncode == 3, what
        assert "No space left on device; free some space or try --results DIR" in done.stderr, what
        assert "Traceback" not in done.stdout + done.stderr, what
        written = done.stdout[done.stdout.find("{") :]
        while written.strip():
            _, end = json.JSONDecoder().raw_decode(written.lstrip())
            written = written.lstrip()[end:]
        assert left() == [], what
