"""Readers of the official archives, unpacked: CIFAR's binary version, Tiny-ImageNet, and ImageNet's class folders.

Every reader takes the folder that the archive was unpacked to (or, for ImageNet, one with `train/` and `val/`) and an
image size, and returns training and test images; test images are those with public labels. Nothing is unpickled.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from repblend.ufc.data import LabelledImages
from repblend.ufc.image_files import ImageFiles

CIFAR_SIZE = 32


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
TINY_CLASSES, IMAGENET_CLASSES = 200, 1000


def read_cifar(files: CifarFiles, folder: Path, image_size: int) -> tuple[LabelledImages, LabelledImages]:
    """Read a binary version.

    Raises:
        ValueError: a file is missing or has another number of records, a label is out of range, or `image_size` is
            not 32.
    """
    if image_size != CIFAR_SIZE:
        raise ValueError(f"data.image_size: CIFAR's images have {CIFAR_SIZE} pixels, found {image_size}; mend it")
    root = folder / files.folder
    train = [_records(root / name, files, files.num_train // len(files.train)) for name in files.train]
    return _labelled(np.concatenate(train), files), _labelled(_records(root / files.test, files, files.num_test), files)


def _records(path: Path, files: CifarFiles, num: int) -> np.ndarray:
    length = files.num_labels + 3 * CIFAR_SIZE**2
    if not path.is_file():
        raise ValueError(f"{path}: no such file. Fetch the binary version (`python -m repblend.ufc fetch --dataset "
                         f"{files.name}` unpacks it to data/{files.name})")
    if path.stat().st_size != num * length:
        raise ValueError(f"{path}: expected {num} records of {length} bytes, found {path.stat().st_size} bytes; unpack "
                         "the archive again")
    return np.fromfile(path, np.uint8).reshape(num, length)


def _labelled(records: np.ndarray, files: CifarFiles) -> LabelledImages:
    pixels = records[:, files.num_labels:].reshape(-1, 3, CIFAR_SIZE, CIFAR_SIZE)
    labels = records[:, files.num_labels - 1].astype(np.int64)
    return LabelledImages(torch.from_numpy(np.ascontiguousarray(pixels)), torch.from_numpy(labels), files.num_classes)


def read_tiny_imagenet(folder: Path, image_size: int, num_classes: int = TINY_CLASSES,
                       ) -> tuple[LabelledImages, LabelledImages]:
    """Read Tiny-ImageNet into memory; its validation images are the test images, since its test labels are not public.

    Raises:
        ValueError: a file is missing or is not an image, a line of `val_annotations.txt` cannot be read, or there is
            another number of classes.
    """
    root = folder / "tiny-imagenet-200"
    names = _lines(root / "wnids.txt")
    if len(names) != num_classes:
        raise ValueError(f"{root / 'wnids.txt'}: expected {num_classes} classes, found {len(names)}; unpack it again")
    numbers = {name: number for number, name in enumerate(sorted(names))}
    train = [(path, number) for name, number in numbers.items()
             for path in sorted((root / "train" / name / "images").glob("*.JPEG"))]
    test = [_annotation(root, number, line, numbers) for number, line in
            enumerate(_lines(root / "val" / "val_annotations.txt"), 1)]
    return _decoded(train, image_size, num_classes), _decoded(test, image_size, num_classes)


def _annotation(root: Path, number: int, line: str, numbers: dict[str, int]) -> tuple[Path, int]:
    file, _, rest = line.partition("\t")
    name = rest.partition("\t")[0]
    if name not in numbers:
        raise ValueError(f"{root / 'val' / 'val_annotations.txt'}, line {number}: expected a file, a tab and a class "
                         f"of wnids.txt, found {line!r}; unpack the archive again")
    return root / "val" / "images" / file, numbers[name]


def _decoded(files: list[tuple[Path, int]], image_size: int, num_classes: int) -> LabelledImages:
    images = _in_files(files, image_size, num_classes, "squash")
    return LabelledImages(images.images[torch.arange(len(images))], images.labels, num_classes)


def _in_files(files: list[tuple[Path, int]], image_size: int, num_classes: int, fit: str) -> LabelledImages:
    labels = torch.tensor([label for _, label in files], dtype=torch.int64)
    return LabelledImages(ImageFiles([path for path, _ in files], image_size, fit), labels, num_classes)


def read_class_folders(folder: Path, image_size: int, num_classes: int = IMAGENET_CLASSES,
                       ) -> tuple[LabelledImages, LabelledImages]:
    """Find ImageNet's images in `train/<class>/` and `val/<class>/`; they stay in their files until they are asked for.

    Classes are numbered in the order of their folders' names, as torchvision's weights number them.

    Raises:
        ValueError: there is another number of class folders, the two differ, or one is empty.
    """
    train, test = (_class_files(folder / split, num_classes) for split in ("train", "val"))
    return (_in_files(train, image_size, num_classes, "squash"), _in_files(test, image_size, num_classes, "crop"))


def _class_files(folder: Path, num_classes: int) -> list[tuple[Path, int]]:
    names = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    if len(names) != num_classes:
        raise ValueError(f"{folder}: expected {num_classes} class folders, found {len(names)}; unpack ImageNet's "
                         "archives there, one folder per class")
    found = []
    for label, name in enumerate(names):
        files = [(path, label) for path in sorted(name.iterdir()) if path.is_file()]
        if not files:
            raise ValueError(f"{name}: no image in it; unpack the archive again")
        found += files
    return found


def _lines(path: Path) -> list[str]:
    if not path.is_file():
        raise ValueError(f"{path}: no such file. Fetch the archive (`python -m repblend.ufc fetch --dataset "
                         "tiny-imagenet` unpacks it to data/tiny-imagenet)")
    return path.read_text("utf-8").splitlines()
