"""What a host must not be able to do, tried: a JSON object of what was tried and what came back. Standard library.

Numbers of system calls are x86_64's; elsewhere they are other calls, which fail as well.
"""

import ctypes
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

NEWNS, NEWUSER, NEWNET = 0x20000, 0x10000000, 0x40000000
RDONLY, REMOUNT, BIND = 1, 32, 4096
libc = ctypes.CDLL(None, use_errno=True)


def mount(source: bytes, target: bytes, kind: bytes, flags: int) -> int:
    return int(libc.mount(source, target, kind, ctypes.c_ulong(flags), None))


def write(path: str) -> int:
    file = Path(path)
    file.write_text(file.read_text())
    return 0


def opened(path: str) -> int:
    os.close(os.open(path, os.O_WRONLY))
    return 0


def step_the_clock_by_nothing() -> int:
    """clock_adjtime(2) with ADJ_SETOFFSET: it takes the right to set the clock, and would leave it as it is."""
    return min(int(libc.clock_adjtime(0, ctypes.byref((ctypes.c_long * 32)(0x0100)))), 0)


def enter(kind: str) -> int:
    descriptor = os.open(f"/proc/1/ns/{kind}", os.O_RDONLY)
    return int(libc.setns(descriptor, 0))


ATTACKS: dict[str, Callable[[], int]] = {
    "make the root writable": lambda: mount(b"none", b"/", b"", REMOUNT | BIND),
    "make its file system writable": lambda: mount(b"none", b"/", b"", REMOUNT),
    "make /proc/sys writable": lambda: mount(b"none", b"/proc/sys", b"", REMOUNT | BIND),
    "take the cover off /proc/sys": lambda: libc.umount2(b"/proc/sys", 0),
    "take the cover off /proc/acpi": lambda: libc.umount2(b"/proc/acpi", 0),
    "make the names writable": lambda: mount(b"none", b"/etc/hosts", b"", REMOUNT | BIND),
    "change the names": lambda: write("/etc/hosts"),
    "change a sysctl of the machine": lambda: write("/proc/sys/vm/swappiness"),
    "change a sysctl of all users": lambda: write("/proc/sys/kernel/printk"),
    "change a sysctl of its own network": lambda: write("/proc/sys/net/ipv4/ip_forward"),
    "press a key of the machine": lambda: opened("/proc/sysrq-trigger"),
    "load a module": lambda: libc.syscall(175, b"", 0, b""),  # init_module
    "enter the first process's mounts": lambda: enter("mnt"),
    "make a device": lambda: os.mknod("/tmp/device", 0o20666, os.makedev(1, 1)) or 0,
    "set the clock": step_the_clock_by_nothing,
    "name itself": lambda: libc.sethostname(b"other", 5),
    "read the keys of its user": lambda: min(int(libc.syscall(250, 11, -4, None, 0)), 0),  # KEYCTL_READ
    "watch the machine": lambda: libc.syscall(298, bytes(128), 0, -1, -1, 0) and ctypes.get_errno(),
    "be root of a user namespace": lambda: libc.unshare(NEWUSER),
    "be root of a network of its own": lambda: libc.unshare(NEWUSER | NEWNET),
}


def tried() -> dict[str, str]:
    found = {}
    for name, attack in ATTACKS.items():
        try:
            found[name] = "done" if attack() == 0 else os.strerror(ctypes.get_errno())
        except OSError as problem:
            found[name] = problem.strerror or ""
    return found


json.dump(tried(), sys.stdout)
