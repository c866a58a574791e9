"""What a host of a real engine may do and what it is made of, read in the host itself: one baseline for both.

The design's: no capability but those that the scenario names, no new privileges, a root that is read-only beside a
few directories of a limited size, the plan's kernel settings, and the plan's routes with nothing beside them.
"""

from __future__ import annotations

import errno
import ipaddress
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testbed import limits
from testbed.agent.baseline import link_local
from testbed.directories import WRITABLE
from testbed.limits import FILES_BYTES, OOM_SCORE_ADJ, OPEN_FILES
from testbed.linux import CAPABILITIES
from testbed.plan.types import Host
from tests.conftest import missing
from tests.contract.labs import Lab, MakeEngine, lab
from tests.parcel import put

TEXT = """
testbed: 1
about: A host on every kind of network, with a way to the wire, and one that may do more than others.
duration: 1 s
networks: {plain: , left: {ip: dual}, right: {ip: dual}}
volumes: {spool: }
hosts:
  a: {networks: [plain], volumes: [spool:/spool]}
  b: {networks: [plain, left, right], volumes: [spool:/spool]}
  c: {networks: [left], volumes: [spool:/spool], cap_add: [NET_RAW, NET_ADMIN]}
links: {a <-> b: {delay: 1 ms}, b <-> c: {delay: 1 ms}}
"""
HOSTS = ("a", "b", "c")
SCRIPTS = ("look.py", "attack.py", "limits_seen.py")
# Network is unreachable; of IPv6, Cannot assign requested address (no route has one to give) or not supported.
NO_WAY = (b"[Errno 101]", b"[Errno 99]", b"[Errno 97]")
# Beside the directories of WRITABLE, what can be written of the kernel's own, none of it a place for files.
KERNELS = {"docker": {"/proc", "/dev/pts", "/dev/mqueue"}, "namespaces": {"/proc", "/dev/pts"}}


@pytest.fixture(scope="module")
def up(real_engine: MakeEngine) -> Iterator[Lab]:
    with lab(real_engine, TEXT) as made:
        for host in HOSTS:
            scripts = [(f"/scenario/{name}", Path(__file__).with_name(name).read_bytes()) for name in SCRIPTS]
            put(made.engine, host, *scripts)
        yield made


def run(up: Lab, host: str, script: str, *words: str) -> Any:
    running = up.command(host, ("python3", f"/scenario/{script}", *words))
    assert running.process.wait(30) and running.exit == 0, running.err
    return json.loads(running.out)


@pytest.fixture(scope="module")
def seen(up: Lab) -> dict[str, dict[str, Any]]:
    return {host: run(up, host, "look.py", *up.plan.host(host).sysctls) for host in HOSTS}


@pytest.mark.parametrize("host", HOSTS)
def test_a_host_has_the_capabilities_of_the_plan_and_can_gain_none(up: Lab, seen: Any, host: str) -> None:
    status = seen[host]["status"]
    mask = sum(1 << CAPABILITIES.index(name) for name in up.plan.host(host).capabilities)
    assert {name: int(status[f"Cap{name}"], 16) for name in ("Prm", "Eff", "Bnd")} == dict.fromkeys(
        ("Prm", "Eff", "Bnd"), mask
    )
    assert {int(status[f"Cap{name}"], 16) for name in ("Inh", "Amb")} <= {0, mask}
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2", "a filter: Docker's own, or ours"
    assert status["Uid"].split() == status["Gid"].split() == ["0"] * 4 and status["Groups"] in ("", "0")


@pytest.mark.parametrize("host", HOSTS)
def test_a_host_can_write_where_it_is_said_and_nowhere_else(up: Lab, seen: Any, host: str) -> None:
    files = {*WRITABLE, "/dev/shm", "/spool"}
    mounts = seen[host]["mounts"]
    assert set(seen[host]["written"]) == files
    assert {point for point, found in mounts.items() if found["writable"]} == files | KERNELS[up.engine.name]
    for point in files:
        assert {"nosuid", "nodev"} <= set(mounts[point]["options"]), point
        assert (mounts[point]["kind"], mounts[point]["bytes"]) == ("tmpfs", FILES_BYTES), point
    assert {"nosuid", "nodev"} <= set(mounts["/"]["options"])
    assert mounts["/proc/sys"]["kind"] == "proc" and mounts["/sys"]["kind"] == "sysfs"


@pytest.mark.parametrize("host", HOSTS)
def test_every_kernel_setting_is_the_plans(up: Lab, seen: Any, host: str) -> None:
    planned = {name: " ".join(value.split()) for name, value in up.plan.host(host).sysctls.items()}
    found = seen[host]["sysctls"]
    if not any(name.startswith("net.ipv6") for name in found):  # a kernel without IPv6 has what is asked for
        planned = {name: value for name, value in planned.items() if not name.startswith("net.ipv6")}
    if os.geteuid() != 0:  # groups have no numbers in a user's namespace: the agent tries that nobody may
        assert found["net.ipv4.ping_group_range"] == "65534 65534"
        planned["net.ipv4.ping_group_range"] = "65534 65534"
    assert found == planned


