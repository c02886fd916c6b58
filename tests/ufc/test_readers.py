"""Official archives: layouts written by the tests byte by byte."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional

from repblend.ufc.data import ImageFiles, LabelledImages, hold_out
from repblend.ufc.params import UfcData
from repblend.ufc.readers import (
    CIFAR10,
    CIFAR100,
    CifarFiles,
    read_cifar,
    read_class_folders,
    read_splits,
    read_tiny_imagenet,
)


def records(num: int, num_labels: int, num_classes: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, num_classes, (num, num_labels), np.uint8)
    return np.concatenate([labels, generator.integers(0, 256, (num, 3072), np.uint8)], 1)


@pytest.mark.parametrize("full", [CIFAR10, CIFAR100])
def test_cifars_records_are_label_then_planes(full: CifarFiles, tmp_path: Path) -> None:
    files = full._replace(num_train=5 * len(full.train), num_test=4)
    (tmp_path / files.folder).mkdir()
    written = [records(5, files.num_labels, files.num_classes, seed) for seed in range(len(files.train))]
    for name, rows in zip(files.train, written, strict=True):
        rows.tofile(tmp_path / files.folder / name)
    records(4, files.num_labels, files.num_classes, 99).tofile(tmp_path / files.folder / files.test)
    train, test = read_cifar(files, tmp_path, 32)
    assert (len(train), len(test), train.num_classes) == (files.num_train, 4, files.num_classes)
    row = np.concatenate(written)[3]
    assert train.labels[3] == row[files.num_labels - 1]
    assert train.images[3, 1, 2, 5] == row[files.num_labels + 1024 + 2 * 32 + 5]  # green, third row, sixth column


def test_damaged_cifar_is_an_error(tmp_path: Path) -> None:
    files = CIFAR100._replace(num_train=5, num_test=4)
    with pytest.raises(ValueError, match=r"train\.bin: no such file\. Fetch"):
        read_cifar(files, tmp_path, 32)
    (tmp_path / files.folder).mkdir()
    records(6, 2, 100, 0).tofile(tmp_path / files.folder / "train.bin")
    with pytest.raises(ValueError, match="expected 5 records of 3074 bytes, found 18444"):
        read_cifar(files, tmp_path, 32)
    with pytest.raises(ValueError, match="32 pixels, found 64"):
        read_cifar(files, tmp_path, 64)


def picture(path: Path, seed: int, size: tuple[int, int] = (8, 8)) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path, "PNG")  # the name ends as in the archives, the bytes are exact
    return pixels


def test_tiny_imagenet_is_numbered_by_name_and_tested_on_its_validation_images(tmp_path: Path) -> None:
    root = tmp_path / "tiny-imagenet-200"
    pixels = {name: [picture(root / "train" / name / "images" / f"{name}_{number}.JPEG", seed * 10 + number)
                     for number in range(2)] for seed, name in enumerate(("n02", "n01"))}
    shown = [picture(root / "val" / "images" / f"val_{number}.JPEG", 100 + number) for number in range(3)]
    (root / "wnids.txt").write_text("n02\nn01\n")
    (root / "val" / "val_annotations.txt").write_text("".join(
        f"val_{number}.JPEG\t{name}\t0\t0\t5\t5\n" for number, name in enumerate(("n02", "n01", "n02"))))
    train, test = read_tiny_imagenet(tmp_path, 8, num_classes=2)
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 0, 1, 1], [1, 0, 1])
    assert (train.images[2].permute(1, 2, 0).numpy() == pixels["n02"][0]).all()
    assert (test.images[1].permute(1, 2, 0).numpy() == shown[1]).all()
    (root / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn02\nval_1.JPEG n01\n")
    with pytest.raises(ValueError, match=r"val_annotations\.txt, line 2: .*'val_1\.JPEG n01'"):
        read_tiny_imagenet(tmp_path, 8, num_classes=2)
    with pytest.raises(ValueError, match="expected 200 classes, found 2"):
        read_tiny_imagenet(tmp_path, 8)


@pytest.fixture
def class_folders(tmp_path: Path) -> Path:
    for split, num in (("train", 3), ("val", 2)):
        for seed, name in enumerate(("n03", "n01")):
            for number in range(num):
                picture(tmp_path / split / name / f"{name}_{number}.JPEG", seed * 10 + number, (40, 30))
    return tmp_path


def test_class_folders_stay_in_their_files_until_asked_for(class_folders: Path) -> None:
    train, test = read_class_folders(class_folders, 14, num_classes=2)
    (class_folders / "train/n01/n01_1.JPEG").write_bytes(b"damaged, and not looked at")
    assert (len(train), train.images.shape, train.labels.tolist()) == (6, (6, 3, 14, 14), [0, 0, 0, 1, 1, 1])
    left, held = hold_out(train, 2, 0, "val")
    assert isinstance(left.images, ImageFiles) and len(left) == 4 and len(held) == 2
    found = train.images[torch.tensor([4])][0].permute(1, 2, 0).numpy()
    with Image.open(class_folders / "train/n03/n03_1.JPEG") as whole:
        expected = np.array(whole.resize((14, 14), Image.Resampling.BILINEAR))
    assert (found == expected).all()
    with pytest.raises(ValueError, match=r"n01_1\.JPEG: expected a whole image file"):
        train.images[torch.tensor([1])]
    assert sum(len(part) for part in test.images.split(3)) == 4


def test_test_images_are_cropped_as_an_image_library_crops_them(class_folders: Path) -> None:
    images = read_class_folders(class_folders, 14, num_classes=2)[1].images
    with Image.open(images.paths[1]) as whole:
        resized = functional.resize(whole, [16], functional.InterpolationMode.BILINEAR)
        expected = np.array(functional.center_crop(resized, [14]))
    assert (images[torch.tensor([1])][0].permute(1, 2, 0).numpy() == expected).all()


def test_missing_class_folders_are_an_error(class_folders: Path) -> None:
    with pytest.raises(ValueError, match="train: expected 1000 class folders, found 2"):
        read_class_folders(class_folders, 14)
    for path in (class_folders / "val/n01").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="n01: no image in it"):
        read_class_folders(class_folders, 14, num_classes=2)


def test_class_folders_of_other_names_are_refused(class_folders: Path) -> None:
    first, *_ = sorted((class_folders / "val").iterdir())
    first.rename(first.with_name("0"))
    with pytest.raises(ValueError, match="expected folders of the same names in both"):
        read_class_folders(class_folders, 8, len(list((class_folders / "val").iterdir())))


def test_what_a_file_manager_adds_is_no_image(class_folders: Path) -> None:
    before = read_class_folders(class_folders, 14, num_classes=2)[0].images
    (class_folders / "train/n01/.DS_Store").write_bytes(b"x")
    (class_folders / "train/.Trashes").mkdir()
    assert read_class_folders(class_folders, 14, num_classes=2)[0].images.paths == before.paths


def test_a_hash_tells_other_images_in_files_and_in_memory(class_folders: Path) -> None:
    train = read_class_folders(class_folders, 14, num_classes=2)[0]
    decoded = LabelledImages(train.images[torch.arange(6)], train.labels, 2)
    before = train.sha256(), decoded.sha256()
    assert before == (train.sha256(), decoded.sha256())
    decoded.images[0, 0, 0, 0] += 1
    (class_folders / "train/n01/n01_1.JPEG").write_bytes(b"other")
    assert all(old != new for old, new in zip(before, (train.sha256(), decoded.sha256()), strict=True))


def test_held_out_images_may_stay_among_the_training_images() -> None:
    data = {"name": "digits", "image_size": 8, "num_val": 200, "num_test": 400}
    without, whole = (read_splits(UfcData.model_validate(data | {"training_images": name}), Path(), 0)
                      for name in ("without-val", "all"))
    assert (len(without.train), len(whole.train)) == (1197, 1397)
    assert without.val.sha256() == whole.val.sha256() and without.test.sha256() == whole.test.sha256()
    every = {image.tobytes() for image in whole.train.images.numpy()}
    assert {image.tobytes() for image in whole.val.images.numpy()} <= every
