"""The commands that hosts are sure to have, and what installs them."""

from __future__ import annotations

import pytest

from testbed.packages import install, without_install


def test_the_command_that_installs_is_one_line_in_a_fixed_order() -> None:
    assert install(["tc", "dig", "ip", "unknown"]) == "apt-get install bind9-dnsutils iproute2"
    assert install(["unknown"]) == ""


@pytest.mark.parametrize("why", ["it is not there", "it is not there: on no host"])
def test_a_reason_can_be_told_from_what_mends_it(why: str) -> None:
    assert without_install(f"{why}: {install(['nginx', 'dig'])}") == (why, ["bind9-dnsutils", "nginx"])
    assert without_install(why) == (why, [])
