"""What a host and a network are in Docker's words."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from testbed.directories import WRITABLE
from testbed.engines import docker_host, docker_inside
from testbed.engines.docker_host import (
    at_creation,
    bridge_name,
    endpoint,
    host_config,
    in_use,
    network_options,
    not_as_asked,
)
from testbed.limits import FILES_BYTES
from testbed.plan.types import Host, Interface, Mount, Network

NIC = Interface("eth0", "lan", "198.18.0.2", 24, "02:42:c6:12:00:02")
HOST = Host(
    "sensor", None, 1, None, None, (NIC,),
    (("127.0.0.1", ("localhost",)), ("198.18.0.2", ("sensor", "sensor.lan"))),
    (), (), {"net.ipv4.tcp_no_metrics_save": "1"}, ("NET_RAW",), (("spool", "/var/spool"),), ("sensor.probe",),
)  # fmt: skip
LAN = Network("lan", "198.18.0.0/24", "198.18.0.1")
LIMITS = {"nofile": (1048576, 1048576), "core": (-1, -1), "fsize": (-1, -1), "cpu": (-1, -1), "data": (-1, -1)}
FACTS: dict[str, Any] = {"routes": [], "ulimits": LIMITS, "ipv6": True}


def named(name: str) -> str:
    return f"testbed-r-{name}"


def test_a_host_has_what_the_plan_gives_it_and_no_more() -> None:
    config = host_config(HOST, named, FACTS, {})
    assert config["network_mode"] == "testbed-r-lan"
    assert (config["cap_drop"], config["cap_add"]) == (["ALL"], ["NET_RAW"])
    assert config["security_opt"] == ["no-new-privileges=true"], "a colon is warned of"
    assert config["binds"] == ["testbed-r-spool:/var/spool:rw"]
    assert config["sysctls"] == HOST.sysctls
    assert config["log_config"].type == "none" and config["dns"] == ["127.0.0.1"]
    assert not {"privileged", "devices", "pid_mode", "restart_policy"} & set(config)
    assert config["init"] is False and config["ipc_mode"] == "private", "whatever is a daemon's default"


def test_a_host_without_a_network_has_none() -> None:
    assert host_config(replace(HOST, interfaces=()), named, FACTS, {})["network_mode"] == "none"


@pytest.mark.parametrize(("allowed", "given"), [(1048576, 65536), (65536, 65536), (20000, 20000), (-1, 65536)])
def test_open_files_are_as_many_as_the_machine_allows(allowed: int, given: int) -> None:
    limits = host_config(HOST, named, FACTS | {"ulimits": LIMITS | {"nofile": (100, allowed)}}, {})["ulimits"]
    stated = {"nofile": given, "core": 0, "fsize": -1, "cpu": -1, "data": -1}
    assert {u.name: u.soft for u in limits} == {u.name: u.hard for u in limits} == stated


@pytest.mark.parametrize(
    ("has", "lacks"),
    [
        ({}, False),
        ({"nofile": (20000, 20000)}, False),
        ({"nofile": (65536, 1048576)}, False),
        ({"nofile": (100, 20000)}, True),
        ({"cpu": (60, -1)}, True),
        ({"cpu": (60, 60)}, False),
    ],
)
def test_an_agent_with_less_than_it_could_have_is_started_again(has: dict[str, Any], lacks: bool) -> None:
    facts = {"ulimits": LIMITS | has}
    assert docker_host.lacks(facts) == lacks
    for limit in docker_host.ulimits(facts, {}):
        facts["ulimits"][limit.name] = limit.hard, facts["ulimits"][limit.name][1]
    assert not docker_host.lacks(facts), "and not a third time"


def test_what_a_host_of_ours_can_write_has_a_size_and_another_keeps_its_image() -> None:
    config = host_config(HOST, named, FACTS, {})
    assert [mount["Target"] for mount in config["mounts"]] == list(WRITABLE)
    for mount in config["mounts"]:
        assert mount["Type"] == "volume" and mount["Source"] is None, "it goes with its container"
        options = mount["VolumeOptions"]["DriverConfig"]["Options"]
        assert options["type"] == "tmpfs" and f"size={FILES_BYTES}," in options["o"]
    foreign = host_config(replace(HOST, image="nginx"), named, FACTS, {})
    assert foreign["mounts"] == []
    assert ("fsize", FILES_BYTES, FILES_BYTES) in [(u.name, u.soft, u.hard) for u in foreign["ulimits"]]
    assert {**config, "mounts": 0, "ulimits": 0} == {**foreign, "mounts": 0, "ulimits": 0}


@pytest.mark.parametrize(
    ("name", "ipv6", "set_by_docker"),
    [
        ("net.ipv4.ping_group_range", False, True),
        ("net.ipv4.conf.all.rp_filter", False, True),
        ("net.ipv4.conf.default.rp_filter", False, True),
        ("net.ipv4.conf.eth0.rp_filter", False, False),
        ("net.ipv4.neigh.eth0.gc_stale_time", False, False),
        ("net.ipv4.neigh.default.gc_stale_time", False, True),
        ("net.ipv6.conf.all.disable_ipv6", True, True),
        ("net.ipv6.conf.all.disable_ipv6", False, False),
        ("net.core.somaxconn", False, True),
        ("kernel.shmmax", True, False),
        ("vm.swappiness", True, False),
    ],
)
def test_docker_sets_what_is_there_before_any_interface(name: str, ipv6: bool, set_by_docker: bool) -> None:
    assert at_creation({name: "1"}, ipv6) == ({name: "1"} if set_by_docker else {})


def test_a_mac_is_asked_for_where_docker_can_be() -> None:
    assert endpoint(NIC, "1.43") == {"ipv4_address": "198.18.0.2"}
    assert endpoint(NIC, "1.44") == {"ipv4_address": "198.18.0.2", "mac_address": NIC.mac}


def test_a_network_leads_nowhere_and_has_the_plans_addresses() -> None:
    options = network_options(LAN, "tb12345678n0", "1.41")
    assert options["driver"] == "bridge"
    assert options["options"] == {
        "com.docker.network.bridge.name": "tb12345678n0",
        "com.docker.network.bridge.enable_ip_masquerade": "false",
        "com.docker.network.bridge.enable_icc": "true",
        "com.docker.network.bridge.inhibit_ipv4": "false",
        "com.docker.network.container_iface_prefix": "eth",
        "com.docker.network.driver.mtu": "1500",
    }
    assert options["ipam"]["Config"] == [{"Subnet": "198.18.0.0/24", "Gateway": "198.18.0.1"}]


def test_newer_versions_are_told_more_and_by_28_a_host_may_forward() -> None:
    old, v27, v28 = (network_options(LAN, "b", version)["options"].items() for version in ("1.45", "1.47", "1.48"))
    modes = [f"com.docker.network.bridge.gateway_mode_ipv{version}" for version in (4, 6)]
    assert v27 - old == {*((mode, "nat") for mode in modes), ("com.docker.network.enable_ipv6", "false")}
    assert v28 - old == {
        *((mode, "nat-unprotected") for mode in modes),
        ("com.docker.network.enable_ipv6", "false"),
        ("com.docker.network.enable_ipv4", "true"),
        ("com.docker.network.advertise_addr_nmsgs", "0"),
    }


def test_what_a_daemon_has_not_kept_is_named() -> None:
    asked = network_options(LAN, "b", "1.48")
    kept = {"Options": dict(asked["options"]), "EnableIPv6": False, "Internal": False}
    assert not_as_asked(asked, kept) == []
    assert not_as_asked(asked, kept | {"EnableIPv6": True}) == ["EnableIPv6 was to be False and is True"]
    mode = "com.docker.network.bridge.gateway_mode_ipv4"
    kept["Options"][mode] = "nat"
    assert not_as_asked(asked, kept) == [f"{mode} was to be nat-unprotected and is nat"]
    assert len(not_as_asked(asked, {"Options": None, "EnableIPv6": False})) == len(asked["options"]) - 2
    assert not_as_asked(
        asked, {**asked, "Options": asked["options"], "EnableIPv4": False, "EnableIPv6": False}
    ) == ["EnableIPv4 was to be True and is False"]


DUAL = Network("lan", "198.18.0.0/24", "198.18.0.1", "2001:2::/64", "2001:2::1")


def test_a_dual_network_has_two_pools_and_its_hosts_two_addresses() -> None:
    options = network_options(DUAL, "tb12345678n0", "1.48")
    assert options["enable_ipv6"] is True
    assert options["ipam"]["Config"] == [
        {"Subnet": "198.18.0.0/24", "Gateway": "198.18.0.1"},
        {"Subnet": "2001:2::/64", "Gateway": "2001:2::1"},
    ]
    assert options["options"]["com.docker.network.enable_ipv6"] == "true"
    assert network_options(LAN, "b", "1.48")["enable_ipv6"] is False
    asked = endpoint(replace(NIC, ip6="2001:2::2", prefix6_bits=64), "1.43")
    assert asked == {"ipv4_address": "198.18.0.2", "ipv6_address": "2001:2::2"}


@pytest.mark.parametrize(
    ("pools", "taken"),
    [
        (["198.18.0.0/24", "10.0.0.0/8"], "198.18.0.0/24"),
        (["10.0.0.0/8", "2001:2::/48"], "2001:2::/64"),
        (["2001:2:0:1::/64"], "198.18.0.0/24"),
        ([], "198.18.0.0/24"),  # whoever had it is gone: the next plan goes around it all the same
    ],
)
def test_which_of_two_subnets_is_in_use(pools: list[str], taken: str) -> None:
    assert in_use(DUAL, pools) == taken
    assert in_use(replace(DUAL, subnet6=None), pools) == "198.18.0.0/24"


def test_a_bridges_name_fits_the_kernel_also_in_a_run_of_many_networks() -> None:
    assert bridge_name("0123abcd", 7) == "tb0123abcdn7"
    assert len(bridge_name("0123abcd", 999)) <= 15


def test_etc_hosts_is_the_plans() -> None:
    assert HOST.hosts_file() == "127.0.0.1\tlocalhost\n198.18.0.2\tsensor sensor.lan\n"
    assert docker_host.NO_RESOLVER.startswith("#") and docker_host.NO_RESOLVER.endswith("\n")


def test_files_are_written_in_place_and_what_is_returned_was_read_back(tmp_path: Any) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/hosts").write_text("a much longer text than what comes\n" * 3)
    before = (tmp_path / "etc/hosts").stat().st_ino
    assert docker_inside.write(str(tmp_path), {"/etc/hosts": "short\n"}) == {"/etc/hosts": "short\n"}
    assert (tmp_path / "etc/hosts").stat().st_ino == before, "a bind mount could not be replaced"


def test_a_host_that_has_ended_is_told_from_a_file_that_cannot_be_written(tmp_path: Any) -> None:
    assert docker_inside.write(f"{tmp_path}/none", {"/etc/hosts": ""}) is None
    with pytest.raises(FileNotFoundError):
        docker_inside.write(str(tmp_path), {"/etc/hosts": ""})


ID = "4f" * 32
MOUNTS = """812 811 0:51 / / rw,relatime - overlay overlay rw,lowerdir=/var/lib/docker/overlay2/l/A
831 812 254:0 /lib/docker/containers/{id}/resolv.conf /etc/resolv.conf rw,relatime - ext4 /dev/vda rw
833 812 254:0 /lib/docker/containers/{id}/hosts /etc/hosts rw,relatime - ext4 /dev/vda rw
"""


@pytest.mark.parametrize(
    ("mounts", "its"),
    [
        (MOUNTS.format(id=ID), True),
        (MOUNTS.format(id="5e" * 32), False),
        (MOUNTS.format(id=ID + "-init"), False),
        (MOUNTS.format(id=f"x/{ID}/y"), True),
        (f"1 0 254:0 / / rw - ext4 /dev/vda rw\n2 1 254:0 / /{ID} rw - ext4 /dev/vda rw\n", False),
        ("", False),
    ],
)
def test_a_process_belongs_to_the_container_whose_files_are_bound_into_it(mounts: str, its: bool) -> None:
    assert docker_inside.belongs(mounts, ID) is its


def asked(pid: int, path: str = "/etc/hosts") -> dict[str, Any]:
    return {"write": {"h": [pid, ID, {path: "spoilt"}]}, "seal": ["h"], "directories": {}, "links": {}}


def test_a_process_that_is_none_of_the_container_is_not_touched(tmp_path: Path) -> None:
    """Its number was given away, here to this test, whose files are the machine's."""
    (tmp_path / "hosts").write_text("the machine's")
    me = os.getpid()
    said = docker_inside.answer(asked(me, str(tmp_path / "hosts")))
    assert said["problem"] == (
        f"writing the names of host h (process {me}): process {me} is none of container {ID[:12]}: "
        "its number was given away"
    )
    assert (tmp_path / "hosts").read_text() == "the machine's"


