"""Integration: compensators are added to real images, clipped, and stored in the released layout.

s = clip(x + u) to what pixels can be, channel by channel in normalised space, then de-normalised and made 8-bit.

A set is a folder: `newCCC/classCCC_idJJJ.jpg` (or `.png`) for class CCC and slot JJJ (`repblend.ufc.budget`), or, where
pixels are kept as 32-bit floats, `newCCC/classCCC.safetensors`; and a `manifest.json`. It is written class by class, so
what is in memory is one class.
"""

import hashlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from repblend.progress import progress
from repblend.store import atomic_path, read_json, read_tensors, write_json, write_tensors
from repblend.ufc.budget import Budget, Slot
from repblend.ufc.data import MAX_PIXEL, Normalisation
from repblend.ufc.generation import Compensators
from repblend.ufc.image_files import ImageFiles
from repblend.ufc.initial import InitialImages
from repblend.ufc.params import Generation

MANIFEST = "manifest.json"
MAX_BYTES = 4 << 30
"""Of pixels that are read into memory at once; a larger set is decoded batch by batch, to the same bytes."""
SUFFIXES = {"jpeg": ".jpg", "png": ".png", "tensor": ".safetensors"}


@dataclass(frozen=True)
class ImageSet:
    """A set to train students on, read back as it was stored."""

    pixels: Tensor | ImageFiles
    """(N, 3, H, W), uint8, or float32 between 0 and 1 where nothing was quantised; class by class, slot by slot. Files
    that look like it, where more than `MAX_BYTES` of memory would be taken (ImageNet)."""
    labels: Tensor
    """(N,) int64."""
    num_classes: int
    num_bytes: int
    """Of the image files."""

    def __len__(self) -> int:
        return len(self.labels)

    def sha256(self) -> str:
        """Return the SHA-256 of pixels and labels."""
        files = isinstance(self.pixels, ImageFiles)
        digest = self.pixels.digest() if files else hashlib.sha256(self.pixels.numpy().tobytes())
        digest.update(self.labels.numpy().tobytes())
        return digest.hexdigest()


def integrate(images: Tensor, compensators: Tensor, normalisation: Normalisation) -> Tensor:
    """Add compensators (..., 3, H, W), in normalised space, to images (..., 3, H, W) uint8.

    Returns:
        Pixels between 0 and 1, float32.
    """
    return normalisation.denormalise(normalisation.clip(normalisation.normalise(images) + compensators)).clamp(0, 1)


def write_integrated(folder: Path, initial: InitialImages, compensators: Mapping[str, Compensators], budget: Budget,
                     normalisation: Normalisation, recipe: Generation) -> None:
    """Write the set of a budget: real images as they are and every compensator added to its images; all or nothing.

    Args:
        compensators: architecture -> compensators, in the order of the slots; of more image indices than the budget
            has, the first are taken. Empty: the same pipeline without compensators, n0 real images per class.

    Raises:
        ValueError: there are fewer initial images or compensators than the budget has.
    """
    made = list(compensators.values())
    _check_enough(initial, made, budget)
    slots = budget.slots() if made else budget.slots()[:budget.num_real]

    def of_class(label: int) -> Tensor:
        real = [initial.read(image, slice(label, label + 1))[0] for image in range(budget.num_real)]
        return torch.stack([_filled(slot, real[slot.image], made, label, normalisation) for slot in slots])

    _write_set(folder, budget.num_classes, len(slots), of_class, recipe)


def _check_enough(initial: InitialImages, made: list[Compensators], budget: Budget) -> None:
    if initial.num_per_class < budget.num_real or initial.num_classes != budget.num_classes:
        raise ValueError(f"initial images: {initial.num_per_class} of {initial.num_classes} classes, budget "
                         f"{budget.ipc} has {budget.num_real} of {budget.num_classes}; draw for the largest budget")
    if made and len(made) != budget.num_architectures:
        raise ValueError(f"compensators of {len(made)} architectures, the budget has {budget.num_architectures}")
    for number, own in enumerate(made):
        if len(own.values) < budget.num_real:
            raise ValueError(f"architecture {number}: {len(own.values)} compensators, budget {budget.ipc} has "
                             f"{budget.num_real}; make them for the largest budget")


def _filled(slot: Slot, real: Tensor, made: list[Compensators], label: int, normalisation: Normalisation) -> Tensor:
    """Return a slot's pixels, (3, H, W) float32 between 0 and 1."""
    if slot.architecture is None:
        return real.float() / MAX_PIXEL
    return integrate(real, made[slot.architecture].of_class(slot.image, label), normalisation)


def write_images(folder: Path, images: Tensor, labels: Tensor, num_classes: int, recipe: Generation) -> None:
    """Write a set of real images, (N, 3, H, W) uint8 with the same number of every class, in the same layout.

    Raises:
        ValueError: classes have different numbers of images.
    """
    counts = torch.bincount(labels, minlength=num_classes)
    if (counts != counts[0]).any():
        raise ValueError(f"classes have {int(counts.min())} to {int(counts.max())} images; a set has one number of all")
    _write_set(folder, num_classes, int(counts[0]), lambda label: images[labels == label].float() / MAX_PIXEL, recipe)


