"""The snapshot of a run: sources, parameters and what else stages read of a clone's own files, as they were when the
run began. Jobs are made of it, however late they begin; what is edited meanwhile is for the next run, and told.
"""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from repblend.runtime.sources import content_sha256
from repblend.store import SOURCES, atomic_path, fingerprint
from repro.cluster.disk import full_disk_told
from repro.cluster.node import PRIVATE
from repro.workspace import MARKER

ALWAYS = (SOURCES, Path("repro"), Path("conf"), Path(".dvc/config"), Path(".dvcignore"))
"""What every job needs of a clone: the package, this one, records of checkpoints, DVC's settings."""
COMPILED = "__pycache__"
DIGITS = 16
"""Of a snapshot's name, that tell it from others of its workspace."""
SHOWN = 5
"""Edited files that a message names."""
Stamp = tuple[int, int]
"""Size of a file, and when it was changed."""


@dataclass(frozen=True)
class Snapshot:
    """Files of a clone as they were."""

    root: Path
    """The clone."""
    folder: Path
    """Where their copies lie, at the same places as in the clone."""
    places: Sequence[Path]
    """What was copied, from the clone: files, and folders with all in them."""
    seen: dict[Path, Stamp]

    def edited(self) -> str | None:
        """Say which files have been edited, added or removed since; None if none were."""
        now = dict(stamps(self.root, self.places))
        names = sorted(str(path) for path in now.keys() | self.seen.keys() if now.get(path) != self.seen.get(path))
        more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        return f"{', '.join(names[:SHOWN])}{more}" if names else None


def take_snapshot(root: Path, workspace: Path, inputs: Iterable[Path]) -> Snapshot:
    """Copy what the jobs of a workspace are made of; the same files are copied once.

    Args:
        inputs: files and folders of the clone, absolute, that stages read and no stage makes.
    """
    own = workspace.relative_to(root)
    wanted = [*ALWAYS, own / "params.yaml", own / MARKER,
              *(path.relative_to(root) for path in inputs if path.is_relative_to(root))]
    existing = dict.fromkeys(place for place in wanted if (root / place).exists())
    places = [place for place in existing if not any(other in place.parents for other in existing)]
    seen = dict(stamps(root, places))
    name = fingerprint({str(place): content_sha256(root / place) for place in places})
    folder = root / PRIVATE / f"{prefix(workspace)}{name[:DIGITS]}"
    if not folder.is_dir():
        with full_disk_told(folder), atomic_path(folder) as aside:
            for place in places:  # with what Python compiled of the sources, which every job would compile again
                (aside / place).parent.mkdir(parents=True, exist_ok=True)
                (shutil.copytree if (root / place).is_dir() else shutil.copy2)(root / place, aside / place)
    return Snapshot(root, folder, places, seen)


def prefix(workspace: Path) -> str:
    """Return how the names of a workspace's snapshots begin."""
    return f"snapshot-{workspace.name}-"


def forget_snapshots(root: Path, workspace: Path) -> None:
    """Remove all snapshots of a workspace, none of whose jobs waits or runs any more."""
    for folder in (root / PRIVATE).glob(prefix(workspace) + "[0-9a-f]" * DIGITS):
        shutil.rmtree(folder)


def stamps(root: Path, places: Iterable[Path]) -> Iterator[tuple[Path, Stamp]]:
    """Yield every file of these places, from the clone, with its size and time of change."""
    for place in places:
        for path in sorted((root / place).rglob("*")) if (root / place).is_dir() else [root / place]:
            if path.is_file() and COMPILED not in path.parts:
                found = path.stat()
                yield path.relative_to(root), (found.st_size, found.st_mtime_ns)
