"""Views as published (PAPER.md section 3): torchvision's RandomResizedCrop, bicubic, of the image as it is, a flip, and
random operations.

Draws follow torchvision's order, so that a generator in the state of its global one gives its very crops.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from repblend.data.images import as_tensor
from repblend.data.views import ASPECT_RATIO

TRIES = 10
"""Boxes drawn before one that fits is given up for the largest central one of an allowed shape."""


@dataclass(frozen=True)
class PublishedView:
    """The transform of the released code's training set."""

    size: int
    """Height and width of a view in pixels."""
    crop_scale_min: float
    """Smallest share of the image's area that a crop keeps, in (0, 1]."""
    flip: float
    """Chance of a left-right flip."""
    operations: Callable[[Image.Image, torch.Generator], Image.Image]
    """What happens to the crop after that: `RandAugment`, or `as_it_is`."""

    def __call__(self, image: Image.Image, generator: torch.Generator) -> Tensor:
        """Return a view of an RGB image of any size, (3, H, H) float32 in [0, 1]."""
        box = draw_box(image.width, image.height, self.crop_scale_min, generator)
        view = image.crop(box).resize((self.size, self.size), Image.Resampling.BICUBIC)
        if torch.rand(1, generator=generator).item() < self.flip:
            view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return as_tensor(self.operations(view, generator))


def as_it_is(view: Image.Image, _: torch.Generator) -> Image.Image:
    """Do nothing."""
    return view


def draw_box(width: int, height: int, scale_min: float, generator: torch.Generator) -> tuple[int, int, int, int]:
    """Draw left, top, right and bottom in pixels of a crop: its share of the area uniform from `scale_min` to 1, the
    logarithm of its aspect ratio uniform from 3/4 to 4/3."""
    log_ratio = torch.log(torch.tensor((1 / ASPECT_RATIO, ASPECT_RATIO)))
    for _ in range(TRIES):
        area = width * height * torch.empty(1).uniform_(scale_min, 1.0, generator=generator).item()
        aspect = torch.exp(torch.empty(1).uniform_(*log_ratio.tolist(), generator=generator)).item()
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top = int(torch.randint(height - h + 1, (1,), generator=generator))
            left = int(torch.randint(width - w + 1, (1,), generator=generator))
            return left, top, left + w, top + h
    return _central_box(width, height)


def _central_box(width: int, height: int) -> tuple[int, int, int, int]:
    w, h = min(width, round(height * ASPECT_RATIO)), min(height, round(width * ASPECT_RATIO))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h
