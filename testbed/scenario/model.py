"""What an author may write: every key of the format, as models. The JSON Schema is made from these.

Only rules that concern one mapping are here; what concerns the file as a whole is in `semantics`.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, PrivateAttr, ValidationInfo

from testbed.scenario import compound, linkkeys, units, values, words
from testbed.scenario.fields import LATER, NAME, Part, paste, reading_of
from testbed.scenario.shapes import Listed, Named
from testbed.scenario.source import List, Map, Mark, Nothing, Reading, Text, Value, mark_of

MINUTE_NS = 60 * 10**9
CONGESTION_SYSCTL = "net.ipv4.tcp_congestion_control"  # another way to write a host's `congestion`
WORKING_DIR = "/scenario"  # of a program that says nothing else


class Network(Part):
    a: ClassVar[str] = "a network"
    may_be_empty: ClassVar[bool] = True
    later: ClassVar[frozenset[str]] = frozenset({"mtu", "outside"})
    instead: ClassVar[dict[str, str]] = words.NETWORK

    subnet: values.Subnet | None = Field(
        None, description="IPv4 in CIDR form; by default a free part of 198.18.0.0/15"
    )
    ip: values.IpVersions = Field("4", description="4, or dual: IPv4 and IPv6")

    @classmethod
    def shape_hint(cls, value: Value) -> str:
        subnet = re.fullmatch(r"[0-9./]+", str(value))
        return f"write `{{subnet: {value}}}`" if subnet else "as in `{subnet: 198.18.7.0/24}`"

    @property
    def dual(self) -> bool:
        return self.ip == "dual"


class Attachment(Part):
    a: ClassVar[str] = "a host's place on a network"
    may_be_empty: ClassVar[bool] = True
    instead: ClassVar[dict[str, str]] = words.ATTACHMENT

    address: values.Address | None = Field(None, description="A fixed address in the network's own `subnet`")


class Stdin(Part):
    a: ClassVar[str] = "stdin"
    main: ClassVar[str] = "text"
    instead: ClassVar[dict[str, str]] = words.STDIN

    text: values.AnyText | None = None
    file: values.SourcePath | None = Field(None, description="Relative to the scenario file")

    @classmethod
    def look(cls, written: Map, reading: Reading) -> None:
        exactly_one(cls, written, reading, "text", "file")


class FileSource(Part):
    a: ClassVar[str] = "a file"
    main: ClassVar[str] = "source"
    instead: ClassVar[dict[str, str]] = words.FILESOURCE

    source: values.SourcePath | None = Field(None, description="Relative to the scenario file")
    text: values.AnyText | None = Field(None, description="The content itself")

    @classmethod
    def look(cls, written: Map, reading: Reading) -> None:
        exactly_one(cls, written, reading, "source", "text")


class Metric(Part):
    a: ClassVar[str] = "a metric"

    prints: values.Regex | None = Field(None, description="Its first group, or the whole match, is a sample")
    json_path: values.JsonPath | None = Field(None, alias="json", description="A path into each line that is JSON")
    unit: values.MetricUnit | None = Field(None, description="The unit of the number that is printed")
    file: values.HostPath | None = Field(None, description="A collected file; by default stdout is read")

    @classmethod
    def look(cls, written: Map, reading: Reading) -> None:
        exactly_one(cls, written, reading, "prints", "json")


class Ready(Part):
    a: ClassVar[str] = "`ready`"
    instead: ClassVar[dict[str, str]] = words.READY

    listens: compound.Sockets | None = Field(None, description="80, udp 53, [80, 443] or /run/x.sock")
    prints: values.Regex | None = Field(None, description="A line of its output matches")
    answers: compound.CommandLine | None = Field(None, description="This command, run in the host, exits 0")
    wait: values.PositiveDuration | None = Field(None, description="Simply this long after the start")
    within: values.PositiveDuration | None = Field(None, description="How long it may take; 10 s")

    @classmethod
    def look(cls, written: Map, reading: Reading) -> None:
        kinds = [key for key, _ in written.written() if key in ("listens", "prints", "answers", "wait")]
        for key in kinds[1:]:
            reading.add(key, f"`ready` has both `{kinds[0]}` and `{key}`", "one of them decides")
        if not kinds and "within" not in written and not cls.misnamed(written):
            reading.add(written, "`ready` is empty", "one of listens, prints, answers, wait")

    @classmethod
    def shape_hint(cls, value: Value) -> str:
        text = str(value) if isinstance(value, Text) else ""
        if re.fullmatch(r"(?:(?:tcp|udp) +)?[0-9]{1,5}", text, re.ASCII) or text.startswith("/run/"):
            return f"write `ready: {{listens: {text}}}`"
        if re.fullmatch(r"/.+/", text):
            return f"write `ready: {{prints: {paste(Text(text))}}}`"
        if re.fullmatch(r"[0-9.]+ *(?:ms|s|min)", text, re.ASCII):
            return f"write `ready: {{wait: {text}}}`"
        return "as in `{listens: 80}`, `{prints: /ready/}`, `{answers: COMMAND}` or `{wait: 2 s}`"


class Program(Part):
    a: ClassVar[str] = "a program"
    vital: ClassVar[dict[str, tuple[str, ...]]] = {"run": ("run", "serve"), "serve": ("run", "serve")}
    instead: ClassVar[dict[str, str]] = words.PROGRAM

    run: compound.CommandLine | None = Field(
        None, description="A command that must end by itself with exit status 0"
    )
    serve: compound.CommandLine | None = Field(
        None, description="A command that must get ready and live to the end"
    )
    after: compound.After | None = Field(None, description="What it waits for before it starts")
    ready: Ready | None = Field(None, description="When a `serve` counts as ready")
    timeout: values.PositiveDuration | None = Field(None, description="For `run`: 60 s")
    stdin: Stdin | None = Field(None, description="Text, or {file: PATH}; empty")
    environment: Annotated[dict[values.EnvironmentName, values.AnyText], Named("variables")] = Field({})
    working_dir: values.AbsolutePath | None = Field(None, description="/scenario")
    user: values.SomeText | None = Field(None, description="A user of the image; root")
    files: Annotated[dict[values.FileTarget, FileSource], Named("files", listed=lambda source: source)] = Field(
        {}, description="Copied in: a list, or TARGET: SOURCE, or TARGET: {text: ...}"
    )
    venv: values.SourcePath | None = Field(
        None, description="A virtual environment of Python: ../.venv; comes first in PATH (namespaces only)"
    )
    collect: Annotated[tuple[values.HostPath, ...], Listed("paths")] = Field(
        (), description="Copied out into the results, also after a failure"
    )
    metrics: Annotated[dict[values.MetricName, Metric], Named("metrics")] = Field(
        {}, description="How to read numbers from a program that does not write records"
    )
    stop_signal: values.Signal | None = Field(None, description="SIGTERM")
    stop_grace_period: values.Duration | None = Field(None, description="From the stop signal to SIGKILL; 5 s")

    @classmethod
    def the_images_own(cls, mark: Mark) -> Program:
        """What the image of a host without programs serves by itself; `mark` is the host's."""
        made = cls.model_construct()
        made._mark = mark
        return made

    @classmethod
    def runs(cls, written: Map) -> bool:
        """Whether it says what to run, perhaps by another word, which is reported in its turn."""
        return any(key in ("run", "serve") or (key not in cls.known() and cls.key_meant(key)) for key in written)

    @property
    def serves(self) -> bool:
        """Also what an image serves by itself, which has neither `run` nor `serve`."""
        return self.run is None and not self.broken

    @classmethod
    def look(cls, written: Map, reading: Reading) -> None:
        """`Host` sees to it that only what an image serves has neither `run` nor `serve`."""
        at_most_one(cls, written, reading, "run", "serve")
        if "run" in written and "ready" in written:
            reading.add(written.key("ready"), "`ready` is for a `serve`; a `run` counts when it has ended well")
        if "serve" in written:
            cls.refuse_timeout(written, reading)

    @classmethod
    def refuse_timeout(cls, written: Map, reading: Reading) -> None:
        if "timeout" in written:
            hint = "`within` under `ready` limits its start, `duration` and `timeout` of the file limit the run"
            reading.add(written.key("timeout"), "`timeout` is for a `run`; a `serve` lives to the end", hint)

    @classmethod
    def shape_hint(cls, value: Value) -> str:
        return command_meant(value)


