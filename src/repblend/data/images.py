"""Images from files to normalised tensors, and back to something to look at."""

import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from repblend.data.decoding import decode
from repblend.data.image_store import ImageStore
from repblend.progress import progress


def read_image(store: ImageStore, name: str, size: int) -> Tensor:
    """Read one image, resized to a square (bicubic, as the published test transform).

    Args:
        name: as the annotations give it.
        size: height and width in pixels.

    Returns:
        (3, size, size) float32 in [0, 1].

    Raises:
        ValueError: the image is missing, empty, truncated or no image; the message names it.
    """
    return square(open_image(store, name), size)


def open_image(store: ImageStore, name: str) -> Image.Image:
    """Read one image as it is, in RGB; raises as `read_image`."""
    return decode(store.read(name), store.locate(name))


def square(image: Image.Image, size: int) -> Tensor:
    """Resize an RGB image to a square (bicubic), (3, size, size) float32 in [0, 1]."""
    return as_tensor(image.resize((size, size), Image.Resampling.BICUBIC))


def as_tensor(image: Image.Image) -> Tensor:
    """Return an RGB image as (3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def read_images(store: ImageStore, names: Sequence[str], size: int) -> Tensor:
    """Read images by their names, (N, 3, size, size) in [0, 1]; raises as `read_image`."""
    return torch.stack([read_image(store, name, size) for name in progress(names, "read images", "image")])


def normalise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Subtract the channel means and divide by the standard deviations, (3,) each; images (..., 3, H, W)."""
    return (images - mean[:, None, None]) / std[:, None, None]


def png_bytes(image: Tensor, mean: Tensor, std: Tensor) -> bytes:
    """Return a normalised image (3, H, W) as a PNG file; values outside the displayable range are cut off."""
    shown = (image.cpu() * std[:, None, None] + mean[:, None, None]).clamp(0, 1)
    pixels = (shown * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()
