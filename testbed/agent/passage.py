"""Does a network of the engine carry IPv6 at all? One frame on each dual network, before anything is measured.

A bridge of Docker's passes its machine's firewall where the kernel has bridge-nf-call-ip6tables switched on, and a
daemon that does not manage ip6tables (20.10 by default) opens nothing there for its own networks, as it does for
IPv4. What such a firewall drops would look like a program's failure.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
import time
from collections.abc import Iterable

from testbed.agent import namespaces
from testbed.agent.host import Host, Nic
from testbed.errors import ConditionError

ETH_P_IPV6 = 0x86DD
NO_NEXT_HEADER = 59  # RFC 8200, section 4.7: whoever gets it has nothing to do
WITHIN_S, AGAIN_S = 5.0, 0.1


def prove(hosts: Iterable[Host]) -> None:
    """A frame from the first to the second host of each dual network. Raises ConditionError if none arrives."""
    on: dict[str, list[tuple[Host, Nic]]] = {}
    for host in hosts:
        for nic in host.nics:
            if nic.ip6:
                on.setdefault(nic.network, []).append((host, nic))
    for network, ((source, near), (target, far)) in ((n, found[:2]) for n, found in on.items() if len(found) > 1):
        if not _passes(source, target, frame(near, far), near.name, far.name):
            raise ConditionError(
                f"sending IPv6 from {source.name} to {target.name} over {network}: nothing arrives. Where the "
                "bridge is, a firewall may drop it: see `ip6tables -S FORWARD` there, and set "
                "net.bridge.bridge-nf-call-ip6tables to 0 or the daemon's option `ip6tables`"
            )


def frame(near: Nic, far: Nic) -> bytes:
    """An IPv6 packet without content."""
    addresses = b"".join(ipaddress.IPv6Address(nic.ip6 or "").packed for nic in (near, far))
    macs = b"".join(bytes.fromhex(nic.mac.replace(":", "")) for nic in (far, near))
    return macs + struct.pack("!HIHBB", ETH_P_IPV6, 6 << 28, 0, NO_NEXT_HEADER, 1) + addresses


def _passes(source: Host, target: Host, what: bytes, out: str, into: str) -> bool:
    with _port(source, out) as sender, _port(target, into) as receiver:
        deadline = time.monotonic() + WITHIN_S
        while time.monotonic() < deadline:
            sender.send(what)
            if _arrives(what, receiver, min(deadline, time.monotonic() + AGAIN_S)):
                return True
    return False


def _arrives(what: bytes, receiver: socket.socket, deadline: float) -> bool:
    """Whether it comes until then, whatever else comes meanwhile."""
    while (left_s := deadline - time.monotonic()) > 0:
        receiver.settimeout(left_s)
        try:
            if receiver.recv(2048).startswith(what):
                return True
        except TimeoutError:
            break
    return False


def _port(host: Host, dev: str) -> socket.socket:
    with namespaces.inside(host.netns):
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_IPV6))
        try:
            made.bind((dev, ETH_P_IPV6))
        except BaseException:
            made.close()
            raise
    return made
