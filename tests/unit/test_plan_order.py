"""The order of programs: what each waits for, by default and as said."""

from __future__ import annotations

import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.plan import Plan, plan
from testbed.scenario import check, parse


def planned(text: str) -> Plan:
    return plan(parse("testbed: 1\nabout: x\n" + textwrap.dedent(text), "t.yaml"))


def order(made: Plan) -> list[str]:
    return [program.id for program in made.programs]


def test_by_default_a_run_waits_for_every_serve_and_a_serve_for_nothing() -> None:
    made = planned("hosts: {a: {run: x}, b: {serve: y}, c: {run: z}, d: {serve: w}}\n")
    assert order(made) == ["b.b", "d.d", "a.a", "c.c"]
    assert made.program("a.a").after == (("b.b", "ready"), ("d.d", "ready"))
    assert made.program("b.b").after == ()


def test_what_is_said_replaces_the_default() -> None:
    made = planned(
        """\
        hosts:
          a: {run: x, after: [c, {}]}
          b: {serve: y}
          c: {run: z, after: []}
        """.replace(", {}", "")
    )
    assert order(made) == ["b.b", "c.c", "a.a"]
    assert made.program("a.a").after == (("c.c", "ended"),)
    assert made.program("c.c").after == ()


def test_states() -> None:
    made = planned("""\
        hosts:
          a: {run: x, after: {b: started, c: started, d: ready, e: ended}}
          b: {serve: y}
          c: {run: z}
          d: {serve: y}
          e: {run: z}
        """)
    assert made.program("a.a").after == (
        ("b.b", "started"),
        ("c.c", "started"),
        ("d.d", "ready"),
        ("e.e", "ended"),
    )


@pytest.mark.parametrize(
    ("name", "after"),
    [
        ("p", ["h.p"]),
        ("h.q", ["h.q"]),
        ("g", ["g-1.g", "g-2.g"]),
        ("g.g", ["g-1.g", "g-2.g"]),
        ("g-2.g", ["g-2.g"]),
        ("g-2", ["g-2.g"]),
        ("single", ["single.odd"]),
    ],
)
def test_programs_are_meant_by_name_host_and_group(name: str, after: list[str]) -> None:
    made = planned(f"""\
        hosts:
          a: {{run: x, after: {name}}}
          h: {{programs: {{p: {{run: y}}, q: {{run: z}}}}}}
          g: {{count: 2, run: w}}
          single: {{programs: {{odd: {{run: v}}}}}}
        """)
    assert [one for one, _ in made.program("a.a").after] == after


def test_members_of_a_group_wait_for_every_member() -> None:
    made = planned("hosts: {g: {count: 2, programs: {p: {run: x}, q: {run: y, after: p}}}}\n")
    assert order(made) == ["g-1.p", "g-2.p", "g-1.q", "g-2.q"]
    assert made.program("g-2.q").after == (("g-1.p", "ended"), ("g-2.p", "ended"))


def test_every_cycle_is_shown() -> None:
    text = "testbed: 1\nabout: x\nhosts:\n"
    text += "  a: {run: x, after: b}\n  b: {run: x, after: a}\n  c: {run: x, after: [b, d]}\n"
    text += "  d: {run: x, after: e}\n  e: {run: x, after: d}\n"
    assert [(problem.line, problem.message) for problem in check(text, "t.yaml")] == [
        (4, "programs wait for each other: a.a -> b.b -> a.a"),
        (7, "programs wait for each other: d.d -> e.e -> d.d"),
    ]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=20))
def test_the_order_keeps_every_after_and_else_that_of_the_file(pairs: list[tuple[int, int]]) -> None:
    """Edges from later to earlier in a fixed shuffle never make a cycle."""
    shuffled = [3, 7, 0, 9, 1, 5, 8, 2, 6, 4]
    after: dict[int, set[int]] = {index: set() for index in range(10)}
    for one, other in pairs:
        if shuffled[one] > shuffled[other]:
            after[one].add(other)
    lines = [f"  h{i}: {{run: x, after: [{', '.join(f'h{j}' for j in sorted(after[i]))}]}}\n" for i in range(10)]
    ids = [int(one[1:].partition(".")[0]) for one in order(planned("hosts:\n" + "".join(lines)))]
    assert sorted(ids) == list(range(10))
    done: set[int] = set()
    for one in ids:
        assert after[one] <= done
        free = [other for other in range(10) if other not in done and after[other] <= done]
        assert one == free[0]
        done.add(one)
