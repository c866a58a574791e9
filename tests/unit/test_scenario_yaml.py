"""YAML as we read it: places, duplicate keys, aliases, what is ambiguous, and lines that YAML misread."""

from __future__ import annotations

import textwrap

import pytest

from testbed.errors import Problem
from testbed.scenario import check, parse

HEAD = "testbed: 1\nabout: x\n"


def problems(text: str, file: str = "t.yaml") -> list[Problem]:
    return check(textwrap.dedent(text), file)


def only(text: str, file: str = "t.yaml") -> Problem:
    found = problems(text, file)
    assert len(found) == 1, "\n".join(map(str, found))
    return found[0]


def test_every_text_knows_its_place() -> None:
    scenario = parse(HEAD + "hosts:\n  a: {run: x}\nexpect:\n  - a.exit == 0\n", "t.yaml")
    that = scenario.expect[0].that
    assert (that.mark.line, that.mark.column) == (6, 5)  # type: ignore[attr-defined]
    assert scenario.at("hosts").line == 3
    assert scenario.hosts["a"].programs["a"].at("run") == (
        4,
        7,
        scenario.hosts["a"].programs["a"].at("run").offset,
    )


def test_scalars_are_text_as_written() -> None:
    text = (
        HEAD
        + "hosts:\n  a: {run: x, environment: {A: 1.10, B: 0x1F, C: true, D: '010', E: 1_000, F: 2024-01-01}}\n"
    )
    environment = parse(text, "t.yaml").hosts["a"].programs["a"].environment
    assert environment == {"A": "1.10", "B": "0x1F", "C": "true", "D": "010", "E": "1_000", "F": "2024-01-01"}


@pytest.mark.parametrize("word", ["on", "off", "Yes", "NO", "010", "1:30", "00"])
def test_words_that_yaml_readers_disagree_on_need_quotes(word: str) -> None:
    line = f"  a: {{run: x, environment: {{A: {word}}}}}\n"
    problem = only(HEAD + "hosts:\n" + line)
    assert (problem.line, problem.column) == (4, 32)
    assert "different YAML readers" in problem.message
    assert problem.hint == f"write '{word}'"
    assert problems(HEAD + "hosts:\n" + line.replace(f" {word}}}", f' "{word}"}}')) == []


def test_a_name_without_quotes_that_readers_disagree_on_is_refused_once() -> None:
    problem = only(HEAD + "hosts:\n  'off': {run: x}\n  no: {run: y}\n")
    assert (problem.line, problem.column, problem.hint) == (5, 3, "write 'no'")


def test_anchors_aliases_and_merge_keys_work() -> None:
    scenario = parse(
        HEAD
        + textwrap.dedent("""\
        x-usual: &usual {run: x, environment: {A: '1'}, timeout: 5 s}
        hosts:
          a: &a {<<: *usual, timeout: 7 s}
          b: {<<: [*a, *usual]}
          c: *usual
        """),
        "t.yaml",
    )
    timeouts = {name: host.programs[name].timeout for name, host in scenario.hosts.items()}
    assert timeouts == {"a": 7 * 10**9, "b": 7 * 10**9, "c": 5 * 10**9}
    assert scenario.hosts["b"].programs["b"].environment == {"A": "1"}


def test_extra_keys_hold_anything() -> None:
    assert problems(HEAD + "x-anything: {run: [1, {2: on}], testbed: 010}\nhosts: {a: {run: x}}\n") == []


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("hosts: {a: {run: x}}\nseed: 1\nseed: 2\n", 5, 1, "`seed` is here twice: also in line 4, column 1"),
        ("hosts:\n  a: {run: x}\n  a: {run: y}\n", 5, 3, "`a` is here twice: also in line 4, column 3"),
        ("hosts: {a: {run: x, run: y}}\n", 3, 21, "`run` is here twice: also in line 3, column 13"),
        (
            "hosts: {a: {run: x}, b: {run: x}}\nlinks:\n  a->b: {}\n  a  ->   b: {}\n",
            6,
            3,
            "`a  ->   b` is here twice: also in line 5, column 3",
        ),
        (
            "hosts: {a: {run: x}, b: {run: x}}\nlinks:\n  a <-> b: {}\n  b <-> a: {}\n",
            6,
            3,
            "`b <-> a` is here twice: also in line 5, column 3",
        ),
    ],
)
def test_a_key_twice_is_refused(text: str, line: int, column: int, message: str) -> None:
    problem = only(HEAD + text)
    assert (problem.line, problem.column, problem.message) == (line, column, message)


