"""What an author writes: units, the format's models, every error at once. Pure: text in, Scenario or problems out.

The public names load on first use, so that `testbed.scenario.units` costs no YAML and no pydantic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from testbed.scenario.api import check, inspect, load, parse, text_of, unreadable
    from testbed.scenario.model import Scenario
    from testbed.scenario.printing import full

__all__ = ["Scenario", "check", "full", "inspect", "load", "parse", "text_of", "unreadable"]
_HOME = dict.fromkeys(__all__, "api") | {"Scenario": "model", "full": "printing"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
