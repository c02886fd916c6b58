"""What networks see of images, drawn at random: T of the compensators, and crops, flips and mixtures in training.

Shapes: N images, B of a batch, H and W pixels; images are square where a crop is resized.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from repblend.ufc.data import as_unit
from repblend.ufc.params import Augmentation


class Shift(NamedTuple):
    """A circular shift: all that the released CIFAR script does."""

    down: int
    right: int

    def __call__(self, images: Tensor) -> Tensor:
        return torch.roll(images, (self.down, self.right), dims=(-2, -1))


class Resample(NamedTuple):
    """Crop, resize to the size before, flip and shift, as the released ImageNet script does, as two matrices.

    T(x) = rows @ x @ columns^T, because antialiased bilinear interpolation is separable; the flip and the shift are an
    order of the matrices' rows. The same numbers as an image library's, and a backward pass that is a matrix product,
    deterministic on every device.
    """

    rows: Tensor
    """(..., size, size): output position by input position."""
    columns: Tensor

    @classmethod
    def of_box(cls, box: tuple[int, int, int, int], size: int, flip: bool, down: int = 0, right: int = 0) -> "Resample":
        """Crop top, left, height and width of images of `size` pixels."""
        top, left, height, width = box
        rows, columns = interpolation(top, height, size), interpolation(left, width, size)
        return cls(rows.roll(down, 0), (columns.flip(0) if flip else columns).roll(right, 0))

    def __call__(self, images: Tensor) -> Tensor:
        return self.rows.to(images) @ images @ self.columns.to(images).mT


Transform = Shift | Resample
"""A linear map of images (..., H, W) to images of the same size: T(u) is computed once for all classes."""


def draw_shift(image_size: int, max_shift: int, generator: torch.Generator) -> Shift:
    """Draw a shift by 0 to `max_shift` pixels, both included, in each direction."""
    return Shift(*torch.randint(max_shift + 1, (2,), generator=generator).tolist())


def draw_crop_flip_shift(image_size: int, max_shift: int, generator: torch.Generator) -> Resample:
    """Draw a random resized crop, a flip and a shift."""
    box = draw_box(image_size, generator)
    flip = torch.rand((), generator=generator).item() < 0.5
    return Resample.of_box(box, image_size, flip, *torch.randint(max_shift + 1, (2,), generator=generator).tolist())


DRAWS: dict[str, Callable[[int, int, torch.Generator], Transform]] = {
    "shift": draw_shift, "crop-flip-shift": draw_crop_flip_shift}
"""By its name in the parameters: how T is drawn from image size, largest shift and generator."""


def interpolation(start: int, length: int, size: int) -> Tensor:
    """Return the matrix, (size, size) float64, that resizes `length` pixels from `start` on to `size` pixels."""
    pixels = torch.eye(size, dtype=torch.float64)[:, start:start + length]  # one image row per input position
    resized = F.interpolate(pixels[:, None, None], (1, size), mode="bilinear", antialias=True, align_corners=False)
    return resized[:, 0, 0].T.contiguous()


AREA = (0.08, 1.0)
"""Share of an image that a random crop keeps."""
RATIO = (3 / 4, 4 / 3)
"""Width over height of a random crop."""
ATTEMPTS = 10
"""At a crop that fits into the image; then the whole image is taken."""


def draw_box(size: int, generator: torch.Generator) -> tuple[int, int, int, int]:
    """Draw top, left, height and width as the usual random resized crop of a square does; the whole if none fits."""
    for _ in range(ATTEMPTS):
        share, place = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
        area = size * size * (AREA[0] + share * (AREA[1] - AREA[0]))
        ratio = math.exp(math.log(RATIO[0]) + place * (math.log(RATIO[1]) - math.log(RATIO[0])))
        height, width = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 0 < height <= size and 0 < width <= size:
            top = int(torch.randint(size - height + 1, (), generator=generator))
            left = int(torch.randint(size - width + 1, (), generator=generator))
            return top, left, height, width
    return 0, 0, size, size


# What training sees: a crop and a flip of every image of a batch, and, of students, mixtures of two.


class DrawnViews(NamedTuple):
    """A random crop of every image after padding, and a random flip."""

    top: Tensor
    """(B,) int64, from 0 to twice the padding."""
    left: Tensor
    flipped: Tensor
    """(B,) bool."""


def draw_views(num_images: int, crop_padding: int, flip: float, generator: torch.Generator) -> DrawnViews:
    """Draw crops and flips."""
    offsets = torch.randint(2 * crop_padding + 1, (2, num_images), generator=generator)
    return DrawnViews(offsets[0], offsets[1], torch.rand(num_images, generator=generator) < flip)


def see(images: Tensor, views: DrawnViews, crop_padding: int) -> Tensor:
    """Return images (B, 3, H, W) of any type as they are drawn to be seen; what lies outside of an image is black."""
    batch, _, height, width = images.shape
    device = images.device
    columns = torch.arange(width, device=device)
    columns = torch.where(views.flipped.to(device)[:, None], width - 1 - columns, columns)  # (B, W)
    rows = views.top.to(device)[:, None] + torch.arange(height, device=device)  # (B, H)
    columns = views.left.to(device)[:, None] + columns
    padded = F.pad(images, [crop_padding] * 4)
    index = torch.arange(batch, device=device)
    return padded[index[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def augmented(images: Tensor, recipe: Augmentation, generator: torch.Generator) -> Tensor:
    """Draw a crop and a flip of every image, (B, 3, H, W) uint8 or floats between 0 and 1, and return what is seen."""
    if recipe.crop == "padded":
        views = draw_views(len(images), recipe.crop_padding, recipe.flip, generator)
        return see(images, views, recipe.crop_padding)
    size = images.shape[-1]
    boxes = [draw_box(size, generator) for _ in images]
    flips = (torch.rand(len(images), generator=generator) < recipe.flip).tolist()
    drawn = [Resample.of_box(box, size, flip) for box, flip in zip(boxes, flips, strict=True)]
    return Resample(*(torch.stack(each)[:, None] for each in zip(*drawn, strict=True)))(as_unit(images))


class Mix(NamedTuple):
    """Mixup: every image, and its label, becomes `share` of itself and the rest of a partner."""

    share: float
    partners: Tensor
    """(B,) int64."""

    def __call__(self, values: Tensor) -> Tensor:
        """Mix images (B, 3, H, W) or logits (B, C)."""
        return self.share * values + (1 - self.share) * values[self.partners.to(values.device)]


def draw_mix(num_images: int, alpha: float, generator: torch.Generator) -> Mix:
    """Draw one share from Beta(alpha, alpha) for the batch, and a partner of every image.

    The share of one of two gamma variables in their sum: torch's own Beta takes no generator.
    """
    gammas = torch._standard_gamma(torch.full((2,), alpha, dtype=torch.float64), generator=generator)
    return Mix(float(gammas[0] / gammas.sum()), torch.randperm(num_images, generator=generator))
