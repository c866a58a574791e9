"""Hosts of other images than ours: without a shell, built beside the scenario, or not to be had at all."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from testbed.engines import docker_owner
from testbed.engines.docker_client import Api, api_closed, connect
from testbed.engines.docker_host import FOREIGN_HOLD
from testbed.engines.docker_image import DEFAULT_PATH, archive, node_image
from testbed.engines.holder import holder_elf
from testbed.errors import CommandNotFound, HostError
from testbed.plan.images import Image
from testbed.project.root import Project
from tests.system.docker_lab import (
    inspect,
    lab,
    make_plan,
    unpacked,
)


@pytest.fixture
def api(docker_daemon: str) -> Iterator[Api]:
    with api_closed(connect(docker_daemon)) as made:
        yield made


# other images


@pytest.fixture(scope="module")
def bare_image(docker_daemon: str) -> Iterator[str]:
    """An image without a shell or a library: one static executable, which is what it serves."""
    name = "testbed-test-bare:1"
    with api_closed(connect(docker_daemon)) as api:
        machine = api.info()["Architecture"]
        serve = archive({"serve": holder_elf(machine), "etc/marker": b"bare"})
        context = archive({"Dockerfile": DOCKERFILE, "content.tar": serve})
        for line in api.build(fileobj=io.BytesIO(context), custom_context=True, tag=name, rm=True, decode=True):
            assert "error" not in line, line
        yield name
        api.remove_image(name, force=True)


DOCKERFILE = b"""FROM scratch
ADD content.tar /
ENV FROM_THE_IMAGE=yes
HEALTHCHECK --interval=1s CMD ["/serve"]
ENTRYPOINT ["/serve"]
"""


def test_an_image_without_shell_or_library_can_be_a_host(docker_daemon: str, bare_image: str) -> None:
    plan = make_plan({"bare": "a", "ours": "a"}, 114)
    bare, ours = plan.hosts
    plan = replace(plan, hosts=(replace(bare, image=bare_image), ours))
    with lab(docker_daemon, plan) as made:
        assert inspect(made, "-bare")["Path"] == FOREIGN_HOLD
        process, _, _ = made.start("bare", "/serve", working_dir="/")
        assert made.agent.signal("bare", process.pid, "KILL") == [process.pid]
        assert process.wait(10) and process.exit == "SIGKILL"
        content = unpacked(made.engine.get("bare", "/etc/hosts"))["hosts"]
        assert content is not None and f"{made.ip('bare')}\tbare\n".encode() in content
        with pytest.raises(CommandNotFound):
            made.run("bare", "sh", working_dir="/")


def test_an_image_says_what_it_serves_and_does_not_begin_with_it(docker_daemon: str, bare_image: str) -> None:
    plan = make_plan({"bare": "a"}, 115, image=bare_image, programs=())
    with lab(docker_daemon, plan) as made:
        found = inspect(made, "-bare")
        assert found["Path"] == FOREIGN_HOLD and found["Args"] == [] and "Health" not in found["State"]
        assert made.engine.images(plan) == {"bare": Image(bare_image, ("/serve",), "/", DEFAULT_PATH, "SIGTERM")}
        process, _, _ = made.start("bare", "/serve", working_dir="/", environment={})
        assert made.agent.signal("bare", process.pid, "TERM") == [process.pid]
        assert process.wait(10) and process.exit == "SIGTERM"


def test_a_host_can_be_built_from_a_directory_beside_the_scenario(
    docker_daemon: str, api: Api, tmp_path: Path
) -> None:
    files = {
        "Dockerfile": f"FROM {node_tag(api)}\nCOPY greeting /greeting\nCOPY . /all\nENV TONE=polite\n",
        "greeting": "good morning\n",
        ".dockerignore": "# not sent\nsecret*\n",
        "secret.txt": "never sent\n",
    }
    (tmp_path / "image").mkdir()
    for name, text in files.items():
        (tmp_path / "image" / name).write_text(text)
    with lab(docker_daemon, make_plan({"h": "a"}, 117, build="image"), project=Project.around(tmp_path)) as made:
        assert made.run("h", "cat", "/greeting").out == "good morning\n"
        assert made.run("h", "ls", "/all").out.split() == ["Dockerfile", "greeting"]
        assert "TONE=polite" in made.run("h", "env").out, "an image of the author's own keeps its environment"
        assert made.run("h", "sh", "-c", "echo mine > /greeting").exit == 0, "and may write where it is used to"
        assert made.run("h", "truncate", "-s", "2G", "/large").exit == "SIGXFSZ", "but no file that fills a disk"


def test_nothing_outside_the_scenarios_directory_is_built_or_sent(
    docker_daemon: str, api: Api, tmp_path: Path
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("secret")
    (tmp_path / "outside" / "Dockerfile").write_text(f"FROM {node_tag(api)}\nCOPY . /all\n")
    beside = tmp_path / "scenario"
    (beside / "image").mkdir(parents=True)
    (beside / "link").symlink_to("../outside")
    (beside / "image" / "Dockerfile").write_text(f"FROM {node_tag(api)}\nCOPY . /all\n")
    (beside / "image" / "link").symlink_to("../../outside/secret")
    with (
        pytest.raises(HostError, match="leads out of the project"),
        lab(docker_daemon, make_plan({"h": "a"}, 117, build="link"), project=Project.around(beside)),
    ):
        pass
    with lab(docker_daemon, make_plan({"h": "a"}, 117, build="image"), project=Project.around(beside)) as made:
        assert made.run("h", "cat", "/all/link").exit == 1, "a link in what is sent stays a link"


@pytest.mark.parametrize(
    ("more", "why"),
    [({"image": "localhost:1/no/such:1"}, r"pulling localhost:1/no/such:1: .*docker load"),
     ({"build": "."}, "there is no Dockerfile")],
)  # fmt: skip
def test_an_image_that_cannot_be_had_is_the_machine_owners_to_mend(
    docker_daemon: str, tmp_path: Path, more: dict[str, str], why: str
) -> None:
    plan = make_plan({"h": "a"}, 118, None, **more)
    with pytest.raises(HostError, match=why), lab(docker_daemon, plan, project=Project.around(tmp_path)):
        pass
    assert mine(docker_daemon) == []


def mine(docker_host: str) -> list[str]:
    """What runs of this process have in the daemon."""
    with api_closed(connect(docker_host)) as api:
        return [str(f) for f in docker_owner.find(api) if f.labels[docker_owner.PID] == str(os.getpid())]


def node_tag(api: Api) -> str:
    return node_image(api, lambda _: None)
