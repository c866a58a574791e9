"""A firewall of the daemon's machine that sees what hosts send: found, named, and no program's fault."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from testbed.errors import ConditionError
from testbed.plan import plan
from testbed.scenario import parse
from tests.command import said, testbed
from tests.disturbed import image_made
from tests.docker_daemon import on_its_machine
from tests.system.docker_lab import lab

SWITCHES = {"iptables": "bridge-nf-call-iptables", "ip6tables": "bridge-nf-call-ip6tables"}
DUAL = """
testbed: 1
about: Two hosts with IPv6.
duration: 1 s
networks: {lan: {ip: dual}}
hosts: {a: {serve: x}, b: {serve: x}}
"""
FIVE_PERCENT = "-p udp -m statistic --mode random --probability 0.05 -j DROP"
INVALID = "-m conntrack --ctstate INVALID -j DROP"
CLEAN = """
testbed: 1
about: Hosts that speak as one to one, to all and to a group, on a network that is as it was asked for.
hosts:
  a: {run: "sh -c 'for n in 1 2 3 4 5 6 7 8 9 10; do datagram send b:9 --count 20 --interval 1ms; done'"}
  b: {}
expect: [a.exit == 0]
"""


@pytest.fixture
def machine(docker_daemon: str) -> str:
    """A daemon whose machine's firewall may be changed."""
    if "testbed-dockerd-" not in docker_daemon:
        pytest.skip("the daemon is not a private one: its machine's firewall is left alone")
    if on_its_machine(docker_daemon, ["ls", "/proc/sys/net/bridge"]).returncode != 0:
        pytest.skip("no br_netfilter on this machine: no firewall sees what a bridge forwards")
    image_made()
    return docker_daemon


@contextmanager
def switched(host: str, tool: str, to: int) -> Iterator[None]:
    switch = f"/proc/sys/net/bridge/{SWITCHES[tool]}"
    before = on_its_machine(host, ["cat", switch], check=True).stdout.strip()
    on_its_machine(host, ["sh", "-c", f"echo {to} > {switch}"], check=True)
    try:
        yield
    finally:
        on_its_machine(host, ["sh", "-c", f"echo {before} > {switch}"], check=True)


@contextmanager
def rule(host: str, tool: str, words: str) -> Iterator[None]:
    """The first one of what is forwarded: a daemon puts its own first, but for one chain."""
    there = on_its_machine(host, [tool, "-nL", "DOCKER-USER"]).returncode == 0
    chain = "DOCKER-USER" if there else "FORWARD"
    on_its_machine(host, [tool, "-I", chain, *words.split()], check=True)
    try:
        yield
    finally:
        on_its_machine(host, [tool, "-D", chain, *words.split()], check=True)


@pytest.mark.parametrize("tool", SWITCHES)
def test_one_that_drops_all_is_found_before_any_program_runs(machine: str, tool: str) -> None:
    planned = plan(parse(DUAL, "dual.yaml"), 1, frozenset({"198.18.0.0/24", "2001:2::/64"}))
    ip = "IPv4" if tool == "iptables" else "IPv6"
    found = f"sending {ip} from a to b over lan: nothing arrives.*`{tool} -S FORWARD`.*{SWITCHES[tool]} to 0"
    with (
        switched(machine, tool, 1),
        rule(machine, tool, "-j DROP"),
        pytest.raises(ConditionError, match=found),
        lab(machine, planned),
    ):
        pass


@pytest.mark.parametrize(("words", "scenario"), [(FIVE_PERCENT, "udp-loss"), (INVALID, "raw-icmp-echo")])
def test_what_it_drops_is_an_error_and_no_programs_fault(
    machine: str, words: str, scenario: str, tmp_path: Path
) -> None:
    with switched(machine, "iptables", 1), rule(machine, "iptables", words):
        done = testbed("run", scenario, "--engine", "docker", "--results", tmp_path)
    assert done.returncode == 3, said(done)
    switch = "net.bridge.bridge-nf-call-iptables"
    assert re.search(rf"the machine's firewall sees .*{switch} (is|are) 1", done.stderr), said(done)
    last = done.stdout.splitlines()[-1]
    assert last.startswith("error: ") and re.search(rf"lost on the machine.*\d on lan.*{switch}", last), said(done)
