"""What one host may use up, the same on every engine. Against a program that runs away, so generous.

Nothing is measured against these: a program that meets one fails, and what else runs on the machine goes on.
Which of them hold where, and how, is in docs/format.md.
"""

from __future__ import annotations

MEMORY_BYTES = 2 << 30  # of all processes of a host together, its files in memory included
PROCESSES = 2048  # and threads, of a host
FILES_BYTES = 1 << 30  # of a host's writable directories, and of each volume
FILES = 200_000  # how many, there
OPEN_FILES = 65536  # of a process, as far as the machine allows
OUTPUT_BYTES = 64 << 20  # of each of a program's two streams
OOM_SCORE_ADJ = 1000  # where memory runs out, programs in hosts go first; proc_pid_oom_score_adj(5)


def as_records() -> dict[str, int]:
    """For the records of a run."""
    return {name.lower(): value for name, value in globals().items() if name.isupper()}
