"""The ledger: what became of every frame, as the wire writes it (binary) and as people read it (JSON lines).

The binary stream is little-endian: MAGIC, then records, each one tag byte and what the tag says:
  L  link:  number (u32), length (u16), the link's id in UTF-8
  F  flow:  number (u32), link's number (u32), length (u16), the flow's label in UTF-8
  B  block: count (u32), then that many frames of fixed size
  E  end:   how many frames came before it in the whole stream (u64)
Behind an end may stand another whole stream, MAGIC and all, of another wire; its numbers begin anew.
A name comes before the first frame that uses it. E is written whenever the wire has nothing pending, and it
must be the last record: a stream that stops anywhere else was cut off, and reading it is an error, not a
shorter ledger. Frames stand in the order in which their fate was sealed (sent or dropped), not in which they
came in.
"""

from __future__ import annotations

import json
import struct
from functools import lru_cache

from testbed.errors import counted
from testbed.measure.records import Frame

MAGIC = b"testbed ledger 1\n"
CAUSES: tuple[str | None, ...] = (None, "loss", "queue", "unasked")
NEVER = -1  # a time that did not come

_FRAME = struct.Struct("<BBxxIIQqqq")  # cause, copy, flow, size, k, in, due, sent
_LINK = struct.Struct("<cIH")
_FLOW = struct.Struct("<cIIH")
_BLOCK = struct.Struct("<cI")
_END = struct.Struct("<cQ")
_CODE = {cause: code for code, cause in enumerate(CAUSES)}


class Writer:
    """Collects frames and gives them out as bytes. Numbers for links and flows count from 0.

    `frame` is called once a packet by a loop that counts microseconds: it only appends.
    """

    def __init__(self) -> None:
        self._names = bytearray(MAGIC)
        self._frames = bytearray()
        self._links = self._flows = 0
        self._given = 0  # frames in the bytes that `take` gave out
        self._pack = _FRAME.pack

    def link(self, link_id: str) -> int:
        """Number a link; its id is written with the next `take`. Raises ValueError if it is too long."""
        number, self._links = self._links, self._links + 1
        text = _text(link_id)
        self._names += _LINK.pack(b"L", number, len(text)) + text
        return number

    def flow(self, link: int, label: str) -> int:
        """Number a flow of a link; its label is written with the next `take`."""
        number, self._flows = self._flows, self._flows + 1
        text = _text(label)
        self._names += _FLOW.pack(b"F", number, link, len(text)) + text
        return number

    def frame(
        self, flow: int, k: int, size: int, cause: str | None, copy: bool, in_ns: int, due_ns: int, sent_ns: int
    ) -> None:
        """Put down one frame. A time that did not come is NEVER."""
        self._frames += self._pack(_CODE[cause], copy, flow, size, k, in_ns, due_ns, sent_ns)

    @property
    def size_bytes(self) -> int:
        """What `take` would give, about."""
        return len(self._names) + len(self._frames)

    def take(self) -> bytes:
        """Everything since the last `take`, names first."""
        count = len(self._frames) // _FRAME.size
        out = self._names
        if count:
            out += _BLOCK.pack(b"B", count) + self._frames
        self._given += count
        self._names, self._frames = bytearray(), bytearray()
        return bytes(out)

    def finish(self) -> bytes:
        """Everything since the last `take`, closed by the count of all frames. More may follow, closed again."""
        return self.take() + _END.pack(b"E", self._given)


def decode(data: bytes) -> list[Frame]:
    """The frames of a whole binary ledger, in its order.

    Raises ValueError, with what is wrong and at which byte, if the data is no ledger, was cut off or damaged.
    """
    if not data.startswith(MAGIC):
        raise ValueError(f"not a ledger of this version: it begins with {data[: len(MAGIC)]!r}, not {MAGIC!r}")
    return _Decoder(data).frames()


