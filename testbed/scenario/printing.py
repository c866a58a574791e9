"""A scenario in full notation: the same file without any short form."""

from __future__ import annotations

import re
from typing import Any

import yaml

from testbed.scenario.fields import READ_DIFFERENTLY
from testbed.scenario.model import Scenario


def full(scenario: Scenario) -> str:
    """YAML that loads again to an equal Scenario. Comments and `x-` keys are not part of a Scenario."""
    data = _plain(scenario.model_dump(by_alias=True))
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def _plain(data: Any) -> Any:
    """Only what YAML knows: text that stood in a file knows its place, and tuples are lists."""
    if isinstance(data, dict):
        return {str(key): _plain(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_plain(value) for value in data]
    return str(data) if isinstance(data, str) else data


_ODD = re.compile(r"[^\n\x20-\x7e\xa0-\u2027\u202a-\ud7ff]")  # line ends and controls that PyYAML folds or drops


class _Dumper(yaml.SafeDumper):
    """Quotes what we refuse without quotes; PyYAML knows most of it, but neither `089` nor `1:99`."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "'" if READ_DIFFERENTLY.fullmatch(text) else '"' if _ODD.search(text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)
