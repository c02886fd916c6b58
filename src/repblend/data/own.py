"""A set of one's own: a folder of images, and one CSV or JSON file that says which caption belongs to which image.

A CSV file has a header with the columns `image` and `caption`, and a row per caption. A JSON file holds a list of
objects {"image", "caption"}, where the caption is text or a list of texts. Both may name the split of a row (`split`:
train, val or test). If none does, a stable hash of the images' names decides.
"""

import csv
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repblend.data.json_rows import stream_rows
from repblend.data.karpathy import SPLITS, AnnotatedImage, Annotations, clean, image_of, in_two_splits
from repblend.data.rows import ParsedRow, RawRow
from repblend.data_params import SplitName
from repblend.store import JSON

COLUMNS = ("image", "caption")


@dataclass(frozen=True)
class OwnCaptions:
    """The captions of a set of one's own (a `repblend.data.rows.Captions`)."""

    file: Path
    max_caption_words: Mapping[SplitName, int]
    num_val: int | None
    """Validation images; None if every row names its split."""
    num_test: int | None

    @property
    def files(self) -> list[Path]:
        return [self.file]

    def rows(self, file: Path) -> Iterator[RawRow]:
        if file.suffix.lower() != ".json":
            return _csv_rows(file)
        return (RawRow(f"{file}, row {number}", None, row) for number, row in enumerate(stream_rows(file)))

    def parse(self, raw: RawRow) -> ParsedRow:
        image = image_of(raw.row, raw.where)
        return ParsedRow(image, self._split_of(raw.row, raw.where), _texts_of(raw.row, raw.where))

    def _split_of(self, row: JSON, where: str) -> SplitName | None:
        named = row.get("split")
        if self.num_val is not None:
            if named not in (None, ""):
                raise ValueError(f"{where}: names the split {named!r}, but data.num_val and data.num_test are given "
                                 "too. Take out either the column 'split' or these two")
            return None
        if named not in SPLITS:
            raise ValueError(f"{where}: expected 'split' to be train, val or test, found {named!r}. Correct it, or "
                             "give data.num_val and data.num_test and no row a split")
        return named

    def read(self) -> Annotations:
        captions: dict[str, list[str]] = {}
        splits: dict[str, SplitName | None] = {}
        for raw in self.rows(self.file):
            row = self.parse(raw)
            if splits.setdefault(row.image, row.split) != row.split:
                raise in_two_splits(row.image, raw.where, str(splits[row.image]))
            most = max(self.max_caption_words.values())
            captions.setdefault(row.image, []).extend(clean(text, most, raw.where) for text in row.texts)
        return self._annotations(captions, splits)

    def _annotations(self, captions: Mapping[str, Sequence[str]], splits: dict[str, SplitName | None]) -> Annotations:
        if self.num_val is not None and self.num_test is not None:
            splits = split_by_hash(list(captions), self.num_val, self.num_test)
        members = {split: [image for image in captions if splits[image] == split] for split in SPLITS}
        empty = [split for split in SPLITS if not members[split]]
        if empty:
            raise ValueError(f"{self.file}: {len(captions)} images leave none for {' and '.join(empty)}. Lower "
                             "data.num_val and data.num_test, or correct the column 'split'")
        return Annotations(**{split: tuple(self._annotated(image, captions[image], split) for image in members[split])
                              for split in SPLITS})

    def _annotated(self, image: str, captions: Sequence[str], split: SplitName) -> AnnotatedImage:
        kept = self.max_caption_words[split]
        return AnnotatedImage(image, tuple(" ".join(caption.split(" ")[:kept]) for caption in captions))


def _texts_of(row: JSON, where: str) -> Sequence[Any]:
    caption = row.get("caption")
    if caption is None or caption == []:
        raise ValueError(f"{where}: expected a caption, or a list of them, found {caption!r}. Add it, or remove "
                         "the row")
    return caption if isinstance(caption, list) else [caption]


def split_by_hash(images: Sequence[str], num_val: int, num_test: int) -> dict[str, SplitName]:
    """Return every image's split: by the SHA-256 of its name, the first to validation, the next to test."""
    ordered = sorted(images, key=lambda image: hashlib.sha256(image.encode()).hexdigest())
    return {image: "val" if number < num_val else "test" if number < num_val + num_test else "train"
            for number, image in enumerate(ordered)}


def _csv_rows(path: Path) -> Iterator[RawRow]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            absent = [column for column in COLUMNS if column not in (reader.fieldnames or [])]
            if absent:
                raise ValueError(f"{path}, line 1: expected the columns image and caption, found "
                                 f"{', '.join(reader.fieldnames or [])!r}. Name the columns in the first line")
            for row in reader:
                if None in row:
                    raise ValueError(f"{path}, line {reader.line_num}: has more fields than the first line. Put "
                                     "captions with commas between quotes")
                yield RawRow(f"{path}, line {reader.line_num}", None, row)
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such file. Put it there, or correct data.captions") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: expected a CSV file in UTF-8 ({error}). Correct or convert it") from error
