"""`w0`, the way from a host to the wire: one end of a veth pair whose other end is in the wire's own namespace."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from testbed.agent import filters, namespaces
from testbed.errors import CommandError

NAME = "w0"
MTU = 65535

_SIOCETHTOOL = 0x8946
_GET_TX_CHECKSUM, _SET_TX_CHECKSUM = 0x16, 0x17  # linux/ethtool.h; its own tool is not on every machine


def create(netns: int, wire_pid: int, peer: str, doing: str) -> None:
    """Make the pair, each end right where it belongs; the wire's is still down.

    `gso_max_segs 1` has the kernel cut every super-packet on its way out, and no checksum offload has it fill in
    every checksum, so that what the wire reads are frames as a real wire would carry. Neither end has an address.
    """
    size = f"mtu {MTU} numtxqueues 1 numrxqueues 1"
    there = f"/proc/{wire_pid}/ns/net"
    make = f"link add {NAME} gso_max_segs 1 {size} type veth peer name {peer} {size} netns {there}"
    lines = [make, f"link set dev {NAME} arp off{_silent()}", f"link set dev {NAME} up"]
    filters.write(lines, "ip", netns, doing)
    with namespaces.inside(netns):
        _tx_checksum(NAME, switch_off=True)


def raise_ends(peers: Sequence[str], wire_pid: int) -> None:
    """The wire's ends of these pairs, all by one command: a process for each took most of the time."""
    if not peers:
        return
    lines = [f"link set dev {peer} up arp off{_silent()}" for peer in peers]
    wire_netns = namespaces.open_network(wire_pid)
    try:
        namespaces.batch("ip", lines, wire_netns, "connecting the wire to its hosts")
    finally:
        os.close(wire_netns)  # held open, it would keep the pairs alive when the wire is dead


def _silent() -> str:
    """Without an address of its own an interface neither solicits routers nor reports groups."""
    return " addrgenmode none" if Path("/proc/sys/net/ipv6").exists() else ""


def remove(netns: int, doing: str) -> None:
    """No error if it is gone already: it goes with the wire."""
    try:
        namespaces.batch("ip", [f"link del dev {NAME}"], netns, doing)
    except CommandError as problem:
        if "Cannot find device" not in problem.stderr:
            raise


def wrong(link: dict[str, Any] | None, checksum_offload: bool) -> list[str]:
    """What is not as it must be with a `w0` as `kernel.links` shows it."""
    if link is None:
        return [f"{NAME} is missing"]
    problems = []
    if link.get("gso_max_segs") != 1:
        problems.append(f"{NAME} lets through super-packets (gso_max_segs {link.get('gso_max_segs')})")
    if link["mtu"] != MTU:
        problems.append(f"{NAME} has MTU {link['mtu']} and not {MTU}")
    if not {"UP", "LOWER_UP"} <= set(link["flags"]):
        problems.append(f"{NAME} or its other end is down")
    if checksum_offload:
        problems.append(f"{NAME} leaves checksums to hardware that is not there")
    return problems


def has_checksum_offload(netns: int) -> bool:
    """Raises OSError if there is no `w0`."""
    with namespaces.inside(netns):
        return _tx_checksum(NAME, switch_off=False)


def _tx_checksum(dev: str, switch_off: bool) -> bool:
    value = ctypes.create_string_buffer(
        struct.pack("=II", _SET_TX_CHECKSUM if switch_off else _GET_TX_CHECKSUM, 0)
    )
    request = struct.pack("16sP", dev.encode(), ctypes.addressof(value)).ljust(40, b"\0")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCETHTOOL, request)
    return bool(struct.unpack("=II", value.raw[:8])[1])
