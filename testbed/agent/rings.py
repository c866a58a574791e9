"""Packet sockets of the wire: one ring that reads every interface, one plain socket an interface to send.

Only the kernel's formats live here (linux/if_packet.h, Documentation/networking/packet_mmap.rst), no policy.

Reading is a TPACKET_V2 ring: no system call a frame, and a stamp taken when the frame came in. Sending was
tried as a ring, too, and is not: one `send` a frame costs 0.7 us where the ring took 0.9 us in batches of four
(storing header and status from Python costs more than the system call), gives an exact answer for each frame,
and has no slots to be left behind.
"""

from __future__ import annotations

import errno
import mmap
import socket
import struct
from typing import NamedTuple

SOL_PACKET = 263
PACKET_RX_RING, PACKET_STATISTICS, PACKET_VERSION, PACKET_QDISC_BYPASS, PACKET_IGNORE_OUTGOING = 5, 6, 10, 20, 23
TPACKET_V2 = 1
ETH_P_ALL = 3

TP_STATUS_USER, TP_STATUS_LOSING = 1, 1 << 2
TP_STATUS_CSUMNOTREADY, TP_STATUS_VLAN_VALID, TP_STATUS_GSO_TCP = 1 << 3, 1 << 4, 1 << 8
UNFIT = TP_STATUS_CSUMNOTREADY | TP_STATUS_VLAN_VALID | TP_STATUS_GSO_TCP  # not the frame that left the host

FRAME_OFFSET = 66  # where the kernel puts an Ethernet frame in a slot
_HEADER = struct.Struct("=IIIH2xII12xi")  # status, len, snaplen, mac, sec, nsec, (vlan, pad, family), ifindex
_REQUEST = struct.Struct("=IIII")  # block size, blocks, slot size, slots

# (slot, slots): 16 MiB where Ethernet's usual frames are the largest, 32 MiB above
_SIZES = ((2048, 8192), (16384, 2048), (131072, 256))


class Arrival(NamedTuple):
    """One frame out of the ring."""

    ifindex: int
    stamp_ns: int  # CLOCK_REALTIME
    frame: bytes
    size_bytes: int  # of the frame that came in
    whole: bool  # False: cut to the slot, or not the frame that was sent (checksum or VLAN tag left to hardware)


def slot_bytes_for(frame_bytes: int) -> int:
    """The smallest slot that holds such a frame. Raises ValueError beyond what Ethernet can carry."""
    for slot, _ in _SIZES:
        if frame_bytes + FRAME_OFFSET <= slot:
            return slot
    raise ValueError(f"a frame of {frame_bytes} bytes is larger than any slot of the ring ({_SIZES[-1][0]} bytes)")


class RxRing:
    """All frames that come in on any interface of this network namespace, our own ones left out.

    Raises OSError without CAP_NET_RAW or on a kernel before 4.20.
    """

    def __init__(self, slot_bytes: int) -> None:
        self.slot_bytes = slot_bytes
        self._slots = dict(_SIZES)[slot_bytes]
        self._drops = 0
        # With a protocol and no `bind` it hears every interface; what came in before the ring was there is purged.
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        try:
            self._map = self._open()
        except BaseException:
            self._socket.close()
            raise
        self._bytes = memoryview(self._map)
        self._status = self._bytes.cast("I")
        self._next = 0

    def _open(self) -> mmap.mmap:
        size = self.slot_bytes * self._slots
        block = max(65536, self.slot_bytes)
        self._socket.setsockopt(SOL_PACKET, PACKET_VERSION, TPACKET_V2)
        self._socket.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        request = _REQUEST.pack(block, size // block, self.slot_bytes, self._slots)
        self._socket.setsockopt(SOL_PACKET, PACKET_RX_RING, request)
        return mmap.mmap(self._socket.fileno(), size)

    def fileno(self) -> int:
        return self._socket.fileno()

    def ready(self) -> bool:
        """Whether a frame waits to be read."""
        return bool(self._status[self._next * self.slot_bytes >> 2])

    def read(self, most: int) -> list[Arrival]:
        """Up to `most` frames, in their order; their slots go back to the kernel.

        A slot's status is stored by one assignment to a memoryview of words. `struct.pack_into` stores bytes one
        by one; the kernel runs in between, and one overflow then freezes the ring for good.
        """
        status, data, slot, at = self._status, self._bytes, self.slot_bytes, self._next
        unpack, out = _HEADER.unpack_from, []
        while most:
            base = at * slot
            if not status[base >> 2]:
                break
            bits, length, stored, mac, sec, nsec, ifindex = unpack(data, base)
            start = base + mac
            frame = bytes(data[start : start + stored])
            whole = stored == length and not bits & UNFIT
            out.append(Arrival(ifindex, sec * 1_000_000_000 + nsec, frame, length, whole))
            status[base >> 2] = 0
            at += 1
            if at == self._slots:
                at = 0
            most -= 1
        self._next = at
        return out

    def drops(self) -> int:
        """Frames that found the ring full, since it was made."""
        counts = self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)  # reading sets the kernel's back to 0
        self._drops += struct.unpack("=II", counts)[1]
        return self._drops

    def close(self) -> None:
        self._status.release()
        self._bytes.release()
        self._map.close()
        self._socket.close()


class Port:
    """The way out through one interface. Reads nothing.

    It goes past the interface's queue discipline: for a moment after the interface came up that is one which drops
    everything and says nothing (`noop`, until the kernel's link watch has run). Past it, a frame that did not get
    through is an error of its own `send`.
    """

    def __init__(self, device: str) -> None:
        self.device = device
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        try:
            self.ifindex = socket.if_nametoindex(device)
            self._socket.bind((device, 0))
            self._socket.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
            self._socket.setblocking(False)
        except BaseException:
            self._socket.close()
            raise
        self.send = self._socket.send  # send(frame) -> bytes sent; raises OSError, see `is_busy`

    def close(self) -> None:
        self._socket.close()


def is_busy(problem: OSError) -> bool:
    """Whether the same frame may pass a moment later: the receiving side's backlog or our buffer was full."""
    return problem.errno in (errno.EAGAIN, errno.ENOBUFS)
