"""File systems out of Debian's packages, made once and kept in TESTBED_CACHE or ~/.cache/testbed."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from testbed.errors import HostError


def cached(name: str, mmdebstrap: Sequence[str], suite: str, say: Callable[[str], None]) -> Path:
    """The file or directory of that name in the cache, made if it is not there. Raises HostError.

    `mmdebstrap` is the command with its options; suite and target are added. A name that ends in `.tar` is one;
    any other is a directory, which only root can have.
    """
    directory = Path(os.environ.get("TESTBED_CACHE") or "~/.cache/testbed").expanduser()
    made = directory / name
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with (directory / f"{made.stem}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # of two at once, the second one waits and then finds it there
            if not made.exists():
                say(f"making {made} from Debian's packages; this takes a minute, once")
                partial = made.with_name(f"{made.stem}.partial{made.suffix}")
                if partial.is_dir():
                    shutil.rmtree(partial)
                _mmdebstrap(mmdebstrap, suite, partial)
                partial.rename(made)
    except OSError as problem:
        raise HostError(
            f"making {made}: {problem}; set TESTBED_CACHE to a directory that can be written"
        ) from problem
    return made


def _mmdebstrap(command: Sequence[str], suite: str, target: Path) -> None:
    """Killed with us if need be. Raises HostError, OSError."""
    argv, environment = ["setpriv", "--pdeathsig", "KILL"], dict(os.environ)
    scratch = target.with_suffix(".scratch")
    if os.geteuid() == 0:
        # Its children ignore what is sent to itself: a pid namespace takes them along. What it leaves lies where
        # the next one finds it. (An ordinary user's does its work as other users, who may not come in there.)
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        argv += ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
        environment["TMPDIR"] = str(scratch)
    argv += [*command, suite, str(target)]
    try:
        done = subprocess.run(
            argv, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if done.returncode != 0:
        last = done.stderr.strip()[-2000:]
        raise HostError(f"{' '.join(argv)} ended with status {done.returncode}: {last or 'no message'}")
