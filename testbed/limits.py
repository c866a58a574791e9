"""What one host may use up, the same on every engine. Against a program that runs away, so generous.

Nothing is measured against these: a program that meets one fails, and what else runs on the machine goes on.
Which of them hold where, and how, is in docs/format.md.
"""

from __future__ import annotations

import errno

MEMORY_BYTES = 2 << 30  # of all processes of a host together, its files in memory included
PROCESSES = 2048  # and threads, of a host
FILES_BYTES = 1 << 30  # of a host's writable directories, and of each volume
FILES = 200_000  # how many, there
OPEN_FILES = 65536  # of a process, as far as the machine allows
COLLECTED_BYTES = FILES_BYTES + 2048 * FILES  # of one path that is copied out: the fullest host, as an archive
OUTPUT_BYTES = 64 << 20  # of each of a program's two streams
OOM_SCORE_ADJ = 1000  # where memory runs out, programs in hosts go first; proc_pid_oom_score_adj(5)


def too_large() -> OSError:
    """For what is not copied out of a host: a file with holes is as large as it says."""
    return OSError(errno.EFBIG, f"more than {COLLECTED_BYTES} bytes, the most that is collected")


def as_records() -> dict[str, int]:
    """For the records of a run."""
    return {name.lower(): value for name, value in globals().items() if name.isupper()}
