"""The system calls that programs in hosts cannot have: a filter in classic BPF, seccomp(2). Pure.

What namespaces and the lack of capabilities leave open. Keys belong to a user and not to a namespace, so a host
of root's would see root's. A user namespace of its own would give a program all capabilities in it, and with them
parts of the kernel that nobody else reaches. Docker forbids these too, and many that need capabilities anyway. A
list of what is allowed, as Docker has it, was rejected: it has to be kept up with every kernel.

Sources: linux/seccomp.h, linux/audit.h, linux/filter.h, and the kernel's tables of system calls.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator

from testbed.linux import CLONE_NEWUSER

LOAD, EQUAL, ANY_OF, AT_LEAST, RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data, of little-endian machines
ALLOW, REFUSE = 0x7FFF0000, 0x00050000
X32 = 0x40000000  # the numbers of x86_64's other interface begin here
Instruction = tuple[int, int, int, int]  # code, how far to jump if so, if not so, value

NAMES = "add_key request_key keyctl perf_event_open userfaultfd bpf unshare clone clone3".split()
X86_64 = 0xC000003E, dict(zip(NAMES, (248, 249, 250, 298, 323, 321, 272, 56, 435), strict=True))
I386 = 0x40000003, dict(zip(NAMES, (286, 287, 288, 336, 374, 357, 310, 120, 435), strict=True))
AARCH64 = 0xC00000B7, dict(zip(NAMES, (217, 218, 219, 241, 282, 280, 97, 220, 435), strict=True))
MACHINES = {"x86_64": (X86_64, I386), "aarch64": (AARCH64,)}


def program(machine: str) -> bytes | None:
    """An array of struct sock_filter; None for a machine whose numbers we do not have.

    What is refused is EPERM. clone3 is ENOSYS, because its flags cannot be read from here: libraries then take
    clone. So is all of an architecture that is not listed for the machine.
    """
    if machine not in MACHINES:
        return None
    found: list[Instruction] = [(LOAD, 0, 0, ARCHITECTURE)]
    for architecture, numbers in MACHINES[machine]:
        block = list(_block(numbers))
        found += [(EQUAL, 0, len(block), architecture), *block]
    found.append(_refuse(errno.ENOSYS))
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in found)


def _block(numbers: dict[str, int]) -> Iterator[Instruction]:
    yield LOAD, 0, 0, NUMBER
    yield AT_LEAST, 0, 1, X32
    yield _refuse(errno.ENOSYS)
    for name, number in numbers.items():
        if name in ("unshare", "clone"):
            continue
        yield EQUAL, 0, 1, number
        yield _refuse(errno.ENOSYS if name == "clone3" else errno.EPERM)
    yield EQUAL, 1, 0, numbers["clone"]
    yield EQUAL, 0, 3, numbers["unshare"]
    yield LOAD, 0, 0, FIRST_ARGUMENT
    yield ANY_OF, 0, 1, CLONE_NEWUSER
    yield _refuse(errno.EPERM)
    yield RETURN, 0, 0, ALLOW


def _refuse(number: int) -> Instruction:
    return RETURN, 0, 0, REFUSE | number
