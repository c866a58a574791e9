"""A virtual environment of Python: what of this machine a host must see to use it, and nothing else.

All of an environment may be a stranger's. So its files are read only where they lie in the project, and what it
names outside is shown to a host only if it turns out to be an interpreter: a directory with `bin/python3.N` and
`lib/python3.N/os.py`, which is no home and holds none.
"""

from __future__ import annotations

import ast
import json
import os
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from testbed.limits import DEEP
from testbed.project.root import Project, Refused, holds_homes
from testbed.project.tree import NO_PLACE_IN_HOSTS, TOO_DEEP, host_can_read, special, within

SEEN = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")  # of the machine, in every host
LARGEST_BYTES = 1 << 20  # of a file that is looked into
ANEW = "make it anew: `python3 -m venv --clear {}`"


@dataclass
class Environment:
    """Where it stands, and what a host is shown for it: (real path on this machine, path in the host)."""

    path: str
    trees: list[tuple[str, str]] = field(default_factory=list)

    def show(self, real: str, path: str) -> None:
        """Add a tree, unless it is seen by another one."""
        if any(within(real, tree) and path == at + real.removeprefix(tree) for tree, at in self.trees):
            return
        self.trees = [
            (tree, at) for tree, at in self.trees if not (within(tree, real) and tree == at and real == path)
        ]
        self.trees.append((real, path))

    def sees(self, real: str) -> bool:
        """Whether what has this real path is seen, too."""
        return any(within(real, tree) for tree in (*SEEN, *(tree for tree, at in self.trees if tree == at)))

    def finds(self, path: str) -> bool:
        """Whether a host finds something by this path, which may be a link's."""
        return any(within(path, at) for at in (*SEEN, "/etc", *(at for _, at in self.trees)))


def environment(project: Project, source: str) -> Environment:
    """The virtual environment at a path of the author's, with all that it takes. Raises Refused."""
    real = project.find(source)
    settings = _text(project, f"{real}/pyvenv.cfg")
    if settings is None:
        hint = f"name the directory that `python3 -m venv {source}` or `uv venv` made"
        raise Refused(f"`{source}` is no virtual environment: it has no pyvenv.cfg", hint)
    made = Environment(real, [(real, real)])
    for alias in _aliases(project, real):
        made.show(real, alias)
    _interpreter(made, source, settings)
    sites = [str(site) for site in sorted(Path(real).glob("lib*/python3*/site-packages")) if _is_own(site, real)]
    for site in sites:
        _editable(made, project, source, site)
    _whole(made, source)
    return made


def _aliases(project: Project, real: str) -> Iterator[str]:
    """Another path by which its own scripts call it, through a link: of the home, say."""
    found = re.search(
        r"^VIRTUAL_ENV=['\"]?(/[^'\"\n]+)", _text(project, f"{real}/bin/activate") or "", re.MULTILINE
    )
    if found and found[1] != real and os.path.realpath(found[1]) == real:
        yield posixpath.normpath(found[1])


def _interpreter(made: Environment, source: str, settings: str) -> None:
    """Show the interpreter's own directory. Raises Refused."""
    python = f"{made.path}/bin/python"
    target = os.path.realpath(python)
    written = re.search(r"^home\s*=\s*(/.*?)\s*$", settings, re.MULTILINE)
    if written is None or not os.path.lexists(python):
        raise Refused(f"`{source}` is no whole virtual environment", ANEW.format(source))
    home = posixpath.normpath(written[1])
    prefix = os.path.dirname(os.path.realpath(home))  # noqa: PTH120
    if not made.sees(prefix):
        if not _is_prefix(prefix):
            why = "there is no interpreter of Python" if Path(home).exists() else "it is not there"
            raise Refused(f"`{source}` has its interpreter in {home}, and {why}", ANEW.format(source))
        if holds_homes(Path(prefix)):
            hint = f"a host would see all that is in {prefix}: install Python in a directory of its own"
            raise Refused(f"`{source}` has an interpreter that was installed into the home {prefix}", hint)
        made.show(prefix, prefix)
        for path in (home, *_hops(python)):  # uv's are called by a link to a directory with the whole version
            before = os.path.dirname(path) if path == home else os.path.dirname(os.path.dirname(path))  # noqa: PTH120
            if before != prefix and os.path.realpath(before) == prefix:
                made.show(prefix, before)
    if not made.sees(target):
        raise Refused(f"`{source}`: bin/python leads to {target}, which is not in {prefix}", ANEW.format(source))
    if not Path(target).is_file():
        raise Refused(f"`{source}`: its interpreter {target} is not there (any more)", ANEW.format(source))


def _is_prefix(prefix: str) -> bool:
    """Whether an interpreter of Python, and nothing else, was certainly installed there."""
    for library in Path(prefix).glob("lib/python3.*/os.py"):
        python = Path(prefix, "bin", library.parent.name)
        if within(os.path.realpath(library), prefix) and python.is_file() and os.access(python, os.X_OK):
            return within(os.path.realpath(python), prefix)
    return False


