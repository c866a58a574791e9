"""The packets as a program sees them that nobody here wrote: Wireshark's dissectors of IDP and SPP.

They are reached through an Ethernet frame of type 0x0600, not through IP protocol 22. So what a raw socket saw of
a real run is put into such frames, and each field that tshark shows is compared with what was sent.
"""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
import threading
from pathlib import Path

from testbed.programs.ns.connection import Connection
from testbed.programs.ns.packets import (
    ATTENTION,
    END,
    END_OF_MESSAGE,
    END_REPLY,
    SEND_ACKNOWLEDGEMENT,
    SEQUENCED_PACKET,
    SPP_BYTES,
    SYSTEM_PACKET,
    Address,
    Idp,
    Spp,
    decode,
    encode,
)
from testbed.programs.ns.sockets import IdpSocket, SequencedPacketSocket
from tests.conftest import missing

ETHERTYPE_IDP = 0x0600
LINKTYPE_ETHERNET = 1
OF_IDP = "checksum len hops packet_type dst.net dst.node dst.socket src.net src.node src.socket".split()
OF_SPP = ("ctl ctl.sys ctl.send_ack ctl.attn ctl.eom type src dst seq ack alloc").split()


def pcap(packets: list[bytes]) -> bytes:
    """A capture file of Ethernet frames with these packets of IDP (libpcap's format, version 2.4)."""
    out = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, LINKTYPE_ETHERNET)
    for n, packet in enumerate(packets):
        header, _ = decode(packet)
        frame = header.destination.host + header.source.host + ETHERTYPE_IDP.to_bytes(2, "big") + packet
        frame = frame.ljust(60, b"\0")  # the shortest that Ethernet carries
        out += struct.pack("<IIII", n, 0, len(frame), len(frame)) + frame
    return out


def dissected(packets: list[bytes], directory: Path) -> list[dict[str, str]]:
    """By field, what tshark shows of each packet."""
    if not shutil.which("tshark"):
        missing("tshark", "apt install tshark")
    file = directory / "packets.pcap"
    file.write_bytes(pcap(packets))
    names = [
        "frame.protocols",
        *(f"idp.{name}" for name in OF_IDP),
        *(f"spp.{name}" for name in OF_SPP),
        "data.data",
    ]
    argv = ["tshark", "-n", "-r", str(file), "-T", "fields", "-E", "separator=;"]
    for name in names:
        argv += ["-e", name]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=True)
    return [dict(zip(names, line.split(";"), strict=True)) for line in done.stdout.splitlines()]


def mac(host: bytes) -> str:
    return host.hex(":")


def expected(packet: bytes) -> dict[str, str]:
    """By field, what tshark has to show of it. Numbers are compared as numbers, see `number`."""
    header, data = decode(packet)
    fields = {
        "idp.checksum": str(header.checksum),
        "idp.len": str(header.length),
        "idp.hops": str(header.transport_control),
        "idp.packet_type": str(header.packet_type),
        "idp.dst.net": str(header.destination.network),
        "idp.dst.node": mac(header.destination.host),
        "idp.dst.socket": str(header.destination.socket),
        "idp.src.net": str(header.source.network),
        "idp.src.node": mac(header.source.host),
        "idp.src.socket": str(header.source.socket),
    }
    if header.packet_type == SEQUENCED_PACKET:
        spp = Spp.unpack(data)
        fields |= {
            "spp.ctl": str(spp.control),
            "spp.ctl.sys": str(int(bool(spp.control & SYSTEM_PACKET))),
            "spp.ctl.send_ack": str(int(bool(spp.control & SEND_ACKNOWLEDGEMENT))),
            "spp.ctl.attn": str(int(bool(spp.control & ATTENTION))),
            "spp.ctl.eom": str(int(bool(spp.control & END_OF_MESSAGE))),
            "spp.type": str(spp.datastream_type),
            "spp.src": str(spp.source_id),
            "spp.dst": str(spp.destination_id),
            "spp.seq": str(spp.sequence),
            "spp.ack": str(spp.acknowledge),
            "spp.alloc": str(spp.allocation),
        }
        data = data[SPP_BYTES:]
    return {**fields, "data.data": data.hex()}


