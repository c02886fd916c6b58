"""A set of one's own: a folder of images, and one file that says which caption belongs to which image.

The file is CSV, a JSON list, or a JSON object per line (`repblend.data.rows`); a caption of JSON is text or a list of
texts. All may name the split of a row (`split`: train, val or test). If none does, a stable hash of the images' names
decides.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repblend.data.karpathy import SPLITS, CaptionRow, Captions, image_of
from repblend.params.data import SplitName
from repblend.store import quoted


@dataclass(frozen=True)
class OwnCaptions(Captions):
    """One file with the captions of all splits."""

    num_val: int | None
    """Validation images; None if every row names its split."""
    num_test: int | None

    def parse(self, file: Path, where: str, raw: Any) -> CaptionRow:
        """As `Captions.parse`."""
        image, named, caption = image_of(raw, where), raw.get("split"), raw.get("caption")
        if self.num_val is not None and named not in (None, ""):
            raise ValueError(f"{where}: names the split {named!r}, but data.num_val and data.num_test are given too. "
                             "Take out either the column 'split' or these two")
        if self.num_val is None and named not in SPLITS:
            raise ValueError(f"{where}: expected 'split' to be train, val or test, found {quoted(named)}. Correct it, "
                             "or give data.num_val and data.num_test and no row a split")
        if caption is None or caption == []:
            raise ValueError(f"{where}: expected a caption, or a list of them, found {quoted(caption)}. Add it, or "
                             "remove the row")
        captions = caption if isinstance(caption, list) else [caption]
        return CaptionRow(where, image, named or None, captions, is_only=False)

    def split_of(self, images: Mapping[str, SplitName | None]) -> Mapping[str, SplitName | None]:
        """Return every image's split: that of its rows, or by the SHA-256 of its name, the first to validation, the
        next to test.
        """
        if self.num_val is None or self.num_test is None:
            return images
        ordered = sorted(images, key=lambda image: hashlib.sha256(image.encode()).hexdigest())
        held_out = self.num_val + self.num_test
        return {image: "val" if number < self.num_val else "test" if number < held_out else "train"
                for number, image in enumerate(ordered)}
