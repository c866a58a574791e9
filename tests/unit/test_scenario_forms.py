"""Short and full forms mean the same, printing in full loses nothing, and pieces are merged as said."""

from __future__ import annotations

import json
import textwrap
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.scenario import Scenario, check, full, parse
from testbed.scenario.source import Map
from testbed.scenario.units import format_ns, format_ratio, format_size


def read(text: str, patch: Map | None = None) -> Scenario:
    return parse("testbed: 1\nabout: x\n" + textwrap.dedent(text), "t.yaml", patch)


PAIRS = [
    ("hosts: {a: {run: x, timeout: 5 s}}", "hosts: {a: {programs: {a: {run: x, timeout: 5 s}}}}"),
    (
        "hosts: {a: {image: x, user: u}}\nduration: 1 s",
        "hosts: {a: {image: x, programs: {a: {user: u}}}}\nduration: 1 s",
    ),
    ("hosts: {a: {run: x, networks: [lan]}}", "hosts: {a: {run: x, networks: {lan: {}}}}"),
    ("hosts: {a: {run: x, networks: [lan]}}", "hosts: {a: {run: x, networks: {lan: }}}"),
    ("hosts: {a: {run: x, stdin: hello}}", "hosts: {a: {run: x, stdin: {text: hello}}}"),
    ("hosts: {a: {run: x, files: [b/c]}}", "hosts: {a: {run: x, files: {b/c: {source: b/c}}}}"),
    ("hosts: {a: {run: x, files: {t: b}}}", "hosts: {a: {run: x, files: {t: {source: b}}}}"),
    ("hosts: {a: {run: x, after: b}, b: {serve: y}}", "hosts: {a: {run: x, after: [b]}, b: {serve: y}}"),
    (
        "hosts: {a: {serve: x, ready: {listens: 80}}, b: {run: y}}",
        "hosts: {a: {serve: x, ready: {listens: [tcp 80]}}, b: {run: y}}",
    ),
    ("hosts: {a: {run: x}}\nexpect: [a.exit == 0]", "hosts: {a: {run: x}}\nexpect: [{that: a.exit == 0}]"),
    (
        "hosts: {a: {run: x}, b: {}}\nlinks: {a -> b: {delay: 3 ms, jitter: 2 ms}}",
        "hosts: {a: {run: x}, b: {}}\nlinks: {a->b: [{delay: 3ms, jitter: {of: 2 ms, distribution: uniform}}]}",
    ),
    ("hosts: {a: {run: x}, b: {}}\nlinks: {a -> b: }", "hosts: {a: {run: x}, b: {}}\nlinks: {a -> b: {}}"),
    ("hosts: {a: {run: x, cap_add: [CAP_NET_RAW]}}", "hosts: {a: {run: x, cap_add: [net_raw]}}"),
    ("hosts: {a: {run: x}}", "seed: 1\ntimeout: 2 min\nnetworks: {}\nends: pass\nhosts: {a: {run: x}}"),
]


@pytest.mark.parametrize(("short", "long"), PAIRS)
def test_the_short_form_means_the_full_one(short: str, long: str) -> None:
    assert read(short + "\n") == read(long + "\n")
    assert full(read(short + "\n")) == full(read(long + "\n"))


def test_different_scenarios_are_not_equal() -> None:
    assert read("hosts: {a: {run: x}}") != read("hosts: {a: {run: y}}")
    assert read("hosts: {a: {run: x y}}") != read("hosts: {a: {serve: x y}}\nduration: 1 s")


