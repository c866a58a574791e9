"""The sockets of this host, from the tables in /proc/net (proc_net_tcp in the documentation of the kernel).

A port is a number, a socket is an endpoint: one port of a server has as many sockets as it has connections, and
what tells them apart is the pair of endpoints. That is what can be read here, without any capability.
"""

from __future__ import annotations

import argparse
import ipaddress
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.programs._cli import number, port, time_ns
from testbed.programs._errors import Failed
from testbed.programs._life import run
from testbed.programs._sockets import endpoint

KINDS = ("tcp", "udp", "raw")
STATES = (  # include/net/tcp_states.h, from 1
    "ESTABLISHED SYN-SENT SYN-RECEIVED FIN-WAIT-1 FIN-WAIT-2 TIME-WAIT CLOSE CLOSE-WAIT LAST-ACK LISTEN CLOSING"
).split()
LOOK_AGAIN_S = 0.01


@dataclass(frozen=True)
class Socket:
    """One row. Ports: of a raw socket, the local one is the protocol that it is for."""

    local: tuple[str, int]
    remote: tuple[str, int]
    state: str

    @property
    def connected(self) -> bool:
        """UDP and raw sockets call it established, too, once they have a peer."""
        return self.state == "ESTABLISHED"


def table(text: str) -> list[Socket]:
    """The rows of /proc/net/tcp, udp or raw, or of their IPv6 kind."""
    found = []
    for line in text.splitlines()[1:]:
        _, local, remote, state = line.split()[:4]
        code = int(state, 16)
        name = STATES[code - 1] if 1 <= code <= len(STATES) else "SYN-RECEIVED"  # 12: not yet accepted
        found.append(Socket(_endpoint(local), _endpoint(remote), name))
    return found


def _endpoint(text: str) -> tuple[str, int]:
    """`0100007F:2328` -> ("127.0.0.1", 9000): words of 32 bits, each as this machine's bytes lie in memory."""
    address, _, its_port = text.partition(":")
    words = [int(address[i : i + 8], 16).to_bytes(4, sys.byteorder) for i in range(0, len(address), 8)]
    return str(ipaddress.ip_address(b"".join(words))), int(its_port, 16)


def sockets(kind: str, its_port: int | None, directory: Path = Path("/proc/net")) -> list[Socket]:
    """All of that kind, of IPv4 and IPv6; with a port, those that have it at either end."""
    rows: list[Socket] = []
    for name in (kind, f"{kind}6"):
        path = directory / name
        if path.exists():  # a kernel without IPv6 has no table for it
            rows += table(path.read_text())
    return [row for row in rows if its_port is None or its_port in (row.local[1], row.remote[1])]


def until(connected: int, timeout_ns: int, kind: str, its_port: int | None) -> list[Socket]:
    """The sockets, once so many of them are connected. Raises Failed if that takes longer."""
    deadline_ns = time.monotonic_ns() + timeout_ns
    while True:
        found = sockets(kind, its_port)
        have = sum(row.connected for row in found)
        if have >= connected:
            return found
        if time.monotonic_ns() > deadline_ns:
            raise Failed("ETIMEDOUT", f"waiting for {connected} connected sockets: there are {have}")
        time.sleep(LOOK_AGAIN_S)


def records(found: list[Socket]) -> Iterator[dict[str, Any]]:
    for row in found:
        yield {"local": endpoint(row.local), "remote": endpoint(row.remote), "state": row.state}
    yield {
        "sockets": len(found),
        "listening": sum(row.state == "LISTEN" for row in found),
        "established": sum(row.connected for row in found),
        "local_ports": len({row.local[1] for row in found}),
        "pairs": len({(row.local, row.remote) for row in found if row.connected}),
    }


def main(argv: list[str] | None = None) -> int:
    """The command `sockets`. Returns the exit status: 0 done, 1 not in time; wrong arguments exit with 2."""
    arguments = _parser().parse_args(argv)
    found: list[Socket] = []

    def work() -> None:
        found.extend(until(arguments.until, arguments.timeout, arguments.kind, arguments.port))

    return run(f"sockets {arguments.kind}", work, lambda: records(found))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sockets", description="The host's own table of sockets.")
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="|".join(KINDS))
    for kind in KINDS:
        mode = kinds.add_parser(kind, help=f"/proc/net/{kind} and /proc/net/{kind}6")
        mode.add_argument("--port", type=port, metavar="N", help="only those that have it at either end")
        mode.add_argument(
            "--until", type=number, default=0, metavar="N", help="wait until N of them are connected"
        )
        mode.add_argument(
            "--timeout", type=time_ns, default=10**10, metavar="TIME", help="for --until; default 10s"
        )
    return parser


if __name__ == "__main__":
    sys.exit(main())
