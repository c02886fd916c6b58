"""The one reader (and writer) of annotation files: the BLIP/Karpathy layout of Flickr30K, COCO and LLaVA-cc3m.

`<name>_train.json` is a list of rows {"image", "caption", "image_id"}, one row per caption; `<name>_val.json` and
`<name>_test.json` are lists of rows {"image", "caption": [one or more captions]}. Image paths are relative to the
dataset's folder.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from repblend.data.captions import clean_caption
from repblend.store import read_json, write_json

SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class AnnotatedImage:
    """An image of a split and its captions, cleaned."""

    image: str
    """Path relative to the dataset's folder."""
    captions: tuple[str, ...]
    """At least one."""


@dataclass(frozen=True)
class Annotations:
    """The three splits of a dataset, images in the order of their first row."""

    train: tuple[AnnotatedImage, ...]
    val: tuple[AnnotatedImage, ...]
    test: tuple[AnnotatedImage, ...]


def annotation_file(folder: Path, name: str, split: SplitName) -> Path:
    """Return where a split's annotations lie, for example `flickr30k_train.json`."""
    return folder / f"{name}_{split}.json"


def read_annotations(folder: Path, name: str, max_caption_words: int) -> Annotations:
    """Read and check all splits of a dataset.

    Args:
        name: prefix of the files: `openmoji`, `flickr30k`, `coco_karpathy`, ...
        max_caption_words: captions are cut to this many words.

    Raises:
        ValueError: a file is missing or not JSON; a row is not of the layout; a caption is not text or is empty after
            the clean-up; a path leaves the folder; an image stands in two splits or in two rows of `val` or `test`.
            The message names the file, the row (counted from 0) and what was expected.
    """
    seen: dict[str, str] = {}
    splits = {}
    for split in SPLITS:
        path = annotation_file(folder, name, split)
        images = _images(path, split, max_caption_words)
        for image in images:
            if image.image in seen:
                raise ValueError(f"{path}: image '{image.image}' stands in '{seen[image.image]}' too; expected every "
                                 "image in one split only. Remove it from one of the two files")
        seen |= {image.image: path.name for image in images}
        splits[split] = images
    return Annotations(**splits)


def _images(path: Path, split: SplitName, max_caption_words: int) -> tuple[AnnotatedImage, ...]:
    captions: dict[str, list[str]] = {}
    for number, row in enumerate(_rows(path)):
        where = f"{path}, row {number}"
        image = _image(row, where)
        if split != "train" and image in captions:
            raise ValueError(f"{where}: image '{image}' has a row already; expected one row per image. Put all its "
                             "captions into one list")
        texts = _caption_list(row, where, split)
        captions.setdefault(image, []).extend(_clean(text, max_caption_words, where) for text in texts)
    return tuple(AnnotatedImage(image, tuple(texts)) for image, texts in captions.items())


def _rows(path: Path) -> list[Any]:
    rows = read_json(path)
    if not isinstance(rows, list) or not rows:
        raise ValueError(f"{path}: expected a list of rows with at least one row, found "
                         f"{'an empty list' if rows == [] else type(rows).__name__}")
    return rows


def _image(row: Any, where: str) -> str:
    if not isinstance(row, dict):
        raise ValueError(f"{where}: expected an object with 'image' and 'caption', found {type(row).__name__}")
    image = row.get("image")
    if not isinstance(image, str) or not image:
        raise ValueError(f"{where}: expected 'image' to be a path relative to the dataset's folder, found {image!r}")
    if PurePosixPath(image).is_absolute() or ".." in PurePosixPath(image).parts:
        raise ValueError(f"{where}: image '{image}' lies outside the dataset's folder; expected a relative path in it")
    return image


def _caption_list(row: dict[str, Any], where: str, split: SplitName) -> Sequence[Any]:
    caption = row.get("caption")
    if split == "train":
        return [caption]
    if not isinstance(caption, list) or not caption:
        raise ValueError(f"{where}: expected 'caption' to be a list of one or more captions, found {caption!r}")
    return caption


def _clean(caption: Any, max_words: int, where: str) -> str:
    if not isinstance(caption, str):
        raise ValueError(f"{where}: expected a caption to be text, found {caption!r}. Correct or remove it")
    cleaned = clean_caption(caption, max_words)
    if not cleaned:
        raise ValueError(f"{where}: caption {caption!r} is empty after the clean-up; expected at least one word. "
                         "Correct or remove it")
    return cleaned


def write_annotations(folder: Path, name: str, annotations: Annotations) -> None:
    """Write all splits of a dataset in the same layout."""
    train = [{"image": image.image, "caption": caption, "image_id": f"{name}_{number}"}
             for number, image in enumerate(annotations.train) for caption in image.captions]
    write_json(annotation_file(folder, name, "train"), train)
    write_json(annotation_file(folder, name, "val"), _rows_of(annotations.val))
    write_json(annotation_file(folder, name, "test"), _rows_of(annotations.test))


def _rows_of(images: Iterable[AnnotatedImage]) -> list[dict[str, Any]]:
    return [{"image": image.image, "caption": list(image.captions)} for image in images]
