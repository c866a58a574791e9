"""Files for an engine, from their contents."""

from __future__ import annotations

from testbed.engines.api import Engine
from testbed.project.tree import pack


def put(engine: Engine, host: str, *files: tuple[str, bytes]) -> None:
    """Write files (absolute path in the host, content) into a host."""
    with pack(files) as archive:
        engine.put(host, archive)
