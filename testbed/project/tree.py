"""A file or a directory of the author's, listed as it goes into a host, and packed as one archive.

A listing is made without reading any content, so that `check` finds what a run would trip over.
"""

from __future__ import annotations

import io
import os
import stat
import tarfile
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Literal, NamedTuple

from testbed.limits import DEEP, FILES, FILES_BYTES

PAGE_BYTES = 4096  # a file in memory takes whole pages
WORTH_TELLING = 5  # troubles of one listing
TOO_DEEP = f"is more than {DEEP} directories deep"
SPECIAL = {
    stat.S_IFSOCK: "a socket",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
NO_PLACE_IN_HOSTS = "hosts get files, directories and links: name what is beside it"


class Entry(NamedTuple):
    """One thing in a listing. `path` is relative to what was listed, "" for that itself."""

    path: str
    kind: Literal["file", "directory", "link"]
    source: str = ""  # of a file: its real path on this machine
    leads_to: str = ""  # of a link: its text
    mode: int = 0o644
    mtime_s: int = 0


class Trouble(NamedTuple):
    """Something that cannot go into a host. `path` as in Entry."""

    path: str
    what: str
    hint: str


@dataclass
class Listing:
    """What lies below a path, in an order in which it can be made; and what of it cannot go into a host."""

    entries: list[Entry] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)
    bytes: int = 0  # as the pages that a file system in memory takes for it

    @property
    def too_much(self) -> str:
        """What is more than a host can hold, in words; "" if nothing is."""
        if len(self.entries) > FILES:
            return f"more than {FILES:,} files and directories"
        return "more than 1 GiB" if self.bytes > FILES_BYTES else ""

    @property
    def wrong(self) -> str:
        """The first reason why it cannot go into a host, in one line; "" if there is none."""
        if self.too_much:
            return f"it has {self.too_much}; name what is needed of it"
        first = next(iter(self.troubles), None)
        return f"{first.path or 'it'} {first.what}; {first.hint}" if first else ""

    def add(self, other: Listing) -> None:
        """Count another one as well: what goes into the same host."""
        self.entries += other.entries
        self.bytes += other.bytes


def listing(real: str, root: str, follow: bool) -> Listing:
    """All at and below a real path. It ends early where it is more than a host can hold.

    With `follow`, as for a copy: a link that stays in what is copied stays a link, one that leads elsewhere below
    `root` becomes what it leads to, and one that leads out of there is a trouble. Without, as for a directory that
    is shown as it is: links stay what they are, wherever they lead.
    """
    return _Lister(root, follow).list(real)


