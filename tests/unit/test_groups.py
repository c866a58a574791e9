"""Where control groups are, from what the kernel shows of them; and who may remove them."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from testbed import groups

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
