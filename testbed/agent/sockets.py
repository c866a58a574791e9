"""What a program listens on: the sockets open in its process tree, from the tables of its host's network."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from testbed.agent import namespaces, processes
from testbed.agent.host import Host
from testbed.errors import EngineError

_LISTEN, _CLOSE = "0A", "07"  # net/tcp_states.h; an unconnected UDP socket is in the latter
_CLOSING = ("04", "09", "0B")  # FIN_WAIT1, LAST_ACK, CLOSING: there is something to send, the FIN at least
_ACCEPTS_CONNECTIONS = 1 << 16  # __SO_ACCEPTCON, linux/net.h
_DATAGRAM = 2


def listening(host: Host, pid: int) -> list[dict[str, Any]]:
    """TCP in LISTEN, UDP bound outside the ports that the kernel gives out itself, UNIX with a path.

    Each as {proto, ip, port, path}, only those that are open in the process tree of `pid`. Raises EngineError.
    """
    open_now = _open_inodes(pid)
    if not open_now:
        return []
    try:
        with namespaces.inside(host.netns):
            low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
            found = []
            for name in ("tcp", "tcp6", "udp", "udp6"):
                table = namespaces.TABLES / name
                if table.exists():  # a kernel without IPv6 has no tcp6
                    found += list(internet(name[:3], table.read_text(), open_now, range(low, high + 1)))
            found += list(unix((namespaces.TABLES / "unix").read_text(), open_now))
    except OSError as problem:
        raise EngineError(f"reading the sockets of {host.name}: {problem}") from problem
    return found


def queued(host: Host) -> tuple[int, dict[str, int]]:
    """What is in the host's TCP and UDP sockets: how much nobody has read yet, and by connection how many
    bytes the kernel still has to send, or to see acknowledged, for programs that have ended.

    Raises EngineError if the host is gone.
    """
    unread, unsent = 0, dict[str, int]()
    try:
        for name in ("tcp", "tcp6", "udp", "udp6"):
            table = Path(f"/proc/{host.pid}/net/{name}")
            if table.exists():
                more_unread, more_unsent = queues(name[:3], table.read_text())
                unread += more_unread
                unsent |= more_unsent
    except OSError as problem:
        raise EngineError(f"reading the sockets of {host.name} (process {host.pid}): {problem}") from problem
    return unread, unsent


def queues(proto: str, table: str) -> tuple[int, dict[str, int]]:
    """As `queued`, of one table of /proc/net. Pure.

    A socket without an inode is nobody's any more, or nobody's yet. What came for one that is not accepted
    cannot be told from that: the connections that wait at a listening socket are counted in place of bytes.
    """
    unread, unsent = 0, {}
    for line in table.splitlines()[1:]:
        words = line.split()
        state, inode = words[3], words[9]
        to_send, to_read = (int(number, 16) for number in words[4].split(":"))
        if inode != "0":
            unread += to_read
        elif proto == "tcp" and state in _CLOSING and to_send:
            unsent[f"{words[1]} {words[2]}"] = to_send
    return unread, unsent


def _open_inodes(pid: int) -> set[str]:
    found = set()
    for process in processes.tree(pid):
        for target in processes.descriptors(process.pid):
            if target.startswith("socket:["):
                found.add(target[len("socket:[") : -1])
    return found


def internet(proto: str, table: str, inodes: set[str], ephemeral: range) -> Iterator[dict[str, Any]]:
    """The lines of /proc/net/tcp or udp that count. Pure."""
    for line in table.splitlines()[1:]:
        words = line.split()
        local, state, inode = words[1], words[3], words[9]
        ip, _, port_hex = local.partition(":")
        port = int(port_hex, 16)
        ready = state == _LISTEN if proto == "tcp" else port not in ephemeral and port != 0
        if ready and inode in inodes:
            yield {"proto": proto, "ip": _address(ip), "port": port, "path": None}


def _address(text: str) -> str:
    """/proc prints each 32-bit word of an address as a number of this machine's byte order."""
    words = [int(text[at : at + 8], 16) for at in range(0, len(text), 8)]
    return str(ipaddress.ip_address(struct.pack(f"={len(words)}I", *words)))


def unix(table: str, inodes: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The lines of /proc/net/unix that listen, or are bound datagram sockets, and have a path. Pure.

    A connection that a server accepted shows the server's path too, and does not count.
    """
    for line in table.splitlines()[1:]:
        words = line.split(maxsplit=7)
        if len(words) < 8 or words[7].startswith("@") or words[6] not in inodes:
            continue
        if int(words[3], 16) & _ACCEPTS_CONNECTIONS or int(words[4], 16) == _DATAGRAM:
            yield {"proto": "unix", "ip": None, "port": None, "path": words[7]}
