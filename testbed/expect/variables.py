"""The `$variables` of an expectation, from the plan alone: `$name` is of the host that the left side is about."""

from __future__ import annotations

from testbed.errors import counted
from testbed.expect.names import Member, Names, Unknown
from testbed.plan.types import Host
from testbed.scenario.commands import Variable, expand
from testbed.scenario.fields import did_you_mean

OWN = ("name", "index", "ip")


def expanded(names: Names, text: str, member: Member | None, at: int) -> str:
    """`text` with its variables replaced; `$$` is a dollar. Raises Unknown for one that stands for nothing."""

    def value(variable: Variable) -> str:
        return _value(names, variable, member, at)

    return expand(text, value)


def _value(names: Names, variable: Variable, member: Member | None, at: int) -> str:
    parts = variable.parts
    if parts == ("seed",):
        return str(names.plan.seed)
    if len(parts) == 1 and parts[0] in OWN:
        if member is None:
            raise Unknown(f"`{variable.written}` is of one host, and the left side is about several", at)
        host = names.hosts[member.host]
        return {"name": host.name, "index": str(host.index), "ip": _first_ip(host, variable, at)}[parts[0]]
    if len(parts) in (2, 3) and parts[-1] in ("ip", "ip4", "ip6") and parts[0] in names.hosts:
        return _address(names, variable, names.hosts[parts[0]], member, at)
    if parts[0] in names.plan.groups:
        members = names.plan.groups[parts[0]]
        raise Unknown(
            f"`{variable.written}`: {parts[0]} is {counted(len(members), 'host')}", at, f"${members[0]}.ip is one"
        )
    known = [*OWN, "seed", *(f"{host}.ip" for host in names.hosts)]
    close = did_you_mean(".".join(parts), known).replace("`", "`$", 1)
    hint = close or "$name $index $ip $seed $HOST.ip $HOST.ip6 $HOST.NETWORK.ip"
    raise Unknown(f"`{variable.written}` stands for nothing", at, hint)


def _address(names: Names, variable: Variable, host: Host, member: Member | None, at: int) -> str:
    """On the network that is named; else on the first one shared with the host on the left; else its first."""
    six = variable.parts[-1] == "ip6"
    if len(variable.parts) == 3:
        wanted = [i for i in host.interfaces if i.network == variable.parts[1]]
    else:
        mine = {i.network for i in names.hosts[member.host].interfaces} if member else set()
        wanted = sorted(host.interfaces, key=lambda i: i.network not in mine)  # keeps their order otherwise
    found = next((ip for i in wanted if (ip := i.ip6 if six else i.ip) is not None), None)
    if found is None:
        on = ", ".join(i.network for i in host.interfaces) or "no network"
        what = "no IPv6 address" if six else "no address"
        raise Unknown(f"`{variable.written}`: {host.name} has {what} there", at, f"it is on {on}")
    return found


def _first_ip(host: Host, variable: Variable, at: int) -> str:
    if not host.interfaces and variable.parts[0] == "ip":
        raise Unknown(f"`{variable.written}`: {host.name} has no address", at)
    return host.interfaces[0].ip if host.interfaces else ""
