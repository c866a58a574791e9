"""Every kind of single value in a scenario: how it is read, what an editor may complete, how it is printed."""

from __future__ import annotations

import ipaddress
import posixpath
import re
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Annotated, Any, NamedTuple

from testbed.linux import CAPABILITIES
from testbed.scenario import units
from testbed.scenario.fields import (
    LATER,
    NAME,
    SAME,
    Reads,
    Refused,
    called,
    comment_hint,
    did_you_mean,
    short,
    text_of,
    warn_of_comment,
)
from testbed.scenario.source import Map, Nothing, Reading, Text, Value

MOST_HOSTS = 1000
# Words that mean something else where hosts, networks and programs are named: in `expect`, in `links`, in `$...`.
TAKEN_NAMES = frozenset("all any every sum over kernel localhost name index ip seed".split())
OWN_METRICS = frozenset("exit stdout stderr duration ready_after lives".split())


def simple(parse: Callable[[Text], Any], what: str) -> Callable[[Any, Reading], Any]:
    def read(value: Value, reading: Reading) -> Any:
        return parse(text_of(value, reading, what))

    return read


# -- names -----------------------------------------------------------------------------------------------


def name(value: Value, reading: Reading) -> Text:
    """A DNS label: hosts, networks, programs, volumes, scenarios."""
    text = text_of(value, reading, "a name")
    if not NAME.fullmatch(text):
        better = better_name(text)
        hint = "a-z, 0-9 and - inside, at most 63 letters" + (f", as in `{better}`" if better else "")
        raise Refused(f"`{short(text)}` is no name", hint)
    return text


def better_name(text: str) -> str:
    """The name that is nearest to it; "" if nothing of it can stand in one."""
    return re.sub(r"[^a-z0-9-]+", "-", text.lower()).strip("-")[:63].strip("-")


def free_name(value: Value, reading: Reading) -> Text:
    text = name(value, reading)
    if text in TAKEN_NAMES:
        raise Refused(
            f"`{text}` cannot be a name: the word has a meaning of its own in links, commands or `expect`",
            f"such as `{text}-1`",
        )
    return text


def _pattern(pattern: str, what: str, hint: str = "") -> Callable[[Any, Reading], Text]:
    compiled = re.compile(pattern, re.ASCII)

    def read(value: Value, reading: Reading) -> Text:
        text = text_of(value, reading, what)
        if not compiled.fullmatch(text):
            raise Refused(f"`{short(text)}` is no {what}", hint)
        return text

    return read


def metric_name(value: Value, reading: Reading) -> Text:
    text = _pattern("[a-z][a-z0-9_]*", "name of a metric", "a-z, 0-9 and _, with a letter first")(value, reading)
    if text in OWN_METRICS:
        raise Refused(f"`{text}` is a metric that every program has by itself", "choose another name")
    return text


def environment_name(value: Value, reading: Reading) -> Text:
    hint = "letters, digits and _, no digit first"
    text = _pattern("[A-Za-z_][A-Za-z0-9_]*", "name of an environment variable", hint)(value, reading)
    if text.startswith("TESTBED_"):
        raise Refused(f"`{short(text)}`: names that begin with TESTBED_ are set by the testbed")
    return text


_NAME_SCHEMA = {"type": ["string", "integer"], "pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"}
Name = Annotated[str, Reads(name, _NAME_SCHEMA, otherwise=SAME, is_name=True)]
FreeName = Annotated[str, Reads(free_name, _NAME_SCHEMA, otherwise=SAME, is_name=True)]
_METRIC_SCHEMA = {"type": "string", "pattern": "^[a-z][a-z0-9_]*$"}
MetricName = Annotated[str, Reads(metric_name, _METRIC_SCHEMA, otherwise=SAME, is_name=True)]
_VARIABLE_SCHEMA = {"type": "string", "pattern": "^(?!TESTBED_)[A-Za-z_][A-Za-z0-9_]*$"}
EnvironmentName = Annotated[str, Reads(environment_name, _VARIABLE_SCHEMA, otherwise=SAME, is_name=True)]
SysctlName = Annotated[
    str,
    Reads(
        _pattern(r"net\.[a-z0-9_.-]+", "sysctl of a host", "only those under `net.` belong to a host alone"),
        {"type": "string", "pattern": "^net\\.[a-z0-9_.-]+$"},
        otherwise=SAME,
        is_name=True,
    ),
]

