"""Integration: a budget's real images and compensators become the set that students train on, in the released layout.

s = clip(x + u) to what pixels can be, channel by channel in normalised space, then de-normalised and made 8-bit (INFER,
arXiv 2408.06927; `paper/METHOD.md`, section 12).

A set is a folder: `newCCC/classCCC_idJJJ.jpg` (or `.png`) for class CCC and slot JJJ, and a `manifest.json`. It is
written class by class, with one class in memory.
"""

import io
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from repblend.data.image_store import read_picture
from repblend.progress import progress
from repblend.records.base import Record
from repblend.sections import Count, Positive
from repblend.store import atomic_path
from repblend.ufc.data import (
    MANIFEST,
    MAX_PIXEL,
    ImageFiles,
    InitialImages,
    LabelledImages,
    Normalisation,
    as_unit,
)
from repblend.ufc.generation import Compensators
from repblend.ufc.params import Generation, Quantisation

MAX_BYTES = 4 << 30
"""Of pixels that are read into memory at once; a larger set is decoded batch by batch, to the same bytes."""
SUFFIXES = {"jpeg": ".jpg", "png": ".png"}
BYTES_PER_FLOAT = 4


class SetManifest(Record):
    """What the folder of a set holds."""

    num_classes: Positive
    num_slots: Positive
    """Images of a class."""
    num_bytes: Count
    """Of all images."""
    quantisation: Quantisation


class Slot(NamedTuple):
    """One training image of a class."""

    number: int
    """j, from 0."""
    architecture: int | None
    """Which teacher's compensator is added, from 0; None for a real image as it is."""
    image: int
    """k: which of the class's stored real images."""


