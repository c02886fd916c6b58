"""The one reader (and writer) of annotation files: the BLIP/Karpathy layout of Flickr30K, COCO and LLaVA-cc3m.

`<name>_train.json` is a list of rows {"image", "caption", "image_id"}, one row per caption; `<name>_val.json` and
`<name>_test.json` are lists of rows {"image", "caption": [one or more captions]}; a single caption may stand there
without a list, as it does in LLaVA-cc3m. Image paths are relative to the dataset's folder.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from repblend.data.captions import clean_caption
from repblend.data_params import SplitName
from repblend.store import JSON, read_json, write_json

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
        ValueError: as `read_splits`.
    """
    return read_splits({split: annotation_file(folder, name, split) for split in SPLITS},
                       dict.fromkeys(SPLITS, max_caption_words))


def read_splits(files: Mapping[SplitName, Path], max_caption_words: Mapping[SplitName, int]) -> Annotations:
    """Read and check all splits of a dataset, each from its file.

    Args:
        max_caption_words: captions of a split are cut to this many words.

    Raises:
        ValueError: a file is missing or not JSON; a row is not of the layout; a caption is not text or is empty after
            the clean-up; a path leaves the folder; an image stands in two splits or in two rows of `val` or `test`.
            The message names the file, the row (counted from 0), what was expected and how to mend it.
    """
    first_file: dict[str, Path] = {}
    return Annotations(**{split: _images(files[split], split, max_caption_words[split], first_file)
                          for split in SPLITS})


def _images(path: Path, split: SplitName, max_caption_words: int,
            first_file: dict[str, Path]) -> tuple[AnnotatedImage, ...]:
    """Read one file; `first_file` says in which file each image was first seen, and is extended."""
    captions: dict[str, list[str]] = {}
    for number, row in enumerate(_rows(path)):
        where = f"{path}, row {number}"
        image = image_of(row, where)
        if split != "train" and image in captions:
            raise second_row(image, where)
        if (other := first_file.setdefault(image, path)) != path:
            raise in_two_splits(image, where, other.name)
        texts = captions_of(row, where, split)
        captions.setdefault(image, []).extend(clean(text, max_caption_words, where) for text in texts)
    return tuple(AnnotatedImage(image, tuple(texts)) for image, texts in captions.items())


def second_row(image: str, where: str) -> ValueError:
    """Return what is wrong with a second row of one image in `val` or `test`."""
    return ValueError(f"{where}: image '{image}' has a row already; expected one row per image. Put all its captions "
                      "into one list")


def in_two_splits(image: str, where: str, other: str) -> ValueError:
    """Return what is wrong with a row whose image another split has."""
    return ValueError(f"{where}: image '{image}' stands in {other} too; expected every image in one split only. Remove "
                      "it from one of the two files")


def _rows(path: Path) -> list[Any]:
    rows = read_json(path)
    if not isinstance(rows, list) or not rows:
        raise ValueError(f"{path}: expected a list of rows with at least one row, found "
                         f"{'an empty list' if rows == [] else type(rows).__name__}. Put the rows into one list")
    return rows


def image_of(row: Any, where: str) -> str:
    """Return a row's image, its path relative to the dataset's folder.

    Raises:
        ValueError: the row is no object or has no such path; the message begins with `where`.
    """
    if not isinstance(row, dict):
        raise ValueError(f"{where}: expected an object with 'image' and 'caption', found {type(row).__name__}. "
                         "Correct or remove it")
    image = _value(row, "image", where)
    if not isinstance(image, str) or not image or "\0" in image:
        raise ValueError(f"{where}: expected 'image' to be a path relative to the dataset's folder, found {image!r}. "
                         "Correct or remove the row")
    path = PurePosixPath(image)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{where}: image '{image}' lies outside the dataset's folder; expected a relative path in it, "
                         "without '..'. Put the image into the folder and correct the path")
    return str(path)  # `./a.png` and `a.png` are one image


def _value(row: dict[str, Any], key: str, where: str) -> Any:
    if key not in row:
        raise ValueError(f"{where}: key '{key}' is missing, found {sorted(row)}; expected 'image' and 'caption'. "
                         "Add it, or remove the row")
    return row[key]


def captions_of(row: dict[str, Any], where: str, split: SplitName) -> Sequence[Any]:
    """Return a row's captions as they stand there: one in training, one or a list in the other splits.

    Raises:
        ValueError: the row has none, or `val` or `test` has neither text nor a list; the message begins with `where`.
    """
    caption = _value(row, "caption", where)
    if split == "train" or isinstance(caption, str):
        return [caption]
    if not isinstance(caption, list) or not caption:
        raise ValueError(f"{where}: expected 'caption' to be text or a list of one or more captions, found "
                         f"{caption!r}. Correct or remove the row")
    return caption


def clean(caption: Any, max_words: int, where: str) -> str:
    """Return a caption cleaned and cut to its first words.

    Raises:
        ValueError: it is no text, or nothing is left of it; the message begins with `where`.
    """
    if not isinstance(caption, str):
        raise ValueError(f"{where}: expected a caption to be text, found {caption!r}. Correct or remove it")
    cleaned = clean_caption(caption, max_words)
    if not cleaned.strip():
        raise ValueError(f"{where}: caption {caption!r} is empty after the clean-up; expected at least one word. "
                         "Correct or remove it")
    return cleaned


def counts(annotations: Annotations) -> JSON:
    """Return how many images and captions every split has."""
    return {split: {"images": len(images), "captions": sum(len(image.captions) for image in images)}
            for split, images in vars(annotations).items()}


def write_annotations(folder: Path, name: str, annotations: Annotations) -> None:
    """Write all splits of a dataset in the same layout."""
    train = [{"image": image.image, "caption": caption, "image_id": f"{name}_{number}"}
             for number, image in enumerate(annotations.train) for caption in image.captions]
    write_json(annotation_file(folder, name, "train"), train)
    write_json(annotation_file(folder, name, "val"), _rows_of(annotations.val))
    write_json(annotation_file(folder, name, "test"), _rows_of(annotations.test))


def _rows_of(images: Iterable[AnnotatedImage]) -> list[dict[str, Any]]:
    return [{"image": image.image, "caption": list(image.captions)} for image in images]
