"""Pipes and a pair of sockets: in which directions each of them carries bytes between two processes.

A pipe has an end to read from and an end to write to (pipe(7)), also a named one (fifo(7)); against its direction
the kernel says EBADF. Of a pair of sockets (socketpair(2)) each end does both.
"""

from __future__ import annotations

import argparse
import errno
import os
import socket
import sys
from pathlib import Path
from typing import Any

from testbed.programs._errors import doing
from testbed.programs._life import run

MESSAGE = b"a message"


def anonymous() -> tuple[int, int]:
    """Descriptors of the two ends; who has neither and is no child of who has, cannot get at it."""
    reading, writing = os.pipe()
    return writing, reading


def named(path: str) -> tuple[int, int]:
    """The same by a name in the file system. Opening one end waits for the other, unless it is told not to."""
    os.mkfifo(path)
    try:
        reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        writing = os.open(path, os.O_WRONLY)
    finally:
        Path(path).unlink()  # the pipe lives on until its last end is closed
    os.set_blocking(reading, True)
    return writing, reading


def socketpair() -> tuple[int, int]:
    one, other = socket.socketpair()
    return one.detach(), other.detach()


def carry(source: int, target: int) -> str:
    """Send a message from a second process to this one: `carried`, `altered`, or the name of the error."""
    child = os.fork()
    if not child:
        try:
            os.write(source, MESSAGE)
            os._exit(0)
        except OSError as problem:
            os._exit(problem.errno or 255)  # a process may end with a number below 256
    number = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if number:
        return errno.errorcode.get(number, str(number))
    return "carried" if os.read(target, 100) == MESSAGE else "altered"


def main(argv: list[str] | None = None) -> int:
    """The command `pipe`. Returns the exit status: 0 done, 1 an error; wrong arguments exit with 2."""
    arguments = _parser().parse_args(argv)
    record: dict[str, Any] = {}

    def work() -> None:
        with doing(f"using a pipe or socket pair ({arguments.mode})"):
            if arguments.mode == "named":
                near, far = named(arguments.path)
            else:
                near, far = anonymous() if arguments.mode == "anonymous" else socketpair()
            record["forward"] = carry(near, far)
            record["backward"] = carry(far, near)

    return run(f"pipe {arguments.mode}", work, lambda: [record])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pipe", description="One message each way through a pipe or a socket pair."
    )
    modes = parser.add_subparsers(dest="mode", required=True, metavar="anonymous|named|socketpair")
    modes.add_parser("anonymous", help="through a pipe that only relatives share")
    modes.add_parser("named", help="through a named pipe").add_argument(
        "path", metavar="PATH", help="made, and removed"
    )
    modes.add_parser("socketpair", help="through a pair of connected sockets")
    return parser


if __name__ == "__main__":
    sys.exit(main())
