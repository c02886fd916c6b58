"""What the tests of images share: a wheelhouse, and one small image that is built once."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from repro.image import image_name
from repro.image_build import BuildOptions, build
from tests.container.image.workspaces import OTHERS, PACKAGES, forget, locked, make_workspace


@pytest.fixture(scope="session")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the packages that small images are made of."""
    folder = tmp_path_factory.mktemp("wheelhouse")
    lock = folder.with_name(folder.name + ".txt")
    lock.write_text(locked([*PACKAGES, *OTHERS]))
    subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes",
                    "--requirement", lock, "--dest", folder], check=True)
    return folder


@pytest.fixture(scope="session")
def options(base: str, wheelhouse: Path) -> BuildOptions:
    """How small images are built: from the wheelhouse, without any network."""
    return BuildOptions(base=base, wheelhouse=wheelhouse, network="none")


@pytest.fixture(scope="session")
def built(engine: docker.DockerClient, options: BuildOptions, tmp_path_factory: pytest.TempPathFactory
          ) -> Iterator[Path]:
    """A workspace whose image is built, with docker/contents.json as the build wrote it."""
    root = make_workspace(tmp_path_factory.mktemp("built") / "workspace", locked(PACKAGES))
    build(root, engine, options)
    yield root
    forget(engine, image_name(root))


@pytest.fixture(scope="session")
def other(engine: docker.DockerClient, options: BuildOptions, tmp_path_factory: pytest.TempPathFactory
          ) -> Iterator[Path]:
    """A workspace whose image has other packages."""
    root = make_workspace(tmp_path_factory.mktemp("other") / "workspace", locked(["idna", "setuptools", "shortuuid"]))
    build(root, engine, options)
    yield root
    forget(engine, image_name(root))
