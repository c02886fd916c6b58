"""Labelled images: splits of a dataset, how pixels become a network's input, and the real images of compensators.

Images are whole bytes (uint8) until a network sees them; then they are divided by 255 and normalised per channel with
the constants of the released code. `repblend.ufc.readers` reads the datasets.

Shapes: N images, C classes, H and W pixels.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from repblend.data.image_store import read_picture
from repblend.records.base import Record
from repblend.sections import Positive
from repblend.store import atomic_path
from repblend.streams import stream
from repblend.tensors import open_tensors, write_tensors

MAX_PIXEL = 255


@dataclass(frozen=True)
class LabelledImages:
    """Images with one class each; raises `ValueError` if a label is out of range."""

    images: "Tensor | ImageFiles"
    """(N, 3, H, W) uint8; files that look like it, where a tensor would not fit in memory."""
    labels: Tensor
    """(N,) int64, from 0 to num_classes - 1."""
    num_classes: int

    def __post_init__(self) -> None:
        if len(self.labels) and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < self.num_classes:
            raise ValueError(f"labels: expected 0 to {self.num_classes - 1}, found {int(self.labels.min())} to "
                             f"{int(self.labels.max())}")

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, indices: Tensor) -> "LabelledImages":
        """Return the images at these positions, (n,) int64, in their order; those in files stay there."""
        images = self.images.subset(indices) if isinstance(self.images, ImageFiles) else self.images[indices]
        return LabelledImages(images, self.labels[indices], self.num_classes)

    def sha256(self) -> str:
        """Return the SHA-256 of pixels (of images in files: of their names and sizes) and labels."""
        images = self.images
        digest = hashlib.sha256(images.numpy().tobytes()) if isinstance(images, Tensor) else images.digest()
        digest.update(self.labels.numpy().tobytes())
        return digest.hexdigest()


class Splits(NamedTuple):
    """A dataset. The best epoch is chosen on `val`, never on `test`."""

    train: LabelledImages
    val: LabelledImages
    """Held out of the training images."""
    test: LabelledImages


def as_unit(pixels: Tensor) -> Tensor:
    """Return uint8 pixels as float32 between 0 and 1; floats as they are."""
    return pixels.float() / MAX_PIXEL if pixels.dtype == torch.uint8 else pixels


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation per channel, of pixels between 0 and 1."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def normalise(self, pixels: Tensor) -> Tensor:
        """Return a network's input, (..., 3, H, W) float32, for uint8 pixels or for floats between 0 and 1."""
        unit = as_unit(pixels)
        return (unit - self._column(self.mean, unit)) / self._column(self.std, unit)

    def denormalise(self, inputs: Tensor) -> Tensor:
        """Return pixels between 0 and 1 if the input was clipped; the inverse of `normalise`."""
        return inputs * self._column(self.std, inputs) + self._column(self.mean, inputs)

    def clip(self, inputs: Tensor) -> Tensor:
        """Clip a network's input, channel by channel, to what pixels between 0 and 1 can be; the ends are rounded once,
        as released.
        """
        low, high = (tuple((end - mean) / std for mean, std in zip(self.mean, self.std, strict=True)) for end in (0, 1))
        return torch.minimum(torch.maximum(inputs, self._column(low, inputs)), self._column(high, inputs))

    @staticmethod
    def _column(values: tuple[float, ...], like: Tensor) -> Tensor:
        return torch.tensor(values, dtype=like.dtype, device=like.device).view(3, 1, 1)


