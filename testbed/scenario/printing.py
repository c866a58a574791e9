"""A scenario in full notation: the same file without any short form."""

from __future__ import annotations

from typing import Any

import yaml

from testbed.scenario.model import Scenario


def full(scenario: Scenario) -> str:
    """YAML that loads again to an equal Scenario. Comments and `x-` keys are not part of a Scenario."""
    data = _plain(scenario.model_dump(by_alias=True))
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=110)


def _plain(data: Any) -> Any:
    """Only what YAML knows: text that stood in a file knows its place, and tuples are lists."""
    if isinstance(data, dict):
        return {str(key): _plain(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_plain(value) for value in data]
    return str(data) if isinstance(data, str) else data
