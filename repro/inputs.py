"""Folders and files of a clone that neither git nor a pipeline makes: a user's data, and the hub's checkpoints.

A container and a clean checkout have to see them too, wherever they lie.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from repblend.encoders.hub import HUB


def missing(root: Path, files: Iterable[Path]) -> list[Path]:
    """Return which files, relative to the clone at `root` or absolute, are not there."""
    return [root / file for file in files if not (root / file).exists()]


def link(root: Path, checkout: Path, folders: Sequence[Path]) -> None:
    """Let a clean checkout of the clone at `root` see its folders and files; absolute ones need nothing."""
    for folder in dict.fromkeys((HUB, *folders)):
        if not folder.is_absolute() and (root / folder).exists() and not (checkout / folder).exists():
            (checkout / folder).parent.mkdir(parents=True, exist_ok=True)
            (checkout / folder).symlink_to((root / folder).resolve())


def outside(root: Path, folders: Sequence[Path]) -> list[Path]:
    """Return the paths of folders and files that a container of the clone at `root` has to be given: absolute ones as
    they are, in the clone as well, for the container has that at another place; of links in the clone what they name.

    Raises:
        ValueError: a relative path leads out of the clone.
    """
    for folder in folders:
        if not Path(os.path.normpath(root / folder)).is_relative_to(root) and not folder.is_absolute():
            raise ValueError(f"{folder}: leads out of the clone, and a container sees nothing there. Write in "
                             f"params.yaml {(root / folder).resolve()}")
    linked = [(root / folder).readlink() for folder in (HUB, *folders)
              if not folder.is_absolute() and (root / folder).is_symlink()]
    named = [path for path in (*linked, *folders) if path.is_absolute()]
    return [path for path in dict.fromkeys(named) if path.exists()]
