"""The images of hosts: our node image, built on first use, and the ones that a scenario names.

The node image is tagged with a hash of everything that goes into it, so it is built once for each version of
what runs in a host. Its base comes from a registry, or where there is none from Debian's packages.
"""

from __future__ import annotations

import hashlib
import io
import os
import platform
import shutil
import signal
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import docker.errors
import docker.utils.build

import testbed
from testbed.engines import debian
from testbed.engines.docker_client import Api, asking
from testbed.engines.docker_host import HOLD
from testbed.engines.holder import holder_elf
from testbed.engines.launchers import LIBRARY, launchers
from testbed.errors import EngineError, HostError
from testbed.packages import PACKAGES
from testbed.plan.images import Image
from testbed.project.root import Project, Refused

NODE, BASE, BUILT = "testbed-node", "testbed-base", "testbed-build"  # names of images; the tags are hashes
REGISTRY_BASE = "python:3.11-slim-bookworm"
PYTHON = "/opt/testbed/python"
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # Docker's, for an image with none

SUITE = "bookworm"
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")
MMDEBSTRAP = (
    "mmdebstrap", "--quiet", "--variant=apt", "--mode=auto", f"--include={','.join(PACKAGES)}",
    *(f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT),
)  # fmt: skip

IN_THE_IMAGE = (
    "__init__.py",
    "errors.py",
    "groups.py",
    "limits.py",
    "linux.py",
    "agent",
    "conditions",
    "measure",
    "programs",
)
OURS_ALONE = ("agent/client.py",)  # the orchestrator's end of the agent
Say = Callable[[str], None]


def node_context(machine: str) -> dict[str, bytes]:
    """What the node image is built from: path -> content. `machine` as `uname -m` names it. Raises EngineError."""
    package = Path(testbed.__file__).parent
    files = {str(path.relative_to(_node_dir())): path.read_bytes() for path in _files(_node_dir())}
    for name in IN_THE_IMAGE:
        for path in _files(package / name):
            inside = str(path.relative_to(package))
            if path.suffix == ".py" and inside not in OURS_ALONE:
                files[f"{LIBRARY[1:]}/testbed/{inside}"] = path.read_bytes()
    for name, text in launchers(package / "programs", PYTHON).items():
        files[f"opt/testbed/bin/{name}"] = text.encode()
    files[HOLD[1:]] = holder_elf(machine)
    return files


def digest(files: Mapping[str, bytes], *words: str) -> str:
    """A short name for this content."""
    whole = hashlib.sha256()
    for item in (*words, *(part for path in sorted(files) for part in (path, files[path]))):
        data = item if isinstance(item, bytes) else item.encode()
        whole.update(b"%d:" % len(data) + data)
    return whole.hexdigest()[:16]


