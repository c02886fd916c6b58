"""Where a dataset's images lie: each in a file, or in the tar shards of a WebDataset.

A store gives the bytes of an image by the name that the annotations give it. Stores may be read by several threads at
once. `repblend.data.images` makes tensors of what they give; nothing here imports torch.

An image is taken as viewers show it: turned as its EXIF orientation says, its transparent parts on white, of several
frames the first, grey levels of more than 8 bits scaled to 8. (The released code ignores the orientation, shows what
lies under transparent parts, and cuts grey levels off at 255.)
"""

import hashlib
import io
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired, Protocol

import numpy as np
from PIL import Image
from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic asks for it before Python 3.12

from repblend.files import HEAD, LIMITS, Refusal, named, open_given, read_bytes, size_of
from repblend.store import read_json

IMAGES_FILE = "images.json"
"""In `data/prepared/` of a real dataset: where its images lie, and their hashes. Without it they lie beside it."""
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM")
"""Pillow's names of what is decoded; whatever the file is called. Others, as EPS, would start further programs."""
MAX_PIXELS = 100_000_000
ORIENTATION = 0x0112
TURNED = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
          5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
          8: Image.Transpose.ROTATE_90}
"""EXIF orientation -> what shows the image upright."""


class Found(TypedDict):
    """What is known of an image."""

    bytes: int
    sha256: str
    shard: NotRequired[str]
    """Of images in shards: the shard's path in the folder, and the first byte of the content in it."""
    offset: NotRequired[int]


IMAGES = TypeAdapter(dict[str, Found])


class ImageStore(Protocol):
    """The images of a dataset by name."""

    def read(self, name: str) -> bytes:
        """Return an image file's content.

        Args:
            name: as in the annotations, for example `val2014/COCO_val2014_000000522418.jpg`.

        Raises:
            ValueError: there is no such image, or it is not what was recorded; the message says how to mend it.
        """

    def locate(self, name: str) -> str:
        """Return what an error calls the image: where to look for it."""


def open_images(prepared: Path, repository: Path) -> ImageStore:
    """Return the store of a prepared dataset.

    Args:
        prepared: what stage `prepare` wrote.
        repository: what the folder of a real dataset is relative to, if it is not absolute.

    Raises:
        ValueError: `images.json` is damaged.
    """
    if not (prepared / IMAGES_FILE).is_file():
        return FolderStore(prepared, may_lead_out=True)
    record = read_json(prepared / IMAGES_FILE)
    if not isinstance(record, dict) or not isinstance(record.get("folder"), str):
        raise ValueError(f"{prepared / IMAGES_FILE}: expected what stage `prepare` writes. Run `repro run prepare`")
    images, folder = checked_images(record.get("images"), prepared / IMAGES_FILE), repository / record["folder"]
    in_shards = any("shard" in image for image in images.values())
    return CheckedStore(ShardStore(folder, images) if in_shards else FolderStore(folder), images)


