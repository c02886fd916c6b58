"""Objects: what DVC's cache and its remotes hold. Each is a file named by its MD5; a folder is a list of such files."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from repblend.store import read_json
from repro.artifacts import FOLDER_SUFFIX, Output
from repro.manifest import Content, content_of, md5


@dataclass(frozen=True)
class Object:
    """One file of an output, or the list of a folder's files."""

    output: Output
    name: str
    """For messages: the file's path in the repository."""
    oid: str
    """Its name in the cache and on a remote."""
    content: Content | None
    """What it must be; None if its MD5 alone says so."""

    def mismatch(self, path: Path) -> str | None:
        """Return what was expected and found if a file does not hold this object, None if it does."""
        if self.content is not None:
            found = content_of(path)
            return None if found == self.content else f"{self.name}: expected {self.content}, found {found}"
        expected, found_md5 = self.oid.removesuffix(FOLDER_SUFFIX), md5(path)
        if found_md5 == expected:
            return None
        return f"{self.name}: expected MD5 {expected}, found {path.stat().st_size} bytes with MD5 {found_md5}"


def list_of(folder: Output) -> Object:
    """Return the object that lists the files of a folder."""
    return Object(folder, f"the list of the files in {folder.path}", folder.md5, None)


def files_of(output: Output, listing: Path) -> Iterator[tuple[str, str]]:
    """Yield the path in the repository and the object's name of every file of an output.

    Args:
        listing: where the folder's list is; not read if the output is a file.
    """
    if not output.is_folder:
        yield output.path, output.md5
        return
    for entry in read_json(listing):
        yield f"{output.path}/{entry['relpath']}", entry["md5"]