NORMALISATIONS = {
    "digits": Normalisation((0.3053,) * 3, (0.3759,) * 3),
    "glyphs": Normalisation((0.1067,) * 3, (0.2612,) * 3),
    "cifar10": Normalisation((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": Normalisation((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "tiny-imagenet": Normalisation((0.4802, 0.4481, 0.3975), (0.2302, 0.2265, 0.2262)),
    "imagenet": Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""Dataset -> the constants of the released code; those of the digits are measured on all of them,
those of the glyphs on the training images (tests do)."""
NUM_CLASSES = {"digits": 10, "glyphs": 62, "cifar10": 10, "cifar100": 100, "tiny-imagenet": 200, "imagenet": 1000}


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
        own = (images.labels == label).nonzero().flatten()
        if len(own) <= per_class:
            raise ValueError(f"class {label} has {len(own)} images, so {per_class} cannot be held out; hold out fewer")
        order = torch.randperm(len(own), generator=stream(seed, "ufc", "hold out", *purpose, label))
        held[own[order[:per_class]]] = True
    return images.select((~held).nonzero().flatten()), images.select(held.nonzero().flatten())


MANIFEST = "manifest.json"


class InitialManifest(Record):
    """What a folder of initial images holds."""

    num_per_class: Positive
    num_classes: Positive
    image_size: Positive
    """Height and width in pixels."""


class InitialImages:
    """Real training images that compensators are added to, n0 of every class, in a folder.

    Image index k has a file of its own, (C, 3, H, W): one image of every class, as the release prepares them. A smaller
    budget uses the first of them, so that its images and compensators are those of a larger one. Nothing is kept in
    memory: every call reads what it returns.
    """

    def __init__(self, folder: Path) -> None:
        """Open a folder that `write_initial_images` wrote; raises `ValueError` if the folder or its manifest is missing
        or damaged.
        """
        self._folder = folder
        manifest = InitialManifest.read(folder / MANIFEST)
        self.num_per_class, self.num_classes = manifest.num_per_class, manifest.num_classes
        self.image_size = manifest.image_size
        """Height and width in pixels."""

    def read(self, image: int, classes: slice = slice(None)) -> Tensor:
        """Return image index `image` of the given classes (all by default), (C', 3, H, W) uint8; raises `ValueError` if
        the file is missing or damaged.
        """
        with open_tensors(self._folder / image_file(image)) as file:
            return file.get_slice("images")[classes]


def write_initial_images(folder: Path, train: LabelledImages, places: Sequence[int], seed: int) -> InitialImages:
    """Write training images of every class, all or nothing; raises `ValueError` if a class has fewer images.

    Args:
        places: of every image index, which image of a class's random order it is.
    """
    positions = draw_positions(train.labels, train.num_classes, max(places) + 1, seed)[:, list(places)]
    return write_image_files(folder, ({"images": train.images[row], "positions": row.contiguous()}
                                      for row in positions.T))


def write_image_files(folder: Path, every: Iterable[Mapping[str, Tensor]]) -> InitialImages:
    """Write the tensors of each image index, `images` (C, 3, H, W) uint8 among them, and a manifest; all or nothing."""
    with atomic_path(folder) as aside:
        aside.mkdir()
        for image, tensors in enumerate(every):
            write_tensors(aside / image_file(image), tensors)
        num_classes, _, _, size = tensors["images"].shape
        InitialManifest(num_per_class=image + 1, num_classes=num_classes, image_size=size).write(aside / MANIFEST)
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


def image_file(image: int) -> str:
    """Return the name of the file of an image index."""
    return f"{image:04d}.safetensors"


CROP_SHARE = 224 / 256
"""How much of the shorter side a centre crop keeps."""


class ImageFiles:
    """Images that stay in their files: they look like a uint8 tensor (N, 3, size, size) when indexed or split along N.

    Only what is asked for is decoded. They stand for the tensor of `LabelledImages` where all images would not fit in
    memory (ImageNet: 190 GB as pixels).
    """

    dtype = torch.uint8

    def __init__(self, paths: Sequence[Path], size: int, fit: Literal["squash", "crop"],
                 folder: Path | None = None) -> None:
        """Take the files as they are; nothing is read.

        Args:
            folder: that of the data set, which no link may lead out of; None for images of our own.
            size: height and width that images are brought to, bilinearly.
            fit: `squash` both sides to the size, as the released script does with the real images it starts from; or
                bring the shorter side to 8/7 of the size and `crop` the centre, as networks are usually tested.
        """
        self.paths, self.size, self.fit, self.folder = list(paths), size, fit, folder

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self.paths), 3, self.size, self.size

    def subset(self, indices: Tensor) -> "ImageFiles":
        """Return the files at these positions, (n,) int64, undecoded."""
        return ImageFiles([self.paths[index] for index in indices.tolist()], self.size, self.fit, self.folder)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, indices: Tensor | int) -> Tensor:
        """Decode the images at these positions, (n,) int64 or (N,) bool, or a single one; raises `ValueError` if a file
        is missing or is not an image.
        """
        if isinstance(indices, int):
            return self._decode(self.paths[indices])
        if indices.dtype == torch.bool:
            indices = indices.nonzero().flatten()
        return torch.stack([self._decode(self.paths[index]) for index in indices.tolist()])

    def split(self, batch_size: int) -> Iterator[Tensor]:
        """Decode all images, batch by batch."""
        for rows in torch.arange(len(self.paths)).split(batch_size):
            yield self[rows]

    def digest(self) -> "hashlib._Hash":
        """Return a SHA-256 of the files' names and sizes: all that can be looked at before every stage."""
        digest = hashlib.sha256(f"{self.size} {self.fit}".encode())
        for path in self.paths:
            digest.update(f"{path.parent.name}/{path.name} {path.stat().st_size}\n".encode())
        return digest

    def _decode(self, path: Path) -> Tensor:
        size = self.size
        picture = read_picture(path, self.folder)
        scale = round(size / CROP_SHARE) / min(picture.size)
        width, height = (max(size, round(side * scale)) if self.fit == "crop" else size for side in picture.size)
        left, top = round((width - size) / 2), round((height - size) / 2)
        resized = picture.resize((width, height), Image.Resampling.BILINEAR)
        pixels = np.array(resized.crop((left, top, left + size, top + size)))
        return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
