#!/usr/bin/env bash
# scapy 2.8.0: defragment() puts a datagram together only if the last fragment comes last; else it loses fragments.
#
# Fragments of one datagram may come in any order. Of the 24 orders of four fragments, the 6 in which the last one
# comes last give one packet, whole. The 18 others give no packet: what is returned is the fragments up to the last
# one, and those that came after it are in no result and in no message. The members of that result are tuples, not
# packets, as the name of its type, PacketList, would say. To sort a capture by (id, frag) beforehand helps.
set -eu
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
cat >"$work/orders.py" <<'PYTHON'
import logging
from itertools import permutations

logging.getLogger("scapy.runtime").setLevel(logging.ERROR)
from scapy.all import IP, UDP, Raw, defragment, fragment

whole = IP(src="192.0.2.1", dst="192.0.2.2", id=7) / UDP(dport=9) / Raw(b"y" * 3000)
pieces = [IP(bytes(piece)) for piece in fragment(whole, fragsize=1000)]
counted = {}
for order in permutations(range(4)):
    found = list(defragment([pieces[number].copy() for number in order]))
    kinds = ",".join(sorted({type(one).__name__ for one in found}))
    kept = "whole" if [bytes(one) for one in found if isinstance(one, IP)] == [bytes(whole)] else f"{len(found)} of 4"
    line = f"last one at place {order.index(3) + 1}: {kept}, {kinds}"
    counted[line] = counted.get(line, 0) + 1
for line in sorted(counted):
    print(f"{line}, {counted[line]} orders")
PYTHON
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check scapy==2.8.0
"$work/venv/bin/python" "$work/orders.py" | tee "$work/said"
cat >"$work/expected" <<'TEXT'
last one at place 1: 1 of 4, tuple, 6 orders
last one at place 2: 2 of 4, tuple, 6 orders
last one at place 3: 3 of 4, tuple, 6 orders
last one at place 4: whole, IP, 6 orders
TEXT
diff "$work/expected" "$work/said"
