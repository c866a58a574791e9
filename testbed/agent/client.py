"""The orchestrator's side of the agent: each request a typed method over a channel of lines."""

from __future__ import annotations

import base64
import json
import queue
import threading
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from testbed.agent.loop import ALIVE_EVERY_S
from testbed.errors import CapabilityError, ConditionError, EngineError, TestbedError
from testbed.plan.types import Plan

_KINDS: dict[str, type[TestbedError]] = {"condition": ConditionError, "capability": CapabilityError}
_REASON_S = 6.0  # the docker engine takes up to 5 s to find out why


class Channel(Protocol):
    """As an engine gives it."""

    def write(self, line: bytes) -> None: ...

    def readline(self) -> bytes: ...

    def close(self) -> None: ...


class AgentClient:
    """May be called from any thread; requests are made one at a time.

    Every method raises EngineError if the agent is gone or something else failed, ConditionError if the network
    is not what was asked, and CapabilityError if this machine cannot do it.
    """

    def __init__(self, channel: Channel, alive_every_s: float = ALIVE_EVERY_S) -> None:
        self._channel = channel
        self._lock = threading.Lock()
        self._number = 0
        self._start: dict[str, Any] = {}
        self._closed = threading.Event()
        self._heard: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()  # answers; None: the end
        self._ended = ""  # how its output ended, once it has
        self._lost = ""  # what it said of conditions that were lost, unasked
        self._listener = threading.Thread(target=self._listen, name="agent-heard", daemon=True)
        self._listener.start()
        self._alive = threading.Thread(
            target=self._stay_alive, args=(alive_every_s,), name="agent-alive", daemon=True
        )
        self._alive.start()

    def hello(self) -> dict[str, Any]:
        """{version, fate, kernel, iproute2, python, capabilities, scheduler}."""
        return self._ask("hello")

    def lacking(self, words: Iterable[str]) -> dict[str, str]:
        """Of what scenarios may require of a machine, what this one lacks, each with its reason."""
        return dict(self._ask("lacking", words=list(words))["lacking"])

    def door(self, bridges: list[str]) -> None:
        """Shut what leads from these bridge devices to the machine itself; read back."""
        self._ask("door", bridges=bridges)

    def hosts(self, plan: Plan, pids: Mapping[str, int]) -> dict[str, Any]:
        """Give every host its baseline. `pids`: each host's process as the agent sees it. Returns what was
        read back."""
        hosts = [
            {
                "name": host.name,
                "pid": pids[host.name],
                "interfaces": [vars(interface) for interface in host.interfaces],
                "routes": [vars(route) for route in host.routes],
                "neighbours": [vars(neighbour) for neighbour in host.neighbours],
                "sysctls": host.sysctls,
                "congestion": host.congestion,
            }
            for host in plan.hosts
        ]
        return dict(self._ask("hosts", hosts=hosts)["hosts"])

    def prepare_wires(self, plan: Plan, number: int) -> None:
        """Start so many processes that carry frames, if the plan has links; no more than it has hosts that send.

        Each host has one of them for all that it sends. They get ready while hosts are built.
        """
        senders = len({link.source for link in plan.links})
        if senders:
            self._ask("wires", number=min(number, senders))

    def conditions(self, plan: Plan) -> dict[str, Any]:
        """Bring every link of the plan into force. Returns {links, hosts, wire} as they hold it."""
        nics = {(host.name, nic.network): nic for host in plan.hosts for nic in host.interfaces}
        links = [
            {
                "id": link.id,
                "source": link.source,
                "target": link.target,
                "network": link.network,
                "source_mac": nics[link.source, link.network].mac,
                "target_mac": nics[link.target, link.network].mac,
                "source_dev": nics[link.source, link.network].name,
                "condition": link.condition.to_json(),
            }
            for link in plan.links
        ]
        self._start = self._ask("conditions", seed=plan.seed, links=links)
        return self._start

    def lookup(self, host: str, argv0: str, path: str | None, working_dir: str) -> str | None:
        """Where the host would find this command; None if it would not. Without `path`: along its image's own."""
        found: str | None = self._ask("lookup", host=host, command=argv0, path=path, working_dir=working_dir)[
            "found"
        ]
        return found

    def sockets(self, host: str, pid: int) -> list[dict[str, Any]]:
        """What the process and its descendants listen on, each {proto: tcp|udp|unix, ip, port, path}."""
        return list(self._ask("sockets", host=host, pid=pid)["sockets"])

    def counters(self, hosts: Iterable[str]) -> dict[str, dict[str, int]]:
        """Each host's kernel counters by their nstat names, absolute."""
        return dict(self._ask("counters", hosts=list(hosts))["hosts"])

    def signal(self, host: str, pid: int, name: str, tree: bool = False) -> list[int]:
        """Signal a process of the host ("TERM" or "SIGTERM"), or it and its descendants. Who was sent it."""
        return list(self._ask("signal", host=host, pid=pid, signal=name, tree=tree)["sent"])

    def ended(self, pids: Iterable[int]) -> list[int]:
        """Those of these processes that are no more."""
        return list(self._ask("ended", pids=list(pids))["ended"])

    def under_way(self, before_ns: int | None = None) -> dict[str, Any]:
        """Of what had come into a link by then, how many frames have not left, and how long that may go on.

        {before_ns, frames, due_in_s, left_in_s, stay_s}. `before_ns` is by the agent's clock, and now if none is
        given: pass on what came back. `due_in_s`: until the last of them is due; `left_in_s`: until they have left
        for certain; `stay_s`: how long a frame may stay in a link.
        And {unread_bytes, unsent_bytes, running}: what programs have not read, what kernels still have to send for
        programs that have ended, and whether a program is at work just now. `ago_s`: since when that holds.
        """
        return self._ask("under_way", before_ns=before_ns)

    def drain(self) -> bool:
        """Once all programs have ended: whether the links are empty. False after half a second: ask again."""
        return bool(self._ask("drain")["over"])

    def check(self) -> dict[str, Any]:
        """The last proof, with the fields of records.LinkProof: problems, start, end, canary_p99_ns."""
        end = self._ask("check")
        problems = [(outcome, who, text) for outcome, who, text in end.pop("problems")]
        canary = end.pop("canary_p99_ns")
        return {"problems": problems, "start": self._start, "end": end, "canary_p99_ns": canary}

    def ledger(self) -> bytes:
        """The whole binary ledger, for testbed.measure.ledger; empty if no frame went through the wire."""
        pieces, offset = [], 0
        while offset is not None:
            answer = self._ask("ledger", offset=offset)
            pieces.append(base64.b64decode(answer["data"]))
            offset = answer["next"]
        return b"".join(pieces)

    def still_there(self) -> None:
        """Raises EngineError as soon as the agent has ended, ConditionError as soon as it says that its wire has.

        Asks nothing and waits for nothing. Without it a run would go on to its end on a network that has gone.
        """
        if self._lost:
            raise ConditionError(f"the conditions are not in force: {self._lost}")
        if self._ended:
            why = "nothing holds or proves the conditions any more"
            raise EngineError(f"the agent ended in mid-run: {self._ended}; {why}")

    def close(self) -> None:
        """The agent's end of input: it undoes what it made, and exits. Twice is once."""
        if not self._closed.is_set():
            self._closed.set()
            self._channel.close()
            self._alive.join()

    def _stay_alive(self, every_s: float) -> None:
        while not self._closed.wait(every_s):
            try:
                with self._lock:
                    self._channel.write(b'{"do":"alive"}\n')
            except Exception:  # closed or broken, in whatever words: the next request says so to who can act
                return

    def _ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        with self._lock:
            self._number += 1
            request = {"id": self._number, "do": do, **arguments}
            answer = self._exchange(do, json.dumps(request, separators=(",", ":")).encode() + b"\n")
        if "ok" in answer:
            return dict(answer["ok"])
        error = answer["error"]
        raise _KINDS.get(error["kind"], EngineError)(error["message"])

    def _listen(self) -> None:
        """All that the agent says, as it comes: its death and what it says unasked are known at once."""
        try:
            while line := self._channel.readline():
                message: dict[str, Any] = json.loads(line)
                if "lost" in message:
                    self._lost = str(message["lost"])
                elif "alive" not in message:
                    self._heard.put(message)
            self._ended = "end of its output"
        except Exception as problem:  # broken, or no message: whatever it is, nobody else hears of it
            self._ended = str(problem) or repr(problem)
        self._heard.put(None)

    def _exchange(self, do: str, request: bytes) -> dict[str, Any]:
        try:
            self._channel.write(request)
        except (EngineError, OSError) as problem:
            self._listener.join(_REASON_S)  # it hears why, where writing only meets a pipe that is broken
            raise EngineError(f"the agent ended: {self._ended or problem}, asked for {do}") from problem
        answer = self._heard.get()
        if answer is None:
            self._heard.put(None)  # for whoever asks next
            raise EngineError(f"the agent ended: {self._ended}, asked for {do}")
        if answer.get("id") != self._number:
            raise EngineError(f"the agent answered {answer} to request {self._number} ({do})")
        return answer
