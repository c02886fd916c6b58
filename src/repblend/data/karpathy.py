"""Annotation files: the reader and writer of the BLIP/Karpathy layout of Flickr30K, COCO and LLaVA-cc3m.

`<name>_train.json` is a list of rows {"image", "caption", "image_id"}, one row per caption; `<name>_val.json` and
`<name>_test.json` are lists of rows {"image", "caption": [one or more captions]}; a single caption may stand there
without a list, as it does in LLaVA-cc3m. Image paths are relative to the dataset's folder. Captions are cleaned as the
released code does it. `Captions` is what every reader shares; `repblend.data.own` has the other one.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from repblend.data.rows import raw_rows
from repblend.params.data import SplitName
from repblend.store import JSON, quoted, write_json

SPLITS: tuple[SplitName, ...] = ("train", "val", "test")
REPLACED_BY_SPACE = re.compile(r"[.!\"()*#:;~]")
NO_TEXT = re.compile("[\0\ud800-\udfff]")
"""A zero byte, or one half of a sign that takes two: JSON may hold them, and no file."""
MAX_IMAGE_NAME, MAX_CAPTION = 1000, 100_000
"""Characters. No caption of a published set has 10,000; the csv module takes up to 131,072."""
SPACES = re.compile(r"\s{2,}")


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

    def counts(self) -> JSON:
        """Return how many images and captions every split has."""
        return {split: {"images": len(images), "captions": sum(len(image.captions) for image in images)}
                for split, images in vars(self).items()}


def annotation_file(folder: Path, name: str, split: SplitName) -> Path:
    """Return where a split's annotations lie, for example `flickr30k_train.json`."""
    return folder / f"{name}_{split}.json"


def read_annotations(folder: Path, name: str, max_caption_words: int) -> Annotations:
    """Read and check all splits of a dataset.

    Args:
        name: prefix of the files: `openmoji`, `flickr30k`, `coco_karpathy`, ...
        max_caption_words: captions are cut to this many words.

    Raises:
        ValueError: as `Captions.read`.
    """
    files = [annotation_file(folder, name, split) for split in SPLITS]
    return LayoutCaptions(dict.fromkeys(SPLITS, max_caption_words), files).read()


def write_annotations(folder: Path, name: str, annotations: Annotations) -> None:
    """Write all splits of a dataset in the same layout."""
    train = [{"image": image.image, "caption": caption, "image_id": f"{name}_{number}"}
             for number, image in enumerate(annotations.train) for caption in image.captions]
    write_json(annotation_file(folder, name, "train"), train)
    for split in SPLITS[1:]:
        write_json(annotation_file(folder, name, split),
                   [{"image": image.image, "caption": list(image.captions)} for image in getattr(annotations, split)])


def clean_caption(caption: str, max_words: int) -> str:
    """Return the caption lower-cased, without the characters . ! " ( ) * # : ; ~, cut to its first words.

    Runs of white space become one space; a single tab or newline inside of the caption stays, as in the released code.

    Args:
        max_words: words kept; words are what single spaces separate (60 for Flickr30K and COCO training captions).
    """
    text = SPACES.sub(" ", REPLACED_BY_SPACE.sub(" ", caption.lower())).rstrip("\n").strip(" ")
    return " ".join(text.split(" ")[:max_words])


@dataclass(frozen=True)
class CaptionRow:
    """A row of the right layout; whether its captions are any is not looked at yet."""

    where: str
    """What an error calls it: file and number."""
    image: str
    """Path relative to the dataset's folder."""
    split: SplitName | None
    """None where a hash of all images' names decides."""
    captions: Sequence[Any]
    """One or more, as they stand there."""
    is_only: bool
    """Whether no other row may have its image."""


