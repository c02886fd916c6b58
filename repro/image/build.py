"""Make the image of a clone: `repro image build`, and `repro image base` where no registry can be reached.

A build sends its context to the engine, prints the log as it comes, and records what the image is made of. docker-py
speaks to the classic builder, which has no mounts: packages and certificates of one's own travel in the context, in
two folders that are always there and normally empty.
"""

import contextlib
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import uuid
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import docker
from docker.errors import APIError, ImageNotFound
from docker.models.images import Image

from repblend.runtime.provenance import git
from repblend.store import sha256
from repro.image.contents import LOCK, image_contents, image_name, record_contents

DOCKERFILE = Path("docker/Dockerfile")
SCRIPTS = (Path("docker/install.sh"), Path("docker/contents.py"))
LAST_LINES = 15
"""Of a failed build's log that the error repeats."""
STEP = re.compile(r"^Step (\d+/\d+) : (.*)")
COLOUR = re.compile(r"\x1b\[\d*m")
BASE_REPOSITORY, BASE_TAG = "repblend-base", "bookworm"
BASE_NAME = f"{BASE_REPOSITORY}:{BASE_TAG}"
PACKAGES = ("python3", "python3-venv", "python3-pip", "ca-certificates")
SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
"""Where Debian has its own tools: debootstrap is not on everybody's path."""
NOT_NEEDED = ("var/cache/apt", "var/lib/apt/lists", "var/log")


@dataclass(frozen=True)
class BuildOptions:
    """What may differ between machines that build the same image."""

    base: str | None = None
    """Image to build on: a reference with a digest, an image id, or the name of an image that the engine has. None:
    the one that the Dockerfile names."""
    wheelhouse: Path | None = None
    """Folder of packages to install instead of asking the package index."""
    authorities: Path | None = None
    """Folder of certificates (PEM) to trust while packages are fetched."""
    network: str = "default"
    """The engine's network that build steps use: `default`, `host` or `none`."""

    def __post_init__(self) -> None:
        for option, folder in (("--wheelhouse", self.wheelhouse), ("--ca", self.authorities)):
            if folder and not (folder.is_dir() and any(folder.iterdir())):
                raise ValueError(f"{option} {folder}: expected a folder with files in it")


def build(root: Path, client: docker.DockerClient, options: BuildOptions) -> str:
    """Build the image of a clone and print the log as it comes; return the image's name.

    Raises:
        ValueError: a step failed (the message has its last lines), or an option names what is not there.
    """
    name = image_name(root)
    before = client.images.list(name)
    arguments = {"BUILD": uuid.uuid4().hex} | ({"BASE": pinned_base(client, options.base)} if options.base else {})
    try:
        with build_context(root, options) as context:
            follow(client.api.build(
                fileobj=context, custom_context=True, dockerfile="Dockerfile", tag=name, rm=True, forcerm=True,
                buildargs=arguments, labels=labels(root, arguments.get("BASE")), network_mode=options.network,
                decode=True))
    finally:
        # What a build leaves beside its image: as many gigabytes again, and a copy of the wheelhouse.
        for stage in client.images.list(filters={"dangling": True, "label": f"repblend.build={arguments['BUILD']}"}):
            with contextlib.suppress(APIError):  # a step that was interrupted has not ended yet
                client.images.remove(stage.id)
    remove_nameless(client, before)
    print(record_contents(root, image_contents(client, name)))
    return name


def remove_nameless(client: docker.DockerClient, images: Iterable[Image]) -> None:
    """Remove images that lost their last name to a newer build: gigabytes that nobody would find again."""
    for image in images:
        with contextlib.suppress(APIError):  # it is gone already, or a container still uses it
            image.reload()
            if not image.tags and not image.attrs["RepoDigests"]:
                client.images.remove(image.id)


def pinned_base(client: docker.DockerClient, base: str) -> str:
    """Return a reference that means one image only: the one given, or the id of the image that a name has here.

    Raises:
        ValueError: it is a name that the engine does not know.
    """
    if "@sha256:" in base:
        return base
    try:
        return client.images.get(base).id
    except ImageNotFound as error:
        raise ValueError(f"--base {base}: a name alone may mean another image tomorrow, and the engine has none of it. "
                         f"Expected NAME@sha256:DIGEST: `docker pull {base}`, then `docker inspect --format "
                         f"'{{{{index .RepoDigests 0}}}}' {base}` prints that. Or make a base with `repro image base`"
                         ) from error


