"""The JSON Schema in the package is the one that the models make, and editors agree with us on real files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

import testbed
from testbed.scenario import full, load
from testbed.scenario.schema import text

SHIPPED = Path(testbed.__file__).with_name("scenario.schema.json")
SCENARIOS = sorted(Path(testbed.__file__).parents[1].glob("scenarios/**/*.yaml"))
VALIDATOR = jsonschema.Draft202012Validator(json.loads(SHIPPED.read_text()))


def complaints(data: Any) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in VALIDATOR.iter_errors(data)]


def test_the_shipped_schema_is_made_from_the_models() -> None:
    assert SHIPPED.read_text() == text(), "run: python -m testbed.scenario.schema > testbed/scenario.schema.json"


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(VALIDATOR.schema)


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_every_scenario_file_is_valid_in_both_notations(path: Path) -> None:
    assert complaints(yaml.safe_load(path.read_text())) == []
    assert complaints(yaml.safe_load(full(load(path)))) == []


def test_there_are_scenario_files() -> None:
    assert len(SCENARIOS) >= 6


SOUND: dict[str, Any] = {"testbed": 1, "hosts": {"a": {"run": "x"}}}


@pytest.mark.parametrize(
    "more",
    [
        {"x-mine": [1, {"a": None}]},
        {"networks": {"lan": None, "wan": {"subnet": "198.18.7.0/24"}}},
        {"volumes": {"v": None}},
        {"links": {"a->b": None, "a <-> b over lan": {"delay": "2ms", "jitter": "1 ms"}, "lan": {}}},
        {"expect": ["a.exit == 0", {"that": "a.exit == 0", "because": "so"}]},
        {"ends": {"fail": "x"}},
        {"hosts": {"a": None, "b": {"programs": {"p": {"run": ["x", 1]}}}, "c": {"image": "x"}}},
        {"hosts": {"a": {"serve": "x", "ready": {"listens": [80, "udp 53"]}, "files": ["a"], "stdin": "b"}}},
        {"hosts": {"a": {"run": "x", "files": {"a": "b", "c": {"text": "d"}}, "after": {"b": "started"}}}},
        {"hosts": {"a": {"run": "x", "networks": {"lan": {"address": "1.2.3.4"}}, "environment": {"A": 1}}}},
        {"requires": ["docker", "cpus:4"]},
        {"fails_when": {"anything": {"hosts": {"a": None}}}},
    ],
    ids=str,
)
def test_short_and_full_forms_are_valid(more: dict[str, Any]) -> None:
    assert complaints({**SOUND, **more}) == []


@pytest.mark.parametrize(
    "more",
    [
        {"testbed": 2},
        {"hsots": {}},
        {"hosts": {"A": {"run": "x"}}},
        {"hosts": {"a": {"run": "x", "programs": {}}}},
        {"hosts": {"a": {"timeout": "5 s"}}},
        {"hosts": {"a": {"programs": {"p": {"run": "x", "serve": "y"}}}}},
        {"hosts": {"a": {"programs": {"p": {}}}}},
        {"hosts": {"a": {"run": "x", "timeout": 5}}},
        {"links": {"a -> b": {"latency": "5 ms"}}},
        {"links": {"a to b": {}}},
        {"links": {"a -> b": {"rate": "10 Mbps"}}},
        {"links": {"a -> b": {"reorder": "5 %"}}},
        {"networks": {"lan": {"mtu": 9000}}},
        {"expect": [{"because": "x"}]},
        {"expect": "a.exit == 0"},
        {"ends": "fail"},
        {"seed": -1},
        {"requires": ["dokcer"]},
    ],
    ids=str,
)
def test_what_is_wrong_is_wrong_in_an_editor_too(more: dict[str, Any]) -> None:
    assert complaints({**SOUND, **more}) != []


@pytest.mark.parametrize("missing", ["testbed", "hosts"])
def test_what_is_required(missing: str) -> None:
    assert complaints({key: value for key, value in SOUND.items() if key != missing}) != []


def test_every_key_of_the_schema_says_what_it_is_for_or_is_plain() -> None:
    plain = {"testbed", "hosts", "tags", "expect", "environment", "cap_add", "cap_drop", "sysctls", "programs"}
    plain |= {"text", "that", "ratio", "distribution"}
    bare = set()
    for definition in [VALIDATOR.schema, *VALIDATOR.schema["$defs"].values()]:
        for form in definition.get("anyOf", [definition]):
            bare |= {key for key, value in form.get("properties", {}).items() if "description" not in value}
    assert bare <= plain
