"""Files that a stage imports: where the parameters say they are, and whether they are what the parameters say."""

from collections.abc import Sequence
from pathlib import Path

from repblend.params import ImportFrom
from repblend.progress import progress
from repblend.stages.context import Workspace
from repblend.store import JSON, fingerprint, sha256


def located(source: ImportFrom, workspace: Workspace) -> Path:
    """Return the folder or file that `path` names: relative to the repository, or absolute."""
    return workspace.repository / source.path


def identify(setting: str, source: ImportFrom, files: Sequence[Path]) -> JSON:
    """Return what the metrics say of imported files: the SHA-256 of each by its name, and the one of all.

    One file's is its own. That of several is the one of the JSON of their names and hashes, so neither the folder nor
    the machine matters.

    Args:
        setting: the parameter that holds `source`, for messages.

    Raises:
        ValueError: the parameter gives no SHA-256, or another one.
    """
    hashes = {path.name: sha256(path) for path in progress(files, "check", "file")}
    whole = next(iter(hashes.values())) if len(hashes) == 1 else fingerprint(hashes)
    if source.sha256 is None:
        raise ValueError(f"{setting}.sha256: not given. What is at {source.path} has {whole}; if that is what you mean "
                         "to import, add it to params.yaml, so that a change of the files is noticed")
    if source.sha256 != whole:
        raise ValueError(f"{setting}.sha256: expected {source.sha256}, but what is at {source.path} has {whole}. Fetch "
                         "it again, or, if you mean to import this, change the parameter")
    return {"files": hashes, "sha256": whole}
