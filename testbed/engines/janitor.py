"""Removes a run's Docker objects when the process that owns the run dies, whatever it dies of.

A process of its own session, started before the first object exists. Its stdin is a pipe whose one write end is
in the owner. The owner writes a line a thing it does:

    + KIND NAME    about to create an object of that kind ("container", "network", "volume") and name
    - KIND NAME    that create was answered
    done           everything is removed and looked after: end without doing anything

End of input without `done` means that the owner is dead. Creates in flight then still finish, so the janitor
removes until nothing has come for QUIET_S; and where a `+` had no `-`, it waits up to IN_FLIGHT_S for that very
object. Usage: `python -m testbed.engines.janitor RUN`, with DOCKER_HOST and so on in the environment.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable

from testbed.engines.docker_client import connect
from testbed.engines.docker_owner import remove_until_quiet
from testbed.errors import TestbedError

QUIET_S, IN_FLIGHT_S = 1.0, 5.0
TRY_AGAIN_S, TRIES = 1.0, 60
READY, DONE = b"ready\n", "done"


def in_flight(lines: Iterable[str]) -> set[str] | None:
    """What was about to be created, and nobody has heard the end of it; None if the owner said `done`."""
    names: set[str] = set()
    for line in lines:
        what, _, name = line.strip().partition(" ")
        if what == DONE:
            return None
        if what == "+":
            names.add(name)
        elif what == "-":
            names.discard(name)
    return names


def main(run: str) -> int:
    api = connect()
    sys.stdout.buffer.write(READY)
    sys.stdout.buffer.flush()
    unheard = in_flight(sys.stdin)
    if unheard is None:
        return 0
    for _ in range(TRIES):
        try:
            remove_until_quiet(api, run, lambda found: QUIET_S if unheard <= found else IN_FLIGHT_S)
            return 0
        except TestbedError:  # the daemon restarts, or hangs: there is nobody left to tell
            time.sleep(TRY_AGAIN_S)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