# -- text ------------------------------------------------------------------------------------------------


def some_text(value: Value, reading: Reading) -> Text:
    text = text_of(value, reading)
    if not text.strip():
        raise Refused("the text is empty", at=value)
    return text


def expectation(value: Value, reading: Reading) -> Text:
    text = some_text(value, reading)
    hint = comment_hint(text, reading)
    if hint and _open_quote(text):
        raise Refused(f"`{short(text)}`: a text in it has no end", hint)
    warn_of_comment(text, reading)
    return text


def _open_quote(text: str) -> bool:
    """Whether a text inside an expectation begins and does not end."""
    return re.sub(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'', "", text).count('"') > 0


def empty(value: Value, reading: Reading) -> None:
    if not isinstance(value, Nothing) and not (isinstance(value, Map) and not value):
        raise Refused(f"expected nothing here, found {called(value)}", "a volume has a name and nothing else")


SCALAR = {"type": ["string", "number", "boolean"]}
AnyText = Annotated[str, Reads(lambda value, reading: text_of(value, reading), SCALAR, otherwise=Text(""))]
ExpectationText = Annotated[str, Reads(expectation, {"type": "string", "minLength": 1}, otherwise=Text(""))]
Empty = Annotated[None, Reads(empty, {"type": "null"})]
SomeText = Annotated[str, Reads(some_text, {**SCALAR, "minLength": 1}, otherwise=Text("?"))]


def one_of(words: tuple[str, ...], what: str) -> Callable[[Any, Reading], Text]:
    def read(value: Value, reading: Reading) -> Text:
        text = text_of(value, reading, what)
        if text not in words:
            hint = did_you_mean(text, words, f"one of {', '.join(words)}")
            raise Refused(f"`{short(text)}` is no {what}", hint, value)
        return text

    return read


def _choice(words: str, what: str) -> Reads:
    choices = tuple(words.split())
    return Reads(one_of(choices, what), {"enum": list(choices)}, otherwise=Text(choices[0]))


Distribution = Annotated[str, _choice("uniform normal", "distribution")]
JitterOrder = Annotated[str, _choice("free kept", "order")]
Congestion = Annotated[str, _choice("cubic reno bbr machine", "congestion control")]
MetricUnit = Annotated[str, _choice(" ".join(unit for unit in units.UNITS if unit != "packet"), "unit")]
_SIGNALS = "SIGTERM SIGINT SIGHUP SIGQUIT SIGKILL SIGUSR1 SIGUSR2 SIGALRM SIGPIPE SIGCONT SIGSTOP SIGWINCH SIGABRT"
Signal = Annotated[str, _choice(_SIGNALS, "signal")]
_REQUIREMENTS = ("docker", "namespaces", "root", "netem", "sctp", "ipv6", "bbr")
COMMAND_REQUIRED = "command:"
_REQUIRED = {"cpus": "[1-9][0-9]{0,3}", "command": "[A-Za-z0-9_][A-Za-z0-9_.+-]*"}  # what stands behind the colon


def requirement(value: Value, reading: Reading) -> Text:
    if isinstance(value, Map) and len(value) == 1:
        word, name = next(iter(value.items()))
        if word in _REQUIRED and (isinstance(name, Nothing) or re.fullmatch(_REQUIRED[word], str(name))):
            written = "NAME" if isinstance(name, Nothing) else name
            message = "expected a requirement, found a mapping"
            raise Refused(message, f"without a space: `{word}:{written}`", value, "shape")
    text = text_of(value, reading, "a requirement")
    word, colon, argument = text.partition(":")
    if text in _REQUIREMENTS or (colon and re.fullmatch(_REQUIRED.get(word, "(?!)"), argument, re.ASCII)):
        return text
    known = (*_REQUIREMENTS, "cpus:4", "command:NAME")
    hint = did_you_mean(text, known, f"one of {', '.join(known)}")
    if found := re.fullmatch(
        r"(?:commands?|programs?|cmd|binary)[: ]+([A-Za-z0-9_][A-Za-z0-9_.+-]*)(?: .*)?", text
    ):
        raise Refused(f"`{short(text)}` is no requirement", f"did you mean `command:{found[1]}`?")
    if word == "command" and "/" in argument:
        hint = f"a name without a path: `command:{posixpath.basename(argument)}`"
    elif not hint.startswith("did you") and re.fullmatch(_REQUIRED["command"], text, re.ASCII):
        hint = f"a program is required as `command:{text}`; else {hint}"
    raise Refused(f"`{short(text)}` is no requirement", hint)