@pytest.mark.parametrize("host", HOSTS)
def test_the_routes_are_the_plans_and_no_other(up: Lab, seen: Any, host: str) -> None:
    planned = up.plan.host(host)
    every = seen[host]["routes"] + seen[host]["routes6"]
    assert not [r for r in every if r["dst"] == "default" or "gateway" in r or "nexthops" in r or "via" in r]
    found = {(r.get("table", "main"), r.get("type", "unicast"), prefix(r["dst"]), r["dev"]) for r in every}
    assert found - of_old_kernels(planned) == expected(planned)
    assert {link["ifname"] for link in seen[host]["links"]} == {
        "lo",
        "w0",
        *(nic.name for nic in planned.interfaces),
    }


def expected(host: Host) -> set[tuple[str, str, str, str]]:
    """Table, kind, where to, by which interface: what the plan names, and the kernel's own for its addresses."""
    found = {("local", "local", to, "lo") for to in ("127.0.0.0/8", "127.0.0.1/32")}
    found |= {("local", "broadcast", "127.255.255.255/32", "lo")}
    for nic in host.interfaces:
        network = ipaddress.ip_interface(f"{nic.ip}/{nic.prefix_bits}").network
        found |= {("local", "local", f"{nic.ip}/32", nic.name)}
        found |= {("local", "broadcast", f"{network.broadcast_address}/32", nic.name)}
        if nic.ip6:
            own = {nic.ip6, link_local(nic.mac)}
            found |= {("local", "local", f"{ip}/128", nic.name) for ip in own} | {
                ("local", "local", "::1/128", "lo")
            }
            found |= {("local", "multicast", "ff00::/8", nic.name)}
    for route in host.routes:
        if route.to != "ff00::/8":  # the kernel's own, in front of which the plan's stands
            found |= {("main", "unicast", prefix(route.to), route.dev)}
    return found


def of_old_kernels(host: Host) -> set[tuple[str, str, str, str]]:
    """Until 5.14 the first address of each network was a broadcast address too; and ::1 is also a way out."""
    own = [(ipaddress.ip_interface(f"{nic.ip}/{nic.prefix_bits}"), nic.name) for nic in host.interfaces]
    firsts = {(str(address.network[0]), name) for address, name in own}
    known = {("local", "broadcast", f"{ip}/32", dev) for ip, dev in firsts | {("127.0.0.0", "lo")}}
    return known | {("main", "unicast", "::1/128", "lo")}


def prefix(text: str) -> str:
    return str(ipaddress.ip_network(text))


@pytest.mark.parametrize("host", HOSTS)
def test_what_a_process_may_use_up_is_limited(seen: Any, host: str) -> None:
    soft, hard = seen[host]["open_files"]
    assert 1024 <= soft == hard <= OPEN_FILES
    assert seen[host]["core"] == [0, 0] and seen[host]["oom_score_adj"] == OOM_SCORE_ADJ


@pytest.mark.parametrize("host", HOSTS)
def test_a_host_sees_its_own_limits_and_can_change_none(up: Lab, host: str) -> None:
    """Or a runtime that sizes itself by them would take the machine's memory for its own."""
    if why := up.engine.describe().get("no_control_groups"):
        missing("cgroups", why)
    seen = run(up, host, "limits_seen.py")
    assert seen["own"] == seen["usual"] == {"memory": limits.MEMORY_BYTES, "pids": limits.PROCESSES}
    assert seen["below"] == [], "the groups of others"
    assert seen["changed"] == []


def test_more_than_is_collected_is_refused_however_little_of_it_is_there(
    up: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    if up.engine.name == "docker":  # which sends the holes too, and that takes its time
        monkeypatch.setattr(limits, "COLLECTED_BYTES", 1 << 20)
    made = up.command("a", ("truncate", "-s", str(limits.COLLECTED_BYTES + 1), "/var/tmp/holes"))
    assert made.process.wait(10) and made.exit == 0
    with pytest.raises(OSError, match="the most that is collected") as raised:
        up.engine.get("a", "/var/tmp/holes")
    assert raised.value.errno == errno.EFBIG
    with pytest.raises(FileNotFoundError):
        up.engine.get("a", "/var/tmp/nothing")


@pytest.mark.parametrize("host", ("a", "c"))
def test_a_host_can_change_nothing_of_the_machine_nor_what_it_is_made_of(up: Lab, host: str) -> None:
    found = run(up, host, "attack.py")
    assert len(found) > 10 and {name for name, said in found.items() if said == "done"} == set()
    again = run(up, host, "look.py")
    assert set(again["written"]) == {*WRITABLE, "/dev/shm", "/spool"}


@pytest.mark.parametrize("host", HOSTS)
def test_every_interface_has_the_hardware_address_of_the_plan(up: Lab, host: str) -> None:
    """Docker may have been asked for it in vain: 26 and 28 do not heed that where a network is connected later."""
    nics = up.plan.host(host).interfaces
    running = up.command(host, ("cat", *(f"/sys/class/net/{nic.name}/address" for nic in nics)))
    assert running.process.wait(30) and running.exit == 0, running.err
    assert running.out.decode().split() == [nic.mac for nic in nics]


@pytest.mark.parametrize("address", ("192.0.2.1", "8.8.8.8", "2001:db8::1"))
def test_the_outside_cannot_be_reached(up: Lab, address: str) -> None:
    for host in HOSTS:
        asked = up.run(host, "ask", address, "53")
        assert asked.exit == 3 and asked.err.startswith(NO_WAY), asked.err
