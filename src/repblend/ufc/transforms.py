"""T: what a teacher sees of the images with their compensators; one draw per iteration for the whole batch.

The released CIFAR script shifts circularly by 0 to `max_shift` pixels in both directions; its ImageNet script crops at
random (8 to 100 % of the area, sides 3:4 to 4:3), resizes to the size before, flips half of the time, then shifts. All
of it is linear in the image, so T(x + u) = T(x) + T(u), and T(u) is computed once for all classes.

Cropping and resizing are two matrices, T(x) = rows @ x @ columns^T, because antialiased bilinear interpolation is
separable; the flip and the shift are an order of their rows. The same numbers as an image library's, and a backward
pass that is a matrix product, deterministic on every device.
"""

import math
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

AREA = (0.08, 1.0)
RATIO = (3 / 4, 4 / 3)
ATTEMPTS = 10


class Transform(Protocol):
    """A linear map of images (..., H, W) to images of the same size."""

    def __call__(self, images: Tensor) -> Tensor: ...


class Shift:
    """A circular shift."""

    def __init__(self, down: int, right: int) -> None:
        self.offsets = (down, right)

    def __call__(self, images: Tensor) -> Tensor:
        return torch.roll(images, self.offsets, dims=(-2, -1))


class Resample:
    """Crop, resize, flip and shift as two matrices."""

    def __init__(self, rows: Tensor, columns: Tensor) -> None:
        """Take both matrices, each (size, size): output position by input position."""
        self.rows, self.columns = rows, columns

    def __call__(self, images: Tensor) -> Tensor:
        return self.rows.to(images) @ images @ self.columns.to(images).T


def draw_shift(image_size: int, max_shift: int, generator: torch.Generator) -> Shift:
    """Draw a shift by 0 to `max_shift` pixels, both included, in each direction."""
    down, right = torch.randint(max_shift + 1, (2,), generator=generator).tolist()
    return Shift(down, right)


def draw_crop_flip_shift(image_size: int, max_shift: int, generator: torch.Generator) -> Resample:
    """Draw a random resized crop, a flip and a shift."""
    top, left, height, width = _draw_box(image_size, generator)
    flip = torch.rand((), generator=generator).item() < 0.5
    down, right = torch.randint(max_shift + 1, (2,), generator=generator).tolist()
    columns = interpolation(left, width, image_size)
    return Resample(interpolation(top, height, image_size).roll(down, 0),
                    (columns.flip(0) if flip else columns).roll(right, 0))


DRAWS = {"shift": draw_shift, "crop-flip-shift": draw_crop_flip_shift}
"""By its name in the parameters: how T is drawn from image size, largest shift and generator."""


def interpolation(start: int, length: int, size: int) -> Tensor:
    """Return the matrix, (size, size) float32, that resizes `length` pixels from `start` on to `size` pixels."""
    pixels = torch.eye(size)[:, start:start + length]  # one image row per input position
    resized = F.interpolate(pixels[:, None, None], (1, size), mode="bilinear", antialias=True, align_corners=False)
    return resized[:, 0, 0].T.contiguous()


def _draw_box(size: int, generator: torch.Generator) -> tuple[int, int, int, int]:
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
