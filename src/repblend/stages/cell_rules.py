"""Which kind of students a cell has, and how long they train: what follows from names and parameters alone."""

from repblend.methods import find_method
from repblend.params import Params, StudentSchedule
from repblend.stages.context import ENCODER_STUDENTS, Cell


def is_coreset(cell: Cell, params: Params) -> bool:
    """Whether a cell's pairs are real ones."""
    return cell.base_method in params.grid.coresets


def trains_encoder(cell: Cell, params: Params) -> bool:
    """Whether a cell's students train the whole image encoder: where its method matches that, or its variant says so.

    Raises:
        ValueError: the method is unknown.
    """
    if is_coreset(cell, params):
        return cell.method.endswith(ENCODER_STUDENTS)
    return find_method(cell.base_method).matched == "image-encoder"


def schedule_of(cell: Cell, params: Params) -> StudentSchedule:
    """Return how long students train on a cell's set."""
    if trains_encoder(cell, params):
        return params.evaluate.encoder_students
    return params.evaluate.coresets if is_coreset(cell, params) else params.evaluate.distilled
