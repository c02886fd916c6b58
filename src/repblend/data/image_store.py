"""Where a dataset's images lie: in a folder, or in the tar shards of a WebDataset.

Whoever needs an image asks a store for its bytes by the name that the annotations give it, and does not know which kind
it is. Stores may be read by several threads at once.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from repblend.store import read_json

IMAGES_FILE = "images.json"
"""In `data/prepared/` of a real dataset: where its images lie, and their hashes. Its absence says: beside it."""


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


@dataclass(frozen=True)
class Place:
    """Where an image's bytes lie in a shard."""

    shard: str
    """Path relative to the dataset's folder."""
    offset: int
    """First byte of the content in the shard."""
    num_bytes: int


@dataclass(frozen=True)
class FolderStore:
    """One file per image."""

    folder: Path

    def read(self, name: str) -> bytes:
        try:
            return (self.folder / name).read_bytes()
        except FileNotFoundError as error:
            raise missing(self.locate(name)) from error
        except OSError as error:  # a folder, or not ours to read
            raise ValueError(f"{self.locate(name)}: expected a readable image file ({error.strerror}). Replace it, or "
                             "remove its rows from the annotations") from error

    def locate(self, name: str) -> str:
        return str(self.folder / name)


@dataclass(frozen=True)
class ShardStore:
    """Images inside uncompressed tar files, each read where it lies."""

    folder: Path
    places: Mapping[str, Place]

    def read(self, name: str) -> bytes:
        if name not in self.places:
            raise missing(self.locate(name))
        place = self.places[name]
        try:
            with (self.folder / place.shard).open("rb") as shard:
                shard.seek(place.offset)
                content = shard.read(place.num_bytes)
        except OSError as error:
            raise ValueError(f"{self.folder / place.shard}: cannot be read ({error.strerror}), but image '{name}' lies "
                             "in it. Put the shard back") from error
        if len(content) < place.num_bytes:
            raise ValueError(f"{self.locate(name)}: the shard ends {place.num_bytes - len(content)} bytes too early. "
                             "Fetch it again")
        return content

    def locate(self, name: str) -> str:
        place = self.places.get(name)
        return f"{self.folder / place.shard}, member {name}" if place else str(self.folder / name)


@dataclass(frozen=True)
class CheckedStore:
    """Images that are compared with recorded hashes whenever they are read."""

    store: ImageStore
    sha256: Mapping[str, str]

    def read(self, name: str) -> bytes:
        content = self.store.read(name)
        if hashlib.sha256(content).hexdigest() != self.sha256.get(name):
            raise ValueError(f"{self.locate(name)}: the file's SHA-256 is not the one that stage `prepare` recorded. "
                             "Bring the old file back, or run `repro data check` and then `dvc repro --force prepare`")
        return content

    def locate(self, name: str) -> str:
        return self.store.locate(name)


def missing(where: str) -> ValueError:
    """Return what to raise if an image is not where it should be."""
    return ValueError(f"{where}: no such image, but an annotation file names it. Put it there, or remove its rows from "
                      "the annotations")


def open_images(prepared: Path, repository: Path) -> ImageStore:
    """Return the store of a prepared dataset.

    Args:
        prepared: what stage `prepare` wrote.
        repository: what the folder of a real dataset is relative to, if it is not absolute.

    Raises:
        ValueError: `images.json` is damaged.
    """
    if not (prepared / IMAGES_FILE).is_file():
        return FolderStore(prepared)
    record = read_json(prepared / IMAGES_FILE)
    images, folder = record["images"], repository / record["folder"]
    return CheckedStore(store_of(folder, images), {name: image["sha256"] for name, image in images.items()})


def store_of(folder: Path, images: Mapping[str, Mapping]) -> ImageStore:
    """Return the store that fits recorded images: of shards if they say in which they lie.

    Args:
        images: by name, what `repblend.data.image_index` records of each.
    """
    if not any("shard" in image for image in images.values()):
        return FolderStore(folder)
    return ShardStore(folder, {name: Place(image["shard"], image["offset"], image["bytes"])
                               for name, image in images.items()})
