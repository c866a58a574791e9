"""The packets of the Network Systems protocols: bytes to headers and back. Pure.

Source: Xerox System Integration Standard "Internet Transport Protocols", XNSS 028112, December 1981: the Internet
Datagram Protocol (IDP), the Sequenced Packet Protocol (SPP), and the checksum. The names of fields are those of
4.3BSD: idp(4), spp(4), ns(4). All numbers go high byte first.

    IDP, 30 bytes                                   SPP, 12 bytes, right behind it
    0   checksum                                    0   connection control
    2   length in bytes, header included            1   datastream type
    4   transport control: routers passed           2   source connection id
    5   packet type                                 4   destination connection id
    6   destination: network 4, host 6, socket 2    6   sequence number
    18  source:      network 4, host 6, socket 2    8   acknowledge number
                                                    10  allocation number
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import NamedTuple

LARGEST_PACKET = 576  # that every router of the standard passes on
PACKET_EXCHANGE, SEQUENCED_PACKET = 4, 5  # packet types; 0 is "unknown", 20 to 37 are for experiments
NO_CHECKSUM = 0xFFFF  # in the checksum field: the sender did not compute one

# Connection control. The other four bits are reserved and zero.
SYSTEM_PACKET, SEND_ACKNOWLEDGEMENT, ATTENTION, END_OF_MESSAGE = 0x80, 0x40, 0x20, 0x10
END, END_REPLY = 254, 255  # datastream types that close a connection; all others are the user's

_IDP = struct.Struct("!HHBBI6sHI6sH")
_SPP = struct.Struct("!BBHHHHH")
IDP_BYTES, SPP_BYTES = _IDP.size, _SPP.size
LARGEST_DATAGRAM = LARGEST_PACKET - IDP_BYTES  # bytes of data in one packet of IDP: 546
LARGEST_DATA = LARGEST_DATAGRAM - SPP_BYTES  # and in one of SPP: 534


class BadPacket(ValueError):
    """These bytes are not a packet. The message says why."""


class Address(NamedTuple):
    """Where a packet goes: network 0 is "this one", the host number is that of an Ethernet station."""

    network: int
    host: bytes  # 6 bytes
    socket: int


NOWHERE = Address(0, bytes(6), 0)


@dataclass(frozen=True)
class Idp:
    """A header of IDP. `length` and `checksum` are filled in by `encode`."""

    packet_type: int = 0
    destination: Address = NOWHERE
    source: Address = NOWHERE
    transport_control: int = 0
    length: int = 0
    checksum: int = 0

    def pack(self) -> bytes:
        """The 30 bytes."""
        return _IDP.pack(
            self.checksum,
            self.length,
            self.transport_control,
            self.packet_type,
            *self.destination,
            *self.source,
        )

    @classmethod
    def unpack(cls, data: bytes) -> Idp:
        """From the first 30 bytes. Raises BadPacket if there are fewer."""
        if len(data) < IDP_BYTES:
            raise BadPacket(f"{len(data)} bytes are no IDP header, which has {IDP_BYTES}")
        checksum, length, hops, kind, *ends = _IDP.unpack_from(data)
        return cls(kind, Address(*ends[:3]), Address(*ends[3:]), hops, length, checksum)


@dataclass(frozen=True)
class Spp:
    """A header of SPP."""

    control: int = 0
    datastream_type: int = 0
    source_id: int = 0
    destination_id: int = 0
    sequence: int = 0
    acknowledge: int = 0
    allocation: int = 0

    def pack(self) -> bytes:
        """The 12 bytes."""
        return _SPP.pack(
            self.control,
            self.datastream_type,
            self.source_id,
            self.destination_id,
            self.sequence,
            self.acknowledge,
            self.allocation,
        )

    @classmethod
    def unpack(cls, data: bytes) -> Spp:
        """From the first 12 bytes. Raises BadPacket if there are fewer."""
        if len(data) < SPP_BYTES:
            raise BadPacket(f"{len(data)} bytes are no SPP header, which has {SPP_BYTES}")
        return cls(*_SPP.unpack_from(data))


def encode(header: Idp, data: bytes) -> bytes:
    """A whole packet of IDP: header with length and checksum, data, and a byte of padding if its length is odd.

    The length does not count the padding, the checksum covers it. Raises ValueError if the data is too long.
    """
    if len(data) > LARGEST_DATAGRAM:
        raise ValueError(f"{len(data)} bytes do not fit into a packet, which takes {LARGEST_DATAGRAM}")
    length = IDP_BYTES + len(data)
    packet = replace(header, length=length, checksum=0).pack() + data + bytes(length % 2)
    return struct.pack("!H", checksum(packet[2:])) + packet[2:]


def decode(packet: bytes) -> tuple[Idp, bytes]:
    """The header and the data, without padding and without what a network may have added after it.

    Raises BadPacket for one that is cut off, or whose checksum is neither right nor NO_CHECKSUM.
    """
    header = Idp.unpack(packet)
    end = header.length + header.length % 2
    if header.length < IDP_BYTES or end > len(packet):
        raise BadPacket(f"a packet of {header.length} bytes, of which {len(packet)} came")
    if header.checksum != NO_CHECKSUM and header.checksum != checksum(packet[2:end]):
        raise BadPacket(f"checksum {header.checksum:#06x} is not {checksum(packet[2:end]):#06x}")
    return header, packet[IDP_BYTES : header.length]


def checksum(data: bytes) -> int:
    """Add the 16-bit words in ones-complement, and cycle the sum left by one bit after each (XNSS 028112).

    `data` is a packet from its length field on, of an even number of bytes. Unlike the sum of IP, this one also
    sees words that change places. Minus zero, 0xFFFF, means "no checksum", and so becomes zero.
    """
    total = 0
    for (word,) in struct.iter_unpack("!H", data):
        total += word
        total = (total & 0xFFFF) + (total >> 16)
        total = (total << 1 & 0xFFFF) | total >> 15
    return 0 if total == NO_CHECKSUM else total
