"""Which engine a run gets, and why. The reason is printed first and recorded."""

from __future__ import annotations

from collections.abc import Callable, Collection

from testbed.engines.api import Engine
from testbed.errors import HostError
from testbed.project.root import Project

NAMES = ("auto", "docker", "namespaces")

NewEngine = Callable[[Project], Engine]


def choose(name: str, requires: Collection[str] = ()) -> tuple[str, str]:
    """The engine's name and the reason. `auto` takes Docker if a daemon answers, else namespaces.

    A scenario that requires namespaces gets them under `auto`; one that requires docker where there is none is
    skipped on namespaces, for that reason. Raises HostError for an unknown name.
    """
    if name not in NAMES:
        raise HostError(f"choosing an engine: there is no {name!r}; there are {', '.join(NAMES)}")
    if name != "auto":
        return name, "asked for"
    if "namespaces" in requires:
        return "namespaces", "the scenario requires it"
    from testbed.engines.docker import daemon_answers  # the SDK takes 0.2 s to import

    answers, why = daemon_answers()
    return ("docker", why) if answers else ("namespaces", why.partition(";")[0])  # what to try is the doctor's


def maker(name: str, say: Callable[[str], None]) -> NewEngine:
    """What makes a new engine of that name for each run; `say` hears of slow steps such as building an image."""
    if name == "docker":
        from testbed.engines.docker import DockerEngine

        return lambda project: DockerEngine(project, say)
    from testbed.engines.namespaces import NamespacesEngine

    return lambda project: NamespacesEngine(keep_visible=(str(project.root),))
