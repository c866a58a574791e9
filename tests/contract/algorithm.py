"""Which congestion control a connection has at each of its ends, as the programs there ask the kernel.

`algorithm.py serve PORT` tells each client that of the socket it accepted; `algorithm.py ask PORT ADDRESS...
[--choose NAME]` prints for each address [its own, the server's].
"""

import json
import socket
import sys


def name(sock: socket.socket) -> str:
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode()


def serve(port: int) -> None:
    listener = socket.create_server(("", port), family=socket.AF_INET6 if socket.has_dualstack_ipv6() else 2,
                                    dualstack_ipv6=socket.has_dualstack_ipv6())  # fmt: skip
    while True:
        connection, _ = listener.accept()
        connection.sendall(name(connection).encode())
        connection.close()


def ask(port: int, address: str, choose: str) -> tuple[str, str]:
    family, kind, _, _, where = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind) as sock:
        sock.settimeout(10)
        if choose:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, choose.encode())
        sock.connect(where)
        return name(sock), sock.recv(100).decode()


if sys.argv[1] == "serve":
    serve(int(sys.argv[2]))
chosen = sys.argv[sys.argv.index("--choose") + 1] if "--choose" in sys.argv else ""
addresses = sys.argv[3 : sys.argv.index("--choose")] if chosen else sys.argv[3:]
json.dump({address: ask(int(sys.argv[2]), address, chosen) for address in addresses}, sys.stdout)
