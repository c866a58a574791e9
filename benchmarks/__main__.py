"""`python -m benchmarks`: every figure, as a table and as JSON. Starts and stops all that it compares with."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from benchmarks import hosts, whole, wire
from benchmarks.figures import Row, Skipped, table
from tests.docker_daemon import NoDaemon, docker_daemon

Room = Callable[[bool], Iterator[Row]]


def _docker(quick: bool) -> Iterator[Row]:
    with ExitStack() as stack:
        try:
            host = stack.enter_context(docker_daemon())
        except NoDaemon as problem:
            yield Skipped("docker", str(problem))
            return
        yield from hosts.docker(host, quick)
        os.environ["DOCKER_HOST"] = host
        yield from whole.run("docker", 2.0)


ROOMS: dict[str, Room] = {
    "namespaces": hosts.namespaces,
    "docker": _docker,
    "run": lambda _: whole.run("namespaces", 0.7),
    "wire": wire.figures,
    "memory": whole.memory,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__, allow_abbrev=False)
    parser.add_argument("--only", action="append", choices=sorted(ROOMS), help="one part; may be given again")
    parser.add_argument("--quick", action="store_true", help="small numbers: to see that it works")
    parser.add_argument("--json", type=Path, default=Path("results/bench.json"), help="default: %(default)s")
    arguments = parser.parse_args()
    rows: list[Row] = []
    for name in arguments.only or ROOMS:
        print(f"{time.strftime('%T')} {name}", file=sys.stderr, flush=True)
        rows += ROOMS[name](arguments.quick)
    print(table(rows))
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    machine = {"kernel": platform.release(), "processors": os.cpu_count(), "load": os.getloadavg()}
    arguments.json.write_text(
        json.dumps({"machine": machine, "figures": [row.to_json() for row in rows]}, indent=2)
    )
    print(f"\n{arguments.json}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
