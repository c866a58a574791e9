"""System calls that Python 3.11 does not offer, by ctypes. No policy: who calls them decides.

Source of the numbers: linux/sched.h, linux/mount.h, linux/prctl.h, linux/capability.h, asm-generic/unistd.h
(the calls used by number have the same one on every architecture).
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE, MS_SLAVE = 4096, 16384, 1 << 18, 1 << 19
MNT_DETACH = 2
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV = 1, 2, 4
AT_FDCWD, AT_RECURSIVE = -100, 0x8000
SYS_MOUNT_SETATTR = 442  # Linux 5.12

PR_SET_DUMPABLE, PR_SET_PDEATHSIG, PR_CAPBSET_READ, PR_CAPBSET_DROP = 4, 1, 23, 24
PR_SET_TIMERSLACK, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 29, 38, 47
PR_SET_SECUREBITS = 28
PR_CAP_AMBIENT_RAISE, PR_CAP_AMBIENT_CLEAR_ALL = 2, 4
SECBIT_NOROOT_LOCKED = 0b11  # uid 0 gets no capabilities from an exec, and this cannot be switched off

CAPABILITIES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE "
    "NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT "
    "SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE "
    "AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ "
    "PERFMON BPF CHECKPOINT_RESTORE"
).split()

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, doing: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{doing}: {os.strerror(number)}")
    return result


def default_signals() -> None:
    """Every signal does its default again, and none is blocked, as a program expects it. Raises OSError.

    By number, because neither Python nor libc touches 32 and 33, which libc keeps for its threads: a child of
    posix_spawn(3), such as all that `make` starts, may have been born with them ignored.
    """
    default = ctypes.create_string_buffer(32)  # struct kernel_sigaction: SIG_DFL, no flags, no mask
    call = {"x86_64": 13, "aarch64": 134}.get(os.uname().machine)
    for number in range(1, 65):
        if number in (signal.SIGKILL, signal.SIGSTOP):
            continue
        if call is not None:
            _check(_libc.syscall(call, number, default, None, ctypes.c_size_t(8)), f"sigaction {number}")
        elif number in signal.valid_signals():
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


class _SchedAttr(ctypes.Structure):
    _fields_ = [
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime", ctypes.c_uint64),
        ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    ]


def short_slice(slice_ns: int) -> None:
    """Ask the ordinary scheduler for short turns, which come sooner: since Linux 6.12 a task that wakes goes ahead
    of one with a longer slice. Needs no privilege; older kernels take the wish and do nothing. Raises OSError.
    """
    call = {"x86_64": 314, "aarch64": 274}.get(os.uname().machine)
    if call is None:
        raise OSError(errno.ENOSYS, "sched_setattr: its number is not known on this machine")
    wish = _SchedAttr(size=ctypes.sizeof(_SchedAttr), nice=os.nice(0), runtime=slice_ns)
    _check(_libc.syscall(call, 0, ctypes.byref(wish), 0), f"sched_setattr, slice {slice_ns} ns")


def unshare(flags: int) -> None:
    """unshare(2). Raises OSError."""
    _check(_libc.unshare(flags), f"unshare {flags:#x}")


def setns(fd: int, kind: int = 0) -> None:
    """setns(2). Raises OSError."""
    _check(_libc.setns(fd, kind), f"setns {kind:#x}")


def mount(source: str | None, target: str, kind: str | None, flags: int = 0, data: str | None = None) -> None:
    """mount(2). Raises OSError."""
    words = [None if word is None else os.fsencode(word) for word in (source, target, kind, data)]
    result = _libc.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[3])
    _check(result, f"mount {source} on {target} ({kind}, {flags:#x})")


def umount(target: str, flags: int = 0) -> None:
    """umount2(2). Raises OSError."""
    _check(_libc.umount2(os.fsencode(target), flags), f"umount {target}")


def pivot_root(new: str, old: str) -> None:
    """pivot_root(2). Raises OSError."""
    _check(_libc.pivot_root(os.fsencode(new), os.fsencode(old)), f"pivot_root {new}")


class _MountAttr(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")]


def mount_attributes(path: str, attributes: int) -> None:
    """mount_setattr(2) on a whole tree of mounts: a remount would change its top only. Raises OSError."""
    attr = _MountAttr(attributes, 0, 0, 0)
    result = _libc.syscall(
        SYS_MOUNT_SETATTR, AT_FDCWD, os.fsencode(path), AT_RECURSIVE, ctypes.byref(attr), ctypes.sizeof(attr)
    )
    _check(result, f"mount_setattr {path}")


def prctl(option: int, *arguments: int) -> int:
    """prctl(2), with the missing arguments as 0. Raises OSError."""
    padded = [ctypes.c_ulong(a) for a in (*arguments, 0, 0, 0, 0)[:4]]
    return _check(_libc.prctl(option, *padded), f"prctl {option}")


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p)]


def filter_system_calls(program: bytes) -> None:
    """seccomp(2) with an array of struct sock_filter, for this thread and all that it becomes and starts.

    Without the slowdown that older kernels add to it against speculation. Needs no_new_privs. Raises OSError.
    """
    call = {"x86_64": 317, "aarch64": 277}.get(os.uname().machine)
    if call is None:
        raise OSError(errno.ENOSYS, "seccomp: its number is not known on this machine")
    given = _Program(len(program) // 8, program)
    _check(_libc.syscall(call, 1, 4, ctypes.byref(given)), "seccomp")  # SET_MODE_FILTER, FLAG_SPEC_ALLOW


class _CapHeader(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _CapData(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint32) for name in ("effective", "permitted", "inheritable")]


def limit_capabilities(keep: tuple[str, ...]) -> None:
    """Leave this process, and whatever it executes, with `keep` (names without CAP_) and nothing else.

    As in capabilities(7): drop the bounding set, lock SECBIT_NOROOT so that uid 0 is no magic, set the three
    sets, and raise the ambient ones, which are what survives an exec. Raises OSError, ValueError.
    """
    unknown = set(keep) - set(CAPABILITIES)
    if unknown:
        raise ValueError(f"no such capability: {', '.join(sorted(unknown))}")
    wanted = {CAPABILITIES.index(name) for name in keep}
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    prctl(PR_SET_SECUREBITS, SECBIT_NOROOT_LOCKED)
    for number in range(64):
        try:
            if number not in wanted and prctl(PR_CAPBSET_READ, number):
                prctl(PR_CAPBSET_DROP, number)
        except OSError:
            break  # beyond the last one that this kernel knows
    mask = sum(1 << number for number in wanted)
    header = _CapHeader(0x20080522, 0)
    words = [mask & 0xFFFFFFFF, mask >> 32]
    data = (_CapData * 2)(*[_CapData(word, word, word) for word in words])
    _check(_libc.capset(ctypes.byref(header), data), "capset")
    for number in sorted(wanted):
        prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number)
