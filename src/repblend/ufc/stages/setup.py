"""What several stages read: the data set, checked against what `prepare` pinned, teachers, a budget's arithmetic."""

import torch
from torch import Tensor, nn

from repblend.ufc.data import NORMALISATIONS, NUM_CLASSES, Normalisation, Splits
from repblend.ufc.integration import Budget
from repblend.ufc.params import UfcParams
from repblend.ufc.readers import read_splits
from repblend.ufc.records import PreparedImages
from repblend.ufc.stages.pipeline import UfcContext
from repblend.ufc.training import read_teacher


def read_pinned_data(context: UfcContext) -> Splits:
    """Read the splits and check that they are those that stage `prepare` saw; raises `ValueError` if files are missing
    or damaged, or the images are others than they were.
    """
    path, params = context.paths.record("prepare"), context.params
    splits, pinned = read_splits(params.data, context.paths.repository, params.seed), PreparedImages.read(path).sha256
    for name, split in splits._asdict().items():
        if pinned[name] != (digest := split.sha256()):
            raise ValueError(f"{path}: the images of {name} have the SHA-256 {digest}, expected {pinned[name]}. The "
                             "data set was changed: restore it, or run stage prepare again")
    return splits


def normalisation_of(params: UfcParams) -> Normalisation:
    """Return the data set's mean and standard deviation per channel."""
    return NORMALISATIONS[params.data.name]


def budget_of(ipc: int, params: UfcParams) -> Budget:
    """Return what a budget of `ipc` images per class allows; raises `ValueError` as `Budget`."""
    return Budget(ipc, NUM_CLASSES[params.data.name], len(params.teachers.architectures))


def first_image(draw: int, params: UfcParams) -> int:
    """Return the image index that a draw begins at: every draw has those of the largest budget."""
    return draw * budget_of(max(params.budgets), params).num_real


def first_place(draw: int, params: UfcParams) -> int:
    """Return the place, in a class's random order, that a draw begins at: every draw has as many as the largest budget,
    for its random images.
    """
    return draw * max(params.budgets)


def drawn_places(params: UfcParams) -> list[int]:
    """Return the places, in a class's random order, of the initial images of all draws, in the order of their indices.

    They are the first places of each draw.
    """
    return [first_place(draw, params) + image for draw in range(params.num_draws)
            for image in range(budget_of(max(params.budgets), params).num_real)]


def read_teachers(context: UfcContext) -> dict[str, nn.Module]:
    """Return every teacher by its architecture, in the order of the parameters; raises as `read_one_teacher`."""
    return {name: read_one_teacher(context, name) for name in context.params.teachers.architectures}


def read_one_teacher(context: UfcContext, architecture: str) -> nn.Module:
    """Return a teacher in evaluation mode; raises `ValueError` if it is none of `teachers.architectures`, or its file
    is missing or damaged.
    """
    check_architecture(context.params, architecture)
    data = context.params.data
    return read_teacher(context.paths.teacher(architecture), architecture, NUM_CLASSES[data.name], data.image_size,
                        context.params.compute.device)


def check_architecture(params: UfcParams, architecture: str) -> None:
    """Raise `ValueError` unless the parameters name the architecture as a teacher."""
    known = params.teachers.architectures
    if architecture not in known:
        raise ValueError(f"teachers.architectures has no {architecture!r}; expected one of {', '.join(known)}")


def of_first_classes(labels: Tensor, num_classes: int, most: int) -> Tensor:
    """Return positions of images of the first classes: at most so many, evenly spaced."""
    rows = (labels < num_classes).nonzero().flatten()
    num = min(most, len(rows))
    return rows[torch.arange(num) * len(rows) // num]