def test_a_link_twice_is_refused_in_a_saboteur_too() -> None:
    text = "hosts: {a: {run: x}, b: {run: x}}\nlinks: {a -> b: {}}\n"
    text += "fails_when:\n  y: {links: {a->b: {}, a -> b: {}}}\n"
    assert only(HEAD + text).message.startswith("`a -> b` is here twice")


@pytest.mark.parametrize(
    ("text", "line", "column", "message", "hint"),
    [
        ("", 1, 1, "the file is empty", "\ntestbed: 1\n"),
        ("- a\n", 1, 1, "a scenario is a mapping", ""),
        (
            "testbed: 1\nabout: x\nhosts:\n\ta: {run: x}\n",
            4,
            1,
            "a tab: YAML is indented with spaces",
            "with spaces:\n    a: {run: x}",
        ),
        ("testbed: 1\n---\ntestbed: 1\n", 2, 1, "a second document begins here", "one file is one scenario"),
        ("testbed: 1\nhosts: *nobody\n", 2, 8, "`*nobody` stands for nothing", "an anchor, &NAME"),
        ("testbed: 1\nabout: a\x01b\n", 2, 9, "the character U+0001 is not allowed", ""),
        ('testbed: 1\nabout: "\\Uffffffff"\n', 1, 1, "a character that does not exist", ""),
        ("testbed: " + "[" * 3000, 1, 60, "nested too deep", ""),
    ],
)
def test_what_is_no_yaml(text: str, line: int, column: int, message: str, hint: str) -> None:
    problem = only(text)
    assert (problem.line, problem.column) == (line, column)
    assert message in problem.message
    assert hint in problem.hint


@pytest.mark.parametrize(
    ("value", "tag"),
    [
        ("!!python/object/apply:os.system ['true']", "python/object/apply:os.system"),
        ("!!binary aGVsbG8=", "binary"),
        ("!mine {a: b}", "!mine"),
        ("!!set {a, b}", "set"),
    ],
)
def test_tags_are_refused(value: str, tag: str) -> None:
    problem = only(HEAD + f"hosts: {{a: {{run: x}}}}\nx-tagged: {value}\n")
    assert (problem.line, problem.column) == (4, 11)
    assert tag in problem.message


def test_an_alias_inside_its_own_anchor_is_refused() -> None:
    assert "inside its own anchor" in only(HEAD + "hosts: &h\n  a: {run: x}\n  b: *h\n").message


