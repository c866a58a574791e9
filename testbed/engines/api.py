"""What an engine is: where hosts come from. The whole surface, and nothing of any one engine.

The order of a run: `open`, `taken`, `up`, `images`, `put`, `start`..., `get`..., `down`. The agent reaches into
hosts by process id, so an engine hands out ids as the agent sees them and knows nothing of conditions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

from testbed.plan.images import Image
from testbed.plan.types import Plan


class Channel(Protocol):
    """A duplex of lines to the agent. Closing it, or our death, is the agent's end of input."""

    def write(self, line: bytes) -> None:
        """Send one line, newline included. Raises EngineError if the agent is gone."""

    def readline(self) -> bytes:
        """Block for one line; b"" when the agent is gone."""

    def close(self) -> None: ...


@dataclass(frozen=True)
class Command:
    """What to run in a host. `environment` is complete: nothing of the caller's is added."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    working_dir: str = "/scenario"
    user: str | None = None
    stdin: bytes = b""


class Process(Protocol):
    """A program that was started. Signals go through the agent, by `pid`."""

    pid: int  # as the agent sees it; valid while `exit` is None
    started_ns: int  # monotonic

    @property
    def exit(self) -> int | str | None:
        """None while it runs; 0..255; or the name of the signal that ended it ("SIGKILL").

        Set only after all of its output was handed over.
        """

    @property
    def ended_ns(self) -> int | None:
        """Monotonic time of the end, None while it runs."""

    def wait(self, timeout_s: float) -> bool:
        """True if it has ended within the time."""


Sink = Callable[[bytes], None]


class Engine(Protocol):
    name: str

    def open(self) -> Channel:
        """Make ready whatever ties the run's life to ours, start the agent, and return its channel."""

    def taken(self) -> frozenset[str]:
        """Subnets that cannot be used, in CIDR form."""

    def up(self, plan: Plan, shut_door: Callable[[list[str]], None]) -> dict[str, int]:
        """Build networks and holding hosts; return each host's process id as the agent sees it.

        `shut_door(bridges)` is called with the bridge devices of networks that the machine itself could reach,
        before any host exists on them. The sources of mounts are real paths here, of directories that were looked
        at. Raises AddressTaken when a subnet clashes (plan again with one more taken, then call again). Whatever
        else goes wrong, what was built is gone before it raises.
        """

    def images(self, plan: Plan) -> dict[str, Image]:
        """By host, what the images say that are not ours; the hosts are up."""

    def put(self, host: str, archive: BinaryIO) -> None:
        """Unpack a tar archive at the root of a host, making directories on the way.

        `archive` is an open file with a descriptor, read from where it stands. All that is new belongs to root.
        """

    def get(self, host: str, path: str) -> bytes:
        """A path out of a host, file or directory, as a tar archive.

        Raises FileNotFoundError, and OSError (EFBIG) for more than limits.COLLECTED_BYTES.
        """

    def start(self, host: str, command: Command, stdout: Sink, stderr: Sink) -> Process:
        """Run a command in a host. Raises CommandNotFound; anything else that fails is EngineError."""

    def entrance(self, host: str) -> str:
        """A shell command that enters the host from another terminal, for `--keep`."""

    def describe(self) -> dict[str, Any]:
        """Versions and limits, for the records."""

    def down(self) -> None:
        """Remove all that was made, however far it came. Never raises for what is gone already."""


class AddressTaken(Exception):
    """A subnet of the plan is in use; `subnet` is in CIDR form."""

    def __init__(self, subnet: str) -> None:
        self.subnet = subnet
        super().__init__(f"{subnet} is in use")
