"""The sockets of the NS family on loopback. Raw sockets need the capability NET_RAW: without it, a named skip."""

from __future__ import annotations

import errno
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from testbed.programs.ns.packets import (
    ATTENTION,
    END_OF_MESSAGE,
    IDP_BYTES,
    LARGEST_DATAGRAM,
    SPP_BYTES,
    Address,
    Idp,
    Spp,
)
from testbed.programs.ns.sockets import (
    SO_ALL_PACKETS,
    SO_DEFAULT_HEADERS,
    SO_HEADERS_ON_INPUT,
    SO_HEADERS_ON_OUTPUT,
    SO_LAST_HEADER,
    IdpSocket,
    SequencedPacketSocket,
    host_number,
    ip_address,
)
from tests.conftest import missing

HERE = "127.0.0.1"
TIMEOUT_NS = 50 * 10**6  # of packets; four of them pass at the end of each connection


@pytest.fixture(autouse=True)
def raw_sockets() -> None:
    try:
        IdpSocket().close()
    except PermissionError:
        missing("raw sockets", "they need the capability NET_RAW")


@pytest.fixture
def two() -> Iterator[tuple[IdpSocket, IdpSocket]]:
    with IdpSocket() as one, IdpSocket() as other:
        for sock in (one, other):
            sock.bind((HERE, 0))
            sock.settimeout(10)
        yield one, other


Serve = Callable[[SequencedPacketSocket], None]


@contextmanager
def served(serve: Serve) -> Iterator[SequencedPacketSocket]:
    """A client that is connected to a socket which another thread serves; whatever failed there fails here."""
    listener = SequencedPacketSocket(TIMEOUT_NS)
    listener.bind((HERE, 0))
    problems: list[BaseException] = []

    def work() -> None:
        try:
            sock, _ = listener.accept()
            sock.settimeout(10)
            with sock:
                serve(sock)
        except BaseException as problem:
            problems.append(problem)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    with SequencedPacketSocket(TIMEOUT_NS) as client:
        client.bind((HERE, 0))
        client.settimeout(10)
        client.connect(listener.getsockname())
        yield client
    thread.join(30)
    listener.idp.close()
    assert not thread.is_alive()
    if problems:
        raise problems[0]


def echo(sock: SequencedPacketSocket) -> None:
    while (record := sock.recv()) is not None:
        sock.send(record)


# ---------------------------------------------------------------- IDP


def test_the_host_number_is_made_of_the_address() -> None:
    assert host_number("198.18.0.2") == bytes.fromhex("0200c6120002")
    assert ip_address(host_number("198.18.0.2")) == "198.18.0.2"


def test_a_datagram_and_where_it_came_from(two: tuple[IdpSocket, IdpSocket]) -> None:
    one, other = two
    one.sendto(b"odd", other.getsockname())
    assert other.recvfrom() == (b"odd", one.getsockname())


def test_a_default_header_gives_all_datagrams_their_packet_type(two: tuple[IdpSocket, IdpSocket]) -> None:
    one, other = two
    one.setsockopt(SO_DEFAULT_HEADERS, Idp(33, transport_control=9).pack())
    other.setsockopt(SO_HEADERS_ON_INPUT, 1)
    for _ in range(2):
        one.sendto(b"x", other.getsockname())
        header = Idp.unpack(other.recvfrom()[0])
        assert (header.packet_type, header.transport_control, header.length) == (33, 0, IDP_BYTES + 1)
        assert header.source == Address(0, host_number(HERE), one.getsockname()[1])
    assert Idp.unpack(one.getsockopt(SO_DEFAULT_HEADERS)).packet_type == 33  # type: ignore[arg-type]


def test_a_written_header_goes_out_as_it_is_and_where_it_says(two: tuple[IdpSocket, IdpSocket]) -> None:
    one, other = two
    one.setsockopt(SO_HEADERS_ON_OUTPUT, 1)
    other.setsockopt(SO_HEADERS_ON_INPUT, 1)
    forged = Address(77, host_number("192.0.2.1"), 5)
    header = replace(one.header_to(other.getsockname(), 21), source=forged, transport_control=15)
    one.sendto(header.pack() + b"abc", ("192.0.2.9", 1))
    data, name = other.recvfrom()
    found = Idp.unpack(data)
    assert (found, data[IDP_BYTES:]) == (replace(header, length=33, checksum=found.checksum), b"abc")
    assert name == ("192.0.2.1", 5)


def test_packets_of_spp_are_not_for_a_socket_of_idp_unless_it_asks(two: tuple[IdpSocket, IdpSocket]) -> None:
    one, other = two
    one.setsockopt(SO_DEFAULT_HEADERS, Idp(5).pack())
    one.sendto(b"first", other.getsockname())
    one.setsockopt(SO_DEFAULT_HEADERS, Idp(0).pack())
    one.sendto(b"second", other.getsockname())
    assert other.recvfrom()[0] == b"second"
    other.setsockopt(SO_ALL_PACKETS, 1)
    one.setsockopt(SO_DEFAULT_HEADERS, Idp(5).pack())
    one.sendto(b"third", other.getsockname())
    assert other.recvfrom()[0] == b"third"


def test_a_packet_that_is_none_is_counted_and_dropped(two: tuple[IdpSocket, IdpSocket]) -> None:
    one, other = two
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_IDP) as raw:
        raw.sendto(bytes(40), (HERE, 0))
    one.sendto(b"x", other.getsockname())
    assert other.recvfrom()[0] == b"x"
    assert other.bad == 1


