"""Images from files to normalised tensors, and back to something to look at."""

import io
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from repblend.progress import progress

UNREADABLE = (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError, EOFError,
              struct.error)
"""What Pillow raises on a file that is no image, is cut short, holds nonsense, or cannot become RGB."""


def read_image(path: Path, size: int) -> Tensor:
    """Read one image, resized to a square (bicubic, as the published test transform).

    Args:
        size: height and width in pixels.

    Returns:
        (3, size, size) float32 in [0, 1].

    Raises:
        ValueError: the file is missing, empty, truncated or no image; the message names it.
    """
    try:
        with Image.open(path) as file:
            image = file.convert("RGB").resize((size, size), Image.Resampling.BICUBIC)
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such image, but an annotation file names it. Put it there, or remove its rows "
                         "from the annotations") from error
    except UNREADABLE as error:
        raise ValueError(f"{path}: expected a whole image file ({error}). Replace it, or remove its rows from the "
                         "annotations") from error
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def read_images(folder: Path, names: Sequence[str], size: int) -> Tensor:
    """Read images by their paths relative to a folder, (N, 3, size, size) in [0, 1]; raises as `read_image`."""
    return torch.stack([read_image(folder / name, size) for name in progress(names, "read images", "image")])


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
