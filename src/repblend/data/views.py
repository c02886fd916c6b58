"""Augmented views of training images (PAPER.md section 3, Transforms).

Every view of every image has a random stream of its own, so neither the number of views nor the order of work changes
a view. The first few are encoded once and shared by all experts; an expert may as well ask for views that nobody has
seen before (DESIGN section 6). Here, a view is a random resized crop of the square image and a flip; what is published
is made from the image as it is: see `repblend.data.published_views`.

Shapes: V views, H height and width.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from repblend.data.image_store import ImageStore
from repblend.data.images import open_image, square
from repblend.streams import stream

ASPECT_RATIO = 4 / 3
"""Crops are at most this much wider than high, or higher than wide, as in torchvision's RandomResizedCrop."""
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
        return self._view(self._open(image), image, view)

    def views(self, image: int, num_views: int) -> Tensor:
        """Return views 0 .. V - 1, (V, 3, H, H), from one reading of the file; raises as `view`."""
        opened = self._open(image)
        return torch.stack([self._view(opened, image, view) for view in range(num_views)])

    def _open(self, image: int) -> Image.Image:
        return open_image(self.store, self.names[image])

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
