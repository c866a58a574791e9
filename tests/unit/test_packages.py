"""A command that is not there: the message says what to install."""

from __future__ import annotations

import pytest

from testbed.errors import CommandNotFound
from testbed.packages import install
from testbed.plan import plan
from testbed.scenario import parse
from testbed.supervisor import look_up

TWO = """
testbed: 1
about: Programs that may be missing.
hosts:
  server: {serve: nginx -c x, ready: {answers: curl localhost}}
  client: {run: curl server}
"""


def test_the_command_that_installs_is_one_line_in_a_fixed_order() -> None:
    assert install(["tc", "dig", "ip", "unknown"]) == "apt-get install bind9-dnsutils iproute2"
    assert install(["unknown"]) == ""


def test_whoever_lacks_commands_is_told_all_of_them_and_what_installs_them() -> None:
    there = plan(parse(TWO, "two.yaml"))
    with pytest.raises(CommandNotFound) as problem:
        look_up(there, lambda host, command, path, directory: None)
    said = str(problem.value)
    assert "server.server: no command 'nginx' (PATH=" in said
    assert "server.server, client.client: no command 'curl' (PATH=" in said
    assert "install it on the machine (namespaces; Debian: apt-get install curl nginx)" in said
    with pytest.raises(CommandNotFound, match=r"install it on the machine \(namespaces\), use an"):
        look_up(
            plan(parse(TWO.replace("curl server", "unknown"), "two.yaml")),
            lambda h, c, *_: None if c == "unknown" else c,
        )


def test_nothing_is_said_where_all_are_there() -> None:
    look_up(plan(parse(TWO, "two.yaml")), lambda host, command, path, directory: command)
