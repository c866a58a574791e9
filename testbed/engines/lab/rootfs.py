"""The file systems that a host sees: an allow-list, not the machine's root with things hidden.

A read-only bind mount does not isolate: UNIX sockets and named pipes ignore read-only mounts and network
namespaces, and answer through them. So /etc is a copy without them, and /usr is seen through an overlay, whose
inodes are not those that a service is bound to: connecting is refused, whenever the socket was made. Where the
kernel has no overlay, a bind mount with every socket covered that exists at the start is the next best.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from testbed import linux
from testbed.directories import BELOW_WRITABLE, LINKS, WRITABLE
from testbed.engines.launchers import launchers
from testbed.limits import FILES, FILES_BYTES

READ_ONLY = linux.MOUNT_ATTR_RDONLY | linux.MOUNT_ATTR_NOSUID | linux.MOUNT_ATTR_NODEV
SAFE = linux.MS_NOSUID | linux.MS_NODEV

DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
# As container runtimes do it; the last five are for uid 0 of the machine, who is one of these files' owners.
PROC_READ_ONLY = ("bus", "fs", "irq", "sys")
PROC_HIDDEN = (
    "acpi", "asound", "kcore", "key-users", "keys", "kmsg", "latency_stats", "sched_debug", "scsi",
    "sysrq-trigger", "timer_list", "timer_stats",
    "kpagecgroup", "kpagecount", "kpageflags", "slabinfo", "vmallocinfo",
)  # fmt: skip
SYS_HIDDEN = ("firmware", "devices/virtual/powercap")
NO_PLACE = (
    "(hosts see the machine's own directories read-only, and this one is not there); mount it elsewhere, as on "
    "/srv/data"
)
SHARED_ETC = {
    "hosts": "",  # each host's own are laid over these two
    "hostname": "",
    "resolv.conf": "# no server: names are in /etc/hosts\n",
    "gai.conf": "precedence ::ffff:0:0/96 100\n",  # of a name's addresses IPv4 first; as in the node image
}


@dataclass(frozen=True)
class HostFiles:
    """What is a host's own: the content of /etc/hosts, what is mounted where, its control groups."""

    name: str
    hosts: str
    volumes: tuple[tuple[str, str], ...] = ()  # (directory in the lab, path in the host)
    groups: tuple[tuple[str, str], ...] = ()  # its control groups: (directory, where below /sys/fs/cgroup)


@dataclass
class Userland:
    """What every host sees of the machine, prepared once: (source in the lab, path in the host)."""

    scratch: str
    sockets: tuple[str, ...] = ()
    kind: str = "overlay"  # or "bind", where the kernel has no overlay for us
    shown: int = 0  # trees so far
    mounts: list[tuple[str, str]] = field(default_factory=list)
    symlinks: list[tuple[str, str]] = field(default_factory=list)  # (path in the host, target)

    @property
    def nothing(self) -> str:
        """A read-only directory with an empty `file` and an empty `directory`, to cover things with."""
        return f"{self.scratch}/nothing"


def prepare(scratch: str, extra: Sequence[str], sockets: Iterable[str], python: str, programs: str) -> Userland:
    """Make the part of a root that all hosts share, in the mount namespace of the lab. Raises OSError.

    `extra` are trees outside /usr that hosts see too, at the same path; `sockets` the paths of UNIX sockets that
    exist on the machine; `programs` is the directory of our own.
    """
    userland = Userland(scratch, tuple(sockets))
    for name in ("nothing/directory", "shared", "own", "root", "volumes"):
        Path(scratch, name).mkdir(parents=True)
    Path(userland.nothing, "file").touch(0o000)
    _bind_read_only(userland.nothing, userland.nothing)
    for top in ("usr", "bin", "sbin", *sorted(p.name for p in Path("/").glob("lib*"))):
        path = Path("/", top)
        if path.is_symlink():
            userland.symlinks.append((f"/{top}", str(path.readlink())))
        elif path.is_dir():
            _show(userland, f"/{top}")
    for tree in extra:
        _show(userland, tree)
    etc = Path(scratch, "shared/etc")
    copy_public(Path("/etc"), etc)
    for name, text in SHARED_ETC.items():
        etc.joinpath(name).unlink(missing_ok=True)  # often a symbolic link into /run
        etc.joinpath(name).write_text(text)
    install_programs(Path(programs), Path(scratch, "shared/opt"), python)
    for name in ("etc", "opt"):
        _bind_read_only(f"{scratch}/shared/{name}", f"{scratch}/shared/{name}")
        userland.mounts.append((f"{scratch}/shared/{name}", f"/{name}" if name == "etc" else "/opt/testbed"))
    return userland


def add_volume(scratch: str, number: int) -> str:
    """A directory with a size limit of its own, to be shared by hosts. Raises OSError."""
    path = f"{scratch}/volumes/{number}"
    Path(path).mkdir()
    _mount_tmpfs(path)
    return path


