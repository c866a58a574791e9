"""What our own programs report, so that an expectation of something else is refused before anything runs.

The tables of docs/programs/ as data; a test compares the two. A mode that no program has is refused likewise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from testbed.errors import Problem
from testbed.measure.metrics import split_unit
from testbed.measure.samples import Dimension
from testbed.plan.types import Host, Program
from testbed.scenario.fields import did_you_mean
from testbed.scenario.model import Scenario
from testbed.scenario.source import mark_of

_SERVER = "connections payload_bytes errors error:text"
_CLIENT = "connect_time_ms whole:text retransmits congestion:text error:text"
_LINES = "sent sent_after_eof received in_order received_while_sending error:text"
_WAYS = "forward:text backward:text error:text"
_TABLE = "local:text remote:text state:text sockets listening established local_ports pairs"
_RECORDS = "sent received intact shortened corrupted whole:text error:text"
_REPORTED = {
    ("abort", "send"): "payload_bytes error:text",
    ("abort", "serve"): "connections aborted payload_bytes errors error:text",
    ("connections", "open"): "local:text remote:text connections local_ports",
    ("datagram", "echo"): "received echoed payload_bytes peers errors error:text",
    ("datagram", "probe"): (
        "round_trip_delay_ms loss_period sent unsent received lost duplicated reordered corrupted loss_ratio "
        "duplicate_ratio reordered_ratio errors error:text send_lateness_ms id"
    ),
    ("frames", "watch"): (
        "direction:text protocol:text source_port destination_port flags:text payload_bytes fragment_offset_bytes "
        "packets protocols:text packets_in packets_out with_ports without_ports later_fragments begins:text missed"
    ),
    ("group", "receive"): "received peers error:text",
    ("group", "send"): "sent errors error:text",
    ("icmp", "echo-request"): (
        "round_trip_delay_ms sent received lost loss_ratio corrupted header_bytes error:text"
    ),
    ("idp", "echo"): "packet_type transport_control received payload_bytes error:text",
    ("idp", "send"): "packet_type transport_control sent received corrupted lost error:text",
    ("life", "serve"): (
        "step:text state_after_socket:text state_after_bind:text state_after_listen:text state_after_accept:text "
        "error:text"
    ),
    ("life", "visit"): "before_listen:text after_listen:text after_close:text whole:text eof:text error:text",
    ("lines", "serve"): f"{_LINES} connections",
    ("lines", "talk"): _LINES,
    ("message", "receive"): "message_bytes received truncated payload_bytes peers digest:text error:text",
    ("message", "send"): "sent unsent payload_bytes received peers errors error:text digest:text",
    ("names", "ask"): "local:text remote:text agree:text error:text",
    ("names", "serve"): "bound:text local:text remote:text connections errors error:text",
    ("pieces", "receive"): "reads payload_bytes sha256:text error:text",
    ("pieces", "send"): "sends payload_bytes sha256:text error:text",
    ("pipe", "anonymous"): _WAYS,
    ("pipe", "named"): _WAYS,
    ("pipe", "socketpair"): _WAYS,
    ("ports", "ask"): "local_port answered misnamed local_ports error:text",
    ("ports", "bind"): "bound:text port error:text",
    ("ports", "serve"): "port received misdelivered error:text",
    ("raw", "receive"): (
        "packet_bytes header_bytes source:text identification time_to_live received payload_bytes truncated "
        "corrupted error:text"
    ),
    ("raw", "send"): "sent payload_bytes error:text",
    ("sctp", "echo"): "received payload_bytes peers associations pieces errors error:text",
    ("sctp", "send"): f"{_RECORDS} pieces",
    ("seqpacket", "echo"): "connections received payload_bytes truncated ended errors error:text",
    ("seqpacket", "send"): f"{_RECORDS} end_of_file:text",
    ("seqpacket", "where"): (
        "unix:text unix_type:text unix_error:text sctp:text sctp_type:text sctp_error:text "
        "tcp:text tcp_type:text tcp_error:text ns:text ns_type:text ns_error:text"
    ),
    ("sockets", "raw"): _TABLE,
    ("sockets", "tcp"): _TABLE,
    ("sockets", "udp"): _TABLE,
    ("spp", "echo"): (
        "sha256:text datastream_type connections received payload_bytes attentions packets_sent retransmits "
        "duplicated early errors error:text"
    ),
    ("spp", "send"): (
        "connect_time_ms sent received corrupted whole:text sha256:text datastream_type packets_sent retransmits "
        "duplicated early error:text"
    ),
    ("stream", "bulk"): f"{_CLIENT} payload_bytes transfer_time_ms goodput_bit_s",
    ("stream", "echo"): _SERVER,
    ("stream", "send"): f"{_CLIENT} round_trip_delay_ms sent received corrupted",
    ("stream", "sink"): _SERVER,
    ("unix", "meet"): "met:text remote:text error:text",
    ("unix", "serve"): "met:text connections errors error:text",
}
MANY_SAMPLES = frozenset(
    "datastream_type loss_period message packet_type round_trip_delay transport_control".split()
)


@dataclass(frozen=True)
class Known:
    """One metric that a program is known to report. `counts`: a ratio with its counts, as `~` wants it."""

    dimension: Dimension
    many: bool
    counts: bool


def reported_by(program: Program, host: Host) -> dict[str, Known] | None:
    """By name, all that this program can report; None if it is not one of ours, or not surely."""
    if host.image is not None or host.build is not None or len(program.argv) < 2:
        return None
    words = _REPORTED.get((program.argv[0], program.argv[1]))
    if words is None:
        return None
    found: dict[str, Known] = {}
    short_names: dict[str, Known] = {}  # `loss` for loss_ratio: what is left without the unit, if nothing else is
    for word in words.split():
        key, _, text = word.partition(":")
        short, unit, _ = split_unit(key)
        dimension: Dimension = "text" if text else unit or "number"
        known = Known(dimension, short in MANY_SAMPLES and not _sends_one(program), dimension == "ratio")
        found[key if dimension == "ratio" else short] = known
        short_names[short] = known
    return {**short_names, **found}


def unknown_modes(scenario: Scenario) -> Iterator[Problem]:
    """Each command that is one of our programs with a mode that it does not have, `datagram ecko`."""
    for host in scenario.hosts.values():
        for program in host.programs.values() if host.image is None and host.build is None else ():
            command = program.run or program.serve
            name, mode = command.argv[:2] if command and len(command.argv) > 1 else ("", "")
            modes = [known for own, known in _REPORTED if own == name]
            if modes and mode not in modes and not mode.startswith(("-", "$")):
                at = mark_of(mode)
                hint = did_you_mean(mode, modes, f"it has {', '.join(modes)}")
                yield Problem(scenario.file, at.line, at.column, f"{name} has no mode `{mode}`", hint)


def _sends_one(program: Program) -> bool:
    argv = program.argv
    return any(argv[i : i + 2] == ("--count", "1") for i in range(len(argv))) or "--count=1" in argv