def test_an_alias_bomb_is_refused_quickly() -> None:
    levels = "".join(f"x-{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9))
    problem = only("testbed: 1\nx-0: &a0 [x]\n" + levels)
    assert "more than 50000 values" in problem.message


def test_a_file_that_is_too_large_is_refused_unread() -> None:
    assert "larger than 256 KiB" in only("#" * 300_000).message


@pytest.mark.parametrize("value", ["'a\\0b'", '"a\\0b"', '"\\ud800"'])
def test_characters_that_no_command_line_can_hold(value: str) -> None:
    found = problems(HEAD + f"hosts: {{a: {{run: x, environment: {{A: {value}}}}}}}\n")
    assert bool(found) == value.startswith('"')
    assert all("no file or command line can hold" in problem.message for problem in found)


# -- lines that YAML misread, printed as they were meant ---------------------------------------------------


def misread(problem: Problem) -> str:
    """The repaired line in a hint."""
    return problem.hint.partition("\n")[2]


@pytest.mark.parametrize(
    ("line", "repaired"),
    [
        ("about: Loss: the whole story", "about: 'Loss: the whole story'"),
        ("about: it's here: look", "about: 'it''s here: look'"),
        ("x-a: *star is no alias", "x-a: '*star is no alias'"),
        ('x-a: "quoted" and more', "x-a: '\"quoted\" and more'"),
        ("x-a: @home", "x-a: '@home'"),
        ("x-a: 50 %: half  # and a comment", "x-a: '50 %: half'  # and a comment"),
    ],
)
def test_a_line_that_is_no_yaml_is_repaired(line: str, repaired: str) -> None:
    problem = next(one for one in problems("testbed: 1\nhosts: {a: {run: x}}\n" + line + "\n") if not one.warning)
    assert problem.line == 3
    assert misread(problem) == repaired


@pytest.mark.parametrize(
    ("line", "repaired"),
    [
        ("  b: {run: curl -H Host: me a, after: a}", "  b: {run: 'curl -H Host: me a', after: a}"),
        ("  b: {run: echo {a}}", "  b: {run: 'echo {a}'}"),
        ("  b: {run: get http://a/?x=1}", "  b: {run: 'get http://a/?x=1'}"),
        ("  b: {run: nc -l, 5}", "  b: {run: 'nc -l, 5'}"),
        ('  b: {run: sh -c "a, b", timeout: 5 s}', "  b: {run: 'sh -c \"a, b\"', timeout: 5 s}"),
        ("  b: {run: x, environment: {A: one, two}}", "  b: {run: x, environment: {A: 'one, two'}}"),
        ("  b: {serve: x, ready: {prints: /a,b/}}", "  b: {serve: x, ready: {prints: '/a,b/'}}"),
        ("  b: {run: sh -c 'echo #5'}", "  b: {run: 'sh -c ''echo #5'''}"),
    ],
)
def test_a_text_in_braces_that_yaml_cut_is_repaired(line: str, repaired: str) -> None:
    found = problems(HEAD + f"hosts:\n  a: {{run: x}}\n{line}\n")
    assert repaired in map(misread, found)


@pytest.mark.parametrize(
    ("line", "repaired"),
    [
        ('  - a.stdout contains "status: ok"', "  - 'a.stdout contains \"status: ok\"'"),
        ('  - that: a.stdout contains "status: ok"', "  - that: 'a.stdout contains \"status: ok\"'"),
        ('  - a.stdout contains "issue #5"', "  - 'a.stdout contains \"issue #5\"'"),
        ('  - "a" == a.word', "  - '\"a\" == a.word'"),
    ],
)
def test_an_expectation_that_yaml_cut_is_repaired(line: str, repaired: str) -> None:
    problem = only(HEAD + f"hosts: {{a: {{run: x}}}}\nexpect:\n{line}\n")
    assert problem.line == 5
    assert misread(problem) == repaired


def test_a_command_that_yaml_cut_at_a_hash_is_repaired() -> None:
    problem = only(HEAD + "hosts:\n  a:\n    run: sh -c 'echo #5'\n")
    assert misread(problem) == "    run: 'sh -c ''echo #5'''"


def test_a_comment_that_does_not_look_like_one_is_warned_of() -> None:
    problem = only(HEAD + "hosts:\n  a:\n    run: nc -l #5\n")
    assert problem.warning
    assert "`#5`" in problem.message
    assert misread(problem) == "    run: 'nc -l #5'"


def test_a_repaired_line_hides_no_other_problem() -> None:
    found = problems("testbed: 1\nabout: a: b\nhosts:\n  a: {run: c: d, timeout: 5}\nexpct: []\n")
    assert [(problem.line, problem.message.partition(" ")[0]) for problem in found] == [
        (2, "a"),
        (4, "a"),  # a sign in this text
        (4, "timeout:"),
        (5, "unknown"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "testbed: 1\nabout: a: b\nhosts:\n  a: {run: c: d}\n  b: {run: nc -l, 5}\n",
        HEAD + "hosts:\n  a:\n    run: sh -c 'echo #5'\nexpect:\n  - a.stdout contains \"b: c\"\n",
        HEAD + "hosts:\n  a: {run: nc -l a, b, c}\n",
    ],
)
def test_pasting_the_repaired_lines_mends_the_file(text: str) -> None:
    lines = text.split("\n")
    broken = problems(text)
    assert broken
    for problem in broken:
        if misread(problem):
            lines[problem.line - 1] = misread(problem)
    assert problems("\n".join(lines)) == []


def test_a_host_one_space_too_far_in_goes_with_the_hosts_and_not_with_what_one_of_them_runs() -> None:
    text = HEAD + "hosts:\n  server:\n    serve: a\n   client:\n    run: b\n"
    problem = only(text)
    assert (problem.code, problem.hint) == ("yaml-indent", "with 2 spaces:\n  client:")


@pytest.mark.parametrize("about", ['"\u00a00"', "'a,\u00a0b'", '"\n \u00a0b"', "|\n \u00a0b"])
def test_a_space_of_another_kind_in_a_text_is_the_authors(about: str) -> None:
    text = f"testbed: 1\nhosts: {{a: {{run: x}}}}\nabout: {about}\n"
    assert "\u00a0" in parse(text, "t.yaml").about
