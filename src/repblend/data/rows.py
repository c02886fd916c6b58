"""The captions of a real dataset, wherever they stand: row by row for who looks for faults, or as a whole."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from repblend.data.json_rows import stream_rows
from repblend.data.karpathy import SPLITS, Annotations, captions_of, image_of, read_splits
from repblend.data_params import SplitName


@dataclass(frozen=True)
class RawRow:
    """A row that nobody has looked at yet."""

    where: str
    """What an error calls it: file and number."""
    split: SplitName | None
    """The split of its file; None in a file for all splits."""
    row: Any


@dataclass(frozen=True)
class ParsedRow:
    """A row of the right layout. Its texts may still be no captions."""

    image: str
    split: SplitName | None
    """None if that is decided later."""
    texts: Sequence[Any]


class Captions(Protocol):
    """Where the captions of a dataset stand."""

    @property
    def max_caption_words(self) -> Mapping[SplitName, int]:
        """How many words a caption of each split keeps."""

    @property
    def files(self) -> list[Path]:
        """The files that hold the captions."""

    def rows(self, file: Path) -> Iterator[RawRow]:
        """Yield every row of one of the files; raises ValueError where it cannot be read any further."""

    def parse(self, raw: RawRow) -> ParsedRow:
        """Check a row's layout; raises ValueError, and the message names the row."""

    def read(self) -> Annotations:
        """Read and check all of it; raises ValueError at the first thing that is wrong."""


@dataclass(frozen=True)
class LayoutCaptions:
    """Annotation files in the BLIP/Karpathy layout, one per split."""

    file_of: Mapping[SplitName, Path]
    max_caption_words: Mapping[SplitName, int]

    @property
    def files(self) -> list[Path]:
        return [self.file_of[split] for split in SPLITS]

    def rows(self, file: Path) -> Iterator[RawRow]:
        split = next(split for split in SPLITS if self.file_of[split] == file)
        return (RawRow(f"{file}, row {number}", split, row) for number, row in enumerate(stream_rows(file)))

    def parse(self, raw: RawRow) -> ParsedRow:
        assert raw.split
        return ParsedRow(image_of(raw.row, raw.where), raw.split, captions_of(raw.row, raw.where, raw.split))

    def read(self) -> Annotations:
        return read_splits(self.file_of, self.max_caption_words)
