"""The index of a real dataset's images: size and SHA-256 of each, and in which shard and where it lies, if it does.

Every image is read once, in order, one group of threads or one shard at a time: memory holds the index, never the
images. A journal keeps what is done, so that an interrupted run goes on where it stopped.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from repblend.archives import Member, name_fault, shown_name, tar_members
from repblend.data.image_store import FolderStore, decode, missing
from repblend.files import LIMITS, named
from repblend.progress import progress
from repblend.records.base import Record
from repblend.store import JSON

GROUP = 64
"""Files that are looked at before the journal is written."""
NUM_THREADS = 4


@dataclass(frozen=True)
class ImageIndex:
    """What is known of the images of a dataset."""

    images: dict[str, JSON] = field(default_factory=dict)
    """By name: `bytes`, `sha256`, and for those in shards `shard` and `offset`."""
    problems: dict[str, str] = field(default_factory=dict)
    """What is wrong, by the name of the image or shard."""

    def enter(self, name: str, finding: JSON | str) -> None:
        """Take a record to the images, a message to the problems."""
        if isinstance(finding, str):
            self.problems[name] = finding
        else:
            self.images[name] = finding


def index_images(folder: Path, shards: str | None, names: Iterable[str], journal_file: Path,
                 decoded: bool) -> ImageIndex:
    """Look at every image of a dataset.

    Args:
        folder: the dataset's folder.
        shards: pattern of tar files in it that hold the images; None if each image is a file.
        names: which images, as the annotations name them.
        journal_file: where to keep what is done already; remove it when the index is stored.
        decoded: whether to decode them too; otherwise that one is damaged shows when it is needed.

    Raises:
        ValueError: no shard fits the pattern.
    """
    names = sorted(set(names))
    purpose = [str(folder.resolve()), "whole_image" if decoded else "hash_only"]  # another copy may look the same
    if shards is None:
        return _index_files(folder, names, decoded, ImageJournal(journal_file, ["files", *purpose]))
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
    return _index_shards(folder, shards, set(names), decoded, ImageJournal(journal_file, ["shards", *purpose, digest]))


def _index_files(folder: Path, names: Sequence[str], decoded: bool, journal: "ImageJournal") -> ImageIndex:
    store, index = FolderStore(folder), ImageIndex()

    def examine(name: str) -> JSON | str:
        try:
            return journal.find(name, folder / name) or _record(store.read(name), store.locate(name), decoded)
        except ValueError as error:
            return str(error)

    with ThreadPoolExecutor(NUM_THREADS) as threads:
        for start in progress(range(0, len(names), GROUP), "look at images", f"{GROUP} images"):
            group = names[start:start + GROUP]
            examined = dict(zip(group, threads.map(examine, group), strict=True))
            journal.add({name: (folder / name, finding) for name, finding in examined.items()
                         if not isinstance(finding, str)})
            for name, finding in examined.items():
                index.enter(name, finding)
    return index


def _index_shards(folder: Path, pattern: str, wanted: set[str], decoded: bool, journal: "ImageJournal") -> ImageIndex:
    with named(f"data.shards {pattern!r}", "a pattern of paths in the folder", "Correct it"):
        shards = sorted(path.relative_to(folder).as_posix() for path in folder.glob(pattern) if not path.is_dir())
    if not shards:
        raise ValueError(f"{folder / pattern}: no file fits this pattern of shards. Correct data.shards or the folder")
    index = ImageIndex()
    for shard in progress(shards, "look at images", "shard"):
        path = folder / shard
        if (found := journal.find(shard, path)) is None:
            found = dict(_members(folder, shard, wanted, decoded))
            journal.add({shard: (path, found)})
        for name, finding in found.items():
            if name in index.images:
                finding = f"{path}, member {name}: {index.images[name]['shard']} has it too. Remove it from one of them"
            index.enter(name, finding)
    for name in sorted(wanted - index.images.keys() - index.problems.keys()):
        index.problems[name] = str(missing(f"{folder / pattern}, member {name}"))
    return index


def _members(folder: Path, shard: str, wanted: set[str], decoded: bool) -> Iterator[tuple[str, JSON | str]]:
    """What is so about every wanted member, and what is wrong with the shard."""
    path, seen = folder / shard, set[str]()
    try:
        for info, member in tar_members(path, folder):
            name = info.name.removeprefix("./")
            where = f"{path}, member {shown_name(name)}"
            if info.isdir():
                continue
            if fault := name_fault(name):
                yield name, f"{where}: {fault}. Do not use this shard"
            elif name in seen:
                yield name, f"{where}: the shard has it twice. Remove one"
            elif name in wanted and info.isreg():
                seen.add(name)
                yield name, _member(where, member, shard, decoded)
    except (ValueError, OSError) as error:
        yield shard, str(error)


def _member(where: str, member: Member, shard: str, decoded: bool) -> JSON | str:
    if member.offset is None:
        return (f"{where}: does not lie in the shard as it is; expected a tar file that is not compressed, without "
                "sparse members (`tar -S`). Make it again")
    if member.num_bytes > LIMITS["image"]:
        return f"{where}: {member.num_bytes:,} bytes, expected at most {LIMITS['image']:,}. Remove it"
    finding = _record(member.read(), where, decoded)
    return finding if isinstance(finding, str) else finding | {"shard": shard, "offset": member.offset}


def _record(content: bytes, where: str, decoded: bool) -> JSON | str:
    try:
        if decoded:
            decode(content, where)
    except ValueError as error:
        return str(error)
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


class JournalLine(Record):
    """What was found about one file."""

    file: str
    state: list[int]
    """Size, and time of change in nanoseconds; none of a file that could not be asked."""
    finding: dict[str, Any]


class ImageJournal:
    """Findings by file name, one JSON line each. A finding holds while the file keeps its size and time of change."""

    def __init__(self, path: Path, purpose: object) -> None:
        """Open a journal, or begin a new one.

        Args:
            path: the journal's file; deleting it only costs time.
            purpose: anything JSON can hold that findings depend on. A journal with another purpose is begun anew.
        """
        self._path = path
        lines: list[JSON] = []
        if path.is_file():
            with contextlib.suppress(ValueError, RecursionError):  # what was cut off, or damaged, is found again
                for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
                    line = json.loads(text)
                    if lines:
                        JournalLine.model_validate(line)
                    lines.append(line)
        if not lines or lines[0] != {"purpose": purpose}:
            lines = [{"purpose": purpose}]
            path.parent.mkdir(parents=True, exist_ok=True)
        self._found = {line["file"]: line for line in lines[1:]}
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")  # without a cut last one

    def find(self, name: str, file: Path) -> JSON | None:
        """Return what was found about a file, or None if that is unknown or the file has changed since."""
        line = self._found.get(name)
        finding: JSON | None = line["finding"] if line and line["state"] == _state(file) else None
        return finding

    def add(self, findings: Mapping[str, tuple[Path, JSON]]) -> None:
        """Write down what was found about some files: by name, the file and the finding; not again what is known."""
        with self._path.open("a", encoding="utf-8") as journal:
            for name, (file, finding) in findings.items():
                line = {"file": name, "state": _state(file), "finding": finding}
                if self._found.get(name) != line:
                    journal.write(json.dumps(line) + "\n")


def _state(file: Path) -> list[int]:
    try:
        status = file.stat()
    except OSError:  # whoever reads it says so
        return []
    return [status.st_size, status.st_mtime_ns]
