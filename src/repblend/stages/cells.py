"""The students of a cell, and how they are optimised."""

from repblend.data.features import Features
from repblend.encoders.image import ImageEncoder
from repblend.evaluation.student import Recipe, published_decay_start
from repblend.evaluation.towers import HeadPair
from repblend.matching.synthetic_set import SyntheticSet
from repblend.params import Params
from repblend.stages.cell_rules import is_coreset, schedule_of, trains_encoder
from repblend.stages.context import Cell, Paths
from repblend.stages.students import StudentModel, encoder_students, head_students


def student_model(cell: Cell, encoder: ImageEncoder, params: Params, paths: Paths, features: Features) -> StudentModel:
    """Return the students of a cell, on the encoder that the features come from; raises as `trains_encoder`."""
    if trains_encoder(cell, params):
        return encoder_students(encoder, params, paths, features)
    heads = HeadPair.of_widths(*features.widths, params.heads.width, params.heads.dropout)
    return head_students(encoder, heads, features.val, features.test, params.compute.encoder_chunk)


def recipe_of(cell: Cell, synthetic: SyntheticSet, params: Params) -> Recipe:
    """Return how students are optimised on a cell's set: its own loss, the rest as the parameters say.

    The rates are the set's own, but for students that train the encoder on a coreset: a coreset brings those of heads.
    """
    evaluate, rates = params.evaluate, (synthetic.lr_img, synthetic.lr_txt)
    if is_coreset(cell, params) and trains_encoder(cell, params):
        rates = (evaluate.encoder_coresets.lr_img, evaluate.encoder_coresets.lr_txt)
    return Recipe(*rates, evaluate.momentum, evaluate.weight_decay, synthetic.metadata["loss"], evaluate.temperature,
                  published_decay_start(schedule_of(cell, params).epochs))
