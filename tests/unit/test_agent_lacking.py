"""What a machine lacks of what scenarios may require, beside what can be seen of it in another way."""

from __future__ import annotations

import os
import platform
import socket
from pathlib import Path

import pytest

from testbed.agent import lacking as room
from testbed.agent.lacking import lacking
from testbed.requirements import OF_THE_MACHINE


def test_processors_are_those_that_hosts_may_use() -> None:
    have = len(os.sched_getaffinity(0))
    assert lacking([f"cpus:{have}"]) == {}
    more = f"cpus:{have + 1}"
    are = "is" if have == 1 else "are"
    assert lacking([more]) == {more: f"it requires {have + 1} processors, and {have} {are} there"}


def test_ipv6_is_there_where_its_settings_are() -> None:
    assert bool(lacking(["ipv6"])) != Path("/proc/sys/net/ipv6").exists()


def test_bbr_is_there_if_a_socket_may_have_it_or_the_kernel_lists_it() -> None:
    listed = Path("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text().split()
    assert bool(lacking(["bbr"])) != ("bbr" in listed)


def test_sctp_is_there_if_there_are_sockets_of_it() -> None:
    try:
        socket.socket(socket.AF_INET, socket.SOCK_SEQPACKET, socket.IPPROTO_SCTP).close()
        there = True
    except OSError:
        there = False
    assert bool(lacking(["sctp"])) != there


@pytest.mark.parametrize("word", [word for word in OF_THE_MACHINE if word != "cpus"])
def test_whatever_is_asked_of_a_machine_has_an_answer_that_names_its_kernel(
    word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(room._PRESENT, word, lambda: False)
    assert lacking([word]) == {word: f"it requires {word}, which this kernel ({platform.release()}) does not have"}
    monkeypatch.setitem(room._PRESENT, word, lambda: True)
    assert lacking([word]) == {}
