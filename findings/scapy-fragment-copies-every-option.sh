#!/usr/bin/env bash
# scapy 2.8.0: fragment() copies every IP option into every fragment, also those that belong into the first alone.
#
# The top bit of an option's type says whether it is copied on fragmentation (RFC 791, section 3.1): Record Route (7)
# and Timestamp (68) are not, Loose Source Route (131) is. scapy's fragments all have the header length of the
# first. Packets that it makes so are not those that a router or a kernel makes of the same datagram.
# Seen: Record Route in 3 of 3 fragments, where 1 is right; Loose Source Route in 3 of 3, as it should be.
set -eu
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
cat >"$work/options.py" <<'PYTHON'
import logging

logging.getLogger("scapy.runtime").setLevel(logging.ERROR)
from scapy.all import IP, UDP, IPOption_LSRR, IPOption_RR, Raw, fragment

for kind in (IPOption_RR, IPOption_LSRR):
    option = kind(routers=["192.0.2.9"])
    packet = IP(src="192.0.2.1", dst="192.0.2.2", options=[option]) / UDP(dport=9) / Raw(b"x" * 3000)
    pieces = [IP(bytes(piece)) for piece in fragment(packet, fragsize=1400)]
    having = sum(any(isinstance(one, kind) for one in piece.options) for piece in pieces)
    flag = bytes(option)[0] >> 7
    print(f"{kind.__name__}: copied flag {flag}, in {having} of {len(pieces)} fragments")
PYTHON
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check scapy==2.8.0
"$work/venv/bin/python" "$work/options.py" | tee "$work/said"
grep -qx "IPOption_RR: copied flag 0, in 3 of 3 fragments" "$work/said"
grep -qx "IPOption_LSRR: copied flag 1, in 3 of 3 fragments" "$work/said"