def command_meant(value: Value) -> str:
    """What to write where a command alone stands for a host or a program."""
    if not isinstance(value, Text):
        return ""
    kind, _, rest = value.partition(" ")
    if kind in ("run", "serve") and rest:
        return f"write `{{{kind}: {paste(Text(rest))}}}`"
    command = paste(value)
    return f"`{{run: {command}}}` if it ends by itself, `{{serve: {command}}}` if it lives to the end"


PROGRAM_KEYS = frozenset(Program.known())


class Host(Part):
    a: ClassVar[str] = "a host"
    may_be_empty: ClassVar[bool] = True
    later: ClassVar[frozenset[str]] = frozenset({"mem_limit", "cpus", "dns", "tty"})
    instead: ClassVar[dict[str, str]] = words.HOST

    image: values.SomeText | None = Field(None, description="Any container image; by default our own node image")
    build: values.SourcePath | None = Field(None, description="A directory with a Dockerfile, beside the scenario")
    networks: Annotated[dict[values.Name, Attachment], Named("networks", listed=lambda n: Nothing(mark_of(n)))] = (
        Field({}, description="A list of names, or {lan: {address: 198.18.7.10}}")
    )
    count: values.Count | None = Field(None, description="So many of them: NAME-1, NAME-2, ...")
    volumes: Annotated[tuple[values.VolumeMount, ...], Listed("mounts")] = Field(
        (), description="VOLUME:/path, or ../src:/path:ro"
    )
    cap_add: Annotated[tuple[values.Capability, ...], Listed("capabilities")] = ()
    cap_drop: Annotated[tuple[values.Capability, ...], Listed("capabilities")] = ()
    sysctls: Annotated[dict[values.SysctlName, values.AnyText], Named("sysctls")] = Field({})
    congestion: values.Congestion | None = Field(
        None, description="TCP's algorithm here: cubic unless said; machine: what the machine has"
    )
    programs: Annotated[dict[values.FreeName, Program], Named("programs")] = Field({})

    @classmethod
    def look(cls, written: Map, reading: Reading) -> None:
        if "image" in written and "build" in written:
            reading.add(written.key("build"), "a host has `image` or `build`, not both")
        sysctls = written.get("sysctls")
        if "congestion" in written and isinstance(sysctls, Map) and CONGESTION_SYSCTL in sysctls:
            message = f"`congestion` and `{CONGESTION_SYSCTL}` say the same thing twice"
            reading.add(sysctls.key(CONGESTION_SYSCTL), message, "leave the sysctl out")
        programs = written.get("programs")
        written_out = [one for _, one in programs.written()] if isinstance(programs, Map) else []
        neither = [one for one in written_out if isinstance(one, Map) and not Program.runs(one)]
        foreign = "image" in written or "build" in written
        for one in neither[1:] if foreign else neither:
            hint = "another program of this host is what its image serves" if foreign else ""
            reading.hosts_in_doubt = True
            reading.add(one, f"{Program.a} needs `run` or `serve`", hint, code="key-missing")
        if foreign and neither:
            Program.refuse_timeout(neither[0], reading)

    @classmethod
    def offered(cls) -> list[str]:
        return [*cls.known(), *Program.known()]

    @classmethod
    def shape_hint(cls, value: Value) -> str:
        kinds = [key for one in value if isinstance(one, Map) for key in one] if isinstance(value, List) else []
        if isinstance(value, List) and sum(key in ("run", "serve") for key in kinds) > 1:
            named = ", ".join(f"program-{number}: {paste(one)}" for number, one in enumerate(value, 1))
            return f"write `{{programs: {{{named}}}}}`"
        if isinstance(value, List) and value and all(isinstance(one, Map) for one in value):
            return f"write `{{{', '.join(paste(one)[1:-1] for one in value)}}}`"
        return command_meant(value)


