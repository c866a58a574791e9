"""The first processes of a lab, from the one that the orchestrator starts to the builder and the agent.

    orchestrator -> launcher -> process 1 of the lab -> builder, agent

The launcher makes the namespaces and waits. Process 1 does nothing but wait for end-of-file on the life-line, a
pipe whose only write end is in the orchestrator: when that is gone, however it went, process 1 exits, and the
kernel ends every process of the lab with it. The launcher, which outlives them all, then removes the control
groups of the hosts, which would outlive it. PR_SET_PDEATHSIG was rejected (it follows the thread that forked),
and so was a lab that watches itself: what must not fail should have nothing else to do.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from testbed import groups, linux
from testbed.engines.lab import messages, rootfs

SCRATCH_SIZE = "50%"  # of memory, at most, for the lab's own files and the agent's, its ledger among them
SCRATCH_PLACES = ("/mnt", "/srv", "/media", "/run", "/tmp")
NAMESPACES = linux.CLONE_NEWNS | linux.CLONE_NEWPID | linux.CLONE_NEWNET | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS
# What can forbid an ordinary user a namespace of its own: file, the value that does, what to do.
USER_NAMESPACE_LOCKS = (
    ("/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"),
    ("/proc/sys/user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=15000"),
    (
        "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
        "1",
        "sysctl kernel.apparmor_restrict_unprivileged_userns=0",
    ),
)


@dataclass(frozen=True)
class Settings:
    """What the orchestrator tells the lab. Descriptors are numbers in the launcher."""

    lab: str  # a name that no other lab has; in the command line of every process of the lab
    lifeline: int
    control: int  # socket: requests to the builder
    agent_channel: int  # socket: the agent's standard input and output
    agent: tuple[str, ...]  # argv
    as_root: bool  # False: in a user namespace, with one uid
    keep_visible: tuple[str, ...]  # paths that the lab itself needs and must not hide
    userland: tuple[str, ...]  # trees outside /usr that hosts see read-only: where the interpreter lives
    python: str  # the interpreter that programs of ours get
    programs: str  # directory of testbed.programs
    ip: str  # path of the `ip` command


def main(text: str) -> NoReturn:
    """Be the launcher. `text` is Settings as JSON."""
    data = json.loads(text)
    for name in ("agent", "keep_visible", "userland"):
        data[name] = tuple(data[name])
    settings = Settings(**data)
    for descriptor in (settings.lifeline, settings.control, settings.agent_channel):
        os.set_inheritable(descriptor, False)
    control = socket.socket(fileno=settings.control)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    os.chdir("/")
    os.umask(0o022)
    sockets = rootfs.unix_sockets()  # before the machine's processes are out of sight
    hosts = groups.make(settings.lab)
    try:
        _enter_namespaces(settings.as_root)
        child = os.fork()
    except OSError as problem:
        _remove(hosts)
        refuse(control, "host", f"making the namespaces of a lab: {problem}; {what_to_try(problem.errno or 0)}")
    if child == 0:
        _be_process_1(settings, control, sockets, hosts)
    control.close()
    os.close(settings.lifeline)
    os.close(settings.agent_channel)
    os.waitpid(child, 0)  # returns when the last process of the lab is gone
    _remove(hosts)
    os._exit(0)


def _remove(hosts: groups.LabGroups) -> None:
    """What stays all the same goes with the sweep of the next lab."""
    with contextlib.suppress(OSError):
        hosts.remove()


def refuse(control: socket.socket, kind: str, text: str) -> NoReturn:
    """Tell the orchestrator why there will be no lab, and end this process."""
    messages.send(control, {"refused": {"kind": kind, "message": text}})
    os._exit(1)


def _enter_namespaces(as_root: bool) -> None:
    if as_root:
        linux.unshare(NAMESPACES)
        return
    uid, gid = os.geteuid(), os.getegid()
    linux.unshare(linux.CLONE_NEWUSER | NAMESPACES)
    Path("/proc/self/setgroups").write_text("deny")  # the kernel wants this before one's own gid may be mapped
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")


def what_to_try(number: int) -> str:
    """A hint for who is refused a namespace, from what this machine has set."""
    for path, locked, remedy in USER_NAMESPACE_LOCKS:
        try:
            if Path(path).read_text().strip() == locked:
                return f"{path} is {locked}: as root, run `{remedy}`, or run testbed as root"
        except OSError:
            continue
    if number == errno.ENOSPC:
        return "a limit in /proc/sys/user is reached: end other labs or raise it"
    return (
        "if this is a container, it needs its seccomp filter and the masks of /proc lifted "
        "(docker run --security-opt seccomp=unconfined --security-opt systempaths=unconfined), "
        "or use --engine docker"
    )


def _be_process_1(
    settings: Settings, control: socket.socket, sockets: set[str], hosts: groups.LabGroups
) -> NoReturn:
    """Start the lab's two real processes, then wait for the end of the orchestrator, and nothing else."""
    try:
        Path("/proc/thread-self/comm").write_text("testbed-lab")
        scratch = _mount_lab(settings.keep_visible)
        agent = _fork_agent(settings, scratch)
        builder = os.fork()
    except OSError as problem:
        refuse(control, "host", f"making the root of a lab: {problem}; {what_to_try(problem.errno or 0)}")
    os.close(settings.agent_channel)
    if builder == 0:
        os.close(settings.lifeline)
        _be_builder(settings, control, scratch, agent, sockets, hosts)
    control.close()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no handler: then nothing inside the lab can signal process 1
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps
    while os.read(settings.lifeline, 1):
        pass
    os._exit(0)


