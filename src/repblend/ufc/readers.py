"""Datasets by name, from what is on the disk to splits: scikit-learn's digits, characters drawn in packaged typefaces
(`repblend.ufc.glyphs`), and official archives, unpacked.

Every other reader takes the folder that an archive was unpacked to (for ImageNet, one with `train/` and `val/`) and an
image size, and returns training and test images; test images are those with public labels. Nothing is unpickled, and
nothing is downloaded: `repro data fetch` does that.
"""

import importlib.metadata
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch

from repblend.files import read_text
from repblend.ufc.data import MAX_PIXEL, NUM_CLASSES, ImageFiles, LabelledImages, Splits, hold_out
from repblend.ufc.glyphs import read_glyphs
from repblend.ufc.params import UfcData

DIGIT_SIZE, GREY_LEVELS, CIFAR_SIZE = 8, 17, 32


def read_splits(data: UfcData, root: Path, seed: int) -> Splits:
    """Read a dataset and hold out validation images.

    Args:
        root: a relative `data.folder` starts here.
        seed: draws which images are held out.

    Raises:
        ValueError: files are missing or damaged, or the numbers of images do not fit.
    """
    if data.name == "glyphs":
        return _as_counted(read_glyphs(data.image_size), data)
    if data.folder is None:
        every, test = hold_out(read_digits(data.image_size), data.num_test or 0, seed, "test")
    else:
        every, test = READERS[data.name](root / data.folder, data.image_size)
    rest, val = hold_out(every, data.num_val, seed, "val")
    return Splits(every if data.training_images == "all" else rest, val, test)


def _as_counted(splits: Splits, data: UfcData) -> Splits:
    """Return splits that a data set brings as they are; raises `ValueError` unless the parameters know their sizes."""
    for key, split in (("num_val", splits.val), ("num_test", splits.test)):
        if getattr(data, key) != len(split):
            raise ValueError(f"data.{key}: {data.name} have {len(split)} such images, found {getattr(data, key)}; set "
                             f"it to {len(split)}")
    return splits


def read_digits(image_size: int) -> LabelledImages:
    """Return scikit-learn's 1,797 handwritten digits of 17 grey levels, in their order, as images of three channels.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits (the test half), UCI Machine Learning
    Repository, 1998, CC BY 4.0.

    Raises:
        ValueError: `image_size` is not 8.
    """
    if image_size != DIGIT_SIZE:
        raise ValueError(f"data.image_size: the digits have {DIGIT_SIZE} pixels, found {image_size}; set it to "
                         f"{DIGIT_SIZE}")
    found = importlib.metadata.distribution("scikit-learn").locate_file("sklearn")  # importing it takes seconds
    rows = np.loadtxt(Path(str(found), "datasets/data/digits.csv.gz"), delimiter=",")  # (N, 65): pixels, then the digit
    grey = torch.from_numpy(rows[:, :-1]).view(-1, DIGIT_SIZE, DIGIT_SIZE) * MAX_PIXEL / (GREY_LEVELS - 1)
    images = grey.round().to(torch.uint8)[:, None].repeat(1, 3, 1, 1)
    return LabelledImages(images, torch.from_numpy(rows[:, -1]).long(), NUM_CLASSES["digits"])


class CifarFiles(NamedTuple):
    """Where a binary version keeps its records: labels, then red, green and blue planes of 32x32 bytes."""

    name: str
    folder: str
    train: tuple[str, ...]
    test: str
    num_labels: int
    """Label bytes in front of the pixels; the last one is the class."""
    num_classes: int
    num_train: int = 50_000
    num_test: int = 10_000


CIFAR10 = CifarFiles("cifar10", "cifar-10-batches-bin", tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
                     "test_batch.bin", 1, 10)
CIFAR100 = CifarFiles("cifar100", "cifar-100-binary", ("train.bin",), "test.bin", 2, 100)


