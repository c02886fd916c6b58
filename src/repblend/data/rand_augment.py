"""Random operations on training images: RandAugment in BLIP's form, as the released code applies it.

A few operations are drawn with replacement, and each is applied with probability one half, one after the other. The
magnitude, 0 to 10, sets how strong; whether a shear, shift or rotation goes left or right is drawn as well. Equalize
and AutoContrast are Pillow's (those of LoRS and MTT-VL turn light channels white, and have names of their own); shears,
shifts and rotations are OpenCV's `warpAffine`, bilinear, on a grey border.

At the published magnitude, 5, Brightness and Sharpness have factor 1 and change nothing. OpenCV rounds positions to
1/32 pixel; here they are exact. The released Sharpness wraps values around that leave 0..255 (above magnitude 5); here
they are cut off.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from torch.nn import functional as F

MAX_MAGNITUDE = 10
PROBABILITY = 0.5
"""Chance of a drawn operation to be applied, and of a direction to be positive."""
MAX_SHEAR = 0.3
MAX_SHIFT_PIXELS = 10
MAX_DEGREES = 30
BORDER = 128
"""Grey that comes in from outside of an image, in every channel."""

Matrix = tuple[tuple[float, float, float], tuple[float, float, float]]
"""Where (x, y) of the image goes: (m00 x + m01 y + m02, m10 x + m11 y + m12), in pixels."""


@dataclass(frozen=True)
class RandomOperations:
    """Operations to draw from, how many are drawn, and how strong they are."""

    num_ops: int
    magnitude: int
    ops: Sequence[str]
    """Names in `OPERATIONS`."""

    def __call__(self, image: Image.Image, generator: torch.Generator) -> Image.Image:
        """Return an RGB image of the same size."""
        for drawn in torch.randint(len(self.ops), (self.num_ops,), generator=generator).tolist():
            applied, positive = (torch.rand(2, generator=generator) < PROBABILITY).tolist()
            if applied:
                image = OPERATIONS[self.ops[drawn]](image, self.magnitude / MAX_MAGNITUDE * (1 if positive else -1))
        return image


def brightness(image: Image.Image, strength: float) -> Image.Image:
    """Multiply all values by 0.1 (strength 0) to 1.9 (1), cut off at white."""
    table = (np.arange(256, dtype=np.float32) * _factor(strength)).clip(0, 255).astype(np.uint8)
    return image.point(table.tolist() * 3)


def sharpness(image: Image.Image, strength: float) -> Image.Image:
    """Move an image away from (or, below factor 1, towards) its smoothed self; the outermost pixels stay."""
    smooth = np.asarray(image.filter(ImageFilter.SMOOTH), np.float32)  # a weight of 5 against 8 neighbours of 1 each
    sharp = smooth + _factor(strength) * (np.asarray(image, np.float32) - smooth)
    result = np.array(image)
    result[1:-1, 1:-1] = sharp.clip(0, 255).astype(np.uint8)[1:-1, 1:-1]
    return Image.fromarray(result)


def auto_contrast(image: Image.Image, white_above: int = 255) -> Image.Image:
    """Stretch every channel to the whole range. The released code negates a channel's minimum in a small integer type,
    so that one whose minimum is above a number turns white altogether.

    Args:
        white_above: that number: 127 in LoRS, where the type has a sign, 0 in MTT-VL; 255 for never, as Pillow does it.
    """
    stretched = np.array(ImageOps.autocontrast(image))
    stretched[:, :, np.asarray(image).min((0, 1)) > white_above] = 255
    return Image.fromarray(stretched)


def _factor(strength: float) -> float:
    return abs(strength) * 1.8 + 0.1


def rotate(image: Image.Image, strength: float) -> Image.Image:
    """Turn the image anticlockwise by 30 degrees (strength 1) about (width / 2, height / 2), as published: half a pixel
    off the centre."""
    angle, x, y = math.radians(MAX_DEGREES * strength), image.width / 2, image.height / 2
    cos, sin = math.cos(angle), math.sin(angle)
    return warp(image, ((cos, sin, (1 - cos) * x - sin * y), (-sin, cos, sin * x + (1 - cos) * y)))


def warp(image: Image.Image, matrix: Matrix) -> Image.Image:
    """Move every pixel to where a matrix takes it, bilinear; what comes from outside is grey."""
    width, height = image.size
    back = np.linalg.inv([*matrix, (0, 0, 1)])[:2]  # from a pixel of the result to where it comes from
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    from_x, from_y = (row[0] * x + row[1] * y + row[2] for row in back)
    # -1 and 1 are the centres of the first and the last pixel
    grid = np.stack([2 * from_x / (width - 1) - 1, 2 * from_y / (height - 1) - 1], axis=-1)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].double() - BORDER
    moved = F.grid_sample(pixels, torch.from_numpy(grid)[None], "bilinear", "zeros", align_corners=True)[0] + BORDER
    return Image.fromarray(moved.round().to(torch.uint8).permute(1, 2, 0).numpy())


OPERATIONS: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "Identity": lambda image, _: image,
    "AutoContrast": lambda image, _: auto_contrast(image),
    "AutoContrast-lors": lambda image, _: auto_contrast(image, white_above=127),
    "AutoContrast-mtt-vl": lambda image, _: auto_contrast(image, white_above=0),
    "Equalize": lambda image, _: ImageOps.equalize(image),
    "Brightness": brightness, "Sharpness": sharpness, "Rotate": rotate,
    # each row moves by a share of its distance from the top, each column from the left
    "ShearX": lambda image, strength: warp(image, ((1, MAX_SHEAR * strength, 0), (0, 1, 0))),
    "ShearY": lambda image, strength: warp(image, ((1, 0, 0), (MAX_SHEAR * strength, 1, 0))),
    # to the left and up, by as many pixels whatever the image's size
    "TranslateX": lambda image, strength: warp(image, ((1, 0, -MAX_SHIFT_PIXELS * strength), (0, 1, 0))),
    "TranslateY": lambda image, strength: warp(image, ((1, 0, 0), (0, 1, -MAX_SHIFT_PIXELS * strength)))}
"""By name, of an image and a strength from -1 to 1."""
