"""Integration: compensators are added to real images, clipped, and stored in the released layout.

A set is a folder: `newCCC/classCCC_idJJJ.jpg` (or `.png`) for class CCC and slot JJJ (`repblend.ufc.budget`), or one
`images.safetensors` where pixels are kept as 32-bit floats; and a `manifest.json`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from repblend.ufc.budget import Budget
from repblend.ufc.data import Normalisation
from repblend.ufc.generation import Compensators
from repblend.ufc.initial import InitialImages
from repblend.ufc.params import Generation


@dataclass(frozen=True)
class ImageSet:
    """A set to train students on, read back as it was stored."""

    pixels: Tensor
    """(N, 3, H, W), uint8, or float32 between 0 and 1 where nothing was quantised; class by class, slot by slot."""
    labels: Tensor
    """(N,) int64."""
    num_classes: int
    num_bytes: int
    """Of the image files."""


def write_integrated(folder: Path, initial: InitialImages, compensators: Mapping[str, Compensators], budget: Budget,
                     normalisation: Normalisation, recipe: Generation) -> None:
    """Write the set of a budget: real images as they are and every compensator added to its images; all or nothing.

    Args:
        compensators: architecture -> compensators, in the order of the slots; of more image indices than the budget
            has, the first are taken. Empty: the same pipeline without compensators, n0 real images per class.

    Raises:
        ValueError: there are fewer initial images or compensators than the budget has.
    """
    raise NotImplementedError


def write_images(folder: Path, images: Tensor, labels: Tensor, num_classes: int, recipe: Generation) -> None:
    """Write a set of real images, (N, 3, H, W) uint8 sorted by class, in the same layout (the random baseline)."""
    raise NotImplementedError


def read_image_set(folder: Path) -> ImageSet:
    """Read a set that was written here.

    Raises:
        ValueError: the folder, its manifest or an image is missing, or a class folder holds another number of images.
    """
    raise NotImplementedError