def _hops(link: str) -> Iterator[str]:
    """The absolute paths that a chain of links leads over."""
    for _ in range(40):
        if not os.path.islink(link):  # noqa: PTH114
            return
        link = posixpath.normpath(posixpath.join(os.path.dirname(link), os.readlink(link)))  # noqa: PTH115, PTH120
        yield link


def _is_own(path: Path, real: str) -> bool:
    return within(os.path.realpath(path), real) and not path.parent.parent.is_symlink()


def _editable(made: Environment, project: Project, source: str, site: str) -> None:
    """Show the sources of what was installed with -e. Raises Refused for what lies outside the project."""
    named = [path for pth in sorted(Path(site).glob("*.pth")) for path in _lines(project, site, pth)]
    for finder in sorted({*Path(site).glob("*editable*.py")}):
        named += _constants(_text(project, str(finder)) or "")
    directories = [path if Path(path).is_dir() else os.path.dirname(path) for path in named]  # noqa: PTH120
    for file in sorted(Path(site).glob("*.dist-info/direct_url.json")):
        place = _installed_from(_text(project, str(file)) or "")
        if place and not any(within(one, place) for one in directories):
            directories.append(place)  # by some loader of its own: all of its sources
    for directory in dict.fromkeys(directories):
        real = os.path.realpath(directory)
        if not Path(real).is_dir() or (made.sees(real) and real == directory):
            continue
        if not project.has(real) and not made.sees(real):
            hint = f"install it whole, without -e, or name a root that holds both: --root {_common(project, real)}"
            raise Refused(f"`{source}` uses what was installed with -e from {real}, outside the project", hint)
        made.show(real, real)
        made.show(real, directory)


def _common(project: Project, real: str) -> str:
    return os.path.commonpath([real, project.root])


def _lines(project: Project, site: str, pth: Path) -> Iterator[str]:
    """The directories that a .pth file adds; site(3) skips what is not there."""
    for line in (_text(project, str(pth)) or "").splitlines():
        path = posixpath.normpath(posixpath.join(site, line.strip()))
        if line.strip() and not line.startswith(("#", "import ", "import\t")) and Path(path).is_dir():
            yield path


def _constants(source: str) -> list[str]:
    """The paths of existing things that a module of an editable install has as texts."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    texts = (
        node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    return [posixpath.normpath(text) for text in texts if text.startswith("/") and os.path.exists(text)]  # noqa: PTH110


def _installed_from(text: str) -> str:
    """The directory that direct_url.json names for an editable install (PEP 610); "" for all else."""
    try:
        data = json.loads(text)
        if data["dir_info"]["editable"] is True and (url := urlsplit(data["url"])).scheme == "file":
            return posixpath.normpath(unquote(url.path))
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    return ""


def _whole(made: Environment, source: str) -> None:
    """Raises Refused where a part of it could not be seen or read in a host."""
    for directory, below, files in os.walk(made.path, onerror=_cannot):
        if directory.count("/") - made.path.count("/") > DEEP:
            raise Refused(f"`{source}` {TOO_DEEP}", "mend that: no environment is")
        for name in (*below, *files):
            path = f"{directory}/{name}"
            try:
                found = os.lstat(path)
            except FileNotFoundError:
                continue
            shown = posixpath.join(source, os.path.relpath(path, made.path))
            if os.path.islink(path):  # noqa: PTH114
                target = os.path.realpath(path)
                if not made.sees(target):
                    hint = "install with copies, as in `uv pip install --link-mode=copy`, or mend the link"
                    raise Refused(f"`{shown}` is a link to {target}, which hosts do not see", hint)
                if unseen := next((hop for hop in _hops(path) if not made.finds(hop)), ""):
                    hint = f"make it lead to {target} itself"
                    raise Refused(f"`{shown}` is a link over {unseen}, which hosts do not see", hint)
            elif what := special(found.st_mode):
                raise Refused(f"`{shown}` is {what}", NO_PLACE_IN_HOSTS)
            elif not host_can_read(found):
                raise Refused(f"`{shown}` cannot be read: it belongs to user {found.st_uid}", "`chmod -R a+rX` it")


def _cannot(problem: OSError) -> None:
    raise Refused(f"{problem.filename} cannot be read: {problem.strerror}", "`chmod -R a+rX` it") from problem


def _text(project: Project, path: str) -> str | None:
    """The text of a file of the project's; None if there is none, it lies outside, or is far too large."""
    real = os.path.realpath(path)
    if not project.has(real) or not Path(real).is_file():
        return None
    try:
        with Path(real).open("rb") as file:
            data = file.read(LARGEST_BYTES + 1)
    except OSError:
        return None
    return data.decode(errors="replace") if len(data) <= LARGEST_BYTES else None
