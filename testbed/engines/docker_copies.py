"""What hosts are shown of the author's machine, for a Docker daemon: each directory as a copy in a volume.

The daemon may be on another machine, or see other files under the same path, as one in a virtual machine or a user
namespace does. A bind mount would then show something else, or an empty directory, and say nothing. It would also
show what is changed there meanwhile, and let programs answer through a socket that lies there. A copy is the same
everywhere: made before the first host starts, and what the file system was then.

Docker copies nothing into a mount that is read-only. So a container that does nothing, the keeper, has the volumes
with the right to write; and as they are in memory only while somebody uses them, it keeps them there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from testbed.engines.docker_client import Api, asking
from testbed.engines.docker_host import HOLD
from testbed.errors import HostError
from testbed.plan.types import Plan
from testbed.project.tree import below, listing, pack


def named(plan: Plan, name: Callable[[int], str]) -> dict[str, str]:
    """Directory of this machine -> the volume that it is copied into. Hosts that see the same one share a copy."""
    sources = dict.fromkeys(mount.source for host in plan.hosts for mount in host.mounts)
    return {source: name(number) for number, source in enumerate(sources)}


def keeper(api: Api, copies: dict[str, str]) -> dict[str, Any]:
    """Keyword arguments that make the keeper's container of our node image."""
    binds = [f"{volume}:{_place(number)}:rw" for number, volume in enumerate(copies.values())]
    config = api.create_host_config(
        network_mode="none", cap_drop=["ALL"], security_opt=["no-new-privileges=true"], binds=binds
    )
    return {"entrypoint": [HOLD], "detach": True, "host_config": config}


def fill(api: Api, keeper: str, copies: dict[str, str]) -> None:
    """Start the keeper and copy each directory into its volume. Raises HostError, EngineError."""
    with asking("starting the container that keeps directories for hosts"):
        api.start(keeper)
    for number, source in enumerate(copies):
        try:
            archive = pack(below(_place(number), listing(source, source, follow=False)), exact=True)
        except OSError as problem:
            at = problem.filename or source
            raise HostError(f"copying {source} for the hosts: {at}: {problem.strerror}") from problem
        with archive, asking(f"copying {source} into a volume"):
            api.put_archive(keeper, "/", archive)


def _place(number: int) -> str:
    return f"/volumes/{number}"
