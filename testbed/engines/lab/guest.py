"""What a process of a lab does inside a host: become a program there, or carry files in and out.

Every function here runs in a process that the builder forked into the host's pid namespace, and never returns
to the builder's loop. What they take is plain data; what goes wrong is raised as Refused.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import platform
import resource
import shutil
import stat
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from testbed import linux
from testbed.directories import WRITABLE
from testbed.engines.lab import seccomp
from testbed.limits import COLLECTED_BYTES, DEEP, OOM_SCORE_ADJ, OPEN_FILES, too_deep, too_large

NOT_THERE, TOO_LARGE, TOO_DEEP = 3, 4, 5  # exit statuses of `carry_out`
SECBIT_NO_SETUID_FIXUP = 4  # the sets of capabilities survive a change of uid; capabilities(7)
NAMESPACES = linux.CLONE_NEWNS | linux.CLONE_NEWNET | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS


class Refused(Exception):
    """Cannot be done. `kind` says whose matter it is: "not found", "capability" or "engine"."""

    def __init__(self, kind: str, text: str) -> None:
        self.kind = kind
        super().__init__(text)


@dataclass(frozen=True)
class Identity:
    uid: int
    gid: int
    groups: tuple[int, ...]


def process_title(host: str, lab: str) -> str:
    """The command line of the process that holds a host: what `ps` shows, and how it is found from outside."""
    return f"testbed host {host} of {lab}"


def enter(host: int) -> None:
    """Move into the namespaces of the process behind the descriptor `host`; its pid namespace came by the fork."""
    linux.setns(host, NAMESPACES)
    os.setsid()
    os.chdir("/")


def take_streams(descriptors: Sequence[int], keep: int) -> None:
    """Make the descriptors 0, 1, 2, and close everything else but `keep`.

    Nothing of the builder may stay open here: the host could get hold of it through this process.
    """
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    os.closerange(3, keep)
    os.closerange(keep + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def become_program(
    argv: Sequence[str],
    environment: Mapping[str, str],
    working_dir: str,
    user: str | None,
    capabilities: tuple[str, ...],
    one_uid: bool,
    processes: int | None,
) -> None:
    """Turn into the program, without any right beyond `capabilities`. Raises Refused; returns never."""
    identity = _identity(user, one_uid)
    try:
        os.chdir(working_dir)
    except OSError as problem:
        raise Refused("engine", f"working directory {working_dir}: {problem.strerror}") from problem
    path = find_command(argv[0], environment.get("PATH", os.defpath))
    linux.default_signals()
    os.umask(0o022)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = min(OPEN_FILES, most) if most != resource.RLIM_INFINITY else OPEN_FILES
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if processes is not None:
        _, most = resource.getrlimit(resource.RLIMIT_NPROC)
        processes = min(processes, most) if most != resource.RLIM_INFINITY else processes
        resource.setrlimit(resource.RLIMIT_NPROC, (processes, processes))
    _go_first_when_memory_runs_out()
    if identity is not None:
        for stream in range(3):
            os.fchown(stream, identity.uid, identity.gid)  # or it could not open /dev/stdout
        linux.prctl(linux.PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP)
        os.setgroups(identity.groups)
        os.setresgid(identity.gid, identity.gid, identity.gid)
        os.setresuid(identity.uid, identity.uid, identity.uid)
    linux.limit_capabilities(capabilities)
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    refused = seccomp.program(platform.machine())
    if refused is not None:
        linux.filter_system_calls(refused)
    try:
        os.execve(path, list(argv), dict(environment))
    except FileNotFoundError as problem:
        text = f"{path} is there, but the interpreter that it names is not"
        raise Refused("not found", text) from problem
    except OSError as problem:
        raise Refused("engine", f"executing {path}: {problem.strerror}") from problem


def _go_first_when_memory_runs_out() -> None:
    """A process that is not dumpable, as the builder and so this one, may not write that of an ordinary user.

    While it is dumpable it has all capabilities, which is more than anybody in the host, and so nobody gets at it.
    """
    linux.prctl(linux.PR_SET_DUMPABLE, 1)
    try:
        Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE_ADJ))
    finally:
        linux.prctl(linux.PR_SET_DUMPABLE, 0)


def find_command(name: str, search: str) -> str:
    """Where execvp(3) would find it from the working directory. Raises Refused, saying what is wrong with it."""
    paths = [name] if "/" in name else [f"{directory or '.'}/{name}" for directory in search.split(":")]
    there = [path for path in paths if Path(path).exists()]
    for path in there:
        if Path(path).is_file() and Path(path).stat().st_mode & 0o111:
            return path
    if there:
        raise Refused("engine", f"{there[0]} is not an executable file")
    where = "it" if "/" in name else f"PATH={search}"
    raise Refused("not found", f"no command {name!r} ({where} was looked up in the host)")


def _identity(user: str | None, one_uid: bool) -> Identity | None:
    """None: stay root."""
    if user is None:
        return None
    identity = resolve_user(user, Path("/etc/passwd").read_text(), Path("/etc/group").read_text())
    if identity.uid == 0 and identity.gid == 0:
        return None
    if one_uid:
        raise Refused(
            "capability",
            f"user {user!r}: an ordinary user's namespace has one uid, so programs cannot change to another; "
            "run testbed as root or use Docker (`requires: root` skips the scenario where that cannot be)",
        )
    return identity


def resolve_user(user: str, passwd: str, group: str) -> Identity:
    """`user` is NAME, UID, or either with :GROUP. The texts are those of /etc/passwd and /etc/group.

    A number needs no entry; its group is then 0, as container runtimes do it. Raises Refused.
    """
    name, _, wanted_group = user.partition(":")
    accounts = [line.split(":") for line in passwd.splitlines() if line.count(":") == 6]
    groups = [line.split(":") for line in group.splitlines() if line.count(":") == 3]
    account = next((a for a in accounts if name in (a[0], a[2])), None)
    if account is None and not name.isdecimal():
        raise Refused("engine", f"user {user!r}: /etc/passwd has no {name!r}")
    uid, gid = (int(account[2]), int(account[3])) if account else (int(name), 0)
    if wanted_group:
        entry = next((g for g in groups if wanted_group in (g[0], g[2])), None)
        if entry is None and not wanted_group.isdecimal():
            raise Refused("engine", f"user {user!r}: /etc/group has no {wanted_group!r}")
        return Identity(uid, int(entry[2] if entry else wanted_group), ())
    member = {int(g[2]) for g in groups if account and account[0] in g[3].split(",")}
    return Identity(uid, gid, tuple(sorted(member | {gid})))


def carry_in() -> int:
    """Unpack the tar archive on standard input, each member at its own path. Returns an exit status."""
    made: list[tuple[str, float]] = []
    with os.fdopen(0, "rb") as stdin, tarfile.open(fileobj=stdin, mode="r|") as archive:
        for member in archive:
            path = f"/{member.name}"
            try:
                try:
                    _unpack(archive, member, path)
                except FileNotFoundError:
                    Path(path).parent.mkdir(parents=True, exist_ok=True)
                    _unpack(archive, member, path)
                if member.isdir():
                    made.append((path, member.mtime))
            except OSError as problem:
                writable = f"{', '.join(WRITABLE)}, /dev/shm and volumes"
                hint = f"; writable are {writable}" if problem.errno == errno.EROFS else ""
                return _complain(f"{path}: {problem.strerror}{hint}")
    for path, mtime in reversed(made):  # what was put into them since has changed it
        os.utime(path, (mtime, mtime))
    return 0


def _unpack(archive: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
    """With os and not pathlib: there may be 200,000. A directory may be there already. Raises OSError."""
    if member.isdir():
        try:
            os.mkdir(path)  # noqa: PTH102
        except FileExistsError:
            if not os.path.isdir(path):  # noqa: PTH112
                raise
        os.chmod(path, member.mode)  # noqa: PTH101
    elif member.issym():
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)  # noqa: PTH108
        os.symlink(member.linkname, path)  # noqa: PTH211
    else:
        content = archive.extractfile(member) or io.BytesIO()
        with content, open(path, "wb") as file:  # noqa: PTH123
            os.fchmod(file.fileno(), member.mode)
            shutil.copyfileobj(content, file, 1 << 20)
        os.utime(path, (member.mtime, member.mtime))


def carry_out(path: str) -> int:
    """Write `path`, file or directory, as a tar archive to standard output. Returns an exit status."""
    real = os.path.realpath(path)
    if not os.path.lexists(real):
        return NOT_THERE
    try:
        with os.fdopen(1, "wb") as stdout, tarfile.open(fileobj=stdout, mode="w|") as archive:
            for inner, name in _walk(real, Path(path).name or "."):
                info, content = _read(archive, inner, name, COLLECTED_BYTES - archive.offset)
                if info is not None:
                    archive.addfile(info, io.BytesIO(content))
    except OSError as problem:
        if problem.errno == errno.EFBIG:
            return TOO_LARGE
        if problem.errno == errno.ENAMETOOLONG:
            return TOO_DEEP
        return _complain(f"{problem.filename or path}: {problem.strerror}")
    return 0


def _walk(path: str, name: str) -> Iterator[tuple[str, str]]:
    yield path, name
    if stat.S_ISDIR(os.lstat(path).st_mode):
        if name.count("/") > DEEP:
            raise too_deep()
        for entry in sorted(Path(path).iterdir()):
            yield from _walk(str(entry), f"{name}/{entry.name}")


def _read(archive: tarfile.TarFile, path: str, name: str, room_bytes: int) -> tuple[tarfile.TarInfo | None, bytes]:
    """One member. The content is read whole, so that a file which grows or shrinks cannot spoil the archive."""
    try:
        info = archive.gettarinfo(path, name)  # None for a socket: an archive cannot hold one
        if info is None or not info.isreg():
            return info, b""
        if info.size > room_bytes:
            raise too_large()
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:  # it went away since it was listed
        return None, b""
    with os.fdopen(descriptor, "rb") as file:
        content = file.read(room_bytes)
    info.size, info.type = len(content), tarfile.REGTYPE  # a hard link comes out as a file of its own
    return info, content


def _complain(text: str) -> int:
    os.write(2, text.encode(errors="replace"))
    return 1
