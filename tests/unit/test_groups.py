"""Where control groups are, from what the kernel shows of them; and who may remove them."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Any

import pytest

from testbed import groups, limits

V1 = """
30 20 0:26 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
31 20 0:27 / /sys/fs/cgroup/cpu,pids rw,relatime - cgroup cgroup rw,cpu,pids
32 20 0:28 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
""".strip()
V2 = "30 20 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
IN_CONTAINER = """
30 20 0:26 /docker/abc /sys/fs/cgroup/memory ro,relatime - cgroup cgroup rw,memory
31 20 0:27 /docker/abc /sys/fs/cgroup/pids ro,relatime - cgroup cgroup rw,pids
""".strip()


@pytest.mark.parametrize(
    ("cgroup", "mounts", "found"),
    [
        (
            "9:memory:/user/me\n8:cpu,pids:/\n0::/init",
            V1,
            {"memory": ("/sys/fs/cgroup/memory/user/me", 1), "pids": ("/sys/fs/cgroup/cpu,pids", 1)},
        ),
        (
            "0::/user.slice/s-1.scope",
            V2,
            dict.fromkeys(("memory", "pids"), ("/sys/fs/cgroup/user.slice/s-1.scope", 2)),
        ),
        (
            "9:memory:/docker/abc/x\n8:pids:/docker/abc",
            IN_CONTAINER,
            {"memory": ("/sys/fs/cgroup/memory/x", 1), "pids": ("/sys/fs/cgroup/pids", 1)},
        ),
        ("9:memory:/docker/abcd\n8:pids:/", IN_CONTAINER, {}),
        (
            "9:memory:/\n8:pids:/",
            IN_CONTAINER.replace("/docker/abc", "/testbed-lab-1/host-a"),
            {"memory": ("/sys/fs/cgroup/memory", 1), "pids": ("/sys/fs/cgroup/pids", 1)},
        ),
        ("0::/", "", {}),
    ],
)
def test_a_process_finds_its_own_group(cgroup: str, mounts: str, found: dict[str, tuple[str, int]]) -> None:
    assert groups.own(cgroup, mounts) == found


def test_the_nearest_group_that_gives_its_children_both_is_taken(tmp_path: Path) -> None:
    for path, given in (("", "cpu memory pids"), ("slice", "cpu"), ("slice/scope", "")):
        (tmp_path / path).mkdir(exist_ok=True)
        (tmp_path / path / "cgroup.subtree_control").write_text(given)
    assert groups._parent(f"{tmp_path}/slice/scope") == str(tmp_path)
    (tmp_path / "slice/cgroup.subtree_control").write_text("memory pids")
    assert groups._parent(f"{tmp_path}/slice/scope") == f"{tmp_path}/slice"
    (tmp_path / "cgroup.subtree_control").write_text("cpu")
    (tmp_path / "slice/cgroup.subtree_control").write_text("cpu")
    with pytest.raises(groups.NoGroups, match="gives its children memory and pids"):
        groups._parent(f"{tmp_path}/slice/scope")


@pytest.mark.parametrize(
    ("version", "written"),
    [
        (1, {"memory.limit_in_bytes": "5", "memory.memsw.limit_in_bytes": "5", "pids.max": "7"}),
        (2, {"memory.max": "5", "memory.swap.max": "0", "pids.max": "7"}),
    ],
)
def test_the_limits_of_a_host_are_written_where_the_kernel_has_them(
    version: int, written: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: dict[str, str] = {}

    def mkdir(path: Path) -> None:
        os.mkdir(path)  # noqa: PTH102
        for name in written:
            (path / name).touch()

    monkeypatch.setattr(Path, "mkdir", mkdir)
    place = groups.Place(str(tmp_path), version, groups.CONTROLLERS)
    groups.LabGroups([place]).add("tasks", {"memory": 5, "pids": 7})
    made = {path.name: path.read_text() for path in (tmp_path / "host-tasks").iterdir()}
    assert made == written


@pytest.mark.parametrize(
    ("files", "version", "found"),
    [
        ({"memory.limit_in_bytes": "5", "memory.memsw.limit_in_bytes": "5", "pids.max": "7"}, 1, (5, 0, 7)),
        ({"memory.limit_in_bytes": "5", "memory.memsw.limit_in_bytes": "9", "pids.max": "max"}, 1, (5, 4, None)),
        ({"memory.limit_in_bytes": "5", "pids.max": "7"}, 1, (5, None, 7)),
        ({"memory.limit_in_bytes": "9223372036854771712", "pids.max": "7"}, 1, (None, None, 7)),
        ({"memory.max": "5", "memory.swap.max": "0", "pids.max": "7"}, 2, (5, 0, 7)),
        ({"memory.max": "max", "memory.swap.max": "max", "pids.max": "max"}, 2, (None, None, None)),
        ({}, 2, (None, None, None)),
    ],
)
def test_what_is_in_force_is_what_the_kernel_has_and_nothing_else(
    files: dict[str, str], version: int, found: tuple[int | None, ...], tmp_path: Path, monkeypatch: Any
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(f"{text}\n")
    monkeypatch.setattr(groups, "_of_host", lambda _: dict.fromkeys(groups.CONTROLLERS, (tmp_path, version)))
    assert tuple(groups.in_force(1).values()) == found
    if found[0] is None:
        assert groups.memory_kills(1) is None, "what is counted there may be the fault of others"


def test_of_a_process_that_is_gone_nothing_is_in_force() -> None:
    assert groups.in_force(1 << 30) == {"memory_bytes": None, "swap_bytes": None, "processes": None}


def test_a_limit_holds_only_if_it_does_on_every_host() -> None:
    good, bad = dict(limits.BY_GROUPS), {"memory_bytes": None, "swap_bytes": None, "processes": 2048}
    assert limits.held({"a": good, "b": good}) == limits.BY_GROUPS and limits.void({"a": good}) == ""
    assert limits.held({"a": good, "b": bad}) == bad
    assert limits.void({"a": good, "b": bad}) == (
        "no control group limits memory on b: `testbed doctor` says what holds"
    )
    nothing: dict[str, int | None] = {}
    assert limits.void({"b": nothing}) == (
        "no control group limits memory and processes on every host: `testbed doctor` says what holds"
    )


def test_a_sweep_removes_what_nobody_holds_and_nothing_else(tmp_path: Path) -> None:
    for name in ("testbed-lab-dead", "testbed-lab-dead/host-a", "testbed-lab-live", "somebody", "somebody/host-a"):
        (tmp_path / name).mkdir()
    held = os.open(tmp_path / "testbed-lab-live", os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    assert groups.sweep(str(tmp_path)) == [f"{tmp_path}/testbed-lab-dead"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["somebody", "testbed-lab-live"]
    os.close(held)
    assert groups.sweep(str(tmp_path)) == [f"{tmp_path}/testbed-lab-live"]


def test_a_group_that_still_has_something_in_it_stays(tmp_path: Path) -> None:
    (tmp_path / "testbed-lab-dead/host-a/a-process").mkdir(parents=True)
    assert groups.sweep(str(tmp_path)) == []
    assert (tmp_path / "testbed-lab-dead/host-a").exists()