class _Decoder:
    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, len(MAGIC)
        self._links: list[str] = []
        self._flows: list[tuple[str, str]] = []  # (link id, label)
        self._frames: list[Frame] = []
        self._before = 0  # frames of the streams before this one

    def frames(self) -> list[Frame]:
        readers = {b"L": self._link, b"F": self._flow, b"B": self._block, b"E": self._end}
        tag = b""
        while self._at < len(self._data):
            if tag == b"E" and self._data.startswith(MAGIC, self._at):
                self._at += len(MAGIC)
                self._links, self._flows, self._before, tag = [], [], len(self._frames), b""
                continue
            start, tag = self._at, self._data[self._at : self._at + 1]
            if tag not in readers:
                raise ValueError(f"damaged ledger: no record begins with {tag!r} (byte {start})")
            readers[tag]()
        if tag != b"E":
            raise ValueError(
                f"ledger cut off at byte {len(self._data)}, after {counted(len(self._frames), 'frame')}: "
                "it has no end record"
            )
        return self._frames

    def _read(self, layout: struct.Struct) -> tuple[int, ...]:
        fields: tuple[int, ...] = layout.unpack(self._take(layout.size))
        return fields[1:]

    def _take(self, size: int) -> bytes:
        piece = self._data[self._at : self._at + size]
        if len(piece) < size:
            raise ValueError(
                f"ledger cut off: the record at byte {self._at} needs {size} bytes, {len(piece)} are left"
            )
        self._at += size
        return piece

    def _words(self, length: int) -> str:
        at = self._at
        try:
            return self._take(length).decode()
        except UnicodeDecodeError as problem:
            raise ValueError(f"damaged ledger: a name at byte {at} is not UTF-8: {problem}") from problem

    def _link(self) -> None:
        at = self._at
        number, length = self._read(_LINK)
        if number != len(self._links):
            raise ValueError(f"damaged ledger: link {number} at byte {at}, but the next one is {len(self._links)}")
        self._links.append(self._words(length))

    def _flow(self) -> None:
        at = self._at
        number, link, length = self._read(_FLOW)
        if number != len(self._flows) or link >= len(self._links):
            raise ValueError(
                f"damaged ledger: flow {number} of link {link} at byte {at}, "
                f"but the next flow is {len(self._flows)}, with {counted(len(self._links), 'link')}"
            )
        self._flows.append((self._links[link], self._words(length)))

    def _block(self) -> None:
        at = self._at
        (count,) = self._read(_BLOCK)
        body = self._take(count * _FRAME.size)
        flows, causes, put = self._flows, CAUSES, self._frames.append
        try:
            for cause, copy, flow, size, k, in_ns, due, sent in _FRAME.iter_unpack(body):
                link, label = flows[flow]
                put(
                    Frame(
                        in_ns,
                        link,
                        label,
                        k,
                        size,
                        causes[cause],
                        copy == 1,
                        None if due == NEVER else due,
                        None if sent == NEVER else sent,
                    )
                )
        except IndexError:
            raise ValueError(
                f"damaged ledger: frame {len(self._frames)}, in the block at byte {at}, has cause number {cause} "
                f"of {len(CAUSES)} and flow number {flow} of {len(flows)}"
            ) from None

    def _end(self) -> None:
        at = self._at
        (count,) = self._read(_END)
        found = len(self._frames) - self._before
        if count != found:
            raise ValueError(
                f"damaged ledger: {counted(count, 'frame')} announced at byte {at}, {found} are there"
            )


def to_json_line(frame: Frame) -> str:
    """One frame as a line of the results' ledger, without a newline. The keys are the fields of `Frame`."""
    in_ns, link, flow, k, size_bytes, cause, copy, due_ns, sent_ns = frame
    return (
        f'{{"in_ns":{in_ns},"link":{_quoted(link)},"flow":{_quoted(flow)},"k":{k},"size_bytes":{size_bytes},'
        f'"cause":{_quoted(cause)},"copy":{"true" if copy else "false"},'
        f'"due_ns":{"null" if due_ns is None else due_ns},"sent_ns":{"null" if sent_ns is None else sent_ns}}}'
    )


_quoted = lru_cache(maxsize=4096)(json.dumps)  # the same few names in millions of lines


def from_json_line(line: str) -> Frame:
    """The inverse of `to_json_line`. Raises ValueError for what is no such line."""
    try:
        frame = Frame(**json.loads(line))
    except (ValueError, TypeError) as problem:
        raise ValueError(f"not a line of a ledger: {problem}: {line[:200]!r}") from problem
    if tuple(map(type, frame)) not in _TYPES:
        raise ValueError(f"not a line of a ledger: a value of the wrong type: {line[:200]!r}")
    if frame.cause not in _CODE:
        raise ValueError(f"not a line of a ledger: no such cause as {frame.cause!r}: {line[:200]!r}")
    return frame


_NONE = type(None)
_TYPES = frozenset(
    (int, str, str, int, int, cause, bool, due, sent)
    for cause in (str, _NONE)
    for due in (int, _NONE)
    for sent in (int, _NONE)
)


def _text(words: str) -> bytes:
    text = words.encode()
    if len(text) > 0xFFFF:
        raise ValueError(f"a name of {len(text)} bytes does not fit into the ledger: {words[:80]!r}...")
    return text
