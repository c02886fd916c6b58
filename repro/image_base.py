"""`repro image base`: a base image from Debian's own packages, where no registry can be reached (debootstrap, root)."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import docker

BASE_REPOSITORY, BASE_TAG = "repblend-base", "bookworm"
BASE_NAME = f"{BASE_REPOSITORY}:{BASE_TAG}"
PACKAGES = ("python3", "python3-venv", "python3-pip", "ca-certificates")
SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
"""Where Debian has its own tools: debootstrap is not on everybody's path."""
NOT_NEEDED = ("var/cache/apt", "var/lib/apt/lists", "var/log")


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
        _run_debootstrap(debootstrap, rootfs)
        for name in NOT_NEEDED:
            shutil.rmtree(rootfs / name)
            (rootfs / name).mkdir()
        _import(client, rootfs)
    return client.images.get(BASE_NAME).id


def _run_debootstrap(debootstrap: str, rootfs: Path) -> None:
    command = [debootstrap, "--variant=minbase", f"--include={','.join(PACKAGES)}", "bookworm", str(rootfs)]
    print(" ".join(command), flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise ValueError(f"debootstrap stopped with exit code {done.returncode}: "
                         f"{' / '.join(done.stdout.splitlines()[-3:])}. Is a mirror of Debian within reach?")


def _import(client: docker.DockerClient, rootfs: Path) -> None:
    """`tar` and not Python's tarfile: it keeps device files, and what it writes need not lie on disk again."""
    with subprocess.Popen(["tar", "--numeric-owner", "-C", rootfs, "-c", "."], stdout=subprocess.PIPE) as archive:
        client.api.import_image_from_stream(archive.stdout, repository=BASE_REPOSITORY, tag=BASE_TAG)
    if archive.returncode:
        raise ValueError(f"{rootfs}: tar stopped with exit code {archive.returncode}, so the base is not whole. Run "
                         "`repro image base` again")
