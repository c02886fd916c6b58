"""The index of a real dataset's images: of each its size and SHA-256, and in which shard and where it lies, if it does.

All images are read once, in order, one (or one group of threads) at a time: memory holds the index, never the images.
Interrupted, it goes on where it stopped (`repblend.data.journal`).
"""

import hashlib
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from repblend.data.decoding import decode
from repblend.data.image_store import FolderStore, missing
from repblend.data.journal import Journal
from repblend.progress import progress
from repblend.store import JSON

Look = Callable[[bytes, str], object]
"""What is done with every image's content beside hashing it; raises ValueError if something is wrong with it."""
GROUP = 64
"""Files that are looked at before the journal is written."""
NUM_THREADS = 4


@dataclass(frozen=True)
class ImageIndex:
    """What is known of the images of a dataset."""

    images: dict[str, JSON]
    """By name, sorted: `bytes`, `sha256`, and for those in shards `shard` and `offset`."""
    problems: dict[str, str]
    """What is wrong, by the name of the image or shard."""

    def enter(self, name: str, finding: JSON | str) -> None:
        """Take a record to the images, a message to the problems."""
        if isinstance(finding, str):
            self.problems[name] = finding
        else:
            self.images[name] = finding


def hash_only(content: bytes, where: str) -> None:
    """Look no further: whether an image can be decoded shows when it is needed."""


def whole_image(content: bytes, where: str) -> None:
    """Decode the image, and refuse one that is damaged."""
    decode(content, where)


def index_images(folder: Path, shards: str | None, names: Iterable[str], look: Look, journal_file: Path) -> ImageIndex:
    """Look at every image of a dataset.

    Args:
        folder: the dataset's folder.
        shards: pattern of tar files in it that hold the images; None if each image is a file.
        names: which images, as the annotations name them.
        journal_file: where to keep what is done already; remove it when the index is stored.

    Raises:
        ValueError: no shard fits the pattern.
    """
    names, place = sorted(set(names)), str(folder.resolve())  # another copy's files may have the same size and time
    if shards is None:
        return _index_files(folder, names, look, Journal(journal_file, ["files", place, look.__name__]))
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
    return _index_shards(folder, shards, names, look, Journal(journal_file, ["shards", place, look.__name__, digest]))


def _index_files(folder: Path, names: Sequence[str], look: Look, journal: Journal) -> ImageIndex:
    """One file per image."""
    store, index = FolderStore(folder), ImageIndex({}, {})

    def examine(name: str) -> tuple[str, JSON | None, JSON | str]:
        """The name, what the journal says, and what is so."""
        try:
            if (found := journal.find(name, folder / name)) is not None:
                return name, found, found
            return name, None, _record(store.read(name), store.locate(name), look)
        except FileNotFoundError:
            return name, None, str(missing(store.locate(name)))
        except ValueError as error:
            return name, None, str(error)

    with ThreadPoolExecutor(NUM_THREADS) as threads:
        for group in _groups(names):
            examined = list(threads.map(examine, group))
            journal.add({name: (folder / name, finding) for name, known, finding in examined
                         if known is None and isinstance(finding, dict)})
            for name, _, finding in examined:
                index.enter(name, finding)
    return index


def _groups(names: Sequence[str]) -> Iterator[Sequence[str]]:
    starts = range(0, len(names), GROUP)
    return (names[start:start + GROUP] for start in progress(starts, "look at images", f"{GROUP} images"))


def _index_shards(folder: Path, pattern: str, names: Sequence[str], look: Look, journal: Journal) -> ImageIndex:
    """Images in tar files, each file read from its beginning to its end."""
    shards, wanted, index = find_shards(folder, pattern), set(names), ImageIndex({}, {})
    for shard in progress(shards, "look at images", "shard"):
        path = folder / shard
        found = journal.find(shard, path)
        if found is None:
            found = dict(_members(path, shard, wanted, look))
            journal.add({shard: (path, found)})
        for name, finding in found.items():
            if name in index.images:
                finding = f"{path}, member {name}: {index.images[name]['shard']} has it too. Remove it from one of them"
            index.enter(name, finding)
    for name in sorted(wanted - index.images.keys() - index.problems.keys()):
        index.problems[name] = str(missing(f"{folder / pattern}, member {name}"))
    return index


def find_shards(folder: Path, pattern: str) -> list[str]:
    """Return the shards of a dataset, sorted, by their paths in its folder.

    Raises:
        ValueError: there are none.
    """
    shards = sorted(path.relative_to(folder).as_posix() for path in folder.glob(pattern) if path.is_file())
    if not shards:
        raise ValueError(f"{folder / pattern}: no file fits this pattern of shards. Correct data.shards or the folder")
    return shards


def _members(path: Path, shard: str, wanted: set[str], look: Look) -> Iterator[tuple[str, JSON | str]]:
    """What is so about every wanted member, and what is wrong with the shard."""
    seen: set[str] = set()
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                name = member.name.removeprefix("./")
                if is_outside(name):
                    yield name, f"{path}, member {name}: lies outside of the dataset. Do not use this shard"
                elif name in seen:
                    yield name, f"{path}, member {name}: the shard has it twice. Remove one"
                elif name in wanted and member.isreg():
                    seen.add(name)
                    content = tar.extractfile(member).read()
                    place = {"shard": shard, "offset": member.offset_data}
                    record = _tried(content, f"{path}, member {name}", look)
                    yield name, record | place if isinstance(record, dict) else record
    except (tarfile.TarError, OSError, EOFError) as error:
        yield shard, f"{path}: expected a whole tar file, not compressed ({error}). Fetch it again"


def is_outside(name: str) -> bool:
    """Return whether a member's name leads out of the folder that it would be extracted to."""
    path = PurePosixPath(name)
    return path.is_absolute() or ".." in path.parts


def _tried(content: bytes, where: str, look: Look) -> JSON | str:
    try:
        return _record(content, where, look)
    except ValueError as error:
        return str(error)


def _record(content: bytes, where: str, look: Look) -> JSON:
    look(content, where)
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
