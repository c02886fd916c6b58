"""Folders and files of a clone that neither git nor a pipeline makes: a user's data, and the hub's checkpoints.

A container and a clean checkout have to see them too, wherever they lie.
"""

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
    """Return where folders and files really lie that are not in the clone at `root`: absolute paths, as the clone
    names them.
    """
    named = [(root / folder).readlink() if (root / folder).is_symlink() else root / folder
             for folder in (HUB, *folders)]
    return [path for path in dict.fromkeys(named)
            if path.is_absolute() and path.exists() and not path.is_relative_to(root)]
