"""The digits that come with scikit-learn: 1,797 handwritten digits of 8x8 pixels with 17 grey levels, ten classes.

Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits (the test half), UCI Machine Learning
Repository, 1998, CC BY 4.0. Nothing is downloaded, and scikit-learn is not imported: that would take seconds, in every
stage.
"""

import importlib.util
from pathlib import Path

import numpy as np
import torch

from repblend.ufc.data import MAX_PIXEL, LabelledImages

LEVELS, SIZE = 16, 8


def read_digits(image_size: int) -> LabelledImages:
    """Return all digits, in their order, as grey images of three channels.

    Raises:
        ValueError: `image_size` is not 8.
    """
    if image_size != SIZE:
        raise ValueError(f"data.image_size: the digits have {SIZE} pixels, found {image_size}; set it to {SIZE}")
    rows = np.loadtxt(_file(), delimiter=",")  # (N, 65): pixels, then the digit
    grey = torch.from_numpy(rows[:, :-1]).view(-1, SIZE, SIZE) * MAX_PIXEL / LEVELS
    images = grey.round().to(torch.uint8)[:, None].repeat(1, 3, 1, 1)
    return LabelledImages(images, torch.from_numpy(rows[:, -1]).long(), 10)


def _file() -> Path:
    """Where the installed scikit-learn keeps the digits."""
    return Path(importlib.util.find_spec("sklearn").submodule_search_locations[0]) / "datasets/data/digits.csv.gz"
