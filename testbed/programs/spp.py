"""Sequenced packets between hosts: the Sequenced Packet Protocol of the Network Systems family, in user space.

As a stream, but with the boundaries of records, and with headers that are the user's. The server is in
`spp_server`, the client in `spp_client`; the protocol in `ns.connection`, the socket in `ns.sockets`. Both ends
need the capability NET_RAW.
"""

from __future__ import annotations

import argparse
import sys

from testbed.programs._cli import host_and_port, listed, number, port, sizes_up_to, some, time_ns
from testbed.programs._life import run
from testbed.programs.ns.connection import WINDOW
from testbed.programs.ns.packets import LARGEST_DATA
from testbed.programs.ns.sockets import TIMEOUT_NS
from testbed.programs.spp_client import Send
from testbed.programs.spp_server import Echo

LARGEST_RECORD = 1 << 16
_time = some(time_ns, "is no time at all")


def main(argv: list[str] | None = None) -> int:
    """The command `spp`. Returns the exit status: 0 done, 1 a socket error; wrong arguments exit with 2."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.mode == "echo":
        echo = Echo(arguments.plain, arguments.ignore_end_of_message)
        return run("spp echo", lambda: echo.work(arguments), echo.records)
    packets = -(-max(arguments.sizes) // LARGEST_DATA)
    if arguments.ahead > 1 and arguments.ahead * packets > WINDOW:  # both ends could wait for the other to read
        parser.error(
            f"--ahead {arguments.ahead} records of {packets} packets are more than the window of {WINDOW}"
        )
    send = Send()
    return run("spp send", lambda: send.work(arguments), send.records)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="spp", description="Sequenced packets over IDP: a server and a client.")
    modes = parser.add_subparsers(dest="mode", required=True, metavar="echo|send")
    echo = modes.add_parser("echo", help="send every packet back under its own header, until SIGTERM")
    echo.add_argument("--port", type=port, required=True, metavar="N", help="the NS socket number; 0: any")
    echo.add_argument("--plain", action="store_true", help="ask for no headers and write none")
    echo.add_argument("--ignore-end-of-message", action="store_true", help="take every packet for a whole record")
    send = modes.add_parser("send", help="send records to `spp echo` and count what comes back")
    send.add_argument("to", type=host_and_port, metavar="HOST:PORT")
    send.add_argument("--count", type=_some, required=True, metavar="N", help="how many records")
    sizes, several = sizes_up_to(LARGEST_RECORD), listed(_type)
    send.add_argument("--sizes", type=sizes, required=True, metavar="SIZE,...", help="of them, in turn: 1B,2kB")
    send.add_argument("--ahead", type=_some, default=1, metavar="N", help="how many may be under way; default 1")
    types = send.add_mutually_exclusive_group()
    types.add_argument("--default-type", type=_type, metavar="N", help="the datastream type: SO_DEFAULT_HEADERS")
    types.add_argument(
        "--write-types", type=several, metavar="N,...", help="in turn, one with each record: SO_HEADERS_ON_OUTPUT"
    )
    send.add_argument("--read-headers", action="store_true", help="of each packet: SO_HEADERS_ON_INPUT")
    send.add_argument("--attention", action="store_true", help="send an attention byte after the last record")
    send.add_argument(
        "--timeout", type=_time, default=30 * 10**9, metavar="TIME", help="of each wait; default 30s"
    )
    for mode in (echo, send):
        mode.add_argument("--bind", default="0.0.0.0", metavar="IP", help="default: every IPv4 address")
        mode.add_argument(
            "--retransmit", type=_time, default=TIMEOUT_NS, metavar="TIME", help="after how long; default 200ms"
        )
    return parser


def _some(text: str) -> int:
    if not number(text):
        raise argparse.ArgumentTypeError("0 is none at all")
    return number(text)


def _type(text: str) -> int:
    if number(text) > 253:
        raise argparse.ArgumentTypeError(f"{text!r} is not from 0 to 253; 254 and 255 close a connection")
    return number(text)


if __name__ == "__main__":
    sys.exit(main())
