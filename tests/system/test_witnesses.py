"""What programs that nobody here wrote say of a link, against the ledger: to the last packet, on both engines."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from testbed.measure.records import Frame, Records
from testbed.results import Results
from tests.command import ENGINES, ROOT, said, testbed
from tests.conftest import missing

FILE = ROOT / "tests" / "system" / "witnesses.yaml"
OUT, BACK = "near->far over lan", "far->near over lan"
PING, PONG, DATA = "icmp echo *1", "icmp echo reply *1", "udp *1>5201"
MS = 1_000_000
ROUNDING_NS = 500_000  # ping prints three digits; and its stamps are of another clock than the ledger's
# tcpdump becomes another user, and an ordinary user's host has no other. tshark prints just what is looked for.
TCPDUMP = "tcpdump -lnqi"
TSHARK = "tshark -l -n -T fields -E separator=, -e ip.proto -e udp.dstport -e icmp.type -i"


@dataclass
class Seen:
    records: Records
    path: Path

    def said(self, program: str) -> str:
        return self.records.programs[program].stdout.decode()

    def json(self, program: str) -> Any:
        return json.loads(self.said(program))

    def frames(self, link: str, flow: str = "") -> list[Frame]:
        """Of a flow, or of all whose label begins so, by their numbers."""
        mine = [f for f in self.records.ledger if f.link == link and f.flow.startswith(flow)]
        return sorted(mine, key=lambda frame: frame.k)

    def arrived(self, link: str, flow: str = "") -> list[Frame]:
        return [frame for frame in self.frames(link, flow) if frame.cause is None]

    def captured(self, program: str, what: str) -> int:
        """Lines of a capture with this in them."""
        (file,) = (self.path / "collected" / program).glob("captures/*")
        return sum(re.search(what, line) is not None for line in file.read_text().splitlines())

    def filtered(self, program: str) -> int:
        """Packets that the one filter has redirected, as `tc -s -j filter` shows them."""
        (shown,) = (entry for entry in self.json(program) if "options" in entry)
        return int(shown["options"]["actions"][0]["stats"]["packets"])

    def while_it_ran(self, program: str, times: list[int]) -> tuple[int, int]:
        """How many of these were over when it began, and when it had ended."""
        record = self.records.programs[program]
        assert record.started_ns is not None and record.ended_ns is not None
        return sum(t < record.started_ns for t in times), sum(t <= record.ended_ns for t in times)


@pytest.fixture(scope="module", params=ENGINES)
def seen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    engine = request.param
    request.getfixturevalue("docker_daemon" if engine == "docker" else "namespaces_work")
    home: Path = tmp_path_factory.mktemp(engine)
    file, text = home / FILE.name, FILE.read_text()
    if engine == "namespaces" and os.geteuid() != 0:
        text = text.replace(TCPDUMP, TSHARK)
    file.write_text(text)
    if engine == "namespaces":
        for word in ("iperf3", "tshark" if TSHARK in text else "tcpdump"):
            if shutil.which(word, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None:
                missing("tshark" if word == "tshark" else "programs", f"{word}: apt-get install {word}")
    done = testbed("run", file, "--engine", engine, "--results", home)
    assert done.returncode == 0, said(done)
    results = Results(home / "witnesses" / "latest")
    return Seen(results.load()[1], results.path)


def test_ping_counts_what_the_link_lost_both_ways(seen: Seen) -> None:
    counts = re.search(r"(\d+) packets transmitted, (\d+) received", seen.said("near.ping"))
    assert counts is not None
    sent, received = int(counts[1]), int(counts[2])
    lost = sum(frame.cause == "loss" for frame in seen.frames(OUT, PING) + seen.frames(BACK, PONG))
    assert (sent, received) == (len(seen.frames(OUT, PING)), len(seen.arrived(BACK, PONG)))
    assert sent - received == lost > 0


def test_ping_got_just_those_answers_and_none_sooner_than_the_link_let_it_through(seen: Seen) -> None:
    found = re.findall(r"icmp_seq=(\d+) .* time=([\d.]+) ms", seen.said("near.ping"))
    took_ns = {int(number): float(ms) * MS for number, ms in found}
    answered = zip(seen.arrived(OUT, PING), seen.frames(BACK, PONG), strict=True)
    least_ns = {
        asked.k + 1: answer.due_ns - asked.in_ns for asked, answer in answered if answer.due_ns is not None
    }
    assert took_ns.keys() == least_ns.keys()
    assert min(least_ns.values()) >= 20 * MS, "10 ms each way"
    early = {k: (took_ns[k], least_ns[k]) for k in took_ns if took_ns[k] < least_ns[k] - ROUNDING_NS}
    assert not early


def test_iperf3_misses_just_the_datagrams_that_the_link_lost(seen: Seen) -> None:
    """It stops reading when it hears of the end, on its own connection: what was not read then is not missed."""
    end = seen.json("near.iperf")["end"]
    data = seen.frames(OUT, DATA)[1:]  # the first one opens the stream
    assert end["sum_sent"]["packets"] == len(data) == 300
    highest, lost = end["sum_received"]["packets"], end["sum_received"]["lost_packets"]
    assert lost == sum(frame.cause == "loss" for frame in data[:highest]) > 0
    assert data[highest - 1].cause is None
    assert end["sum_received"]["bytes"] == 200 * (highest - lost)
    assert seen.json("far.nstat")["kernel"]["UdpInDatagrams"] == highest - lost + 1


def test_nstat_counts_what_entered_and_what_arrived(seen: Seen) -> None:
    near, far = (seen.json(f"{host}.nstat")["kernel"] for host in ("near", "far"))
    assert near["UdpOutDatagrams"] == len(seen.frames(OUT, "udp"))
    assert near["IcmpOutEchos"] == len(seen.frames(OUT, PING))
    assert (
        far["IcmpInEchos"]
        == far["IcmpOutEchoReps"]
        == len(seen.arrived(OUT, PING))
        == len(seen.frames(BACK, PONG))
    )
    assert near["IcmpInEchoReps"] == len(seen.arrived(BACK, PONG))
    assert far["UdpRcvbufErrors"] == far["UdpInErrors"] == far["IcmpInErrors"] == 0


def test_a_capture_has_at_the_entrance_what_entered_and_at_the_other_end_what_arrived(seen: Seen) -> None:
    for what, flow in ((r"ICMP echo request|^1,,8", PING), (r"[.]5201: UDP|^17,5201,", DATA)):
        assert seen.captured("near.entries", what) == len(seen.frames(OUT, flow))
        assert seen.captured("far.arrivals", what) == len(seen.arrived(OUT, flow))
    assert (
        seen.captured("near.entries", "echo request|,8$") > seen.captured("far.arrivals", "echo request|,8$") > 0
    )


def test_tc_shows_every_frame_on_its_way_to_the_wire_and_on_its_way_back(seen: Seen) -> None:
    entered = [frame.in_ns for frame in seen.frames(OUT)]
    left = [frame.sent_ns for frame in seen.arrived(OUT) if frame.sent_ns is not None]
    for program, times in (("near.out", entered), ("near.back", left)):
        fewest, most = seen.while_it_ran(program, times)
        assert fewest <= seen.filtered(program) <= most
        assert fewest > 300
