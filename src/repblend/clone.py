"""Where the clone of the repository is that a workspace belongs to."""

from pathlib import Path

SOURCES = Path("src/repblend")


def repository_of(workspace: Path) -> Path:
    """Return the clone that a workspace lies in: the nearest folder, from the workspace upwards, that has the sources,
    or the workspace itself if none has. A profile's workspace is `profiles/<name>` in the clone.
    """
    return next((folder for folder in (workspace, *workspace.parents) if (folder / SOURCES).is_dir()), workspace)
