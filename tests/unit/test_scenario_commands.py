"""Commands into words without a shell, and variables in any text."""

from __future__ import annotations

import contextlib
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.scenario.commands import CommandSyntax, Variable, expand, split, variables


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("probe a:9000 --count 5", ("probe", "a:9000", "--count", "5")),
        ("  a \t b\n c ", ("a", "b", "c")),
        ("sh -c 'x | y > z; w && v'", ("sh", "-c", "x | y > z; w && v")),
        ('a "b c" d', ("a", "b c", "d")),
        ("a 'b'\"c\"d", ("a", "bcd")),
        ("a '' \"\"", ("a", "", "")),
        (r"a\ b c\|d", ("a b", "c|d")),
        (r'"a\"b\\c\d"', (r'a"b\c\d',)),
        ("a\\\nb", ("ab",)),
        ('"a\\\nb"', ("ab",)),
        (r'sh -c "echo \$HOME" \$x', ("sh", "-c", "echo $$HOME", "$$x")),
        ("get http://a/?x=1&y=2 5<6 a*b", ("get", "http://a/?x=1&y=2", "5<6", "a*b")),
        ("'*' \\*", ("*", "*")),
        ("$name", ("$name",)),
        ("", ()),
    ],
)
def test_words(text: str, words: tuple[str, ...]) -> None:
    assert split(text) == words


@pytest.mark.parametrize(
    ("text", "sign"),
    [
        ("a | b", "|"),
        ("a|b", "|"),
        ("a || b", "||"),
        ("a && b", "&&"),
        ("a > b", ">"),
        ("a 2>/dev/null", ">"),
        ("a; b", ";"),
        ("a `b`", "`"),
        ("ls *", "*"),
        ("a < b", "<"),
        ("a &", "&"),
        ("a << b", "<<"),
    ],
)
def test_signs_that_only_a_shell_understands(text: str, sign: str) -> None:
    with pytest.raises(CommandSyntax) as refused:
        split(text)
    assert refused.value.sign == sign
    assert f"`{sign}` is for a shell" in str(refused.value)


@pytest.mark.parametrize("text", ["'a", 'a "b', "a\\", '"a\\'])
def test_quoting_without_an_end(text: str) -> None:
    with pytest.raises(CommandSyntax) as refused:
        split(text)
    assert refused.value.sign == ""


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)))
def test_quoted_words_come_back(words: list[str]) -> None:
    assert split(shlex.join(words)) == tuple(words)


@given(st.text("ab 'xyz\"\t\n=-", max_size=30))
def test_the_words_are_those_of_the_standard_library(text: str) -> None:
    try:
        expected = shlex.split(text)
    except ValueError:
        with pytest.raises(CommandSyntax):
            split(text)
    else:
        assert split(text) == tuple(expected)


@given(st.text(max_size=40))
def test_any_text_is_words_or_a_syntax_error(text: str) -> None:
    with contextlib.suppress(CommandSyntax):
        assert all(isinstance(word, str) for word in split(text))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("$name-x", [("name-x",)]),
        ("${name}-x", [("name",)]),
        ("$name.log", [("name",)]),
        ("$a.ip:9000 $a.lan.ip", [("a", "ip"), ("a", "lan", "ip")]),
        ("$a-1.ip4, $a.ip6.", [("a-1", "ip4"), ("a", "ip6")]),
        ("$a.ipx", [("a",)]),
        ("$$name $5 $? $( $", []),
        ("${a.ip}${", [("a", "ip"), ("",)]),
        ("a$seed$index", [("seed",), ("index",)]),
    ],
)
def test_variables_in_a_text(text: str, parts: list[tuple[str, ...]]) -> None:
    assert [variable.parts for variable in variables(text)] == parts


def test_expansion_happens_once_and_a_double_dollar_is_one() -> None:
    def value(variable: Variable) -> str:
        return f"<{'.'.join(variable.parts)}$x>"

    assert expand("$$a $b ${c} $5", value) == "$a <b$x> <c$x> $5"


@given(st.text("$${}ab.ip-1 ", max_size=30))
def test_what_has_no_variable_is_unchanged(text: str) -> None:
    if not variables(text):
        assert expand(text, lambda variable: "!") == text.replace("$$", "$")
