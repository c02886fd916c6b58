"""What the image of a clone is made of: its name, its contents, and whether the results are made with these.

An image says what it is made of in a file of its own (docker/contents.py writes it). The clone keeps a copy in
docker/contents.json, in git: a rebuilt image with the same contents changes nothing, one with others is another input.
"""

import io
import json
import tarfile
from pathlib import Path

import docker
from docker.errors import ImageNotFound, NotFound
from docker.models.images import Image

from repblend.store import atomic_path, sha256

LOCK = Path("requirements/lock.txt")
CONTENTS = Path("docker/contents.json")
CONTENTS_IN_IMAGE = "/opt/repblend/contents.json"
SHOWN = 10
"""Differences that a message names."""
MB = 1e6
LARGEST = 10
"""Distributions that `inspect` lists."""
COMMAND_SHOWN = 80
"""Characters of a layer's command that `inspect` shows."""


def image_name(root: Path) -> str:
    """Return the name of the image that has the packages of this clone's lock file."""
    return f"repblend:{sha256(root / LOCK)[:12]}"


def find_image(client: docker.DockerClient, image: str) -> Image:
    """Return an image that the engine has, by name, digest or id.

    Raises:
        ValueError: it has none of that name.
    """
    try:
        return client.images.get(image)
    except ImageNotFound as error:
        raise ValueError(f"{image}: the engine has no such image. Make it with `repro image build`, or bring it with "
                         "`repro image pull` or `repro image load`") from error


def image_contents(client: docker.DockerClient, image: str) -> bytes:
    """Return the file in which an image says what it is made of. Nothing runs for that.

    Args:
        image: a name, digest or id.

    Raises:
        ValueError: there is no such image, or it is none of ours.
    """
    container = client.containers.create(find_image(client, image), "never started", network_mode="none")
    try:
        chunks, _ = container.get_archive(CONTENTS_IN_IMAGE)
        archive = b"".join(chunks)
    except NotFound as error:
        raise ValueError(f"{image}: expected {CONTENTS_IN_IMAGE} in it. It is no image of this project; make one with "
                         "`repro image build`") from error
    finally:
        container.remove()
    with tarfile.open(fileobj=io.BytesIO(archive)) as members:
        return members.extractfile(Path(CONTENTS_IN_IMAGE).name).read()


def check_contents(root: Path, client: docker.DockerClient, image: str) -> None:
    """Check that an image is made of what docker/contents.json of the clone says.

    Raises:
        ValueError: it is not, or one of the two is missing; the message names what differs.
    """
    expected = root / CONTENTS
    if not expected.is_file():
        raise ValueError(f"{expected}: missing, so nobody can say whether {image} is the image to use. Write it with "
                         "`repro image build`, or bring it back with `git checkout`")
    compare_contents(expected, image, image_contents(client, image))


def compare_contents(expected: Path, image: str, found: bytes) -> None:
    """Check what an image says of itself against a clone's docker/contents.json; raises `ValueError` as
    `check_contents`.
    """
    if found != expected.read_bytes():
        raise ValueError(f"{image} is not made of what {expected} says ({listed(expected.read_bytes(), found)}). Bring "
                         "the image that belongs to this commit with `repro image pull` or `repro image load`, or "
                         "adopt this one with `repro image build`: the stages computed with the other will run again")


def adopt(root: Path, client: docker.DockerClient, image: str) -> str:
    """Give an image the clone's name if it is made of what docker/contents.json says; return what became of it.

    A clone without that file takes over what the image says.

    Raises:
        ValueError: it is made of something else. The clone's name stays where it was.
    """
    if (root / CONTENTS).is_file():
        check_contents(root, client, image)
        said = f"It is made of what {CONTENTS} says."
    else:
        said = record_contents(root, image_contents(client, image))
    client.images.get(image).tag(*image_name(root).split(":"))
    return f"{image_name(root)} is now {image}. {said}"


def record_contents(root: Path, contents: bytes) -> str:
    """Write an image's contents to docker/contents.json if they are others; return a sentence on what became of it."""
    target = root / CONTENTS
    before = target.read_bytes() if target.is_file() else None
    if before == contents:
        return f"{CONTENTS}: the same contents as before; nothing has to run again."
    with atomic_path(target) as aside:
        aside.write_bytes(contents)
    if before is None:
        return f"{CONTENTS}: written. Commit it: it says what the results are computed with."
    return (f"{CONTENTS}: CHANGED ({listed(before, contents)}). The stages that ran with the other contents will run "
            "again. Commit it with what they give, or take it back with `git checkout`.")


def listed(before: bytes, after: bytes) -> str:
    """Return the differences of two contents files on one line."""
    found = differences(before, after)
    rest = f", and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return ", ".join(found[:SHOWN]) + rest


def differences(before: bytes, after: bytes) -> list[str]:
    """Return what differs between two contents files, one phrase each: distributions, Python, Debian."""
    old, new = json.loads(before), json.loads(after)
    python = [f"python {old['python']} -> {new['python']}"] if old["python"] != new["python"] else []
    return [*_changed("", _distributions(old), _distributions(new)), *python,
            *_changed("Debian's ", old["debian"], new["debian"])]


def _distributions(contents: dict) -> dict[str, str]:
    return {name: f"{found['version']} (files {found['record_sha256'][:8]})"
            for name, found in contents["distributions"].items()}


def _changed(owner: str, old: dict[str, str], new: dict[str, str]) -> list[str]:
    return [f"{owner}{name} {old.get(name, 'absent')} -> {new.get(name, 'absent')}"
            for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]


# `repro image inspect`: what an image is made of, in short, and what its size is made of.


def inspect(root: Path, client: docker.DockerClient) -> str:
    """Return some lines about the image of a clone. Sizes are of files, uncompressed, in units of 10**6 bytes.

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
    lines += ["", "layers (MB):"]
    lines += [f"{layer['Size'] / MB:10.1f}  {' '.join(layer['CreatedBy'].split())[:COMMAND_SHOWN] or 'the base'}"
              for layer in reversed(image.history()) if layer["Size"]]
    by_size = sorted(contents["distributions"].items(), key=lambda item: (-item[1]["bytes"], item[0]))
    total = sum(found["bytes"] for _, found in by_size) / MB
    lines += ["", f"largest distributions (MB), of {total:.1f} in all:"]
    return "\n".join([*lines, *(f"{found['bytes'] / MB:10.1f}  {name} {found['version']}"
                                for name, found in by_size[:LARGEST])])