FULL_OF_EVERYTHING = """\
    name: t
    tags: [udp, '2024']
    seed: 7
    timeout: 60 s
    duration: 30 s
    requires: [docker, 'cpus:4']
    networks: {lan: {subnet: 198.18.7.0/24}, backhaul: }
    hosts:
      collector:
        networks: {lan: {address: 198.18.7.10}, backhaul: }
        image: ghcr.io/me/collector:2
        serve: collector --port 9000
        ready: {listens: [udp 9000, 80, /run/x.sock], within: 10 s}
        environment: {LOG: info, EMPTY: "", 'ON': 'on'}
        files: [collector.toml]
        volumes: [spool:/var/spool]
        cap_add: [NET_ADMIN]
        cap_drop: [CHOWN]
        sysctls: {net.ipv4.tcp_sack: 0}
        congestion: bbr
        collect: [/var/log/collector/, out.json]
        metrics:
          stored: {prints: '/stored (\\d+)/', unit: ms}
          deep: {json: a.b.c, file: out.json}
        stop_signal: SIGINT
        stop_grace_period: 0 s
      sensor:
        count: 3
        networks: [lan]
        run: [probe, "collector:9000", --id, $index, "$$x"]
        timeout: 30 s
        user: nobody
        working_dir: /work
      admin:
        networks: [backhaul]
        programs:
          shell: {run: telnet collector, stdin: "status\\nquit\\n", after: {sensor: ended, sink: started}}
          sink: {serve: nc -lk 7000, ready: {answers: [nc, -z, localhost, '7000']}}
          late: {serve: x, ready: {prints: '/up (now)?/'}, after: [collector]}
          slow: {serve: y, ready: {wait: 1500 ms}, stdin: {file: in.txt}, files: {t: {text: "a\\n b\\n"}}}
      quiet: {build: ./somewhere, networks: [lan]}
    volumes: {spool: }
    links:
      sensor -> collector: {delay: 20 ms, jitter: {of: 2 ms, distribution: normal}, loss: 10 %, duplicate: 0.1 %}
      collector -> sensor: {rate: 10 Mbit/s, queue: 64 KiB, reorder: {ratio: 5 %, by: 3 packets}}
      admin <-> collector over backhaul: {rtt: 80 ms, rate: 1.5 Gbit/s, queue: 50 ms}
      lan: {}
    expect:
      - sensor.lost == sensor->collector.dropped
      - {that: 'admin.shell.stdout contains "status: ok"', because: it said so}
    ends: {fail: 'lost: too many'}
    fails_when:
      no loss: {links: {sensor -> collector: {loss: 0 %}}}
      gone: {hosts: {admin: {programs: {late: null}}}, tags: [], x-note: 'on'}
    """


def test_everything_printed_in_full_loads_to_the_same() -> None:
    scenario = read(FULL_OF_EVERYTHING)
    again = parse(full(scenario), "t.yaml")
    assert again == scenario
    assert full(again) == full(scenario)
    assert check(full(scenario), "t.yaml") == []


def test_the_full_notation_has_no_short_form() -> None:
    data = yaml.safe_load(full(read(FULL_OF_EVERYTHING)))
    assert data["hosts"]["collector"]["programs"]["collector"]["serve"] == "collector --port 9000"
    assert data["hosts"]["collector"]["networks"] == {"lan": {"address": "198.18.7.10"}, "backhaul": {}}
    assert data["hosts"]["collector"]["programs"]["collector"]["files"] == {
        "collector.toml": {"source": "collector.toml"}
    }
    assert data["links"]["sensor -> collector"]["jitter"] == {
        "of": "2 ms",
        "distribution": "normal",
        "order": "free",
    }
    assert data["expect"][0] == {"that": "sensor.lost == sensor->collector.dropped"}
    assert (data["testbed"], data["seed"], data["timeout"]) == (1, 7, "1 min")


# -- pieces ---------------------------------------------------------------------------------------------------

BASE = """\
    hosts:
      a: {run: x, timeout: 5 s, environment: {A: '1', B: '2'}}
      b: {programs: {p: {serve: y}, q: {serve: z}}}
    links: {a->b: {delay: 5 ms, loss: 1 %}}
    expect: [a.exit == 0, b.p.lives == yes]
    """


def pieced(piece: str) -> Scenario:
    text = textwrap.dedent(BASE) + f"fails_when: {{it: {piece}}}\n"
    patch = read(text).fails_when["it"]
    return read(text, patch)


def test_a_piece_goes_into_mappings_and_keeps_the_rest() -> None:
    scenario = pieced("{links: {a -> b: {loss: 3 %}}, hosts: {a: {environment: {B: '3'}}}}")
    (condition,) = scenario.links.values()
    assert (condition.delay, condition.loss) == (5_000_000, 0.03)
    assert [str(key) for key in scenario.links] == ["a -> b"]
    assert scenario.hosts["a"].programs["a"].environment == {"A": "1", "B": "3"}
    assert scenario.hosts["a"].programs["a"].timeout == 5 * 10**9
    assert scenario.fails_when == {}


def test_a_list_in_a_piece_replaces_and_null_removes() -> None:
    scenario = pieced(
        "{expect: [a.exit == 1], hosts: {a: {timeout: null, environment: ~}, b: null}, links: {a -> b: }}"
    )
    assert [one.that for one in scenario.expect] == ["a.exit == 1"]
    assert list(scenario.hosts) == ["a"]
    assert scenario.hosts["a"].programs["a"].timeout is None
    assert scenario.hosts["a"].programs["a"].environment == {}
    assert scenario.links == {}


def test_a_piece_adds_what_was_not_there() -> None:
    scenario = pieced("{hosts: {c: {run: z}, d: {}}, links: {a -> c: {delay: 1 ms}}, seed: 9}")
    assert list(scenario.hosts) == ["a", "b", "c", "d"]
    assert scenario.seed == 9
    assert [str(key) for key in scenario.links] == ["a -> b", "a -> c"]


