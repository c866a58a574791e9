"""What was meant by an expectation that is none, ready to be written, or by a name of other tools. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator

from testbed.expect.grammar import GrammarError, parse

_FLIPPED = {"==": "==", "!=": "!=", "<": ">", ">": "<", "<=": ">=", ">=": "<="}
_NEGATED = {"==": "!=", "!=": "==", "<": ">=", ">": "<=", "<=": ">", ">=": "<"}
_METRIC = r"[A-Za-z][\w.-]*(?: *-> *[A-Za-z][\w.-]*)?\.[A-Za-z_]\w*"
_VALUE = r"(?:-?[0-9][0-9.]*(?: *[A-Za-z%/]+)?|\"[^\"]*\"|'[^']*')"
_QUOTED = r"(\"[^\"]*\"|'[^']*')"
_SHELL = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_ASSERTIONS = {  # of Jest, Chai and AssertJ
    "==": "toBe toEqual toStrictEqual equal eql be isEqualTo to_equal",
    "contains": "toContain contains include contain toContainEqual",
    "<": "toBeLessThan lessThan below isLessThan",
    ">": "toBeGreaterThan greaterThan above isGreaterThan",
    "<=": "toBeLessThanOrEqual isLessThanOrEqualTo",
    ">=": "toBeGreaterThanOrEqual isGreaterThanOrEqualTo",
    "== yes": "toBeTruthy isTrue true",
    "== no": "toBeFalsy isFalse false",
}
_AGGREGATES = "count sum min mean median p90 p95 p99 max sd first last".split()


def _asserted(found: re.Match[str]) -> str:
    test = next((test for test, words in _ASSERTIONS.items() if found[2] in words.split()), "")
    return f"{found[1]} {test} {found[3] or ''}".strip() if test else found[0]


def _alone(found: re.Match[str]) -> str:
    """A metric without a test."""
    last = found[1].rpartition(".")[2]
    return found[1] if last in _AGGREGATES else f"{found[1]} == {'0' if last == 'exit' else 'yes'}"


def _aggregated(found: re.Match[str]) -> str:
    """`avg(a.delay)` and `max a.delay`."""
    word = found[1].lower()
    if found[2].endswith((".stdout", ".stderr")):
        return found[0]
    if word == "sum":
        return f"sum of {found[2]}"
    word = next((name for name in _AGGREGATES if word in (name, *_CALLED_SO.get(name, "").split())), "")
    return f"{found[2]}.{word}" if word else found[0]


def _literal(quoted: str) -> str:
    return re.escape(quoted[1:-1]).replace("/", r"\/").replace(r"\ ", " ")


_Rewrite = tuple[str, str | Callable[[re.Match[str]], str]]
_REWRITES: tuple[_Rewrite, ...] = (
    (r"^(?:assert|expect|that|check|ensure)\b(?!\()[: ]*", ""),
    (r" *(?://| # ).*$|(?<=[\w\"])[;.]$", ""),
    (rf"^([^\"']*?) *, *{_QUOTED}$", r"\1"),
    (r"\{\{ *(.*?) *\}\}", r"\1"),
    (r"^\$\{?([\w.>-]+)\}?(?=\s)", r"\1"),
    (rf"^(?:expect|assertThat|assert_that)\( *({_METRIC}) *\)\.(?:to\.)?(\w+)\( *({_VALUE})? *\)$", _asserted),
    (rf"^assert_?[Ee]quals?\( *({_METRIC}) *, *({_VALUE}) *\)$", r"\1 == \2"),
    (rf"^assert_?[Ee]quals?\( *({_VALUE}) *, *({_METRIC}) *\)$", r"\2 == \1"),
    (rf"^({_METRIC})\.(?:should|to)\.(?:be\.)?(?:equals?|eql?|be)\( *({_VALUE}) *\)$", r"\1 == \2"),
    (rf"^(\w+)(?:\( *| +(?:of +)?)({_METRIC})(?: *\)|(?=\s))", _aggregated),
    (r"\.(\w+)\(\)", r".\1"),
    (r"\.(?:percentile|quantile)\( *(?:0?\.)?(90|95|99) *\)", r".p\1"),
    (rf"^!({_METRIC})$", r"\1 == no"),
    (rf"^({_METRIC})$", _alone),
    (r"^([\w-]+) (?:exits?|returns?)(?: with)? ([0-9]+)$", r"\1.exit == \2"),
    (r"^([\w-]+) (?:succeeds|passes|works|ends well)$", r"\1.exit == 0"),
    (rf"(?:\.startswith\( *| starts? with +){_QUOTED}(?: *\))?$", lambda m: f" matches /^{_literal(m[1])}/"),
    (rf"(?:\.endswith\( *| ends? with +){_QUOTED}(?: *\))?$", lambda m: f" matches /{_literal(m[1])}$/"),
    (rf"^({_METRIC}) *\+ *({_METRIC}) *(==|!=|<=|>=|<|>) *({_VALUE})$", r"\1 \3 \4 - \2"),
    (rf"^({_METRIC}) +- +({_METRIC}) *(==|!=|<=|>=|<|>) *({_VALUE})$", r"\1 \3 \2 + \4"),
    (rf"(==|!=|<=|>=|<|>) *({_METRIC}) *\* *([0-9.]+)$", r"\1 \3 x \2"),
    (rf"(==|!=|<=|>=|<|>) *([0-9.]+) *\* *({_METRIC})$", r"\1 \2 x \3"),
    (rf"^(({_METRIC}) *== *{_VALUE}) +(?:or|\|\|) +\2 *== *({_VALUE})$", r"\1 or \3"),
    (r"(?<=\d)[_,](?=\d{3}(?!\d))", ""),
    (rf" *(?:==?|~=|≈|~) *({_VALUE}) *(?:±|\+/?-) *({_VALUE})$", r" ~ \1 +- \2"),
    (r" ~= *([0-9.]+ ?%)$", r" ~ \1"),
    (r" is empty$", ' == ""'),
    (r" is not empty$", ' != ""'),
    (rf"^{_QUOTED} +not +in +({_METRIC})$", r"\2 does not contain \1"),
    (r" -(eq|ne|lt|le|gt|ge) ", lambda m: f" {_SHELL[m[1]]} "),
    (r"^([\w-]+)[/:](?=[a-z_]\w*(?:\.\w+)? *[=!<>~])", r"\1."),
    (r" matches r?([\"'])(.*)\1$", r" matches /\2/"),
    (r"^not +(.*?)(==|!=|<=|>=|<|>)", lambda m: m[1] + _NEGATED[m[2]]),
    (r"^(\S.*?) *(?:-->|=>|~>|→) *(?=[a-z0-9-]+\.)", r"\1->"),
    (r"^([\w-]+) *<-+ *([\w-]+)(?=\.)", r"\2->\1"),
    (r"\[[\"'](\w+)[\"']\]", r".\1"),
    (rf"^({_VALUE}) *(==|!=|<=|>=|<|>) *({_METRIC})$", lambda m: f"{m[3]} {_FLIPPED[m[2]]} {m[1]}"),
    (rf"^({_VALUE}) *<=? *({_METRIC}) *<=? *({_VALUE})$", r"\2 between \1 and \3"),
    (rf"\.(?:contains|includes)\( *{_QUOTED} *\)", r" contains \1"),
    (r"\.matches\( *[\"']?/?(.*?)/?[\"']? *\)", r" matches /\1/"),
    (rf"^{_QUOTED} +in +({_METRIC})$", r"\2 contains \1"),
    (r" (?:=~|~=|like) */", " matches /"),
    (r" (?:matches|=~|~=|like) +[\"']?([^/\"' 0-9][^/\"']*)[\"']?$", r" matches /\1/"),
    (
        rf" (?:in|within|between) *[\[(]? *({_VALUE}) *(?:\.\.\.?|,|-|to|and) *({_VALUE}) *[\])]?$",
        r" between \1 and \2",
    ),
    (r" (?:===?|=|is equal to|equals?|eq|is) ", " == "),
    (r" (?:!==|=/=|<>|≠|is not|isn't|not equals?|ne|not) ", " != "),
    (r" (?:=>|≥|is at least|at least|ge|gte) ", " >= "),
    (r" (?:=<|≤|is at most|at most|le|lte) ", " <= "),
    (r" (?:is less than|less than|below|under|lt) ", " < "),
    (r" (?:is more than|is greater than|greater than|more than|above|gt) ", " > "),
    (r" (?:≈|is about|about|around|approx\.?) ", " ~ "),
    (r" (?:includes|has|contain) ", " contains "),
    (r" (?:doesn't contain|not contains?|lacks) ", " does not contain "),
    (rf"^({_METRIC})([=!<>]=?)(?=\S)", r"\1 \2 "),
    (r"(?<= )=(?= )|(?<=\w)=(?=\w)", " == "),
)

_CALLED_SO = {
    "exit": "exit_code exitcode exit_status exitstatus returncode return_code retcode status rc code result",
    "stdout": "output out log logs stdout_text",
    "stderr": "err error_output errors_text",
    "duration": "time runtime run_time elapsed took lasted wall_time",
    "ready_after": "startup startup_time ready_time time_to_ready ready",
    "round_trip_delay": "rtt latency ping ping_time delay round_trip response_time round_trip_time",
    "one_way_delay": "delay latency owd transit_time rtt",
    "loss_ratio": "loss packet_loss loss_rate lossrate loss_percent",
    "dropped": "lost drops drop losses missing",
    "lost": "drops drop dropped losses missing",
    "delivered": "received arrived rx recv",
    "received": "delivered arrived rx recv answers",
    "sent": "tx packets count transmitted",
    "goodput": "throughput bandwidth rate speed",
    "mean": "avg average",
    "median": "p50 med q50",
    "max": "maximum highest p100 peak",
    "min": "minimum lowest p0",
    "sd": "std stddev stdev deviation jitter",
    "count": "length len number n size",
    "p99": "p999",
}


def called(word: str, known: Collection[str]) -> str:
    """ "did you mean `exit`?" for `exit_code`: what another tool's word stands for, if it is among the `known`."""
    flat = word.lower().replace("-", "_")
    found = [name for name, words in _CALLED_SO.items() if name in known and flat in words.split()]
    return f"did you mean `{found[0]}`?" if found and word not in known else ""