def test_what_cannot_be_sent_is_an_error(two: tuple[IdpSocket, IdpSocket]) -> None:
    one, other = two
    for data, name, number in (
        (bytes(LARGEST_DATAGRAM + 1), other.getsockname(), errno.EMSGSIZE),
        (b"x", None, errno.EDESTADDRREQ),
    ):
        with pytest.raises(OSError) as caught:
            one.sendto(data, name)
        assert caught.value.errno == number
    one.setsockopt(SO_HEADERS_ON_OUTPUT, 1)
    with pytest.raises(OSError) as caught:
        one.sendto(bytes(29), other.getsockname())
    assert caught.value.errno == errno.EINVAL


def test_waiting_for_nothing_ends_in_time(two: tuple[IdpSocket, IdpSocket]) -> None:
    two[0].settimeout(0.01)
    with pytest.raises(TimeoutError):
        two[0].recvfrom()


# ---------------------------------------------------------------- SPP


def test_records_of_any_size_go_there_and_back_and_the_connection_closes() -> None:
    with served(echo) as client:
        for size in (0, 1, 534, 535, 40_000):
            client.send(bytes(size))
            assert client.recv() == bytes(size)
    assert client.core.state == "closed"


def test_a_default_header_and_the_last_one() -> None:
    with served(echo) as client:
        client.setsockopt(SO_DEFAULT_HEADERS, Spp(0, 7).pack())
        client.send(b"a gr")
        client.setsockopt(SO_DEFAULT_HEADERS, Spp(END_OF_MESSAGE, 7).pack())
        client.send(b"oup")
        assert client.recv() == b"a group"
        last = Spp.unpack(client.getsockopt(SO_LAST_HEADER))  # type: ignore[arg-type]
        assert (last.datastream_type, last.control & END_OF_MESSAGE) == (0, END_OF_MESSAGE)
        assert Spp.unpack(client.getsockopt(SO_DEFAULT_HEADERS)).datastream_type == 7  # type: ignore[arg-type]


def test_a_prototype_header_is_on_a_group_and_headers_come_with_each_packet() -> None:
    seen: list[tuple[int, int, int]] = []

    def serve(sock: SequencedPacketSocket) -> None:
        sock.setsockopt(SO_HEADERS_ON_INPUT, 1)
        while (packet := sock.recv()) is not None:
            header = Spp.unpack(packet)
            seen.append((header.datastream_type, header.control & END_OF_MESSAGE, len(packet) - SPP_BYTES))

    with served(serve) as client:
        client.setsockopt(SO_HEADERS_ON_OUTPUT, 1)
        client.send(Spp(END_OF_MESSAGE, 1).pack() + bytes(1000))
        client.send(Spp(0, 2).pack() + b"x")
    assert seen == [(1, 0, 534), (1, END_OF_MESSAGE, 466), (2, 0, 1)]


def test_an_attention_byte_is_no_part_of_a_record() -> None:
    got: list[bytes | None] = []

    def serve(sock: SequencedPacketSocket) -> None:
        with pytest.raises(OSError, match="Invalid"):
            sock.recv(socket.MSG_OOB)
        got.extend([sock.recv(), sock.recv(socket.MSG_OOB), sock.recv()])

    with served(serve) as client:
        client.setsockopt(SO_DEFAULT_HEADERS, Spp(0).pack())
        client.send(b"be")
        client.send(b"!", socket.MSG_OOB)
        client.setsockopt(SO_DEFAULT_HEADERS, Spp(END_OF_MESSAGE).pack())
        client.send(b"fore")
    assert got == [b"before", b"!", None]


def test_the_attention_bit_of_a_prototype_is_the_same() -> None:
    got: list[bytes | None] = []

    def serve(sock: SequencedPacketSocket) -> None:
        got.extend([sock.recv(), sock.recv(socket.MSG_OOB)])

    with served(serve) as client:
        client.setsockopt(SO_HEADERS_ON_OUTPUT, 1)
        client.send(Spp(ATTENTION).pack() + b"?")
        client.send(Spp(END_OF_MESSAGE).pack() + b"after")
    assert got == [b"after", b"?"]


def test_what_the_peer_still_has_comes_after_shutdown() -> None:
    def serve(sock: SequencedPacketSocket) -> None:
        records = []
        while (record := sock.recv()) is not None:
            records.append(record)
        sock.send(b" ".join(records))

    with served(serve) as client:
        client.send(b"one")
        client.send(b"two")
        client.shutdown()
        assert client.recv() == b"one two"
        assert client.recv() is None
        with pytest.raises(BrokenPipeError):
            client.send(b"three")


@pytest.mark.parametrize("data", [b"", b"12"])
def test_attention_is_one_byte(data: bytes) -> None:
    with served(echo) as client, pytest.raises(OSError, match="Invalid"):
        client.send(data, socket.MSG_OOB)


def test_two_connections_at_once_do_not_meet() -> None:
    with served(echo) as one, served(echo) as other:
        one.send(b"one")
        other.send(b"other")
        assert other.recv() == b"other"
        assert one.recv() == b"one"


def test_where_nobody_listens_connecting_takes_too_long() -> None:
    sock = SequencedPacketSocket()
    sock.settimeout(0.05)
    with pytest.raises(TimeoutError), sock:
        sock.connect((HERE, 1))
    silent = SequencedPacketSocket(timeout_ns=1_000_000)
    with pytest.raises(TimeoutError, match="the peer is silent"), silent:
        silent.connect((HERE, 1))


@pytest.mark.parametrize("kind", [IdpSocket, SequencedPacketSocket])
def test_what_is_no_option_is_refused(kind: type) -> None:
    sock = kind()
    for call in (lambda: sock.setsockopt(99, 1), lambda: sock.getsockopt(99)):
        with pytest.raises(OSError, match="Invalid"):
            call()
    getattr(sock, "idp", sock).close()
