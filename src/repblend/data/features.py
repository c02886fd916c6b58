"""Caches of frozen features: what experts, students and evaluations see instead of images and captions.

Shapes: V views, I training images, M training captions (pairs), N images and C captions of a split.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import TypeAdapter
from torch import Tensor

from repblend.records.base import read_typed
from repblend.sections import Count
from repblend.store import write_json
from repblend.tensors import TensorFile, read_tensors

TYPES = {"features": (torch.float32, torch.float16), "image_index": (torch.int64,), "text_to_image": (torch.int64,)}
"""Tensor -> its types; the others are float32."""
JOURNAL = TypeAdapter(dict[str, Count])
"""File and tensor -> parts that are on the disk."""
PARTS_PER_ENTRY = 16
"""Parts between two entries of the journal: each waits for the disk."""

Part = Iterable[tuple[int, Tensor]]
"""Pieces of a tensor: the row that each begins at, and its values."""


@dataclass(frozen=True)
class SplitFeatures:
    """A validation or test split."""

    images: Tensor
    """(N, D_img) float32."""
    texts: Tensor
    """(C, D_txt) float32."""
    text_to_image: Tensor
    """(C,) int64: which image a caption belongs to."""


@dataclass(frozen=True)
class Features:
    """All splits, as the frozen encoders see them; not normalised to unit length."""

    train_images: Tensor
    """(V, I, D_img) float32 or float16; view 0 is the image itself."""
    train_texts: Tensor
    """(M, D_txt) float32 or float16, one row per caption."""
    train_image_index: Tensor
    """(M,) int64: which image a caption belongs to."""
    val: SplitFeatures
    test: SplitFeatures

    @property
    def widths(self) -> tuple[int, int]:
        """D_img and D_txt."""
        return self.train_images.shape[-1], self.train_texts.shape[-1]

    def images_of(self, images: Tensor) -> Tensor:
        """Return features (B, D_img) float32 of training images (B,) int64, as they are."""
        return widened(self.train_images[0, images])

    def texts_of(self, captions: Tensor | Sequence[int]) -> Tensor:
        """Return features (B, D_txt) float32 of rows of the training captions."""
        return widened(self.train_texts[captions])


def widened(rows: Tensor) -> Tensor:
    """Return rows that were stored as float16 as float32, all others as they are."""
    return rows.float() if rows.dtype == torch.float16 else rows


def feature_files(folder: Path) -> list[Path]:
    """Return the files of a feature cache."""
    return [folder / f"{name}.safetensors" for name in ("train_images", "train_texts", "val", "test")]


def read_features(folder: Path) -> Features:
    """Read the cache and check that its parts belong together.

    Nothing is loaded: the tensors are the files, mapped into memory, and the system reads what is looked at.

    Raises:
        ValueError: a file is missing or damaged, lacks a tensor, or types or shapes disagree.
    """
    images, texts, val, test = feature_files(folder)
    (train_images,) = _tensors(images, "features")
    train_texts, image_index = _tensors(texts, "features", "image_index")
    splits = [SplitFeatures(*_tensors(path, "images", "texts", "text_to_image")) for path in (val, test)]
    if train_images.ndim != 3 or train_texts.ndim != 2:
        raise _mismatch(images, "(views, images, features) and (captions, features)", train_images, train_texts)
    _check_owners(texts, train_texts, image_index, train_images.shape[1])
    for path, split in zip((val, test), splits, strict=True):
        for found, train in ((split.images, train_images), (split.texts, train_texts)):
            if found.ndim != 2 or found.shape[1] != train.shape[-1]:
                raise _mismatch(path, f"(N, {train.shape[-1]}), as in training,", found)
        _check_owners(path, split.texts, split.text_to_image, len(split.images))
    return Features(train_images, train_texts, image_index, *splits)


def _tensors(path: Path, *names: str) -> list[Tensor]:
    tensors, _ = read_tensors(path, mapped=True)  # larger than memory, and never computed where it is used
    missing = [name for name in names if name not in tensors]
    if missing:
        raise ValueError(f"{path}: tensor '{missing[0]}' is missing, expected {', '.join(names)}. Delete the folder "
                         "and run `repro run encode`")
    for name in names:
        expected = TYPES.get(name, (torch.float32,))
        if tensors[name].dtype not in expected:
            raise ValueError(f"{path}: tensor '{name}' is {tensors[name].dtype}, expected "
                             f"{' or '.join(map(str, expected))}. Delete the folder and run `repro run encode`")
    return [tensors[name] for name in names]


def _check_owners(path: Path, texts: Tensor, owners: Tensor, num_images: int) -> None:
    """Every caption has one image, and every image a caption."""
    if owners.shape != texts.shape[:1] or sorted(set(owners.tolist())) != list(range(num_images)):
        raise ValueError(f"{path}: expected one image index in 0..{num_images - 1} for each of {len(texts)} captions, "
                         "and each image at least once. The files come from different runs: delete the folder and run "
                         "`repro run encode`")


def _mismatch(path: Path, expected: str, *found: Tensor) -> ValueError:
    shapes = " and ".join(str(tuple(tensor.shape)) for tensor in found)
    return ValueError(f"{path}: expected features of shape {expected} found {shapes}. The files come from different "
                      "runs: delete the folder and run `repro run encode`")


# A cache that is filled part by part: a run goes on after the last part that an earlier one left on the disk.


def fill(file: TensorFile, tensor: str, journal: Path, parts_from: Callable[[int], Iterator[Part]],
         every: int = PARTS_PER_ENTRY) -> None:
    """Write the parts of a tensor that no earlier run has written.

    Args:
        journal: the file that says how many parts of each tensor are on the disk.
        parts_from: from how many parts are done to the rest of them. A part must not depend on how many that are.
        every: parts between two entries of the journal.

    Raises:
        ValueError: a value is NaN or infinite.
    """
    entries = read_typed(journal, JOURNAL, "journal") if journal.is_file() else {}
    done = before = entries.get(f"{file.name}/{tensor}", 0)

    def record() -> None:
        file.sync()  # first: an entry must not outlive a power cut that its parts do not
        write_json(journal, entries | {f"{file.name}/{tensor}": done})

    for done, part in enumerate(parts_from(before), start=before + 1):
        for row, values in part:
            file.write(tensor, row, values)
        if done % every == 0:
            record()
    record()
