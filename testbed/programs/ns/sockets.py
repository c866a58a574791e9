"""Sockets of the Network Systems family over a raw IPv4 socket with protocol 22 (IPPROTO_IDP): the I/O of it.

What AF_NS was in 4.3BSD: idp(4) is `IdpSocket`, spp(4) with SOCK_SEQPACKET is `SequencedPacketSocket`, and the
options are theirs (netns/ns.h). An address is (IPv4 address, socket number); the host number of ns(4) is made of
the first, network 0 is "this one". A raw socket needs CAP_NET_RAW: without it, making one raises EPERM.

There is no kernel behind these sockets and no thread: time-outs, acknowledgements and retransmissions happen while
a call waits. Nobody keeps two programs of a host from using the same socket number either.
"""

from __future__ import annotations

import errno
import os
import random
import select
import socket
import time
from collections import deque
from dataclasses import replace
from types import TracebackType

from testbed.programs.ns.connection import (
    Attention,
    Closed,
    Connected,
    Connection,
    Event,
    Packet,
    PeerEnded,
)
from testbed.programs.ns.packets import (
    ATTENTION,
    END_OF_MESSAGE,
    IDP_BYTES,
    LARGEST_DATAGRAM,
    SEQUENCED_PACKET,
    SPP_BYTES,
    Address,
    BadPacket,
    Idp,
    Spp,
    decode,
    encode,
)

# The numbers of netns/ns.h.
SO_HEADERS_ON_INPUT = 1  # what is received begins with its header
SO_HEADERS_ON_OUTPUT = 2  # what is sent begins with a prototype of its header
SO_DEFAULT_HEADERS = 3  # a header: what to take from it for all outgoing data; asked for, what would be taken
SO_LAST_HEADER = 4  # the header of what was received last; SPP alone
SO_ALL_PACKETS = 7  # also those that a protocol above would take; IDP alone

TIMEOUT_NS = 200 * 10**6  # until a packet of SPP is sent again
RECEIVE_BUFFER_BYTES = 1 << 20  # every raw socket of a host gets every packet that comes
FIRST_FREE_SOCKET = 3001  # those below are well known, XNSS 028112
REMEMBERED = 1024  # openings that were accepted and may come again

Name = tuple[str, int]  # IPv4 address, socket number


def host_number(ip: str) -> bytes:
    """48 bits that are unique where the address is: a locally administered one, with the address at its end."""
    return b"\x02\x00" + socket.inet_aton(ip)


def ip_address(host: bytes) -> str:
    """The other way round."""
    return socket.inet_ntoa(host[2:])


def error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