class Jitter(Part):
    a: ClassVar[str] = "jitter"
    main: ClassVar[str] = "of"
    needs: ClassVar[tuple[str, ...]] = ("of",)

    of: values.PositiveDuration | None = Field(None, description="Plus or minus this much")
    distribution: values.Distribution = "uniform"
    order: values.JitterOrder = Field("free", description="Whether packets may overtake each other")


class Reorder(Part):
    a: ClassVar[str] = "reorder"
    needs: ClassVar[tuple[str, ...]] = ("ratio", "by")
    instead: ClassVar[dict[str, str]] = words.REORDER

    @classmethod
    def need_hint(cls, needed: str) -> str:
        return cls.shape_hint(Nothing())

    ratio: values.Ratio | None = None
    by: values.Packets | None = Field(None, description="Held back until so many others went by")

    @classmethod
    def shape_hint(cls, value: Value) -> str:
        return "as in `reorder: {ratio: 5 %, by: 3 packets}`"


class Condition(Part):
    a: ClassVar[str] = "a condition"
    may_be_empty: ClassVar[bool] = True
    later: ClassVar[frozenset[str]] = frozenset({"only", "corrupt", "drop", "trace", "ecn"})
    instead: ClassVar[dict[str, str]] = words.CONDITION

    delay: values.Duration | None = Field(None, description="One way, as in 20 ms")
    rtt: values.Duration | None = Field(None, description="Both ways together; only for <-> and networks")
    jitter: Jitter | None = Field(None, description="Plus or minus this much, as in 2 ms; may reorder")
    loss: values.Loss | None = Field(None, description="Of packets, as in 10 %")
    duplicate: values.Ratio | None = Field(None, description="Of packets: one extra copy")
    reorder: Reorder | None = Field(None, description="{ratio: 5 %, by: 3 packets}")
    rate: values.Rate | None = Field(None, description="As in 10 Mbit/s, for each ordered pair")
    queue: values.Queue | None = Field(None, description="100 packets, 50 ms or 64 KiB; needs `rate`")

    @classmethod
    def shape_hint(cls, value: Value) -> str:
        items = value if isinstance(value, List) else [value]
        found: dict[str, str] = {}
        for item in items:
            try:
                kind = units.parse_quantity(item).dimension if isinstance(item, Text) else ""
            except units.UnitError:
                kind = ""
            key = {"time": "delay", "rate": "rate", "ratio": "loss"}.get(kind, "")
            if key in found and key == "delay":
                key = "jitter"
            if not key or key in found:
                return "as in `{delay: 20 ms, loss: 5 %}`"
            found[key] = str(item)
        return f"write `{{{', '.join(f'{key}: {one}' for key, one in found.items())}}}`"

    @classmethod
    def look(cls, written: Map, reading: Reading) -> None:
        if "rtt" in written and "delay" in written:
            reading.add(written.key("rtt"), "`rtt` and `delay` say the same thing twice", "leave one of them")
        if "queue" in written and "rate" not in written:
            hint = "a queue forms only before something slow: add `rate`"
            reading.add(written.key("queue"), "`queue` without `rate`", hint)


