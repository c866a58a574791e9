"""The keys of `links`: how they are written, and when two of them are the same one."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import Annotated, Any

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


# Names as they are often written and must not be: `hosts` says so, and the key is none the worse for it.
_ANY = r"\s<>=,/&|:\u2190-\u21ff"
_MORE = rf"{_ANY}()\[\]\"'\u2010-\u2015\u2212"
_LOOSE = rf"[^{_ANY}-](?:[^{_ANY}]*[^{_ANY}-])?"
_NAME_LIKE = rf"[^{_MORE}-](?:[^{_MORE}]*[^{_MORE}-])?"  # nothing of it was meant as a sign
_BACK = r"<[-=~]+|←|⇐|<"
_THERE = r"[-=~]+ *>|>+|[→⇒⟶]|to|TO"
_BOTH = r"<[-=~]*>|[↔⇔⟷]|--?|=|,|/|&|\.\.|:|\||~|and|with"
_OTHER_ARROW = re.compile(
    rf"(?:from +)?({_LOOSE})(?: *({_BOTH}|{_THERE}|{_BACK}) *)({_LOOSE})(?: +(?:over|on|via|in|by) +({_LOOSE}))?"
)


def link_key(value: Value, reading: Reading) -> LinkKey:
    text = text_of(value, reading, "a link")
    flat = " ".join(text.split())
    if found := _ARROW.fullmatch(flat):
        return _made(found.groups(), text.mark)
    if NAME.fullmatch(flat):
        return LinkKey(flat, "", "", True, flat, text.mark)
    if found := re.fullmatch(rf"({_NAME_LIKE}) *(<->|->) *({_NAME_LIKE})(?: +over +({_LABEL}))?", flat):
        return _made(found.groups(), text.mark)
    hint = (
        cut_hint(text, reading)
        or "`a -> b` one way, `a <-> b` both ways, each perhaps `over NETWORK`, or `NETWORK`"
    )
    several = [end.strip() for end in re.split(r"<->|->", flat)]
    if len(several) > 2 and all(map(NAME.fullmatch, several)):
        pairs = [f"`{a} -> {b}`" for a, b in itertools.pairwise(several)]
        raise Refused(f"`{short(text)}` is no link", f"a link for each pair: {', '.join(pairs)}", code="link-form")
    if flat == "*":
        raise Refused(f"`{short(text)}` is no link", "every pair, both ways, is `all <-> all`", code="link-form")
    found = re.fullmatch(r"([^,]+?) *(<->|->) *([^,]+)((?:, *[^,]+)+)", flat)
    if found and not cut_hint(text, reading):
        ends = [found[3], *(end.strip() for end in found[4].split(",")[1:])]
        hint = "a link for each pair: " + ", ".join(
            f"`{found[1]} {found[2]} {end}`" for end in ends if end != found[1]
        )
        raise Refused(f"`{short(text)}` is no link", hint, code="link-form")
    key = meant_link(flat, text.mark)
    if key is None:
        raise Refused(f"`{short(text)}` is no link", hint, code="link-form")
    reading.add(text, f"`{short(text)}` is no link", cut_hint(text, reading) or f"write `{key}`", code="link-form")
    return key


def meant_link(flat: str, mark: Mark) -> LinkKey | None:
    """The link that a key with another sign between its ends, or a word, can only mean."""
    flat = re.sub(r"[\u2010-\u2015\u2212]", "-", flat).replace("›", ">").replace("‹", "<")
    flat = re.sub(r"<{2,}(?=-)", "<", re.sub(r"(?<=-)>{2,}", ">", flat))
    flat = re.sub(r"[\"'\[\]()]", "", flat)
    flat = re.sub(r"(?<=[a-z0-9]):[0-9]{1,5}(?!\S)", "", flat)  # a port
    found = _OTHER_ARROW.fullmatch(flat) or re.fullmatch(rf"({_LOOSE}) *(<->|->) *({_LOOSE})()", flat)
    if found is None:
        return None
    a, sign, b, network = found.groups()
    if re.fullmatch(_BACK, sign):
        a, b = b, a
    both = sign == "<->" or re.fullmatch(_BOTH, sign)
    return _made((a, "<->" if both else "->", b, network or None), mark)


def _made(parts: tuple[str | Any, ...], mark: Mark) -> LinkKey:
    a, arrow, b, network = parts
    over = f" over {network}" if network else ""
    return LinkKey(f"{a} {arrow} {b}{over}", a, b, arrow == "<->", network, mark)


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
