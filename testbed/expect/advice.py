"""What to write where a program failed for a reason that its records show: only what surely is so. Pure."""

from __future__ import annotations

import re

from testbed.measure.records import ProgramRecord
from testbed.plan.types import Host, Program

LAST_BYTES = 4096  # of each output: what a program says of its end stands there
_DENIED = re.compile(r"permission denied|\bEACCES\b|Errno 13\b|code: 13\b", re.IGNORECASE)
_NOT_PERMITTED = re.compile(r"operation not permitted|\bEPERM\b|Errno 1\b|code: 1\b", re.IGNORECASE)
_BINDS = re.compile(r"\bbind\w*|\blisten\w*|socketserver|server_bind|:([0-9]{1,3})\b", re.IGNORECASE)
_RAW = re.compile(r"SOCK_RAW|\braw\b|net_raw|socktype|capture on that device|AF_PACKET", re.IGNORECASE)
_CONFIGURES = re.compile(r"RTNETLINK|SIOCS|ioctl|iptables|nft\b|netfilter", re.IGNORECASE)
# Init systems of images: s6-overlay, runit, init. Not tini, which only warns.
_FIRST = re.compile(r"\b(only|must)\b.{0,20}\brun\b.{0,10}\bas (pid|process)( no\.?| number)? ?1\b", re.IGNORECASE)
_FIRST_FREE = "net.ipv4.ip_unprivileged_port_start"


def advice(program: Program, host: Host, record: ProgramRecord) -> str:
    """For the end of a reason, from "; " on; "" where nothing is plain."""
    found = _serves(program, record) or _is_not_first(host, record) or _lacks(host, record)
    found = found or _goes_away(program, record)
    return f"; {found}" if found else ""


def insists_on_being_first(host: Host, record: ProgramRecord) -> bool:
    """Whether it ended because it is not process 1, which is what holds a host open: not the program's fault."""
    return bool((host.image or host.build) and _FIRST.search(_last(record)))


def _is_not_first(host: Host, record: ProgramRecord) -> str:
    if not insists_on_being_first(host, record):
        return ""
    return (
        f"process 1 is what holds {host.name} open: name the server itself under `serve`, without its init system"
    )


def _goes_away(program: Program, record: ProgramRecord) -> str:
    """A `serve` that left somebody behind, or had nothing to do."""
    if program.kind != "serve" or record.exit != 0 or record.stopped:
        return ""
    return "a `serve` stays in the foreground until it is stopped"


def _last(record: ProgramRecord) -> str:
    """What it said last, on both of its outputs."""
    said = b"\n".join((record.stdout[-LAST_BYTES:], record.stderr[-LAST_BYTES:]))
    return said.decode(errors="replace")


def _serves(program: Program, record: ProgramRecord) -> str:
    """A `run` that had to be stopped while it waited to be talked to."""
    if program.kind != "run" or not record.listened:
        return ""
    return f"it listened on {', '.join(record.listened)} to its end: did you mean `serve:` in place of `run:`?"


def _lacks(host: Host, record: ProgramRecord) -> str:
    """A refusal that a capability ends."""
    lines = _last(record).splitlines()
    first_free = int(host.sysctls.get(_FIRST_FREE, "1024"))

    def says(refused: re.Pattern[str], of: re.Pattern[str]) -> bool:
        """In one line, or, as tracebacks have it, in two that stand near each other."""
        near = range(len(lines))
        return any(refused.search(lines[n]) and of.search("\n".join(lines[max(0, n - 6) : n + 3])) for n in near)

    if first_free and says(_DENIED, _BINDS):
        below = f"ports below {first_free:,} take a capability"
        if "NET_BIND_SERVICE" not in host.capabilities:
            return f"{below}: write `cap_add: [NET_BIND_SERVICE]` for {host.name}"
        if host.image or host.build:  # whose user is not root, and has none
            return f"{below}, and only root has it: write `sysctls: {{{_FIRST_FREE}: 0}}` for {host.name}"
    for capability, of in (("NET_RAW", _RAW), ("NET_ADMIN", _CONFIGURES)):
        if capability not in host.capabilities and says(_NOT_PERMITTED, of):
            return f"that takes a capability: write `cap_add: [{capability}]` for {host.name}"
    return ""
