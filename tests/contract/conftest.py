"""The engines that the contract suite holds to the same promises; what is not here is skipped by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.engines import fake
from testbed.engines.choose import maker
from testbed.project.root import Project
from tests.contract.labs import MakeEngine


@pytest.fixture(params=["fake", "namespaces", "docker"], scope="module")
def new_engine(request: pytest.FixtureRequest) -> MakeEngine:
    """A maker of engines of one kind."""
    return fake.FakeEngine if request.param == "fake" else _real(request)


@pytest.fixture(params=["namespaces", "docker"], scope="module")
def real_engine(request: pytest.FixtureRequest) -> MakeEngine:
    """The same of engines with a kernel."""
    return _real(request)


def _real(request: pytest.FixtureRequest) -> MakeEngine:
    request.getfixturevalue("namespaces_work" if request.param == "namespaces" else "docker_daemon")
    return lambda: maker(request.param, lambda _: None)(Project.around(Path.cwd()))
