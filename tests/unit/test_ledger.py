"""The ledger: what goes in comes out, and what was cut or damaged is never taken for a shorter ledger."""

from __future__ import annotations

import itertools
import json
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.measure.ledger import CAUSES, MAGIC, NEVER, Writer, decode, from_json_line, to_json_line
from testbed.measure.records import Frame

LINK = "sensor->collector over lan"
SENT = Frame(1_000, LINK, "udp *1>9000", 0, 142, None, False, 21_000, 21_050)
LOST = Frame(2_000, LINK, "udp *1>9000", 1, 142, "loss", False, None, None)

times = st.integers(0, 2**62)
frames = st.builds(
    Frame,
    in_ns=times,
    link=st.sampled_from([LINK, "a->b over lan", "ä->ß over \u2028"]),
    flow=st.sampled_from(["udp *1>9000", "icmp error", ""]),
    k=st.integers(0, 2**64 - 1),
    size_bytes=st.integers(0, 2**32 - 1),
    cause=st.sampled_from(CAUSES),
    copy=st.booleans(),
    due_ns=st.none() | times,
    sent_ns=st.none() | times,
)


def write(frames: list[Frame], pieces: int = 1) -> bytes:
    """As the wire does it: names at first use, taken in pieces, closed at the end."""
    writer, out = Writer(), []
    links: dict[str, int] = {}
    flows: dict[tuple[str, str], int] = {}
    for number, f in enumerate(frames):
        if f.link not in links:
            links[f.link] = writer.link(f.link)
        if (f.link, f.flow) not in flows:
            flows[f.link, f.flow] = writer.flow(links[f.link], f.flow)
        due, sent = (NEVER if t is None else t for t in (f.due_ns, f.sent_ns))
        writer.frame(flows[f.link, f.flow], f.k, f.size_bytes, f.cause, f.copy, f.in_ns, due, sent)
        if number % pieces == 0:
            out.append(writer.take())
    return b"".join(out) + writer.finish()


@given(st.lists(frames, max_size=30), st.integers(1, 10))
def test_what_goes_in_comes_out(frames: list[Frame], pieces: int) -> None:
    assert decode(write(frames, pieces)) == frames


@given(st.lists(st.lists(frames, max_size=10), min_size=1, max_size=4))
def test_whole_ledgers_of_several_wires_may_follow_one_another(ledgers: list[list[Frame]]) -> None:
    assert decode(b"".join(write(ledger) for ledger in ledgers)) == list(itertools.chain(*ledgers))


def test_a_ledger_behind_another_is_whole_or_refused() -> None:
    first, second = write([SENT]), write([LOST])
    for cut in range(1, len(second)):
        with pytest.raises(ValueError, match="ledger"):
            decode(first + second[:cut])
    with pytest.raises(ValueError, match="damaged"):
        decode(first[: -len(Writer().finish()) + len(MAGIC)] + second)


def test_an_empty_ledger_is_a_ledger() -> None:
    assert decode(Writer().finish()) == []


def test_the_bytes_of_version_1() -> None:
    """A ledger on disk must be read by later versions: the layout, byte by byte."""
    link, flow = LINK.encode(), b"udp *1>9000"
    assert write([SENT, LOST], pieces=3) == b"".join(
        [
            b"testbed ledger 1\n",
            b"L" + struct.pack("<IH", 0, len(link)) + link,
            b"F" + struct.pack("<IIH", 0, 0, len(flow)) + flow,
            b"B" + struct.pack("<I", 1),
            bytes((0, 0, 0, 0)) + struct.pack("<IIQqqq", 0, 142, 0, 1_000, 21_000, 21_050),
            b"B" + struct.pack("<I", 1),
            bytes((1, 0, 0, 0)) + struct.pack("<IIQqqq", 0, 142, 1, 2_000, -1, -1),
            b"E" + struct.pack("<Q", 2),
        ]
    )