def test_a_process_that_has_ended_is_told_as_that() -> None:
    ended = subprocess.Popen(["true"])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    assert docker_inside.answer(asked(ended.pid)) == {"found": {"h": None}}, "a zombie"
    ended.wait()
    assert docker_inside.answer(asked(ended.pid)) == {"found": {"h": None}}


def test_what_goes_wrong_is_a_line_and_no_traceback(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    with pytest.raises(OSError, match=r"^\[Errno \d+\] [A-Z][a-z ]+(: '[^'\n]+')?$"):
        docker_inside.seal(str(tmp_path), {}, {})
    monkeypatch.setattr(docker_inside, "belongs", lambda *_: True)
    monkeypatch.setattr(docker_inside, "write", lambda *_: {})

    def refuse(*_: Any) -> None:
        raise PermissionError(13, "Permission denied", "/proc/7/ns/mnt")

    monkeypatch.setattr(docker_inside, "seal", refuse)
    said = docker_inside.answer(asked(os.getpid()))["problem"]
    assert said.startswith("sealing host h (process ") and said.endswith("Permission denied: '/proc/7/ns/mnt'")


def test_routes_are_where_unicast_leads_and_never_everywhere() -> None:
    shown = """[{"dst":"default","gateway":"10.0.0.1"},{"dst":"10.0.0.0/24","dev":"eth0"},
    {"dst":"10.8.0.9","dev":"wg0"},
    {"type":"local","dst":"127.0.0.0/8"},{"type":"broadcast","dst":"10.0.0.255"},{"dst":"10.0.0.0/24","table":"7"},
    {"type":"unicast","dst":"198.18.0.0/15","dev":"vpn"},{"type":"multicast","dst":"224.0.0.0/4"}]"""
    assert docker_inside.routes(shown) == ["10.0.0.0/24", "10.8.0.9/32", "198.18.0.0/15"]
    shown = """[{"dst":"default","gateway":"fe80::1"},{"dst":"2001:2:0:7::/64","dev":"br-1"},
    {"dst":"fd00::9","dev":"wg0"},{"type":"multicast","dst":"ff00::/8","dev":"eth0"},{"type":"anycast","dst":"fe80::","dev":"eth0"}]"""
    assert docker_inside.routes(shown) == ["2001:2:0:7::/64", "fd00::9/128"]


def test_a_directory_of_the_authors_is_a_copy_that_is_read_only() -> None:
    host = replace(HOST, mounts=(Mount("/home/anna/src", "/app"), Mount("/home/anna/src", "/tmp")))
    config = host_config(host, named, FACTS, {"/home/anna/src": "testbed-r.directory-0"})
    assert config["binds"][1:] == ["testbed-r.directory-0:/app:ro", "testbed-r.directory-0:/tmp:ro"]
    assert "/tmp" not in [mount["Target"] for mount in config["mounts"]]
