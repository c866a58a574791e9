"""What one host may use up, the same on every engine. Against a program that runs away, so generous.

Nothing is measured against these: a program that meets one fails, and what else runs on the machine goes on.
Which of them hold where, and how, is in docs/format.md.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Any

MEMORY_BYTES = 2 << 30  # of all processes of a host together, its files in memory included
PROCESSES = 2048  # and threads, of a host
FILES_BYTES = 1 << 30  # of a host's writable directories, and of each volume
FILES = 200_000  # how many, there
OPEN_FILES = 65536  # of a process, as far as the machine allows
DEEP = 200  # directories in directories, on the way in and out: paths have an end everywhere, and recursion too
COLLECTED_BYTES = FILES_BYTES + 2048 * FILES  # of one path that is copied out: the fullest host, as an archive
# By control groups, which not every engine has or may write: what holds is read back from the hosts.
BY_GROUPS = {"memory_bytes": MEMORY_BYTES, "swap_bytes": 0, "processes": PROCESSES}
WORDS = {"memory_bytes": "memory", "processes": "processes"}
OUTPUT_BYTES = 64 << 20  # of each of a program's two streams
OOM_SCORE_ADJ = 1000  # where memory runs out, programs in hosts go first; proc_pid_oom_score_adj(5)


def too_large() -> OSError:
    """For what is not copied out of a host: a file with holes is as large as it says."""
    return OSError(errno.EFBIG, f"more than {COLLECTED_BYTES} bytes, the most that is collected")


def too_deep() -> OSError:
    """The same for directories in directories, and for names that are too long together."""
    return OSError(errno.ENAMETOOLONG, f"too deep: more than {DEEP} directories, or a path of 4,096 bytes")


def as_records() -> dict[str, int]:
    """For the records of a run: those that hold wherever there are hosts. `held` has the others."""
    stated = {
        name.lower(): value for name, value in globals().items() if name.isupper() and isinstance(value, int)
    }
    return {name: value for name, value in stated.items() if name not in BY_GROUPS}


def held(hosts: Mapping[str, Mapping[str, Any]]) -> dict[str, int | None]:
    """Those of control groups, as they are in force on every host; None where one of them has another or none.

    `hosts`: of each what its groups say, as `groups.in_force` has it.
    """
    return {
        name: asked if all(limits.get(name) == asked for limits in hosts.values()) else None
        for name, asked in BY_GROUPS.items()
    }


def void(hosts: Mapping[str, Mapping[str, Any]]) -> str:
    """What a person should know of those that do not hold; "" if all do."""
    lacking: dict[tuple[str, ...], list[str]] = {}
    for name, word in WORDS.items():
        if some := tuple(host for host, limits in hosts.items() if limits.get(name) != BY_GROUPS[name]):
            lacking.setdefault(some, []).append(word)
    parts = [
        f"{' and '.join(words)} on {'every host' if len(some) == len(hosts) else ', '.join(some)}"
        for some, words in lacking.items()
    ]
    return f"no control group limits {', '.join(parts)}: `testbed doctor` says what holds" if parts else ""
