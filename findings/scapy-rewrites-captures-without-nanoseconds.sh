#!/usr/bin/env bash
# scapy 2.8.0 reads nanoseconds from a capture and writes it back without them, in silence; pcap is rounded, pcapng cut.
#
# rdpcap() gives packets their time to the nanosecond. wrpcap() and wrpcapng() of the same list write microseconds: no
# error, no warning, and no option of wrpcapng() for more (wrpcap has nano=True, which is not taken from what was read).
# The two round differently: 123456789 ns become 123457 us in pcap and 123456 us in pcapng. So a file that is only
# filtered or edited has other gaps between its packets, and the two formats of it differ by a microsecond.
set -eu
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
cat >"$work/times.py" <<'PYTHON'
import logging
import sys

logging.getLogger("scapy.runtime").setLevel(logging.ERROR)
from scapy.all import IP, UDP, Ether, rdpcap, wrpcap, wrpcapng
from scapy.utils import EDecimal

packet = Ether() / IP() / UDP()
packet.time = EDecimal("1700000000.123456789")
there = sys.argv[1]
wrpcap(f"{there}/first.pcap", [packet], nano=True)
read = rdpcap(f"{there}/first.pcap")
wrpcap(f"{there}/again.pcap", read)
wrpcapng(f"{there}/again.pcapng", read)
print("read", read[0].time)
for name in ("again.pcap", "again.pcapng"):
    print(name, f"{rdpcap(f'{there}/{name}')[0].time:.9f}")
PYTHON
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check scapy==2.8.0
"$work/venv/bin/python" "$work/times.py" "$work" | tee "$work/said"
grep -qx "read 1700000000.123456789" "$work/said"
grep -qx "again.pcap 1700000000.123457000" "$work/said"
grep -qx "again.pcapng 1700000000.123456000" "$work/said"
