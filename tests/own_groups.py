"""Control groups of a test session's own: what labs leave below is its, whatever others do meanwhile."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from testbed import groups

OF_TESTS = "testbed-tests-"
GONE_WITHIN_S = 5.0


def dead() -> set[str]:
    """Groups of labs of this session that have ended. A lab is known by where its limits are, then by name."""
    with suppress(groups.NoGroups):
        found = [Path(group) for place in groups.parents() for group in groups.dead(place.directory)]
        names = {group.name for group in found if group.parent.name.startswith(OF_TESTS)}
        return {str(group) for group in found if group.name in names}
    return set()


class OwnGroups:
    """This process, and all that it begets, moves into groups of its own; nothing is done where it may not."""

    def __init__(self) -> None:
        self.places: list[Path] = []  # where labs of this session make theirs
        self._homes: list[Path] = []
        with suppress(groups.NoGroups, OSError):
            own = groups.own(Path("/proc/self/cgroup").read_text(), Path("/proc/self/mountinfo").read_text())
            for directory, version, controllers in groups.parents():
                if set(controllers) & set(
                    groups.CONTROLLERS
                ):  # in others a process would get other shares of time
                    self._enter(Path(directory), version, Path(own[controllers[0]][0]))

    def _enter(self, parent: Path, version: int, home: Path) -> None:
        for other in parent.glob(f"{OF_TESTS}*"):
            if not Path("/proc", other.name.removeprefix(OF_TESTS)).exists():  # its session was killed
                self._remove(other, 0)
        made = parent / f"{OF_TESTS}{os.getpid()}"
        made.mkdir()
        self.places.append(made)
        self._homes.append(home)
        leaf = made
        if version == 2:  # a group with children and controllers for them has no processes
            (made / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in groups.CONTROLLERS))
            leaf = made / "tests"
            leaf.mkdir()
        (leaf / "cgroup.procs").write_text(str(os.getpid()))

    def leave(self) -> None:
        for place, home in zip(self.places, self._homes, strict=True):
            with suppress(OSError):
                (home / "cgroup.procs").write_text(str(os.getpid()))
            groups.sweep(str(place))
            self._remove(place, GONE_WITHIN_S)

    @staticmethod
    def _remove(place: Path, within_s: float) -> None:
        deadline = time.monotonic() + within_s
        while True:
            with suppress(OSError):
                for part in (*place.glob("*/"), place):
                    part.rmdir()
            if not place.exists() or time.monotonic() >= deadline:
                return
            time.sleep(0.01)
