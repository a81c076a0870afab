"""The image is built and run: each step of the Dockerfile as it is written, and then the worker that is in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from support import Shop
from support.containers import DOCKERFILE, Container, ImageBuild

pytestmark = [pytest.mark.image, pytest.mark.timeout(900)]

Start = Callable[..., Container]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory, no_containers: str | None) -> Path:
    """What the image adds to this host."""
    if no_containers:
        pytest.skip(no_containers)
    return ImageBuild(tmp_path_factory.mktemp("image")).top


def test_the_image_holds_the_worker_its_extras_and_nothing_of_how_it_was_made(image: Path) -> None:
    found = {str(path.relative_to(image)) for path in image.rglob("*")}
    packages = {path.name for path in image.glob("opt/qworker/lib/python3*/site-packages/*")}
    assert {"qworker", "boto3", "hiredis", "psutil"} <= packages
    assert "usr/local/bin/qworker-entrypoint" in found
    left = {name for name in found if name.startswith(("src", "wheels", "root", "var/cache", "var/lib/apt", "tmp/"))}
    assert {name for name in left if (image / name).is_file()} == set()
    assert {name for name in found if "/tests/" in name and "/qworker/tests" in name} == set()
    assert "qworker:x:10001:0:" in (image / "etc/passwd").read_text()


def test_the_worker_of_the_image_runs_tasks_and_is_stopped(image: Path, worker: Start, shop: Shop) -> None:
    container = worker(image=image).wait_ready()
    assert shop.task("add").delay(20, 22).get(timeout=20) == 42
    where = container.run("python", "-c", "import qworker; print(qworker.__file__)").stdout
    assert where.startswith("/opt/qworker/lib/python3")
    container.stop()
    assert container.wait() == 0


def test_an_image_without_extras_can_be_built(tmp_path: Path, no_containers: str | None) -> None:
    if no_containers:
        pytest.skip(no_containers)
    assert "ARG EXTRAS=sqs" in DOCKERFILE.read_text("utf-8")
    top = ImageBuild(tmp_path, EXTRAS="").top
    assert (top / "opt/qworker/bin/qworker").exists()
    assert list(top.glob("opt/qworker/lib/python3*/site-packages/boto3")) == []
