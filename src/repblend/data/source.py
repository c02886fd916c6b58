"""A real dataset where its owner keeps it, and how stage `prepare` takes it over (PAPER.md section 3).

Annotations are cleaned, cut and written anew; images stay where they are. What is written says of every image how many
bytes it has and their SHA-256, so that a changed image is noticed when it is read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from repblend.data.image_index import ImageIndex, hash_only, index_images
from repblend.data.image_store import IMAGES_FILE
from repblend.data.karpathy import SPLITS, Annotations, annotation_file, counts, write_annotations
from repblend.data.known import attribution
from repblend.data.own import OwnCaptions
from repblend.data.rows import Captions, LayoutCaptions
from repblend.data_params import ExpectedCounts, OwnData, RealData, SplitName
from repblend.store import JSON, atomic_path, folder_sha256, read_json, sha256, write_bytes, write_json

MANIFEST = "manifest.json"
"""In a dataset's folder: what `repro data check` found there, and the hash of every image."""
MANIFEST_KEYS = {"name", "counts", "images", "annotations"}
SHOWN_PROBLEMS = 10


@dataclass(frozen=True)
class Source:
    """A dataset in its folder."""

    name: str
    folder: Path
    captions: Captions
    expected: Mapping[SplitName, ExpectedCounts]
    shards: str | None

    @property
    def manifest(self) -> Path:
        return self.folder / MANIFEST


def source_of(data: RealData, repository: Path) -> Source:
    """Return what an entry `data` of `params.yaml` names.

    Args:
        repository: what a relative folder starts at.

    Raises:
        ValueError: there is no such folder.
    """
    folder = repository / data.folder
    if not folder.is_dir():
        raise ValueError(f"data.folder: {folder} is no folder; expected the dataset {data.name} there. Put it there (a "
                         f"published one with `repro data fetch {data.name}`), or correct the path")
    words = dict.fromkeys(SPLITS, data.max_caption_words) | data.max_caption_words_of
    captions: Captions
    if isinstance(data, OwnData):
        captions = OwnCaptions(folder / data.captions, words, data.num_val, data.num_test)
    else:
        named = {split: folder / file for split, file in data.annotations.items()}
        captions = LayoutCaptions({split: annotation_file(folder, data.name, split) for split in SPLITS} | named, words)
    return Source(data.name, folder, captions, data.expected, data.shards)


def count_problems(source: Source, found: JSON) -> list[str]:
    """Return which counts are not the expected ones, one message each.

    Args:
        found: as `karpathy.counts` gives them.
    """
    return [f"{source.folder}: {split} has {found[split][what]:,} {what}, expected {number:,}. Fetch the annotations "
            "again, or correct data.expected"
            for split, expected in source.expected.items() for what, number in expected.model_dump().items()
            if found[split][what] != number]


def build(prepared: Path, source: Source, data: RealData, journal: Path) -> JSON:
    """Write what the other stages read of a real dataset: annotations, attribution, where images lie, a manifest.

    Args:
        prepared: the folder to write, all of it or nothing; replaced if it exists.
        data: the entry that `source` was made of.
        journal: where to keep what is done of the hashing, if it has to be done.

    Returns:
        The manifest: counts, the SHA-256 of the original annotation files and of every file written.

    Raises:
        ValueError: rows, counts or images are not as they should be.
    """
    whole = source.captions.read()
    wrong = count_problems(source, counts(whole))
    if wrong:
        raise ValueError("\n".join(wrong))
    kept = Annotations(whole.train[:data.max_train], whole.val[:data.max_val], whole.test[:data.max_test])
    names = sorted({image.image for split in SPLITS for image in getattr(kept, split)})
    images = _known_images(source, names, journal)
    with atomic_path(prepared) as aside:
        aside.mkdir(parents=True)
        write_annotations(aside, source.name, kept)
        write_bytes(aside / "ATTRIBUTION.md", attribution(source.name, source.folder).encode())
        write_json(aside / IMAGES_FILE, {"folder": data.folder, "images": images})
        manifest = {"name": source.name, "folder": data.folder, "image_size": data.image_size, "counts": counts(kept),
                    "packages": {}, "sources": {path.name: sha256(path) for path in source.captions.files},
                    "sha256": folder_sha256(aside)}
        write_json(aside / MANIFEST, manifest)
    return manifest


def recorded_images(source: Source) -> dict[str, JSON]:
    """Return what `repro data check` wrote down of every image; nothing if it did not.

    Raises:
        ValueError: the file of that name was not written by it.
    """
    if not source.manifest.is_file():
        return {}
    content = read_json(source.manifest)
    if not isinstance(content, dict) or not content.keys() >= MANIFEST_KEYS:
        raise ValueError(f"{source.manifest}: expected what `repro data check` writes, found another file. "
                         "Rename it")
    return content["images"]


def _known_images(source: Source, names: list[str], journal: Path) -> dict[str, JSON]:
    """Return the record of every image: from the folder's manifest if that may hold, else by looking at the images."""
    recorded = recorded_images(source)
    known = {name: recorded[name] for name in names if name in recorded}
    if len(known) == len(names) and all(_has_its_size(source, name, record) for name, record in known.items()):
        return known
    index = index_images(source.folder, source.shards, names, hash_only, journal)
    if index.problems:
        raise _unusable(source, index)
    return index.images


def _has_its_size(source: Source, name: str, record: JSON) -> bool:
    """Whether an image may still be the recorded one; its hash is compared when it is read."""
    if source.shards is not None:
        return "shard" in record and (source.folder / record["shard"]).is_file()
    path = source.folder / name
    return "shard" not in record and path.is_file() and path.stat().st_size == record["bytes"]


def _unusable(source: Source, index: ImageIndex) -> ValueError:
    shown = list(index.problems.values())[:SHOWN_PROBLEMS]
    more = len(index.problems) - len(shown)
    rest = [f"and {more} more: `repro data check {source.name}` lists all"] if more else []
    return ValueError("\n".join([*shown, *rest]))
