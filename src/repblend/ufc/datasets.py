"""Datasets by name: from what is on the disk to splits."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from repblend.ufc.data import LabelledImages, Splits, hold_out
from repblend.ufc.digits import read_digits
from repblend.ufc.params import UfcData
from repblend.ufc.readers import CIFAR10, CIFAR100, read_cifar, read_class_folders, read_tiny_imagenet


def read_splits(data: UfcData, root: Path, seed: int) -> Splits:
    """Read a dataset and hold out validation images.

    Args:
        root: a relative `data.folder` starts here.
        seed: draws which images are held out.

    Raises:
        ValueError: files are missing or damaged, or the numbers of images do not fit.
    """
    if data.name == "digits":
        rest, test = hold_out(read_digits(data.image_size), data.num_test, seed, "test")
    else:
        rest, test = READERS[data.name](root / data.folder, data.image_size)
    train, val = hold_out(rest, data.num_val, seed, "val")
    return Splits(train, val, test)


READERS: dict[str, Callable[[Path, int], tuple[LabelledImages, LabelledImages]]] = {
    "cifar10": partial(read_cifar, CIFAR10),
    "cifar100": partial(read_cifar, CIFAR100),
    "tiny-imagenet": read_tiny_imagenet,
    "imagenet": read_class_folders,
}
"""Name -> reader of training and test images from a folder and an image size."""
