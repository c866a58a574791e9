"""A lab for tests of the wire: two or three hosts on a bridge, their filters, and the wire in their midst.

Runs as a program of its own, `PYTHON -IS wire_lab.py EXPERIMENT ARGUMENTS`, as the first process of a fresh
network namespace (and user namespace, for an ordinary user), so it needs the standard library only. It prints what
happened as one JSON object and asserts nothing: `test_wire.py` judges. Sockets of every host are held by this one
process: a socket stays in the namespace in which it was made.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import hashlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = str(Path(__file__).resolve().parent)
sys.path.insert(0, ROOT)

from testbed import linux  # noqa: E402
from testbed.conditions.condition import Condition  # noqa: E402
from testbed.measure.ledger import decode  # noqa: E402

WIRE = "import sys; sys.path.insert(0, sys.argv.pop(1)); from testbed.agent import wire; sys.exit(wire.main())"
PACKET_TYPE, REJECT, ACCEPT = 0xFFFFF004, -1, -2
MAX_FRAME = 1514


def run(*argv: str, stdin: str = "") -> str:
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{argv}: {done.stderr}{stdin}")
    return done.stdout


def batch(tool: str, *lines: str) -> None:
    run(tool, "-batch", "-", stdin="\n".join(lines))


def egress_program(macs: list[str]) -> str:
    """Classic BPF: our own frames, not ARP and not IGMP, to a group or to one of these addresses."""
    tests = [(0x20, 0, 0, int(mac.replace(":", "")[4:], 16)) for mac in macs]
    code = [
        (0x20, 0, 0, PACKET_TYPE), (0x15, 0, REJECT, 0),
        (0x28, 0, 0, 12), (0x15, REJECT, 0, 0x0806), (0x15, 0, 2, 0x0800), (0x30, 0, 0, 23), (0x15, REJECT, 0, 2),
        (0x30, 0, 0, 0), (0x45, ACCEPT, 0, 1), (0x20, 0, 0, 2),
        *[(0x15, ACCEPT, 0, low) for _, _, _, low in tests],
        (6, 0, 0, 0), (6, 0, 0, 0xFFFFFFFF),
    ]  # fmt: skip
    ends = {REJECT: len(code) - 2, ACCEPT: len(code) - 1}
    lines = [
        f"{op} {ends.get(yes, at + 1 + yes) - at - 1} {ends.get(no, at + 1 + no) - at - 1} {k}"
        for at, (op, yes, no, k) in enumerate(code)
    ]
    return f"{len(lines)},{','.join(lines)}"


def transmit_checksum_off(device: str) -> None:
    command = array.array("I", [0x17, 0])  # ETHTOOL_STXCSUM
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sQ", device.encode(), command.buffer_info()[0])
        fcntl.ioctl(any_socket, 0x8946, request)  # SIOCETHTOOL


class Host:
    """A network namespace with eth0 on the bridge."""

    def __init__(self, name: str, number: int, mtu: int) -> None:
        self.name, self.ip, self.mac = name, f"198.18.0.{number + 2}", f"02:42:c6:12:00:{number + 2:02x}"
        self.pid = os.fork()
        if self.pid == 0:
            linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
            linux.unshare(linux.CLONE_NEWNET)
            signal.pause()
        while os.stat(f"/proc/{self.pid}/ns/net").st_ino == os.stat("/proc/self/ns/net").st_ino:  # noqa: PTH116
            time.sleep(0.001)
        self.netns = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        run("ip", "link", "add", f"p-{name}", "type", "veth", "peer", "name", "eth0", "netns", str(self.pid))
        run("ip", "link", "set", f"p-{name}", "master", "br0", "mtu", str(mtu), "up")
        with self.inside():
            Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").write_text("1")
            batch(
                "ip",
                "link set lo up",
                f"link set eth0 address {self.mac} mtu {mtu} up",
                f"addr add {self.ip}/24 broadcast + dev eth0",
                "route add 224.0.0.0/4 dev eth0",
                "route add 255.255.255.255 dev eth0",
            )

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """This thread, and what it starts, in the host."""
        back = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        linux.setns(self.netns, linux.CLONE_NEWNET)
        try:
            yield
        finally:
            linux.setns(back, linux.CLONE_NEWNET)
            os.close(back)

    def socket(self, kind: int, port: int = 0, family: int = socket.AF_INET) -> socket.socket:
        with self.inside():
            made = socket.socket(family, kind)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if kind == socket.SOCK_DGRAM:  # a receiver that comes late must not lose what the wire did not
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 << 20)  # as much as the machine allows
            with contextlib.suppress(OSError):
                made.setsockopt(socket.SOL_SOCKET, 33, 32 << 20)  # SO_RCVBUFFORCE: initial user namespace only
        made.bind(("", port))
        return made

    def through_wire(self, device: str, wire_pid: int, peers: list[str]) -> None:
        """Send all that goes to these addresses, and to groups, through `w0`."""
        with self.inside():
            run("ip", "link", "add", "w0", "mtu", "65535", "gso_max_segs", "1", "type", "veth",
                "peer", "name", device, "mtu", "65535", "netns", str(wire_pid))  # fmt: skip
            transmit_checksum_off("w0")
        run("nsenter", "-t", str(wire_pid), "-n", "ip", "link", "set", device, "arp", "off", "up")
        with (
            self.inside()
        ):  # w0 second: the first one of a pair drops frames until the kernel's link watch has run
            run("ip", "link", "set", "w0", "up")
            back = 'bpf bytecode "1,6 0 0 4294967295" action mirred egress redirect dev eth0'
            out = f'bpf bytecode "{egress_program(peers)}" action mirred egress redirect dev w0'
            batch(
                "tc",
                "qdisc add dev eth0 clsact",
                "qdisc add dev w0 clsact",
                f"filter add dev w0 ingress protocol all pref 1 {back}",
                f"filter add dev eth0 egress protocol all pref 1 {out}",
            )

    def matched(self) -> int:
        """How many frames the egress filter has sent to the wire."""
        with self.inside():
            filters = json.loads(run("tc", "-j", "-s", "filter", "show", "dev", "eth0", "egress"))
        return int(filters[-1]["options"]["actions"][0]["stats"]["packets"])

    def close(self) -> None:
        os.close(self.netns)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


class Lab:
    """Hosts that know each other's addresses, links between them, and the wire."""

    def __init__(self, names: str = "ab", mtu: int = 1500) -> None:
        batch("ip", "link set lo up", f"link add br0 mtu {mtu} type bridge mcast_snooping 0", "link set br0 up")
        self.hosts = {name: Host(name, number, mtu) for number, name in enumerate(names)}
        for host in self.hosts.values():
            with host.inside():
                others = [other for other in self.hosts.values() if other is not host]
                batch("ip", *[f"neigh replace {o.ip} lladdr {o.mac} dev eth0 nud permanent" for o in others])
        self.ledger = tempfile.NamedTemporaryFile()  # noqa: SIM115
        self.wire = subprocess.Popen(
            [sys.executable, "-IS", "-c", WIRE, ROOT, "--ledger", self.ledger.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.ready = self._line()["ready"]
        self._number = 0

    def conditions(
        self, links: dict[str, dict[str, Any]], seed: int = 7, max_frame: int = MAX_FRAME
    ) -> dict[str, Any]:
        """`links`: "a->b" -> condition. As the agent does, every other receiver of a source gets an empty one."""
        sources = list(dict.fromkeys(link[0] for link in links))
        wanted = {f"{s}->{t}": links.get(f"{s}->{t}", {}) for s in sources for t in self.hosts if s != t}
        for number, name in enumerate(sources):
            peers = [host.mac for host in self.hosts.values() if host.name != name]
            self.hosts[name].through_wire(f"h{number}", self.ready["pid"], peers)
        return self.apply(sources, wanted, seed, max_frame)

    def apply(
        self, sources: list[str], links: dict[str, dict[str, Any]], seed: int, max_frame: int
    ) -> dict[str, Any]:
        return self.ask(
            "conditions",
            seed=seed,
            hosts={name: f"h{number}" for number, name in enumerate(sources)},
            links=[
                {
                    "id": f"{link} over lan",
                    "source": link[0],
                    "target": link[-1],
                    "network": "lan",
                    "source_mac": self.hosts[link[0]].mac,
                    "target_mac": self.hosts[link[-1]].mac,
                    "condition": Condition(**condition).to_json(),
                    "max_frame": max_frame,
                }
                for link, condition in links.items()
            ],
        )

    def ask(self, do: str, **arguments: Any) -> dict[str, Any]:
        self._number += 1
        assert self.wire.stdin
        self.wire.stdin.write(json.dumps({"id": self._number, "do": do, **arguments}).encode() + b"\n")
        self.wire.stdin.flush()
        return self._line()

    def _line(self) -> dict[str, Any]:
        assert self.wire.stdout
        return dict(json.loads(self.wire.stdout.readline()))

    def drain(self, for_s: float) -> dict[str, Any]:
        """Until it is over, in one answer; what comes in is let in until then."""
        end_ns = time.monotonic_ns() + int(for_s * 1e9)
        answer = self.ask("drain", shut_ns=end_ns, deadline_ns=end_ns, wait_s=for_s + 1)
        self.ask("resume")
        return answer

    def evidence(self, **more: Any) -> dict[str, Any]:
        """Drain, report and the ledger of this moment."""
        drain = self.drain(3.0)["ok"]
        written = Path(self.ledger.name).read_bytes()
        matched = {h: self.hosts[h].matched() for h in self.ask("report")["ok"]["hosts"]}
        return {
            "ready": self.ready,
            "drain": drain,
            "report": self.ask("report")["ok"],
            "matched": matched,
            "ledger": decode(written),
            "ledger_bytes": len(written),
            **more,
        }

    def close(self) -> None:
        assert self.wire.stdin and self.wire.stdout
        with contextlib.suppress(OSError):  # an experiment may have closed it
            self.wire.stdin.close()
        self.wire.wait()
        self.wire.stdout.close()
        self.ledger.close()
        for host in self.hosts.values():
            host.close()

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Receiver:
    """A thread that notes (sequence number, arrival time) of every datagram at a socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.got: list[tuple[int, int]] = []
        self.damaged = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        receive, put, clock = self.socket.recv, self.got.append, time.monotonic_ns
        while data := receive(65536):
            now = clock()
            number = int.from_bytes(data[:4], "big")
            put((number, now))
            self.damaged += data != message(number, len(data))

    def stop(self) -> list[tuple[int, int]]:
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RD)  # wakes the thread, though it says ENOTCONN
        self._thread.join()
        self.socket.close()
        return self.got


def message(number: int, size: int) -> bytes:
    return (number.to_bytes(4, "big") * (size // 4 + 1))[:size]


def send(
    sock: socket.socket, to: tuple[str, int], count: int, size: int, gap_us: int, first: int = 0
) -> list[int]:
    """Datagrams first, first + 1, ... with a gap between them. Returns when each was handed to the kernel."""
    sent, start = [], time.monotonic_ns()
    for number in range(count):
        while time.monotonic_ns() < start + number * gap_us * 1000:
            time.sleep(0)
        data = message(first + number, size)
        sent.append(time.monotonic_ns())
        sock.sendto(data, to)
    return sent


def probe(
    links: dict[str, dict[str, Any]],
    count: int = 200,
    size: int = 100,
    gap_us: int = 1000,
    mtu: int = 1500,
    max_frame: int = MAX_FRAME,
    senders: int = 1,
    qdisc: str = "",
) -> dict[str, Any]:
    """a sends datagrams to b, in turns from several sockets."""
    with Lab(mtu=mtu) as lab:
        answer = lab.conditions(links, max_frame=max_frame)
        if qdisc:
            enter = ("nsenter", "-t", str(lab.ready["pid"]), "-n")
            run(*enter, "tc", "qdisc", "replace", "dev", "h0", "root", *qdisc.split())
        receiver = Receiver(lab.hosts["b"].socket(socket.SOCK_DGRAM, 9000))
        sockets = [lab.hosts["a"].socket(socket.SOCK_DGRAM) for _ in range(senders)]
        sent: list[int] = []
        for number in range(0, count, senders):
            for place, each in enumerate(sockets):
                sent += send(each, (lab.hosts["b"].ip, 9000), 1, size, 0, number + place)
            while time.monotonic_ns() < sent[0] + (number + senders) * gap_us * 1000:
                time.sleep(0)
        for each in sockets:
            each.close()
        evidence = lab.evidence()
        got = receiver.stop()
        return evidence | {"answer": answer, "sent": sent, "got": got, "damaged": receiver.damaged}


def group(links: dict[str, dict[str, Any]], count: int = 200) -> dict[str, Any]:
    """a sends to the broadcast address, to a multicast group that only b has joined, and c sends to b directly."""
    with Lab("abc") as lab:
        lab.conditions(links)
        a, b, c = (lab.hosts[name] for name in "abc")
        receivers = {}
        for host in (b, c):
            for what, port in (("broadcast", 9000), ("multicast", 9001)):
                sock = host.socket(socket.SOCK_DGRAM, port)
                if what == "multicast" and host is b:
                    member = socket.inet_aton("239.1.1.1") + socket.inet_aton(host.ip)
                    sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
                receivers[f"{host.name} {what}"] = Receiver(sock)
        direct = Receiver(b.socket(socket.SOCK_DGRAM, 9002))
        with a.socket(socket.SOCK_DGRAM) as sender, c.socket(socket.SOCK_DGRAM) as bystander:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            send(sender, ("198.18.0.255", 9000), count, 100, 500)
            send(sender, ("239.1.1.1", 9001), count, 100, 500)
            send(bystander, (b.ip, 9002), count, 100, 500)
        evidence = lab.evidence()
        got = {name: [number for number, _ in each.stop()] for name, each in receivers.items()}
        return evidence | {"got": got, "direct": len(direct.stop())}


def stream(links: dict[str, dict[str, Any]], size: int) -> dict[str, Any]:
    """a sends a file to b by TCP."""
    data = os.urandom(1 << 20) * (size >> 20)
    received = hashlib.sha256()
    with Lab() as lab:
        lab.conditions(links)
        listener = lab.hosts["b"].socket(socket.SOCK_STREAM, 9000)
        listener.listen(1)

        def receive() -> None:
            connection, _ = listener.accept()
            with connection:
                while piece := connection.recv(1 << 18):
                    received.update(piece)

        thread = threading.Thread(target=receive)
        thread.start()
        with lab.hosts["a"].socket(socket.SOCK_STREAM) as sender:
            sender.connect((lab.hosts["b"].ip, 9000))
            begun = time.monotonic_ns()
            sender.sendall(data)
            sender.shutdown(socket.SHUT_WR)
            thread.join()
        took = time.monotonic_ns() - begun
        listener.close()
        hashes = [hashlib.sha256(data).hexdigest(), received.hexdigest()]
        return lab.evidence(hashes=hashes, took_ns=took)


def refused(links: dict[str, dict[str, Any]], patience_s: float) -> dict[str, Any]:
    """a sends to a port of b that nobody has, and waits for the ICMP error."""
    with Lab() as lab:
        lab.conditions(links)
        answers = []
        with lab.hosts["a"].socket(socket.SOCK_DGRAM) as sender:
            sender.settimeout(patience_s)
            sender.connect((lab.hosts["b"].ip, 9))
            for _ in range(3):
                begun = time.monotonic_ns()
                sender.send(b"anybody?")
                try:
                    sender.recv(100)
                except OSError as problem:
                    answers.append([type(problem).__name__, time.monotonic_ns() - begun])
        return lab.evidence(answers=answers)


def closed(links: dict[str, dict[str, Any]], how: str) -> dict[str, Any]:
    """Traffic before and after the wire ends, or loses its conditions. What passes after that slipped past."""
    with Lab() as lab:
        lab.conditions(links)
        a, b = lab.hosts["a"], lab.hosts["b"]
        receiver = Receiver(b.socket(socket.SOCK_DGRAM, 9000))
        answer: Any = None
        with a.socket(socket.SOCK_DGRAM) as sender:
            send(sender, (b.ip, 9000), 50, 100, 1000)
            time.sleep(0.3)
            if how == "killed":
                lab.wire.kill()
                answer = lab.wire.wait()
            elif how == "end of input":
                send(sender, (b.ip, 9000), 50, 100, 0, 50)  # these are under way when it ends
                time.sleep(0.02)
                assert lab.wire.stdin
                lab.wire.stdin.close()
                answer = lab.wire.wait()
            elif how == "refused":
                answer = lab.apply(["a"], {"a->b": {"loss_ratio": 2}}, 7, MAX_FRAME)
            elif how == "another pair only":
                answer = lab.apply(["a"], {"a->a": {}}, 7, MAX_FRAME)
            before = len(receiver.got)
            with contextlib.suppress(OSError):  # a dead device may say so to the sender
                send(sender, (b.ip, 9000), 50, 100, 1000, 1000)
            time.sleep(0.2)
        report = lab.ask("report")["ok"] if lab.wire.poll() is None else None
        ledger = Path(lab.ledger.name).read_bytes()
        frames = decode(ledger) if how == "end of input" else None
        after = [number for number, _ in receiver.stop()]
        return {"answer": answer, "before": before, "got": after, "report": report, "ledger": frames}


def flooded(links: dict[str, dict[str, Any]], flood: int, count: int = 500) -> dict[str, Any]:
    """As fast as a can, into a ring that is full when the wire begins to read it; then at a pace that it can keep.

    For a while: a slot that is given back in two steps is caught between them in one of 100,000 frames.
    """
    with Lab() as lab:
        lab.conditions(links)
        a, b = lab.hosts["a"], lab.hosts["b"]
        os.kill(lab.ready["pid"], signal.SIGSTOP)
        with a.socket(socket.SOCK_DGRAM) as sender:
            for number in range(flood):
                if number == 10_000:
                    os.kill(lab.ready["pid"], signal.SIGCONT)
                sender.sendto(b"flood", (b.ip, 9))
            lab.drain(10.0)
            receiver = Receiver(b.socket(socket.SOCK_DGRAM, 9000))
            send(sender, (b.ip, 9000), count, 100, 1000)
        evidence = lab.evidence()
        return evidence | {"ledger": None, "got": [number for number, _ in receiver.stop()]}


def undrained(links: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Drain while much is under way, then go on; and requests that make no sense, in between."""
    with Lab() as lab:
        lab.conditions(links)
        to = (lab.hosts["b"].ip, 9000)
        with lab.hosts["a"].socket(socket.SOCK_DGRAM) as sender:
            send(sender, to, 20, 100, 1000)
            begun = time.monotonic_ns()
            way = lab.ask("under_way", before_ns=time.monotonic_ns())["ok"]
            early = lab.ask("under_way", before_ns=begun - 10**10)["ok"]
            shut_since = {"shut_ns": begun, "deadline_ns": begun + 10**12}
            lab.ask("drain", **shut_since, wait_s=0)
            send(sender, to, 7, 100, 1000, 20)  # after the moment from which nothing is let in
            asked_again = lab.ask("drain", **shut_since, wait_s=0.1)["ok"]
            shut = lab.ask("report")["ok"]["ring"]["after_end"]
            lab.ask("resume")
            begun = time.monotonic_ns()
            first = lab.drain(0.3)
            took = time.monotonic_ns() - begun
            report = lab.ask("report")["ok"]
            ledgers = [decode(Path(lab.ledger.name).read_bytes())]
            wrong = [lab.ask("dance"), lab.ask("drain"), lab.ask("drain", shut_ns=0, deadline_ns=0, wait_s="long")]
            assert lab.wire.stdin
            lab.wire.stdin.write(b"no request\n[]\n")
            lab.wire.stdin.flush()
            wrong += [lab._line(), lab._line()]
            send(sender, to, 5, 100, 1000, 20)
            second = lab.drain(0.1)
        ledgers.append(decode(Path(lab.ledger.name).read_bytes()))
        return {
            "way": way,
            "early": early,
            "asked_again": asked_again,
            "shut": shut,
            "first": first["ok"],
            "took": took,
            "report": report,
            "ledgers": ledgers,
            "ledger": None,
            "wrong": wrong,
            "second": second["ok"],
        }


EXPERIMENTS: dict[str, Callable[..., dict[str, Any]]] = {
    "probe": probe,
    "group": group,
    "stream": stream,
    "refused": refused,
    "closed": closed,
    "flooded": flooded,
    "undrained": undrained,
}

if __name__ == "__main__":
    print(json.dumps(EXPERIMENTS[sys.argv[1]](**json.loads(sys.argv[2]))))
