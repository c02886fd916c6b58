"""Augmented views of training images: random crops and flips, and the released code's training transform.

Every view of every image has a random stream of its own, so neither the number of views nor the order of work changes
a view. The first few are encoded once and shared by all experts; with `experts.views: fresh` an expert sees others in
every epoch. `CropOfSquare` is the embedded pipeline's, cheap because it starts from the resized image; `PublishedView`
crops the image as it is, as torchvision's RandomResizedCrop does (paper/METHOD.md, section 13).

Shapes: V views, H height and width.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from repblend.data.image_store import ImageStore, open_image
from repblend.data.images import as_tensor, square
from repblend.streams import stream

ASPECT_RATIO = 4 / 3
"""Crops are at most this much wider than high, or higher than wide, as in torchvision's RandomResizedCrop."""
TRIES = 10
"""Boxes drawn before one that fits is given up for the largest central one of an allowed shape."""
UNLIMITED = 2**62
"""Number of views where every draw is to show another one."""

Augment = Callable[[Image.Image, torch.Generator], Tensor]
"""From an image as it is (RGB) and a random stream to a view of it, (3, H, H) float32 in [0, 1]."""


@dataclass(frozen=True)
class ViewSource:
    """The views of a dataset's images, made from the files whenever they are asked for, by any number of threads."""

    store: ImageStore
    names: Sequence[str]
    """Of all images, as the annotations give them."""
    size: int
    """H."""
    augment: Augment
    seed: int

    def view(self, image: int, view: int) -> Tensor:
        """Return one view, (3, H, H) float32 in [0, 1]; view 0 is the image itself.

        Args:
            image: its position in `names`.
            view: 0 .. UNLIMITED - 1.

        Raises:
            ValueError: the image cannot be read; the message names it.
        """
        return self._view(open_image(self.store, self.names[image]), image, view)

    def views(self, image: int, num_views: int) -> Tensor:
        """Return views 0 .. V - 1, (V, 3, H, H), from one reading of the file; raises as `view`."""
        opened = open_image(self.store, self.names[image])
        return torch.stack([self._view(opened, image, view) for view in range(num_views)])

    def _view(self, opened: Image.Image, image: int, view: int) -> Tensor:
        if view == 0:
            return square(opened, self.size)
        return self.augment(opened, stream(self.seed, "view", view, image))


@dataclass(frozen=True)
class CropOfSquare:
    """A random resized crop of the square image, bilinear, and a flip."""

    size: int
    crop_scale_min: float
    """Smallest share of the area that a crop keeps, in (0, 1]."""
    flip: float
    """Chance of a left-right flip."""

    def __call__(self, image: Image.Image, generator: torch.Generator) -> Tensor:
        """Return a view of an RGB image of any size, (3, H, H) float32 in [0, 1]."""
        return self.crop(square(image, self.size), generator)

    def crop(self, image: Tensor, generator: torch.Generator) -> Tensor:
        """Augment a square image (3, H, H)."""
        top, left, height, width = draw_crop(image.shape[-1], self.crop_scale_min, generator)
        flipped = torch.rand((), generator=generator) < self.flip
        crop = image[:, top:top + height, left:left + width]
        resized = F.interpolate(crop[None], size=image.shape[-2:], mode="bilinear", antialias=True,
                                align_corners=False)[0]
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


@dataclass(frozen=True)
class PublishedView:
    """The transform of the released code's training set: a bicubic RandomResizedCrop, a flip, and random operations.

    Draws follow torchvision's order, so that a generator in the state of its global one gives its very crops.
    """

    size: int
    """Height and width of a view in pixels."""
    crop_scale_min: float
    """Smallest share of the image's area that a crop keeps, in (0, 1]."""
    flip: float
    """Chance of a left-right flip."""
    operations: Callable[[Image.Image, torch.Generator], Image.Image]
    """What happens to the crop after that: `repblend.data.rand_augment.RandomOperations`, or `as_it_is`."""

    def __call__(self, image: Image.Image, generator: torch.Generator) -> Tensor:
        """Return a view of an RGB image of any size, (3, H, H) float32 in [0, 1]."""
        box = draw_box(image.width, image.height, self.crop_scale_min, generator)
        view = cropped(image, box, self.size, torch.rand(1, generator=generator).item() < self.flip)
        return as_tensor(self.operations(view, generator))


def cropped(image: Image.Image, box: tuple[int, int, int, int], size: int, flipped: bool) -> Image.Image:
    """Return what is in a box (left, top, right, bottom) at so many pixels, bicubic; flipped left to right or not."""
    view = image.crop(box).resize((size, size), Image.Resampling.BICUBIC)
    return view.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flipped else view


def as_it_is(view: Image.Image, _: torch.Generator) -> Image.Image:
    """Do nothing."""
    return view


def draw_box(width: int, height: int, scale_min: float, generator: torch.Generator) -> tuple[int, int, int, int]:
    """Draw left, top, right and bottom in pixels of a crop: its share of the area uniform from `scale_min` to 1, the
    logarithm of its aspect ratio uniform from 3/4 to 4/3.
    """
    log_ratio = torch.log(torch.tensor((1 / ASPECT_RATIO, ASPECT_RATIO)))
    for _ in range(TRIES):
        area = width * height * torch.empty(1).uniform_(scale_min, 1.0, generator=generator).item()
        aspect = torch.exp(torch.empty(1).uniform_(*log_ratio.tolist(), generator=generator)).item()
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top = int(torch.randint(height - h + 1, (1,), generator=generator))
            left = int(torch.randint(width - w + 1, (1,), generator=generator))
            return left, top, left + w, top + h
    w, h = min(width, round(height * ASPECT_RATIO)), min(height, round(width * ASPECT_RATIO))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h
