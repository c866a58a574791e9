"""The floor for hosts of namespaces: fork, unshare, a veth, an address, and nothing that makes them useful.

Run by itself in a network namespace of its own: `unshare --net python -m benchmarks.bare N` prints how long it
took to bring N up and down, as JSON.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time

CLONE_NEW = 0x40000000 | 0x00020000 | 0x20000000 | 0x04000000 | 0x08000000  # net, mount, pid, uts, ipc
SIOCSIFADDR, SIOCSIFNETMASK, SIOCSIFFLAGS, IFF_UP = 0x8916, 0x891C, 0x8914, 1


def main(hosts: int) -> None:
    began = time.perf_counter()
    subprocess.run(["ip", "link", "add", "b0", "type", "bridge"], check=True)
    subprocess.run(["ip", "link", "set", "b0", "up"], check=True)
    made = [_fork(n) for n in range(hosts)]
    for _, ready, _ in made:
        os.read(ready, 1)
    lines = []
    for n, (pid, _, _) in enumerate(made):
        lines += [f"link add v{n} type veth peer name eth0 netns {pid}", f"link set v{n} master b0 up"]
    subprocess.run(["ip", "-batch", "-"], input="\n".join(lines), text=True, check=True)
    for _, _, go in made:
        os.write(go, b"x")
    for _, ready, _ in made:
        os.read(ready, 1)
    up_s = time.perf_counter() - began
    began = time.perf_counter()
    for pid, _, _ in made:
        os.kill(pid, signal.SIGKILL)
    for pid, _, _ in made:
        os.waitpid(pid, 0)
    print(json.dumps({"up_s": up_s, "down_s": time.perf_counter() - began}))


def _fork(number: int) -> tuple[int, int, int]:
    """A host: its process, where it says that it has got that far, and where it is told to go on."""
    ready_read, ready_write = os.pipe()
    go_read, go_write = os.pipe()
    pid = os.fork()
    if pid:
        os.close(ready_write)
        os.close(go_read)
        return pid, ready_read, go_write
    try:
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEW):
            raise OSError(ctypes.get_errno(), "unshare")
        os.write(ready_write, b"x")
        os.read(go_read, 1)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
            for request, ip in ((SIOCSIFADDR, address), (SIOCSIFNETMASK, "255.0.0.0")):
                value = struct.pack("16sHH4s8x", b"eth0", socket.AF_INET, 0, socket.inet_aton(ip))
                fcntl.ioctl(sock, request, value)
            fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sH14x", b"eth0", IFF_UP))
        os.write(ready_write, b"x")
        signal.pause()
    finally:
        os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
