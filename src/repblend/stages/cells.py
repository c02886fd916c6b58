"""Which students a cell has: of which kind, how long they train, and how they are optimised."""

from repblend.data.features import Features
from repblend.encoders.image import ImageEncoder
from repblend.evaluation.student import Recipe, published_decay_start
from repblend.evaluation.towers import HeadPair
from repblend.matching.synthetic_set import SyntheticSet
from repblend.methods import find_method
from repblend.params import Params, StudentSchedule
from repblend.stages.context import ENCODER_STUDENTS, Cell, Paths
from repblend.stages.students import StudentModel, encoder_students, head_students


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


def student_model(cell: Cell, encoder: ImageEncoder, params: Params, paths: Paths, features: Features) -> StudentModel:
    """Return the students of a cell, on the encoder that the features come from; raises as `trains_encoder`."""
    if trains_encoder(cell, params):
        return encoder_students(encoder, params, paths, features)
    return head_students(encoder, HeadPair.of_widths(*features.widths, params.heads.width), features.val, features.test,
                         params.compute.encoder_chunk)


def schedule_of(cell: Cell, params: Params) -> StudentSchedule:
    """Return how long students train on a cell's set."""
    if trains_encoder(cell, params):
        return params.evaluate.encoder_students
    return params.evaluate.coresets if is_coreset(cell, params) else params.evaluate.distilled


def recipe_of(cell: Cell, synthetic: SyntheticSet, params: Params) -> Recipe:
    """Return how students are optimised on a cell's set: its own loss, the rest as the parameters say.

    The rates are the set's own, but for students that train the encoder on a coreset: a coreset brings those of heads.
    """
    evaluate, rates = params.evaluate, (synthetic.lr_img, synthetic.lr_txt)
    if is_coreset(cell, params) and trains_encoder(cell, params):
        rates = (evaluate.encoder_coresets.lr_img, evaluate.encoder_coresets.lr_txt)
    return Recipe(*rates, evaluate.momentum, evaluate.weight_decay, synthetic.metadata["loss"], evaluate.temperature,
                  published_decay_start(schedule_of(cell, params).epochs))