def test_a_short_piece_over_a_full_host_and_the_other_way_round() -> None:
    assert pieced("{hosts: {a: {programs: {a: {run: other}}}}}") == pieced("{hosts: {a: {run: other}}}")
    text = textwrap.dedent(BASE) + "fails_when: {it: {hosts: {b: {serve: other}}}}\n"
    found = check("testbed: 1\nabout: x\n" + text, "t.yaml")
    message = "with `it` of fails_when: `b` has several programs: which one is meant?"
    assert [problem.message for problem in found] == [message]
    assert "one of p, q" in found[0].hint


def test_a_run_can_be_made_a_serve() -> None:
    scenario = pieced("{hosts: {a: {run: null, serve: x, timeout: null}}, duration: 1 s}")
    assert scenario.hosts["a"].programs["a"].serves


# -- any valid scenario ---------------------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b", "web", "db-1", "x9", "sensor", "n"])
TRICKY = "on 010 089 1:99 ~ null << = - ? ! & * # | > @ ` % true 1_0 .5 1e3 [ ] { } , : 0x1F Null --- ...".split()
WORDS = st.one_of(
    st.text(st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_characters="$"), min_size=1, max_size=12),
    st.sampled_from([*TRICKY, "a: b", "a #b", "a, b", " a ", "it's", "a\nb\n", "\t", "\u2028", "\x85", "\ufeff"]),
).filter(str.strip)
TIMES = st.integers(1, 10**10).map(format_ns)
RATIOS = st.floats(0, 1, allow_subnormal=False).filter(lambda x: x == 0 or x > 1e-9).map(format_ratio)


def maybe(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


CONDITIONS = st.builds(
    lambda one, rate, queue: {
        **one,
        **({"rate": rate} if rate else {}),
        **({"queue": queue} if rate and queue else {}),
    },
    maybe(
        delay=TIMES,
        loss=RATIOS,
        duplicate=RATIOS,
        jitter=st.one_of(
            TIMES,
            st.fixed_dictionaries(
                {"of": TIMES},
                optional={"distribution": st.just("normal"), "order": st.sampled_from(["free", "kept"])},
            ),
        ),
        reorder=st.fixed_dictionaries({"ratio": RATIOS, "by": st.just("3 packets")}),
    ),
    st.none() | st.integers(1, 10**10).map(lambda n: f"{n} bit/s"),
    st.none() | TIMES | st.integers(1, 10**6).map(format_size) | st.just("9 packets"),
)
PROGRAMS = st.builds(
    lambda kind, command, more: {kind: command, **more},
    st.sampled_from(["run", "serve"]),
    st.lists(WORDS, min_size=1, max_size=3),
    maybe(
        stdin=st.text(st.characters(min_codepoint=9, max_codepoint=0x7E, exclude_characters="$"), max_size=30)
        .filter(lambda text: all(c in "\t\n" or c >= " " for c in text)),
        environment=st.dictionaries(st.sampled_from(["A", "B_1"]), WORDS, max_size=2),
        collect=st.lists(st.sampled_from(["/a", "b/c"]), max_size=2, unique=True),
        stop_grace_period=TIMES,
    ),
)  # fmt: skip
HOSTS = st.one_of(
    PROGRAMS,
    st.builds(lambda p: {"programs": p}, st.dictionaries(st.sampled_from(["p", "q"]), PROGRAMS, min_size=1)),
)


@st.composite
def scenarios(draw: st.DrawFn) -> dict[str, Any]:
    names = draw(st.lists(NAMES, min_size=2, max_size=4, unique=True))
    made: dict[str, Any] = {"testbed": 1, "about": draw(WORDS), "duration": "1 s"}
    made["hosts"] = {name: draw(HOSTS) for name in names}
    if draw(st.booleans()):
        made["hosts"][names[0]] = {**made["hosts"][names[0]], "count": 2}
    made |= draw(maybe(seed=st.integers(0, 2**63 - 1), tags=st.just(["t"]), networks=st.just({"lan": None})))
    arrow = draw(st.sampled_from(["->", "<->", " -> "]))
    made["links"] = {f"{names[0]}{arrow}{names[1]}": draw(CONDITIONS), **draw(maybe(lan=CONDITIONS))}
    made["expect"] = [f"{names[0]}.exit == 0"]
    made["fails_when"] = draw(st.dictionaries(WORDS, st.just({"seed": 3}), max_size=1))
    return made


@settings(max_examples=60, deadline=None)
@given(scenarios())
def test_any_scenario_printed_in_full_loads_to_the_same(data: dict[str, Any]) -> None:
    scenario = parse(json.dumps(data, indent=1), "t.yaml")  # JSON is YAML, and quotes every text
    again = parse(full(scenario), "t.yaml")
    assert again == scenario
    assert full(again) == full(scenario)
