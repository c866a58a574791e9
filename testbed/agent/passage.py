"""Does a network of the engine carry IP at all? One frame of each version it has, before anything is measured.

A bridge of Docker's passes its machine's firewall where the kernel has bridge-nf-call-iptables or -ip6tables
switched on, and a daemon opens there for its own networks what it knows of: one that does not manage ip6tables
(20.10 by default) nothing of IPv6. What such a firewall drops would look like a program's failure.
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

ETH_P_IP, ETH_P_IPV6 = 0x0800, 0x86DD
NO_NEXT_HEADER = 59  # RFC 8200, section 4.7: whoever gets it has nothing to do; of IPv4 nobody knows the protocol
TOOLS = {ETH_P_IP: ("IPv4", "iptables"), ETH_P_IPV6: ("IPv6", "ip6tables")}
WITHIN_S, AGAIN_S = 5.0, 0.1


def prove(hosts: Iterable[Host]) -> None:
    """A frame from the first to the second host of each network. Raises ConditionError if none arrives."""
    on: dict[str, list[tuple[Host, Nic]]] = {}
    for host in hosts:
        for nic in host.nics:
            on.setdefault(nic.network, []).append((host, nic))
    for network, ((source, near), (target, far)) in ((n, found[:2]) for n, found in on.items() if len(found) > 1):
        for kind in (ETH_P_IP, ETH_P_IPV6) if near.ip6 and far.ip6 else (ETH_P_IP,):
            if not _passes(source, target, frame(near, far, kind), near.name, far.name, kind):
                version, tool = TOOLS[kind]
                raise ConditionError(
                    f"sending {version} from {source.name} to {target.name} over {network}: nothing arrives. "
                    f"Where the bridge is, a firewall may drop it: see `{tool} -S FORWARD` there, and set "
                    f"net.bridge.bridge-nf-call-{tool} to 0 or the daemon's option `{tool}`"
                )


def frame(near: Nic, far: Nic, kind: int = ETH_P_IPV6) -> bytes:
    """A packet without content. That of IPv4 is for the whole subnet: else the host would answer with an error."""
    macs = b"".join(bytes.fromhex(nic.mac.replace(":", "")) for nic in (far, near))
    if kind == ETH_P_IPV6:
        addresses = b"".join(ipaddress.IPv6Address(nic.ip6 or "").packed for nic in (near, far))
        return macs + struct.pack("!HIHBB", kind, 6 << 28, 0, NO_NEXT_HEADER, 1) + addresses
    everybody = ipaddress.IPv4Interface(f"{far.ip}/{far.prefix_bits}").network.broadcast_address.packed
    words = [0x4500, 20, 0, 0, 1 << 8 | NO_NEXT_HEADER, 0]
    words += struct.unpack("!4H", ipaddress.IPv4Address(near.ip).packed + everybody)
    total = sum(words)
    while total >> 16:  # RFC 1071
        total = (total & 0xFFFF) + (total >> 16)
    words[5] = ~total & 0xFFFF
    return macs + struct.pack("!11H", kind, *words)


def _passes(source: Host, target: Host, what: bytes, out: str, into: str, kind: int) -> bool:
    with _port(source, out, kind) as sender, _port(target, into, kind) as receiver:
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


def _port(host: Host, dev: str, kind: int) -> socket.socket:
    with namespaces.inside(host.netns):
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(kind))
        try:
            made.bind((dev, kind))
        except BaseException:
            made.close()
            raise
    return made
