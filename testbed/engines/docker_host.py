"""What a host is in Docker's words: the options of its container and of its network, from the plan. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from docker.types import DriverConfig, LogConfig, Mount, Ulimit
from docker.utils import version_lt

from testbed.engines.directories import WRITABLE
from testbed.limits import FILES, FILES_BYTES, MEMORY_BYTES, OOM_SCORE_ADJ, OPEN_FILES, PROCESSES
from testbed.plan.types import Host, Interface, Network

HOLD = "/opt/testbed/hold"  # in our node image
FOREIGN_HOLD = "/.testbed-hold"  # put into other images
NO_RESOLVER = "# no server: names are in /etc/hosts\n"

Named = Callable[[str], str]  # a name in the plan -> the name of its object in the daemon


def bridge_name(run: str, number: int) -> str:
    """The network's device on the daemon's machine: unique for the run, and within the kernel's 15 bytes."""
    return f"tb{run}n{number}"


def network_options(network: Network, bridge: str) -> dict[str, Any]:
    """For a bridge that leads nowhere else: no address translation out of it, and a device that we can name.

    What a daemon's own settings might change is said as well, so that a network is the same everywhere.
    """
    pools = [(network.subnet, network.gateway)]
    if network.subnet6 is not None:
        pools.append((network.subnet6, str(network.gateway6)))
    return {
        "driver": "bridge",
        "options": {
            "com.docker.network.bridge.name": bridge,
            "com.docker.network.bridge.enable_ip_masquerade": "false",
            "com.docker.network.bridge.enable_icc": "true",
            "com.docker.network.driver.mtu": "1500",
        },
        "ipam": {
            "Driver": "default",
            "Config": [
                {"Subnet": str(ipaddress.ip_network(subnet)), "Gateway": gateway} for subnet, gateway in pools
            ],
        },
        "enable_ipv6": network.subnet6 is not None,
    }


def in_use(network: Network, pools: Iterable[str]) -> str:
    """Which of the network's subnets overlaps one of `pools`. Docker only says that one does."""
    if network.subnet6 is not None:
        six = ipaddress.ip_network(network.subnet6)
        if any(six.version == (pool := ipaddress.ip_network(one)).version and six.overlaps(pool) for one in pools):
            return network.subnet6
    return network.subnet


def endpoint(interface: Interface, api_version: str) -> dict[str, Any]:
    """Its addresses; and its MAC where Docker can be asked for one on each network. Elsewhere its default is the
    plan's, and the agent sets it in any case."""
    asked = {"ipv4_address": interface.ip}
    if interface.ip6 is not None:
        asked["ipv6_address"] = interface.ip6
    return asked if version_lt(api_version, "1.44") else asked | {"mac_address": interface.mac}


def host_config(host: Host, named: Named, facts: Mapping[str, Any], copies: Mapping[str, str]) -> dict[str, Any]:
    """Keyword arguments of the SDK's create_host_config. `facts` as docker_inside gives them.

    `copies` are the volumes with what hosts are shown of the author's machine, by what is in them.
    """
    first = host.interfaces[0].network if host.interfaces else None
    files = min(OPEN_FILES, facts["open_files"]) if facts["open_files"] > 0 else OPEN_FILES
    limits = [Ulimit(name="nofile", soft=files, hard=files), Ulimit(name="core", soft=0, hard=0)]
    if foreign(host):  # its root is on the daemon's disk, where Docker limits nothing: one large file at least
        limits.append(Ulimit(name="fsize", soft=FILES_BYTES, hard=FILES_BYTES))
    return {
        "network_mode": named(first) if first else "none",
        "cap_drop": ["ALL"],
        "cap_add": list(host.capabilities),
        "security_opt": ["no-new-privileges:true"],
        "sysctls": at_creation(host.sysctls, facts["ipv6"]),
        "mem_limit": MEMORY_BYTES,
        "memswap_limit": MEMORY_BYTES,  # nothing is swapped out
        "pids_limit": PROCESSES,
        "oom_score_adj": OOM_SCORE_ADJ,
        "ulimits": limits,
        "shm_size": FILES_BYTES,
        "mounts": [] if foreign(host) else _writable(host),
        "binds": [
            *(f"{named(volume)}:{path}:rw" for volume, path in host.volumes),
            *(f"{copies[mount.source]}:{mount.path}:ro" for mount in host.mounts),
        ],
        "dns": ["127.0.0.1"],  # what asks Docker's own resolver all the same gets no further than the host
        "log_config": LogConfig(type="none"),
    }


def _writable(host: Host) -> list[Mount]:
    """Docker mounts one thing at a place, and there the scenario's volume is meant."""
    taken = {path.rstrip("/") for _, path in host.volumes} | {mount.path for mount in host.mounts}
    return [_in_memory(path, mode) for path, mode in WRITABLE.items() if path not in taken]


def foreign(host: Host) -> bool:
    """Whether its image is not ours: then it may write wherever its image lets it."""
    return host.image is not None or host.build is not None


def _in_memory(path: str, mode: int) -> Mount:
    """A file system of a limited size, as a volume without a name, which goes with its container.

    Not Docker's own kind of tmpfs: its way to copy files in and out does not see that one.
    """
    options = DriverConfig("local", volume_options(mode))
    return Mount(path, None, "volume", no_copy=True, driver_config=options)


def volume_options(mode: int = 0o755) -> dict[str, str]:
    """For the driver `local`: a tmpfs, mounted as long as a container uses it."""
    o = f"size={FILES_BYTES},nr_inodes={FILES},mode={mode:o},nosuid,nodev"
    return {"type": "tmpfs", "device": "tmpfs", "o": o}


def at_creation(sysctls: Mapping[str, str], ipv6: bool) -> dict[str, str]:
    """Those that Docker can set: of the network namespace, and there before any interface is."""

    def there(name: str) -> bool:
        part = name.split(".")
        of_interface = part[2:3] == ["conf"] and part[3:4] not in (["all"], ["default"], ["lo"])
        of_interface |= part[2:3] == ["neigh"] and part[3:4] not in (["default"], ["lo"])
        return part[0] == "net" and not of_interface and (ipv6 or part[1:2] != ["ipv6"])

    return {name: value for name, value in sysctls.items() if there(name)}
