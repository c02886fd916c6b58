"""`repro image inspect`: what an image is made of, in short, and what its size is made of."""

import json
from pathlib import Path

import docker
from docker.models.images import Image

from repro.image import find_image, image_contents, image_name

MB = 1e6
LARGEST = 10
"""Distributions that are listed."""
COMMAND_SHOWN = 80
"""Characters of a layer's command that are shown."""


def inspect(root: Path, client: docker.DockerClient) -> str:
    """Return some lines about the image of a workspace. Sizes are of files, uncompressed, in units of 10**6 bytes.

    Raises:
        ValueError: there is no image yet.
    """
    name = image_name(root)
    image = find_image(client, name)
    contents = json.loads(image_contents(client, name))
    lines = [f"{name}  {image.id}", f"size {image.attrs['Size'] / MB:.1f} MB, user {image.attrs['Config']['User']}",
             f"Python {contents['python']}, {len(contents['debian'])} Debian packages, "
             f"{len(contents['distributions'])} distributions", "", "labels:"]
    lines += [f"  {key}  {value}" for key, value in sorted(image.labels.items())]
    return "\n".join([*lines, "", "layers (MB):", *_layers(image), "", f"largest distributions (MB), of "
                      f"{_total(contents['distributions']):.1f} in all:", *_largest(contents["distributions"])])


def _layers(image: Image) -> list[str]:
    return [f"{layer['Size'] / MB:10.1f}  {' '.join(layer['CreatedBy'].split())[:COMMAND_SHOWN] or 'the base'}"
            for layer in reversed(image.history()) if layer["Size"]]


def _total(distributions: dict[str, dict]) -> float:
    return sum(found["bytes"] for found in distributions.values()) / MB


def _largest(distributions: dict[str, dict]) -> list[str]:
    by_size = sorted(distributions.items(), key=lambda item: (-item[1]["bytes"], item[0]))
    return [f"{found['bytes'] / MB:10.1f}  {name} {found['version']}" for name, found in by_size[:LARGEST]]
