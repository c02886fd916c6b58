"""`repro image push` and `pull`: the image of a workspace in a registry, named by the digest of its content."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import docker
from docker.errors import APIError

from repro.image import find_image, image_name
from repro.image_adopt import adopt

DIGEST_REFERENCE = re.compile(r"^(?P<repository>\S+)@(?P<digest>sha256:[0-9a-f]{64})$")
PORT = re.compile(r":(?=[^/]*$)")
"""The colon before a tag; one before a slash belongs to a port."""
DEFAULT_TAG = "latest"


def push(root: Path, client: docker.DockerClient, reference: str) -> str:
    """Push the image of a workspace to a registry; return the reference to pull, which has its digest.

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
    """Pull an image by digest and make it the image of the workspace; return what is to be said about it.

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
