"""Where an author's own files may be taken from: below the project's root, and from nowhere else.

A scenario may come from a stranger. So nothing outside the root is ever read for it, also not through a link, and
whatever a path turns out to be is looked at before anything of a run is built.
"""

from __future__ import annotations

import os
import posixpath
import pwd
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from testbed.project.tree import Listing, listing, within

MARKS = (".git", "pyproject.toml", "testbed.toml")  # what a project's root has


class Refused(Exception):
    """A path that is not taken: why, and what to write or do instead."""

    def __init__(self, message: str, hint: str = "") -> None:
        self.message, self.hint = message, hint
        super().__init__(f"{message}; {hint}" if hint else message)


def find_root(directory: Path) -> Path:
    """The nearest directory, this one or above, with one of MARKS; without one, the directory itself.

    A home is nobody's project, nor is what homes lie in: with such a root, a scenario that was only saved there
    could have every secret of its reader.
    """
    directory = directory.resolve()
    for one in (directory, *directory.parents):
        if holds_homes(one):
            break
        if any((one / mark).exists() for mark in MARKS):
            return one
    return directory


def holds_homes(directory: Path) -> bool:
    """Whether it is the home of whoever runs this, or lies above it: `/`, `/home`, `/home/anna`."""
    homes = {Path.home()}
    with suppress(KeyError):
        homes.add(Path(pwd.getpwuid(os.geteuid()).pw_dir))
    return any(home.resolve().is_relative_to(directory) for home in homes)


@dataclass(frozen=True)
class Project:
    """The directory that a scenario's paths begin at, and the root that they stay below; both real paths."""

    directory: Path
    root: Path
    _seen: dict[tuple[str, bool], Listing] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def around(cls, directory: Path, root: Path | None = None) -> Project:
        """The project that a scenario in this directory belongs to. Raises Refused if it is not below `root`."""
        directory = directory.resolve()
        found = find_root(directory) if root is None else root.resolve()
        if not directory.is_relative_to(found):
            raise Refused(f"it is not below {found}", "name a directory above the scenario with --root, or none")
        return cls(directory, found)

    def find(self, source: str) -> str:
        """The real path of what `source` means, relative to the scenario. Raises Refused, also if it is not there.

        `..` is taken out of the text before links are followed.
        """
        path = posixpath.normpath(self.directory / source)
        try:
            real = os.path.realpath(path, strict=True)
        except OSError as problem:
            if not self.has(os.path.realpath(path)):  # what is or is not out there is nobody's business
                raise self._outside(source, path) from problem
            raise Refused(f"`{source}`: {problem.strerror}", f"looked for in {self.directory}") from problem
        if not self.has(real):
            raise self._outside(source, path)
        return real

    def has(self, path: str) -> bool:
        """Whether a real path lies in the project."""
        return within(path, str(self.root))

    def read(self, source: str) -> bytes:
        """The content of a file. Raises Refused."""
        path = self.find(source)
        if not Path(path).is_file():
            raise Refused(f"`{source}` is no file", f"looked at {path}")
        try:
            return Path(path).read_bytes()
        except OSError as problem:
            raise Refused(f"`{source}`: {problem.strerror}", f"looked at {path}") from problem

    def copied(self, source: str) -> Listing:
        """A file or directory with all that is below it, as it is copied into a host. Raises Refused."""
        return self._listed(source, follow=True)

    def shown(self, source: str) -> Listing:
        """A directory with all that is below it, as a host is shown it in its place. Raises Refused."""
        if not Path(self.find(source)).is_dir():
            hint = f"a single file is copied in: files: {{{posixpath.basename(source)}: {source}}}"
            raise Refused(f"`{source}` is no directory", hint)
        return self._listed(source, follow=False)

    def _listed(self, source: str, follow: bool) -> Listing:
        """Looked at once: a hundred saboteurs, and a thousand hosts of a group, may name the same one."""
        real = self.find(source)
        if (real, follow) not in self._seen:
            self._seen[real, follow] = listing(real, str(self.root), follow)
        return self._seen[real, follow]

    def _outside(self, source: str, path: str) -> Refused:
        by_link = within(path, str(self.root))
        how = "is a link that leads out of" if by_link else "is outside"
        if by_link:
            hint = "copy there what it leads to"
        elif self.root == self.directory and not any((self.root / mark).exists() for mark in MARKS):
            above = ", ".join(f"`{mark}`" for mark in MARKS)
            hint = f"no directory above the scenario has {above}: name the project's root with --root DIR"
        else:
            hint = "copy it into the project, or name a larger root with --root DIR"
        return Refused(f"`{source}` {how} the project {self.root}", hint)
