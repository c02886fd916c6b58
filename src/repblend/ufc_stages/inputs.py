"""What several stages read: the data set, checked against what `prepare` pinned; teachers; a budget's arithmetic."""

from pathlib import Path

from torch import nn

from repblend.store import JSON, fingerprint, read_json, sha256
from repblend.ufc.budget import Budget
from repblend.ufc.data import NORMALISATIONS, Normalisation, Splits
from repblend.ufc.datasets import read_splits
from repblend.ufc.params import UfcParams
from repblend.ufc.teachers import read_teacher
from repblend.ufc_stages.context import UfcContext


def read_data(context: UfcContext) -> Splits:
    """Read the data set's splits; raises `ValueError` as `read_splits`."""
    return read_splits(context.params.data, context.paths.repository, context.params.seed)


def read_pinned_data(context: UfcContext) -> Splits:
    """Read the splits and check that they are those that stage `prepare` saw.

    Raises:
        ValueError: files are missing or damaged, or the images are others than they were.
    """
    path, splits = context.paths.metrics("prepare"), read_data(context)
    pinned, found = read_json(path)["sha256"], split_hashes(splits)
    for split, digest in found.items():
        if pinned[split] != digest:
            raise ValueError(f"{path}: the images of {split} have the SHA-256 {digest}, expected {pinned[split]}. The "
                             "data set was changed: restore it, or run stage prepare again")
    return splits


def split_hashes(splits: Splits) -> dict[str, str]:
    """Return, by split, the SHA-256 of its pixels (of images in files: of their names and sizes) and labels."""
    return {name: split.sha256() for name, split in splits._asdict().items()}


def normalisation_of(context: UfcContext) -> Normalisation:
    """Return the data set's mean and standard deviation per channel."""
    return NORMALISATIONS[context.params.data.name]


def budget_of(ipc: int, num_classes: int, params: UfcParams) -> Budget:
    """Return what a budget of `ipc` images per class allows; raises `ValueError` as `Budget`."""
    return Budget(ipc, num_classes, len(params.teachers.architectures))


def prepared(context: UfcContext) -> JSON:
    """Return what stage `prepare` measured; raises `ValueError` if it did not run."""
    return read_json(context.paths.metrics("prepare"))


def read_teachers(context: UfcContext) -> dict[str, nn.Module]:
    """Return every teacher by its architecture, in the order of the parameters.

    Raises:
        ValueError: a file is missing or damaged.
    """
    return {name: read_one_teacher(context, name) for name in context.params.teachers.architectures}


def read_one_teacher(context: UfcContext, architecture: str) -> nn.Module:
    """Return a teacher in evaluation mode.

    Raises:
        ValueError: it is none of `teachers.architectures`, or its file is missing or damaged.
    """
    check_architecture(context, architecture)
    params, paths = context.params, context.paths
    return read_teacher(paths.teacher(architecture), architecture, prepared(context)["num_classes"],
                        params.data.image_size, params.compute.device)


def check_architecture(context: UfcContext, architecture: str) -> None:
    """Raise `ValueError` unless the parameters name the architecture as a teacher."""
    known = context.params.teachers.architectures
    if architecture not in known:
        raise ValueError(f"teachers.architectures has no {architecture!r}; expected one of {', '.join(known)}")


def folder_hash(folder: Path) -> str:
    """Return the SHA-256 of a folder's file names and contents."""
    return fingerprint({path.relative_to(folder).as_posix(): sha256(path)
                        for path in sorted(folder.rglob("*")) if path.is_file()})
