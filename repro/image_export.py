"""`repro image export`: the image of a workspace as an OCI archive, which Apptainer builds its images from.

An OCI archive is a tar file of an image layout: every part is a blob named by its SHA-256, `index.json` points to the
manifest, and that to the configuration and the layers (github.com/opencontainers/image-spec, image-layout.md).
"""

import hashlib
import io
import json
import tarfile
import tempfile
from pathlib import Path
from typing import IO

import docker

from repblend.store import JSON, atomic_path
from repro.image import image_name
from repro.image_archive import write_docker_archive

MEDIA_TYPE = "application/vnd.oci.image."


def export(root: Path, client: docker.DockerClient, target: Path) -> None:
    """Write the image of a workspace to an OCI archive. Needs twice the image's size on the target's disk meanwhile.

    Raises:
        ValueError: there is no image yet.
    """
    name = image_name(root)
    with atomic_path(target) as aside, tempfile.NamedTemporaryFile(dir=aside.parent, prefix=".export-") as saved:
        write_docker_archive(client, name, Path(saved.name))
        convert(Path(saved.name), aside, tag=name.split(":")[1])


def convert(docker_archive: Path, oci_archive: Path, tag: str) -> None:
    """Write the one image of a docker archive as an OCI archive.

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
