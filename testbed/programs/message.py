"""UDP as it is without a connection: one socket sends messages to anybody, one receives them from anybody.

A UDP socket needs no connection: every datagram is given its destination (`sendto`) and comes with its source. One
that is connected all the same sends to its peer alone, hears it alone, and is told when nobody listens there. One
send is one datagram, and one receive is one datagram: whole, or cut to the buffer and marked as cut.

The two are in `message_sender` and `message_receiver`.
"""

from __future__ import annotations

import argparse
import sys

from testbed.programs._cli import (
    add_server_arguments,
    host_and_port,
    number,
    port,
    size_bytes,
    sizes_up_to,
    some,
    time_ns,
)
from testbed.programs._life import run
from testbed.programs.message_receiver import Receiver
from testbed.programs.message_sender import Sender

LARGEST_SIZE = 65535  # what the length field of UDP can say; IPv4 carries 65,507 bytes of payload


def main(argv: list[str] | None = None) -> int:
    """The command `message`. Returns the exit status: 0 done, 1 a socket error; wrong arguments exit with 2."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.mode == "receive":
        receiver = Receiver(arguments.buffer)
        return run("message receive", lambda: receiver.work(arguments), receiver.records)
    if arguments.connect and len(arguments.to) > 1:
        parser.error("--connect takes one HOST:PORT: a socket has one peer at a time")
    sender = Sender()
    return run("message send", lambda: sender.work(arguments), sender.records)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="message", description="UDP sockets: messages to and from anybody.")
    modes = parser.add_subparsers(dest="mode", required=True, metavar="receive|send")

    receive = modes.add_parser("receive", help="take every datagram that comes, until SIGTERM")
    add_server_arguments(receive)
    buffer = some(size_bytes, "holds nothing")
    receive.add_argument(
        "--buffer", type=buffer, default=LARGEST_SIZE, metavar="SIZE", help="of one receive; default 65535B"
    )
    receive.add_argument(
        "--peer", type=host_and_port, metavar="HOST:PORT", help="connect the socket to it, and so hear nobody else"
    )

    send = modes.add_parser("send", help="send messages from one socket, and hear what comes back to it")
    send.add_argument("to", type=host_and_port, nargs="+", metavar="HOST:PORT", help="every message goes to each")
    sizes = sizes_up_to(LARGEST_SIZE)
    send.add_argument(
        "--sizes", type=sizes, default=[64], metavar="SIZE,...", help="one message each; default 64B"
    )
    send.add_argument("--count", type=number, default=1, metavar="N", help="how often, all of them; default 1")
    send.add_argument("--interval", type=time_ns, default=0, metavar="TIME", help="after each; default: none")
    send.add_argument(
        "--timeout", type=time_ns, default=5 * 10**8, metavar="TIME", help="to listen on; default 500ms"
    )
    send.add_argument("--bind", metavar="IP", help="the address to send from")
    send.add_argument("--port", type=port, default=0, metavar="N", help="the port to send from; default: any")
    send.add_argument("--connect", action="store_true", help="connect the socket to HOST:PORT first")
    send.add_argument("--dont-fragment", action="store_true", help="refuse what is larger than the MTU")
    return parser


if __name__ == "__main__":
    sys.exit(main())
