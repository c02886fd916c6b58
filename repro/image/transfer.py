"""Move the image of a clone between machines: through a registry, as one file, or as an OCI archive for Apptainer.

In a registry an image is named by the digest of its content. Whatever comes from elsewhere is compared with
docker/contents.json before it gets the clone's name.
"""

import hashlib
import io
import json
import re
import tarfile
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO

import docker
from docker.errors import APIError, ImageLoadError

from repblend.store import JSON, atomic_path, sha256
from repro.image.contents import adopt, find_image, image_name

DIGEST_REFERENCE = re.compile(r"^(?P<repository>\S+)@(?P<digest>sha256:[0-9a-f]{64})$")
PORT = re.compile(r":(?=[^/]*$)")
"""The colon before a tag; one before a slash belongs to a port."""
DEFAULT_TAG = "latest"
MEDIA_TYPE = "application/vnd.oci.image."


# A registry: `repro image push` and `repro image pull`.


def push(root: Path, client: docker.DockerClient, reference: str) -> str:
    """Push the image of a clone to a registry; return the reference to pull, which has its digest.

    Args:
        reference: REGISTRY/REPOSITORY[:TAG].

    Raises:
        ValueError: there is no image yet, or the registry refused it.
    """
    if "@" in reference:
        raise ValueError(f"{reference}: expected REGISTRY/REPOSITORY[:TAG]; the digest comes out of the push")
    repository, tag = (*PORT.split(reference), DEFAULT_TAG)[:2]
    find_image(client, image_name(root)).tag(repository, tag)
    said = _follow(client.api.push(repository, tag, stream=True, decode=True), f"{repository}:{tag}")
    digest = next(message["aux"]["Digest"] for message in said if "Digest" in message.get("aux", {}))
    return f"{repository}@{digest}"


def pull(root: Path, client: docker.DockerClient, reference: str) -> str:
    """Pull an image by digest and make it the image of the clone; return what is to be said about it.

    Args:
        reference: REGISTRY/REPOSITORY@sha256:DIGEST. A tag would not do: it may mean another image tomorrow.

    Raises:
        ValueError: the reference has no digest, the registry has no such image, or the image is not made of what
            docker/contents.json says; then no name points to it.
    """
    found = DIGEST_REFERENCE.match(reference)
    if not found:
        raise ValueError(f"{reference}: expected REGISTRY/REPOSITORY@sha256:DIGEST, as `repro image push` printed it")
    try:
        _follow(client.api.pull(found["repository"], found["digest"], stream=True, decode=True), reference)
    except APIError as error:
        raise _refusal(reference, error.explanation) from error
    return adopt(root, client, reference)


def _follow(log: Iterable[Mapping], reference: str) -> list[Mapping]:
    """Print what a registry says, but for its progress bars; return all of it."""
    messages = []
    for message in log:
        if "error" in message:
            raise _refusal(reference, message["error"])
        if "status" in message and "progressDetail" not in message:
            print(message["status"], flush=True)
        messages.append(message)
    return messages


def _refusal(reference: str, reason: str) -> ValueError:
    return ValueError(f"{reference}: {reason}. Is the registry within reach, the name right, and are you logged in "
                      "(`docker login`)?")


# One file, for machines without a registry: `repro image save` and `repro image load`.


def save(root: Path, client: docker.DockerClient, target: Path) -> str:
    """Write the image of a clone to a file that `load` takes; return the file's SHA-256.

    Raises:
        ValueError: there is no image yet.
        OSError: the disk is full; nothing is left of the file.
    """
    with atomic_path(target) as aside:
        write_docker_archive(client, image_name(root), aside)
        return sha256(aside)


def load(root: Path, client: docker.DockerClient, source: Path) -> str:
    """Load a file that `save` wrote and make it the image of the clone; return what is to be said about it.

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


# An OCI archive, which Apptainer builds its images from: `repro image export`.


def export(root: Path, client: docker.DockerClient, target: Path) -> None:
    """Write the image of a clone to an OCI archive. Needs twice the image's size on the target's disk meanwhile.

    Raises:
        ValueError: there is no image yet.
    """
    name = image_name(root)
    with atomic_path(target) as aside, tempfile.NamedTemporaryFile(dir=aside.parent, prefix=".export-") as saved:
        write_docker_archive(client, name, Path(saved.name))
        convert(Path(saved.name), aside, tag=name.split(":")[1])


def convert(docker_archive: Path, oci_archive: Path, tag: str) -> None:
    """Write the one image of a docker archive as an OCI archive: a tar file of an image layout. Every part is a blob
    named by its SHA-256; `index.json` points to the manifest, and that to the configuration and the layers
    (github.com/opencontainers/image-spec, image-layout.md).

    Args:
        tag: how the index calls it.
    """
    with tarfile.open(docker_archive) as source, tarfile.open(oci_archive, "w") as target:
        image, = json.load(source.extractfile("manifest.json"))
        config = _add_blob(target, source.extractfile(image["Config"]), "config.v1+json")
        layers = [_add_blob(target, source.extractfile(layer), "layer.v1.tar") for layer in image["Layers"]]
        manifest = _add_blob(target, _json({"schemaVersion": 2, "mediaType": f"{MEDIA_TYPE}manifest.v1+json",
                                            "config": config, "layers": layers}), "manifest.v1+json")
        manifest["annotations"] = {"org.opencontainers.image.ref.name": tag}
        _add(target, "index.json", _json({"schemaVersion": 2, "manifests": [manifest]}))
        _add(target, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))


def _add_blob(target: tarfile.TarFile, content: IO[bytes], kind: str) -> JSON:
    """Add a blob under its hash; return the descriptor by which others point to it."""
    digest = hashlib.file_digest(content, "sha256").hexdigest()
    size = _add(target, f"blobs/sha256/{digest}", content)
    return {"mediaType": MEDIA_TYPE + kind, "digest": f"sha256:{digest}", "size": size}


def _add(target: tarfile.TarFile, name: str, content: IO[bytes]) -> int:
    entry = tarfile.TarInfo(name)
    entry.size = content.seek(0, io.SEEK_END)
    content.seek(0)
    target.addfile(entry, content)
    return entry.size


def _json(value: JSON) -> IO[bytes]:
    return io.BytesIO(json.dumps(value, sort_keys=True).encode())