def checked_images(images: object, path: Path) -> dict[str, Found]:
    """Return the records of images that a file holds; raises `ValueError` if they are none."""
    try:
        return IMAGES.validate_python(images, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{path}: expected size and SHA-256 of every image ({first['msg']} at "
                         f"{'/'.join(map(str, first['loc']))!a}). Delete it and run the same command again") from error


def open_image(store: ImageStore, name: str) -> Image.Image:
    """Read one image as it is, in RGB.

    Raises:
        ValueError: the image is missing, empty, truncated or no image; the message names it.
    """
    return decode(store.read(name), store.locate(name))


def read_picture(path: Path, inside: Path | None) -> Image.Image:
    """Read one image file of its own; raises as `open_image`, or if it leads out of the folder `inside`."""
    try:
        return decode(read_bytes(path, "image", inside), str(path))
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such image. Unpack the archive again, or make the set again") from error


def decode(content: bytes, where: str) -> Image.Image:
    """Return an image in RGB, fully decoded.

    Args:
        content: a file of one of `FORMATS`.
        where: what an error calls the file.

    Raises:
        ValueError: the file is empty, truncated, too large or no image; the message names it.
    """
    with (named(where, "a whole image file", "Replace it, or remove its rows from the annotations", content[:HEAD]),
          Image.open(io.BytesIO(content), formats=FORMATS) as file):
        if math.prod(file.size) > MAX_PIXELS:
            raise ValueError(f"{file.width} x {file.height} pixels, at most {MAX_PIXELS:,} are taken")
        file.load()
        return _upright(file, _in_rgb(file))


def _in_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        return _in_8_bits(image).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")


def _in_8_bits(image: Image.Image) -> Image.Image:
    """Scale grey levels: of 16 bits, 65,535 is white; of floats in [0, 1], 1 is; of others, the largest is, and the
    smallest black.
    """
    grey = np.asarray(image)
    if not np.isfinite(grey).all():
        raise ValueError("a grey level is NaN or infinite")
    low, high = float(grey.min()), float(grey.max())
    if grey.dtype.itemsize == 2:
        low, high = 0, 65535
    elif grey.dtype.kind == "f" and low >= 0 and high <= 1:
        low, high = 0, 1
    scaled = np.empty(grey.shape, np.uint8)
    for target, row in zip(scaled, grey, strict=True):  # the whole in float64 would take gigabytes
        target[:] = np.rint((row.astype(np.float64) - low) / ((high - low) or 1) * 255)
    if isinstance(transparent := image.info.get("transparency"), int):  # in a PNG, one of its levels
        scaled[grey == transparent] = 255
    return Image.fromarray(scaled)


def _upright(file: Image.Image, image: Image.Image) -> Image.Image:
    try:
        turn = TURNED.get(file.getexif().get(ORIENTATION, 1))
    except Exception:  # damaged EXIF data, as some photographs of published sets have: viewers ignore it
        return image
    return image.transpose(turn) if turn is not None else image


@dataclass(frozen=True)
class FolderStore:
    """One file per image."""

    folder: Path
    may_lead_out: bool = False
    """Whether links may leave the folder, as DVC's into its cache do."""

    def read(self, name: str) -> bytes:
        """As `ImageStore.read`."""
        try:
            return read_bytes(self.folder / name, "image", None if self.may_lead_out else self.folder)
        except FileNotFoundError as error:
            raise missing(self.locate(name)) from error

    def locate(self, name: str) -> str:
        """Return the file's path."""
        return str(self.folder / name)


@dataclass(frozen=True)
class ShardStore:
    """Images inside of uncompressed tar files, each read where it lies."""

    folder: Path
    images: Mapping[str, Found]
    """By name; with `shard` and `offset`."""

    def read(self, name: str) -> bytes:
        """As `ImageStore.read`."""
        image = self.images.get(name)
        if image is None or "shard" not in image or "offset" not in image:
            raise missing(self.locate(name))
        path, size = self.folder / image["shard"], image["bytes"]
        try:
            with open_given(path, "archive", self.folder) as shard:
                if not (0 <= size <= LIMITS["image"] and 0 <= image["offset"] <= size_of(shard)):
                    raise Refusal(f"{self.locate(name)}: expected at most {LIMITS['image']:,} bytes in the shard, "
                                  f"{size:,} are recorded. Run `repro data check` again")
                shard.seek(image["offset"])
                content = shard.read(size)
        except FileNotFoundError as error:
            raise ValueError(f"{path}: no such file, but image '{name}' lies in it. Put the shard back") from error
        if len(content) < size:
            raise ValueError(f"{self.locate(name)}: the shard ends {size - len(content)} bytes too early. Fetch it "
                             "again")
        return content

    def locate(self, name: str) -> str:
        """Return the shard's path and the name in it."""
        image = self.images.get(name)
        return f"{self.folder / image['shard']}, member {name}" if image and "shard" in image else str(
            self.folder / name)


@dataclass(frozen=True)
class CheckedStore:
    """Images that are compared with recorded hashes whenever they are read."""

    store: ImageStore
    images: Mapping[str, Found]

    def read(self, name: str) -> bytes:
        """As `ImageStore.read`."""
        content = self.store.read(name)
        if name not in self.images or hashlib.sha256(content).hexdigest() != self.images[name]["sha256"]:
            raise ValueError(f"{self.locate(name)}: the file's SHA-256 is not the one that stage `prepare` recorded. "
                             "Bring the old file back, or run `repro data check` and then `dvc repro --force prepare`")
        return content

    def locate(self, name: str) -> str:
        """As `ImageStore.locate`."""
        return self.store.locate(name)


def missing(where: str) -> ValueError:
    """Return the error for an image that is not where it should be."""
    return ValueError(f"{where}: no such image, but an annotation file names it. Put it there, write its name as the "
                      "folder has it (capitals, spaces, accents, `/` between folders), or remove its rows from the "
                      "annotations")