def meant(text: str) -> list[str]:
    """The expectations that a malformed one can be rewritten to: one, several that were joined, or none."""
    flat = " ".join(text.split())
    for one in _rewritten(flat):
        if _is_one(one):
            return [one]
    parts = re.split(r" (?:and|&&|, and) |; | && ", flat)
    whole = [next((one for one in (part, *_rewritten(part)) if _is_one(one)), "") for part in parts]
    if len(parts) > 1 and all(whole):
        return whole
    found = re.fullmatch(r"([\w-]+) *<-> *([\w-]+)(\..*)", flat)
    both = [f"{found[1]}->{found[2]}{found[3]}", f"{found[2]}->{found[1]}{found[3]}"] if found else []
    return both if both and all(map(_is_one, both)) else []


def _rewritten(text: str) -> Iterator[str]:
    """Each rewriting by itself, and then one after the other."""
    for pattern, by in _REWRITES:
        yield re.sub(pattern, by, text, count=1)
    for pattern, by in _REWRITES:
        text = re.sub(pattern, by, text, count=1)
        yield text


def _is_one(text: str) -> bool:
    try:
        parse(text)
    except GrammarError:
        return False
    return True


def hint(text: str, otherwise: str) -> str:
    """What to write in place of a malformed expectation."""
    found = meant(text)
    if len(found) > 1:
        return "\n".join(["write each by itself", *(f"  - {one}" for one in found)])
    return f"write `{found[0]}`" if found else otherwise