def _write_set(folder: Path, num_classes: int, num_slots: int, of_class: Callable[[int], Tensor],
               recipe: Generation) -> None:
    """Write every class's pixels, (num_slots, 3, H, W) float32 between 0 and 1."""
    with atomic_path(folder) as aside:
        aside.mkdir()
        for label in progress(range(num_classes), f"write {folder.name}", "class"):
            (aside / f"new{label:03d}").mkdir()
            _write_class(aside, label, of_class(label), recipe)
        num_bytes = sum(path.stat().st_size for path in aside.rglob("*") if path.is_file())
        write_json(aside / MANIFEST, {"num_classes": num_classes, "num_slots": num_slots, "num_bytes": num_bytes,
                                      "quantisation": recipe.quantisation})


def _write_class(folder: Path, label: int, pixels: Tensor, recipe: Generation) -> None:
    if recipe.quantisation == "tensor":
        write_tensors(_class_file(folder, label), {"pixels": pixels})
        return
    for number, image in enumerate(to_bytes(pixels, recipe.rounding)):
        (folder / image_name(label, number, SUFFIXES[recipe.quantisation])).write_bytes(encode(image, recipe))


def to_bytes(pixels: Tensor, rounding: str) -> Tensor:
    """Return pixels between 0 and 1 as uint8: rounded to the nearest, or with the fraction cut off (as released).

    Cutting off leaves a tolerance of a thousandth, so that a byte that was divided by 255 comes back.
    """
    scaled = pixels * MAX_PIXEL
    return (scaled.round() if rounding == "nearest" else (scaled + 1e-3).floor()).to(torch.uint8)


def encode(image: Tensor, recipe: Generation) -> bytes:
    """Return an image file of (3, H, W) uint8."""
    file = io.BytesIO()
    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    if recipe.quantisation == "jpeg":
        picture.save(file, "JPEG", quality=recipe.jpeg_quality)
    else:
        picture.save(file, "PNG")
    return file.getvalue()


def image_name(label: int, slot: int, suffix: str) -> str:
    """Return the released path of an image within its set."""
    return f"new{label:03d}/class{label:03d}_id{slot:03d}{suffix}"


def _class_file(folder: Path, label: int) -> Path:
    return folder / f"new{label:03d}" / f"class{label:03d}.safetensors"


def read_image_set(folder: Path) -> ImageSet:
    """Read a set that was written here.

    Raises:
        ValueError: the folder, its manifest or an image is missing, or a class folder holds another number of images.
    """
    manifest = read_json(folder / MANIFEST)
    num_classes, num_slots = manifest["num_classes"], manifest["num_slots"]
    labels = torch.arange(num_classes).repeat_interleave(num_slots)
    if manifest["quantisation"] == "tensor":
        classes = [read_tensors(_class_file(folder, label))[0]["pixels"] for label in range(num_classes)]
        return ImageSet(torch.cat(classes), labels, num_classes, manifest["num_bytes"])
    pixels = _read_files(folder, num_classes, num_slots, SUFFIXES[manifest["quantisation"]])
    return ImageSet(pixels, labels, num_classes, manifest["num_bytes"])


def read_released_set(folder: Path, num_classes: int, num_slots: int) -> ImageSet:
    """Read a set that the release's own code wrote: JPEGs in the same layout, without a manifest.

    Raises:
        ValueError: a class folder holds another number of images, or one is not an image.
    """
    pixels = _read_files(folder, num_classes, num_slots, SUFFIXES["jpeg"])
    num_bytes = sum(path.stat().st_size for path in folder.glob("new*/*.jpg"))
    return ImageSet(pixels, torch.arange(num_classes).repeat_interleave(num_slots), num_classes, num_bytes)


def _read_files(folder: Path, num_classes: int, num_slots: int, suffix: str) -> Tensor | ImageFiles:
    """Find the images of all classes, and decode them if there is room."""
    paths = [path for label in range(num_classes) for path in _class_images(folder, label, num_slots, suffix)]
    size = _side(paths[0])
    files = ImageFiles(paths, size, "squash")  # to the size that they have
    return files if len(files) * 3 * size * size > MAX_BYTES else files[torch.arange(len(files))]


def _class_images(folder: Path, label: int, num_slots: int, suffix: str) -> list[Path]:
    found = sorted((folder / f"new{label:03d}").glob(f"*{suffix}"))
    expected = [folder / image_name(label, slot, suffix) for slot in range(num_slots)]
    if found != expected:
        raise ValueError(f"{folder / f'new{label:03d}'}: expected {num_slots} images class{label:03d}_id*{suffix}, "
                         f"found {len(found)}; make the set again")
    return expected


def _side(path: Path) -> int:
    try:
        with Image.open(path) as picture:
            return picture.width
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{path}: expected an image ({error}); make the set again") from error
