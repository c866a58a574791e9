"""What passes the wire, how punctually, and what it costs, beside a link that nothing is done to."""

from __future__ import annotations

import json
from collections.abc import Iterator

from benchmarks.figures import Figure, Row, alternately
from benchmarks.labs import Lab, cpu_s, deployed, plan_of, processes, quantile, resident_bytes
from testbed.engines.namespaces import NamespacesEngine
from testbed.measure.ledger import decode

MB, MS_NS = 1e6, 1_000_000
BLAST = """
import socket, sys, time
to, rate, seconds, size = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.connect((to, 9000))
data, clock, sent = bytes(size), time.monotonic, 0
began = clock()
while (now := clock() - began) < seconds:
    for _ in range(int(now * rate) - sent):
        sock.send(data)
        sent += 1
print(sent / (clock() - began))
"""
TAKE = """
import socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
sock.bind(("", 9000))
print("READY", flush=True)
while True:
    sock.recv(2048)
"""
RATES = (20_000, 40_000, 60_000, 80_000, 100_000, 120_000)
BLAST_S = 1.0


def figures(quick: bool) -> Iterator[Row]:
    yield from _datagrams(quick)
    yield from _delay()
    yield from _stream(quick)
    yield from _many(quick)


def wires() -> set[int]:
    return {pid for pid, line in processes().items() if "from testbed.agent import wire" in line}


def _datagrams(quick: bool) -> Iterator[Row]:
    """The highest rate at which the proof finds nothing lost, as the ledger counts what passed."""
    best, cost_us = 0.0, 0.0
    for rate in RATES[:2] if quick else RATES:
        before = wires()
        with deployed(NamespacesEngine(), plan_of(2, "h-1 -> h-2: {delay: 1 ms}")) as lab:
            (pid,) = wires() - before
            passed, whole, cost = _blast(lab, rate, pid)
        if not whole:
            break
        best, cost_us = passed, cost
    with deployed(NamespacesEngine(), plan_of(2)) as lab:
        taker = lab.ready("h-2", "python3", "-c", TAKE)
        free = float(lab.run("h-1", "python3", "-c", BLAST, "h-2", "10000000", str(BLAST_S), "100"))
        lab.stop("h-2", taker)
    yield Figure("wire: datagrams of 100 bytes, none lost unasked", best, "/s", least=80_000)
    yield Figure("wire: datagrams of 100 bytes, none lost unasked", best, "/s", "sent into a bare veth", free)
    yield Figure("wire: processor time a frame at that rate", cost_us, "us", most=10)


def _blast(lab: Lab, rate: int, wire: int) -> tuple[float, bool, float]:
    """Datagrams a second that passed; whether all did that should have; the wire's microseconds for each."""
    taker = lab.ready("h-2", "python3", "-c", TAKE)
    began_s = cpu_s(wire)
    lab.run("h-1", "python3", "-c", BLAST, "h-2", str(rate), str(BLAST_S), "100")
    proof = lab.agent.check()
    used_s = cpu_s(wire) - began_s
    frames = list(decode(lab.agent.ledger()))
    lab.stop("h-2", taker)
    times = [frame.in_ns for frame in frames]
    passed = len(frames) / ((max(times) - min(times)) / 1e9)
    return passed, not proof["problems"], used_s / len(frames) * 1e6


def _delay() -> Iterator[Row]:
    """A thousand a second through 30 ms, there and back: how far from that each left."""
    with deployed(NamespacesEngine(), plan_of(2, "h-1 <-> h-2: {delay: 30 ms}")) as lab:
        server = lab.ready("h-2", "datagram", "echo", "--port", "9000")
        lab.run("h-1", "datagram", "probe", "h-2:9000", "--count", "5000", "--interval", "1ms")
        lab.agent.check()
        frames = list(decode(lab.agent.ledger()))
        lab.stop("h-2", server)
    errors = [abs(f.sent_ns - f.in_ns - 30 * MS_NS) / MS_NS for f in frames if f.sent_ns is not None]
    yield Figure("wire: error of a delay of 30 ms, p50", quantile(errors, 50), "ms", most=0.1)
    yield Figure("wire: error of a delay of 30 ms, p99", quantile(errors, 99), "ms", most=0.3)


def _stream(quick: bool) -> Iterator[Row]:
    size = "20MB" if quick else "200MB"

    def goodput(links: str, wires: int = 1) -> float:
        with deployed(NamespacesEngine(), plan_of(2, links), wires) as lab:
            server = lab.ready("h-2", "stream", "sink", "--port", "9000")
            said = lab.run("h-1", "stream", "bulk", "h-2:9000", "--bytes", size)
            lab.stop("h-2", server)
        records = [json.loads(line) for line in said.splitlines()]
        return float(next(r["goodput_bit_s"] for r in records if "goodput_bit_s" in r)) / 1e9

    through = "h-1 <-> h-2: {delay: 10 ms}"
    ours, two, free = alternately(
        1 if quick else 3, lambda: goodput(through), lambda: goodput(through, wires=2), lambda: goodput("")
    )
    yield Figure("wire: TCP through 10 ms each way", ours, "Gbit/s", least=0.8)
    yield Figure("wire: TCP through 10 ms each way, two wires", two, "Gbit/s", least=1.5)
    yield Figure("wire: TCP through 10 ms each way", ours, "Gbit/s", "a bare veth", free)


def _many(quick: bool) -> Iterator[Row]:
    hosts = 10 if quick else 100
    pairs = hosts * (hosts - 1)
    before = wires()
    with deployed(NamespacesEngine(), plan_of(hosts, "lan: {delay: 10 ms}")) as lab:
        (pid,) = wires() - before
        assert len(lab.plan.links) == pairs
        yield Figure(f"wire: memory with {pairs:,} pairs", resident_bytes(pid) / MB, "MB", most=100)
        yield Figure(f"wire: {pairs:,} pairs in force, and read back", lab.links_s, "s", most=1.5)
