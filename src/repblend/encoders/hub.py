"""Checkpoints on the disk: where they lie, what their SHA-256 has to be, and that it is so before anything reads them.

    data/hub/models--OWNER--NAME/snapshots/COMMIT/FILE      the layout of the hub's own cache, at the clone's root
    conf/checkpoints/OWNER--NAME.json                       what the first fetch recorded; committed

`repro checkpoints fetch` writes both; nothing here touches a network or imports torch.
"""

from collections.abc import Iterable
from pathlib import Path

from repblend.clone import repository_of
from repblend.encoders.pins import Checkpoint, File, checkpoint_of, local_folder
from repblend.store import JSON, read_json, sha256

HUB = Path("data/hub")
RECORDS = Path("conf/checkpoints")


def snapshot(checkpoint: Checkpoint, root: Path) -> Path:
    """Return the folder of a checkpoint whose revision is known, in the clone at `root`."""
    return root / HUB / f"models--{_file_name(checkpoint)}" / "snapshots" / checkpoint.revision


def record_of(checkpoint: Checkpoint) -> Path:
    """Return where the first fetch records what the table leaves open of a checkpoint, relative to the clone."""
    return RECORDS / f"{_file_name(checkpoint)}.json"


def _file_name(checkpoint: Checkpoint) -> str:
    return checkpoint.repository.replace("/", "--")


def with_record(checkpoint: Checkpoint, root: Path) -> Checkpoint:
    """Return a checkpoint completed by what was recorded of it; raises `ValueError` if that is not JSON."""
    path = root / record_of(checkpoint)
    return checkpoint.completed(read_json(path)) if path.is_file() else checkpoint


def fault(file: File, folder: Path) -> str | None:
    """Say what is wrong with a file of a snapshot; None if its bytes are the expected ones."""
    path = folder / file.name
    if not path.is_file():
        return f"{path}: no such file"
    if (found := sha256(path)) != file.sha256:
        return f"{path}: SHA-256 is {found}, expected {file.sha256}; the file is damaged or of another version"
    return None


def faults(checkpoint: Checkpoint, root: Path) -> list[str]:
    """Say all that keeps a checkpoint from being used: unknown hashes, missing and damaged files."""
    if not checkpoint.is_pinned:
        return [f"{root / record_of(checkpoint)}: no such file, and nothing else says the commit and SHA-256 of "
                f"{checkpoint.repository}"]
    folder = snapshot(checkpoint, root)
    return [found for file in checkpoint.files if (found := fault(file, folder))]


def is_here(checkpoint: Checkpoint, root: Path) -> bool:
    """Say whether every file is there, by name only."""
    known = with_record(checkpoint, root)
    return known.is_pinned and all((snapshot(known, root) / file.name).is_file() for file in known.files)


def checked_snapshot(encoder: str, workspace: Path) -> Path | None:
    """Return the folder of an encoder's checkpoint after the SHA-256 of every file in use was found right.

    Args:
        encoder: a name of the registry.
        workspace: the folder that stages run in.

    Returns:
        The folder, or None if the encoder does not come from the hub.

    Raises:
        ValueError: a file is missing or damaged, or its hash is not known; the message has the command that mends it.
    """
    checkpoint = checkpoint_of(encoder)
    if checkpoint is None:
        return None
    root = repository_of(workspace)
    pinned = with_record(checkpoint, root)
    if found := faults(pinned, root):
        raise ValueError(f"{'; '.join(found)}. Stages do not use the network: fetch the weights with "
                         f"`repro checkpoints fetch {encoder}`")
    return snapshot(pinned, root)


def identifying_files(encoders: Iterable[str], workspace: Path) -> list[Path]:
    """Return the files that say which weights encoders have, where neither the source nor a package does: what the
    first fetch recorded, and all files of a user's own folder.
    """
    found: list[Path] = []
    for name in encoders:
        if (folder := local_folder(name)) is not None:
            found += sorted((workspace / folder).rglob("*"))
        elif (checkpoint := checkpoint_of(name)) is not None:
            found.append(repository_of(workspace) / record_of(checkpoint))
    return [path for path in dict.fromkeys(found) if path.is_file()]


def checkpoints_used(encoders: Iterable[str], workspace: Path) -> JSON:
    """Return what provenance has to say of encoders: which bytes those were that come from the hub.

    Returns:
        `{"checkpoints": {encoder: {"repository", "revision", "sha256": {file: ...}}}}`, or an empty mapping if none of
        them comes from there: what arrives as a package is in the hash of the requirements.
    """
    root = repository_of(workspace)
    found = {name: with_record(checkpoint, root) for name in encoders if (checkpoint := checkpoint_of(name))}
    return {"checkpoints": {name: {"repository": checkpoint.repository, "revision": checkpoint.revision,
                                   "sha256": {file.name: file.sha256 for file in checkpoint.files}}
                            for name, checkpoint in found.items()}} if found else {}
