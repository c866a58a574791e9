"""What `$name`, `$index`, `$ip`, `$seed`, `$host.ip` and `$host.network.ip` stand for, `.ip6` too."""

from __future__ import annotations

from dataclasses import dataclass

from testbed.errors import counted
from testbed.scenario.addresses import Addresses
from testbed.scenario.commands import Variable, expand
from testbed.scenario.fields import Refused, did_you_mean, short
from testbed.scenario.topology import Member, Topology

OWN = ("name", "index", "ip", "seed")


@dataclass(frozen=True)
class Scope:
    """Where a text stands: in a program of `host`, in a run with `seed`."""

    there: Topology
    addresses: Addresses
    host: Member
    seed: int

    def expand(self, text: str) -> str:
        """`text` with its variables replaced. Raises Refused for one that stands for nothing."""
        return expand(text, self.value)

    def value(self, variable: Variable) -> str:
        """Raises Refused."""
        parts = variable.parts
        if variable.written.startswith("${") and not variable.written.endswith("}"):
            raise Refused(f"`{short(variable.written)}` has no }}", "$$ is a dollar")
        if len(parts) == 1:
            return self._own(parts[0], variable.written)
        if parts[-1] not in ("ip", "ip4", "ip6") or len(parts) > 3:
            raise self._unknown(variable.written)
        return self._address(parts, variable.written)

    def _own(self, word: str, written: str) -> str:
        if word == "ip":
            address = self.addresses.seen_from(self.there, None, self.host.name)
            if address is None:
                raise Refused(f"`{written}`: {self.host.name} has no address")
            return str(address)
        known = {"name": self.host.name, "index": str(self.host.index), "seed": str(self.seed)}
        if word not in known:
            raise self._unknown(written)
        return known[word]

    def _address(self, parts: tuple[str, ...], written: str) -> str:
        host = parts[0]
        if host in self.there.groups:
            members = self.there.groups[host]
            raise Refused(
                f"`{written}`: {host} is {counted(len(members), 'host')}", f"name one of them: ${members[0]}.ip"
            )
        if host not in self.there.hosts:
            raise self._unknown(written)
        if parts[-1] == "ip6":
            return self._address6(host, parts[1:-1], written)
        if len(parts) == 2:
            address = self.addresses.seen_from(self.there, self.host.name, host)
        else:
            address = self.addresses.of.get((host, parts[1]))
        if address is None:
            networks = ", ".join(self.there.hosts[host].networks)
            raise Refused(f"`{written}`: {host} has no address there", f"it is on {networks or 'no network'}")
        return str(address)

    def _address6(self, host: str, network: tuple[str, ...], written: str) -> str:
        found = self.addresses.of6(host, network[0]) if network else None
        if not network:
            found = self.addresses.seen6_from(self.there, self.host.name, host)
        if found is None:
            where = f"it is on {', '.join(self.there.hosts[host].networks) or 'no network'}"
            raise Refused(
                f"`{written}`: {host} has no IPv6 address there", f"{where}; `ip: dual` gives a network both"
            )
        return str(found)

    def _unknown(self, written: str) -> Refused:
        return Refused(f"`{short(written)}` stands for nothing", lambda: self._meant(written.strip("${}")))

    def _meant(self, bare: str) -> str:
        """What an unknown variable may have been meant to be."""
        if bare.split("-")[0] in OWN and "-" in bare:
            word, rest = bare.split("-", 1)
            return f"a name goes on over a -: write ${{{word}}}-{rest}"
        if bare == "name.ip":
            return "this host's own address is $ip"
        known = [*(f"${own}" for own in OWN), *(f"${host}.ip" for host in self.there.hosts)]
        every = "$name $index $ip $seed $HOST.ip $HOST.ip6 $HOST.NETWORK.ip; $$ is a dollar"
        return did_you_mean(f"${bare}", known, every)