@dataclass(frozen=True)
class Budget:
    """What a budget of ipc images per class allows with C classes and M architectures, as released.

    n0 real images of every class are stored and M * n0 compensators for all classes together,
    n0 = floor(ipc / (M/C + 1)), so that n0 * C + M * n0 <= ipc * C. Adding every compensator to its images gives
    n0 * (M + 1) images per class to train on: slot j < n0 is real image j as it is, slot j >= n0 is real image j mod n0
    with the compensator of architecture floor(j / n0), counted from 1.

    Raises:
        ValueError: a number is not positive, or the budget does not allow one real image per class.
    """

    ipc: int
    num_classes: int
    num_architectures: int

    def __post_init__(self) -> None:
        if min(self.ipc, self.num_classes, self.num_architectures) < 1:
            raise ValueError(f"{self}: expected positive numbers")
        if self.num_real < 1:
            raise ValueError(f"budget {self.ipc}: with {self.num_architectures} compensators shared by "
                             f"{self.num_classes} classes not one image per class fits; take a larger budget or fewer "
                             "architectures")

    @property
    def num_real(self) -> int:
        """n0: stored real images per class."""
        return num_real_images(self.ipc, self.num_classes, self.num_architectures)

    @property
    def num_slots(self) -> int:
        """Training images per class, n0 * (M + 1)."""
        return self.num_real * (self.num_architectures + 1)

    @property
    def num_compensators(self) -> int:
        """M * n0, for all classes together."""
        return self.num_architectures * self.num_real

    @property
    def num_stored(self) -> int:
        """Image-sized tensors that the budget counts: real images and compensators."""
        return self.num_real * self.num_classes + self.num_compensators

    @property
    def num_allowed(self) -> int:
        """Image-sized tensors that the budget allows, ipc * C."""
        return self.ipc * self.num_classes

    def slots(self) -> list[Slot]:
        """Return what the training images of a class are made of, in the order of their numbers."""
        return [Slot(number, number // self.num_real - 1 if number >= self.num_real else None, number % self.num_real)
                for number in range(self.num_slots)]


def num_real_images(ipc: int, num_classes: int, num_architectures: int) -> int:
    """Return n0. In doubles, as released: where the quotient is whole, rounding may give one image less than exact
    arithmetic, for example with 33 images per class, 10 classes and one architecture.
    """
    return int(ipc / (num_architectures / num_classes + 1))


def integrate(images: Tensor, compensators: Tensor, normalisation: Normalisation) -> Tensor:
    """Add compensators (..., 3, H, W), in normalised space, to images (..., 3, H, W) uint8.

    Returns:
        Pixels between 0 and 1, float32.
    """
    return to_pixels(normalisation.normalise(images) + compensators, normalisation)


def to_pixels(inputs: Tensor, normalisation: Normalisation) -> Tensor:
    """Clip a network's inputs to what pixels can be, and return these between 0 and 1."""
    return normalisation.denormalise(normalisation.clip(inputs)).clamp(0, 1)


def as_stored(images: Tensor, normalisation: Normalisation, recipe: Generation) -> Tensor:
    """Return real images (..., 3, H, W) uint8 as pixels between 0 and 1, float32.

    Rounded as released they pass through normalising and back, so that a fifth of them lie a little below what they
    were, and are one less once the fraction is cut off.
    """
    if recipe.rounding != "released":
        return as_unit(images)
    return normalisation.denormalise(normalisation.normalise(images)).clamp(0, 1)


def write_integrated(folder: Path, initial: InitialImages, compensators: Mapping[str, Compensators], budget: Budget,
                     normalisation: Normalisation, recipe: Generation, first: int = 0) -> None:
    """Write the set of a budget: real images as they are and every compensator added to its images; all or nothing.

    Args:
        compensators: architecture -> compensators, in the order of the slots. Empty: the same pipeline without
            compensators, n0 real images per class.
        first: image index of the set's first image and compensator; what follows the last is left alone.

    Raises:
        ValueError: there are fewer initial images or compensators than the budget has.
    """
    made, needed = list(compensators.values()), first + budget.num_real
    if initial.num_per_class < needed or initial.num_classes != budget.num_classes:
        raise ValueError(f"initial images: {initial.num_per_class} of {initial.num_classes} classes, budget "
                         f"{budget.ipc} needs {needed} of {budget.num_classes}; draw for the largest budget")
    if made and len(made) != budget.num_architectures:
        raise ValueError(f"compensators of {len(made)} architectures, the budget has {budget.num_architectures}")
    for number, own in enumerate(made):
        if len(own.values) < needed:
            raise ValueError(f"architecture {number}: {len(own.values)} compensators, budget {budget.ipc} needs "
                             f"{needed}; make them for the largest budget")
    slots = budget.slots() if made else budget.slots()[:budget.num_real]

    def of_class(label: int) -> Tensor:
        real = [initial.read(image, slice(label, label + 1))[0] for image in range(first, needed)]
        return torch.stack([
            as_stored(real[slot.image], normalisation, recipe) if slot.architecture is None else
            integrate(real[slot.image], made[slot.architecture].values[first + slot.image], normalisation)
            for slot in slots])

    _write_set(folder, budget.num_classes, len(slots), of_class, recipe)


def write_images(folder: Path, real: LabelledImages, normalisation: Normalisation, recipe: Generation) -> None:
    """Write a set of real images with the same number of every class, in the same layout; raises `ValueError` if
    classes have different numbers of images.
    """
    counts = torch.bincount(real.labels, minlength=real.num_classes)
    if (counts != counts[0]).any():
        raise ValueError(f"classes have {int(counts.min())} to {int(counts.max())} images; a set has one number of all")
    _write_set(folder, real.num_classes, int(counts[0]),
               lambda label: as_stored(real.images[real.labels == label], normalisation, recipe), recipe)


def _write_set(folder: Path, num_classes: int, num_slots: int, of_class: Callable[[int], Tensor],
               recipe: Generation) -> None:
    """Write every class's pixels, (num_slots, 3, H, W) float32 between 0 and 1."""
    with atomic_path(folder) as aside:
        aside.mkdir()
        for label in progress(range(num_classes), f"write {folder.name}", "class"):
            (aside / f"new{label:03d}").mkdir()
            for number, image in enumerate(to_bytes(of_class(label), recipe.rounding)):
                path = aside / image_name(label, number, SUFFIXES[recipe.quantisation])
                path.write_bytes(encode(image, recipe.quantisation))
        _write_manifest(aside, num_classes, num_slots, recipe.quantisation)


def _write_manifest(folder: Path, num_classes: int, num_slots: int, quantisation: Quantisation) -> None:
    num_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    SetManifest(num_classes=num_classes, num_slots=num_slots, num_bytes=num_bytes,
                quantisation=quantisation).write(folder / MANIFEST)


def to_bytes(pixels: Tensor, rounding: str) -> Tensor:
    """Return pixels between 0 and 1 as uint8, with the fraction cut off.

    `down` leaves a tolerance of a thousandth, so that a byte that was divided by 255 comes back; `released` does
    not.
    """
    return (pixels * MAX_PIXEL + (0.0 if rounding == "released" else 1e-3)).floor().to(torch.uint8)


def encode(image: Tensor, quantisation: str) -> bytes:
    """Return an image file, `png` or `jpeg` of Pillow's own quality, 75, as released, of (3, H, W) uint8."""
    file = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(file, quantisation.upper())
    return file.getvalue()


def image_name(label: int, slot: int, suffix: str) -> str:
    """Return the released path of an image within its set."""
    return f"new{label:03d}/class{label:03d}_id{slot:03d}{suffix}"


def read_image_set(folder: Path) -> LabelledImages:
    """Read a set that was written here: class by class, slot by slot; in files where it takes more than `MAX_BYTES`;
    raises `ValueError` if the folder, its manifest or an image is missing, or a class folder holds another number of
    images.
    """
    manifest = SetManifest.read(folder / MANIFEST)
    num_classes, num_slots = manifest.num_classes, manifest.num_slots
    pixels = _read_files(folder, num_classes, num_slots, SUFFIXES[manifest.quantisation])
    return LabelledImages(pixels, torch.arange(num_classes).repeat_interleave(num_slots), num_classes)


def import_released_set(source: Path, target: Path, num_classes: int, num_slots: int) -> None:
    """Take a set that the release's own code wrote: JPEGs in the same layout, without a manifest; raises `ValueError`
    if a class folder holds another number of images, or one is not an image.
    """
    if link := next((path for path in source.glob("new*/*") if path.is_symlink()), None):
        raise ValueError(f"{link}: is a link, expected images alone in a set that is imported. Put the image there")
    _read_files(source, num_classes, num_slots, SUFFIXES["jpeg"])
    with atomic_path(target) as aside:
        shutil.copytree(source, aside, ignore=lambda folder, names: [
            name for name in names if not name.startswith("new") and not name.endswith(SUFFIXES["jpeg"])])
        _write_manifest(aside, num_classes, num_slots, "jpeg")


def _read_files(folder: Path, num_classes: int, num_slots: int, suffix: str) -> Tensor | ImageFiles:
    """Find the images of all classes, and decode them if there is room."""
    paths = []
    for label in range(num_classes):
        own = folder / f"new{label:03d}"
        expected = [folder / image_name(label, slot, suffix) for slot in range(num_slots)]
        found = sorted(own.glob(f"*{suffix}"))
        if found != expected:
            raise ValueError(f"{own}: expected {num_slots} images class{label:03d}_id*{suffix}, found {len(found)}; "
                             "make the set again")
        paths += expected
    size = read_picture(paths[0], folder).width
    files = ImageFiles(paths, size, "squash")  # to the size that they have
    return files if len(files) * 3 * size * size > MAX_BYTES else files[torch.arange(len(files))]

