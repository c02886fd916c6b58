"""Labelled images: the splits of a dataset, what is held out, and how pixels become a network's input.

Images are whole bytes (uint8) until a network sees them; then they are divided by 255 and normalised per channel with
the constants of the released code.
"""

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from repblend.streams import stream
from repblend.ufc.image_files import ImageFiles

MAX_PIXEL = 255


@dataclass(frozen=True)
class LabelledImages:
    """Images with one class each.

    Raises:
        ValueError: shapes, types or labels do not fit.
    """

    images: Tensor | ImageFiles
    """(N, 3, H, W) uint8; files that look like it, where a tensor would not fit in memory."""
    labels: Tensor
    """(N,) int64, from 0 to num_classes - 1."""
    num_classes: int

    def __post_init__(self) -> None:
        shape = tuple(self.images.shape)
        if self.images.dtype != torch.uint8 or len(shape) != 4 or shape[1] != 3:
            raise ValueError(f"images: expected uint8 (N, 3, H, W), found {self.images.dtype} {shape}")
        if self.labels.dtype != torch.int64 or self.labels.shape != (shape[0],):
            raise ValueError(f"labels: expected int64 ({shape[0]},), found {self.labels.dtype} "
                             f"{tuple(self.labels.shape)}")
        if len(self.labels) and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < self.num_classes:
            raise ValueError(f"labels: expected 0 to {self.num_classes - 1}, found {int(self.labels.min())} to "
                             f"{int(self.labels.max())}")

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, indices: Tensor) -> "LabelledImages":
        """Return the images at these positions, (n,) int64, in their order; those in files stay there."""
        files = isinstance(self.images, ImageFiles)
        images = self.images.subset(indices) if files else self.images[indices]
        return LabelledImages(images, self.labels[indices], self.num_classes)

    def sha256(self) -> str:
        """Return the SHA-256 of pixels (of images in files: of their names and sizes) and labels."""
        files = isinstance(self.images, ImageFiles)
        digest = self.images.digest() if files else hashlib.sha256(self.images.numpy().tobytes())
        digest.update(self.labels.numpy().tobytes())
        return digest.hexdigest()

    def of_class(self, label: int) -> Tensor:
        """Return the positions of a class's images, ascending."""
        return (self.labels == label).nonzero().flatten()


class Splits(NamedTuple):
    """A dataset. The best epoch is chosen on `val`, never on `test`."""

    train: LabelledImages
    val: LabelledImages
    """Held out of the training images."""
    test: LabelledImages


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation per channel, of pixels between 0 and 1."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def normalise(self, pixels: Tensor) -> Tensor:
        """Return a network's input, (..., 3, H, W) float32, for uint8 pixels or for floats between 0 and 1."""
        unit = pixels.float() / MAX_PIXEL if pixels.dtype == torch.uint8 else pixels
        return (unit - self._column(self.mean, unit)) / self._column(self.std, unit)

    def denormalise(self, inputs: Tensor) -> Tensor:
        """Return pixels between 0 and 1 if the input was clipped; the inverse of `normalise`."""
        return inputs * self._column(self.std, inputs) + self._column(self.mean, inputs)

    def clip(self, inputs: Tensor) -> Tensor:
        """Clip a network's input, channel by channel, to what pixels between 0 and 1 can be."""
        mean, std = self._column(self.mean, inputs), self._column(self.std, inputs)
        return torch.minimum(torch.maximum(inputs, -mean / std), (1 - mean) / std)

    @staticmethod
    def _column(values: tuple[float, float, float], like: Tensor) -> Tensor:
        return torch.tensor(values, dtype=like.dtype, device=like.device).view(3, 1, 1)


NORMALISATIONS = {
    "digits": Normalisation((0.3053,) * 3, (0.3759,) * 3),
    "cifar10": Normalisation((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": Normalisation((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "tiny-imagenet": Normalisation((0.4802, 0.4481, 0.3975), (0.2302, 0.2265, 0.2262)),
    "imagenet": Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""By dataset: the constants of the released code; those of the digits are measured on all of them (a test does)."""


def hold_out(images: LabelledImages, num: int, seed: int, *purpose: str | int) -> tuple[LabelledImages, LabelledImages]:
    """Cut a set in two: what is left, and `num` images that are held out, the same number of every class.

    Both keep the order of the set. Which images go is drawn from the seed and the purpose.

    Raises:
        ValueError: `num` is no multiple of the number of classes, or a class would have no image left.
    """
    per_class, rest = divmod(num, images.num_classes)
    if rest:
        raise ValueError(f"{num} images cannot be the same number of each of {images.num_classes} classes; take a "
                         "multiple")
    held = torch.zeros(len(images), dtype=torch.bool)
    for label in range(images.num_classes):
        own = images.of_class(label)
        if len(own) <= per_class:
            raise ValueError(f"class {label} has {len(own)} images, so {per_class} cannot be held out; hold out fewer")
        order = torch.randperm(len(own), generator=stream(seed, "ufc", "hold out", *purpose, label))
        held[own[order[:per_class]]] = True
    return images.select((~held).nonzero().flatten()), images.select(held.nonzero().flatten())
