"""Trees of another shape than the format's that can only mean one thing: each is one problem, with what to write.

Reading goes on with what was meant, so that one slip brings no others with it that are none.
"""

from __future__ import annotations

import itertools

from testbed.scenario.fields import paste, short
from testbed.scenario.model import PROGRAM_KEYS, Condition, Host, Scenario
from testbed.scenario.shapes import mapping_meant
from testbed.scenario.source import List, Map, Nothing, Reading, Text, Value, mark_of

_HOST_KEYS = frozenset(Host.known()) | PROGRAM_KEYS


def meant(tree: Map, reading: Reading) -> Map:
    """The tree as its author meant it; problems are added to `reading`."""
    tree = _hosts_at_the_top(Scenario.with_needed(tree, reading), reading)
    hosts = tree.get("hosts")
    if isinstance(hosts, List):
        hosts = mapping_meant(hosts, "hosts", "hosts", reading)
        tree = _put(tree, "hosts", hosts)
    if isinstance(hosts, Map):
        tree = _top_in_hosts(tree, hosts, reading)
        hosts = tree["hosts"]
        assert isinstance(hosts, Map)
        tree = _put(tree, "hosts", _flat_hosts(hosts, reading))
    links = tree.get("links")
    if isinstance(links, Map):
        tree = _put(tree, "links", _nested_links(links, tree.get("hosts"), reading))
    pieces = tree.get("fails_when")
    if isinstance(pieces, List):
        tree = _put(tree, "fails_when", _listed_pieces(pieces, reading))
    if isinstance(pieces, Map):
        tree = _put(tree, "fails_when", _named_pieces(pieces, reading))
    return tree


def _put(tree: Map, name: str, value: Value) -> Map:
    made = Map(tree.mark)
    for key, one in tree.written():
        made.put(key, value if key == name else one)
    return made


def _looks_like_host(value: Value) -> bool:
    return isinstance(value, Map) and bool(value) and any(key in _HOST_KEYS for key in value)


def _hosts_at_the_top(tree: Map, reading: Reading) -> Map:
    """Hosts beside `hosts:`, or without it."""
    stray = [key for key, one in tree.written() if key not in Scenario.known() and _looks_like_host(one)]
    there = tree.get("hosts", Nothing())
    if not stray or not isinstance(there, Nothing | Map):
        return tree
    hosts = Map(stray[0].mark)
    for key, one in there.written() if isinstance(there, Map) else ():
        hosts.put(key, one)
    for key in stray:
        hosts.put(key, tree[key])
    last = max(_last_line(tree[key]) for key in stray)
    lines = [f"  {line}" for line in reading.lines[stray[0].mark.line - 1 : last]]
    shown = [*([] if "hosts" in tree else ["hosts:"]), *lines]
    what = f"`{stray[0]}` is a host, and hosts stand under `hosts`, two spaces further in"
    reading.add(stray[0], what, "\n".join(["write", *shown]), code="yaml-indent")
    made = Map(tree.mark)
    for key, one in tree.written():
        if key not in stray:
            made.put(key, hosts if key == "hosts" else one)
    if "hosts" not in tree:
        made.put(Text("hosts", stray[0].mark), hosts)
    return made


def _top_in_hosts(tree: Map, hosts: Map, reading: Reading) -> Map:
    """`links:` and the like, indented so far that they are read as hosts."""
    stray = [
        key
        for key, one in hosts.written()
        if key in ("links", "expect", "fails_when", "networks", "hosts") and key not in tree
        if isinstance(one, List) or (isinstance(one, Map) and not _looks_like_host(one))
    ]
    if not stray:
        return tree
    made, left = Map(tree.mark), Map(hosts.mark)
    for key, one in hosts.written():
        if key not in stray:
            left.put(key, one)
    for key, one in tree.written():
        made.put(key, left if key == "hosts" else one)
    for key in stray:
        lines = reading.lines[key.mark.line - 1 : _last_line(hosts[key])]
        lines = [line.removeprefix(" " * (key.mark.column - 1)) for line in lines]
        what = f"`{key}` is indented so far that it is read as a host"
        reading.add(key, what, "\n".join(["write", *lines]), code="yaml-indent")
        made.put(key, hosts[key])
    return made


def _flat_hosts(hosts: Map, reading: Reading) -> Map:
    """`run:` and the like under `hosts`, right behind a host of which nothing is said."""
    made = Map(hosts.mark)
    owner: Text | None = None
    inside = Map(hosts.mark)
    for key, one in hosts.written():
        if owner is not None and key in _HOST_KEYS and not _looks_like_host(one):
            if not inside:
                inside = Map(key.mark)
                lines = _indented(hosts, key, reading)
                what = f"`{key}` is read as a host: it is not indented below `{owner}`"
                reading.add(key, what, "\n".join(["write", *lines]), code="yaml-indent")
            inside.put(key, one)
            made.put(owner, inside)
            continue
        made.put(key, one)
        owner, inside = (key if isinstance(one, Nothing) else None), Map(hosts.mark)
    return made


