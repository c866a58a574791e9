"""The namespaces engine without a lab: what it asks for, what it finds out about the machine, what it refuses."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from testbed.engines import namespaces
from testbed.engines.namespaces import (
    NamespacesEngine,
    base_interpreter,
    trees_outside_usr,
    up_request,
)
from testbed.errors import CapabilityError, EngineError, HostError
from testbed.plan import Plan, plan
from testbed.scenario import parse

SCENARIO = """
testbed: 1
about: Two hosts that share a directory.
duration: 1 s
networks: {lan: {subnet: 198.18.7.0/24}}
volumes: {spool: }
hosts:
  alice: {volumes: ["spool:/var/spool/in", "../src:/app:ro"], cap_add: [NET_RAW]}
  bob:
"""


@pytest.fixture(scope="module")
def two() -> Plan:
    return plan(parse(SCENARIO, "two.yaml"), 1)


def test_the_request_holds_what_the_builder_needs_and_no_more(two: Plan) -> None:
    request = up_request(two)
    assert (request["do"], request["networks"], request["volumes"]) == ("up", ["lan"], ("spool",))
    alice, bob = request["hosts"]
    assert alice == {
        "name": "alice",
        "hosts_file": two.host("alice").hosts_file(),
        "capabilities": ("NET_RAW",),
        "volumes": (("spool", "/var/spool/in"),),
        "mounts": [("../src", "/app")],
        "interfaces": [
            {
                "name": "eth0",
                "network": "lan",
                "ip": two.host("alice").interfaces[0].ip,
                "prefix_bits": 24,
                "mac": two.host("alice").interfaces[0].mac,
            }
        ],
    }
    assert (bob["name"], bob["capabilities"], bob["volumes"]) == ("bob", (), ())


def test_hosts_file(two: Plan) -> None:
    host = replace(two.host("bob"), names=(("127.0.0.1", ("localhost",)), ("198.18.7.2", ("alice", "alice.lan"))))
    assert host.hosts_file() == "127.0.0.1\tlocalhost\n198.18.7.2\talice alice.lan\n"


@pytest.mark.parametrize(
    ("base_prefix", "python", "trees"),
    [
        ("/usr", "/usr/bin/python3.12", ()),
        ("/usr/local", "/usr/local/bin/python3.12", ()),
        (
            "/root/pythons/3.12.1",
            "/root/pythons/3.12.1/bin/python3",
            ("/root/pythons/3.12.1",),
        ),
        ("/opt/py", "/opt/tools/bin/python3", ("/opt/py", "/opt/tools/bin")),
        ("/usrlocal", "/usrlocal/bin/python3", ("/usrlocal",)),
    ],
)
def test_hosts_see_the_interpreter_and_nothing_around_it(
    monkeypatch: pytest.MonkeyPatch, base_prefix: str, python: str, trees: tuple[str, ...]
) -> None:
    monkeypatch.setattr(sys, "base_prefix", base_prefix)
    monkeypatch.setattr(sys, "base_exec_prefix", base_prefix)
    monkeypatch.setattr(namespaces.os.path, "realpath", lambda path: path)
    assert trees_outside_usr(python) == trees


def test_the_interpreter_is_the_one_behind_the_virtual_environment() -> None:
    path = Path(base_interpreter())
    assert path.is_file() and not path.is_symlink()
    assert path.is_relative_to(Path(sys.base_prefix).resolve())


@pytest.mark.parametrize(
    ("uid", "effective", "may"),
    [(0, "000001ffffffffff", True), (0, "00000000a80425fb", False), (1000, "000001ffffffffff", False)],
)
def test_root_without_its_capabilities_is_an_ordinary_user(
    monkeypatch: pytest.MonkeyPatch, uid: int, effective: str, may: bool
) -> None:
    """The middle one is what Docker gives root by default."""
    monkeypatch.setattr(namespaces.os, "geteuid", lambda: uid)
    monkeypatch.setattr(Path, "read_text", lambda path: f"Name:\tx\nCapEff:\t{effective}\nCapBnd:\t0\n")
    assert namespaces.may_do_without_user_namespace() is may


def test_a_machine_without_ip_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(namespaces.shutil, "which", lambda name, path: None)
    with pytest.raises(HostError, match="install the package iproute2"):
        NamespacesEngine().open()


def test_without_a_lab_nothing_can_be_done(two: Plan) -> None:
    engine = NamespacesEngine()
    with pytest.raises(EngineError, match="building the hosts: there is no lab"):
        engine.up(two, lambda bridges: None)
    with pytest.raises(EngineError, match="reading /x of host alice: there is no lab"):
        engine.get("alice", "/x")
    engine.down()


@pytest.mark.parametrize(("key", "value"), [("image", "nginx:1"), ("build", "./web")])
def test_what_needs_docker_is_refused_by_name(two: Plan, key: str, value: str) -> None:
    asked = replace(two, hosts=(two.hosts[0], replace(two.hosts[1], **{key: value})))
    with pytest.raises(CapabilityError, match=f"host bob has `{key}: {value}`.*--engine docker"):
        NamespacesEngine().up(asked, lambda bridges: None)
