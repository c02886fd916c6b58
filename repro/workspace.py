"""The workspace: where it is, and how commands run in it."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

MARKER = "dvc.yaml"


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
