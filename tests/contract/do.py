"""The command `do` of the contract suite, as real hosts run it: `python3 do.py VERB ...`. See engines/fake.py."""

import os
import signal
import socket
import sys
import time


def serve(port: str, bind: str = "0.0.0.0") -> None:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    family = socket.AF_INET6 if ":" in bind else socket.AF_INET
    listener = socket.create_server((bind, int(port)), family=family)
    while True:
        connection, _ = listener.accept()
        connection.sendall(os.environ["TESTBED_HOST"].encode())
        connection.close()


def ask(host: str, port: str) -> None:
    try:
        with socket.create_connection((host, int(port)), timeout=2) as connection:
            print(connection.recv(1000).decode())
    except ConnectionRefusedError:
        sys.exit(4)
    except OSError as problem:
        print(problem, file=sys.stderr)
        sys.exit(3)


def resolve(host: str) -> None:
    """The addresses that a program is given which takes either version, in their order."""
    print(*(found[4][0] for found in socket.getaddrinfo(host, 1, type=socket.SOCK_STREAM)))


def stubborn(seconds: str) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("deaf", flush=True)
    time.sleep(float(seconds))


def write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def read(path: str) -> None:
    with open(path) as file:
        print(file.read())


VERBS = {
    "exit": lambda status: sys.exit(int(status)),
    "print": lambda *words: print(*words),
    "complain": lambda *words: print(*words, file=sys.stderr),
    "cat": lambda: sys.stdout.write(sys.stdin.read()),
    "env": lambda name: print(os.environ.get(name, "(unset)")),
    "where": lambda: print(os.getcwd()),
    "sleep": lambda seconds: time.sleep(float(seconds)),
    "stubborn": stubborn,
    "serve": serve,
    "ask": ask,
    "resolve": resolve,
    "write": write,
    "read": read,
}
VERBS[sys.argv[1]](*sys.argv[2:])
