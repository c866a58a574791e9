"""From a Scenario to a Plan: every address, route, link and start decided. Pure; no root, no Docker.

The functions load on first use: hosts and tools that only read plans need neither pydantic nor yaml.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from testbed.plan.types import (
    PLAN_FORMAT,
    Ends,
    Expectation,
    File,
    Host,
    Interface,
    Link,
    Metric,
    Mount,
    Neighbour,
    Network,
    Plan,
    Program,
    Ready,
    Route,
)

if TYPE_CHECKING:
    from testbed.plan.planner import build
    from testbed.plan.planner import build as plan
    from testbed.plan.printed import render

__all__ = [
    "PLAN_FORMAT",
    "Ends",
    "Expectation",
    "File",
    "Host",
    "Interface",
    "Link",
    "Metric",
    "Mount",
    "Neighbour",
    "Network",
    "Plan",
    "Program",
    "Ready",
    "Route",
    "build",
    "plan",
    "render",
]
_HOME = {"build": ("planner", "build"), "plan": ("planner", "build"), "render": ("printed", "render")}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    module, function = _HOME[name]
    return getattr(import_module(f"{__name__}.{module}"), function)
