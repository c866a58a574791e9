"""What a scenario needs that an engine or a machine may lack. The answer is a reason to skip, never a guess.

What the engine decides is known here and now. The rest is for the machine of the hosts to say, which need not be
this one: its agent is asked, once for all of it, before anything is built. What a host itself has (`command:NAME`)
is asked there, once it is up: see `lookup`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from testbed.plan.types import Plan

OF_THE_MACHINE = ("netem", "sctp", "ipv6", "bbr", "cpus")


def unmet(plan: Plan, engine: str) -> list[str]:
    """Why this plan cannot run on this engine, whatever its machine has; empty if it can."""
    reasons = [reason for word in plan.requires if (reason := _unmet(word, engine))]
    foreign = [host.name for host in plan.hosts if host.image or host.build]
    if foreign and engine != "docker":
        reasons.append(f"`image:` and `build:` need the docker engine (host {', '.join(foreign)})")
    with_venv = [program.id for program in plan.programs if program.venv is not None]
    if with_venv and engine not in ("namespaces", "fake"):
        who = ", ".join(with_venv)
        reasons.append(
            f"`venv:` needs the namespaces engine, whose hosts have this machine's interpreter ({who}); "
            f"for {engine}, install what is in it in an image: `build:`"
        )
    return reasons


def _unmet(word: str, engine: str) -> str:
    if word in ("docker", "namespaces"):
        return "" if engine in (word, "fake") else f"it requires the {word} engine, and this is {engine}"
    if word == "root" and engine != "docker" and os.geteuid() != 0:
        return "it requires root, and an ordinary user runs it"
    return ""


def of_the_machine(plan: Plan) -> list[str]:
    """What the machine of the hosts has to be asked for."""
    words = [word for word in plan.requires if word.partition(":")[0] in OF_THE_MACHINE]
    return list(dict.fromkeys([*words, *(["ipv6"] if _dual(plan) else [])]))


def unmet_there(plan: Plan, lacking: Mapping[str, str]) -> list[str]:
    """Why the plan cannot run on that machine. `lacking`: of `of_the_machine`, what it lacks, with the reasons."""
    reasons = [lacking[word] for word in plan.requires if word in lacking]
    if "ipv6" in lacking and (dual := _dual(plan)):
        reasons.append(f"network {', '.join(dual)} has `ip: dual`: {lacking['ipv6']}")
    return reasons


def _dual(plan: Plan) -> list[str]:
    return [network.name for network in plan.networks if network.subnet6]
