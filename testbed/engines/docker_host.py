"""What a host is in Docker's words: the options of its container and of its network, from the plan. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from docker.types import DriverConfig, LogConfig, Mount, Ulimit
from docker.utils import version_lt

from testbed.directories import WRITABLE
from testbed.limits import FILES, FILES_BYTES, MEMORY_BYTES, OOM_SCORE_ADJ, OPEN_FILES, PROCESSES
from testbed.plan.types import Host, Interface, Network

HOLD = "/opt/testbed/hold"  # in our node image
FOREIGN_HOLD = "/.testbed-hold"  # put into other images
UNLIMITED = -1
NO_RESOLVER = "# no server: names are in /etc/hosts\n"

Named = Callable[[str], str]  # a name in the plan -> the name of its object in the daemon


def bridge_name(run: str, number: int) -> str:
    """The network's device on the daemon's machine: unique for the run, and within the kernel's 15 bytes."""
    return f"tb{run}n{number}"


def network_options(network: Network, bridge: str, api_version: str) -> dict[str, Any]:
    """For a bridge that leads nowhere else: no address translation out of it, and a device that we can name.

    What a daemon's own settings might change is said as well, so that a network is the same everywhere.
    """
    dual = "true" if network.subnet6 is not None else "false"
    options = {
        "com.docker.network.bridge.name": bridge,
        "com.docker.network.bridge.enable_ip_masquerade": "false",
        "com.docker.network.bridge.enable_icc": "true",
        "com.docker.network.bridge.inhibit_ipv4": "false",
        "com.docker.network.container_iface_prefix": "eth",
        "com.docker.network.driver.mtu": "1500",
    }
    if not version_lt(api_version, "1.46"):  # Docker 27
        options["com.docker.network.enable_ipv6"] = dual
        # From 28 on the machine drops what comes for a container by another network, through a host that forwards.
        mode = "nat" if version_lt(api_version, "1.48") else "nat-unprotected"
        options |= {f"com.docker.network.bridge.gateway_mode_ipv{version}": mode for version in (4, 6)}
    if not version_lt(api_version, "1.48"):
        options["com.docker.network.enable_ipv4"] = "true"
        options["com.docker.network.advertise_addr_nmsgs"] = "0"  # ARP unasked, three times, a second apart
    pools = [(network.subnet, network.gateway)]
    if network.subnet6 is not None:
        pools.append((network.subnet6, str(network.gateway6)))
    return {
        "driver": "bridge",
        "options": options,
        "ipam": {
            "Driver": "default",
            "Config": [
                {"Subnet": str(ipaddress.ip_network(subnet)), "Gateway": gateway} for subnet, gateway in pools
            ],
        },
        "enable_ipv6": network.subnet6 is not None,
    }


def not_as_asked(asked: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """What of `network_options` a daemon has not kept, as it shows the network; in words."""
    wanted: dict[str, Any] = {"EnableIPv4": True, "EnableIPv6": asked["enable_ipv6"]}
    have = {"EnableIPv4": True} | {name: found[name] for name in wanted if name in found}
    for name, value in asked["options"].items():
        if not name.startswith("com.docker.network.enable_ipv"):  # said by the two above, and so not kept
            wanted[name] = value
    have |= found.get("Options") or {}
    return [
        f"{name} was to be {value} and is {have.get(name)}"
        for name, value in wanted.items()
        if have.get(name) != value
    ]


def in_use(network: Network, pools: Iterable[str]) -> str:
    """Which of the network's subnets overlaps one of `pools`. Docker only says that one does."""
    if network.subnet6 is not None:
        six = ipaddress.ip_network(network.subnet6)
        if any(six.version == (pool := ipaddress.ip_network(one)).version and six.overlaps(pool) for one in pools):
            return network.subnet6
    return network.subnet


def endpoint(interface: Interface, api_version: str) -> dict[str, Any]:
    """Its addresses; and its MAC where Docker can be asked for one on each network.

    Versions 26 and 28 ignore it in silence for a network that is connected later. What counts is the agent, which
    sets it and reads it back.
    """
    asked = {"ipv4_address": interface.ip}
    if interface.ip6 is not None:
        asked["ipv6_address"] = interface.ip6
    return asked if version_lt(api_version, "1.44") else asked | {"mac_address": interface.mac}


def host_config(host: Host, named: Named, facts: Mapping[str, Any], copies: Mapping[str, str]) -> dict[str, Any]:
    """Keyword arguments of the SDK's create_host_config. `facts` as docker_inside gives them.

    `copies` are the volumes with what hosts are shown of the author's machine, by what is in them.
    """
    first = host.interfaces[0].network if host.interfaces else None
    # Of another image the root is on the daemon's disk, where Docker limits nothing: one large file at least.
    limits = ulimits(facts, {"fsize": FILES_BYTES} if foreign(host) else {})
    return {
        "network_mode": named(first) if first else "none",
        "cap_drop": ["ALL"],
        "cap_add": list(host.capabilities),
        "security_opt": ["no-new-privileges=true"],  # with a colon, 28 warns of it
        "sysctls": at_creation(host.sysctls, facts["ipv6"]),
        "mem_limit": MEMORY_BYTES,
        "memswap_limit": MEMORY_BYTES,  # nothing is swapped out
        "pids_limit": PROCESSES,
        "oom_score_adj": OOM_SCORE_ADJ,
        "ulimits": limits,
        "shm_size": FILES_BYTES,
        "ipc_mode": "private",
        "init": False,
        "mounts": [] if foreign(host) else _writable(host),
        "binds": [
            *(f"{named(volume)}:{path}:rw" for volume, path in host.volumes),
            *(f"{copies[mount.source]}:{mount.path}:ro" for mount in host.mounts),
        ],
        "dns": ["127.0.0.1"],  # what asks Docker's own resolver all the same gets no further than the host
        "log_config": LogConfig(type="none"),
    }


def ulimits(facts: Mapping[str, Any], more: Mapping[str, int]) -> list[Ulimit]:
    """Stated, because else those of the daemon for all containers hold; never above what can be had."""
    return [Ulimit(name=name, soft=limit, hard=limit) for name, limit in _limits(facts, more).items()]


def lacks(facts: Mapping[str, Any]) -> bool:
    """Whether the agent was given less than it could have."""
    return any(_smaller(facts["ulimits"][name][0], limit) != limit for name, limit in _limits(facts, {}).items())


def _limits(facts: Mapping[str, Any], more: Mapping[str, int]) -> dict[str, int]:
    wanted = {"nofile": OPEN_FILES, "core": 0, "fsize": UNLIMITED, "cpu": UNLIMITED, "data": UNLIMITED, **more}
    return {name: _smaller(limit, facts["ulimits"][name][1]) for name, limit in wanted.items()}


def _smaller(one: int, other: int) -> int:
    return max(one, other) if UNLIMITED in (one, other) else min(one, other)


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
