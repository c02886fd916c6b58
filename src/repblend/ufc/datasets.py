"""Datasets by name: from what is on the disk to splits."""

from pathlib import Path

from repblend.ufc.data import Splits
from repblend.ufc.params import UfcData


def read_splits(data: UfcData, root: Path, seed: int) -> Splits:
    """Read a dataset and hold out validation images.

    Args:
        root: a relative `data.folder` starts here.
        seed: draws which images are held out.

    Raises:
        ValueError: files are missing or damaged, or the numbers of images do not fit.
    """
    raise NotImplementedError
