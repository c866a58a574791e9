"""What must hold for the file as a whole. Each problem is reported where the author can mend it."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from pathlib import PurePath

from testbed.directories import WRITABLE
from testbed.scenario import order
from testbed.scenario.addresses import allocate
from testbed.scenario.fields import NAME, Refused, did_you_mean, short
from testbed.scenario.linkkeys import NO_LINK
from testbed.scenario.links import resolve
from testbed.scenario.model import WORKING_DIR, Condition, Host, Program, Scenario
from testbed.scenario.source import NOWHERE, Hint, Reading, mark_of
from testbed.scenario.topology import Topology, topology
from testbed.scenario.units import format_ns
from testbed.scenario.values import MOST_HOSTS, TAKEN_NAMES, better_name
from testbed.scenario.variables import Scope

MOST_NETWORKS = 250
MOST_PROGRAMS = 2000
_OF_HOSTS = ("link-end", "program-unknown", "variable")  # what may be right where not every host could be read
# Where nothing can be mounted: what every host has there is what makes it one.
TAKEN_PLACES = frozenset("/ /bin /dev /etc /lib /lib32 /lib64 /opt /proc /sbin /sys /usr".split())
TAKEN_BELOW = ("/proc/", "/sys/", "/dev/", "/opt/testbed")
WRITABLE_BELOW = tuple(f"{path}/" for path in (*WRITABLE, "/dev/shm"))
WRITTEN_PLACES = frozenset(("/run", "/var"))  # where nothing read-only can be


def look(scenario: Scenario, reading: Reading) -> None:
    """Add every problem and warning of the whole to `reading`."""

    def report(at: object, message: str, hint: Hint = "", code: str = "meaning") -> None:
        if not (reading.hosts_in_doubt and code in _OF_HOSTS):
            reading.add(scenario.at() if at is None else at, message, hint, code=code)

    _name(scenario, reading)
    _times(scenario, reading)
    if not _sizes(scenario, reading):
        return
    reading.hosts_in_doubt |= any(not NAME.fullmatch(name) or name in TAKEN_NAMES for name in scenario.hosts)
    there = topology(scenario)
    _hosts(scenario, there, reading)
    _ending(scenario, reading)
    for key, condition in scenario.links.items():
        _condition(str(key), key.both, condition, reading)
    resolve(there, [key for key in scenario.links if key != NO_LINK], report)
    order.start_order(there, report)
    addresses = allocate(there, (), report)
    for name, host in scenario.hosts.items():
        members = there.members(name)
        if members:
            scope = Scope(there, addresses, there.hosts[members[0]], scenario.seed)
            for program in host.programs.values():
                _variables(program, scope, reading)


def _name(scenario: Scenario, reading: Reading) -> None:
    stem = PurePath(reading.file).stem
    if scenario.name is not None and scenario.name != stem and NAME.fullmatch(scenario.name):
        reading.add(
            scenario.name,
            f"`name` is {scenario.name}, and the file is called {short(stem)}",
            "leave it out",
            code="file-name",
        )
    elif scenario.name is None and not NAME.fullmatch(stem):
        better = better_name(stem)
        rule = "a file's name is its scenario's, and that has a-z, 0-9 and - inside"
        hint = f"{rule}: rename it to `{better}{PurePath(reading.file).suffix}`" if better else rule
        reading.add(NOWHERE, f"`{short(stem)}` is no name for a scenario", hint, code="file-name")
    if scenario.about is None:
        reading.add(
            scenario.at(),
            "`about` is missing: one sentence that says what is promised",
            warning=True,
            code="about",
        )


def _times(scenario: Scenario, reading: Reading) -> None:
    limit = scenario.timeout
    if scenario.duration is not None and scenario.duration >= limit:
        message = f"`duration` {format_ns(scenario.duration)} does not fit into `timeout` {format_ns(limit)}"
        reading.add(scenario.at("duration"), message, "set a longer `timeout` for the whole run")
    for host in scenario.hosts.values():
        for program in host.programs.values():
            if program.timeout is not None and program.timeout > limit:
                message = f"{format_ns(program.timeout)} is more than the whole run has, {format_ns(limit)}"
                reading.add(program.at("timeout"), message, "set a longer `timeout` for the file", warning=True)


def _sizes(scenario: Scenario, reading: Reading) -> bool:
    """False when the scenario is too large to look at closely."""
    hosts = sum(host.count or 1 for host in scenario.hosts.values())
    programs = sum((host.count or 1) * len(host.programs) for host in scenario.hosts.values())
    sizes = (
        (hosts, MOST_HOSTS, "hosts"),
        (programs, MOST_PROGRAMS, "programs"),
        (len(scenario.networks), MOST_NETWORKS, "networks"),
    )
    for size, most, what in sizes:
        if size > most:
            reading.add(scenario.at("hosts"), f"{size} {what}, and {most} are the most that a scenario may have")
    return all(size <= most for size, most, _ in sizes)


def _hosts(scenario: Scenario, there: Topology, reading: Reading) -> None:
    foreign = next((key for host in scenario.hosts.values() for key in ("image", "build") if host.wrote(key)), "")
    singles = {name for name, host in scenario.hosts.items() if host.count is None}
    for name, host in scenario.hosts.items():
        for member in there.groups.get(name, ()):
            if member in singles or member in there.groups:
                reading.add(name, f"`{name}` would have a member {member}, and that host is there already")
            elif not NAME.fullmatch(member) and NAME.fullmatch(name):
                reading.add(name, f"`{name}` is too long for the members of a group")
        _networks(name, host, there, reading)
        _volumes(scenario, host, reading)
        for capability in set(host.cap_add) & set(host.cap_drop):
            at = next(one for one in host.cap_drop if one == capability)
            reading.add(at, f"{capability} is both in `cap_add` and in `cap_drop`")
        for program in host.programs.values():
            _files(host, program, reading)
            if program.venv is not None and foreign:
                hint = "install what it needs in the image; `venv:` is for hosts that run this machine's programs"
                reading.add(program.venv, f"no engine has both `venv` and the `{foreign}` of a host", hint)


def _networks(name: str, host: Host, there: Topology, reading: Reading) -> None:
    for network in host.networks:
        if network not in there.networks:
            hint = did_you_mean(network, there.networks) or f"networks: {', '.join(there.networks)}"
            reading.add(network, f"there is no network `{short(network)}`", hint, code="network-unknown")
    if not host.networks and len(there.networks) > 1:
        hint = f"`networks: [{next(iter(there.networks))}]`"
        reading.add(name, f"`{name}` is on no network: there are {', '.join(there.networks)}", hint)
    elif not host.networks and host.wrote("networks"):
        hint = "leave it out to be on the only network"
        reading.add(host.at("networks"), "the list of networks is empty", hint, code="value")


def _volumes(scenario: Scenario, host: Host, reading: Reading) -> None:
    paths: set[str] = set()
    for volume, path, directory in host.volumes:
        if not volume:
            continue
        place = posixpath.normpath(path)
        if not directory and volume not in scenario.volumes:
            hint = did_you_mean(volume, scenario.volumes) or f"volumes: {{{volume}: }}; a directory is ./{volume}"
            reading.add(volume, f"there is no volume `{volume}` under `volumes`", hint)
        if place in paths:
            reading.add(volume, f"two volumes on {path}")
        elif place in TAKEN_PLACES or place.startswith(TAKEN_BELOW) or (directory and place in WRITTEN_PLACES):
            reading.add(volume, f"a host has its own {place}", "mount it elsewhere, as on /srv/data")
        paths.add(place)


def _files(host: Host, program: Program, reading: Reading) -> None:
    foreign = host.image is not None or host.build is not None  # it may write wherever its image lets it
    shown = [(volume, posixpath.normpath(path), directory) for volume, path, directory in host.volumes]
    targets: dict[str, str] = {}
    base = program.working_dir or WORKING_DIR
    for target, file in program.files.items():
        there = posixpath.normpath(target)
        if there.split("/")[0] == ".." and target == file.source:
            name = posixpath.basename(there).lstrip(".") or "TARGET"
            hint = f"{{{name}: {short(target)}}}"
            reading.add(target, f"`{short(target)}`: a path with `..` needs a name in the host", hint)
        elif ".." in target.split("/") and target != file.source:
            reading.add(target, f"`{short(target)}` has a `..` in it", "write the path out")
        elif there in targets:
            reading.add(target, f"`{short(target)}` and `{short(targets[there])}` are the same file")
        targets[there] = target
        place = posixpath.normpath(posixpath.join(base, target))
        within = [one for one in shown if place == one[1] or place.startswith(f"{one[1]}/")]
        if within and max(within, key=lambda one: len(one[1]))[2]:
            volume, mounted, _ = max(within, key=lambda one: len(one[1]))
            hint = "name a place for it elsewhere: {/scenario/TARGET: PATH}"
            reading.add(target, f"`{short(target)}`: `{short(volume)}` is on {mounted}, which is read-only", hint)
        elif (
            not (within or foreign or reading.told_of(target))
            and not place.startswith(WRITABLE_BELOW)
            and place not in WRITABLE
        ):
            hint = f"writable are {', '.join(WRITABLE)}, /dev/shm and volumes; name a place there"
            reading.add(target, f"`{short(target)}`: {place} is in a part of a host that is read-only", hint, True)
    collected = [posixpath.join(base, path).rstrip("/") for path in program.collect]
    for name, metric in program.metrics.items():
        path = metric.file
        full = posixpath.join(base, path or "")
        if path is not None and not any(full == one or full.startswith(f"{one}/") for one in collected):
            reading.add(path, f"metric {name}: {short(path)} is not collected", f"collect: [{short(path)}]")
    ready = program.ready
    if ready is not None and ready.wait is not None and ready.within is not None and ready.within < ready.wait:
        reading.add(ready.at("within"), "`within` is over before `wait` is")


def _ending(scenario: Scenario, reading: Reading) -> None:
    runs = any(program.run is not None for host in scenario.hosts.values() for program in host.programs.values())
    broken = any(host.broken for host in scenario.hosts.values())
    if not runs and scenario.duration is None and scenario.hosts and not broken and not reading.hosts_in_doubt:
        hint = "a program with `run`, or `duration: 10 s` for the whole"
        message = "nothing ends the run: there is no `run` and no `duration`"
        reading.add(scenario.at("hosts"), message, hint, code="no-end")


def _condition(key: str, both: bool, condition: Condition, reading: Reading) -> None:
    if condition.rtt is not None and not both:
        hint = "`delay` is one way; with `<->` each way gets half of `rtt`"
        reading.add(condition.at("rtt"), f"`rtt` on `{key}`, which is one way", hint)
    elif condition.rtt is not None and condition.rtt % 2:
        reading.add(condition.at("rtt"), f"{format_ns(condition.rtt)} has no half in whole ns")
    delay_ns = condition.delay if condition.rtt is None else condition.rtt // 2
    if condition.jitter is not None and (condition.jitter.of or 0) > (delay_ns or 0):
        jitter, delay = format_ns(condition.jitter.of or 0), format_ns(delay_ns or 0)
        message = f"jitter of {jitter} around a delay of {delay}: what would have to leave early leaves at once"
        reading.add(condition.at("jitter"), message, warning=True)


def _variables(program: Program, scope: Scope, reading: Reading) -> None:
    for at, text in _expanded(program):
        try:
            scope.expand(text)
        except Refused as problem:
            if not reading.hosts_in_doubt:
                reading.add(at, problem.message, problem.hint, code="variable")


def _expanded(program: Program) -> Iterator[tuple[object, str]]:
    """Every text of a program in which variables are replaced, with its place."""
    for command in (program.run, program.serve, program.ready.answers if program.ready else None):
        for word in command.argv if command else ():
            yield mark_of(word), word
    for value in program.environment.values():
        yield mark_of(value), value
    if program.stdin is not None and program.stdin.text is not None:
        yield mark_of(program.stdin.text), program.stdin.text
