"""A real Docker engine for the tests in this folder: the one that answers, or one that is started for them."""

import contextlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from repro.engine import NoEngine, connect
from repro.image_base import BASE_NAME, make_base
from tests.container.toy import Toy, build_image

PATIENCE_S = 60


def unavailable(reason: str) -> None:
    """Skip where a newcomer may have no engine; in CI that is a failure."""
    if os.environ.get("CI"):
        pytest.fail(f"CI needs a Docker engine: {reason}")
    pytest.skip(f"no Docker engine: {reason}")


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    """A client of a running engine; `DOCKER_HOST` names it."""
    try:
        yield connect()
        return
    except NoEngine as error:
        if not shutil.which("dockerd") or os.getuid() != 0:
            unavailable(str(error))
    with short_folder() as folder:
        process = start_engine(folder)
        os.environ["DOCKER_HOST"] = f"unix://{folder}/docker.sock"
        try:
            yield wait_for_engine(process, folder / "log")
        finally:
            del os.environ["DOCKER_HOST"]
            process.terminate()
            process.wait()


@contextlib.contextmanager
def short_folder() -> Iterator[Path]:
    """A folder for an engine: its sockets' paths may have 107 characters, and pytest's own folders are long."""
    with tempfile.TemporaryDirectory(prefix="engine-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def start_engine(folder: Path) -> subprocess.Popen:
    """Start an engine whose images and containers lie in a folder; containers have the host's network or none."""
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(
            ["dockerd", "--data-root", folder / "data", "--exec-root", folder / "exec", "--pidfile", folder / "d.pid",
             "-H", f"unix://{folder}/docker.sock", "--iptables=false", "--bridge=none"],
            stdout=log, stderr=log, start_new_session=True)


def wait_for_engine(process: subprocess.Popen, log: Path) -> docker.DockerClient:
    """Return a client as soon as the engine answers."""
    deadline = time.monotonic() + PATIENCE_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            return connect()
        except NoEngine:
            time.sleep(0.2)
    raise AssertionError(f"the engine did not start:\n{log.read_text()[-2000:]}")


@pytest.fixture(scope="session")
def base(engine: docker.DockerClient) -> str:
    """The name of a base image: the one that the engine has, or one that is made (a minute)."""
    if not engine.images.list(BASE_NAME):
        try:
            make_base(engine)
        except ValueError as error:
            unavailable(f"no base image: {error}")
    return BASE_NAME


@pytest.fixture(scope="session")
def toy_image(engine: docker.DockerClient, base: str) -> Iterator[docker.models.images.Image]:
    """The image of every `Toy`."""
    image = build_image(engine)
    yield image
    engine.images.remove(image.id, force=True)


@pytest.fixture
def toy(toy_image: docker.models.images.Image, tmp_path: Path, engine: docker.DockerClient) -> Iterator[Toy]:
    """A workspace in a folder with spaces; nothing of it may be left in the engine."""
    workspace = Toy.create(tmp_path / "a toy")
    yield workspace
    left = workspace.containers(engine)
    for container in left:
        container.remove(force=True)
    assert left == []
