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
_FIRST_FREE = "net.ipv4.ip_unprivileged_port_start"


def advice(program: Program, host: Host, record: ProgramRecord) -> str:
    """For the end of a reason, from "; " on; "" where nothing is plain."""
    found = _serves(program, record) or _lacks(host, record)
    return f"; {found}" if found else ""


def _serves(program: Program, record: ProgramRecord) -> str:
    """A `run` that had to be stopped while it waited to be talked to."""
    if program.kind != "run" or not record.listened:
        return ""
    return f"it listened on {', '.join(record.listened)} to its end: did you mean `serve:` in place of `run:`?"


def _lacks(host: Host, record: ProgramRecord) -> str:
    """A refusal that a capability ends."""
    said = b"\n".join((record.stdout[-LAST_BYTES:], record.stderr[-LAST_BYTES:])).decode(errors="replace")
    lines = said.splitlines()
    first_free = int(host.sysctls.get(_FIRST_FREE, "1024"))

    def says(refused: re.Pattern[str], of: re.Pattern[str]) -> bool:
        """In one line, or, as tracebacks have it, in two that stand near each other."""
        near = range(len(lines))
        return any(refused.search(lines[n]) and of.search("\n".join(lines[max(0, n - 6) : n + 3])) for n in near)

    if first_free and "NET_BIND_SERVICE" not in host.capabilities and says(_DENIED, _BINDS):
        below = f"ports below {first_free:,} take a capability"
        return f"{below}: write `cap_add: [NET_BIND_SERVICE]` for {host.name}"
    for capability, of in (("NET_RAW", _RAW), ("NET_ADMIN", _CONFIGURES)):
        if capability not in host.capabilities and says(_NOT_PERMITTED, of):
            return f"that takes a capability: write `cap_add: [{capability}]` for {host.name}"
    return ""