def _mount_lab(keep_visible: tuple[str, ...]) -> str:
    """The lab's own /proc, and a tmpfs for everything that the lab writes: both end with it."""
    linux.mount(None, "/", None, linux.MS_REC | linux.MS_SLAVE)
    linux.mount("proc", "/proc", "proc", linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC)
    scratch = place_for_scratch(keep_visible)
    options = f"size={SCRATCH_SIZE},mode=755"
    linux.mount("testbed", scratch, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, options)
    Path(scratch, "tmp").mkdir()
    return scratch


def place_for_scratch(keep_visible: tuple[str, ...]) -> str:
    """An existing directory that the lab can cover, because nothing that it needs lies below. Raises OSError.

    An empty one rather than others: where nothing is, nothing will be missed.
    """
    there = [place for place in SCRATCH_PLACES if Path(place).is_dir() and not Path(place).is_symlink()]
    for place in sorted(there, key=lambda place: bool(os.listdir(place))):  # noqa: PTH208
        if not any(Path(path).is_relative_to(place) for path in keep_visible):
            return place
    raise FileNotFoundError(errno.ENOENT, f"no directory to put the lab's files over, of {SCRATCH_PLACES}")


def _fork_agent(settings: Settings, scratch: str) -> int:
    child = os.fork()
    if child == 0:
        try:
            os.dup2(settings.agent_channel, 0)
            os.dup2(settings.agent_channel, 1)
            path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
            environment = {"PATH": path, "LANG": "C.UTF-8", "TMPDIR": f"{scratch}/tmp"}
            os.execve(settings.agent[0], settings.agent, environment)
        except BaseException as problem:
            print(f"starting the agent {settings.agent[0]}: {problem}", file=sys.stderr, flush=True)
        finally:
            os._exit(127)
    return child


def _be_builder(
    settings: Settings,
    control: socket.socket,
    scratch: str,
    agent: int,
    sockets: set[str],
    hosts: groups.LabGroups,
) -> NoReturn:
    from testbed.engines.lab import builder  # not before: process 1 does without what it imports

    try:
        Path("/proc/thread-self/comm").write_text("testbed-builder")
        userland = rootfs.prepare(scratch, settings.userland, sockets, settings.python, settings.programs)
        hands = builder.Builder(control, userland, settings.lab, settings.ip, settings.as_root, hosts)
    except OSError as problem:
        hint = "; Linux 5.12 or newer is needed" if problem.errno == errno.ENOSYS else ""
        refuse(control, "host", f"preparing the files that hosts see: {problem}{hint}")
    facts: dict[str, Any] = {
        "agent": agent,
        "userland": userland.kind,
        "scratch": scratch,
        "no_groups": hosts.why_not,
    }
    messages.send(control, {"ready": facts})
    hands.serve()
    os._exit(0)
