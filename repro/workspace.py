"""The clone and its workspaces: where they are, who may write to them, and how commands run in them.

A workspace is a folder with `params.yaml` and `dvc.yaml`: the clone's own folder, or that of a profile inside of it.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from repblend.clone import repository_of
from repblend.stages.lock import only_writer
from repro.dvc_locks import forget_killed

MARKER = "dvc.yaml"
LOCK = Path("checkpoints/locks/workspace.lock")
"""In the clone. Held by the process that runs a pipeline, on the host, for as long as it runs: in a container as well.
There is one for all workspaces: they share DVC's own lists, in which a process in another container looks dead."""
MAKE_REPORT = ("repro", "--single-item", "report")
"""DVC's arguments for the report alone, from whatever metrics there are: without the option, everything that it shows
would be brought up to date."""


def find_root() -> Path:
    """Return the clone's folder: the nearest one upwards that holds dvc.yaml, or the clone around that.

    Raises:
        ValueError: there is none.
    """
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / MARKER).is_file():
            return repository_of(folder)
    raise ValueError(f"{here}: neither here nor above is a {MARKER}. Run this in a clone of the repository")


@contextlib.contextmanager
def only_run(workspace: Path) -> Iterator[None]:
    """Hold the lock of a workspace's clone while the body runs, and begin without what a killed run left of DVC's own.

    Raises:
        ValueError: another run holds it; the message says which.
    """
    root = repository_of(workspace)
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


def workspace_environment(workspace: Path) -> Mapping[str, str]:
    """Return `environment()` with the sources of a workspace's clone first, wherever this process's own come from."""
    base, root = environment(), repository_of(workspace)
    sources = [str(root / "src"), str(root), *filter(None, [base.get("PYTHONPATH")])]
    return {**base, "PYTHONPATH": os.pathsep.join(sources)}


def dvc(*arguments: str) -> list[str]:
    """Return a command line that runs DVC with this Python, and stops it when this process is gone."""
    return [sys.executable, "-m", "repro.guarded_dvc", *arguments]


def python(*arguments: str) -> list[str]:
    """Return a command line that runs this Python."""
    return [sys.executable, *arguments]
