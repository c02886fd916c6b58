"""Initial images: n0 random real training images of every class, drawn once, pinned, and read k by k.

Image index k has a file of its own, (C, 3, H, W): one image of every class, as the release prepares them. A smaller
budget uses the first of them, so that its images and compensators are those of a larger one.
"""

from pathlib import Path

import torch
from torch import Tensor

from repblend.store import atomic_path, fingerprint, open_tensors, read_json, sha256, write_json, write_tensors
from repblend.streams import stream
from repblend.ufc.data import LabelledImages

MANIFEST = "manifest.json"


class InitialImages:
    """The drawn images of a folder. Nothing is kept in memory: every call reads what it returns."""

    def __init__(self, folder: Path) -> None:
        """Open a folder that `write_initial_images` wrote.

        Raises:
            ValueError: the folder or its manifest is missing or damaged.
        """
        self._folder = folder
        manifest = read_json(folder / MANIFEST)
        self.num_per_class: int = manifest["num_per_class"]
        self.num_classes: int = manifest["num_classes"]
        self.image_size: int = manifest["image_size"]
        """Height and width in pixels."""

    def read(self, image: int, classes: slice = slice(None)) -> Tensor:
        """Return image index `image` of the given classes (all by default), (C', 3, H, W) uint8.

        Raises:
            ValueError: the file is missing or damaged.
        """
        with open_tensors(self._folder / image_file(image)) as file:
            return file.get_slice("images")[classes]

    def first(self, num_per_class: int) -> "InitialImages":
        """Return the first images of every class alone.

        Raises:
            ValueError: there are fewer.
        """
        if num_per_class > self.num_per_class:
            raise ValueError(f"{self._folder}: {self.num_per_class} images per class, the budget asks for "
                             f"{num_per_class}; draw them for the largest budget")
        fewer = InitialImages(self._folder)
        fewer.num_per_class = num_per_class
        return fewer

    def digest(self) -> str:
        """Return a hash of all images."""
        return fingerprint([sha256(self._folder / image_file(image)) for image in range(self.num_per_class)])


def write_initial_images(folder: Path, train: LabelledImages, num_per_class: int, seed: int) -> InitialImages:
    """Draw `num_per_class` training images of every class without replacement and write them, all or nothing.

    Raises:
        ValueError: a class has fewer images.
    """
    positions = draw_positions(train.labels, train.num_classes, num_per_class, seed)
    with atomic_path(folder) as aside:
        aside.mkdir()
        for image, row in enumerate(positions.T):
            write_tensors(aside / image_file(image), {"images": train.images[row], "positions": row.contiguous()})
        write_manifest(aside, num_per_class, train.num_classes, train.images.shape[-1])
    return InitialImages(folder)


def draw_positions(labels: Tensor, num_classes: int, num_per_class: int, seed: int) -> Tensor:
    """Draw positions of training images, (num_classes, num_per_class) int64, without replacement within a class.

    The first columns do not depend on how many are drawn.

    Raises:
        ValueError: a class has fewer images.
    """
    rows = []
    for label in range(num_classes):
        own = (labels == label).nonzero().flatten()
        if len(own) < num_per_class:
            raise ValueError(f"class {label} has {len(own)} training images, the budget asks for {num_per_class}; "
                             "lower the budgets")
        rows.append(own[torch.randperm(len(own), generator=stream(seed, "ufc", "initial", label))[:num_per_class]])
    return torch.stack(rows)


def write_manifest(folder: Path, num_per_class: int, num_classes: int, image_size: int) -> None:
    """Write what `InitialImages` has to know of a folder's files."""
    write_json(folder / MANIFEST, {"num_per_class": num_per_class, "num_classes": num_classes,
                                   "image_size": image_size})


def image_file(image: int) -> str:
    """Return the name of the file of an image index."""
    return f"{image:04d}.safetensors"
