"""What a scenario needs that an engine or a machine may lack. The answer is a reason to skip, never a guess."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from pathlib import Path

from testbed.plan.types import Plan
from testbed.scenario.values import COMMAND_REQUIRED


def unmet(plan: Plan, engine: str) -> list[str]:
    """Why this plan cannot run on this engine here; empty if it can. One reason for each requirement."""
    reasons = list(unmet_words(plan.requires, engine).values())
    dual = [network.name for network in plan.networks if network.subnet6]
    if dual and engine == "namespaces" and not _has_ipv6():  # docker's hosts may be on another machine's kernel
        reasons.append(
            f"network {', '.join(dual)} has `ip: dual`, and this kernel ({os.uname().release}) has no IPv6"
        )
    foreign = [host.name for host in plan.hosts if host.image or host.build]
    if foreign and engine != "docker":
        reasons.append(f"`image:` and `build:` need the docker engine (host {', '.join(foreign)})")
    return reasons


def unmet_words(requires: Iterable[object], engine: str) -> dict[str, str]:
    """Of these requirements, those that are missing here, each with its reason."""
    return {word: reason for word in map(str, requires) if (reason := _unmet(word, engine))}


def _unmet(word: str, engine: str) -> str:
    if word.startswith(COMMAND_REQUIRED):  # its hosts know, once they are up: `lookup.require` asks there
        return ""
    if word in ("docker", "namespaces"):
        return "" if engine in (word, "fake") else f"it requires the {word} engine, and this is {engine}"
    if word.startswith("cpus:"):
        have = os.cpu_count() or 1
        wanted = f"{word[5:]} processor{'' if word == 'cpus:1' else 's'}"
        is_here = f"{have} {'is' if have == 1 else 'are'} here"
        return "" if have >= int(word[5:]) else f"it requires {wanted}, and {is_here}"
    if word == "root":
        here = engine == "docker" or os.geteuid() == 0
        return "" if here else "it requires root, and an ordinary user runs it"
    present = {"netem": _has_netem, "sctp": _has_sctp, "ipv6": _has_ipv6, "bbr": _has_bbr}[word]
    return "" if present() else f"it requires {word}, which this kernel ({os.uname().release}) does not have"


def _has_netem() -> bool:
    modules = Path("/lib/modules", os.uname().release)
    listed = any("sch_netem" in _text(modules / name) for name in ("modules.dep", "modules.builtin"))
    return listed or " netem_enqueue" in _text(Path("/proc/kallsyms"))


def _has_sctp() -> bool:
    """By asking for a socket: then the kernel loads its module, for any user, and hosts have net.sctp.* to set."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP).close()
    except OSError:
        return False
    return True


def _has_ipv6() -> bool:
    return Path("/proc/sys/net/ipv6").exists()


def _has_bbr() -> bool:
    return "bbr" in _text(Path("/proc/sys/net/ipv4/tcp_available_congestion_control")).split()


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
