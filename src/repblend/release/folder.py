"""The folder of a released set: what `datasets.load_dataset` opens, and the exact tensors beside it.

    README.md             the data card
    images/000.png ...    the images as a screen can show them, values outside its range cut off
    images/metadata.jsonl one row per pair: text embedding, nearest captions, soft similarity to every text
    set.safetensors       images, texts, similarity and learned rates as students get them, every bit
    release.json          shapes, rates, encoders, how the images are normalised, and the recorded evaluation

Shapes: N pairs, D_txt text width. Floats in JSON lines are float32 values written so that they are read back exactly.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from repblend.analysis.specimens import nearest_captions
from repblend.data.images import png_bytes
from repblend.encoders.image import ImageEncoder
from repblend.matching.synthetic_set import SyntheticSet
from repblend.release.card import card
from repblend.store import JSON, atomic_path, write_json

SET = "set.safetensors"
FACTS = "release.json"
IMAGES = "images"


@dataclass(frozen=True)
class Release:
    """A set with all that its folder tells of it."""

    path: Path
    """The set's file in the workspace."""
    synthetic: SyntheticSet
    encoder: ImageEncoder
    """Whose mean and standard deviation the images are normalised with."""
    caption_features: Tensor
    """(M, D_txt) embeddings of the captions that the set was made from."""
    captions: Sequence[str]
    """These M captions."""
    facts: JSON
    """What `release.json` says besides what the set itself says."""
    attribution: str
    """Whom the source data is from and under which licence, Markdown."""

    def write(self, folder: Path) -> None:
        """Write the folder, all of it or nothing; an existing one is replaced.

        Raises:
            ValueError: the folder exists and is no released set.
            OSError: the disk is full.
        """
        if folder.exists() and not (folder / FACTS).is_file():
            raise ValueError(f"{folder}: exists and is no released set (it has no {FACTS}). Name a folder that does "
                             "not exist yet, or remove this one")
        with atomic_path(folder) as aside:
            images = aside / IMAGES
            images.mkdir(parents=True)
            for number, image in enumerate(self.synthetic.images):
                (images / _file_name(number)).write_bytes(png_bytes(image, self.encoder.mean, self.encoder.std))
            rows = (json.dumps(row, ensure_ascii=False) for row in self._rows())
            (images / "metadata.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
            shutil.copyfile(self.path, aside / SET)
            facts = self._facts()
            write_json(aside / FACTS, facts)
            (aside / "README.md").write_text(card(facts, self.attribution), encoding="utf-8")

    def _rows(self) -> Iterator[JSON]:
        nearest = nearest_captions(self.synthetic.texts, self.caption_features, self.captions)
        similarity = self.synthetic.similarity.matrix()
        for number, (text, captions, row) in enumerate(zip(self.synthetic.texts, nearest, similarity, strict=True)):
            yield {"file_name": _file_name(number), "text_embedding": text.tolist(),
                   "nearest_captions": [each["caption"] for each in captions],
                   "nearest_cosines": [each["cosine"] for each in captions], "similarity": row.tolist()}

    def _facts(self) -> JSON:
        synthetic = self.synthetic
        return self.facts | {
            "num_pairs": synthetic.num_pairs, "image_shape": list(synthetic.images.shape[1:]),
            "text_width": synthetic.texts.shape[1], "lr_img": synthetic.lr_img, "lr_txt": synthetic.lr_txt,
            "stored_bytes": synthetic.stored_bytes, "image_mean": self.encoder.mean.tolist(),
            "image_std": self.encoder.std.tolist(), "set": synthetic.metadata}


def _file_name(number: int) -> str:
    return f"{number:05d}.png"
