"""Kernel counters of a host, by the names that nstat(8) gives them."""

from __future__ import annotations

from testbed.agent import namespaces
from testbed.agent.host import Host
from testbed.errors import EngineError
from testbed.groups import memory_kills
from testbed.measure.records import MEMORY_KILLS


def read(host: Host) -> dict[str, int]:
    """Absolute values, with MEMORY_KILLS where that can be known. Raises EngineError.

    They are the namespace's, which we hold: they can be read when every process in it has ended.
    """
    try:
        with namespaces.inside(host.netns):
            tables = namespaces.TABLES
            found = paired((tables / "snmp").read_text()) | paired((tables / "netstat").read_text())
            six = tables / "snmp6"
            found |= listed(six.read_text()) if six.exists() else {}
    except OSError as problem:
        raise EngineError(f"reading the counters of {host.name}: {problem}") from problem
    killed = None if host.gone else memory_kills(host.pid)
    return found if killed is None else found | {MEMORY_KILLS: killed}


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
