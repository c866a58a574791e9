"""The keys of `links`: how they are written, and when two of them are the same one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from testbed.scenario.fields import NAME, Reads, Refused, cut_hint, short, text_of
from testbed.scenario.source import Mark, Reading, Value


@dataclass(frozen=True)
class LinkKey:
    """`a -> b`, `a <-> b`, each perhaps `over` a network; or a network alone, then `a` and `b` are empty."""

    text: str
    a: str
    b: str
    both: bool
    network: str | None
    mark: Mark

    def __str__(self) -> str:
        return self.text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LinkKey) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)


_LABEL = r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
_ARROW = re.compile(rf"({_LABEL}) *(<->|->) *({_LABEL})(?: +over +({_LABEL}))?", re.ASCII)


def link_key(value: Value, reading: Reading) -> LinkKey:
    text = text_of(value, reading, "a link")
    flat = " ".join(text.split())
    found = _ARROW.fullmatch(flat)
    if found:
        a, arrow, b, network = found.groups()
        over = f" over {network}" if network else ""
        return LinkKey(f"{a} {arrow} {b}{over}", a, b, arrow == "<->", network, text.mark)
    if NAME.fullmatch(flat):
        return LinkKey(flat, "", "", True, flat, text.mark)
    hint = "`a -> b` one way, `a <-> b` both ways, each perhaps `over NETWORK`, or `NETWORK`"
    backwards = re.fullmatch(rf"({_LABEL}) *(?:<-|<=) *({_LABEL})", flat)
    if backwards:
        hint = f"write `{backwards[2]} -> {backwards[1]}`"
    raise Refused(f"`{short(text)}` is no link", cut_hint(text, reading) or hint)


def same_link(text: str) -> str:
    """What makes two keys of `links` the same: spaces do not matter, nor does the order around `<->`."""
    flat = " ".join(text.split())
    found = _ARROW.fullmatch(flat)
    if not found:
        return flat
    a, arrow, b, network = found.groups()
    if arrow == "<->":
        a, b = sorted((a, b))
    return f"{a} {arrow} {b} over {network}" if network else f"{a} {arrow} {b}"


_LINK_SCHEMA = {"type": "string", "pattern": rf"^{_LABEL}( *<?-> *{_LABEL}( +over +{_LABEL})?)?$"}
NO_LINK = LinkKey("?", "", "", False, None, Mark())
Link = Annotated[LinkKey, Reads(link_key, _LINK_SCHEMA, str, otherwise=NO_LINK, is_name=True)]
