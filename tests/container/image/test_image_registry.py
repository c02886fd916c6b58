"""Pushing to and pulling from a real registry, on loopback."""

import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from docker.errors import ImageNotFound

from repro.image.contents import image_contents, image_name
from repro.image.transfer import pull, push
from tests.container.conftest import unavailable
from tests.container.image.workspaces import forget

CONFIGURATION = """
version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {folder}}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a registry of its own, which the engine may talk to without TLS because it is on loopback."""
    program = shutil.which("docker-registry") or shutil.which("registry")
    if not program:
        unavailable("no docker-registry to push to (apt-get install docker-registry)")
    folder = tmp_path_factory.mktemp("registry")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    (folder / "config.yml").write_text(CONFIGURATION.format(folder=folder / "data", port=port))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program, "serve", folder / "config.yml"], stdout=log, stderr=log)
    try:
        wait_for(f"http://127.0.0.1:{port}/v2/", folder / "log")
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def wait_for(address: str, log: Path) -> None:
    for _ in range(100):
        try:
            with urllib.request.urlopen(address):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"{address} does not answer:\n{log.read_text()}")


def names(engine: docker.DockerClient, image: str) -> list[str]:
    found = engine.images.get(image)
    return found.tags + found.attrs["RepoDigests"]


def test_an_image_comes_back_by_its_digest(built: Path, engine: docker.DockerClient, registry: str) -> None:
    name = image_name(built)
    before = engine.images.get(name).id
    reference = push(built, engine, f"{registry}/some/place:v1")
    assert reference.startswith(f"{registry}/some/place@sha256:")
    forget(engine, name)
    with pytest.raises(ImageNotFound):
        engine.images.get(before)
    said = pull(built, engine, reference)
    assert said == f"{name} is now {reference}. It is made of what docker/contents.json says."
    assert engine.images.get(name).id == before
    assert image_contents(engine, name) == (built / "docker/contents.json").read_bytes()


def test_without_a_tag_it_is_the_latest(built: Path, engine: docker.DockerClient, registry: str) -> None:
    push(built, engine, f"{registry}/plain")
    assert f"{registry}/plain:latest" in names(engine, image_name(built))


def test_an_image_with_other_contents_gets_no_name(built: Path, other: Path, engine: docker.DockerClient, registry: str
                                                   ) -> None:
    reference, before = push(other, engine, f"{registry}/other"), engine.images.get(image_name(built)).id
    with pytest.raises(ValueError, match=r"is not made of what .*shortuuid absent -> 1.0.13"):
        pull(built, engine, reference)
    assert engine.images.get(image_name(built)).id == before


def test_a_workspace_without_contents_takes_those_of_the_image(built: Path, engine: docker.DockerClient, registry: str,
                                                               tmp_path: Path) -> None:
    fresh = shutil.copytree(built, tmp_path / "fresh")
    (fresh / "docker/contents.json").unlink()
    assert "docker/contents.json: written" in pull(fresh, engine, push(built, engine, f"{registry}/some/place"))
    assert (fresh / "docker/contents.json").read_bytes() == (built / "docker/contents.json").read_bytes()


@pytest.mark.parametrize("reference", ["repblend", "example.org/repblend:latest", "example.org/repblend@sha256:12"])
def test_a_reference_without_a_digest_is_refused(reference: str, built: Path, engine: docker.DockerClient) -> None:
    with pytest.raises(ValueError, match=f"{reference}: expected REGISTRY/REPOSITORY@sha256:DIGEST, as `repro image"):
        pull(built, engine, reference)


def test_a_digest_is_no_place_to_push_to(built: Path, engine: docker.DockerClient) -> None:
    with pytest.raises(ValueError, match="the digest comes out of the push"):
        push(built, engine, f"example.org/repblend@sha256:{'0' * 64}")


def test_a_digest_that_the_registry_lacks_is_named(built: Path, engine: docker.DockerClient, registry: str) -> None:
    absent = f"{registry}/some/place@sha256:{'0' * 64}"
    with pytest.raises(ValueError, match=f"{absent}: .*Is the registry within reach"):
        pull(built, engine, absent)


def test_a_registry_that_is_not_there_is_named(built: Path, engine: docker.DockerClient) -> None:
    with pytest.raises(ValueError, match=r"127.0.0.1:9/repblend:latest: .*Is the registry within reach"):
        push(built, engine, "127.0.0.1:9/repblend")


def test_pushing_before_building_says_what_to_do(engine: docker.DockerClient, tmp_path: Path) -> None:
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements/lock.txt").write_text("nothing==1\n")
    with pytest.raises(ValueError, match=r"the engine has no such image. Make it with `repro image build`"):
        push(tmp_path, engine, "example.org/repblend")