def _indented(hosts: Map, first: Text, reading: Reading) -> list[str]:
    """The lines of those keys, from the first on, two spaces further in."""
    lines: list[str] = []
    for key, one in hosts.written():
        if (key.mark.offset >= first.mark.offset and key in _HOST_KEYS) and not _looks_like_host(one):
            lines += [f"  {line}" for line in reading.lines[key.mark.line - 1 : _last_line(one)]]
        elif lines:
            break
    return lines


def _last_line(value: Value) -> int:
    if isinstance(value, Text):
        return value.end.line if value.plain or value.style in "'\"" else max(value.mark.line, value.end.line - 1)
    inner = list(value.values()) if isinstance(value, Map) else list(value) if isinstance(value, List) else []
    return max([mark_of(value).line, *map(_last_line, inner)])


def _nested_links(links: Map, hosts: Value | None, reading: Reading) -> Map:
    """`client: {server: {delay: 20 ms}}`: one host inside the other."""
    made = Map(links.mark)
    names = set(hosts) if isinstance(hosts, Map) else set()
    flat = _flat_conditions(links, names, reading)
    for key, one in flat.written():
        inner = list(one.written()) if isinstance(one, Map) else []
        if (pair := _named_ends(one, names)) and isinstance(one, Map):
            named = Map(one.mark)
            for name, value in one.written():
                if name not in _ENDS:
                    named.put(name, value)
            made.put(Text(pair, key.mark, key.end), named)
            hint = f"write\n  {pair}: {paste(named)}"
            reading.add(key, f"`{short(key)}` is no link: the key names both ends", hint, code="link-form")
            continue
        if (
            key not in names
            or not inner
            or not all(name in names and name not in Condition.known() for name, _ in inner)
        ):
            made.put(key, one)
            continue
        lines = []
        for name, condition in inner:
            made.put(Text(f"{key} -> {name}", key.mark, key.end), condition)
            lines.append(f"  {key} -> {name}: {paste(condition)}")
        reading.add(
            key, f"`{key}` is no link: the key names both ends", "\n".join(["write", *lines]), code="link-form"
        )
    return made


_ENDS = frozenset("from to source target src dst a b between hosts nodes ends endpoints".split())


def _named_ends(value: Value, names: set[str]) -> str:
    """`a -> b` for `{from: a, to: b}`, `a <-> b` for `{between: [a, b]}`; "" for all else."""
    if not isinstance(value, Map):
        return ""
    for one, other in (("from", "to"), ("source", "target"), ("src", "dst"), ("a", "b")):
        ends, sign = (value.get(one), value.get(other)), "<->" if one == "a" else "->"
        if all(isinstance(end, Text) and end in names for end in ends):
            return f"{ends[0]} {sign} {ends[1]}"
    for word in ("between", "hosts", "nodes", "ends", "endpoints"):
        listed = value.get(word)
        both = (
            [end for end in listed if isinstance(end, Text) and end in names] if isinstance(listed, List) else []
        )
        if len(both) == 2:
            return f"{both[0]} <-> {both[1]}"
    return ""


def _flat_conditions(links: Map, names: set[str], reading: Reading) -> Map:
    """`delay:` and the like under `links`, right behind a link of which nothing is said."""
    made = Map(links.mark)
    owner: Text | None = None
    inside = Map(links.mark)
    for key, one in links.written():
        if owner is not None and key in Condition.known() and key not in names:
            if not inside:
                inside = Map(key.mark)
                stray = [other for other, _ in links.written() if other.mark.line >= key.mark.line]
                run = list(itertools.takewhile(lambda other: other in Condition.known(), stray))
                last = max(_last_line(links[other]) for other in run)
                lines = [f"  {line}" for line in reading.lines[key.mark.line - 1 : last]]
                what = f"`{key}` is read as a link: it is not indented below `{owner}`"
                reading.add(key, what, "\n".join(["write", *lines]), code="yaml-indent")
            inside.put(key, one)
            made.put(owner, inside)
            continue
        made.put(key, one)
        owner, inside = (key if isinstance(one, Nothing) else None), Map(links.mark)
    return made


def _listed_pieces(pieces: List, reading: Reading) -> Map:
    made, lines = Map(pieces.mark), ["write", "fails_when:"]
    for number, piece in enumerate(pieces, 1):
        if isinstance(piece, Map):
            made.put(Text(f"change {number}", piece.mark), piece)
            lines.append(f"  what is wrong then {number}: {paste(piece)}")
    hint = "\n".join(lines) if len(made) == len(pieces) else ""
    what = "fails_when: expected a mapping of saboteurs, each with a name, found a list"
    reading.add(pieces, what, hint, code="shape")
    return made


def _named_pieces(pieces: Map, reading: Reading) -> Map:
    """`fails_when: {links: …}`: the piece itself, without a name."""
    parts = [key for key, one in pieces.written() if key in ("hosts", "links", "networks", "expect")]
    if not parts or len(parts) != len(pieces):
        return pieces
    made = Map(pieces.mark)
    made.put(Text("it", pieces.mark), pieces)
    lines = ["fails_when:", f"  what is wrong then: {paste(pieces)}"]
    what = f"`{parts[0]}` stands where the name of a saboteur does"
    reading.add(parts[0], what, "\n".join(["write", *lines]), code="shape")
    return made