class Expectation(Part):
    a: ClassVar[str] = "an expectation"
    main: ClassVar[str] = "that"
    needs: ClassVar[tuple[str, ...]] = ("that",)
    later: ClassVar[frozenset[str]] = frozenset({"level"})
    instead: ClassVar[dict[str, str]] = words.EXPECTATION

    that: values.ExpectationText = ""
    because: values.SomeText | None = Field(None, description="Why it must hold; shown with the verdict")

    @classmethod
    def _mapping(cls, value: Any, reading: Reading, info: ValidationInfo) -> Map | None:
        if isinstance(value, Map) and not set(value) & {*cls.known(), *cls.later, *cls.instead}:
            made = Map(value.mark)
            made.put(Text("that", value.mark), value)  # text that YAML took apart: the field's type says so
            return made
        return super()._mapping(value, reading, info)


def one_condition(value: Any, info: ValidationInfo) -> Any:
    """A list of conditions is for `only`, which comes later; a list of one is that one."""
    if not isinstance(value, List):
        return value
    keys = [key for one in value if isinstance(one, Map) for key in one]
    if len(value) > 1 and len(keys) == len(set(keys)) == len(value) and Condition.known().keys() >= set(keys):
        whole = Map(value.mark)
        for one in value:
            for key, condition in one.written() if isinstance(one, Map) else ():
                whole.put(key, condition)
        hint = f"write `{paste(whole)}`"
        reading_of(info).add(value, "a condition is a mapping, found a list", hint, code="shape")
        return whole
    if len(value) > 1:
        reading_of(info).add(value[1], f"a second condition for one link {LATER}: it needs `only`")
    return value[0] if value else Nothing(value.mark)


OneCondition = Annotated[Condition, BeforeValidator(one_condition)]


