"""Runs a command under another kernel: Debian's user-mode Linux, which has what a machine may lack, SCTP for one.

It is a process like others, for root and for ordinary users, boots in three seconds, and sees the machine's own
files, read-only: the same Python, the same repository. It has one processor and slow system calls.

Nothing of it can stay behind. It runs in a pid namespace whose process 1 is this very file, which waits for the
end of its stdin or of the kernel and exits: then everything in there ends. The one write end of that stdin is in
the test process, so it does not matter what becomes of that one.
"""

from __future__ import annotations

import os
import select
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
NEEDED = {"linux.uml": "user-mode-linux", "modprobe": "kmod", "unshare": "util-linux", "ip": "iproute2"}
MEMORY = "1G"
RESULTS = Path("/run/exchange/results")  # in there
SEARCHED = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


class NoKernel(Exception):
    """Why it cannot be booted here."""


@dataclass(frozen=True)
class Ran:
    """What became of the command: exit status, or None if it did not end; its output; what the kernel said."""

    status: int | None
    output: str
    console: str

    def __repr__(self) -> str:
        return f"exit {self.status}\n--- output\n{self.output}\n--- the end of the console\n{self.console[-3000:]}"


def run(argv: Sequence[str], timeout_s: float, keep: Path | None = None) -> Ran:
    """Boot, run the command in the root of this repository as root of that kernel, power off. Raises NoKernel.

    When the time is over, the kernel is ended as it stands. What it leaves in RESULTS is copied into `keep`.
    """
    absent = [package for command, package in NEEDED.items() if shutil.which(command, path=SEARCHED) is None]
    if absent:
        raise NoKernel(f"apt-get install {' '.join(absent)}")
    with tempfile.TemporaryDirectory(prefix="testbed-kernel-") as text:
        exchange = Path(text)
        (exchange / "command").write_text(f"exec {shlex.join(argv)}\n")
        environment = {"PATH": SEARCHED, "HOME": text, **_shim(exchange)}
        with (exchange / "console").open("wb") as console:
            keeper = subprocess.Popen(_keeper(exchange), stdin=subprocess.PIPE, stdout=console, stderr=console,
                                      env=environment, start_new_session=True)  # fmt: skip
            assert keeper.stdin is not None
            try:
                with suppress(subprocess.TimeoutExpired):
                    keeper.wait(timeout_s)
            finally:
                keeper.stdin.close()
                keeper.wait()
        if keep is not None and (exchange / RESULTS.name).exists():
            shutil.copytree(exchange / RESULTS.name, keep, dirs_exist_ok=True)
        status = _text(exchange / "status").strip()
        return Ran(int(status) if status else None, _text(exchange / "output"), _text(exchange / "console"))


def _keeper(exchange: Path) -> list[str]:
    user = [] if os.geteuid() == 0 else ["--user", "--map-current-user"]
    kernel = [
        "linux.uml", "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", f"init={HERE / 'init'}",
        f"mem={MEMORY}", "con=null", "con0=null,fd:1", f"uml_dir={exchange}", f"EXCHANGE={exchange}",
        f"TESTBED={HERE.parent.parent}",
    ]  # fmt: skip
    return ["unshare", *user, "--pid", "--fork", "--mount-proc", sys.executable, __file__, *kernel]


def _shim(directory: Path) -> dict[str, str]:
    """The environment in which linux.uml runs on this processor: see xstate.c. Raises NoKernel."""
    if " amx_tile" not in _text(Path("/proc/cpuinfo")):
        return {}
    library = directory / "xstate.so"
    try:
        done = subprocess.run(
            ["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(HERE / "xstate.c")],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        raise NoKernel("on a processor with AMX it takes a compiler: apt-get install gcc libc6-dev") from None
    if done.returncode != 0:
        raise NoKernel(f"compiling xstate.c: {done.stderr.strip()} (apt-get install gcc libc6-dev)")
    return {"XSTATE_SHIM": str(library)}


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return ""


def keep(kernel: list[str]) -> None:
    """As process 1: start the kernel, wait for its end or that of stdin. Returning ends all that is left of it."""
    environment = dict(os.environ)
    if shim := environment.pop("XSTATE_SHIM", None):
        environment["LD_PRELOAD"] = shim
    process = subprocess.Popen(kernel, stdin=subprocess.DEVNULL, env=environment)
    poll = select.poll()
    for descriptor in (sys.stdin.fileno(), os.pidfd_open(process.pid)):
        poll.register(descriptor, select.POLLIN | select.POLLHUP)
    poll.poll()


if __name__ == "__main__":
    keep(sys.argv[1:])
