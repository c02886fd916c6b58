"""Augmented views of training images: a random resized crop and a flip (PAPER.md section 3, Transforms).

Made once per image and shared by all experts (DESIGN section 6). Every view of every image has a random stream of its
own, so neither the number of views nor the order of work changes a view.

Shapes: N images, H height and width.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from repblend.streams import stream

ASPECT_RATIO = 4 / 3
"""Crops are at most this much wider than high, or higher than wide, as in torchvision's RandomResizedCrop."""


def make_view(images: Tensor, view: int, crop_scale_min: float, flip: float, seed: int) -> Tensor:
    """Return one view of every image.

    Args:
        images: (N, 3, H, H), in [0, 1] or normalised.
        view: its number. View 0 is the images themselves.
        crop_scale_min: smallest share of the area that a crop keeps, in (0, 1].
        flip: chance of a left-right flip.

    Returns:
        (N, 3, H, H).
    """
    if view == 0:
        return images
    return torch.stack([_augment(image, crop_scale_min, flip, stream(seed, "view", view, number))
                        for number, image in enumerate(images)])


def _augment(image: Tensor, crop_scale_min: float, flip: float, generator: torch.Generator) -> Tensor:
    top, left, height, width = draw_crop(image.shape[-1], crop_scale_min, generator)
    flipped = torch.rand((), generator=generator) < flip
    crop = image[:, top:top + height, left:left + width]
    resized = F.interpolate(crop[None], size=image.shape[-2:], mode="bilinear", antialias=True, align_corners=False)[0]
    return resized.flip(-1) if flipped else resized


def draw_crop(size: int, scale_min: float, generator: torch.Generator) -> tuple[int, int, int, int]:
    """Draw top, left, height and width in pixels of a crop of a square image.

    The area's share is uniform from `scale_min` to 1, the logarithm of the aspect ratio uniform; sides are cut to the
    image where they would leave it.
    """
    share, ratio, down, right = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
    area = (scale_min + (1 - scale_min) * share) * size * size
    aspect = math.exp((2 * ratio - 1) * math.log(ASPECT_RATIO))
    width, height = (max(1, min(size, round(side))) for side in (math.sqrt(area * aspect), math.sqrt(area / aspect)))
    return int(down * (size - height + 1)), int(right * (size - width + 1)), height, width