def read_cifar(files: CifarFiles, folder: Path, image_size: int) -> tuple[LabelledImages, LabelledImages]:
    """Read a binary version; raises `ValueError` if a file is missing or has another number of records, a label is out
    of range, or `image_size` is not 32.
    """
    if image_size != CIFAR_SIZE:
        raise ValueError(f"data.image_size: CIFAR's images have {CIFAR_SIZE} pixels, found {image_size}; mend it")
    root = folder / files.folder
    train = [_records(root / name, files, files.num_train // len(files.train)) for name in files.train]
    return _labelled(np.concatenate(train), files), _labelled(_records(root / files.test, files, files.num_test), files)


def _records(path: Path, files: CifarFiles, num: int) -> np.ndarray:
    length = files.num_labels + 3 * CIFAR_SIZE**2
    if not path.is_file():
        raise ValueError(f"{path}: no such file. Fetch the binary version: `repro data fetch {files.name}` "
                         f"unpacks it to data/{files.name}")
    if path.stat().st_size != num * length:
        raise ValueError(f"{path}: expected {num} records of {length} bytes, found {path.stat().st_size} bytes; unpack "
                         "the archive again")
    return np.fromfile(path, np.uint8).reshape(num, length)


def _labelled(records: np.ndarray, files: CifarFiles) -> LabelledImages:
    pixels = records[:, files.num_labels:].reshape(-1, 3, CIFAR_SIZE, CIFAR_SIZE)
    labels = records[:, files.num_labels - 1].astype(np.int64)
    return LabelledImages(torch.from_numpy(np.ascontiguousarray(pixels)), torch.from_numpy(labels), files.num_classes)


def read_tiny_imagenet(folder: Path, image_size: int, num_classes: int = NUM_CLASSES["tiny-imagenet"],
                       ) -> tuple[LabelledImages, LabelledImages]:
    """Read Tiny-ImageNet into memory; its validation images are the test images, since its test labels are not public;
    raises `ValueError` if a file is missing or is not an image, a line of `val_annotations.txt` cannot be read, or
    there is another number of classes.
    """
    root = folder / "tiny-imagenet-200"
    names = _lines(root / "wnids.txt")
    if len(names) != num_classes:
        raise ValueError(f"{root / 'wnids.txt'}: expected {num_classes} classes, found {len(names)}; unpack it again")
    numbers = {name: number for number, name in enumerate(sorted(names))}
    train = [(path, number) for name, number in numbers.items()
             for path in sorted((root / "train" / name / "images").glob("*.JPEG"))]
    annotations, test = root / "val" / "val_annotations.txt", []
    for number, line in enumerate(_lines(annotations), 1):
        file, name, *_ = [*line.split("\t"), ""]
        if name not in numbers:
            raise ValueError(f"{annotations}, line {number}: expected a file, a tab and a class of wnids.txt, found "
                             f"{line!r}; unpack the archive again")
        test.append((root / "val" / "images" / file, numbers[name]))

    def decoded(files: list[tuple[Path, int]]) -> LabelledImages:
        found = _in_files(files, image_size, num_classes, "squash", root)
        return LabelledImages(found.images[torch.arange(len(found))], found.labels, num_classes)

    return decoded(train), decoded(test)


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise ValueError(f"{path}: no such file. Fetch the archive: `repro data fetch tiny-imagenet` unpacks it to "
                         "data/tiny-imagenet")
    return read_text(path).splitlines()


def read_class_folders(folder: Path, image_size: int, num_classes: int = NUM_CLASSES["imagenet"],
                       ) -> tuple[LabelledImages, LabelledImages]:
    """Find ImageNet's images in `train/<class>/` and `val/<class>/`; they stay in their files until they are asked for.

    Classes are numbered in the order of their folders' names, as torchvision's weights number them. Names that begin
    with a dot, as macOS adds them, are left out.

    Raises:
        ValueError: there is another number of class folders, the two differ, or one is empty.
    """
    found: dict[str, list[tuple[Path, int]]] = {"train": [], "val": []}
    for split, files in found.items():
        root = folder / split
        names = sorted(path for path in root.glob("[!.]*") if path.is_dir()) if root.is_dir() else []
        if len(names) != num_classes:
            raise ValueError(f"{root}: expected {num_classes} class folders, found {len(names)}; unpack ImageNet's "
                             "archives there, one folder per class")
        for label, name in enumerate(names):
            own = [(path, label) for path in sorted(name.glob("[!.]*")) if not path.is_dir()]
            if not own:
                raise ValueError(f"{name}: no image in it; unpack the archive again")
            files += own
    train, val = ({path.parent.name for path, _ in files} for files in found.values())
    if train != val:
        raise ValueError(f"{folder / 'val'}: class {min(train ^ val)!r} is in train/ or val/ alone; expected folders "
                         "of the same names in both. Rename them, or sort the images of val/ into the classes' folders")
    return (_in_files(found["train"], image_size, num_classes, "squash", folder),
            _in_files(found["val"], image_size, num_classes, "crop", folder))


def _in_files(files: list[tuple[Path, int]], image_size: int, num_classes: int, fit: Literal["squash", "crop"],
              folder: Path) -> LabelledImages:
    labels = torch.tensor([label for _, label in files], dtype=torch.int64)
    return LabelledImages(ImageFiles([path for path, _ in files], image_size, fit, folder), labels, num_classes)


READERS: dict[str, Callable[[Path, int], tuple[LabelledImages, LabelledImages]]] = {
    "cifar10": partial(read_cifar, CIFAR10),
    "cifar100": partial(read_cifar, CIFAR100),
    "tiny-imagenet": read_tiny_imagenet,
    "imagenet": read_class_folders,
}
"""Name -> reader of training and test images from a folder and an image size."""
