"""Words of other tools, and of daily use, that stand where a key of the format is meant: what to write instead."""

from __future__ import annotations

NETWORK: dict[str, str] = {
    "driver": "every network is an isolated one; leave it out",
    "internal": "every network is an isolated one; leave it out",
    "ipam": "did you mean `subnet`?",
    **dict.fromkeys("enable_ipv6 ipv6 ipv6_enabled".split(), "did you mean `ip: dual`?"),
    "hosts": "a host says where it is: `hosts: {NAME: {networks: [lan]}}`",
    "cidr": "did you mean `subnet`?",
}

ATTACHMENT: dict[str, str] = {
    "ip": "did you mean `address`?",
    "ipv4_address": "did you mean `address`?",
}

STDIN: dict[str, str] = {
    "path": "did you mean `file`?",
    "source": "did you mean `file`?",
    "content": "did you mean `text`?",
}

FILESOURCE: dict[str, str] = {
    **dict.fromkeys("src path file from".split(), "did you mean `source`?"),
    "content": "did you mean `text`?",
    **dict.fromkeys("dest dst target to".split(), "as in `files: {TARGET: SOURCE}`"),
}

READY: dict[str, str] = {
    "test": "did you mean `answers`?",
    "timeout": "did you mean `within`?",
    "interval": "it is asked again until `within` is over",
    "retries": "it is asked again until `within` is over",
    "start_period": "did you mean `within`?",
    **dict.fromkeys("port ports tcp udp socket listen listening".split(), "did you mean `listens`?"),
    **dict.fromkeys("sleep delay after seconds".split(), "did you mean `wait`?"),
    **dict.fromkeys(
        "stdout output log logs says text line pattern regex message".split(), "did you mean `prints`?"
    ),
    **dict.fromkeys("command cmd exec run check probe".split(), "did you mean `answers`?"),
    **dict.fromkeys(
        "http url https path".split(), "`answers: COMMAND`, as in `answers: curl -f http://localhost/`"
    ),
}

RUN_OR_SERVE = "did you mean `run` (ends by itself) or `serve` (lives to the end)?"

PROGRAM: dict[str, str] = {
    **dict.fromkeys("command cmd entrypoint exec execute start script program exe".split(), RUN_OR_SERVE),
    **dict.fromkeys("server daemon service".split(), "did you mean `serve`?"),
    **dict.fromkeys("listen listens".split(), "a `serve` is ready when it listens: `ready: {listens: 9000}`"),
    **dict.fromkeys("wait_for needs wait_until".split(), "did you mean `after`?"),
    **dict.fromkeys(
        "sleep wait delay_start start_delay".split(),
        "`after` says what it waits for; or `run: sh -c 'sleep 3; …'`",
    ),
    **dict.fromkeys(
        "exit exits exit_code returncode expected_exit".split(),
        "a `run` must end with 0; write `run: sh -c '…; test $$? = 1'` for another status",
    ),
    **dict.fromkeys("stdout stderr output".split(), "it is kept; say of it under `expect` what must hold"),
    **dict.fromkeys(
        "retries retry".split(), "nothing is tried again: what fails once is what a test wants to see"
    ),
    "client": "did you mean `run`?",
    "depends_on": "did you mean `after`?",
    "healthcheck": "did you mean `ready`?",
    "env": "did you mean `environment`?",
    "env_file": "write the variables under `environment`",
    "cwd": "did you mean `working_dir`?",
    "workdir": "did you mean `working_dir`?",
    "restart": "nothing is restarted: a program that ends early is what a test wants to see",
    "input": "did you mean `stdin`?",
    "artifacts": "did you mean `collect`?",
    "args": "the arguments stand in the command: `run: PROGRAM ARGUMENTS`",
}

HOST: dict[str, str] = {
    **PROGRAM,
    "ports": "nothing is published: hosts reach each other at every port",
    "expose": "nothing is published: hosts reach each other at every port",
    "hostname": "a host is called as its key under `hosts`",
    "container_name": "a host is called as its key under `hosts`",
    "network": "did you mean `networks`?",
    "ip": "did you mean `networks: {lan: {address: ...}}`?",
    "replicas": "did you mean `count`?",
    "scale": "did you mean `count`?",
    "deploy": "did you mean `count`?",
    "privileged": "name what it needs under `cap_add`",
    "capabilities": "did you mean `cap_add`?",
    "capability": "did you mean `cap_add`?",
    "links": "`links` stands at the left of the file; hosts on one network reach each other without",
    "extra_hosts": "hosts know each other by name",
    "tmpfs": "`/tmp` and others are in memory anyway; what hosts share is a volume",
    "memory": "every host has 2 GiB",
    "ulimits": "every host has the same limits",
    "address": "did you mean `networks: {lan: {address: ...}}`?",
    "ip_address": "did you mean `networks: {lan: {address: ...}}`?",
    "virtualenv": "did you mean `venv`?",
    "shell": "ask for one: `run: sh -c 'COMMANDS'`",
    "steps": "a program each: `programs: {first: {run: COMMAND}, second: {run: COMMAND, after: first}}`",
    "congestion_control": "did you mean `congestion`?",
    "tcp_congestion_control": "did you mean `congestion`?",
    "programmes": "did you mean `programs`?",
}

REORDER: dict[str, str] = {
    **dict.fromkeys("gap distance packets depth".split(), "did you mean `by`?"),
    **dict.fromkeys("percent probability chance of".split(), "did you mean `ratio`?"),
}

CONDITION: dict[str, str] = {
    "latency": "did you mean `delay`?",
    "bandwidth": "did you mean `rate`?",
    "bw": "did you mean `rate`?",
    "speed": "did you mean `rate`?",
    "throughput": "did you mean `rate`?",
    "packet_loss": "did you mean `loss`?",
    "limit": "did you mean `queue`?",
    "buffer": "did you mean `queue`?",
    "max_queue_size": "did you mean `queue`?",
    "duplication": "did you mean `duplicate`?",
    "reordering": "did you mean `reorder`?",
    **dict.fromkeys("round_trip round_trip_time roundtrip ping".split(), "did you mean `rtt`?"),
    **dict.fromkeys("lag one_way_delay wait".split(), "did you mean `delay`?"),
    **dict.fromkeys("drops dropped lost losses loss_ratio loss_rate".split(), "did you mean `loss`?"),
    **dict.fromkeys("netem tbf tc qdisc".split(), "as in `{delay: 20 ms, loss: 5 %, rate: 10 Mbit/s}`"),
    **dict.fromkeys("symmetric both bidirectional duplex".split(), "`a <-> b` is both ways"),
    **dict.fromkeys("from to source target src dst between hosts ends".split(), "the key names both: `a -> b`"),
}

EXPECTATION: dict[str, str] = {
    **dict.fromkeys("check expect assert test expression condition if".split(), "did you mean `that`?"),
    **dict.fromkeys("why message reason name about description comment".split(), "did you mean `because`?"),
}

SCENARIO: dict[str, str] = {
    "services": "did you mean `hosts`?",
    "nodes": "did you mean `hosts`?",
    "containers": "did you mean `hosts`?",
    "version": "did you mean `testbed: 1`?",
    "description": "did you mean `about`?",
    "topology": "hosts stand under `hosts`, links under `links`",
    "assertions": "did you mean `expect`?",
    "expectations": "did you mean `expect`?",
    "expected": "did you mean `expect`?",
    "validate": "did you mean `expect`?",
    "title": "did you mean `about`?",
}