class Scenario(Part):
    """A scenario as its author wrote it, with short forms made full and every value in base units."""

    a: ClassVar[str] = "a scenario"
    needs: ClassVar[tuple[str, ...]] = ("testbed", "hosts")
    vital: ClassVar[dict[str, tuple[str, ...]]] = {"testbed": ("testbed",), "hosts": ("hosts",)}
    later: ClassVar[frozenset[str]] = frozenset(
        "vars matrix repeat compare routers timeline defaults extends compose capture groups".split()
    )
    instead: ClassVar[dict[str, str]] = words.SCENARIO

    _file: str = PrivateAttr(default="")

    testbed: values.Version = 1
    name: values.Name | None = Field(None, description="As the file is called, without .yaml")
    about: values.SomeText | None = Field(None, description="One sentence: the promise")
    tags: Annotated[tuple[values.Name, ...], Listed("tags")] = ()
    seed: values.Seed = Field(1, description="Of every random draw; $seed hands it to programs")
    timeout: values.WholeTimeout = Field(2 * MINUTE_NS, description="Of the whole run")
    duration: values.PositiveDuration | None = Field(None, description="How long to run where no `run` ends it")
    requires: Annotated[tuple[values.Requirement, ...], Listed("requirements")] = Field(
        (), description="Without these the scenario is skipped"
    )
    networks: Annotated[dict[values.FreeName, Network], Named("networks", may_be_empty=True)] = Field(
        {}, description="Isolated from each other; by default one, `lan`"
    )
    hosts: Annotated[dict[values.FreeName, Host], Named("hosts")] = Field({})
    volumes: Annotated[dict[values.Name, values.Empty], Named("volumes", may_be_empty=True)] = Field(
        {}, description="Directories that hosts share"
    )
    links: Annotated[dict[linkkeys.Link, OneCondition], Named("links", may_be_empty=True)] = Field(
        {}, description="a -> b, a <-> b, NETWORK, ... over NETWORK"
    )
    expect: Annotated[tuple[Expectation, ...], Listed("expectations")] = ()
    ends: compound.EndsWith = Field(compound.Ends(), description="For files that must not pass")
    fails_when: Annotated[dict[values.AnyText, compound.Piece], Named("saboteurs", may_be_empty=True)] = Field(
        {}, description="Pieces of scenario; with each of them merged in, the run must fail"
    )

    @property
    def engines(self) -> tuple[str, ...]:
        """What it requires, and the engine that its keys need."""
        venv = any(program.venv is not None for host in self.hosts.values() for program in host.programs.values())
        return (*self.requires, *(("namespaces",) if venv else ()))

    def sound_expectations(self) -> list[str]:
        """The texts of those that could be read, where something else was wrong with the file.

        A name that is none is said where it stands, so nothing is said of what names it.
        """
        no_names = [host for host in self.hosts if not NAME.fullmatch(host)]
        texts = [one.that for one in self.expect if one.that and not one.broken]
        return [text for text in texts if not any(name in text for name in no_names)]

    @property
    def file(self) -> str:
        """The path it was read from, as given."""
        return self._file

    @classmethod
    def need_hint(cls, needed: str) -> str:
        if needed == "testbed":
            return "the first line of the file is\ntestbed: 1"
        return "write\nhosts:\n  server: {serve: COMMAND}\n  client: {run: COMMAND}"

    @classmethod
    def look(cls, written: Map, reading: Reading) -> None:
        first = next(iter(written.written()), None)
        if "testbed" in written and first and first[0] != "testbed":
            reading.add(
                written.key("testbed"),
                "`testbed` comes first in the file",
                "the first line is\ntestbed: 1",
                code="key-order",
            )
        if written.get("hosts") == {}:
            reading.add(written.key("hosts"), "there is no host", cls.need_hint("hosts"), code="key-missing")
        reading.hosts_in_doubt |= not isinstance(written.get("hosts"), Map)


# Every key of the format: what a line is sooner about that lacks its colon, or a mapping its comma.
# True: such a line stands at the left.
WORDS: dict[str, bool] = {
    word: part is Scenario
    for part in (Network, Host, Program, Ready, Condition, Jitter, Reorder, Metric, Expectation, Scenario)
    for word in (*part.known(), *part.instead)
}


def at_most_one(cls: type[Part], written: Map, reading: Reading, one: str, other: str) -> bool:
    """Whether one of them is there."""
    both = [key for key, _ in written.written() if key in (one, other)]
    if len(both) > 1:
        reading.add(
            both[1], f"{cls.a} has both `{both[0]}` and `{both[1]}`", "one of them, not both", code="key-both"
        )
    return bool(both)


def exactly_one(cls: type[Part], written: Map, reading: Reading, one: str, other: str) -> None:
    if not at_most_one(cls, written, reading, one, other) and not cls.misnamed(written):
        reading.add(written, f"{cls.a} needs `{one}` or `{other}`", code="key-missing")


# Of a key that two of them have, the last one counts: where it is meant oftener.
Part.places = {
    key: place
    for part, place in (
        (Scenario, "at the left of the file"),
        (Ready, "in the `ready` of a `serve`"),
        (Network, "in a network: `networks: {lan: {…}}`"),
        (Program, "in a host: `hosts: {NAME: {…}}`"),
        (Host, "in a host: `hosts: {NAME: {…}}`"),
        (Condition, "in a condition: `links: {a -> b: {…}}`"),
        (Scenario, "at the left of the file"),
    )
    for key in part.known()
    if part is not Scenario or key not in ("timeout", "networks", "volumes")
}
