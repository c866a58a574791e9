"""Everything that can be wrong with a file's meaning: where it is, what was expected, what to write instead."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from testbed.errors import Problem, ScenarioError
from testbed.project.root import Project
from testbed.scenario import check, load, parse

TWO = "hosts:\n  a: {serve: echo}\n  b: {run: probe a:9000}\n"


def problems(text: str, file: str = "t.yaml") -> list[Problem]:
    return check("testbed: 1\nabout: x\n" + textwrap.dedent(text), file)


def only(text: str) -> Problem:
    found = problems(text)
    assert len(found) == 1, "\n".join(map(str, found))
    return found[0]


CASES = [
    # unknown and reserved keys, other tools' words
    ("expct: []\n" + TWO, 3, 1, "unknown key `expct` in a scenario", "did you mean `expect`?"),
    ("services: {}\n" + TWO, 3, 1, "unknown key `services`", "did you mean `hosts`?"),
    ("nodes: {}\n" + TWO, 3, 1, "unknown key `nodes`", "did you mean `hosts`?"),
    ("matrix: {}\n" + TWO, 3, 1, "`matrix` is known, but not in this version", ""),
    ("hosts: {a: {run: x, cpus: 2}}\n", 3, 21, "`cpus` is known, but not in this version", ""),
    ("hosts: {a: {run: x, ports: [80]}}\n", 3, 21, "unknown key `ports`", "nothing is published"),
    ("hosts: {a: {run: x, comand: y}}\n", 3, 21, "unknown key `comand`", "`run` (ends by itself) or `serve`"),
    ("hosts: {a: {run: x, depends_on: y}}\n", 3, 21, "unknown key `depends_on`", "did you mean `after`?"),
    ("hosts: {a: {run: x, healthcheck: y}}\n", 3, 21, "unknown key `healthcheck`", "did you mean `ready`?"),
    ("hosts: {a: {run: x, env: y}}\n", 3, 21, "unknown key `env`", "did you mean `environment`?"),
    ("hosts: {a: {run: x, tiemout: 5 s}}\n", 3, 21, "unknown key `tiemout`", "did you mean `timeout`?"),
    ("hosts: {a: {programs: {p: {run: x, command: y}}}}\n", 3, 36, "unknown key `command` in a program", "`run`"),
    (TWO + "links: {a -> b: {latency: 5 ms}}\n", 6, 18, "unknown key `latency`", "did you mean `delay`?"),
    (TWO + "links: {a -> b: {bandwidth: 5 ms}}\n", 6, 18, "unknown key `bandwidth`", "did you mean `rate`?"),
    (TWO + "links: {a -> b: {packet_loss: 5 %}}\n", 6, 18, "unknown key `packet_loss`", "did you mean `loss`?"),
    (TWO + "links: {a -> b: {dealy: 5 ms}}\n", 6, 18, "unknown key `dealy`", "did you mean `delay`?"),
    (TWO + "links: {a -> b: {only: udp 53}}\n", 6, 18, "`only` is known, but not in this version", ""),
    (TWO + "links: {a -> b: {loss: {ratio: 3 %, burst: 8 packets}}}\n", 6, 24, "not in this version", "`10 %`"),
    (TWO + "links: {a -> b: {rate: {at: 3 Mbit/s}}}\n", 6, 24, "not in this version", "`10 Mbit/s`"),
    (TWO + "links: {a -> b: {rate: 1 Mbit/s, queue: {is: 3}}}\n", 6, 41, "not in this version", "`64 KiB`"),
    (TWO + "links: {a -> b: {delay: 5 ms, jitter: {of: 2 ms, order: strict}}}\n", 6, 57, "`strict`", "free, kept"),
    (TWO + "links: {a -> b: [{}, {}]}\n", 6, 22, "a second condition for one link is known", ""),
    ("networks: {lan: {mtu: 9000}}\n" + TWO, 3, 18, "`mtu` is known, but not in this version", ""),
    (TWO + "expect: [{that: b.exit == 0, level: warning}]\n", 6, 30, "`level` is known", ""),
    # shapes
    ("hosts: [a]\n", 3, 8, "hosts: expected a mapping of hosts, found a list", ""),
    ("hosts: {a: echo}\n", 3, 12, "a host is a mapping, found `echo`", ""),
    (TWO + "tags: udp\n", 6, 7, "expected a list of tags, found `udp`", "write `tags: [udp]`"),
    (TWO + "links: {a -> b: 5 ms}\n", 6, 17, "a condition is a mapping, found `5 ms`", ""),
    (TWO + "links: {a -> b: {reorder: 5 %}}\n", 6, 27, "reorder is a mapping", "{ratio: 5 %, by: 3 packets}"),
    (TWO + "links: {a -> b: {reorder: {ratio: 5 %}}}\n", 6, 27, "reorder needs `by`", ""),
    (TWO + "links: {a -> b: {delay: 5 ms, jitter: {distribution: normal}}}\n", 6, 39, "jitter needs `of`", ""),
    (TWO + "expect: [{because: y}]\n", 6, 10, "an expectation needs `that`", ""),
    (TWO + "about2: \n", 6, 1, "unknown key `about2`", "did you mean `about`?"),
    ("hosts: {a: {run: x, environment: {A: }}}\n", 3, 37, "expected text, found nothing", 'written ""'),
    ("hosts: {a: {run: x, after: }}\n", 3, 27, "expected the names of programs, found nothing", ""),
    # names
    ("hosts: {A_b: {run: x}}\n", 3, 9, "`A_b` is no name", "as in `a-b`"),
    ("hosts: {-a: {run: x}}\n", 3, 9, "`-a` is no name", "as in `a`"),
    ("hosts: {all: {run: x}}\n", 3, 9, "`all` cannot be a name", ""),
    ("hosts: {a: {programs: {kernel: {run: x}}}}\n", 3, 24, "`kernel` cannot be a name", ""),
    ("hosts: {" + "a" * 64 + ": {run: x}}\n", 3, 9, "is no name", "at most 63"),
    ("hosts: {" + "a" * 62 + ": {run: x, count: 2}}\n", 3, 9, "too long for the members of a group", ""),
    ("hosts: {a: {count: 2, run: x}, a-2: {}}\n", 3, 9, "would have a member a-2", ""),
    ("name: other\n" + TWO, 3, 7, "`name` is other, and the file is called t", "leave it out"),
    # numbers and units
    ("seed: -1\n" + TWO, 3, 7, "seed: `-1` is no whole number", ""),
    ("seed: 010\n" + TWO, 3, 7, "seed: `010` is no whole number", "without a leading 0"),
    ("seed: 99999999999999999999\n" + TWO, 3, 7, "outside 0 to", ""),
    ("timeout: 60\n" + TWO, 3, 10, "timeout: `60` has no unit", "`60 s`"),
    ("timeout: 1:30\n" + TWO, 3, 10, "timeout: `1:30` is no time", "`90 s`"),
    ("timeout: 0 s\n" + TWO, 3, 10, "timeout: `0 s` is too small", "at least 1 ns"),
    (TWO + "links: {a -> b: {loss: 10}}\n", 6, 24, "loss: `10` has no unit", "did you mean `10 %`?"),
    (TWO + "links: {a -> b: {loss: 0.1}}\n", 6, 24, "loss: `0.1` has no unit", "did you mean `10 %`?"),
    (TWO + "links: {a -> b: {loss: 101 %}}\n", 6, 24, "outside 0 % to 100 %", ""),
    (TWO + "links: {a -> b: {rate: 10 Mbps}}\n", 6, 24, "`Mbps` is no unit", "did you mean `10 Mbit/s`?"),
    (TWO + "links: {a -> b: {rate: 0 bit/s}}\n", 6, 24, "too small", "at least 1 bit/s"),
    (
        TWO + "links: {a -> b: {rate: 1 Mbit/s, queue: 5}}\n",
        6,
        41,
        "no length of a queue",
        "did you mean `5 packets`?",
    ),
    ("hosts: {a: {run: x, count: 0}}\n", 3, 28, "0 is outside 1 to 1000", ""),
    ("hosts: {a: {run: x, stop_signal: TERM}}\n", 3, 34, "`TERM` is no signal", "did you mean `SIGTERM`?"),
    ("requires: [dokcer]\n" + TWO, 3, 12, "`dokcer` is no requirement", "did you mean `docker`?"),
    # conditions
    (TWO + "links: {a -> b: {rtt: 20 ms}}\n", 6, 18, "`rtt` on `a -> b`, which is one way", "`<->`"),
    (TWO + "links: {a <-> b: {rtt: 20 ms, delay: 1 ms}}\n", 6, 19, "`rtt` and `delay` say the same", ""),
    (TWO + "links: {lan: {rtt: 3 ns}}\n", 6, 15, "3 ns has no half in whole ns", ""),
    (TWO + "links: {a -> b: {queue: 5 packets}}\n", 6, 18, "`queue` without `rate`", "add `rate`"),
    # links
    (TWO + "links: {a -> c: {}}\n", 6, 9, "`a -> c` names no one: there is no host `c`", "hosts: a, b, all"),
    (TWO + "links: {lna: {}}\n", 6, 9, "there is no network `lna`", "did you mean `lan`?"),
    (TWO + "links: {a: {}}\n", 6, 9, "`a` is a host, and a link has two ends", "`a <-> b`"),
    (TWO + "links: {a -> a: {}}\n", 6, 9, "`a -> a` names no one", ""),
    (TWO + "links: {a <- b: {}}\n", 6, 9, "`a <- b` is no link", "write `b -> a`"),
    (TWO + "links: {a to b: {}}\n", 6, 9, "`a to b` is no link", "write `a -> b`"),
    (TWO + "links: {a -> b over wan: {}}\n", 6, 9, "there is no network `wan`", "did you mean `lan`?"),
    (
        TWO + "links: {a -> b: {}, a <-> b: {}}\n",
        6,
        21,
        "`a <-> b` and `a -> b` both set a -> b over lan",
        "leave one",
    ),
    ("hosts: {a: {count: 2, run: x}, b: {}}\nlinks: {a -> b: {}, all -> b: {}}\n", 4, 21, "both set a-1 -> b", ""),
    ("hosts: {a: {run: x}}\nlinks: {lan: {}}\n", 4, 9, "names no one: the network has 1 host", ""),
    # run, serve, ready
    ("hosts: {a: {run: x, serve: y}}\n", 3, 21, "a program has both `run` and `serve`", "not both"),
    ("hosts: {a: {timeout: 5 s}, b: {run: x}}\n", 3, 12, "a program needs `run` or `serve`", ""),
    ("hosts: {a: {image: x, timeout: 5 s}, b: {run: x}}\n", 3, 23, "`timeout` is for a `run`", "`within`"),
    (
        "hosts: {a: {image: x, programs: {p: {user: u}, q: {user: v}}}, b: {run: x}}\n",
        3,
        51,
        "a program needs `run` or `serve`",
        "another program of this host is what its image serves",
    ),
    (
        "hosts: {a: {image: x}, b: {run: x, after: {a: ended}}}\n",
        3,
        44,
        "after: a.a is a `serve` and lives to the end",
        "did you mean `ready`?",
    ),
    ("hosts: {a: {programs: {p: {run: x}}, run: x}}\n", 3, 38, "`run` stands beside `programs`", "into one of"),
    ("hosts: {a: {serve: x}}\n", 3, 1, "nothing ends the run", "duration: 10 s"),
    ("duration: 3 min\n" + TWO, 3, 1, "`duration` 3 min does not fit into `timeout` 2 min", "longer `timeout`"),
    ("hosts: {a: {run: x, ready: {wait: 1 s}}}\n", 3, 21, "`ready` is for a `serve`", ""),
    ("hosts: {a: {serve: x, timeout: 1 s}, b: {run: x}}\n", 3, 23, "`timeout` is for a `run`", "`within`"),
    ("hosts: {a: {serve: x, ready: {}}, b: {run: x}}\n", 3, 30, "`ready` is empty", "listens"),
    ("hosts: {a: {serve: x, ready: 80}, b: {run: x}}\n", 3, 30, "`ready` is a mapping", "{listens: 80}"),
    (
        "hosts: {a: {serve: x, ready: {listens: 1, wait: 1 s}}, b: {run: x}}\n",
        3,
        43,
        "both `listens` and `wait`",
        "",
    ),
    ("hosts: {a: {serve: x, ready: {listens: 70000}}, b: {run: x}}\n", 3, 40, "nothing to listen on", "udp 53"),
    ("hosts: {a: {serve: x, ready: {prints: up}}, b: {run: x}}\n", 3, 39, "no regular expression", "/up/"),
    ("hosts: {a: {serve: x, ready: {prints: /(/}}, b: {run: x}}\n", 3, 39, "missing )", ""),
    ("hosts: {a: {serve: x, ready: {wait: 2 s, within: 1 s}}, b: {run: x}}\n", 3, 42, "over before `wait`", ""),
    # after
    ("hosts: {a: {run: x, after: bb}, b: {run: x}}\n", 3, 28, "there is no program `bb`", "did you mean `b`?"),
    (
        "hosts: {a: {run: x, after: {b: done}}, b: {run: x}}\n",
        3,
        32,
        "`done` is no state",
        "did you mean `ended`?",
    ),
    (
        "hosts: {a: {run: x, after: {b: ready}}, b: {run: x}}\n",
        3,
        29,
        "is a `run` and never gets ready",
        "`ended`?",
    ),
    ("hosts: {a: {run: x, after: {b: ended}}, b: {serve: x}}\n", 3, 29, "is a `serve` and lives", "`ready`?"),
    ("hosts: {a: {run: x, after: {b: {condition: y}}}, b: {run: x}}\n", 3, 32, "a state is one word", "`ended`"),
    (
        "hosts: {a: {run: x, after: p}, b: {programs: {p: {run: x}}}, c: {programs: {p: {run: x}}}}\n",
        3,
        28,
        "`p` is a program of b, c",
        "write b.p or c.p",
    ),
    ("hosts: {a: {run: x, after: a}}\n", 3, 21, "programs wait for each other: a.a -> a.a", ""),
    (
        "hosts: {a: {run: x, after: b}, b: {run: x, after: c}, c: {run: x, after: a}}\n",
        3,
        21,
        "programs wait for each other: a.a -> b.b -> c.c -> a.a",
        "",
    ),
    (
        "hosts: {a: {serve: x, after: b}, b: {run: x}}\n",
        3,
        23,
        "programs wait for each other: a.a -> b.b -> a.a",
        "b.b has no `after`, so it waits for every `serve`",
    ),
    # commands and variables
    ("hosts: {a: {run: x | y}}\n", 3, 18, "`|` is for a shell", "sh -c 'x | y'"),
    ("hosts: {a: {run: x > y}}\n", 3, 18, "`>` is for a shell", "sh -c 'x > y'"),
    ("hosts: {a: {run: x && y}}\n", 3, 18, "`&&` is for a shell", "sh -c 'x && y'"),
    ("hosts: {a: {run: x; y}}\n", 3, 18, "`;` is for a shell", "sh -c 'x; y'"),
    ("hosts: {a: {run: x *}}\n", 3, 18, "`*` is for a shell", "sh -c 'x *'"),
    ("hosts: {a: {run: x `y`}}\n", 3, 18, "``` is for a shell", "sh -c 'x `y`'"),
    ("hosts: {a: {run: x 'y}}\n", 3, 18, "a ' has no end", ""),
    ('hosts: {a: {run: ""}}\n', 3, 18, "the command is empty", ""),
    ("hosts: {a: {run: []}}\n", 3, 18, "the command is empty", ""),
    ("hosts: {a: {run: x $nmae}}\n", 3, 18, "`$nmae` stands for nothing", "did you mean `$name`?"),
    ("hosts: {a: {run: x $HOME}}\n", 3, 18, "`$HOME` stands for nothing", "$$ is a dollar"),
    ("hosts: {a: {run: x $b.ip}}\n", 3, 18, "`$b.ip` stands for nothing", "`$a.ip`"),
    ("hosts: {a: {run: x $a.ip6}}\n", 3, 18, "`$a.ip6`: a has no IPv6 address there", "it is on lan; `ip: dual`"),
    (
        "hosts: {a: {run: 'x $a.lan.ip6'}}\n",
        3,
        18,
        "a has no IPv6 address there",
        "`ip: dual` gives a network both",
    ),
    ("hosts: {a: {run: x $b.ip6}}\n", 3, 18, "`$b.ip6` stands for nothing", ""),
    ("hosts: {a: {run: x $a.wan.ip}}\n", 3, 18, "a has no address there", "it is on lan"),
    ("hosts: {a: {run: x $g.ip}, g: {count: 2}}\n", 3, 18, "g is 2 hosts", "$g-1.ip"),
    ("hosts: {a: {run: x $index-1}}\n", 3, 18, "`$index-1` stands for nothing", "${index}-1"),
    ("hosts: {a: {run: x, stdin: $q}}\n", 3, 28, "`$q` stands for nothing", ""),
    ('hosts: {a: {run: x, stdin: "${q"}}\n', 3, 28, "`${q` has no }", "$$"),
    ("hosts: {a: {run: x, environment: {A: $q}}}\n", 3, 38, "`$q` stands for nothing", ""),
    ("hosts: {a: {serve: x, ready: {answers: $q}}, b: {run: x}}\n", 3, 40, "`$q` stands for nothing", ""),
    ("hosts: {a: {run: x, environment: {TESTBED_X: y}}}\n", 3, 35, "set by the testbed", ""),
    ("hosts: {a: {run: x, environment: {A-B: y}}}\n", 3, 35, "no name of an environment variable", ""),
    # files
    ("hosts: {a: {run: x, files: [../x]}}\n", 3, 29, "needs a name in the host", "{x: ../x}"),
    (
        "hosts: {a: {run: x, files: [/etc/passwd]}}\n",
        3,
        29,
        "`/etc/passwd` is no relative path",
        "../certs/ca.pem",
    ),
    ("hosts: {a: {run: x, files: [~/x]}}\n", 3, 29, "`~/x` is no relative path", "stays in the project"),
    ("hosts: {a: {run: x, files: [a/../../b]}}\n", 3, 29, "needs a name in the host", "{b: a/../../b}"),
    ("hosts: {a: {run: x, files: {../t: b}}}\n", 3, 29, "`../t` has a `..` in it", ""),
    ("hosts: {a: {run: x, files: {t: b, ./t: c}}}\n", 3, 35, "`./t` and `t` are the same file", ""),
    ("hosts: {a: {run: x, files: {t: {text: a, source: b}}}}\n", 3, 42, "both `text` and `source`", ""),
    ("hosts: {a: {run: x, stdin: {file: /x}}}\n", 3, 35, "no relative path", ""),
    ("hosts: {a: {build: /x, run: y}}\n", 3, 20, "no relative path", ""),
    ("hosts: {a: {run: x, working_dir: y}}\n", 3, 34, "no absolute path", "/y"),
    ("hosts: {a: {run: x, collect: [a/../b]}}\n", 3, 31, "has a `..` in it", ""),
    # metrics
    ("hosts: {a: {run: x, metrics: {exit: {prints: /x/}}}}\n", 3, 31, "every program has by itself", ""),
    ("hosts: {a: {run: x, metrics: {A: {prints: /x/}}}}\n", 3, 31, "no name of a metric", ""),
    ("hosts: {a: {run: x, metrics: {m: {}}}}\n", 3, 34, "a metric needs `prints` or `json`", ""),
    ("hosts: {a: {run: x, metrics: {m: {json: a..b}}}}\n", 3, 41, "no path into a JSON object", ""),
    ("hosts: {a: {run: x, metrics: {m: {json: a, unit: sec}}}}\n", 3, 50, "`sec` is no unit", "one of ns"),
    ("hosts: {a: {run: x, metrics: {m: {json: a, file: /l}}}}\n", 3, 50, "/l is not collected", "collect: [/l]"),
    # hosts
    ("hosts: {a: {image: x, build: y, run: z}}\n", 3, 23, "`image` or `build`, not both", ""),
    ("hosts: {a: {run: x, cap_add: [NET_ADMN]}}\n", 3, 31, "no capability", "`NET_ADMIN`"),
    ("hosts: {a: {run: x, cap_add: [SYS_ADMIN]}}\n", 3, 31, "`SYS_ADMIN` is never given", ""),
    ("hosts: {a: {run: x, cap_add: [SYS_PTRACE]}}\n", 3, 31, "`SYS_PTRACE` is never given", ""),
    ("hosts: {a: {run: x, cap_add: [CAP_BPF]}}\n", 3, 31, "`BPF` is never given", ""),
    ("hosts: {a: {run: x, cap_add: [KILL], cap_drop: [CAP_KILL]}}\n", 3, 49, "both in `cap_add` and", ""),
    ("hosts: {a: {run: x, sysctls: {kernel.shmmax: 1}}}\n", 3, 31, "no sysctl of a host", "`net.`"),
    ("hosts: {a: {run: x, congestion: cubik}}\n", 3, 33, "`cubik` is no congestion control", "`cubic`"),
    ("hosts: {a: {run: x, congestion: vegas}}\n", 3, 33, "no congestion control", "cubic, reno, bbr, machine"),
    ("hosts: {a: {run: x, tcp_congestion_control: bbr}}\n", 3, 21, "unknown key", "`congestion`"),
    (
        "hosts: {a: {run: x, congestion: bbr, sysctls: {net.ipv4.tcp_congestion_control: bbr}}}\n",
        3,
        48,
        "say the same thing twice",
        "leave the sysctl out",
    ),
    ("hosts: {a: {run: x, volumes: [v:/x]}}\n", 3, 31, "there is no volume `v`", "volumes: {v: }"),
    ("volumes: {spol: }\nhosts: {a: {run: x, volumes: [spool:/x]}}\n", 4, 31, "no volume `spool`", "`spol`"),
    ("volumes: {v: }\nhosts: {a: {run: x, volumes: [v:/x, v:/x]}}\n", 4, 37, "two volumes on /x", ""),
    ("hosts: {a: {run: x, volumes: [../x:/x]}}\n", 3, 31, "a directory needs `:ro`", "../x:/x:ro"),
    ("hosts: {a: {run: x, volumes: [../x:/x:rw]}}\n", 3, 31, "a directory needs `:ro`", "../x:/x:ro"),
    ("hosts: {a: {run: x, volumes: ['./x:/x:ro,z']}}\n", 3, 31, "a directory needs `:ro`", "./x:/x:ro"),
    ("hosts: {a: {run: x, volumes: [/x:/x:ro]}}\n", 3, 31, "`/x` is no relative path", "../certs"),
    ("hosts: {a: {run: x, volumes: [~/x:/x:ro]}}\n", 3, 31, "`~/x` is no relative path", ""),
    ("hosts: {a: {run: x, volumes: [../x:x:ro]}}\n", 3, 31, "`x` is no absolute path", "/x"),
    ("hosts: {a: {run: x, volumes: [src:/x:ro]}}\n", 3, 31, "share a volume to write to it", "./src:/x:ro"),
    ("hosts: {a: {run: x, volumes: [src]}}\n", 3, 31, "`src` is no mount", "../src:/path:ro"),
    ("hosts: {a: {run: x, volumes: [../x:/x:ro, ../y:/x/:ro]}}\n", 3, 43, "two volumes on /x/", ""),
    ("hosts: {a: {run: x, volumes: [../x:/etc:ro]}}\n", 3, 31, "a host has its own /etc", "/srv/data"),
    ("hosts: {a: {run: x, volumes: [../x:/var:ro]}}\n", 3, 31, "a host has its own /var", "/srv/data"),
    ("volumes: {v: }\nhosts: {a: {run: x, volumes: [v:/proc/x]}}\n", 4, 31, "a host has its own /proc/x", ""),
    (
        "hosts: {a: {run: x, volumes: [../x:/app:ro], working_dir: /app, files: [y]}}\n",
        3,
        73,
        "`../x` is on /app, which is read-only",
        "{/scenario/TARGET: PATH}",
    ),
    ("volumes: {v: local}\nhosts: {a: {run: x}}\n", 3, 14, "expected nothing here", ""),
    ("hosts: {}\n", 3, 1, "there is no host", ""),
    # networks and addresses
    (
        "networks: {l: , m: }\nhosts: {a: {run: x}}\n",
        4,
        9,
        "`a` is on no network: there are l, m",
        "networks: [l]",
    ),
    ("hosts: {a: {run: x, networks: [wan]}}\n", 3, 32, "there is no network `wan`", "`lan`"),
    ("networks: {n: {subnet: 10.0.0.0/30}}\n" + TWO, 3, 24, "no subnet for hosts", "/29"),
    ("networks: {n: {subnet: 10.0.0.1/24}}\n" + TWO, 3, 24, "has host bits set", ""),
    ("networks: {n: {subnet: 10.0.0}}\n" + TWO, 3, 24, "is no subnet", "198.18.7.0/24"),
    ("networks: {n: {subnet: 2001:2::/48}}\n" + TWO, 3, 24, "an IPv6 `subnet` is known", "`ip: dual`"),
    ("networks: {n: {ip: 6}}\n" + TWO, 3, 20, "`ip: 6` is known, but not in this version", "`ip: dual` has both"),
    ("networks: {n: {ip: both}}\n" + TWO, 3, 20, "`both` is no version of IP for a network", "4 or dual"),
    ("networks: {n: {subnet: 224.0.0.0/24}}\n" + TWO, 3, 24, "set aside", ""),
    (
        "networks: {l: {subnet: 10.1.0.0/16}, m: {subnet: 10.1.1.0/24}}\nhosts: {a: {networks: [l, m], run: x}}\n",
        3,
        50,
        "10.1.1.0/24 of m overlaps 10.1.0.0/16 of l",
        "",
    ),
    (
        "networks: {l: {subnet: 10.1.0.0/29}}\nhosts: {a: {count: 6, run: x}}\n",
        3,
        24,
        "10.1.0.0/29 has room for 5 hosts, and l has 6",
        "",
    ),
    ("hosts: {a: {networks: {lan: {address: 1.2.3.4}}, run: x}}\n", 3, 39, "lan has no `subnet` of its own", ""),
]
ADDRESSED = "networks: {l: {subnet: 10.1.0.0/24}}\nhosts: "
CASES += [
    (ADDRESSED + "{a: {networks: {l: {address: 10.2.0.5}}, run: x}}\n", 4, 37, "no host's address", "10.1.0.2 to"),
    (
        ADDRESSED + "{a: {networks: {l: {address: 10.1.0.1}}, run: x}}\n",
        4,
        37,
        "no host's address",
        "the gateway's",
    ),
    (ADDRESSED + "{a: {networks: {l: {address: 10.1.0}}, run: x}}\n", 4, 37, "`10.1.0` is no address", ""),
    (ADDRESSED + "{a: {count: 2, networks: {l: {address: 10.1.0.9}}, run: x}}\n", 4, 47, "every a", ""),
    (
        ADDRESSED + "{a: {networks: {l: {address: 10.1.0.9}}, run: x}, b: {networks: {l: {address: 10.1.0.9}}}}\n",
        4,
        86,
        "10.1.0.9 is that of a already",
        "",
    ),
    # the end, saboteurs
    (TWO + "ends: fail\n", 6, 7, "expected how the run ends, found `fail`", "{fail: part of the reason}"),
    (TWO + "ends: {fial: x}\n", 6, 7, "`fial` is no outcome", "did you mean `fail`?"),
    (TWO + "ends: {fail: x, error: y}\n", 6, 7, "`ends` names one outcome", ""),
    (TWO + "fails_when: {x: 5}\n", 6, 17, "expected a piece of a scenario, found `5`", ""),
    (TWO + "fails_when: {x: {hosts: {c: }}}\n", 6, 26, "there is no `c` to remove", "{} is an empty one"),
    (TWO + "fails_when: {x: {name: t}}\n", 6, 18, "`name` cannot be changed by a saboteur", ""),
    (TWO + "fails_when: {x: {hosts: {b: null}}}\n", 6, 18, "with `x` of fails_when: nothing ends the run", ""),
    (TWO + "fails_when: {x: {links: {a -> c: {}}}}\n", 6, 26, "with `x` of fails_when: `a -> c` names no one", ""),
]


@pytest.mark.parametrize(("text", "line", "column", "message", "hint"), CASES, ids=lambda value: str(value)[:60])
def test_a_problem_its_place_and_what_to_write(text: str, line: int, column: int, message: str, hint: str) -> None:
    problem = only(text)
    assert not problem.warning
    assert message in problem.message
    assert hint in problem.hint
    assert (problem.line, problem.column) == (line, column), problem


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("hosts: {a: {run: x}}\n", 1, 1, "a scenario needs `testbed`"),
        ("hosts: {a: {run: x}}\ntestbed: 1\n", 2, 1, "`testbed` comes first"),
        ("testbed: 2\nhosts: {a: {run: x}}\n", 1, 10, "needs a newer testbed"),
        ("testbed: one\nhosts: {a: {run: x}}\n", 1, 10, "`one` is no version of the format"),
        ("testbed: 1\n", 1, 1, "a scenario needs `hosts`"),
    ],
)
def test_the_first_line(text: str, line: int, column: int, message: str) -> None:
    found = [problem for problem in check(text, "t.yaml") if not problem.warning]
    assert [(problem.line, problem.column) for problem in found] == [(line, column)]
    assert message in found[0].message


def test_a_missing_promise_is_a_warning_and_no_error() -> None:
    text = "testbed: 1\nhosts: {a: {run: x}}\n"
    assert [(problem.warning, "`about` is missing" in problem.message) for problem in check(text, "t.yaml")] == [
        (True, True)
    ]
    assert parse(text, "t.yaml").about is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TWO + "links: {a -> b: {delay: 1 ms, jitter: 2 ms}}\n", "jitter of 2 ms around a delay of 1 ms"),
        ("hosts: {a: {run: x, timeout: 5 min}}\n", "5 min is more than the whole run has, 2 min"),
    ],
)
def test_what_is_only_odd_is_a_warning(text: str, message: str) -> None:
    problem = only(text)
    assert problem.warning
    assert message in problem.message


def test_all_problems_come_at_once_in_the_order_of_the_file() -> None:
    found = problems("""\
        seed: x
        hosts:
          a: {serve: echo, timeout: 5 s, colour: red}
          b: {run: "probe | tee", after: c}
          c: {networks: [wan], run: $who}
        links:
          a -> d: {delay: 20, lose: 5 %}
          b -> a: {rtt: 20 ms}
        expect: b.exit == 0
        fails_when:
          worse: {links: {a -> b: {loss: 101 %}}}
        """)
    assert [(problem.line, problem.message.split("`")[1]) for problem in found] == [
        (3, "x"),
        (5, "timeout"),
        (5, "colour"),
        (6, "|"),
        (7, "wan"),
        (7, "$who"),
        (9, "a -> d"),
        (9, "20"),
        (9, "lose"),
        (10, "rtt"),
        (11, "b.exit == 0"),
        (13, "worse"),
    ]
    assert found == sorted(found)


def test_hosts_that_share_no_network_are_told_the_way_between_them() -> None:
    networks = "networks: {l: , m: , n: }\n"
    hosts = "hosts:\n  a: {networks: [l], run: x}\n  b: {networks: [m]}\n"
    hosts += "  r: {networks: [l, m]}\n  d: {networks: [n]}\n"
    problem = only(networks + hosts + "links: {a -> b: {}}\n")
    assert problem.message == "`a -> b`: a and b share no network"
    assert problem.hint == "a is on l; b is on m; the way between them: a - l - r - m - b, a link for each network"
    assert only(networks + hosts + "links: {a -> d: {}}\n").hint == "a is on l; d is on n; nothing connects them"
    assert only(networks + hosts + "links: {a -> r over m: {}}\n").message == "`a -> r over m`: a is not on m"


def test_hosts_that_share_several_networks_must_say_which() -> None:
    hosts = "hosts: {a: {networks: [l, m], run: x}, b: {networks: [l, m]}}\n"
    problem = only("networks: {l: , m: }\n" + hosts + "links: {a -> b: {}}\n")
    assert problem.message == "`a -> b`: a and b share several networks"
    assert problem.hint == "say which: `a -> b over l` or `a -> b over m`"


def test_a_file_whose_name_is_no_name() -> None:
    problem = problems(TWO, "My Test.yaml")[0]
    assert (problem.line, problem.column) == (1, 1)
    assert "`My Test` is no name for a scenario" in problem.message
    assert "rename it to `my-test.yaml`" in problem.hint
    assert problems("name: t\n" + TWO, "/somewhere/t.yaml") == []


def test_too_much_of_everything() -> None:
    assert "1001 hosts, and 1000 are the most" in only("hosts: {a: {count: 1000, run: x}, b: {}}\n").message
    many = "".join(f"  n{i}: \n" for i in range(251))
    assert "251 networks" in problems(f"networks:\n{many}hosts: {{a: {{run: x, networks: [n1]}}}}\n")[0].message
    most = "hosts: {a: {count: 224, run: x}}\nlinks: {%s: }\n"
    assert problems(most % "a -> a") == problems(most % "lan") == []
    for rule in ("a <-> a", "lan", "all -> a"):
        found = only(most.replace("224", "1000") % rule).message
        assert found.startswith(f"`{rule}`: more than 50,000 links, the most that")
    pieces = "".join(f"  s{i}: {{seed: 2}}\n" for i in range(101))
    assert "more than 100 saboteurs" in only(TWO + "fails_when:\n" + pieces).message


def test_a_saboteur_repeats_no_problem_of_the_file_itself() -> None:
    assert len(problems("hosts: {a: {run: x, typo: 1}}\nfails_when: {y: {seed: 2}, z: {seed: 3}}\n")) == 1


def test_load_raises_every_problem_and_parse_too(tmp_path: Path) -> None:
    file = tmp_path / "t.yaml"
    file.write_text("testbed: 1\nhosts: {a: {run: x, typo: 1, other: 2}}\n")
    with pytest.raises(ScenarioError) as raised:
        load(file)
    assert [problem.column for problem in raised.value.problems] == [21, 30]
    assert all(problem.file == str(file) for problem in raised.value.problems)
    with pytest.raises(ScenarioError):
        parse(file.read_text(), "t.yaml")


def test_load_refuses_what_is_not_utf8(tmp_path: Path) -> None:
    file = tmp_path / "t.yaml"
    file.write_bytes(b"testbed: 1\nabout: caf\xe9\n")
    with pytest.raises(ScenarioError, match=r"t.yaml:2:11: not UTF-8: byte 0xe9"):
        load(file)


def test_load_refuses_files_that_are_missing_or_lead_out(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "outside").write_text("secret")
    (tmp_path / "in" / "link").symlink_to("../outside")
    (tmp_path / "in" / "here").write_text("x")
    file = tmp_path / "in" / "t.yaml"
    file.write_text("testbed: 1\nhosts: {a: {run: x, files: [here, gone, link], stdin: {file: here}}}\n")
    with pytest.raises(ScenarioError) as raised:
        load(file, Project.around(file.parent))
    assert [(problem.column, problem.message) for problem in raised.value.problems] == [
        (35, "`gone`: No such file or directory"),
        (41, f"`link` is a link that leads out of the project {file.parent}"),
    ]


@pytest.mark.parametrize(
    ("text", "place"),
    [("files: {/etc/y: y}", "/etc/y"), ("working_dir: /opt/y, files: [y]", "/opt/y/y"), ("files: {/x: y}", "/x")],
)
def test_a_file_for_a_place_that_no_host_of_ours_can_write_to_is_warned_of(text: str, place: str) -> None:
    problem = only(f"hosts: {{a: {{run: x, {text}}}}}\n")
    assert problem.warning and f"{place} is in a part of a host that is read-only" in problem.message
    assert "/scenario" in problem.hint and "volumes" in problem.hint
    assert problems(f"hosts: {{a: {{image: i, run: x, {text}}}}}\n") == []


def test_where_hosts_of_ours_can_write_files_may_be_put() -> None:
    files = "{/dev/shm/y: y, /var/y: z, /srv/v/y: y}"
    assert problems(f"volumes: {{v: }}\nhosts: {{a: {{run: x, volumes: [v:/srv/v], files: {files}}}}}\n") == []
