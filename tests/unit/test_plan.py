"""What a plan decides: addresses, routes, names, kernel settings, capabilities, programs. Exact values."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import testbed
from testbed.errors import HostError, ScenarioError
from testbed.plan import File, Metric, Mount, Neighbour, Network, Plan, Ready, Route, plan, render
from testbed.plan.images import Image, completed
from testbed.scenario import load, parse

SCENARIOS = sorted(Path(testbed.__file__).parents[1].glob("scenarios/**/*.yaml"))


def planned(text: str, seed: int | None = None, taken: frozenset[str] = frozenset()) -> Plan:
    return plan(parse("testbed: 1\nabout: x\n" + textwrap.dedent(text), "t.yaml"), seed, taken)


def addresses(made: Plan) -> dict[str, dict[str, str]]:
    return {host.name: {one.network: one.ip for one in host.interfaces} for host in made.hosts}


# -- the whole ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_every_scenario_plans_the_same_byte_for_byte_and_survives_json(path: Path) -> None:
    first, second = (json.dumps(plan(load(path)).to_json()) for _ in range(2))
    assert first == second
    assert Plan.from_json(json.loads(first)) == plan(load(path))


def test_a_plan_is_plain_data() -> None:
    """Text that knows its place in a file must not leak into what is stored and compared."""
    for path in SCENARIOS:
        kinds = set(_kinds(plan(load(path)).to_json()))
        assert kinds <= {dict, list, tuple, str, int, float, bool, type(None)}


def _kinds(data: Any) -> list[type]:
    found = [type(data)]
    if isinstance(data, dict):
        for key, value in data.items():
            found += [type(key), *_kinds(value)]
    elif isinstance(data, list | tuple):
        for value in data:
            found += _kinds(value)
    return found


def test_reading_plans_needs_neither_pydantic_nor_yaml() -> None:
    code = "import sys, testbed.plan.types, testbed.plan, testbed.scenario, testbed.scenario.units\n"
    code += "sys.exit(bool({'pydantic', 'yaml'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_head_of_a_plan() -> None:
    made = planned("""\
        tags: [a, b]
        seed: 7
        timeout: 30 s
        duration: 5 s
        requires: [docker]
        hosts: {a: {serve: x}}
        expect:
          - a.exit == 0
          - {that: 'a.stdout contains "x"', because: it says so}
          - >
            a.lives == yes
        ends: {fail: too slow}
        fails_when: {this: {seed: 1}, that: {seed: 2}}
        """)
    assert (made.scenario, made.about, made.file, made.tags, made.seed) == ("t", "x", "t.yaml", ("a", "b"), 7)
    assert (made.timeout_ns, made.duration_ns, made.requires) == (30 * 10**9, 5 * 10**9, ("docker",))
    assert [(e.text.strip(), e.because, e.line, e.column) for e in made.expectations] == [
        ("a.exit == 0", "", 10, 5),
        ('a.stdout contains "x"', "it says so", 11, 13),
        ("a.lives == yes", "", 12, 0),
    ]
    assert (made.ends.outcome, made.ends.text, made.fails_when) == ("fail", "too slow", ("this", "that"))


def test_the_seed_given_replaces_that_of_the_file() -> None:
    made = planned("seed: 7\nhosts: {a: {run: x $seed}}\n", seed=9)
    assert made.seed == 9
    assert made.programs[0].argv == ("x", "9")
    assert made.programs[0].environment["TESTBED_SEED"] == "9"


def test_a_saboteur_is_planned_like_any_other() -> None:
    text = "testbed: 1\nabout: x\nhosts: {a: {run: x}}\nfails_when: {more: {hosts: {b: {run: y}}}}\n"
    piece = parse(text, "t.yaml").fails_when["more"]
    assert [host.name for host in plan(parse(text, "t.yaml", piece)).hosts] == ["a", "b"]


# -- networks and addresses -----------------------------------------------------------------------------------


def test_one_network_without_being_asked() -> None:
    made = planned("hosts: {a: {run: x}, b: }\n")
    assert made.networks == (Network("lan", "198.18.0.0/24", "198.18.0.1"),)
    assert addresses(made) == {"a": {"lan": "198.18.0.2"}, "b": {"lan": "198.18.0.3"}}
    interface = made.host("b").interfaces[0]
    assert (interface.name, interface.prefix_bits, interface.mac) == ("eth0", 24, "02:42:c6:12:00:03")


MANY = """\
    networks: {l: , m: {subnet: 198.18.1.0/24}, n: }
    hosts:
      a: {networks: [n, l], run: x}
      b: {networks: {m: {address: 198.18.1.2}, n: }}
      c: {networks: [m]}
    """


def test_explicit_subnets_and_addresses_are_kept_and_the_rest_goes_around_them() -> None:
    made = planned(MANY)
    assert [(one.name, one.subnet) for one in made.networks] == [
        ("l", "198.18.0.0/24"),
        ("m", "198.18.1.0/24"),
        ("n", "198.18.2.0/24"),
    ]
    assert addresses(made) == {
        "a": {"n": "198.18.2.2", "l": "198.18.0.2"},
        "b": {"m": "198.18.1.2", "n": "198.18.2.3"},
        "c": {"m": "198.18.1.3"},
    }
    assert [(one.name, one.network) for one in made.host("a").interfaces] == [("eth0", "n"), ("eth1", "l")]


@pytest.mark.parametrize(
    ("taken", "subnets"),
    [
        ({"198.18.0.0/24"}, ["198.18.2.0/24", "198.18.3.0/24"]),
        ({"198.18.0.128/25", "198.18.2.9/32"}, ["198.18.3.0/24", "198.18.4.0/24"]),
        ({"198.18.0.0/16", "2001:db8::/32", "10.0.0.0/8"}, ["198.19.0.0/24", "198.19.1.0/24"]),
        ({"192.168.0.0/16"}, ["198.18.0.0/24", "198.18.2.0/24"]),
    ],
)
def test_subnets_that_are_taken_are_skipped(taken: set[str], subnets: list[str]) -> None:
    text = MANY if "198.18.0.0/16" not in taken else MANY.replace("198.18.1.", "198.19.255.")
    made = planned(text, taken=frozenset(taken))
    assert [one.subnet for one in made.networks if one.name != "m"] == subnets


@pytest.mark.parametrize(
    ("taken", "message"),
    [
        ({"198.18.0.0/15"}, "198.18.1.0/24 of m is in use"),
        ({"198.18.1.77/32"}, "198.18.1.0/24 of m is in use"),
        ({"198.18.0.0/24", "198.18.2.0/23", "198.18.4.0/22", "198.18.8.0/21", "198.18.16.0/20", "198.18.32.0/19",
          "198.18.64.0/18", "198.18.128.0/17", "198.19.0.0/16"}, "no room in 198.18.0.0/15 for the network l"),
    ],
)  # fmt: skip
def test_no_room_is_the_machines_owners_to_mend(taken: set[str], message: str) -> None:
    with pytest.raises(HostError, match=message):
        planned(MANY, taken=frozenset(taken))


@pytest.mark.parametrize(
    ("count", "subnet", "last"),
    [
        (253, "198.18.0.0/24", "198.18.0.254"),
        (254, "198.18.0.0/23", "198.18.0.255"),
        (509, "198.18.0.0/23", "198.18.1.254"),
        (510, "198.18.0.0/22", "198.18.1.255"),
        (1000, "198.18.0.0/22", "198.18.3.233"),
    ],
)
def test_many_hosts_get_a_larger_subnet(count: int, subnet: str, last: str) -> None:
    made = planned(f"hosts: {{a: {{count: {count}, run: x}}}}\n")
    assert made.networks[0].subnet == subnet
    assert made.hosts[-1].interfaces[0].ip == last
    assert len({host.interfaces[0].ip for host in made.hosts}) == count


def test_a_larger_subnet_is_aligned_and_overlaps_nothing() -> None:
    made = planned(
        "networks: {l: , m: , n: }\nhosts: {a: {networks: [l, n]}, b: {count: 300, networks: [m], run: x}}\n"
    )
    assert [one.subnet for one in made.networks] == ["198.18.0.0/24", "198.18.2.0/23", "198.18.4.0/24"]


# -- hosts ----------------------------------------------------------------------------------------------------

TWO_NETWORKS = """\
    networks: {l: , m: }
    hosts:
      a: {networks: [l], run: x}
      r: {networks: [m, l]}
      b: {networks: [m]}
      g: {count: 2, networks: [m]}
    """


def test_the_whole_route_table() -> None:
    made = planned(TWO_NETWORKS)
    assert made.host("a").routes == (
        Route("198.18.0.0/24", "eth0", "198.18.0.2"),
        Route("224.0.0.0/4", "eth0"),
        Route("255.255.255.255/32", "eth0"),
    )
    assert made.host("r").routes == (
        Route("198.18.1.0/24", "eth0", "198.18.1.2"),
        Route("198.18.0.0/24", "eth1", "198.18.0.3"),
        Route("224.0.0.0/4", "eth0"),
        Route("255.255.255.255/32", "eth0"),
    )


def test_neighbours_are_all_others_on_the_same_network() -> None:
    made = planned(TWO_NETWORKS)
    assert made.host("a").neighbours == (Neighbour("198.18.0.3", "02:42:c6:12:00:03", "eth0"),)
    assert [(one.ip, one.dev) for one in made.host("r").neighbours] == [
        ("198.18.1.3", "eth0"),
        ("198.18.1.4", "eth0"),
        ("198.18.1.5", "eth0"),
        ("198.18.0.2", "eth1"),
    ]


def test_a_name_is_the_address_on_the_first_shared_network_else_the_first_address() -> None:
    made = planned(TWO_NETWORKS)
    assert made.host("a").names == (
        ("127.0.0.1", ("localhost",)),
        ("198.18.0.2", ("a", "a.l")),
        ("198.18.1.2", ("r.m",)),
        ("198.18.0.3", ("r", "r.l")),
        ("198.18.1.3", ("b", "b.m")),
        ("198.18.1.4", ("g-1", "g-1.m")),
        ("198.18.1.5", ("g-2", "g-2.m")),
    )
    assert ("198.18.1.2", ("r", "r.m")) in made.host("b").names
    assert ("198.18.1.2", ("r", "r.m")) in made.host("r").names


def test_groups_have_members_with_an_index() -> None:
    made = planned(TWO_NETWORKS)
    assert made.groups == {"g": ("g-1", "g-2")}
    assert [(host.name, host.group, host.index) for host in made.hosts] == [
        ("a", None, 1),
        ("r", None, 1),
        ("b", None, 1),
        ("g-1", "g", 1),
        ("g-2", "g", 2),
    ]


def test_kernel_settings_are_the_same_everywhere_and_the_authors_own_come_on_top() -> None:
    made = planned(
        "hosts: {a: {run: x}, b: {image: y, sysctls: {net.ipv4.tcp_sack: 0, net.ipv4.ip_forward: 1}}}\n"
    )
    base = made.host("a").sysctls
    assert base == {
        "net.ipv4.ip_forward": "0",
        "net.ipv4.ip_unprivileged_port_start": "1024",
        "net.ipv4.ping_group_range": "1 0",
        "net.ipv4.ip_local_port_range": "32768 60999",
        "net.ipv4.tcp_no_metrics_save": "1",
        "net.ipv4.tcp_rmem": "4096 131072 6291456",
        "net.ipv4.tcp_wmem": "4096 16384 4194304",
        "net.ipv6.conf.all.disable_ipv6": "1",
        "net.ipv6.conf.default.disable_ipv6": "1",
        **{
            f"net.ipv4.conf.{place}.{name}": "0"
            for place in ("all", "eth0")
            for name in (
                "rp_filter",
                "accept_local",
                "route_localnet",
                "arp_filter",
                "arp_ignore",
                "drop_unicast_in_l2_multicast",
            )
        },
    }
    assert made.host("b").sysctls == {**base, "net.ipv4.tcp_sack": "0", "net.ipv4.ip_forward": "1"}


def test_congestion_control_is_cubic_unless_said_and_a_sysctl_says_the_same() -> None:
    made = planned("""\
        hosts:
          usual: {run: x}
          old: {count: 2, run: x, congestion: reno}
          left: {run: x, congestion: machine}
          said: {run: x, sysctls: {net.ipv4.tcp_congestion_control: dctcp, net.ipv4.tcp_sack: 0}}
        """)
    asked = {host.name: host.congestion for host in made.hosts}
    assert asked == {"usual": "cubic", "old-1": "reno", "old-2": "reno", "left": "machine", "said": "dctcp"}
    usual = made.host("usual").sysctls
    assert made.host("said").sysctls == {**usual, "net.ipv4.tcp_sack": "0"}, "the agent has more ways to set it"


def test_capabilities() -> None:
    made = planned("""\
        hosts:
          none: {run: x}
          some: {run: x, cap_add: [cap_net_raw, NET_ADMIN, net_raw]}
          foreign: {image: x}
          built: {build: ., cap_add: [NET_RAW], cap_drop: [CHOWN, MKNOD]}
        """)
    default = (
        "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD SETGID SETUID SETFCAP SETPCAP NET_BIND_SERVICE SYS_CHROOT KILL "
        "AUDIT_WRITE"
    ).split()
    assert made.host("none").capabilities == ()
    assert made.host("some").capabilities == ("NET_RAW", "NET_ADMIN")
    assert made.host("foreign").capabilities == tuple(default)
    assert set(made.host("built").capabilities) == {*default, "NET_RAW"} - {"CHOWN", "MKNOD"}
    assert (made.host("foreign").image, made.host("built").build) == ("x", ".")


def test_volumes_are_named_and_mounted() -> None:
    made = planned("volumes: {v: }\nhosts: {a: {run: x, volumes: [v:/var/x]}}\n")
    assert made.volumes == ("v",)
    assert made.host("a").volumes == (("v", "/var/x"),)


def test_a_directory_is_mounted_as_it_is_written() -> None:
    made = planned("hosts: {a: {run: x, volumes: [../src/./x:/app/:ro]}}\n")
    assert made.host("a").mounts == (Mount("../src/x", "/app"),) and made.host("a").volumes == ()
    assert "../src/x on /app, read-only" in render(made)


# -- programs -------------------------------------------------------------------------------------------------


def test_a_program_with_nothing_said() -> None:
    program = planned("hosts:\n  a:\n    run: x 'y z'\n").programs[0]
    assert (program.id, program.name, program.host, program.kind) == ("a.a", "a", "a", "run")
    assert program.argv == ("x", "y z")
    assert program.environment == {
        "PATH": "/opt/testbed/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "TESTBED_SEED": "1",
        "TESTBED_HOST": "a",
        "TESTBED_PROGRAM": "a",
    }
    assert program.ready == Ready("auto", 10 * 10**9)
    assert (program.timeout_ns, program.stop_signal, program.stop_grace_ns) == (60 * 10**9, "SIGTERM", 5 * 10**9)
    assert (program.stdin, program.stdin_file, program.working_dir, program.user) == (
        None,
        None,
        "/scenario",
        None,
    )
    assert (program.files, program.collect, program.metrics, program.after, program.line) == ((), (), (), (), 5)


def test_a_program_with_everything_said() -> None:
    program = planned("""\
        hosts:
          a:
            serve: [x, "| y"]
            ready: {listens: [80, udp 53, /run/x.sock], within: 3 s}
            environment: {PATH: /bin, N: $name}
            working_dir: /work
            user: nobody
            stdin: hello $index
            files: {b/c.txt: ./d.txt, /etc/e: {text: "f\\n"}}
            collect: [out/, /var/log/x]
            metrics: {m: {prints: '/a (\\d+)/', unit: ms}, n: {json: a.b, file: out/x.json}}
            stop_signal: SIGINT
            stop_grace_period: 0 s
        duration: 1 s
        """).programs[0]
    assert program.argv == ("x", "| y")
    assert program.ready == Ready("listens", 3 * 10**9, sockets=("tcp 80", "udp 53", "unix /run/x.sock"))
    assert (program.environment["PATH"], program.environment["N"]) == ("/bin", "a")
    assert (program.working_dir, program.user, program.stdin) == ("/work", "nobody", "hello 1")
    assert program.files == (File("/work/b/c.txt", source="d.txt"), File("/etc/e", text="f\n"))
    assert program.collect == ("/work/out/", "/var/log/x")
    assert program.metrics == (
        Metric("m", prints=r"a (\d+)", unit="ms"),
        Metric("n", json="a.b", file="/work/out/x.json"),
    )
    assert (program.stop_signal, program.stop_grace_ns) == ("SIGINT", 0)


@pytest.mark.parametrize(
    ("written", "ready"),
    [
        ("{prints: '/up (now)?/'}", Ready("prints", 10**10, regex="up (now)?")),
        ("{answers: nc -z $name 80}", Ready("answers", 10**10, argv=("nc", "-z", "a", "80"))),
        ("{wait: 2 s}", Ready("wait", 10**10, wait_ns=2 * 10**9)),
        ("{wait: 20 s}", Ready("wait", 40 * 10**9, wait_ns=20 * 10**9)),
        ("{within: 2 s}", Ready("auto", 2 * 10**9)),
    ],
)
def test_when_a_serve_is_ready(written: str, ready: Ready) -> None:
    assert planned(f"hosts: {{a: {{serve: x, ready: {written}}}}}\nduration: 1 s\n").programs[0].ready == ready


def test_files_listed_keep_their_path_and_stdin_may_be_one() -> None:
    program = planned("hosts: {a: {run: x, files: [a.toml, conf/b.toml], stdin: {file: ./in/put}}}\n").programs[0]
    assert program.files == (
        File("/scenario/a.toml", source="a.toml"),
        File("/scenario/conf/b.toml", source="conf/b.toml"),
    )
    assert (program.stdin, program.stdin_file) == (None, "in/put")


def test_a_foreign_image_keeps_its_own_environment() -> None:
    program = planned("hosts: {a: {image: x, run: y, environment: {A: b}}}\n").programs[0]
    assert program.environment == {"TESTBED_SEED": "1", "TESTBED_HOST": "a", "TESTBED_PROGRAM": "a", "A": "b"}


def test_what_an_image_serves_by_itself_is_a_program_called_like_its_host() -> None:
    made = planned("hosts:\n  web: {count: 2, image: x}\n  client: {run: y}\n")
    first, second, client = made.programs
    assert (first.id, second.id, first.kind, first.ready.kind, first.line) == (
        "web-1.web", "web-2.web", "serve", "auto", 4,
    )  # fmt: skip
    assert (first.argv, first.working_dir, first.stop_signal, first.user) == ((), "", "", None)
    assert [host.programs for host in made.hosts] == [("web-1.web",), ("web-2.web",), ("client.client",)]
    assert client.after == (("web-1.web", "ready"), ("web-2.web", "ready")), "as for any `serve`"
    assert re.search(r"web-1\.web +serve +what its image serves +at once", render(made))


def test_the_image_says_what_its_own_program_is_and_where_others_look_for_theirs() -> None:
    text = """
        hosts:
          web:
            build: image
            programs:
              own:
                files: {a.conf: a, /etc/b: b}
                collect: [log]
                metrics: {n: {prints: /x/, file: log}}
                environment: {A: b}
              probe: {run: x, working_dir: /there}
              mine: {run: x, environment: {PATH: /mine}}
          ours: {run: x}
    """
    image = Image("image", ("/serve", "now"), "/srv", "/bin", "SIGQUIT")
    made = completed(planned(text), {"web": image})
    own, probe, mine, ours = (made.program(f"{id}") for id in ("web.own", "web.probe", "web.mine", "ours.ours"))
    assert (own.argv, own.working_dir, own.stop_signal) == (("/serve", "now"), "/srv", "SIGQUIT")
    assert [file.target for file in own.files] == ["/srv/a.conf", "/etc/b"]
    assert (own.collect, own.metrics[0].file) == (("/srv/log",), "/srv/log")
    assert (own.environment["PATH"], own.environment["A"]) == ("/bin", "b")
    assert (probe.working_dir, probe.environment["PATH"], probe.stop_signal) == ("/there", "/bin", "SIGTERM")
    assert mine.environment["PATH"] == "/mine"
    assert ours == planned(text).program("ours.ours")
    text = text.replace("environment: {A: b}", f"working_dir: /w\n{16 * ' '}stop_signal: SIGINT")
    own = completed(planned(text), {"web": image}).program("web.own")
    assert (own.working_dir, own.stop_signal, own.files[0].target) == ("/w", "SIGINT", "/w/a.conf")


def test_an_image_that_has_nothing_to_serve_needs_a_program() -> None:
    made = planned("hosts: {web: {image: x}, a: {run: y}}\n")
    nothing = Image("x", (), "/", "/bin", "SIGTERM")
    with pytest.raises(HostError, match=r"the image x of host web .* neither ENTRYPOINT nor CMD; give"):
        completed(made, {"web": nothing})


def test_variables_are_expanded_for_each_member() -> None:
    made = planned("""\
        networks: {l: , m: }
        seed: 5
        hosts:
          g:
            count: 2
            networks: [m, l]
            run: x $name $index $ip ${seed}-y $r.ip $r.l.ip $b.ip4 $g-1.ip $$HOME $5 a$
            environment: {WHO: "$name/$seed"}
            stdin: $ip
          r: {networks: [l, m]}
          b: {networks: [l]}
        """)
    argv = "x g-1 1 198.18.1.2 5-y 198.18.1.4 198.18.0.4 198.18.0.5 198.18.1.2 $HOME $5 a$"
    assert made.programs[0].argv == tuple(argv.split())
    assert made.programs[1].argv[:4] == ("x", "g-2", "2", "198.18.1.3")
    assert (made.programs[1].environment["WHO"], made.programs[1].stdin) == ("g-2/5", "198.18.1.3")


def test_a_variable_is_one_word_whatever_it_holds() -> None:
    assert planned("hosts: {a: {run: \"x '$name $seed'\"}}\n").programs[0].argv == ("x", "a 1")


def test_planning_a_scenario_that_was_never_checked_is_refused_too() -> None:
    with pytest.raises(ScenarioError):
        planned("hosts: {a: {run: x}}\nlinks: {a -> b: {}}\n")


def test_a_thousand_hosts_are_planned_and_printed() -> None:
    made = planned("hosts: {s: {serve: x}, a: {count: 999, run: y}}\nlinks: {a -> s: {loss: 1 %}}\n")
    assert len(made.hosts) == len(made.programs) == 1000
    assert len(made.links) == 999
    assert len(render(made).splitlines()) < 2100