class _Lister:
    def __init__(self, root: str, follow: bool) -> None:
        self._root, self._follow = root, follow
        self._made = Listing()
        self._environments: list[str] = []  # directories that are Python's virtual environments

    def list(self, real: str) -> Listing:
        self._one(real, "", os.lstat(real), (real,))
        return self._made

    def _one(self, real: str, path: str, found: os.stat_result, bases: tuple[str, ...]) -> None:
        """`bases`: the directory that is copied, and those that links have led to from there to here."""
        mode = stat.S_IMODE(found.st_mode) & 0o777
        if stat.S_ISREG(found.st_mode):
            if not (os.access(real, os.R_OK) if self._follow else host_can_read(found)):
                self._trouble(path, "cannot be read", _readable(found))
            self._made.entries.append(Entry(path, "file", real, "", mode, int(found.st_mtime)))
            self._made.bytes += -(-found.st_size // PAGE_BYTES) * PAGE_BYTES
        elif stat.S_ISDIR(found.st_mode):
            self._made.entries.append(Entry(path, "directory", real, "", mode, int(found.st_mtime)))
            if not self._follow and not host_can_read(found):
                self._trouble(path, "cannot be read", _readable(found))
            self._below(real, path, bases)
        else:
            self._trouble(path, f"is {special(found.st_mode)}", NO_PLACE_IN_HOSTS)

    def _below(self, real: str, path: str, bases: tuple[str, ...]) -> None:
        if path.count("/") >= DEEP:
            self._trouble(path.split("/")[0], TOO_DEEP, "name what is needed of it")
            return
        try:
            inside = sorted(os.scandir(real), key=lambda entry: entry.name)
        except OSError as problem:
            self._trouble(path, f"cannot be read: {problem.strerror}", "mend that, or name what is beside it")
            return
        if any(entry.name == "pyvenv.cfg" for entry in inside):
            self._environments.append(real)
        for entry in inside:
            if self._made.too_much:
                return
            below = f"{path}/{entry.name}" if path else entry.name
            try:
                found = entry.stat(follow_symlinks=False)
                if stat.S_ISLNK(found.st_mode):
                    self._link(entry.path, below, found, bases)
                else:
                    self._one(entry.path, below, found, bases)
            except FileNotFoundError:  # it went away since it was listed
                continue

    def _link(self, link: str, path: str, found: os.stat_result, bases: tuple[str, ...]) -> None:
        mtime_s = int(found.st_mtime)
        if not self._follow:
            self._made.entries.append(Entry(path, "link", "", os.readlink(link), 0o777, mtime_s))  # noqa: PTH115
            return
        target = os.path.realpath(link)
        if within(target, bases[-1]):
            text = os.path.relpath(target, os.path.dirname(link))  # noqa: PTH120
            self._made.entries.append(Entry(path, "link", "", text, 0o777, mtime_s))
        elif not within(target, self._root):
            hint = "replace it by what it leads to, or name what is beside it"
            if any(within(link, environment) for environment in self._environments):
                hint = "it is in a virtual environment: `venv:` shows one to a program; name what is beside it"
            self._trouble(path, f"is a link that leads out of the project, to {target}", hint)
        elif any(within(base, target) for base in bases):
            self._trouble(path, f"is a link that leads back to {target}, which it lies in", "remove the link")
        else:
            try:
                self._one(target, path, os.lstat(target), (*bases, target))
            except FileNotFoundError:
                self._trouble(path, f"is a link to {target}, which is not there", "remove the link")

    def _trouble(self, path: str, what: str, hint: str) -> None:
        self._made.troubles.append(Trouble(path, what, hint))


def special(mode: int) -> str:
    """What is no file, directory or link, in words; "" for these."""
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISLNK(mode):
        return ""
    return SPECIAL.get(stat.S_IFMT(mode), "neither file nor directory")


def opened(real: str) -> io.BufferedReader:
    """The file at a real path, and no other one: what was looked at there may have been replaced since.

    Raises OSError, naming the file, if it is no file any more, or a link leads there by now.
    """
    file = os.fdopen(os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        problem = "it is no file any more"
    elif os.readlink(f"/proc/self/fd/{file.fileno()}") != real:  # noqa: PTH115
        problem = "it is another file by now"
    else:
        return file
    file.close()
    raise OSError(0, problem, real)


def within(path: str, directory: str) -> bool:
    """Whether a real path is that directory or below it."""
    return path == directory or path.startswith(directory.rstrip("/") + "/")


def host_can_read(found: os.stat_result) -> bool:
    """Its root is whoever runs us, but has no right to read what others keep to themselves."""
    wanted = 0o5 if stat.S_ISDIR(found.st_mode) else 0o4
    if found.st_uid == os.geteuid():
        return found.st_mode >> 6 & wanted == wanted
    if found.st_gid in {os.getegid(), *os.getgroups()}:
        return found.st_mode >> 3 & wanted == wanted
    return found.st_mode & wanted == wanted


def _readable(found: os.stat_result) -> str:
    mode = stat.S_IMODE(found.st_mode)
    return f"user {found.st_uid} owns it, with mode {mode:o}: `chmod a+rX` it, or name what is beside it"


def pack(things: Iterable[tuple[str, Entry | bytes]], keep: Collection[str] = (), exact: bool = False) -> BinaryIO:
    """A tar archive of (absolute path in a host, what is there), as an open file without a name, at its beginning.

    All of it belongs to root. A file that was executable, or that begins like a script or a program, is so for
    everybody; who may read it here makes no difference there, unless it has to be `exact`. Directories in `keep`
    are there already and stay as they are. Raises OSError, naming the file.
    """
    now_s = int(time.time())
    with tempfile.TemporaryFile() as out:  # not in memory: it may be a gigabyte, and hosts are in memory too
        with tarfile.open(fileobj=out, mode="w") as tar:
            for path, thing in things:
                member = tarfile.TarInfo(path.lstrip("/"))
                member.mtime = now_s if isinstance(thing, bytes) else thing.mtime_s
                if isinstance(thing, bytes):
                    member.size, member.mode = len(thing), _mode(0o644, thing)
                    tar.addfile(member, io.BytesIO(thing))
                elif thing.kind == "file":
                    _pack_file(tar, member, thing, exact)
                elif thing.kind == "link":
                    member.type, member.linkname, member.mode = tarfile.SYMTYPE, thing.leads_to, 0o777
                    tar.addfile(member)
                elif path not in keep:
                    member.type, member.mode = tarfile.DIRTYPE, thing.mode if exact else 0o755
                    tar.addfile(member)
        out.flush()
        packed = os.fdopen(os.dup(out.fileno()), "rb", buffering=0)  # others read from its descriptor
    packed.seek(0)
    return packed


def _pack_file(tar: tarfile.TarFile, member: tarfile.TarInfo, entry: Entry, exact: bool) -> None:
    with opened(entry.source) as file:
        found = os.fstat(file.fileno())
        member.size, member.mtime = found.st_size, int(found.st_mtime)
        member.mode = entry.mode if exact else _mode(entry.mode, file.peek(4)[:4])
        try:
            tar.addfile(member, file)
        except OSError as problem:
            raise OSError(problem.errno, problem.strerror or str(problem), entry.source) from problem


def _mode(mode: int, begins: bytes) -> int:
    return 0o755 if mode & 0o111 or begins.startswith((b"#!", b"\x7fELF")) else 0o644


def below(target: str, found: Listing) -> Iterator[tuple[str, Entry]]:
    """The listing as things for `pack`, at a place in a host."""
    for entry in found.entries:
        yield (f"{target.rstrip('/')}/{entry.path}" if entry.path else target), entry
