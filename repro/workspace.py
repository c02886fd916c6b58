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


def dvc(*arguments: str) -> list[str]:
    """Return a command line that runs DVC with this Python."""
    return [sys.executable, "-m", "dvc", *arguments]


def python(*arguments: str) -> list[str]:
    """Return a command line that runs this Python."""
    return [sys.executable, *arguments]
