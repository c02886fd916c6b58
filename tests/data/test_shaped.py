"""The synthetic sets have the real layouts, as the reader of annotation files finds them."""

import json
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from repblend.data.karpathy import Annotations, read_annotations
from tests import shaped


def counts(annotations: Annotations) -> list[tuple[int, int]]:
    return [(len(split), sum(len(image.captions) for image in split))
            for split in (annotations.train, annotations.val, annotations.test)]


def test_flickr30k_has_five_captions_per_image(tmp_path: Path) -> None:
    read = read_annotations(shaped.flickr30k(tmp_path, 6, 3, 4), "flickr30k", 60)
    assert counts(read) == [(6, 30), (3, 15), (4, 20)]
    assert all(image.image.startswith("flickr30k-images/") for image in read.train + read.test)


def test_coco_has_two_images_with_six_captions_in_each_held_out_split(tmp_path: Path) -> None:
    read = read_annotations(shaped.coco(tmp_path, 6, 5, 7), "coco_karpathy", 60)
    assert counts(read) == [(6, 30), (5, 27), (7, 37)]
    assert {image.image.split("/")[0] for image in read.train} == {"train2014", "val2014"}


def test_cc3m_has_one_caption_per_image_and_files_named_as_released(tmp_path: Path) -> None:
    shaped.cc3m(tmp_path, 6, 3, 4)
    rows = {split: json.loads((tmp_path / f"captions_{split}zx2025.json").read_text()) for split in ("train", "test")}
    assert len(rows["train"]) == 6 and len(rows["test"]) == 4
    assert all(isinstance(row["caption"], str) for row in rows["train"] + rows["test"])  # as the released loader reads


@pytest.mark.parametrize("make", [shaped.flickr30k, shaped.coco, shaped.cc3m])
def test_every_image_is_there_and_the_same_call_writes_the_same_bytes(make, tmp_path: Path) -> None:
    first, again = (make(tmp_path / name, 5, 2, 3) for name in ("first", "again"))
    files = [path.relative_to(first) for path in first.rglob("*") if path.is_file()]
    assert len(files) == 10 + 3
    assert all((first / path).read_bytes() == (again / path).read_bytes() for path in files)
    assert all(Image.open(first / path).size == (50, 40) for path in files if path.suffix == ".jpg")


def test_shards_hold_every_image_under_its_own_name(tmp_path: Path) -> None:
    names = sorted(path.name for path in shaped.cc3m(tmp_path, 5, 2, 3).glob("*.jpg"))
    packed = []
    for shard in shaped.pack_into_shards(tmp_path, 4):
        with tarfile.open(tmp_path / shard) as tar:
            packed += tar.getnames()
    assert packed == names and not list(tmp_path.glob("*.jpg"))
