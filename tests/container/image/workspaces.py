"""Small workspaces with an image: the project's own Dockerfile, and a lock file of a few packages out of its own."""

import contextlib
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

import docker
from docker.errors import ImageNotFound

ROOT = Path(__file__).parents[3]
PACKAGES = ("antlr4-python3-runtime", "emoji", "idna", "setuptools")
"""The first exists only as a source archive, which the last builds."""
OTHER_PACKAGES = ("idna", "setuptools", "shortuuid")
COMMIT_DATE = "2024-02-29T12:34:56+00:00"


def locked(packages: Iterable[str]) -> str:
    """Return the lines of the project's lock file for these packages, hashes and all."""
    blocks = re.split(r"\n(?=[a-zA-Z])", (ROOT / "requirements/lock.txt").read_text().strip())
    return "".join(f"{block}\n" for block in blocks if block.split("==")[0] in packages)


def make_workspace(root: Path, lock: str) -> Path:
    """Make a clone's look-alike, committed, whose image has the packages of `lock`."""
    shutil.copytree(ROOT / "docker", root / "docker", ignore=shutil.ignore_patterns("contents.json", "__pycache__"))
    (root / "requirements").mkdir()
    (root / "requirements/lock.txt").write_text(lock)
    (root / "dvc.yaml").touch()
    git = ["git", "-C", root, "-c", "user.name=test", "-c", "user.email=test@example.org"]
    for arguments in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "Start"]):
        subprocess.run([*git, *arguments], check=True,
                       env={"GIT_AUTHOR_DATE": COMMIT_DATE, "GIT_COMMITTER_DATE": COMMIT_DATE})
    return root


def commit_another(root: Path, name: str) -> None:
    """Commit a file beside the recipe: an image that is built now has another label, and so another id."""
    (root / name).touch()
    git = ["git", "-C", root, "-c", "user.name=test", "-c", "user.email=test@example.org"]
    subprocess.run([*git, "add", name], check=True)
    subprocess.run([*git, "commit", "--quiet", "--message", "Another commit"], check=True)


def commit_of(root: Path) -> str:
    return subprocess.run(["git", "-C", root, "rev-parse", "HEAD"], check=True, capture_output=True, text=True
                          ).stdout.strip()


def output_of(client: docker.DockerClient, image: str, *command: str, user: str = "") -> str:
    """Return what a command prints in a container without a network; it has to succeed."""
    container = client.containers.create(image, list(command), network_mode="none", user=user)
    try:
        container.start()
        code = container.wait()["StatusCode"]
        printed = container.logs(stdout=True, stderr=bool(code)).decode()
        assert code == 0, printed
        return printed
    finally:
        container.remove(force=True)


def forget(client: docker.DockerClient, image: str) -> None:
    """Remove an image and all of its names, if the engine has it."""
    with contextlib.suppress(ImageNotFound):
        client.images.remove(client.images.get(image).id, force=True)
