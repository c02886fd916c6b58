"""What the tests of images share: a wheelhouse, and one small image that is built once."""

import contextlib
import io
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import docker
import pytest

from repro.image.build import BuildOptions, build
from repro.image.contents import image_name
from tests.container.image.workspaces import OTHER_PACKAGES, PACKAGES, forget, locked, make_workspace


@pytest.fixture(scope="session")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the packages that small images are made of."""
    folder = tmp_path_factory.mktemp("wheelhouse")
    lock = folder.with_name(folder.name + ".txt")
    lock.write_text(locked({*PACKAGES, *OTHER_PACKAGES}))
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


@dataclass(frozen=True)
class OtherBuild:
    """What a build on other packages, with an authority of one's own, printed and left."""

    root: Path
    printed: str
    certificate: Path


@pytest.fixture(scope="session")
def other_build(engine: docker.DockerClient, options: BuildOptions, built: Path,
                tmp_path_factory: pytest.TempPathFactory) -> Iterator[OtherBuild]:
    folder = tmp_path_factory.mktemp("other")
    root, certificate = make_workspace(folder / "workspace", locked(OTHER_PACKAGES)), folder / "authorities/ours.crt"
    shutil.copyfile(built / "docker/contents.json", root / "docker/contents.json")
    certificate.parent.mkdir()
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=an-authority-of-ours",
                    "-keyout", folder / "key", "-out", certificate], check=True, capture_output=True)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        build(root, engine, replace(options, authorities=certificate.parent))
    yield OtherBuild(root, printed.getvalue(), certificate)
    forget(engine, image_name(root))


@pytest.fixture
def other(other_build: OtherBuild) -> Path:
    """A workspace whose image has other packages."""
    return other_build.root
