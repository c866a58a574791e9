"""The programs nobody here wrote that hosts are sure to have, and the Debian package that each one comes in.

They are in our node image. On bare namespaces a host has what the machine has, and whoever lacks one is told what
to install. `compose/node/Dockerfile` and `.ci/run` say the same in their own languages, and a test compares them.
"""

from __future__ import annotations

from collections.abc import Iterable

PACKAGE_OF = {
    "curl": "curl",
    "dig": "bind9-dnsutils",
    "inetutils-inetd": "inetutils-inetd",
    "inetutils-telnet": "inetutils-telnet",
    "ip": "iproute2",
    "iperf3": "iperf3",
    "nc": "netcat-openbsd",
    "nginx": "nginx",
    "nsd": "nsd",
    "nstat": "iproute2",
    "ping": "iputils-ping",
    "python3": "python3",
    "socat": "socat",
    "tc": "iproute2",
    "tcpdump": "tcpdump",
    "telnetd": "inetutils-telnetd",
}
PACKAGES = tuple(sorted(set(PACKAGE_OF.values())))
_INSTALL = "apt-get install "


def install(commands: Iterable[str]) -> str:
    """The command that installs those of these commands that we know; empty if there are none."""
    names = sorted({PACKAGE_OF[command] for command in commands if command in PACKAGE_OF})
    return f"{_INSTALL}{' '.join(names)}" if names else ""


def without_install(reason: str) -> tuple[str, list[str]]:
    """A reason less the command at its end that installs what is missing, and the packages that it names."""
    why, _, names = reason.partition(f": {_INSTALL}")
    return why, names.split()
