"""What a plan leaves to the images of its hosts, filled in once the engine has asked them. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, replace

from testbed.errors import HostError
from testbed.plan.types import OF_THE_IMAGE, Plan, Program


@dataclass(frozen=True)
class Image:
    """What the image of a host says of the programs in it."""

    name: str
    argv: tuple[str, ...]  # its ENTRYPOINT and CMD: what it serves by itself
    working_dir: str
    path: str  # PATH
    stop_signal: str  # "SIGTERM"


def completed(plan: Plan, images: Mapping[str, Image]) -> Plan:
    """The plan with nothing left open. `images`: of each host whose image is not ours.

    Raises HostError where an image has nothing to serve.
    """
    return replace(
        plan,
        programs=tuple(
            _completed(program, images[program.host]) if program.host in images else program
            for program in plan.programs
        ),
    )


def _completed(program: Program, image: Image) -> Program:
    """A program of the author's keeps the PATH of the image unless it has its own; so everybody can look it up."""
    program = replace(program, environment={"PATH": image.path, **program.environment})
    if program.argv:
        return program
    if not image.argv:
        raise HostError(
            f"starting what the image {image.name} of host {program.host} serves: it has neither ENTRYPOINT nor "
            "CMD; give the host a program with `serve` or `run`"
        )
    home = program.working_dir or image.working_dir
    return replace(
        program,
        argv=image.argv,
        working_dir=home,
        stop_signal=image.stop_signal if program.stop_signal == OF_THE_IMAGE else program.stop_signal,
        files=tuple(replace(file, target=posixpath.join(home, file.target)) for file in program.files),
        collect=tuple(posixpath.join(home, path) for path in program.collect),
        metrics=tuple(
            replace(metric, file=None if metric.file is None else posixpath.join(home, metric.file))
            for metric in program.metrics
        ),
    )
