"""What goes into the node image, how it is named, and where its base comes from."""

from __future__ import annotations

import ast
import io
import platform
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import docker.errors
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

import testbed
from testbed.engines import debian, docker_image
from testbed.engines.docker_image import (
    BASE,
    DEFAULT_PATH,
    NODE,
    REGISTRY_BASE,
    archive,
    digest,
    foreign_image,
    node_context,
    node_image,
    said_by,
)
from testbed.engines.holder import holder_elf
from testbed.errors import EngineError, HostError
from testbed.packages import PACKAGE_OF, PACKAGES
from testbed.plan.images import Image

if TYPE_CHECKING:
    Fake = Any  # stands for the SDK's client, which it implements a part of
else:
    Fake = object

HERE = platform.machine()


class Daemon(Fake):  # type: ignore[misc]
    """Images by name; `registry` says which can be pulled, `broken` which base a build fails on."""

    def __init__(self, *images: str, registry: tuple[str, ...] = (), broken: tuple[str, ...] = ()) -> None:
        self.images, self.registry, self.broken = set(images), registry, broken
        self.did: list[str] = []

    def info(self) -> dict[str, str]:
        return {"Architecture": HERE}

    def inspect_image(self, name: str) -> dict[str, Any]:
        if name not in self.images:
            raise docker.errors.ImageNotFound("no such image")
        return {"Id": name}

    def pull(self, name: str, tag: str, stream: bool, decode: bool) -> Iterator[dict[str, str]]:
        self.did.append(f"pull {name}:{tag}")
        if f"{name}:{tag}" not in self.registry:
            response = requests.Response()
            response.status_code = 500
            raise docker.errors.APIError("refused", response, "dial tcp: no route to the registry")
        self.images.add(f"{name}:{tag}")
        yield {"status": "done"}

    def build(self, fileobj: Any, tag: str, buildargs: dict[str, str], **_: Any) -> Iterator[dict[str, str]]:
        self.did.append(f"build from {buildargs.get('BASE')}")
        yield {"stream": "Step 1\nneed network\n"}
        if buildargs.get("BASE") in self.broken:
            yield {"error": "apt-get returned 100"}
        else:
            self.images.add(tag)

    def import_image_from_file(self, path: str, repository: str, tag: str) -> None:
        self.did.append(f"import {Path(path).read_text()}")
        self.images.add(f"{repository}:{tag}")


