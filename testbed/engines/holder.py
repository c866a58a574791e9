"""The process that holds a host open: a few machine instructions in an ELF file of our own making.

Both engines use it as process 1 of a host: it needs no library and no interpreter, so it runs in any image, and
it takes one page of memory. It ignores SIGCHLD, so that the kernel reaps whatever loses its parent in the host,
and then sleeps for ever. Only SIGKILL from outside the host ends it.
"""

from __future__ import annotations

import struct

from testbed.errors import EngineError

BASE = 0x400000
HEADERS_BYTES = 64 + 2 * 56  # the ELF header and two program headers; the code follows
MACHINES = {"x86_64": 62, "amd64": 62, "aarch64": 183, "arm64": 183}  # EM_X86_64 and EM_AARCH64, elf.h
SIGCHLD, SIG_IGN, SIGSET_BYTES = 17, 1, 8
PT_LOAD, PT_GNU_STACK, PF_X, PF_W, PF_R = 1, 0x6474E551, 1, 2, 4
# The kernel's struct sigaction on both machines: handler, flags, restorer, mask.
IGNORE = struct.pack("<4Q", SIG_IGN, 0, 0, 0)


def holder_elf(machine: str) -> bytes:
    """A static executable for `machine`, as `uname -m` names it. Raises EngineError for an unknown one."""
    number = MACHINES.get(machine)
    if number is None:
        known = ", ".join(sorted(MACHINES))
        raise EngineError(
            f"making the process that holds a host: no code for machine {machine!r}, only for {known}"
        )
    code = _x86_64() if number == MACHINES["x86_64"] else _aarch64()
    size = HEADERS_BYTES + len(code)
    identity = b"\x7fELF" + bytes((2, 1, 1)) + bytes(9)  # 64 bits, little-endian, version 1
    header = struct.pack(
        "<16s2HI3QI6H", identity, 2, number, 1, BASE + HEADERS_BYTES, 64, 0, 0, 64, 56, 2, 64, 0, 0
    )
    # One segment holds headers, code and data. Aligned to 64 KiB, the largest page of an aarch64 kernel.
    load = struct.pack("<2I6Q", PT_LOAD, PF_R | PF_X, 0, BASE, BASE, size, size, 0x10000)
    # Without this one, some kernels give the process an executable stack and log a warning.
    stack = struct.pack("<2I6Q", PT_GNU_STACK, PF_R | PF_W, 0, 0, 0, 0, 0, 16)
    return header + load + stack + code


def _x86_64() -> bytes:
    """rt_sigaction(SIGCHLD, IGNORE, NULL, 8); for ever: pause(). Numbers from asm/unistd_64.h."""
    load_address = b"\x48\x8d\x35"  # lea rsi, [rip + distance]
    before = b"\xbf" + struct.pack("<I", SIGCHLD)  # mov edi, SIGCHLD
    after = (
        b"\x31\xd2"  # xor edx, edx
        b"\x41\xba" + struct.pack("<I", SIGSET_BYTES)  # mov r10d, 8
        + b"\xb8" + struct.pack("<I", 13)  # mov eax, rt_sigaction
        + b"\x0f\x05"  # syscall
        + b"\xb8" + struct.pack("<I", 34)  # again: mov eax, pause
        + b"\x0f\x05"  # syscall
        + b"\xeb\xf7"  # jmp again
    )  # fmt: skip
    return before + load_address + struct.pack("<i", len(after)) + after + IGNORE


def _aarch64() -> bytes:
    """rt_sigaction(SIGCHLD, IGNORE, NULL, 8); for ever: ppoll(NULL, 0, NULL, NULL, 0). asm-generic/unistd.h.

    There is no pause(2) on this machine. Arguments are set anew each time round: the result overwrites x0.
    """
    call = 0xD4000001  # svc #0
    again = [*(_movz(register, 0) for register in range(5)), _movz(8, 73), call]
    back = 0x14000000 | (-len(again) & 0x3FFFFFF)  # b again: a distance in instructions
    after = [_movz(2, 0), _movz(3, SIGSET_BYTES), _movz(8, 134), call, *again, back]
    distance = 4 * (1 + len(after))  # from the adr itself to the data behind the last instruction
    address = 0x10000000 | (distance & 3) << 29 | (distance >> 2) << 5 | 1  # adr x1, IGNORE
    words = [_movz(0, SIGCHLD), address, *after]
    return struct.pack(f"<{len(words)}I", *words) + IGNORE


def _movz(register: int, value: int) -> int:
    """movz xREGISTER, #VALUE."""
    return 0xD2800000 | value << 5 | register
