"""Making an image that came from elsewhere the image of a workspace: checked first, named afterwards."""

from pathlib import Path

import docker

from repro.image import CONTENTS, check_contents, image_contents, image_name, record_contents


def adopt(root: Path, client: docker.DockerClient, image: str) -> str:
    """Give an image the workspace's name if it is made of what docker/contents.json says; return what became of it.

    A workspace without that file takes over what the image says.

    Raises:
        ValueError: it is made of something else. The workspace's name stays where it was.
    """
    if (root / CONTENTS).is_file():
        check_contents(root, client, image)
        said = f"It is made of what {CONTENTS} says."
    else:
        said = record_contents(root, image_contents(client, image))
    client.images.get(image).tag(*image_name(root).split(":"))
    return f"{image_name(root)} is now {image}. {said}"