def build_root(userland: Userland, host: HostFiles) -> None:
    """Give this process, in a mount namespace of its own, the root of a host. Raises OSError, naming the step.

    The process must be in the pid and network namespaces of the host already, for /proc and /sys show these.
    """
    linux.mount(None, "/", None, linux.MS_REC | linux.MS_PRIVATE)
    root = f"{userland.scratch}/root"
    _mount_tmpfs(root)
    for path, mode in (WRITABLE | BELOW_WRITABLE).items():
        _make_directory(root + path, mode)
    for path, target in (*LINKS.items(), *userland.symlinks):
        Path(root + path).symlink_to(target)
    _populate_dev(root)
    for path in (*WRITABLE, "/dev/shm"):
        linux.mount(root + path, root + path, None, linux.MS_BIND)  # stays writable when the root does not
    for source, path in (*userland.mounts, *host.volumes):
        try:
            Path(root + path).mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise OSError(f"mounting on {path}: {problem.strerror} {NO_PLACE}") from problem
        linux.mount(source, root + path, None, linux.MS_BIND | linux.MS_REC)
    _own_etc(userland, host, root)
    _mount_kernel(userland, root)
    _mount_groups(host.groups, f"{root}/sys/fs/cgroup")
    linux.mount(None, root, None, linux.MS_REMOUNT | linux.MS_BIND | linux.MS_RDONLY | SAFE)
    os.chdir(root)
    linux.pivot_root(".", ".")  # puts the old root on top of the new one
    linux.umount(".", linux.MNT_DETACH)
    os.chdir("/")


def copy_public(source: Path, target: Path) -> None:
    """Copy a tree as far as every user of the machine may read it: no secrets, sockets, pipes or devices.

    So a host of root sees what a host of an ordinary user sees. What vanishes meanwhile is left out.
    """
    target.mkdir(exist_ok=True)
    _copy_entries(str(source), str(target))


def _copy_entries(source: str, target: str) -> None:
    """With os and not pathlib, which takes twice the time: there are a thousand files, and every run waits."""
    for entry in os.scandir(source):
        copy = f"{target}/{entry.name}"
        try:
            mode = entry.stat(follow_symlinks=False).st_mode
            if stat.S_ISLNK(mode):
                os.symlink(os.readlink(entry.path), copy)  # noqa: PTH115, PTH211
            elif stat.S_ISDIR(mode) and mode & 0o005 == 0o005:
                os.mkdir(copy)  # noqa: PTH102
                _copy_entries(entry.path, copy)
            elif stat.S_ISREG(mode) and mode & 0o004:
                _copy_file(entry.path, copy, stat.S_IMODE(mode) & 0o755)
        except (FileNotFoundError, PermissionError):
            continue


def _copy_file(source: str, target: str, mode: int) -> None:
    reading = os.open(source, os.O_RDONLY)
    try:
        writing = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            while data := os.read(reading, 1 << 20):
                while data:
                    data = data[os.write(writing, data) :]
        finally:
            os.close(writing)
    finally:
        os.close(reading)


def install_programs(programs: Path, target: Path, python: str) -> None:
    """/opt/testbed: lib/testbed/programs, and in bin a launcher for each module of it that is a command."""
    lib, bin = target / "lib/testbed", target / "bin"
    for directory in (bin, lib):
        directory.mkdir(parents=True)
    lib.joinpath("__init__.py").touch()
    shutil.copytree(programs, lib / "programs")  # compiled files too: they hold for the same interpreter
    for name, text in launchers(programs, python).items():
        bin.joinpath(name).write_text(text)
        bin.joinpath(name).chmod(0o755)


def unix_sockets() -> set[str]:
    """Paths of the UNIX sockets in every network namespace that can be looked into from here."""
    tables: dict[str, str] = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            namespace = str((process / "ns/net").readlink())
            if namespace not in tables:
                tables[namespace] = (process / "net/unix").read_text(errors="surrogateescape")
        except OSError:  # it has ended, or belongs to somebody else
            continue
    return {path for table in tables.values() for path in socket_paths(table)}


def socket_paths(table: str) -> set[str]:
    """The absolute paths in a table such as /proc/net/unix; abstract names are no paths."""
    words = (line.split(maxsplit=7) for line in table.splitlines()[1:])
    return {line[7] for line in words if len(line) == 8 and line[7].startswith("/")}


def _show(userland: Userland, tree: str) -> None:
    """Have `tree` of the machine seen by all hosts at its own path."""
    place, kind = show(userland, tree)
    userland.mounts.append((place, tree))
    if kind == "bind":
        userland.kind = kind


