"""The workspace: where it is, who may write to it, and how commands run in it."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from repblend.stages.lock import only_writer
from repro.dvc_locks import forget_killed

MARKER = "dvc.yaml"
LOCK = Path("checkpoints/locks/workspace.lock")
"""Held by the process that runs the pipeline, on the host, for as long as it runs: in a container as well."""
MAKE_REPORT = ("repro", "--single-item", "report")
"""DVC's arguments for the report alone, from whatever metrics there are: without the option, everything that it shows
would be brought up to date."""


def find_root() -> Path:
    """Return the repository's folder: the nearest one upwards that holds dvc.yaml.

    Raises:
        ValueError: there is none.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / MARKER).is_file():
            return folder
    raise ValueError(f"{here}: neither here nor above is a {MARKER}. Run this in a clone of the repository")


@contextlib.contextmanager
def only_run(root: Path) -> Iterator[None]:
    """Hold the workspace's lock while the body runs, and begin without what a killed run left of DVC's own locks.

    Raises:
        ValueError: another run holds it; the message says which.
    """
    with only_writer(root / LOCK, f"workspace {root}", wait_seconds=3.0):
        forget_killed(root)
        yield


def git(root: Path, *arguments: str) -> str:
    """Return what a git command prints.

    Raises:
        ValueError: git is not installed, or fails; the message has its reason.
    """
    try:
        done = subprocess.run(["git", "-C", root, *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise ValueError("git: no such command. Install git") from error
    if done.returncode:
        raise ValueError(f"{root}: git {' '.join(arguments)} failed ({done.stderr.strip()})")
    return done.stdout.rstrip()


def environment() -> Mapping[str, str]:
    """Return the environment for stages: this Python first on the path, and no model hub."""
    binaries = str(Path(sys.executable).parent)
    return os.environ | {"PATH": os.pathsep.join([binaries, os.environ.get("PATH", "")]), "HF_HUB_OFFLINE": "1"}


def workspace_environment(root: Path) -> Mapping[str, str]:
    """Return `environment()` with the sources of the workspace `root` first, wherever this process's own come from."""
    base = environment()
    sources = [str(root / "src"), str(root), *filter(None, [base.get("PYTHONPATH")])]
    return {**base, "PYTHONPATH": os.pathsep.join(sources)}


def dvc(*arguments: str) -> list[str]:
    """Return a command line that runs DVC with this Python, and stops it when this process is gone."""
    return [sys.executable, "-m", "repro.guarded_dvc", *arguments]


def python(*arguments: str) -> list[str]:
    """Return a command line that runs this Python."""
    return [sys.executable, *arguments]
