"""Where an author's own files may be taken from: below the project's root, and from nowhere else.

A scenario may come from a stranger. So nothing outside the root is ever read for it, also not through a link, and
whatever a path turns out to be is looked at before anything of a run is built.
"""

from __future__ import annotations

import io
import os
import posixpath
import pwd
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from testbed.limits import FILES_BYTES
from testbed.project.tree import Listing, listing, opened, within

MARKS = (".git", "pyproject.toml", "testbed.toml")  # what a project's root has
FIRST_USER = 1000  # of the uids that people have


class Refused(Exception):
    """A path that is not taken: why, and what to write or do instead."""

    def __init__(self, message: str, hint: str = "") -> None:
        self.message, self.hint = message, hint
        super().__init__(f"{message}; {hint}" if hint else message)


def find_root(directory: Path) -> Path:
    """The nearest directory, this one or above, with one of MARKS; without one, the directory itself.

    A home is nobody's project, nor is what homes lie in: with such a root, a scenario that was only saved there
    could have every secret of its reader. Anybody's home: with `sudo`, the reader is not who runs this.
    """
    directory = directory.resolve()
    for one in (directory, *directory.parents):
        if holds_homes(one):
            break
        if any((one / mark).exists() for mark in MARKS):
            return one
    return directory


def holds_homes(directory: Path) -> bool:
    """Whether it is the home of a person, or lies above one: `/`, `/home`, `/home/anna`."""
    people = (one.pw_dir for one in pwd.getpwall() if one.pw_uid == 0 or one.pw_uid >= FIRST_USER)
    homes = {Path.home(), *(Path(home) for home in people if home != "/")}
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
        except ValueError as problem:
            raise Refused(f"`{source}`: {problem}", "no file has such a name") from problem
        except OSError as problem:
            if not self.has(os.path.realpath(path)):  # what is or is not out there is nobody's business
                raise self._outside(source, path) from problem
            raise Refused(f"`{source}`: {problem.strerror}", self._where(source)) from problem
        if not self.has(real):
            raise self._outside(source, path)
        return real

    def has(self, path: str) -> bool:
        """Whether a real path lies in the project."""
        return within(path, str(self.root))

    @contextmanager
    def open(self, source: str) -> Iterator[io.BufferedReader]:
        """A file that can be read, and is no larger than all that a host holds. Raises Refused."""
        path = self.find(source)
        if not Path(path).is_file():
            raise Refused(f"`{source}` is no file", f"looked at {path}")
        try:
            with opened(path) as file:
                if os.fstat(file.fileno()).st_size > FILES_BYTES:
                    raise Refused(f"`{source}` is more than 1 GiB", "a host holds no more")
                yield file
        except OSError as problem:
            raise Refused(f"`{source}`: {problem.strerror}", f"looked at {path}") from problem

    def read(self, source: str) -> bytes:
        """The content of a file. Raises Refused."""
        with self.open(source) as file:
            content = file.read(FILES_BYTES + 1)
        if len(content) > FILES_BYTES:  # of a file that grew meanwhile
            raise Refused(f"`{source}` is more than 1 GiB", "a host holds no more")
        return content

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

    def _where(self, source: str) -> str:
        """What may be meant by a path where nothing is."""
        before, _, after = source.partition(":")
        if "*" in source or "?" in source:
            return f"a pattern stands for itself here: name the directory, or each file ({self.directory})"
        if "\\" in source:
            return f"did you mean `{source.replace(chr(92), '/')}`? Looked for in {self.directory}"
        if after and (self.directory / before).exists():
            return f"did you mean `{{{after}: {before}}}`, where it goes and what it is?"
        return f"looked for in {self.directory}"

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