def show_real(userland: Userland, tree: str) -> str:
    """`show` of a real path, and of nothing that was put in its place since it was looked at. Raises OSError."""
    directory = os.open(tree, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if os.readlink(f"/proc/self/fd/{directory}") != tree:  # noqa: PTH115
            raise OSError(errno.ELOOP, "it is another directory by now", tree)
        return show(userland, tree, f"/proc/self/fd/{directory}")[0]
    finally:
        os.close(directory)


def show(userland: Userland, tree: str, held: str = "") -> tuple[str, str]:
    """Make `tree` of the machine ready to be seen by hosts, read-only and without its sockets. Raises OSError.

    `held` is another path by which it is found. Returns where in the lab it is, and how: "overlay" or "bind".
    """
    userland.shown += 1
    place = f"{userland.scratch}/shared/{userland.shown}"
    Path(place).mkdir()
    if not _mounts_below(tree):  # an overlay would hide what is mounted below
        lower = (held or tree).replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")
        layers = f"lowerdir={lower}:{userland.nothing}/directory"  # a read-only overlay needs two layers
        try:
            linux.mount("overlay", place, "overlay", linux.MS_RDONLY | SAFE, layers)
            return place, "overlay"
        except OSError:  # not in this kernel, not for an ordinary user, or not over that file system
            pass
    _bind_read_only(held or tree, place)
    for path in map(os.path.realpath, userland.sockets):
        if path.startswith(f"{tree}/") and Path(path).is_socket():
            linux.mount(f"{userland.nothing}/file", place + path.removeprefix(tree), None, linux.MS_BIND)
    return place, "bind"


def _mounts_below(tree: str) -> bool:
    points = (line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return any(point.startswith(f"{tree}/") for point in points)


def _bind_read_only(source: str, target: str) -> None:
    """Bind with all that is mounted below, each of it read-only, cut off from later mounts on the machine."""
    linux.mount(source, target, None, linux.MS_BIND | linux.MS_REC)
    linux.mount(None, target, None, linux.MS_PRIVATE | linux.MS_REC)
    linux.mount_attributes(target, READ_ONLY)


def _mount_tmpfs(path: str) -> None:
    linux.mount("testbed", path, "tmpfs", SAFE, f"size={FILES_BYTES},nr_inodes={FILES},mode=755")


def _make_directory(path: str, mode: int) -> None:
    Path(path).mkdir(parents=True)
    Path(path).chmod(mode)


def _populate_dev(root: str) -> None:
    for name in DEVICES:
        node = Path(root, "dev", name)
        node.parent.mkdir(exist_ok=True)
        node.touch()
        linux.mount(f"/dev/{name}", str(node), None, linux.MS_BIND)
    _make_directory(f"{root}/dev/shm", 0o1777)
    _make_directory(f"{root}/dev/pts", 0o755)
    options = "newinstance,ptmxmode=0666,mode=0620"
    linux.mount("devpts", f"{root}/dev/pts", "devpts", linux.MS_NOSUID | linux.MS_NOEXEC, options)
    links = {"ptmx": "pts/ptmx", "fd": "/proc/self/fd"}
    links |= {name: f"/proc/self/fd/{number}" for number, name in enumerate(("stdin", "stdout", "stderr"))}
    for name, target in links.items():
        Path(root, "dev", name).symlink_to(target)


def _own_etc(userland: Userland, host: HostFiles, root: str) -> None:
    own = Path(userland.scratch, "own", host.name)
    own.mkdir()
    for name, text in (("hosts", host.hosts), ("hostname", host.name + "\n")):
        own.joinpath(name).write_text(text)
        _bind_read_only(str(own / name), f"{root}/etc/{name}")


def _mount_kernel(userland: Userland, root: str) -> None:
    """/proc of the host's processes and /sys of its network, without what acts on the machine."""
    for name, kind, flags in (("proc", "proc", 0), ("sys", "sysfs", linux.MS_RDONLY)):
        Path(root, name).mkdir()
        linux.mount(kind, f"{root}/{name}", kind, flags | SAFE | linux.MS_NOEXEC)
    for name in PROC_READ_ONLY:
        if Path(root, "proc", name).exists():
            linux.mount(f"{root}/proc/{name}", f"{root}/proc/{name}", None, linux.MS_BIND | linux.MS_REC)
            linux.mount_attributes(f"{root}/proc/{name}", linux.MOUNT_ATTR_RDONLY)
    _hide(
        userland, [f"{root}/proc/{name}" for name in PROC_HIDDEN] + [f"{root}/sys/{name}" for name in SYS_HIDDEN]
    )


def _mount_groups(groups: Sequence[tuple[str, str]], place: str) -> None:
    """The host's own groups and no others, read-only, where runtimes look for what they may use up."""
    if not groups or not Path(place).is_dir():
        return
    if groups[0][1]:  # of version 1: a directory for each
        linux.mount("testbed", place, "tmpfs", SAFE | linux.MS_NOEXEC, "size=64k,mode=755")
    for directory, names in groups:
        target = f"{place}/{names}".rstrip("/")
        Path(target).mkdir(exist_ok=True)
        for name in names.split(",") if "," in names else ():
            Path(place, name).symlink_to(names)
        linux.mount(directory, target, None, linux.MS_BIND)
    linux.mount_attributes(place, READ_ONLY)


def _hide(userland: Userland, paths: Iterable[str]) -> None:
    for path in paths:
        if Path(path).exists():
            cover = "directory" if Path(path).is_dir() else "file"
            linux.mount(f"{userland.nothing}/{cover}", path, None, linux.MS_BIND)
