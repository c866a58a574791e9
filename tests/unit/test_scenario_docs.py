"""docs/format.md names every key, reserved word, unit and limit that there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import testbed
from testbed.scenario import api, links, model, semantics, units, values
from testbed.scenario.fields import Part

TEXT = (Path(testbed.__file__).parents[1] / "docs/format.md").read_text()
PROSE = re.sub(r"^```.*?^```$|``.*?``", "", TEXT, flags=re.MULTILINE | re.DOTALL)
CODE = set(re.findall(r"[A-Za-z0-9_/%]+", " ".join(re.findall(r"`([^`]+)`", PROSE))))
PARTS = [
    part for part in vars(model).values() if isinstance(part, type) and issubclass(part, Part) and part is not Part
]


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__name__)
def test_every_key_is_there(part: type[Part]) -> None:
    assert set(part.known()) <= CODE
    assert part.later <= CODE


def test_every_unit_and_state_and_requirement_is_there() -> None:
    assert set(units.UNITS) <= CODE
    assert {"ready", "started", "ended", "uniform", "normal"} <= CODE
    assert {"docker", "namespaces", "root", "netem", "sctp", "ipv6", "bbr"} <= CODE


def test_the_limits_are_the_ones_in_the_code() -> None:
    limits = (
        f"{values.MOST_HOSTS:,} hosts, {semantics.MOST_PROGRAMS:,} programs, {semantics.MOST_NETWORKS} networks, "
        f"{links.MOST_LINKS:,} links (each way of a pair is one), "
    )
    assert limits + f"{api.MOST_SABOTEURS} saboteurs" in " ".join(TEXT.split())


def test_every_word_that_is_no_name_is_there() -> None:
    assert values.TAKEN_NAMES <= CODE
