"""The section `data` of `params.yaml`: which data set, and how images and captions are prepared.

There are three kinds, told apart by their fields: the embedded set has neither `folder` nor `captions`; a real set in
the BLIP/Karpathy layout has `folder`; a set of one's own has `folder` and `captions`.
"""

from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from repblend.sections import Count, FilePath, ImageSize, Positive, Section

SplitName = Literal["train", "val", "test"]


def _in_the_folder(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError("expected a path in the folder of the set, relative to it, without '..'")
    return name


InFolder = Annotated[FilePath, AfterValidator(_in_the_folder)]
"""A path or pattern that does not leave the data set's folder."""


class OpenMojiData(Section):
    """The embedded set: drawings of OpenMoji with their English names."""

    name: Literal["openmoji"]
    image_size: ImageSize
    """Height and width in pixels."""
    num_val: Positive
    """Validation images."""
    num_test: Positive
    """Test images."""
    fold: Count
    """Which drawings are held out: the first `num_val` and `num_test`, the second ones, and so on."""
    max_train: Positive | None
    """Keep only the first this many training images (for trying things out); null keeps all."""
    max_caption_words: Positive
    """Captions are cut to this many words."""


class ExpectedCounts(Section):
    """How many rows a split must have, before anything is left out."""

    images: Positive
    captions: Positive | None = None
    """null where only the images were published."""


class RealData(Section):
    """A dataset in the BLIP/Karpathy layout, in a folder that stays where it is."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
    """Prefix of the annotation files, `<name>_train.json`: flickr30k, coco_karpathy, or a name of one's own."""
    folder: FilePath
    """Images and annotation files: absolute, or relative to the repository's folder."""
    image_size: ImageSize
    """Height and width in pixels."""
    max_caption_words: Positive
    """Captions are cut to this many words."""
    max_caption_words_of: dict[SplitName, Positive] = Field(default_factory=dict)
    """Splits whose captions are cut earlier."""
    max_train: Positive | None = None
    """Keep only the first this many training images; null keeps all. Likewise the next two."""
    max_val: Positive | None = None
    max_test: Positive | None = None
    annotations: dict[SplitName, InFolder] = Field(default_factory=dict)
    """Annotation files that are named otherwise, relative to the folder; also CSV, or JSON lines."""
    expected: dict[SplitName, ExpectedCounts] = Field(default_factory=dict)
    """Counts that the annotation files must have."""
    shards: InFolder | None = None
    """Where images lie in tar files (WebDataset): a pattern of their paths in the folder, as `shards/*.tar`."""

    @model_validator(mode="after")
    def _no_split_keeps_more_words_than_all(self) -> Self:
        longer = [split for split, words in self.max_caption_words_of.items() if words > self.max_caption_words]
        if longer:
            raise ValueError(f"max_caption_words_of: {longer} keep more words than max_caption_words "
                             f"({self.max_caption_words}); raise that one to the largest")
        return self


class OwnData(RealData):
    """A folder of images, and one file with the captions of all."""

    captions: InFolder
    """CSV or JSON file relative to the folder (`repblend.data.rows` says how rows look)."""
    num_val: Positive | None = None
    """Validation images, taken by a stable hash of the images' names; null if the rows name their split."""
    num_test: Positive | None = None
    """Test images, likewise."""

    @model_validator(mode="after")
    def _splits_come_from_one_place(self) -> Self:
        if (self.num_val is None) != (self.num_test is None):
            raise ValueError("give both num_val and num_test, or neither if the file of captions has a column 'split'")
        if self.annotations:
            raise ValueError("give 'captions' or 'annotations', not both: 'captions' names the one file of all splits")
        return self


def _kind(value: Any) -> str:
    fields = value if isinstance(value, dict) else dict(value) if isinstance(value, Section) else {}
    return "own data" if "captions" in fields else "real data" if "folder" in fields else "embedded data"


Data = Annotated[Annotated[OpenMojiData, Tag("embedded data")] | Annotated[RealData, Tag("real data")]
                 | Annotated[OwnData, Tag("own data")], Discriminator(_kind)]
KINDS_OF_DATA = ("embedded data", "real data", "own data")
"""What pydantic calls the kinds in the place of an error; no file has such a key."""
