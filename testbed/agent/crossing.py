"""Does what hosts send to each other arrive, where the machine's firewall sees what a bridge forwards?

With br_netfilter on, frames between two hosts pass the machine's FORWARD chain, behind the link and its ledger.
What is dropped there would look like a program's failure, so both ends of the way are counted: what interfaces of
a network send to its hosts, and what these get. Fragments are left out, because a firewall that follows
connections puts them together and cuts them anew.

The counters are packet sockets: a filter chooses, and nothing is read from them, so that a frame is only counted.
"""

from __future__ import annotations

import ctypes
import socket
import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from testbed.agent import bpf, kernel, namespaces
from testbed.agent.host import Host, Nic
from testbed.agent.proof import Problem

SWITCHES = Path("/proc/sys/net/bridge")
NAMES = ("bridge-nf-call-arptables", "bridge-nf-call-ip6tables", "bridge-nf-call-iptables")

_SO_ATTACH_FILTER, _SOL_PACKET, _PACKET_STATISTICS, _ETH_P_ALL = 26, 263, 6, 3
_SETTLE_S = 1.0  # the last frames may be on their way


def switches() -> list[str]:
    """Sysctls of this network namespace that are on, and by which its firewall sees what its bridges forward."""
    found = []
    for name in NAMES:
        with suppress(OSError):
            if (SWITCHES / name).read_text().strip() != "0":
                found.append(f"net.bridge.{name}")
    return found


def told(on: Sequence[str]) -> str:
    """The state of switches in words."""
    return f"{', '.join(on)} {'is' if len(on) == 1 else 'are'} 1"


@dataclass
class Count:
    """Of one network, of frames to one of its hosts and to all of them; `hosts` it has."""

    hosts: int
    to_one: int = 0
    to_all: int = 0
    received: int = 0

    @property
    def sent(self) -> int:
        """As many as should arrive."""
        return self.to_one + self.to_all * (self.hosts - 1)

    @property
    def lost(self) -> int:
        return max(0, self.sent - self.received)


def problems(counts: Mapping[str, Count], dropped: int, on: Sequence[str]) -> list[Problem]:
    """What was lost between hosts. Pure. `dropped`: frames that interfaces say they dropped; `on`: the switches.

    Where interfaces dropped as many the machine was too slow, and else somebody took the frames away.
    """
    lost = {network: count for network, count in counts.items() if count.lost}
    total = sum(count.lost for count in lost.values())
    if not total:
        return []
    where = ", ".join(f"{count.lost} of {count.sent} on {network}" for network, count in lost.items())
    if total <= dropped:
        text = f"frames between hosts were lost by interfaces of this machine, which was too slow: {where}"
        return [("inconclusive", "", text)]
    text = (
        f"frames between hosts were lost on the machine of the bridges: {where}. Its firewall sees them, because "
        f"{told(on)}: see `iptables -S FORWARD` and its like there, or set {'it' if len(on) == 1 else 'them'} to 0"
    )
    return [("error", "", text)]


class Crossing:
    """Counts from now on what crosses the networks of these hosts. Raises OSError, EngineError."""

    def __init__(self, hosts: Iterable[Host], bridges: Iterable[str]) -> None:
        self._bridges, self._switches = frozenset(bridges), switches()
        on: dict[str, list[tuple[Host, Nic]]] = {}
        for host in hosts:
            for nic in host.nics:
                on.setdefault(nic.network, []).append((host, nic))
        self._on = {network: ends for network, ends in on.items() if len(ends) > 1}
        self.counts = {network: Count(len(ends)) for network, ends in self._on.items()}
        self._sockets: list[tuple[str, str, socket.socket]] = []  # network, which count, and who counts
        try:
            for what in ("received", "to_one", "to_all"):  # who sends is counted last: nothing is missed at first
                for network, ends in self._on.items():
                    macs = [nic.mac for _, nic in ends]
                    for host, nic in ends:
                        program = _program(what, nic.mac, macs)
                        self._sockets.append((network, what, _counter(host, nic.name, program)))
            self._dropped_before = self._dropped()[0]
        except BaseException:
            self.close()
            raise

    def problems(self) -> list[Problem]:
        """What has been lost until now, once the last frames have had their time. Raises OSError, EngineError."""
        deadline = time.monotonic() + _SETTLE_S
        self._read()
        while any(count.lost for count in self.counts.values()) and time.monotonic() < deadline:
            time.sleep(0.05)
            self._read()
        dropped, gone = self._dropped()
        there = {network: count for network, count in self.counts.items() if network not in gone}
        return problems(there, dropped - self._dropped_before, self._switches)

    def _read(self) -> None:
        """Who sends first: what is under way then counts as received at most."""
        for network, what, counter in reversed(self._sockets):
            packets, _ = struct.unpack("=II", counter.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
            count = self.counts[network]
            setattr(count, what, getattr(count, what) + packets)

    def _dropped(self) -> tuple[int, set[str]]:
        """Frames that interfaces on the way say they have dropped; and networks of which one interface is gone."""
        total, gone = 0, set()
        with kernel.of(None, "looking at the bridges' ports") as now:
            ports = [link for link in now.links() if link.get("master") in self._bridges]
        for host in {id(host): host for ends in self._on.values() for host, _ in ends}.values():
            with kernel.of(host.netns, f"looking at the interfaces of {host.name}") as now:
                links = {link["ifname"]: link for link in now.links()}
            for nic in host.nics:
                if "UP" in links.get(nic.name, {}).get("flags", ()):
                    ports.append(links[nic.name])
                else:
                    gone.add(nic.network)
        for link in ports:
            total += sum(side.get("dropped", 0) for side in link.get("stats64", {}).values())
        return total, gone

    def close(self) -> None:
        for _, _, counter in self._sockets:
            counter.close()
        self._sockets.clear()


def _program(what: str, own: str, macs: Sequence[str]) -> bpf.Program:
    """Only what a host sends under its own address, or it could not be told from frames of the machine."""
    others = [mac for mac in macs if mac != own]
    if what == "received":
        return bpf.arriving_from(others)
    return bpf.leaving_to(others, own) if what == "to_one" else bpf.leaving_to_all(own)


class _Attach(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def _counter(host: Host, dev: str, program: bpf.Program) -> socket.socket:
    """A packet socket that hears of that interface what the program matches. Raises OSError."""
    code = b"".join(struct.pack("=HBBI", *line) for line in program)
    with namespaces.inside(host.netns):
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)  # deaf until it is bound
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)  # as small as it gets: full after a few frames
        made.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, bytes(_Attach(len(program), code)))
        made.bind((dev, _ETH_P_ALL))
    except BaseException:
        made.close()
        raise
    return made
