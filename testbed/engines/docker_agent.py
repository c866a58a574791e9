"""The agent's container in Docker's words: its program, its capabilities, and what is tried where. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from testbed.engines import docker_host
from testbed.engines.launchers import LIBRARY

CAPABILITIES = (
    "NET_ADMIN", "NET_RAW", "SYS_ADMIN", "SYS_CHROOT", "SYS_PTRACE", "KILL", "SYS_NICE", "DAC_READ_SEARCH",
)  # fmt: skip
# What docker_inside finds out is the first line that comes from the agent: a process of its own takes 0.15 s.
AGENT = f"""
import json, sys
sys.path.insert(0, {LIBRARY!r})
inside = {{"__name__": "inside"}}
exec(sys.argv[1], inside)
print(json.dumps(inside["facts"]()), flush=True)
from testbed.agent.__main__ import main
sys.exit(main())
"""
# A kernel with CONFIG_RT_GROUP_SCHED lets nobody have SCHED_FIFO whose control group has no share of it, and with
# version 1 only a child of the root can get one. In short periods, so that who uses up its share waits 1 ms.
REAL_TIME = {"cgroup_parent": "/", "cpu_rt_period": 10_000, "cpu_rt_runtime": 9_000}


def attempts(info: Mapping[str, Any], facts: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """What of create_host_config differs from daemon to daemon: the next is for where the one before is refused.

    `info` as the daemon gives it; `facts` as docker_inside does, of an agent that was there before.
    """
    security = " ".join(info["SecurityOptions"] or [])
    options: dict[str, Any] = {"security_opt": [], "cap_add": list(CAPABILITIES)}
    options["security_opt"] += ["apparmor=unconfined"] if "name=apparmor" in security else []
    options["security_opt"] += ["label=disable"] if "name=selinux" in security else []
    if facts is not None:
        options["ulimits"] = docker_host.ulimits(facts, {})
    # A kernel or a daemon may be without it: the wire is then a bit later, and says so.
    return [options | REAL_TIME, options] if info.get("CgroupVersion", "1") == "1" else [options]