def archive(files: Mapping[str, bytes], mtime: int = 0) -> bytes:
    """A tar of files owned by root. What starts with #! or is an executable is one."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path in sorted(files):
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.size, entry.mtime = len(files[path]), mtime
            entry.mode = 0o755 if files[path][:2] == b"#!" or files[path][:4] == b"\x7fELF" else 0o644
            tar.addfile(entry, io.BytesIO(files[path]))
    return out.getvalue()


def node_image(api: Api, say: Say) -> str:
    """The tag of our node image, built now if the daemon has it not. Raises HostError, EngineError."""
    machine = str(api.info()["Architecture"])
    context = node_context(machine)
    tag = f"{NODE}:{digest(context, REGISTRY_BASE, SUITE, *MMDEBSTRAP)}"
    if has_image(api, tag):
        return tag
    tried: list[str] = []
    for base in _bases(api, machine, say, tried):
        say(f"building the node image {tag} from {base}")
        try:
            build(api, archive(context), tag, {"BASE": base})
            return tag
        except EngineError as problem:
            tried.append(str(problem))
    raise HostError(
        f"building the node image {tag}: {'; '.join(tried)}; give the daemon a way to a registry, load "
        f"{REGISTRY_BASE} into it (`docker save`, `docker load`), or install mmdebstrap here"
    )


def foreign_image(api: Api, image: str, say: Say) -> str:
    """An image that a scenario names, pulled if the daemon has it not. Raises HostError."""
    if not has_image(api, image):
        say(f"pulling {image}")
        try:
            pull(api, image)
        except EngineError as problem:
            raise HostError(
                f"{problem}; see whether the name is right (`docker pull {image}`), or load it with `docker load`"
            ) from problem
    return image


def built_image(api: Api, project: Project, source: str, say: Say) -> str:
    """An image built from a directory with a Dockerfile, sent whole: nothing is shared with the daemon.

    Nothing outside the project is ever sent, also not through a link. Raises HostError for one that lies outside
    or has no Dockerfile, EngineError if the build fails.
    """
    try:
        directory = Path(project.find(source))
        ignore = project.read(f"{source}/.dockerignore") if (directory / ".dockerignore").exists() else b""
    except Refused as problem:
        raise HostError(f"building an image: {problem}") from problem
    if not (directory / "Dockerfile").is_file():
        raise HostError(f"building an image from {directory}: there is no Dockerfile")
    tag = f"{BUILT}:{hashlib.sha256(os.fsencode(directory.resolve())).hexdigest()[:16]}"
    say(f"building an image from {directory}")
    lines = ignore.decode(errors="replace").splitlines()
    exclude = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    tar: Any = docker.utils.build.tar(directory, exclude=exclude, dockerfile=("Dockerfile", None))
    with tar:
        build(api, tar.read(), tag, {})
    return tag


def has_image(api: Api, name: str) -> bool:
    """Whether the daemon has that image. Raises EngineError."""
    return bool(inspect_image(api, name))


def inspect_image(api: Api, name: str) -> dict[str, Any]:
    """What the daemon knows of an image; empty if it has none of that name. Raises EngineError."""
    with asking(f"looking for the image {name}"):
        try:
            found: dict[str, Any] = api.inspect_image(name)  # type: ignore[no-untyped-call]
        except docker.errors.ImageNotFound:
            return {}
    return found


def said_by(name: str, found: Mapping[str, Any]) -> Image:
    """What an image says of its programs. `found` as the daemon knows it."""
    config = found.get("Config") or {}
    environment = dict(word.partition("=")[::2] for word in config.get("Env") or [])
    return Image(
        name,
        argv=(*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ())),
        working_dir=config.get("WorkingDir") or "/",
        path=environment.get("PATH") or DEFAULT_PATH,
        stop_signal=_stop_signal(config.get("StopSignal") or "SIGTERM"),
    )


def _stop_signal(word: str) -> str:
    """`SIGQUIT` for QUIT, SIGQUIT and 3; `SIGRTMIN+3` for that and for 37."""
    if not word.isdecimal():
        return word if word.startswith("SIG") else f"SIG{word}"
    number = int(word)
    beyond = number - signal.SIGRTMIN
    return f"SIGRTMIN+{beyond}" if beyond > 0 else signal.Signals(number).name


def pull(api: Api, image: str) -> None:
    """Raises EngineError with the registry's own words."""
    name, tag = docker.utils.parse_repository_tag(image)
    with asking(f"pulling {image}"):
        for line in api.pull(name, tag=tag or "latest", stream=True, decode=True):
            if "error" in line:
                raise EngineError(f"pulling {image}: {line['error']}")


def build(api: Api, context: bytes, tag: str, arguments: Mapping[str, str]) -> None:
    """Build a context (a tar archive). Raises EngineError with the last lines of the build."""
    said: list[str] = []
    with asking(f"building {tag}"):
        for line in api.build(
            fileobj=io.BytesIO(context), custom_context=True, tag=tag, buildargs=dict(arguments),
            rm=True, forcerm=True, decode=True,
        ):  # fmt: skip
            said += str(line.get("stream", "")).splitlines()
            if "error" in line:
                last = " | ".join(text for text in said[-8:] if text.strip())
                raise EngineError(f"building {tag}: {line['error'].strip()}; its last lines were: {last}")


def _node_dir() -> Path:
    """compose/node: beside the package in a checkout, within it in a wheel."""
    package = Path(testbed.__file__).parent
    for directory in (package / "shipped/compose/node", package.parent / "compose/node"):
        if (directory / "Dockerfile").is_file():
            return directory
    raise EngineError(f"looking for compose/node/Dockerfile: it is neither in {package}/shipped nor beside it")


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return sorted(p for p in path.rglob("*") if p.is_file() and "__pycache__" not in p.parts)


def _bases(api: Api, machine: str, say: Say, tried: list[str]) -> Iterator[str]:
    """Base images, the best first; why one could not be had is added to `tried`."""
    made = f"{BASE}:{digest({}, SUITE, *MMDEBSTRAP)}"
    if has_image(api, REGISTRY_BASE):
        yield REGISTRY_BASE
    elif not has_image(api, made):
        say(f"pulling {REGISTRY_BASE}")
        try:
            pull(api, REGISTRY_BASE)
            yield REGISTRY_BASE
        except EngineError as problem:
            tried.append(str(problem))
    try:
        if not has_image(api, made):
            _make_base(api, machine, made, say)
        yield made
    except HostError as problem:
        tried.append(str(problem))


def _make_base(api: Api, machine: str, name: str, say: Say) -> None:
    """Debian's packages as an image. Raises HostError, EngineError."""
    doing = "making a base image from Debian's packages"
    if shutil.which("mmdebstrap") is None:
        raise HostError(f"{doing}: mmdebstrap is not installed")
    if machine != platform.machine():
        raise HostError(f"{doing}: the daemon's machine is {machine} and this one {platform.machine()}")
    tar = debian.cached(f"{name.replace(':', '-')}.tar", MMDEBSTRAP, SUITE, say)
    say(f"importing {name}")
    repository, tag = name.split(":")
    with asking(f"importing {name}"):
        api.import_image_from_file(str(tar), repository=repository, tag=tag)
