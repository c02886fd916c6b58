"""The manifest of cached artifacts: size and SHA-256 of every file of every output that was pushed.

DVC names contents by MD5 and does not look again at what a remote sends. The manifest is committed beside dvc.lock and
says, for the version of an output that its MD5 names, which bytes each of its files has.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from repblend.store import read_json, sha256, write_json

MANIFEST = "artifacts.sha256.json"


@dataclass(frozen=True)
class Content:
    """The bytes of a file."""

    size: int
    """In bytes."""
    sha256: str

    def __str__(self) -> str:
        return f"{self.size} bytes with SHA-256 {self.sha256}"


@dataclass(frozen=True)
class Entry:
    """One version of an output."""

    md5: str
    """As in dvc.lock: which version this is."""
    files: Mapping[str, Content]
    """By path in the repository. An output that is a file has this one."""


def read_manifest(root: Path) -> dict[str, Entry]:
    """Return the entry of every output, by its path; none if nothing was pushed yet.

    Raises:
        ValueError: the file is not a manifest.
    """
    path = root / MANIFEST
    if not path.exists():
        return {}
    try:
        return {name: Entry(entry["md5"], {file: Content(found["bytes"], found["sha256"])
                                           for file, found in entry["files"].items()})
                for name, entry in read_json(path)["outputs"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: expected 'outputs', and of each 'md5' and 'files' with 'bytes' and 'sha256' "
                         f"({error!r}). Bring it back: git checkout -- {MANIFEST}") from error


def write_manifest(root: Path, entries: Mapping[str, Entry]) -> None:
    """Write the manifest, the same bytes for the same entries."""
    write_json(root / MANIFEST, {"outputs": {
        name: {"md5": entry.md5, "files": {file: {"bytes": content.size, "sha256": content.sha256}
                                           for file, content in entry.files.items()}}
        for name, entry in entries.items()}})


def content_of(path: Path) -> Content:
    """Return what bytes a file has."""
    return Content(path.stat().st_size, sha256(path))


def md5(path: Path) -> str:
    """Return the MD5 of a file's bytes, in hexadecimal: DVC's name of it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