class IdpSocket:
    """Datagrams: unreliable, with boundaries. Raises OSError, EPERM without CAP_NET_RAW.

    `raw` is the kernel's socket beneath, for whoever waits for several of them (select(2)).
    """

    def __init__(self) -> None:
        self.raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_IDP)
        self.raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        self.raw.setblocking(False)
        self.bind(("0.0.0.0", 0))
        self._flags = {SO_HEADERS_ON_INPUT: False, SO_HEADERS_ON_OUTPUT: False, SO_ALL_PACKETS: False}
        self._packet_type = 0
        self._timeout: float | None = None
        self.sent = self.bad = 0  # packets handed to IP; packets that were none, or whose checksum was wrong

    def bind(self, name: Name) -> None:
        """The address and the socket number to send from and receive on; 0 takes one that is likely to be free."""
        self.raw.bind((name[0], 0))
        self._name = (name[0], name[1] or random.randrange(FIRST_FREE_SOCKET, 0x10000))

    def getsockname(self) -> Name:
        return self._name

    def settimeout(self, seconds: float | None) -> None:
        self._timeout = seconds

    def setsockopt(self, option: int, value: int | bytes) -> None:
        """Of SO_DEFAULT_HEADERS, 30 bytes, the packet type counts. Raises EINVAL for what is no option."""
        if option in self._flags:
            self._flags[option] = bool(value)
        elif option == SO_DEFAULT_HEADERS and isinstance(value, bytes):
            self._packet_type = Idp.unpack(value).packet_type
        else:
            raise error(errno.EINVAL)

    def getsockopt(self, option: int) -> int | bytes:
        if option in self._flags:
            return int(self._flags[option])
        if option == SO_DEFAULT_HEADERS:
            source = Address(0, host_number(self._name[0]), self._name[1])
            return Idp(self._packet_type, source=source).pack()
        raise error(errno.EINVAL)

    def sendto(self, data: bytes, name: Name | None = None) -> None:
        """One datagram. With SO_HEADERS_ON_OUTPUT, `data` begins with the 30 bytes of a header.

        Everything in that header goes out as it is, but for length and checksum, and it is sent to the destination
        in it and not to `name`. Raises OSError: EMSGSIZE beyond 546 bytes, EINVAL for less than a header.
        """
        if self._flags[SO_HEADERS_ON_OUTPUT]:
            if len(data) < IDP_BYTES:
                raise error(errno.EINVAL)
            header, data = Idp.unpack(data), data[IDP_BYTES:]
        elif name is None:
            raise error(errno.EDESTADDRREQ)
        else:
            header = self.header_to(name, self._packet_type)
        if len(data) > LARGEST_DATAGRAM:
            raise error(errno.EMSGSIZE)
        self.transmit(header, data)

    def recvfrom(self, flags: int = 0) -> tuple[bytes, Name]:
        """One datagram, whole, and where it came from. With SO_HEADERS_ON_INPUT it begins with its header.

        Raises TimeoutError; with MSG_DONTWAIT, BlockingIOError if there is none yet.
        """
        deadline_ns = deadline(self._timeout)
        while (received := self.receive()) is None:
            if flags & socket.MSG_DONTWAIT:
                raise error(errno.EAGAIN)
            if not self.wait(deadline_ns):
                raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        header, data = received
        front = header.pack() if self._flags[SO_HEADERS_ON_INPUT] else b""
        return front + data, (ip_address(header.source.host), header.source.socket)

    def header_to(self, name: Name, packet_type: int) -> Idp:
        """The header that a datagram to `name` gets."""
        ours = Address(0, host_number(self._toward(name[0])), self._name[1])
        return Idp(packet_type, Address(0, host_number(name[0]), name[1]), ours)

    def transmit(self, header: Idp, data: bytes) -> None:
        self.sent += 1
        self.raw.sendto(encode(header, data), (ip_address(header.destination.host), 0))

    def receive(self) -> tuple[Idp, bytes] | None:
        """The next packet for this socket number that is here already, or None."""
        while True:
            try:
                packet = self.raw.recv(65535)
            except BlockingIOError:
                return None
            try:
                header, data = decode(packet[4 * (packet[0] & 15) :])  # in front is the header of IP
            except BadPacket:
                self.bad += 1
                continue
            ours = header.destination.socket == self._name[1]
            if ours and (self._flags[SO_ALL_PACKETS] or header.packet_type != SEQUENCED_PACKET):
                return header, data

    def wait(self, until_ns: int | None) -> bool:
        """Wait for a packet of anybody's, until then. Returns whether there is one."""
        left_s = None if until_ns is None else max(0, until_ns - time.monotonic_ns()) / 1e9
        return bool(select.select([self.raw], [], [], left_s)[0])

    def close(self) -> None:
        self.raw.close()

    def __enter__(self) -> IdpSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _toward(self, ip: str) -> str:
        """Our address as the host `ip` sees it. Connecting a datagram socket asks the routes and sends nothing."""
        if self._name[0] != "0.0.0.0":
            return self._name[0]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as question:
            question.connect((ip, 9))
            return str(question.getsockname()[0])


