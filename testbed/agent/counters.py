"""Kernel counters of a host, by the names that nstat(8) gives them."""

from __future__ import annotations

from pathlib import Path

from testbed.agent.host import Host
from testbed.errors import EngineError
from testbed.groups import memory_kills
from testbed.measure.records import MEMORY_KILLS


def read(host: Host) -> dict[str, int]:
    """Absolute values, with MEMORY_KILLS where that can be known. Raises EngineError if the host is gone."""
    tables = Path(f"/proc/{host.pid}/net")
    try:
        found = paired((tables / "snmp").read_text()) | paired((tables / "netstat").read_text())
        six = tables / "snmp6"
        if (killed := memory_kills(host.pid)) is not None:
            found[MEMORY_KILLS] = killed
        return found | (listed(six.read_text()) if six.exists() else {})
    except OSError as problem:
        raise EngineError(f"reading the counters of {host.name} (process {host.pid}): {problem}") from problem


def paired(text: str) -> dict[str, int]:
    """/proc/net/snmp and netstat: a line of names and a line of values, both with the protocol before. Pure."""
    lines = text.splitlines()
    found = {}
    for names, values in zip(lines[::2], lines[1::2], strict=True):
        protocol, _, rest = names.partition(":")
        for name, value in zip(rest.split(), values.partition(":")[2].split(), strict=True):
            found[protocol + name] = int(value)
    return found


def listed(text: str) -> dict[str, int]:
    """/proc/net/snmp6: a name and a value a line. Pure."""
    return {name: int(value) for name, value in (line.split() for line in text.splitlines())}