@pytest.fixture
def mmdebstrap(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """One that is there and quick; the cache is a temporary directory."""
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/mmdebstrap")
    monkeypatch.setattr(debian, "_mmdebstrap", lambda _, __, target: target.write_text("packages"))
    monkeypatch.setenv("TESTBED_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def no_mmdebstrap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)


def made(daemon: Daemon) -> str:
    said: list[str] = []
    tag = node_image(daemon, said.append)
    assert tag in daemon.images and tag.startswith(f"{NODE}:")
    return tag


def test_with_a_registry_the_base_is_a_slim_python_image(mmdebstrap: Path) -> None:
    daemon = Daemon(registry=(REGISTRY_BASE,))
    made(daemon)
    assert daemon.did == [f"pull {REGISTRY_BASE}", f"build from {REGISTRY_BASE}"]


def test_an_image_that_is_there_is_not_made_again(mmdebstrap: Path) -> None:
    daemon = Daemon(REGISTRY_BASE)
    tag = made(daemon)
    assert daemon.did == [f"build from {REGISTRY_BASE}"], "nor is what it is built from pulled again"
    assert made(daemon) == tag and len(daemon.did) == 1


def test_without_a_registry_the_base_is_made_of_packages_and_kept(mmdebstrap: Path) -> None:
    daemon = Daemon()
    made(daemon)
    (base,) = (name for name in daemon.images if name.startswith(f"{BASE}:"))
    assert daemon.did == [f"pull {REGISTRY_BASE}", "import packages", f"build from {base}"]
    assert [path.suffix for path in sorted(mmdebstrap.iterdir())] == [".lock", ".tar"]
    (mmdebstrap / f"{base.replace(':', '-')}.tar").write_text("from the cache")
    again = Daemon()
    made(again)
    assert "import from the cache" in again.did
    third = Daemon(base)
    made(third)
    assert third.did == [f"build from {base}"], "with a base of ours there no registry is asked"


def test_where_the_build_has_no_network_the_packages_are_tried_next(mmdebstrap: Path) -> None:
    daemon = Daemon(registry=(REGISTRY_BASE,), broken=(REGISTRY_BASE,))
    made(daemon)
    assert daemon.did[1] == f"build from {REGISTRY_BASE}" and daemon.did[-1].startswith(f"build from {BASE}:")


def test_with_neither_both_reasons_are_told(no_mmdebstrap: None) -> None:
    with pytest.raises(HostError) as problem:
        node_image(Daemon(), lambda _: None)
    for words in ("no route to the registry", "mmdebstrap is not installed", "docker load"):
        assert words in str(problem.value)
    with pytest.raises(HostError, match=r"apt-get returned 100; its last lines were: Step 1 \| need network"):
        node_image(Daemon(REGISTRY_BASE, broken=(REGISTRY_BASE,)), lambda _: None)


def test_packages_of_this_machine_are_not_for_another(mmdebstrap: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(HostError, match=f"the daemon's machine is {HERE} and this one riscv64"):
        node_image(Daemon(), lambda _: None)


def test_a_cache_that_cannot_be_written_says_how_to_choose_another(
    mmdebstrap: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mmdebstrap.write_text("a file")
    with pytest.raises(HostError, match="set TESTBED_CACHE"):
        node_image(Daemon(), lambda _: None)


def test_a_foreign_image_is_pulled_once() -> None:
    daemon = Daemon(registry=("redis:7", "busybox:latest"))
    for name in ("redis:7", "redis:7", "busybox"):
        daemon.images |= {"busybox"} if "busybox:latest" in daemon.images else set()
        assert foreign_image(daemon, name, lambda _: None) == name
    assert daemon.did == ["pull redis:7", "pull busybox:latest"]
    with pytest.raises(HostError, match=r"pulling nothing/here:1: .*docker pull nothing/here:1"):
        foreign_image(daemon, "nothing/here:1", lambda _: None)


# what is in it


def test_the_image_holds_what_runs_in_a_host_and_what_the_agent_is() -> None:
    files = node_context("x86_64")
    inside = {path.removeprefix("opt/testbed/") for path in files if path.startswith("opt/testbed/")}
    assert {"hold", "bin/datagram", "bin/stream"} <= inside
    library = {path.removeprefix("lib/testbed/") for path in inside if path.startswith("lib/")}
    assert {"__init__.py", "errors.py", "linux.py", "agent/__main__.py", "programs/datagram.py"} <= library
    assert {path.split("/")[0] for path in library} == {
        "__init__.py", "errors.py", "groups.py", "limits.py", "linux.py",
        "agent", "conditions", "measure", "programs",
    }  # fmt: skip
    assert all(path.endswith(".py") for path in library)
    assert files["opt/testbed/hold"] == holder_elf("x86_64") and "Dockerfile" in files


def test_what_is_in_it_needs_nothing_that_is_not_in_it(tmp_path: Path) -> None:
    """Every module of it can be imported by an isolated interpreter from these files alone."""
    for path, content in node_context(HERE).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    library = tmp_path / "opt/testbed/lib"
    modules = sorted(
        ".".join(path.relative_to(library).with_suffix("").parts).removesuffix(".__init__")
        for path in library.rglob("*.py")
    )
    program = f"import sys; sys.path.insert(0, {str(library)!r})\n" + "".join(f"import {m}\n" for m in modules)
    done = subprocess.run([sys.executable, "-IBSc", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in ("datagram", "stream"):
        launcher = (tmp_path / "opt/testbed/bin" / name).read_text()
        assert launcher.startswith("#!/opt/testbed/python -IS\n")
        ast.parse(launcher)


def test_dockerfile_ci_and_documents_install_what_the_table_of_packages_says() -> None:
    dockerfile = node_context(HERE)["Dockerfile"].decode()
    assert dict(re.findall(r"need ([\w-]+) ([\w-]+);", dockerfile)) == PACKAGE_OF
    root = Path(__file__).parents[2]
    ci = re.findall(r"apt-get install ((?:.*\\\n)*.*)", (root / ".ci/run").read_text())
    assert set(PACKAGES) <= set(" ".join(ci).split()), "the tests of .ci/run skip nothing"
    documents = re.findall(r"apt-get install ((?:.*\\\n)*.*)", (root / "docs/programs.md").read_text())
    assert tuple(word for word in documents[0].split() if word[0] not in "-\\") == PACKAGES


contents = st.dictionaries(st.text("abc/", min_size=1, max_size=6), st.binary(max_size=6), max_size=4)


@given(contents, contents)
def test_two_contents_have_one_name_only_if_they_are_the_same(
    one: dict[str, bytes], two: dict[str, bytes]
) -> None:
    assert (digest(one) == digest(two)) == (one == two)
    assert digest(one, "base") != digest(one, "other base") != digest(one, "ba", "se")


@given(st.dictionaries(st.sampled_from(["/a", "/b/c", "/b/d/e"]), st.binary(max_size=50)))
def test_an_archive_holds_files_of_root_that_are_executable_if_they_look_so(files: dict[str, bytes]) -> None:
    files["/tool"], files["/program"] = b"#!/bin/sh\n", b"\x7fELF\2"
    with tarfile.open(fileobj=io.BytesIO(archive(files, 99))) as tar:
        found = {member.name: (member, tar.extractfile(member)) for member in tar}
        assert {f"/{name}": file.read() for name, (_, file) in found.items() if file} == files
        assert {(m.uid, m.gid, m.mtime) for m, _ in found.values()} == {(0, 0, 99)}
        assert found["tool"][0].mode == found["program"][0].mode == 0o755
        assert all(
            m.mode == 0o644 for name, (m, _) in found.items() if files[f"/{name}"][:2] not in (b"#!", b"\x7fE")
        )


def test_a_checkout_and_a_wheel_keep_the_dockerfile_in_their_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "testbed"
    package.mkdir()
    monkeypatch.setattr(testbed, "__file__", str(package / "__init__.py"))
    with pytest.raises(EngineError, match="compose/node/Dockerfile"):
        docker_image._node_dir()
    for directory in (tmp_path / "compose/node", package / "shipped/compose/node"):  # the wheel's own comes first
        directory.mkdir(parents=True)
        (directory / "Dockerfile").write_text("FROM x")
        assert docker_image._node_dir() == directory


@pytest.mark.parametrize(
    ("config", "image"),
    [
        (None, Image("i", (), "/", DEFAULT_PATH, "SIGTERM")),
        ({"Entrypoint": None, "Cmd": ["a"], "Env": None}, Image("i", ("a",), "/", DEFAULT_PATH, "SIGTERM")),
        (
            {"Entrypoint": ["e"], "Cmd": ["a", "b"], "Env": ["X=1", "PATH=/p:/q"], "WorkingDir": "/w",
             "StopSignal": "SIGQUIT"},
            Image("i", ("e", "a", "b"), "/w", "/p:/q", "SIGQUIT"),
        ),
        ({"StopSignal": "INT"}, Image("i", (), "/", DEFAULT_PATH, "SIGINT")),
        ({"StopSignal": "3"}, Image("i", (), "/", DEFAULT_PATH, "SIGQUIT")),
        ({"StopSignal": "37"}, Image("i", (), "/", DEFAULT_PATH, "SIGRTMIN+3")),
        ({"StopSignal": "SIGRTMIN+3"}, Image("i", (), "/", DEFAULT_PATH, "SIGRTMIN+3")),
    ],
)  # fmt: skip
def test_what_an_image_says_of_its_programs(config: dict[str, Any] | None, image: Image) -> None:
    assert said_by("i", {"Config": config}) == image
