"""Frames that are no host's are no part of a run: neither daemon nor machine speaks in the hosts' networks."""

from __future__ import annotations

import pytest

from testbed.plan import plan
from testbed.scenario import parse
from tests.conftest import missing
from tests.docker_daemon import log_of
from tests.system.docker_lab import lab

QUIET_S = 6.0  # three unasked ARPs a second apart, and routers are asked for every four
HOSTS = """
testbed: 1
about: Two hosts that say nothing.
duration: 1 s
networks: {lan: {ip: KIND}}
hosts: {a: {serve: x, cap_add: [NET_RAW]}, b: {serve: x}}
"""
LISTEN = f"""
import socket, time
port = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
port.bind(("eth0", 3))
until = time.monotonic() + {QUIET_S}
while (left := until - time.monotonic()) > 0:
    port.settimeout(left)
    try:
        frame = port.recv(2048)
        print(frame[:14].hex(" "), frame[14:60].hex(), flush=True)
    except TimeoutError:
        pass
"""


@pytest.mark.parametrize("kind", ["4", "dual"])
def test_nobody_speaks_where_no_host_does(docker_daemon: str, kind: str) -> None:
    with lab(docker_daemon, plan(parse(HOSTS.replace("KIND", kind), "quiet.yaml"))) as made:
        heard = made.python("a", LISTEN)
        assert heard.exit == 0, heard.err
        hosts = [host.interfaces[0].mac.replace(":", " ") for host in made.plan.hosts]  # IPv6 has groups to report
        foreign = [line for line in heard.out.splitlines() if not any(f" {mac} " in line for mac in hosts)]
        assert foreign == []
        assert kind == "dual" or heard.out == "", "nor ARP unasked"


def test_a_daemon_has_nothing_to_warn_of_when_hosts_are_made(docker_daemon: str) -> None:
    """Of a way to write options that it will not take some day: from 28 on `no-new-privileges:true` is one."""
    before = log_of(docker_daemon)
    if before is None:
        missing("docker", "the log of a private daemon; this one is somebody's")
    text = HOSTS.replace("KIND", "dual").replace("networks: {lan", "volumes: {v: }\nnetworks: {lan")
    text = text.replace("a: {serve: x", "a: {serve: x, volumes: [v:/srv/v]")
    with lab(docker_daemon, plan(parse(text, "quiet.yaml"))):
        pass
    log = log_of(docker_daemon)
    assert log is not None and len(log) > len(before), "it has not noticed us"
    said = log[len(before) :].splitlines()
    assert [line for line in said if "level=warning" in line and "deprecated" in line] == []
