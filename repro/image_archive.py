"""`repro image save` and `load`: the image of a workspace as one file, for machines without a registry."""

from pathlib import Path

import docker
from docker.errors import APIError, ImageLoadError

from repblend.store import atomic_path, sha256
from repro.image import find_image, image_name
from repro.image_adopt import adopt


def save(root: Path, client: docker.DockerClient, target: Path) -> str:
    """Write the image of a workspace to a file that `load` takes; return the file's SHA-256.

    Raises:
        ValueError: there is no image yet.
        OSError: the disk is full; nothing is left of the file.
    """
    with atomic_path(target) as aside:
        write_docker_archive(client, image_name(root), aside)
        return sha256(aside)


def load(root: Path, client: docker.DockerClient, source: Path) -> str:
    """Load a file that `save` wrote and make it the image of the workspace; return what is to be said about it.

    The image's id is a hash of all that is in it: the engine checks the file's layers against it.

    Raises:
        ValueError: the file is missing, damaged or no such archive, or the image is not made of what
            docker/contents.json says; then no name points to it.
    """
    try:
        with source.open("rb") as archive:
            image, = client.images.load(archive)
    except OSError as error:
        raise ValueError(f"{source}: cannot be read ({error.strerror}). Expected a file that `repro image save` wrote"
                         ) from error
    except (APIError, ImageLoadError, ValueError) as error:
        raise ValueError(f"{source}: the engine does not take it ({error}). Expected a file that `repro image save` "
                         "wrote. Compare its SHA-256 with the one printed then, and copy it again") from error
    return adopt(root, client, image.id)


def write_docker_archive(client: docker.DockerClient, image: str, target: Path) -> None:
    """Write an image to a file in the form of `docker save`, without a name: whoever loads it checks before naming it.

    Raises:
        ValueError: the engine has no such image.
    """
    chunks = find_image(client, image).save()
    with target.open("wb") as archive:
        for chunk in chunks:
            archive.write(chunk)
