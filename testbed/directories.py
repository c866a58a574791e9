"""Where programs may write in a host of ours, the same on every engine: everything else is read-only."""

from __future__ import annotations

WRITABLE = {"/scenario": 0o755, "/tmp": 0o1777, "/run": 0o755, "/var": 0o755, "/root": 0o700, "/home": 0o755}
BELOW_WRITABLE = {
    "/var/cache": 0o755,
    "/var/lib": 0o755,
    "/var/log": 0o755,
    "/var/spool": 0o755,
    "/var/tmp": 0o1777,
    "/run/lock": 0o1777,
}
LINKS = {"/var/run": "/run", "/var/lock": "/run/lock"}