def labels(root: Path, base: str | None) -> Mapping[str, str]:
    """Return the labels of the image of a clone. Dates are the commit's: a build has none of its own.

    Args:
        base: what the image is built on, None for what the Dockerfile names.
    """
    default = re.search(r"^ARG BASE=(\S+)", (root / DOCKERFILE).read_text(), re.MULTILINE)[1]
    found = {"org.opencontainers.image.title": "repblend", "org.opencontainers.image.licenses": "MIT",
             "org.opencontainers.image.base.name": base or default, "repblend.lock.sha256": sha256(root / LOCK)}
    with contextlib.suppress(ValueError):  # this is no git clone, or has no commit
        revision, date = git(root, "log", "-1", "--format=%H %cI").split()
        edited = git(root, "status", "--porcelain", "--", str(DOCKERFILE.parent), str(LOCK))
        found |= {"org.opencontainers.image.revision": revision + ("-dirty" if edited else ""),
                  "org.opencontainers.image.created": date}
    return found


def build_context(root: Path, options: BuildOptions) -> IO[bytes]:
    """Return an open archive of all that the Dockerfile copies. Without dates, so that the engine's cache knows it."""
    archive = tempfile.TemporaryFile()  # noqa: SIM115 (the caller closes it)
    with tarfile.open(fileobj=archive, mode="w") as context:
        for path in (DOCKERFILE, *SCRIPTS, LOCK):
            context.add(root / path, arcname=path.name, filter=_without_owner_and_date)
        for name, folder in (("wheelhouse", options.wheelhouse), ("ca", options.authorities)):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            context.addfile(entry)
            for path in sorted(folder.iterdir()) if folder else ():
                context.add(path.resolve(), arcname=f"{name}/{path.name}", filter=_without_owner_and_date)
    archive.seek(0)
    return archive


def _without_owner_and_date(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o755 if entry.isdir() else 0o644
    return entry


def follow(log: Iterable[Mapping]) -> None:
    """Print the engine's log of a build as it comes.

    Raises:
        ValueError: it ends with an error; the message names the step and has its last lines.
    """
    step, lines = "before its first step", deque(maxlen=LAST_LINES)
    for message in log:
        if "error" in message:
            said = "".join(f"\n  {line}" for line in lines)
            raise ValueError(f"{DOCKERFILE}: the build stopped {step}: {message['error']}{said}\nIf a name could not "
                             "be resolved or a certificate not be trusted: --network host, --ca DIR, or --wheelhouse "
                             "DIR with packages fetched elsewhere. If the base could not be pulled: --base")
        for line in filter(str.strip, COLOUR.sub("", message.get("stream", "")).splitlines()):
            print(line, flush=True)
            lines.append(line)
            if found := STEP.match(line):
                step = f"at step {found[1]} ({found[2]})"
                lines.clear()


# `repro image base`: a base image from Debian's own packages (debootstrap, as root).


def make_base(client: docker.DockerClient) -> str:
    """Make the base image out of Debian 12's packages and import it; return its id. Takes about a minute.

    Raises:
        ValueError: debootstrap or root is missing, or debootstrap failed (its last line says why).
    """
    debootstrap = shutil.which("debootstrap", path=SYSTEM_PATH)
    if not debootstrap:
        raise ValueError("debootstrap: not found. `apt-get install debootstrap` brings it (Debian, Ubuntu); elsewhere, "
                         "use a base from a registry: `repro image build` alone, or with --base")
    if os.geteuid() != 0:
        raise ValueError("debootstrap makes a root file system, so it has to be run by root: use sudo, or use a base "
                         "from a registry: `repro image build` alone, or with --base")
    with tempfile.TemporaryDirectory(prefix="repro-base-") as folder:
        rootfs = Path(folder) / "rootfs"
        command = [debootstrap, "--variant=minbase", f"--include={','.join(PACKAGES)}", "bookworm", str(rootfs)]
        print(" ".join(command), flush=True)
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode:
            raise ValueError(f"debootstrap stopped with exit code {done.returncode}: "
                             f"{' / '.join(done.stdout.splitlines()[-3:])}. Is a mirror of Debian within reach?")
        for name in NOT_NEEDED:
            shutil.rmtree(rootfs / name)
            (rootfs / name).mkdir()
        # `tar` and not Python's tarfile: it keeps device files, and what it writes need not lie on disk again.
        with subprocess.Popen(["tar", "--numeric-owner", "-C", rootfs, "-c", "."], stdout=subprocess.PIPE) as archive:
            client.api.import_image_from_stream(archive.stdout, repository=BASE_REPOSITORY, tag=BASE_TAG)
        if archive.returncode:
            raise ValueError(f"{rootfs}: tar stopped with exit code {archive.returncode}, so the base is not whole. "
                             "Run `repro image base` again")
    return client.images.get(BASE_NAME).id
