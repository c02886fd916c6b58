"""From the bytes of an image file to RGB pixels, or to an error that says what is wrong with the file."""

import io
import struct

from PIL import Image, UnidentifiedImageError

UNREADABLE = (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError, EOFError,
              struct.error)
"""What Pillow raises on a file that is no image, is cut short, holds nonsense, or cannot become RGB."""


def decode(content: bytes, where: str) -> Image.Image:
    """Return an image in RGB, fully decoded.

    Args:
        content: a file of any format that Pillow knows.
        where: what an error calls the file.

    Raises:
        ValueError: the file is empty, truncated or no image; the message names it.
    """
    try:
        with Image.open(io.BytesIO(content)) as file:
            return file.convert("RGB")
    except UNREADABLE as error:
        raise ValueError(f"{where}: expected a whole image file ({error}). Replace it, or remove its rows from the "
                         "annotations") from error
