#!/usr/bin/env bash
# redis-py 8.1.0 sends a command again by itself, also one that must not be done twice.
#
# With the defaults a command whose answer does not come in time is sent again, on a new connection, up to ten times
# (up to three times in 7.1.0, never in 5.2.1). A server that is merely slow, or behind a link that loses the answers,
# does each of them: one `incr` of the caller's adds up to 11. `retry=Retry(NoBackoff(), 0)` switches it off.
#
# Shown with a server on loopback that answers everything but INCR, and a socket_timeout of 0.2 s.
# Seen: INCR sent 1, 4 and 11 times by 5.2.1, 7.1.0 and 8.1.0; each raises TimeoutError.
set -eu
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
cat >"$work/count.py" <<'PYTHON'
import socket
import threading

import redis

seen = []
server = socket.create_server(("127.0.0.1", 0))

def serve(connection):
    while data := connection.recv(65536):
        for command in data.split(b"*")[1:]:
            if b"INCR" in command:
                seen.append(command)
            elif b"HELLO" in command:
                connection.sendall(b"%1\r\n$5\r\nproto\r\n:3\r\n")
            else:
                connection.sendall(b"+OK\r\n")

def accept():
    while True:
        threading.Thread(target=serve, args=server.accept()[:1], daemon=True).start()

threading.Thread(target=accept, daemon=True).start()
client = redis.Redis("127.0.0.1", server.getsockname()[1], socket_timeout=0.2)
try:
    client.incr("paid")
    raised = "nothing"
except redis.exceptions.RedisError as problem:
    raised = type(problem).__name__
print(f"redis-py {redis.__version__}: INCR sent {len(seen)} times, raised {raised}")
PYTHON
for release in 5.2.1 7.1.0 8.1.0; do
    python3 -m venv "$work/$release"
    "$work/$release/bin/pip" install --quiet --disable-pip-version-check "redis==$release"
    "$work/$release/bin/python" "$work/count.py" | tee -a "$work/said"
done
for line in "5.2.1: INCR sent 1 times" "7.1.0: INCR sent 4 times" "8.1.0: INCR sent 11 times"; do
    grep -qx "redis-py $line, raised TimeoutError" "$work/said"
done
