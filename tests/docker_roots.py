"""Root directories with a Docker Engine of another version than this machine's, out of Debian's packages.

They are made once and kept in the cache (see testbed.engines.debian), which only root can do. Nothing is written
into them afterwards: a daemon that runs from one has its own places in memory, and its data elsewhere.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from testbed.engines import debian
from testbed.errors import HostError

SUITES = {"20": "bookworm", "26": "trixie", "28": "sid"}  # which of Debian's has that version of Docker
PACKAGES = "docker.io,docker-cli,iptables,nftables,iproute2,ca-certificates"
MMDEBSTRAP = (
    "mmdebstrap", "--quiet", "--variant=minbase", "--mode=root",
    "--aptopt=Acquire::Check-Valid-Until \"false\"",  # a mirror may be a snapshot, and older than sid allows
    "--customize-hook=mkdir -p \"$1/etc/docker\"",  # a place to mount, see ENTER
)  # fmt: skip

# In a mount namespace of its own: the root becomes /, and the daemon's directory is seen at /mnt. It is a mount
# point, because a daemon that unpacks images makes a mount point of `/` private. /proc and /dev are the caller's;
# /sys is new, or a daemon of another network namespace would wait in vain for the devices that it looks for there.
ENTER = """
set -eu
root=$1 directory=$2
shift 2
mount --rbind "$root" "$root"
mount --rbind /proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t sysfs sys "$root/sys"
mount --rbind /sys/fs/cgroup "$root/sys/fs/cgroup"
for place in run tmp etc/docker; do mount -t tmpfs tmpfs "$root/$place"; done
mount --bind "$directory" "$root/mnt"
mount -o remount,bind,ro "$root"
cd "$root"
pivot_root . .
umount -l .
exec "$@"
"""
AT = Path("/mnt")  # where the daemon sees its directory


def root_of(version: str, say: Callable[[str], None]) -> Path:
    """The root that has this major version of Docker, made now if it is not there. Raises HostError."""
    if version not in SUITES:
        raise HostError(f"looking for Docker {version}: there are {', '.join(SUITES)}")
    if shutil.which("mmdebstrap") is None:
        raise HostError(f"making a root with Docker {version}: mmdebstrap is not installed (Debian: mmdebstrap)")
    suite = SUITES[version]
    packages = PACKAGES.replace("docker-cli,", "") if suite == "bookworm" else PACKAGES
    command = (*MMDEBSTRAP, f"--include={packages}")
    made = hashlib.sha256(" ".join((*command, suite, ENTER)).encode()).hexdigest()[:8]
    return debian.cached(f"docker-{version}-{made}", command, suite, say)


def map_users(root: Path, directory: Path) -> None:
    """What `--userns-remap=default` looks for, as files of our own over those of the root. Raises OSError."""
    lines = {
        "passwd": "dockremap:x:65500:65500::/nonexistent:/usr/sbin/nologin",
        "group": "dockremap:x:65500:",
        "subuid": "dockremap:200000:65536",
        "subgid": "dockremap:200000:65536",
    }
    for name, line in lines.items():
        there, ours = root / "etc" / name, directory / name
        ours.write_text(f"{there.read_text()}{line}\n")
        subprocess.run(["mount", "--bind", str(ours), str(there)], check=True)


def inside(root: Path, directory: Path, argv: list[str]) -> list[str]:
    """The command that runs `argv` in there, where `directory` is AT."""
    enter = ["sh", "-c", ENTER, "sh", str(root), str(directory), *argv]
    return ["unshare", "--mount", "--propagation", "private", *enter]