Requirement = Annotated[
    str,
    Reads(
        requirement,
        {
            "anyOf": [
                {"enum": list(_REQUIREMENTS)},
                *({"type": "string", "pattern": f"^{word}:{what}$"} for word, what in _REQUIRED.items()),
            ]
        },
        otherwise=Text("root"),
    ),
]

# With SYS_PTRACE a program reaches one of ours on its way into the host; the others know no namespace.
_TOO_MUCH = frozenset(
    "SYS_ADMIN SYS_MODULE SYS_RAWIO SYS_BOOT SYS_TIME SYS_PTRACE SYSLOG DAC_READ_SEARCH BPF PERFMON "
    "CHECKPOINT_RESTORE".split()
)


def capability(text: Text) -> Text:
    bare = text.upper().removeprefix("CAP_")
    if bare not in CAPABILITIES:
        raise Refused(f"`{short(text)}` is no capability", did_you_mean(bare, CAPABILITIES, "as in NET_ADMIN"))
    if bare in _TOO_MUCH:
        raise Refused(f"`{bare}` is never given: with it a program reaches beyond its host")
    return Text(bare, text.mark, text.end)


Capability = Annotated[str, Reads(simple(capability, "a capability"), {"type": "string"}, otherwise=SAME)]


def regex(text: Text) -> Text:
    """`/.../`, kept without the slashes."""
    if len(text) < 3 or text[0] != "/" or text[-1] != "/":
        raise Refused(f"`{short(text)}` is no regular expression", f"it stands between slashes: `/{short(text)}/`")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            re.compile(text[1:-1])
    except (re.error, OverflowError, RecursionError) as problem:
        raise Refused(f"`{short(text)}` is no regular expression: {problem}") from problem
    return Text(text[1:-1], text.mark, text.end)


Regex = Annotated[
    str,
    Reads(
        simple(regex, "a regular expression"),
        {"type": "string", "pattern": "^/.+/$"},
        show=lambda value: f"/{value}/",
        otherwise=Text("x"),
    ),
]
JsonPath = Annotated[
    str,
    Reads(
        _pattern(r"[^\s.]+(\.[^\s.]+)*", "path into a JSON object", "keys with points between, as in `a.b.c`"),
        {"type": "string"},
        otherwise=Text("x"),
    ),
]

# -- quantities ------------------------------------------------------------------------------------------


class _Kind(NamedTuple):
    what: str
    example: str
    units: str  # as a regular expression
    parse: Callable[[str], Any]
    show: Callable[[Any], str]


_TIME = _Kind("a time", "20 ms", "ns|us|ms|s|min|h", units.parse_duration_ns, units.format_ns)
_RATE = _Kind("a rate", "10 Mbit/s", "|".join(units.RATE), units.parse_rate_bit_s, units.format_rate)
_RATIO = _Kind("a ratio", "10 %", "%", units.parse_ratio, units.format_ratio)
_PACKETS = _Kind("a number", "3 packets", "packets?", units.parse_packets, units.format_packets)


def _quantity(kind: _Kind, least: int = 0, otherwise: Any = None, has_full_form: bool = False) -> Reads:
    def read(value: Value, reading: Reading) -> Any:
        if isinstance(value, Map) and has_full_form:
            raise Refused(f"the full form of {kind.what} {LATER}", f"write it short, as in `{kind.example}`")
        if not isinstance(value, Text):
            raise Refused(f"expected {kind.what}, found {called(value)}", f"as in `{kind.example}`")
        made = kind.parse(value)
        if made < least:
            raise Refused(f"`{short(value)}` is too small", f"at least {kind.show(least)}")
        return made

    pattern = rf"^[0-9]+(\.[0-9]+)? *({kind.units})$"
    return Reads(read, {"type": "string", "pattern": pattern}, kind.show, otherwise)