class SequencedPacketSocket:
    """Records: reliable, in order, with boundaries. Raises OSError, EPERM without CAP_NET_RAW.

    A record is a group of packets of which the last has the end-of-message bit. After the end, `recv` gives None.
    """

    def __init__(self, timeout_ns: int = TIMEOUT_NS) -> None:
        self.idp = IdpSocket()
        self.idp.setsockopt(SO_ALL_PACKETS, True)
        self.timeout_ns = timeout_ns
        self.core = Connection(_some_id(), timeout_ns)
        self._header: Idp | None = None  # of IDP, to the peer
        self._flags = {SO_HEADERS_ON_INPUT: False, SO_HEADERS_ON_OUTPUT: False}
        self._default = Spp(END_OF_MESSAGE)
        self._last = Spp()
        self._timeout: float | None = None
        self._ended = self._closing = False
        self._attention: deque[bytes] = deque()
        self._accepted: deque[tuple[Address, int]] = deque(maxlen=REMEMBERED)

    def bind(self, name: Name) -> None:
        self.idp.bind(name)

    def getsockname(self) -> Name:
        return self.idp.getsockname()

    def settimeout(self, seconds: float | None) -> None:
        self._timeout = seconds

    def setsockopt(self, option: int, value: int | bytes) -> None:
        """Of SO_DEFAULT_HEADERS, 12 bytes, datastream type and end-of-message bit count. Raises EINVAL."""
        if option in self._flags:
            self._flags[option] = bool(value)
        elif option == SO_DEFAULT_HEADERS and isinstance(value, bytes):
            self._default = Spp.unpack(value)
        else:
            raise error(errno.EINVAL)

    def getsockopt(self, option: int) -> int | bytes:
        if option in self._flags:
            return int(self._flags[option])
        if option in (SO_DEFAULT_HEADERS, SO_LAST_HEADER):
            return (self._default if option == SO_DEFAULT_HEADERS else self._last).pack()
        raise error(errno.EINVAL)

    def connect(self, name: Name) -> None:
        """Raises TimeoutError if nobody answers; there is no refusal."""
        self._header = self.idp.header_to(name, SEQUENCED_PACKET)
        self.core.connect()
        self._event(Connected)

    def accept(self) -> tuple[SequencedPacketSocket, Name]:
        """Wait for somebody who opens a connection to this socket number. The new socket has a number of its own.

        The rest of the opening happens in the first call of the new one.
        """
        deadline_ns = deadline(self._timeout)
        while True:
            received = self.idp.receive()
            if received is None:
                if not self.idp.wait(deadline_ns):
                    raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
            elif received[0].packet_type == SEQUENCED_PACKET and (new := self._accept(*received)):
                return new, (ip_address(received[0].source.host), received[0].source.socket)

    def _accept(self, header: Idp, opening: bytes) -> SequencedPacketSocket | None:
        try:
            core = Connection.accept(opening, _some_id(), self.timeout_ns)
        except BadPacket:
            return None
        if (header.source, core.peer_id) in self._accepted:  # the same again
            return None
        self._accepted.append((header.source, core.peer_id))
        new = SequencedPacketSocket(self.timeout_ns)
        new.bind((ip_address(header.destination.host), 0))
        new.core, new._flags, new._default, new._timeout = core, dict(self._flags), self._default, self._timeout
        new._header = new.idp.header_to((ip_address(header.source.host), header.source.socket), SEQUENCED_PACKET)
        return new

    def send(self, data: bytes, flags: int = 0) -> None:
        """Send data in as many packets as it takes, with the default header: a record, if that ends one.

        With SO_HEADERS_ON_OUTPUT, `data` begins with the 12 bytes of a prototype header instead, of which the
        datastream type, the end-of-message bit and the attention bit count. MSG_OOB is attention too, of one byte.
        Returns when the last packet is on its way. Raises OSError: EINVAL for what no packet can be, ETIMEDOUT,
        EPIPE after the end.
        """
        header = self._default
        if self._flags[SO_HEADERS_ON_OUTPUT]:
            if len(data) < SPP_BYTES:
                raise error(errno.EINVAL)
            header, data = Spp.unpack(data), data[SPP_BYTES:]
        deadline_ns = deadline(self._timeout)
        while self.core.state == "accepting":
            self._turn(deadline_ns)
        if self.core.state != "open" or self._closing:
            raise error(errno.EPIPE)
        try:
            if flags & socket.MSG_OOB or header.control & ATTENTION:
                self.core.send_attention(data, header.datastream_type)
            else:
                self.core.send(data, header.control, header.datastream_type)
        except ValueError:
            raise error(errno.EINVAL) from None
        self._flush()
        while self.core.unsent:
            self._turn(deadline_ns)

    def recv(self, flags: int = 0) -> bytes | None:
        """One record; with SO_HEADERS_ON_INPUT one packet, which begins with its header. None: there is no more.

        An attention byte is no part of a record: MSG_OOB asks for one that has come, EINVAL if none has.
        """
        if flags & socket.MSG_OOB:
            if not self._attention:
                raise error(errno.EINVAL)
            return self._attention.popleft()
        record = b""
        while not self._ended:
            event = self._event(Packet, PeerEnded, Closed)
            if not isinstance(event, Packet):
                self._ended = True
                break
            self._last = event.header
            if self._flags[SO_HEADERS_ON_INPUT]:
                return event.header.pack() + event.data
            if not event.header.control & ATTENTION:
                record += event.data
                if event.header.control & END_OF_MESSAGE:
                    return record
        return None

    def shutdown(self) -> None:
        """No more will be sent. What the peer still has can be received, until None."""
        self.core.close()
        self._closing = True
        self._flush()

    def close(self) -> None:
        """Close with the peer's consent, dropping what it still sends. Raises TimeoutError."""
        try:
            if self.core.state in ("accepting", "open") and not self._closing:
                self.shutdown()
            if self._closing and self.core.state in ("accepting", "open", "dallying"):
                self._event(Closed)
        finally:
            self.idp.close()

    def __enter__(self) -> SequencedPacketSocket:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:  # whatever went wrong, the peer's consent would not mend it
            self.idp.close()

    def _event(self, *kinds: type[Event]) -> Event:
        """Wait for the next event of these kinds. Raises TimeoutError."""
        deadline_ns = deadline(self._timeout)
        while True:
            event = self.core.next_event()
            if event is None:
                self._turn(deadline_ns)
            elif isinstance(event, kinds):
                return event
            elif isinstance(event, Attention):
                self._attention.append(event.data)

    def _turn(self, deadline_ns: int | None) -> None:
        """Send what is due, wait for a packet or for the next time that something is, take what has come."""
        self._flush()
        if self.core.state == "closed":  # by the time that has passed, which is an event: nothing more will come
            return
        if self.core.state == "failed":
            raise TimeoutError(errno.ETIMEDOUT, "the peer is silent")
        due = [at for at in (deadline_ns, self.core.timer_ns()) if at is not None]
        if not self.idp.wait(min(due, default=None)) and deadline_ns and time.monotonic_ns() >= deadline_ns:
            raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        while (received := self.idp.receive()) is not None:
            self._take(*received)

    def _take(self, header: Idp, packet: bytes) -> None:
        assert self._header is not None
        opening = self.core.state == "connecting"
        if header.packet_type != SEQUENCED_PACKET or header.source.host != self._header.destination.host:
            return
        if opening or header.source == self._header.destination:
            self.core.receive_packet(packet)
        if opening and self.core.state == "open":  # the peer answers from a socket number of its own
            self._header = replace(self._header, destination=header.source)

    def _flush(self) -> None:
        assert self._header is not None
        for packet in self.core.packets_to_send(time.monotonic_ns()):
            self.idp.transmit(self._header, packet)


def deadline(timeout_s: float | None) -> int | None:
    return None if timeout_s is None else time.monotonic_ns() + round(timeout_s * 1e9)


def _some_id() -> int:
    return random.randrange(1, 0x10000)
