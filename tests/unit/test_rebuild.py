"""Plans and records out of JSON: what is missing, unknown or of another type is named by its place."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import pytest

from testbed.rebuild import LARGEST, rebuild


@dataclass
class Leaf:
    n: int
    ratio: float = 0.5
    word: Literal["a", "b"] = "a"
    maybe: int | str | None = None


@dataclass
class Tree:
    leaves: tuple[Leaf, ...]
    pairs: list[tuple[str, bool]]
    names: dict[str, Leaf] = field(default_factory=dict)
    anything: Any = None
    content: bytes = b""


TREE = Tree((Leaf(1), Leaf(-2, 1, "b", "x")), [("yes", True)], {"one": Leaf(3, maybe=4)}, [{"x": None}], b"given")


def plain() -> dict[str, Any]:
    data = asdict(TREE)
    del data["content"]
    return dict(json.loads(json.dumps(data)))


def test_there_and_back() -> None:
    assert rebuild(Tree, plain(), content=b"given") == TREE


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"leaves": {}}, "leaves: a list belongs there, and not {}"),
        ({"leaves": [3]}, "leaves.0: an object belongs there, and not 3"),
        ({"leaves": [{"n": 1, "ratio": 0, "word": "a"}]}, "leaves.0.maybe: it is missing"),
        ({"leaves": [asdict(Leaf(1)) | {"more": 1}]}, "leaves.0.more: this version knows no such key"),
        ({"leaves": [asdict(Leaf(1)) | {"n": True}]}, "leaves.0.n: a whole number belongs there, and not True"),
        ({"leaves": [asdict(Leaf(1)) | {"n": 1.0}]}, "leaves.0.n: a whole number belongs there, and not 1.0"),
        (
            {"leaves": [asdict(Leaf(1)) | {"n": LARGEST}]},
            "leaves.0.n: a whole number belongs there, and not a number",
        ),
        (
            {"leaves": [asdict(Leaf(1)) | {"ratio": float("nan")}]},
            "leaves.0.ratio: a number belongs there, and not",
        ),
        ({"leaves": [asdict(Leaf(1)) | {"word": "c"}]}, "leaves.0.word: one of ('a', 'b') belongs there"),
        ({"leaves": [asdict(Leaf(1)) | {"maybe": []}]}, "leaves.0.maybe: a text belongs there, and not []"),
        ({"pairs": [["yes"]]}, "pairs.0: a list of 2 belongs there, and not ['yes']"),
        ({"pairs": [["yes", 1]]}, "pairs.0.1: true or false belongs there, and not 1"),
        ({"names": {"one": None}}, "names.one: an object belongs there, and not None"),
        ({"content": "given twice"}, "content: this version knows no such key"),
    ],
)
def test_what_is_wrong_is_named_by_its_place(change: dict[str, Any], said: str) -> None:
    with pytest.raises(TypeError) as caught:
        rebuild(Tree, plain() | change, content=b"given")
    assert str(caught.value).startswith(said)