def number(text: str) -> int | str:
    """`0x0010`, `16`, `True` -> a number; anything else as it is."""
    if text in ("True", "False"):
        return int(text == "True")
    try:
        return int(text, 0)
    except ValueError:
        return text


def compare(packets: list[bytes], directory: Path) -> None:
    shown = dissected(packets, directory)
    assert len(shown) == len(packets)
    for packet, fields in zip(packets, shown, strict=True):
        wanted = expected(packet)
        protocols = fields.pop("frame.protocols").split(":")
        assert protocols[:3] == ["eth", "ethertype", "idp"]
        assert ("spp" in protocols) == ("spp.seq" in wanted)
        assert fields.pop("data.data") == wanted.pop("data.data")
        assert {name: number(text) for name, text in fields.items() if text} == {
            name: number(text) for name, text in wanted.items()
        }


def test_every_field_of_idp_is_what_was_packed(tmp_path: Path) -> None:
    one = Address(0x01020304, bytes.fromhex("0200c6120002"), 0x07D0)
    two = Address(0xFFFFFFFE, bytes.fromhex("0200c6120003"), 0xFFFF)
    compare([encode(Idp(20, one, two, 3), b"odd"), encode(Idp(37, two, one, 15), bytes(546))], tmp_path)


def test_every_field_of_spp_is_what_the_core_sends(tmp_path: Path) -> None:
    client = Connection(0x1001, 10**8)
    client.connect()
    spoken = client.packets_to_send(0)
    server = Connection.accept(spoken[0], 0x2002, 10**8)
    spoken += (answer := server.packets_to_send(0))
    client.receive_packet(answer[0])
    client.send(bytes(range(256)) * 3, datastream_type=253)
    client.send_attention(b"!")
    client.close()
    spoken += client.packets_to_send(0)
    spoken += client.packets_to_send(10**8)  # the first again
    ends = (Address(0, bytes(6), 1), Address(0, bytes(6), 2))
    packets = [encode(Idp(SEQUENCED_PACKET, *ends), packet) for packet in spoken]
    assert {Spp.unpack(packet).control for packet in spoken} >= {
        0,
        SYSTEM_PACKET | SEND_ACKNOWLEDGEMENT,
        ATTENTION,
    }
    compare(packets, tmp_path)


def test_a_real_run_as_a_raw_socket_saw_it(tmp_path: Path) -> None:
    try:
        watcher = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_IDP)
    except PermissionError:
        missing("raw sockets", "they need the capability NET_RAW")
    records = [b"a", bytes(1200), b"the third"]
    with watcher, IdpSocket() as ours:
        watcher.bind(("127.0.0.1", 0))
        watcher.settimeout(0.2)
        listener = SequencedPacketSocket()
        listener.bind(("127.0.0.1", 0))

        def serve() -> None:
            sock, _ = listener.accept()
            with sock:
                while (record := sock.recv()) is not None:
                    sock.send(record)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with SequencedPacketSocket() as client:
            client.bind(("127.0.0.1", 0))
            client.connect(listener.getsockname())
            for record in records:
                client.send(record)
                assert client.recv() == record
        thread.join()
        listener.idp.close()
        ours.bind(("127.0.0.1", 0))
        ours.sendto(b"a datagram", ours.getsockname())
        packets = []
        while True:
            try:
                packet = watcher.recv(65535)
            except TimeoutError:
                break
            packets.append(packet[20:])
    types = {Spp.unpack(data).datastream_type for header, data in map(decode, packets) if header.packet_type == 5}
    assert types == {0, END, END_REPLY}
    assert decode(packets[-1])[1] == b"a datagram"
    compare(packets, tmp_path)