Duration = Annotated[int, _quantity(_TIME)]
PositiveDuration = Annotated[int, _quantity(_TIME, 1)]
WholeTimeout = Annotated[int, _quantity(_TIME, 1, otherwise=units.TIME["h"] * 1000)]
Rate = Annotated[int, _quantity(_RATE, 1, has_full_form=True)]
Ratio = Annotated[float, _quantity(_RATIO)]
Loss = Annotated[float, _quantity(_RATIO, has_full_form=True)]
Packets = Annotated[int, _quantity(_PACKETS, 1)]


def queue(value: Value, reading: Reading) -> units.Quantity:
    if isinstance(value, Map):
        raise Refused(f"the full form of a queue {LATER}", "write `100 packets`, `50 ms` or `64 KiB`")
    if not isinstance(value, Text):
        raise Refused(f"expected a queue, found {called(value)}", "as in `100 packets`, `50 ms` or `64 KiB`")
    quantity = units.parse_quantity(value)
    if quantity.dimension not in ("packets", "time", "size") or quantity.value <= 0:
        bare = quantity.dimension == "number" and re.fullmatch("[1-9][0-9]*", value)
        hint = f"did you mean `{value} packets`?" if bare else "as in `100 packets`, `50 ms` or `64 KiB`"
        raise Refused(f"`{short(value)}` is no length of a queue", hint, code="unit")
    return quantity


_QUEUE_SCHEMA = {
    "type": "string",
    "pattern": rf"^[0-9]+(\.[0-9]+)? *(packets?|{_TIME.units}|{'|'.join(units.SIZE)})$",
}
Queue = Annotated[units.Quantity, Reads(queue, _QUEUE_SCHEMA, units.format_quantity)]


def whole(low: int, high: int, what: str) -> Reads:
    def read(value: Value, reading: Reading) -> int:
        if not isinstance(value, Text):
            raise Refused(f"expected {what}, found {called(value)}")
        if not re.fullmatch(r"0|[1-9][0-9]{0,30}", value):
            hint = "without a leading 0" if re.fullmatch(r"0[0-9]+", value) else "digits only"
            raise Refused(f"`{short(value)}` is no {what.removeprefix('a ')}", hint)
        if not low <= int(value) <= high:
            raise Refused(f"{value} is outside {low} to {high}")
        return int(value)

    return Reads(read, {"type": "integer", "minimum": low, "maximum": high}, otherwise=low)


def version(value: Value, reading: Reading) -> int:
    if not isinstance(value, Text):
        raise Refused(
            f"expected the version of the format, 1, found {called(value)}", "write `testbed: 1`", value, "shape"
        )
    text = text_of(value, reading, "the version of the format, 1")
    if re.fullmatch("[1-9][0-9]{0,8}", text) and int(text) > 1:
        raise Refused(f"this file is of format {text} and needs a newer testbed", "this one reads format 1")
    if text != "1":
        raise Refused(f"`{short(text)}` is no version of the format", "write `testbed: 1`")
    return 1


Seed = Annotated[int, whole(0, 2**63 - 1, "a whole number")]
Version = Annotated[int, Reads(version, {"const": 1}, otherwise=1)]
Count = Annotated[int, whole(1, MOST_HOSTS, "a whole number")]

# -- addresses and paths ---------------------------------------------------------------------------------


DUAL = "`ip: dual` gives the network a part of 2001:2::/48, and its hosts addresses there"


def subnet(text: Text) -> Text:
    if ":" in text:
        raise Refused(f"`{short(text)}`: an IPv6 `subnet` {LATER}", DUAL)
    try:
        network = ipaddress.IPv4Network(text)
    except ValueError as problem:
        hint = "as in 198.18.7.0/24"
        with suppress(ValueError):
            hint = f"did you mean `{ipaddress.IPv4Network(text, strict=False)}`?"
        raise Refused(f"`{short(text)}` is no subnet: {problem}", hint) from problem
    if "/" not in text and str(text).endswith(".0"):
        raise Refused(f"`{short(text)}` does not say how large it is", f"did you mean `{text}/24`?")
    if "/" not in text or not 8 <= network.prefixlen <= 29:
        raise Refused(f"`{short(text)}` is no subnet for hosts", "between /8 and /29, as in 198.18.7.0/24")
    if network.is_loopback or network.is_multicast or network.is_reserved or network.is_link_local:
        raise Refused(f"`{short(text)}` is set aside for other uses", "198.18.0.0/15 is the range for tests")
    return text


