"""Look at a whole dataset and say everything that is wrong with it: rows, captions, counts, images.

Rows are read one at a time and images are looked at one by one, so memory holds the names of the images and what is
found, never the captions or the images themselves.
"""

import hashlib
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from repblend.data.image_index import index_images, whole_image
from repblend.data.karpathy import SPLITS, clean, in_two_splits, second_row
from repblend.data.own import OwnCaptions, split_by_hash
from repblend.data.rows import ParsedRow, RawRow
from repblend.data.source import Source, count_problems, recorded_images
from repblend.data_params import SplitName
from repblend.store import JSON, sha256, write_json


@dataclass
class NamedImage:
    """An image that a row names."""

    where: str
    """The first such row."""
    split: SplitName | None
    num_captions: int = 0


@dataclass
class RowFindings:
    """What the rows of a dataset say, and what is wrong with them."""

    images: dict[str, NamedImage] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    repeats: dict[SplitName | None, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Rows and captions that stand there twice, by their split."""
    seen: set[bytes] = field(default_factory=set)
    """A short hash of every image and caption."""

    def take(self, raw: RawRow, row: ParsedRow, most_words: int) -> None:
        """Note a row of the right layout."""
        image = self.images.setdefault(row.image, NamedImage(raw.where, row.split))
        if image.split != row.split:
            self.problems.append(str(in_two_splits(row.image, raw.where, image.where)))
            return
        if raw.split in ("val", "test") and image.where != raw.where:
            self.problems.append(str(second_row(row.image, raw.where)))
            return
        image.num_captions += len(row.texts)
        for text in row.texts:
            try:
                clean(text, most_words, raw.where)
            except ValueError as error:
                self.problems.append(str(error))
            else:
                self._note_repeat(raw.where, row, text)

    def _note_repeat(self, where: str, row: ParsedRow, text: str) -> None:
        key = hashlib.blake2b(f"{row.image}\0{text}".encode(), digest_size=12).digest()
        if key in self.seen:
            self.repeats[row.split].append(f"{where}: image '{row.image}' has the caption {text!r} already. Remove one")
        self.seen.add(key)


@dataclass(frozen=True)
class Report:
    """What is wrong with a dataset."""

    counts: JSON
    """Images and captions of every split."""
    problems: list[str]
    """Everything that has to be mended, one message each."""
    notes: list[str]
    """What is odd, but as published."""
    images: dict[str, JSON]
    """Of every image that is right: bytes and SHA-256, and its place in a shard."""


def check(source: Source, journal: Path) -> Report:
    """Look at every row and every image of a dataset.

    Args:
        journal: where to keep which images are right already; the next look goes on there.

    Raises:
        ValueError: the pattern of shards fits no file, or the folder has another file of the manifest's name.
    """
    recorded_images(source)  # what the manifest would replace must not be somebody's own
    rows = _look_at_rows(source)
    counts = _counts(source, rows)
    wrong_counts = count_problems(source, counts)
    empty = [f"{source.folder}: no image in {split}; expected at least one" for split in SPLITS
             if not counts[split]["images"]]
    index = index_images(source.folder, source.shards, rows.images, whole_image, journal)
    unusable = [f"{rows.images[name].where}: {problem}" if name in rows.images else problem
                for name, problem in index.problems.items()]
    as_published = set(source.expected) if not wrong_counts else set()
    notes = [each for split, repeats in rows.repeats.items() if split in as_published for each in repeats]
    repeats = [each for split, repeats in rows.repeats.items() if split not in as_published for each in repeats]
    return Report(counts, rows.problems + repeats + wrong_counts + empty + unusable, notes, index.images)


def write_manifest(source: Source, report: Report) -> None:
    """Write what was found beside the images, for stage `prepare` and for whoever wants to know what lies there."""
    write_json(source.manifest, {"name": source.name, "counts": report.counts, "images": report.images,
                                 "annotations": {path.name: sha256(path) for path in source.captions.files}})


def _look_at_rows(source: Source) -> RowFindings:
    findings, captions = RowFindings(), source.captions
    most_words = max(captions.max_caption_words.values())
    for file in captions.files:
        try:
            for raw in captions.rows(file):
                try:
                    row = captions.parse(raw)
                except ValueError as error:
                    findings.problems.append(str(error))
                else:
                    findings.take(raw, row, most_words)
        except ValueError as error:  # nothing more of this file can be read
            findings.problems.append(str(error))
    return findings


def _counts(source: Source, rows: RowFindings) -> JSON:
    hashed = {}
    if isinstance(source.captions, OwnCaptions) and source.captions.num_val and source.captions.num_test:
        hashed = split_by_hash(list(rows.images), source.captions.num_val, source.captions.num_test)
    counts = {split: {"images": 0, "captions": 0} for split in SPLITS}
    for name, image in rows.images.items():
        split = counts[hashed.get(name) or image.split]
        split["images"] += 1
        split["captions"] += image.num_captions
    return counts
