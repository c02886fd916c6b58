"""Small synthetic sets in the real layouts of Flickr30K, COCO and LLaVA-cc3m: the same file names, the same rows.

Images are coloured shapes and captions say which, so that something can be learnt from them. Everything follows from
the arguments: the same call writes the same bytes.
"""

import itertools
import json
import random
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

COLOURS = {"red": (220, 30, 30), "green": (30, 160, 60), "blue": (40, 70, 220), "yellow": (235, 210, 40),
           "black": (20, 20, 20), "white": (245, 245, 245), "orange": (240, 140, 30), "purple": (130, 50, 160)}
SHAPES = ("circle", "square", "triangle", "bar", "cross", "frame")
TEMPLATES = ("A {colour} {shape} on a {ground} ground .", "There is one {colour} {shape}, with {ground} behind it.",
             'The "{shape}" is {colour}; all else is {ground}.', "{ground} picture of some {colour} {shape}",
             "Someone drew a {shape} (in {colour}) on {ground} paper!", "A {shape} : {colour} over {ground}.")
"""Capitals and the characters that the clean-up takes away, as published captions have them."""


@dataclass(frozen=True)
class Picture:
    """One image and what its captions may say."""

    path: str
    """Relative to the set's folder."""
    image_id: Any
    colour: str
    shape: str
    ground: str

    def captions(self, num: int) -> list[str]:
        return [template.format(colour=self.colour, shape=self.shape, ground=self.ground)
                for template in TEMPLATES[:num]]

    def draw(self, size: int, generator: random.Random) -> Image.Image:
        """An image that is wider than high, as photographs are."""
        image = Image.new("RGB", (size * 5 // 4, size), COLOURS[self.ground])
        radius, pen = size // 4 + generator.randrange(size // 8 + 1), ImageDraw.Draw(image)
        x, y = (generator.randrange(radius, side - radius) for side in image.size)
        fill, left, top, right, bottom = COLOURS[self.colour], x - radius, y - radius, x + radius, y + radius
        match self.shape:
            case "circle":
                pen.ellipse((left, top, right, bottom), fill)
            case "square":
                pen.rectangle((left, top, right, bottom), fill)
            case "triangle":
                pen.polygon(((x, top), (left, bottom), (right, bottom)), fill)
            case "bar":
                pen.rectangle((left, y - 2, right, y + 2), fill)
            case "cross":
                pen.line((left, top, right, bottom), fill, 4)
                pen.line((left, bottom, right, top), fill, 4)
            case "frame":
                pen.rectangle((left, top, right, bottom), None, fill, 3)
        return image


def flickr30k(folder: Path, num_train: int = 120, num_val: int = 30, num_test: int = 40, size: int = 40) -> Path:
    """Write a Flickr30K-shaped set: five captions per image, images in one folder; return the folder."""
    names = (f"flickr30k-images/{1_000_092_795 + 37 * number}.jpg" for number in itertools.count())
    splits = _splits(names, lambda number: number, num_train, num_val, num_test, "flickr30k")
    _write_pictures(folder, splits, size)
    for split, pictures in splits.items():
        _write_split(folder / f"flickr30k_{split}.json", split, pictures, lambda number: 5)
    return folder


def coco(folder: Path, num_train: int = 120, num_val: int = 30, num_test: int = 40, size: int = 40) -> Path:
    """Write a COCO-shaped set: five captions per image, six for two of each held-out split; return the folder.

    As in the Karpathy split, some training images lie in the folder of the original validation set.
    """
    names = (f"{where}/COCO_{where}_{number + 9:012d}.jpg" for number, where in
             enumerate(itertools.cycle(["train2014", "train2014", "val2014"])))
    splits = _splits(names, lambda number: f"coco_{number + 9}", num_train, num_val, num_test, "coco")
    _write_pictures(folder, splits, size)
    for split, pictures in splits.items():
        _write_split(folder / f"coco_karpathy_{split}.json", split, pictures,
                     lambda number: 6 if number in (1, 4) else 5)
    return folder


def cc3m(folder: Path, num_train: int = 120, num_val: int = 30, num_test: int = 40, size: int = 40) -> Path:
    """Write a set of LLaVA-cc3m's shape: one caption per image, text in all splits, files named as released; return
    the folder.
    """
    names = (f"GCC_train_{number:09d}.jpg" for number in itertools.count())
    splits = _splits(names, lambda number: f"{number:09d}", num_train, num_val, num_test, "cc3m")
    _write_pictures(folder, splits, size)
    for split, pictures in splits.items():
        file = folder / f"captions_{split}zx2025.json"
        _write_split(file, split, pictures, lambda number: 1)
        rows = json.loads(file.read_text())
        texts = [row | {"caption": row["caption"][0]} if isinstance(row["caption"], list) else row for row in rows]
        file.write_text(json.dumps(texts), encoding="utf-8")
    return folder


def pack_into_shards(folder: Path, images_per_shard: int = 50) -> list[str]:
    """Move a set's images into WebDataset shards `shards/00000.tar`, ...; return the names of the shards."""
    images = sorted(path for path in folder.rglob("*.jpg"))
    (folder / "shards").mkdir()
    shards = []
    for number, start in enumerate(range(0, len(images), images_per_shard)):
        shards.append(f"shards/{number:05d}.tar")
        with tarfile.open(folder / shards[-1], "w", format=tarfile.USTAR_FORMAT) as tar:
            for path in images[start:start + images_per_shard]:
                tar.add(path, path.relative_to(folder).as_posix(), filter=_without_owner)
                path.unlink()
    return shards


def _without_owner(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member


def _splits(names: Iterator[str], image_id: Callable[[int], Any], num_train: int, num_val: int, num_test: int,
            seed: str) -> dict[str, list[Picture]]:
    generator = random.Random(seed)
    pictures = []
    for number, name in zip(range(num_train + num_val + num_test), names, strict=False):
        colour, ground = generator.sample(list(COLOURS), 2)
        pictures.append(Picture(name, image_id(number), colour, generator.choice(SHAPES), ground))
    return {"train": pictures[:num_train], "val": pictures[num_train:num_train + num_val],
            "test": pictures[num_train + num_val:]}


def _write_pictures(folder: Path, splits: dict[str, list[Picture]], size: int) -> None:
    for picture in itertools.chain(*splits.values()):
        path = folder / picture.path
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.draw(size, random.Random(picture.path)).save(path, quality=90)


def _write_split(path: Path, split: str, pictures: list[Picture], num_captions: Callable[[int], int]) -> None:
    if split == "train":  # a row per caption
        rows: list[dict[str, Any]] = [{"caption": caption, "image": picture.path, "image_id": picture.image_id}
                                      for picture in pictures for caption in picture.captions(min(num_captions(0), 5))]
    else:
        rows = [{"image": picture.path, "caption": picture.captions(num_captions(number))}
                for number, picture in enumerate(pictures)]
    path.write_text(json.dumps(rows), encoding="utf-8")
