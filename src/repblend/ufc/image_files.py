"""Images that stay in their files: a set of any size, of which only what is asked for is decoded.

It stands for the tensor of `LabelledImages` where all images would not fit in memory (ImageNet: 190 GB as pixels).
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

CROP_SHARE = 224 / 256


class ImageFiles:
    """Files that look like a uint8 tensor (N, 3, size, size) when indexed or split along N."""

    dtype = torch.uint8

    def __init__(self, paths: Sequence[Path], size: int, fit: Literal["squash", "crop"]) -> None:
        """Take the files as they are; nothing is read.

        Args:
            size: height and width that images are brought to, bilinearly.
            fit: `squash` both sides to the size, as the released script does with the real images it starts from; or
                bring the shorter side to 8/7 of the size and `crop` the centre, as networks are usually tested.
        """
        self.paths, self.size, self.fit = list(paths), size, fit

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self.paths), 3, self.size, self.size

    def subset(self, indices: Tensor) -> "ImageFiles":
        """Return the files at these positions, (n,) int64, undecoded."""
        return ImageFiles([self.paths[index] for index in indices.tolist()], self.size, self.fit)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, indices: Tensor | int) -> Tensor:
        """Decode the images at these positions, (n,) int64 or (N,) bool, or a single one.

        Raises:
            ValueError: a file is missing or is not an image.
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
        try:
            with Image.open(path) as picture:
                pixels = np.array(FITS[self.fit](picture.convert("RGB"), self.size))
        except (UnidentifiedImageError, OSError) as error:
            raise ValueError(f"{path}: expected an image ({error}); unpack the archive again") from error
        return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _squash(picture: Image.Image, size: int) -> Image.Image:
    return picture.resize((size, size), Image.Resampling.BILINEAR)


def _crop(picture: Image.Image, size: int) -> Image.Image:
    scale = round(size / CROP_SHARE) / min(picture.size)
    width, height = (max(size, round(side * scale)) for side in picture.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return picture.resize((width, height), Image.Resampling.BILINEAR).crop((left, top, left + size, top + size))


FITS = {"squash": _squash, "crop": _crop}
