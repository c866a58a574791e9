"""What JSON keeps of plans and records, made into them again: every field is there, no other, each of its type."""

from __future__ import annotations

import types
import typing
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Literal

LARGEST = 1 << 128  # no count, time or seed of ours is larger, and what is cannot be shown

_WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", dict: "an object"}


def rebuild(kind: Any, data: Any, at: str = "", **given: Any) -> Any:
    """An instance of `kind` (a dataclass, a tuple, list or dict of such, int | None, ...) from plain JSON data.

    `given` are fields of the dataclass that the data does not have. Raises TypeError saying where, what has to be
    there and what is.
    """
    if kind is Any:
        return data
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _one_of(arguments, data, at)
    if origin is Literal:
        return data if data in arguments and isinstance(data, str) else _wrong(at, f"one of {arguments}", data)
    if is_dataclass(kind):
        return _instance(kind, data, at, given)
    if origin in (tuple, list):
        return _sequence(origin, arguments, data, at)
    if origin is dict:
        if not isinstance(data, dict):
            _wrong(at, _WORDS[dict], data)
        return {key: rebuild(arguments[1], value, _below(at, key)) for key, value in data.items()}
    numbers = {int: (int,), float: (int, float)}.get(kind, ())
    if type(data) not in (numbers or (kind,)) or (numbers and not abs(data) < LARGEST):
        _wrong(at, _WORDS[kind], data)
    return data


def _one_of(kinds: tuple[Any, ...], data: Any, at: str) -> Any:
    for kind in kinds:
        if kind is types.NoneType and data is None:
            return None
        if kind is not types.NoneType:
            try:
                return rebuild(kind, data, at)
            except TypeError as problem:
                last = problem
    raise last


def _instance(kind: Any, data: Any, at: str, given: dict[str, Any]) -> Any:
    if not isinstance(data, dict):
        _wrong(at, _WORDS[dict], data)
    known = _hints(kind)
    wanted = [field.name for field in fields(kind) if field.name not in given]
    for name in wanted:
        if name not in data:
            raise TypeError(f"{_below(at, name)}: it is missing")
    for name in data:
        if name not in wanted:
            raise TypeError(f"{_below(at, name)}: this version knows no such key")
    return kind(**{name: rebuild(known[name], data[name], _below(at, name)) for name in wanted}, **given)


def _sequence(origin: Any, arguments: tuple[Any, ...], data: Any, at: str) -> Any:
    if not isinstance(data, list | tuple):
        _wrong(at, "a list", data)
    kinds = arguments
    if origin is list or (len(arguments) == 2 and arguments[1] is Ellipsis):
        kinds = arguments[:1] * len(data)
    if len(kinds) != len(data):
        _wrong(at, f"a list of {len(kinds)}", data)
    return origin(rebuild(one, item, _below(at, n)) for n, (one, item) in enumerate(zip(kinds, data, strict=True)))


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _below(at: str, name: object) -> str:
    return f"{at}.{name}" if at else str(name)


def _wrong(at: str, wanted: str, data: Any) -> typing.NoReturn:
    shown = repr(data) if not isinstance(data, int) or abs(data) < LARGEST else "a number beyond all bounds"
    raise TypeError(f"{at or 'the whole'}: {wanted} belongs there, and not {shown[:80]}")
