"""Trees into one form, and one tree over another: what happens before a tree becomes a model."""

from __future__ import annotations

from testbed.scenario.linkkeys import same_link
from testbed.scenario.model import PROGRAM_KEYS, Host, Program
from testbed.scenario.source import Map, Nothing, Reading, Text, Value


def same_key(path: tuple[str, ...], key: str) -> str:
    """What makes two keys of the mapping at `path` the same one: links may be written with other spaces."""
    if path == ("links",) or (len(path) == 3 and path[0] == "fails_when" and path[2] == "links"):
        return same_link(key)
    return key


def without_extras(tree: Map) -> Map:
    """Without the `x-` keys, which hold what the author wants."""
    made = Map(tree.mark)
    for key, value in tree.written():
        if not key.startswith("x-"):
            made.put(key, value)
    return made


def full_hosts(tree: Map, reading: Reading) -> Map:
    """Hosts with their one program's keys directly become hosts with `programs`, named like the host."""
    hosts = tree.get("hosts")
    if not isinstance(hosts, Map):
        return tree
    made_hosts = Map(hosts.mark)
    for name, host in hosts.written():
        made_hosts.put(name, _full_host(name, host, reading) if isinstance(host, Map) else host)
    return _with(tree, "hosts", made_hosts)


def _full_host(name: Text, host: Map, reading: Reading) -> Map:
    own = Host.known()
    direct = [
        key for key, _ in host.written() if key in PROGRAM_KEYS or (key not in own and Program.key_meant(key))
    ]
    if not direct:
        return host
    made, program = Map(host.mark), Map(host.mark)
    for key, value in host.written():
        (program if key in direct else made).put(key, value)
    if "programs" in host:
        hint = "put it into one of the programs, or the programs' keys directly into the host"
        reading.add(
            direct[0], f"`{direct[0]}` stands beside `programs`: the short and the full form at once", hint
        )
        return made
    programs = Map(host.mark)
    programs.put(name, program)
    made.put(Text("programs", host.mark), programs)
    return made


def merged(base: Map, piece: Map, reading: Reading) -> Map:
    """`piece` over `base`: mappings key by key, everything else replaced, null removes.

    Both must have full hosts. What comes from `piece` keeps its own place in the file.
    """
    _check_short_pieces(base, piece, reading)
    return _merged(base, piece, (), reading)


def _merged(base: Map, piece: Map, path: tuple[str, ...], reading: Reading) -> Map:
    changes = {same_key(path, key): (key, value) for key, value in piece.written()}
    made = Map(base.mark)
    for key, value in base.written():
        change = changes.pop(same_key(path, key), None)
        if change is None:
            made.put(key, value)
            continue
        new_key, new = change
        if isinstance(new, Nothing):
            continue
        if isinstance(value, Map) and isinstance(new, Map):
            new = _merged(value, new, (*path, key), reading)
        made.put(new_key, new)
    for key, value in changes.values():
        if isinstance(value, Nothing):
            reading.add(
                key, f"there is no `{key}` to remove", "nothing behind a key removes it; {} is an empty one"
            )
        else:
            made.put(key, value)
    return made


def _check_short_pieces(base: Map, piece: Map, reading: Reading) -> None:
    """A piece with a short host must mean the program that is named like the host."""
    base_hosts, piece_hosts = base.get("hosts"), piece.get("hosts")
    if not isinstance(base_hosts, Map) or not isinstance(piece_hosts, Map):
        return
    for name, host in piece_hosts.written():
        before = base_hosts.get(name)
        new = host.get("programs") if isinstance(host, Map) else None
        old = before.get("programs") if isinstance(before, Map) else None
        if not isinstance(new, Map) or not isinstance(old, Map) or not isinstance(host, Map):
            continue
        short = host.key("programs").mark == host.mark  # made up by `full_hosts`, and stands nowhere itself
        if short and name in new and old and name not in old:
            hint = f"write it under `programs`, as one of {', '.join(old)}"
            reading.add(host, f"`{name}` has several programs: which one is meant?", hint)


def _with(tree: Map, name: str, value: Value) -> Map:
    made = Map(tree.mark)
    for key, one in tree.written():
        made.put(key, value if key == name else one)
    return made
