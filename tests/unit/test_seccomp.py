"""The filter of system calls, run on paper."""

from __future__ import annotations

import struct

import pytest

from testbed.engines.lab import seccomp

EPERM, ENOSYS, ALLOWED = 1, 38, 0
FORK = 0x01200011  # CLONE_CHILD_CLEARTID | CLONE_CHILD_SETTID | SIGCHLD, as fork(3) has it
THREAD = 0x3D0F00
NEWUSER, NEWNET = 0x10000000, 0x40000000


def said(program: bytes, architecture: int, number: int, argument: int = 0) -> int:
    """The error that a call gets, or 0."""
    data = struct.pack("<IIQQ", number, architecture, 0, argument)
    instructions = list(struct.iter_unpack("=HBBI", program))
    at = accumulator = 0
    while True:
        code, if_so, if_not, value = instructions[at]
        at += 1
        match code:
            case seccomp.LOAD:
                (accumulator,) = struct.unpack_from("<I", data, value)
            case seccomp.RETURN:
                return 0 if value == seccomp.ALLOW else value & 0xFFFF
            case _:
                so = {
                    seccomp.EQUAL: accumulator == value,
                    seccomp.ANY_OF: bool(accumulator & value),
                    seccomp.AT_LEAST: accumulator >= value,
                }[code]
                at += if_so if so else if_not


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_what_reaches_beyond_a_host_is_refused_and_all_else_allowed(machine: str) -> None:
    program = seccomp.program(machine)
    assert program is not None
    for architecture, numbers in seccomp.MACHINES[machine]:
        for number in range(600):
            name = next((name for name, its in numbers.items() if its == number), "")
            refused = ENOSYS if name == "clone3" else EPERM if name not in ("", "clone", "unshare") else ALLOWED
            assert said(program, architecture, number, FORK) == refused, (name, number)
        for name in ("clone", "unshare"):
            for flags, error in ((FORK, ALLOWED), (THREAD, ALLOWED), (NEWNET, ALLOWED), (NEWUSER, EPERM)):
                assert said(program, architecture, numbers[name], flags) == error
            assert said(program, architecture, numbers[name], NEWUSER | NEWNET) == EPERM
        assert said(program, architecture, seccomp.X32 + 1) == ENOSYS


def test_another_architectures_calls_are_none_and_an_unknown_machine_has_no_filter() -> None:
    program = seccomp.program("aarch64")
    assert program is not None and said(program, seccomp.X86_64[0], 1) == ENOSYS
    assert seccomp.program("riscv64") is None
