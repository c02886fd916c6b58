"""Where the datasets of the paper come from, in one table.

No SHA-256 of any of these files was published where their addresses are. What others have recorded stands here as MD5;
the hub gives the SHA-256 of its large files itself; for the rest the first fetch is trusted, and what came is written
down and compared from then on. The counts of rows and images are checked in any case. None of these addresses could be
asked when this table was written.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from repblend.download import Digest

ANNOTATIONS = "https://storage.googleapis.com/sfr-vision-language-research/datasets"


@dataclass(frozen=True)
class RemoteFile:
    """A file that may be fetched."""

    url: str
    name: str
    """Path in the dataset's folder."""
    digest: Digest | None = None
    """None: trust on first use."""
    unpacked: bool = False
    """Whether it is an archive of images, to be unpacked into the dataset's folder and removed."""


@dataclass(frozen=True)
class HubFiles:
    """Files of one repository on the hub, whose folders and hashes the hub is asked for."""

    repository: str
    """`models/OWNER/NAME` or `datasets/OWNER/NAME`."""
    names: tuple[str, ...]
    unpacked: bool = False


@dataclass(frozen=True)
class Origin:
    """How a dataset gets to a machine."""

    files: tuple[RemoteFile, ...] = ()
    hub: tuple[HubFiles, ...] = ()
    steps: str = ""
    """What remains to be done by hand; `{folder}` is the dataset's folder, `{check}` the command that checks it. Empty:
    nothing.
    """
    by_hand: str | None = None
    """What those steps put into the dataset's folder: once it is there they are done, before there is nothing to check.
    """


def _annotations(prefix: str, md5: Mapping[str, str]) -> tuple[RemoteFile, ...]:
    return tuple(RemoteFile(f"{ANNOTATIONS}/{prefix}_{split}.json", f"{prefix}_{split}.json",
                            Digest("md5", md5[split]) if split in md5 else None) for split in ("train", "val", "test"))


ORIGINS: dict[str, Origin] = {
    "flickr30k": Origin(
        files=_annotations("flickr30k", {}),
        steps="""The images of Flickr30K are given on request only:
  1. Ask for them at https://shannon.cs.illinois.edu/DenotationGraph/ (a form; accept the terms).
  2. You get flickr30k-images.tar.gz by mail. Unpack it:
       tar -xzf flickr30k-images.tar.gz -C {folder}
     so that {folder}/flickr30k-images/1000092795.jpg is there (31,783 images, of which 31,014 are used).
  3. Run `{check}`.""",
        by_hand="flickr30k-images"),
    "coco": Origin(
        files=(*_annotations("coco_karpathy", {"train": "aa31ac474cf6250ebb81d18348a07ed8",
                                               "val": "b273847456ef5580e33713b1f7de52a0",
                                               "test": "3ff34b0ef2db02d01c37399f6a2a6cd1"}),
               RemoteFile("http://images.cocodataset.org/zips/train2014.zip", "train2014.zip",
                          Digest("md5", "0da8c0bd3d6becc4dcb32757491aca88"), unpacked=True),
               RemoteFile("http://images.cocodataset.org/zips/val2014.zip", "val2014.zip",
                          Digest("md5", "a3d79f5ed8d289b7a7554ce06a5782b3"), unpacked=True))),
    "cc3m": Origin(
        hub=(HubFiles("models/xinxin66/RepBlend", tuple(f"captions_{split}zx2025.json"
                                                         for split in ("train", "val", "test"))),
             HubFiles("datasets/liuhaotian/LLaVA-CC3M-Pretrain-595K", ("images.zip",), unpacked=True)),
        steps="""Annotations and images come from two publishers. If images are missing, look how the annotations name
them (key "image"), and move the images in {folder} to where that says; then run `{check}`."""),
}
"""By the name that commands and profiles give a dataset."""