@dataclass(frozen=True)
class Captions(ABC):
    """The files that hold the captions of a dataset."""

    max_caption_words: Mapping[SplitName, int]
    """How many words a caption of each split keeps."""
    files: Sequence[Path]
    """In the order in which they are read."""
    folder: Path | None = field(default=None, kw_only=True)
    """That of the set, which no link may lead out of; None where the files are our own."""

    @abstractmethod
    def parse(self, file: Path, where: str, raw: Any) -> CaptionRow:
        """Check a row's layout; raises ValueError, and the message names the row."""

    def split_of(self, images: Mapping[str, SplitName | None]) -> Mapping[str, SplitName | None]:
        """Return the split of every image, from those that the rows name."""
        return images

    def read(self) -> Annotations:
        """Read and check everything.

        Raises:
            ValueError: a file is missing or no list of rows; a row is not of the layout; a caption is not text or is
                empty after the clean-up; a path leaves the folder; an image stands in two splits, or in two rows where
                one may name it; a split is empty. The message names the file, the row (counted from 0), what was
                expected and how to mend it.
        """
        captions: dict[str, list[str]] = {}
        splits: dict[str, SplitName | None] = {}
        for row, good in self.checked_rows(_stop):
            splits[row.image] = row.split
            captions.setdefault(row.image, []).extend(cleaned for _, cleaned in good)
        split_of, kept = self.split_of(splits), self.max_caption_words
        images = {split: tuple(AnnotatedImage(image, tuple(" ".join(caption.split(" ")[:kept[split]])
                                                           for caption in captions[image]))
                               for image in captions if split_of[image] == split) for split in SPLITS}
        if not captions:
            raise ValueError(f"{self.files[0]}: has no row, expected at least one. Add some, or name another file")
        if empty := [split for split in SPLITS if not images[split]]:
            raise ValueError(f"{self.files[0]}: {len(captions)} images leave none for {' and '.join(empty)}. Lower "
                             "data.num_val and data.num_test, or correct the column 'split'")
        return Annotations(**images)

    def checked_rows(self, refuse: Callable[[ValueError], object],
                     ) -> Iterator[tuple[CaptionRow, list[tuple[str, str]]]]:
        """Yield every row of all files that may stand beside those before it, and its captions that have a word, each
        as it stands there and cleaned.

        Args:
            refuse: gets whatever is wrong; if it returns, the next row (or caption, or file) is looked at.
        """
        first: dict[str, CaptionRow] = {}
        most_words = max(self.max_caption_words.values())
        for row in self._rows(refuse):
            before = first.setdefault(row.image, row)
            if before.split != row.split:
                refuse(ValueError(f"{row.where}: image '{row.image}' stands in {before.split} too ({before.where}); "
                                  "expected every image in one split only. Remove one of the two rows"))
            elif before is not row and row.is_only:
                refuse(ValueError(f"{row.where}: image '{row.image}' has a row already; expected one row per image. "
                                  "Put all its captions into one list"))
            else:
                good = []
                for caption in row.captions:
                    try:
                        good.append((caption, clean(caption, most_words, row.where)))
                    except ValueError as error:
                        refuse(error)
                yield row, good

    def _rows(self, refuse: Callable[[ValueError], object]) -> Iterator[CaptionRow]:
        for file in self.files:
            try:
                for where, raw in raw_rows(file, self.folder):
                    try:
                        row = self.parse(file, where, raw)
                    except ValueError as error:
                        refuse(error)
                    else:
                        yield row
            except ValueError as error:  # nothing more of this file can be read
                refuse(error)


def _stop(error: ValueError) -> None:
    raise error


@dataclass(frozen=True)
class LayoutCaptions(Captions):
    """Annotation files in the BLIP/Karpathy layout, one per split in the order of `SPLITS`; or of another form that
    `repblend.data.rows` reads, as the `metadata.jsonl` of every split in Hugging Face's `imagefolder`.
    """

    def parse(self, file: Path, where: str, raw: Any) -> CaptionRow:
        """As `Captions.parse`."""
        split = SPLITS[self.files.index(file)]
        image, caption = image_of(raw, where), _value(raw, "caption", where)
        published = file.suffix.lower() == ".json"  # elsewhere any split has a row per caption, or lists of them
        if (split == "train" and published) or isinstance(caption, str):
            return CaptionRow(where, image, split, [caption], is_only=published and split != "train")
        if not isinstance(caption, list) or not caption:
            raise ValueError(f"{where}: expected 'caption' to be text or a list of one or more captions, found "
                             f"{quoted(caption)}. Correct or remove the row")
        return CaptionRow(where, image, split, caption, is_only=published)


def image_of(raw: Any, where: str) -> str:
    """Return a row's image, its path relative to the dataset's folder.

    Raises:
        ValueError: the row is no object or has no such path; the message begins with `where`.
    """
    if not isinstance(raw, dict):
        raise ValueError(f"{where}: expected an object with 'image' and 'caption', found {type(raw).__name__}. "
                         "Correct or remove it")
    image = _value(raw, "image", where)
    if not isinstance(image, str) or not 0 < len(image) <= MAX_IMAGE_NAME or NO_TEXT.search(image):
        raise ValueError(f"{where}: expected 'image' to be a path relative to the dataset's folder, found "
                         f"{quoted(image)}. Correct or remove the row")
    path = PurePosixPath(image)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{where}: image '{image}' lies outside the dataset's folder; expected a relative path in it, "
                         "without '..'. Put the image into the folder and correct the path")
    return str(path)  # `./a.png` and `a.png` are one image


def _value(raw: JSON, key: str, where: str) -> Any:
    if key not in raw:
        raise ValueError(f"{where}: key '{key}' is missing, found {quoted(sorted(raw))}; expected 'image' and "
                         "'caption'. Add it, or remove the row")
    return raw[key]


def clean(caption: Any, max_words: int, where: str) -> str:
    """Return a caption cleaned and cut to its first words.

    Raises:
        ValueError: it is no text, or nothing is left of it; the message begins with `where`.
    """
    if isinstance(caption, str) and len(caption) > MAX_CAPTION:
        raise ValueError(f"{where}: a caption of {len(caption):,} characters, expected at most {MAX_CAPTION:,}. Cut or "
                         "remove it")
    if not isinstance(caption, str) or NO_TEXT.search(caption):
        raise ValueError(f"{where}: expected a caption to be text, found {quoted(caption)}. Correct or remove it")
    cleaned = clean_caption(caption, max_words)
    if not any(sign.isprintable() and not sign.isspace() for sign in cleaned):
        raise ValueError(f"{where}: caption {quoted(caption)} is empty after the clean-up; expected at least one word. "
                         "Correct or remove it")
    return cleaned
