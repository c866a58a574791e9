"""The parts of a lab that are decisions and not system calls."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path

import pytest

from testbed.engines.lab import builder, guest, launch, rootfs

PASSWD = "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:d:/:/bin/false\nweb:x:33:34::/:/bin/sh\nbroken line\n"
GROUP = "root:x:0:\ndaemon:x:1:web\nweb:x:34:\nadm:x:4:root,web\nbroken\n"


@pytest.mark.parametrize(
    ("user", "identity"),
    [
        ("root", (0, 0, (0, 4))),
        ("web", (33, 34, (1, 4, 34))),
        ("33", (33, 34, (1, 4, 34))),
        ("web:adm", (33, 4, ())),
        ("web:77", (33, 77, ())),
        ("4000", (4000, 0, (0,))),
        ("4000:4001", (4000, 4001, ())),
    ],
)
def test_users(user: str, identity: tuple[int, int, tuple[int, ...]]) -> None:
    assert guest.resolve_user(user, PASSWD, GROUP) == guest.Identity(*identity)


@pytest.mark.parametrize(("user", "missing"), [("nobody-here", "/etc/passwd"), ("web:nogroup", "/etc/group")])
def test_users_that_are_not_there(user: str, missing: str) -> None:
    with pytest.raises(guest.Refused, match=missing) as caught:
        guest.resolve_user(user, PASSWD, GROUP)
    assert caught.value.kind == "engine"


def test_commands_are_found_as_execvp_finds_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, mode in (("a/tool", 0o644), ("b/tool", 0o755), ("c/tool", 0o755), ("a/data", 0o644)):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch(mode)
    (tmp_path / "a/sub").mkdir()
    search = ":".join(str(tmp_path / directory) for directory in ("nowhere", "a", "b", "c"))
    assert guest.find_command("tool", search) == str(tmp_path / "b/tool")
    assert guest.find_command(str(tmp_path / "c/tool"), "") == str(tmp_path / "c/tool")
    monkeypatch.chdir(tmp_path / "c")
    assert guest.find_command("./tool", search) == "./tool"
    assert guest.find_command("tool", "") == "./tool"  # an empty entry is the working directory
    for name, kind, text in (
        ("data", "engine", "is not an executable file"),
        ("sub", "engine", "is not an executable file"),
        ("none", "not found", f"no command 'none' \\(PATH={search}"),
        ("./none", "not found", r"no command './none' \(it was looked up"),
    ):
        with pytest.raises(guest.Refused, match=text) as caught:
            guest.find_command(name, search)
        assert caught.value.kind == kind


def test_only_what_everybody_may_read_is_copied(tmp_path: Path) -> None:
    source, target = tmp_path / "etc", tmp_path / "copy"
    for name, mode in (("passwd", 0o644), ("shadow", 0o640), ("sub/script", 0o755), ("private/key", 0o644)):
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        path.chmod(mode)
    (source / "private").chmod(0o710)
    (source / "resolv.conf").symlink_to("../run/systemd/resolve/stub-resolv.conf")
    (source / "secret-link").symlink_to("shadow")
    os.mkfifo(source / "pipe", 0o666)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(source / "socket"))
        (source / "socket").chmod(0o666)
        rootfs.copy_public(source, target)
    found = {str(path.relative_to(target)) for path in target.rglob("*")}
    assert found == {"passwd", "sub", "sub/script", "resolv.conf", "secret-link"}
    assert (target / "passwd").read_text() == "passwd"
    assert (target / "sub/script").stat().st_mode & 0o777 == 0o755
    assert str((target / "resolv.conf").readlink()) == "../run/systemd/resolve/stub-resolv.conf"
    assert not (target / "secret-link").exists()


def test_every_program_with_a_main_gets_a_launcher(tmp_path: Path) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "__init__.py").touch()
    (programs / "_common.py").write_text("\ndef main():\n    pass\n")
    (programs / "table.py").write_text("ROWS = 1\n")
    (programs / "echo.py").write_text('"""Echo."""\ndef main() -> int:\n    return 0\n')
    rootfs.install_programs(programs, tmp_path / "opt", "/usr/bin/python3.11")
    assert [path.name for path in (tmp_path / "opt/bin").iterdir()] == ["echo"]
    launcher = tmp_path / "opt/bin/echo"
    assert launcher.read_text().startswith("#!/usr/bin/python3.11 -IS\n")
    assert "from testbed.programs.echo import main\n" in launcher.read_text()
    assert launcher.stat().st_mode & 0o777 == 0o755
    lib = tmp_path / "opt/lib/testbed"
    assert {path.name for path in lib.iterdir()} == {"__init__.py", "programs"}
    assert (lib / "programs/_common.py").is_file()


def test_paths_of_sockets() -> None:
    table = (
        "Num       RefCount Protocol Flags    Type St Inode Path\n"
        "0000000000000000: 00000003 00000000 00000000 0001 03  8104\n"
        "0000000000000000: 00000002 00000000 00010000 0001 01  2381 /run/a name with spaces.sock\n"
        "0000000000000000: 00000002 00000000 00010000 0001 01  2382 @/tmp/abstract\n"
        "0000000000000000: 00000002 00000000 00010000 0005 01  2383 /usr/x\n"
        "0000000000000000: 00000002 00000000 00010000 0005 01  2384 relative\n"
    )
    assert rootfs.socket_paths(table) == {"/run/a name with spaces.sock", "/usr/x"}


def test_a_bridge_a_network_and_a_pair_an_interface() -> None:
    def interface(name: str, network: str) -> dict[str, str]:
        return {"name": name, "network": network, "mac": f"02:42:c6:12:00:0{name[-1]}"}

    hosts = [
        {"name": "alice", "interfaces": [interface("eth0", "lan"), interface("eth1", "a-very-long-network-name")]},
        {"name": "bob", "interfaces": [interface("eth0", "lan")]},
        {"name": "carol", "interfaces": []},
    ]
    made = {name: builder.Host(pid, -1, ()) for name, pid in (("alice", 11), ("bob", 12), ("carol", 13))}
    bridge = "up type bridge mcast_snooping 0 stp_state 0 forward_delay 0"
    pair = "up type veth peer name"
    assert list(builder.network_commands({"lan": "n0", "a-very-long-network-name": "n1"}, hosts, made)) == [
        f"link add name n0 {bridge}",
        f"link add name n1 {bridge}",
        f"link add name v0 master n0 {pair} eth0 address 02:42:c6:12:00:00 netns 11",
        f"link add name v1 master n1 {pair} eth1 address 02:42:c6:12:00:01 netns 11",
        f"link add name v2 master n0 {pair} eth0 address 02:42:c6:12:00:00 netns 12",
    ]


@pytest.mark.parametrize(
    ("stderr", "text"),
    [
        (
            "RTNETLINK answers: File exists\nCommand failed -:2\n",
            "ended with status 2 at 'second': RTNETLINK answers",
        ),
        ("", "ended with status 2: no message"),
        ("Command failed -:9\n", "ended with status 2: Command failed -:9"),
    ],
)
def test_a_failed_batch_names_its_line(stderr: str, text: str) -> None:
    assert text in builder.explain_batch(2, stderr, ["first", "second"])


def test_locks_on_user_namespaces_are_named_with_their_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked, free = tmp_path / "apparmor", tmp_path / "clone"
    free.write_text("1\n")
    locks = [(str(free), "0", "no"), (str(tmp_path / "absent"), "0", "no"), (str(locked), "1", "sysctl x=0")]
    monkeypatch.setattr(launch, "USER_NAMESPACE_LOCKS", locks)
    locked.write_text("0\n")
    assert "seccomp" in launch.what_to_try(errno.EPERM)
    assert "limit in /proc/sys/user" in launch.what_to_try(errno.ENOSPC)
    locked.write_text("1\n")
    assert f"{locked} is 1: as root, run `sysctl x=0`" in launch.what_to_try(errno.EPERM)


def test_the_labs_own_files_cover_nothing_that_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to("three")
    places = [str(tmp_path / name) for name in ("absent", "link", "one", "two", "three")]
    monkeypatch.setattr(launch, "SCRATCH_PLACES", places)
    one, two, three = (str(tmp_path / name) for name in ("one", "two", "three"))
    assert launch.place_for_scratch(("/usr/bin/python3", f"{one}er/x")) == one
    assert launch.place_for_scratch((f"{one}/sources", two)) == three
    with pytest.raises(FileNotFoundError, match="no directory to put the lab's files over"):
        launch.place_for_scratch((one, two, f"{three}/x/y"))