def test_more_may_follow_an_end_that_is_closed_again() -> None:
    writer = Writer()
    flow = writer.flow(writer.link(LINK), "udp *1>9000")
    writer.frame(flow, 0, 142, None, False, 1_000, 21_000, 21_050)
    first = writer.finish()
    writer.frame(flow, 1, 142, "loss", False, 2_000, NEVER, NEVER)
    rest = writer.take()
    assert decode(first) == [SENT]
    assert decode(first + rest + writer.finish()) == [SENT, LOST]
    with pytest.raises(ValueError, match=r"cut off .* after 2 frames: it has no end record"):
        decode(first + rest)


@given(st.lists(frames, min_size=1, max_size=8), st.data())
def test_every_cut_is_noticed(frames: list[Frame], data: st.DataObject) -> None:
    whole = write(frames, pieces=3)
    with pytest.raises(ValueError, match=r"cut off|not a ledger"):
        decode(whole[: data.draw(st.integers(0, len(whole) - 1))])


@given(st.binary(max_size=200))
def test_garbage_is_refused(garbage: bytes) -> None:
    for data in (garbage, MAGIC + garbage):
        with pytest.raises(ValueError, match="ledger"):
            decode(data)


@pytest.mark.parametrize(
    ("records", "says"),
    [
        ([b"X"], r"no record begins with b'X' \(byte 17\)"),
        ([b"L" + struct.pack("<IH", 1, 0)], "link 1 at byte 17, but the next one is 0"),
        ([b"F" + struct.pack("<IIH", 0, 0, 0)], "flow 0 of link 0 at byte 17.*with 0 links"),
        ([b"L" + struct.pack("<IH", 0, 1) + b"\xff"], "name at byte 24 is not UTF-8"),
        ([b"L" + struct.pack("<IH", 0, 19) + b"short"], "at byte 24 needs 19 bytes, 14 are left"),
        ([b"B" + struct.pack("<I", 1), bytes(44)], "frame 0, in the block at byte 17, .* flow number 0 of 0"),
        ([b"B" + struct.pack("<I", 2), bytes(44)], "needs 88 bytes, 53 are left"),
        ([b"E" + struct.pack("<Q", 3)], "3 frames announced at byte 17, 0 are there"),
    ],
)
def test_damage_is_named_with_its_place(records: list[bytes], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        decode(MAGIC + b"".join(records) + b"E" + struct.pack("<Q", 0))


def test_an_unknown_cause_is_damage() -> None:
    whole = bytearray(write([SENT]))
    whole[whole.index(b"B\x01\0\0\0") + 5] = 9
    with pytest.raises(ValueError, match="cause number 9 of 4"):
        decode(bytes(whole))


def test_a_name_that_does_not_fit_is_refused_when_it_is_written() -> None:
    with pytest.raises(ValueError, match="65536 bytes does not fit"):
        Writer().link("x" * 65536)


# -- JSON lines


def test_a_json_line() -> None:
    assert to_json_line(SENT) == (
        '{"in_ns":1000,"link":"sensor->collector over lan","flow":"udp *1>9000","k":0,"size_bytes":142,'
        '"cause":null,"copy":false,"due_ns":21000,"sent_ns":21050}'
    )


@given(frames)
def test_a_line_is_one_line_and_comes_back(frame: Frame) -> None:
    line = to_json_line(frame)
    assert "\n" not in line and from_json_line(line) == frame
    assert from_json_line(line + "\n") == frame


GOOD = json.loads(to_json_line(SENT))


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{",
        "[]",
        "7",
        json.dumps({k: v for k, v in GOOD.items() if k != "k"}),
        json.dumps(GOOD | {"more": 1}),
        json.dumps(GOOD | {"k": "0"}),
        json.dumps(GOOD | {"k": None}),
        json.dumps(GOOD | {"k": True}),
        json.dumps(GOOD | {"in_ns": 1.5}),
        json.dumps(GOOD | {"copy": 0}),
        json.dumps(GOOD | {"link": None}),
        json.dumps(GOOD | {"cause": "lost"}),
    ],
)
def test_what_is_no_line_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="not a line of a ledger"):
        from_json_line(line)


def test_a_large_ledger_keeps_its_order() -> None:
    many = [SENT._replace(k=k, in_ns=k) for k in itertools.islice(itertools.count(), 20_000)]
    assert decode(write(many, pieces=5_000)) == many
