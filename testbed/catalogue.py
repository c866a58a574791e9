"""Where scenario files are found: a path, then ./scenarios, then those that ship with the package."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

from testbed.errors import HostError

_PACKAGE = Path(__file__).resolve().parent


def shipped() -> Path:
    """The scenarios of the package: inside it when installed, beside it in a checkout."""
    inside = _PACKAGE / "shipped" / "scenarios"
    return inside if inside.is_dir() else _PACKAGE.parent / "scenarios"


def scenarios_in(directory: Path) -> list[Path]:
    """The scenario files of a directory, not of those below it: YAML files that begin with `testbed:`."""
    return [path for path in sorted(directory.glob("*.y*ml")) if _is_scenario(path)]


def find(names: Iterable[str], cwd: Path) -> list[Path]:
    """The files meant by paths, directories and names, in their order. Raises HostError with near misses."""
    return [path for name in names for path in _find(name, cwd)]


def everything(cwd: Path) -> list[Path]:
    """What `testbed list` shows: ./scenarios first, then the shipped ones that it does not hide."""
    local = scenarios_in(cwd / "scenarios")
    hidden = {path.stem for path in local}
    return local + [path for path in scenarios_in(shipped()) if path.stem not in hidden]


def _find(name: str, cwd: Path) -> list[Path]:
    path = cwd / name
    if path.is_dir():
        found = scenarios_in(path)
        if not found:
            raise HostError(f"looking for scenarios in {name}: no file there begins with `testbed:`")
        return found
    if path.is_file():
        return [path]
    for directory in (cwd / "scenarios", shipped()):
        for ending in ("yaml", "yml"):
            candidate = directory / f"{name}.{ending}"
            if candidate.is_file():
                return [candidate]
    near = get_close_matches(name, [p.stem for p in everything(cwd)], 3)
    hint = f"did you mean {', '.join(near)}?" if near else "`testbed list` shows what there is"
    raise HostError(f"looking for the scenario {name!r}: no such file, none in ./scenarios, none shipped; {hint}")


def _is_scenario(path: Path) -> bool:
    """One that cannot be read may be one: whoever asked for the directory has to hear of it."""
    if not path.is_file():  # a directory, or a pipe that nobody writes to
        return False
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            lines = (line.strip() for line in file)
            first = next((line for line in lines if line and not line.startswith(("#", "---", "%"))), "")
    except OSError:
        return True
    return first.startswith("testbed:")