def address(text: Text) -> Text:
    if ":" in text:
        raise Refused(f"`{short(text)}`: an IPv6 `address` {LATER}", DUAL)
    try:
        ipaddress.IPv4Address(text)
    except ValueError as problem:
        raise Refused(f"`{short(text)}` is no address: {problem}", "as in 198.18.7.10") from problem
    return text


def ip_versions(text: Text) -> Text:
    if text == "6":
        raise Refused(f"`ip: 6` {LATER}", "`ip: dual` has both")
    if text not in ("4", "dual"):
        raise Refused(f"`{short(text)}` is no version of IP for a network", "4 or dual")
    return text


IpVersions = Annotated[
    str, Reads(simple(ip_versions, "a version of IP"), {"enum": [4, "4", "dual"]}, otherwise=Text("4"))
]
Subnet = Annotated[str, Reads(simple(subnet, "a subnet"), {"type": "string"})]
Address = Annotated[str, Reads(simple(address, "an address"), {"type": "string"})]


def source_path(value: Value, reading: Reading) -> Text:
    """A path of the author's: relative to the scenario file. Where it leads is for `own` to see, on the disk."""
    text = some_text(value, reading)
    if text.startswith(("/", "~")):
        hint = "a path is relative to the scenario file, as in ../certs/ca.pem, and stays in the project"
        raise Refused(f"`{short(text)}` is no relative path", hint)
    return text


def host_path(value: Value, reading: Reading) -> Text:
    """A path in a host, from its root or from `working_dir`."""
    text = some_text(value, reading)
    if ".." in text.split("/"):
        raise Refused(f"`{short(text)}` has a `..` in it", "write the path out")
    return text


def file_target(value: Value, reading: Reading) -> Text:
    """A path in a host; `semantics` looks at it together with its source."""
    return some_text(value, reading)


def absolute_path(value: Value, reading: Reading) -> Text:
    text = host_path(value, reading)
    if not text.startswith("/"):
        raise Refused(
            f"`{short(text)}` is no absolute path", f"did you mean `/{short(text).strip().lstrip('/')}`?"
        )
    return text


_PATH = {"type": "string", "minLength": 1}
SourcePath = Annotated[str, Reads(source_path, _PATH, otherwise=SAME)]
FileTarget = Annotated[str, Reads(file_target, _PATH, otherwise=SAME)]
HostPath = Annotated[str, Reads(host_path, _PATH, otherwise=SAME)]
AbsolutePath = Annotated[str, Reads(absolute_path, _PATH, otherwise=Text("/x"))]


class Mount(NamedTuple):
    """What a host mounts: a volume of the file's, or a directory of the author's, which is read-only."""

    source: Text
    path: Text
    directory: bool


def mount(value: Value, reading: Reading) -> Mount:
    text = text_of(value, reading, "VOLUME:/path or ../directory:/path:ro")
    source, colon, rest = text.partition(":")
    path, more, mode = rest.partition(":")
    at = Text(source, text.mark, text.end)
    directory = "/" in source or source.startswith((".", "~"))
    if not colon or not source or not (directory or NAME.fullmatch(source)):
        hint = "VOLUME:/path, with VOLUME named under `volumes`, or ../src:/path:ro"
        raise Refused(f"`{short(text)}` is no mount", hint)
    if directory:
        source_path(at, reading)
    made = Mount(at, absolute_path(Text(path, text.mark, text.end), reading), directory)
    if directory and mode != "ro":
        hint = f"{short(source)}:{short(path)}:ro; what hosts write goes to a volume under `volumes`"
        raise Refused(f"`{short(text)}`: no host writes to this machine, so a directory needs `:ro`", hint)
    if more and not directory:
        hint = f"{source}:{short(path)}; for a directory of yours, ./{source}:{short(path)}:ro"
        raise Refused(f"`{short(text)}`: hosts share a volume to write to it", hint)
    return made


VolumeMount = Annotated[
    Mount,
    Reads(
        mount,
        {"type": "string", "pattern": "^([a-z0-9-]+:/[^:]*|[^:~/][^:]*:/[^:]*:ro)$"},
        show=lambda value: f"{value.source}:{value.path}{':ro' if value.directory else ''}",
        otherwise=Mount(Text(""), Text("/x"), False),
    ),
]
