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
import psutil
import pytest

from repblend.store import atomic_path
from repro.engines.client import NoEngine, connect
from repro.image.build import BASE_NAME, make_base
from tests.container.toy import Toy, build_image

PATIENCE_S = 60
IN_MEMORY = Path("/dev/shm")
MEMORY_NEEDED = 6 * 2**30
"""For the images of all tests but those of the whole image."""


def unavailable(reason: str) -> None:
    """Skip where a newcomer may have no engine; in CI that is a failure."""
    if os.environ.get("CI"):
        pytest.fail(f"CI needs a Docker engine: {reason}")
    pytest.skip(f"no Docker engine: {reason}")


@pytest.fixture(scope="session")
def fast_folder(request: pytest.FixtureRequest) -> str | None:
    """A folder in memory for an engine and its base image, if there is room; None: wherever temporary files lie."""
    if not IN_MEMORY.is_dir() or request.config.getoption("markexpr") == "image":
        return None
    found = os.statvfs(IN_MEMORY)
    fits = not found.f_flag & (os.ST_NODEV | os.ST_NOEXEC) and min(
        found.f_bavail * found.f_frsize, psutil.virtual_memory().available) > MEMORY_NEEDED
    return str(IN_MEMORY) if fits else None


@pytest.fixture(scope="session")
def engine(fast_folder: str | None) -> Iterator[docker.DockerClient]:
    """A client of a running engine; `DOCKER_HOST` names it."""
    try:
        yield connect()
        return
    except NoEngine as error:
        if not shutil.which("dockerd") or os.getuid() != 0:
            unavailable(str(error))
    with short_folder(fast_folder) as folder:
        process = start_engine(folder)
        os.environ["DOCKER_HOST"] = f"unix://{folder}/docker.sock"
        try:
            yield wait_for_engine(process, folder / "log")
        finally:
            del os.environ["DOCKER_HOST"]
            process.terminate()
            process.wait()


@contextlib.contextmanager
def short_folder(within: str | None = None) -> Iterator[Path]:
    """A folder for an engine: its sockets' paths may have 107 characters, and pytest's own folders are long."""
    with tempfile.TemporaryDirectory(prefix="engine-", dir=within, ignore_cleanup_errors=True) as folder:
        try:
            yield Path(folder)
        finally:
            unmount_below(Path(folder))


def unmount_below(folder: Path) -> None:
    """Unmount what an engine left mounted, or its folder could not be removed: it may be a gigabyte of memory."""
    mounted = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for point in sorted((point for point in mounted if Path(point).is_relative_to(folder)), reverse=True):
        subprocess.run(["umount", "--lazy", point], check=True)


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
def base(engine: docker.DockerClient, fast_folder: str | None, request: pytest.FixtureRequest) -> str:
    """The name of a base image: the one that the engine has, that of an earlier session, or one that is made now (a
    minute) and kept in pytest's cache.
    """
    kept = Path(request.config.cache.mkdir("base-image")) / "image.tar"
    if engine.images.list(BASE_NAME):
        return BASE_NAME
    if kept.exists():
        with kept.open("rb") as archive:
            engine.images.load(archive)
        return BASE_NAME
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", fast_folder)
        try:
            make_base(engine)
        except ValueError as error:
            unavailable(f"no base image: {error}")
    with atomic_path(kept) as aside, aside.open("wb") as archive:
        archive.writelines(engine.images.get(BASE_NAME).save(named=BASE_NAME))
    return BASE_NAME


@pytest.fixture(scope="session")
def toy_image(engine: docker.DockerClient, base: str) -> Iterator[docker.models.images.Image]:
    """The image of every `Toy`."""
    image = build_image(engine)
    yield image
    engine.images.remove(image.id, force=True)


@pytest.fixture(scope="session")
def toy_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What every `Toy` is a copy of."""
    return Toy.make(tmp_path_factory.mktemp("template") / "toy")


@pytest.fixture(scope="session")
def prepared_template(toy_template: Path) -> Path:
    """A copy of it whose stage `prepare` has run: a container less for everyone who is not about that stage."""
    folder = Path(shutil.copytree(toy_template, toy_template.with_name("prepared")))
    Toy(folder).dvc("repro", "--quiet", "prepare")
    return folder


@pytest.fixture
def new_toy(toy_image: docker.models.images.Image, toy_template: Path, tmp_path: Path, engine: docker.DockerClient
            ) -> Iterator[Toy]:
    """A workspace in a folder with spaces, in which nothing has run; nothing of it may be left in the engine."""
    yield from _copied(toy_template, tmp_path, engine)


@pytest.fixture
def toy(toy_image: docker.models.images.Image, prepared_template: Path, tmp_path: Path, engine: docker.DockerClient
        ) -> Iterator[Toy]:
    """The same after stage `prepare`."""
    yield from _copied(prepared_template, tmp_path, engine)


def _copied(template: Path, folder: Path, engine: docker.DockerClient) -> Iterator[Toy]:
    workspace = Toy(Path(shutil.copytree(template, folder / "a toy")))
    yield workspace
    left = workspace.containers(engine)
    for container in left:
        container.remove(force=True)
    assert left == []
