"""Stage `evaluate`: five students on one coreset or distilled set, scored by both protocols (PAPER.md section 6).

Students are those of the set's method: heads on frozen encoders, or the whole image encoder and a text head where that
is what the method matches. `random+encoder-students` and the like train such students on a coreset, as their baseline.
"""

from dataclasses import replace
from pathlib import Path

from repblend.data.features import Features, feature_files, read_features
from repblend.encoders.registry import load_image_encoder
from repblend.evaluation.student import Recipe, published_decay_start
from repblend.matching.synthetic_set import SyntheticSet
from repblend.methods import find_method
from repblend.params import Params
from repblend.stages.context import Cell, StageContext
from repblend.stages.provenance import provenance
from repblend.stages.students import StudentModel, make_evaluator, make_student_model
from repblend.store import write_json

SECTIONS = ["compute", "data", "encode", "heads", "evaluate"]
ENCODER_STUDENTS = "encoder-students"
"""Variant of a coreset's cell: students train the whole image encoder on it."""


def run(context: StageContext) -> None:
    """Evaluate one cell; write `metrics/evaluate/<cell>.json`."""
    params, paths, cell = context.params, context.paths, context.cell
    features, path = read_features(paths.features), _set_of(context)
    synthetic = SyntheticSet.read(path)
    model = _model(context, features)
    evaluator = make_evaluator(params.evaluate, model.schedule, {"val": model.val, "test": model.test}, model.towers,
                               params.evaluate.num_seeds, params.seed)
    scores = evaluator.evaluate_set(model.inputs(synthetic.images), synthetic.texts, synthetic.similarity.matrix(),
                                    _recipe(params, cell, synthetic, model.schedule.epochs))
    write_json(paths.metrics("evaluate", cell), scores.to_json() | {
        "cell": cell.to_json(), "num_pairs": synthetic.num_pairs, "stored_bytes": synthetic.stored_bytes,
        "provenance": provenance(context, SECTIONS, [*feature_files(paths.features), path])})


def _is_coreset(params: Params, cell: Cell) -> bool:
    return cell.base_method in params.grid.coresets


def _trains_encoder(params: Params, cell: Cell) -> bool:
    if _is_coreset(params, cell):
        return cell.method.endswith(f"+{ENCODER_STUDENTS}")
    return find_method(cell.base_method).matched == "image-encoder"


def _set_of(context: StageContext) -> Path:
    return context.paths.set(context.cell.base if _is_coreset(context.params, context.cell) else context.cell)


def _model(context: StageContext, features: Features) -> StudentModel:
    params = context.params
    encoder = load_image_encoder(params.encode.image_encoder, params.data.image_size)
    matched = "image-encoder" if _trains_encoder(params, context.cell) else "image-head"
    model = make_student_model(matched, params, context.paths, features, encoder)
    if matched == "image-head" and _is_coreset(params, context.cell):
        return replace(model, schedule=params.evaluate.coresets)
    return model


def _recipe(params: Params, cell: Cell, synthetic: SyntheticSet, epochs: int) -> Recipe:
    """Students learn at the set's own rates, but for those that train the encoder on a coreset."""
    rates = (synthetic.lr_img, synthetic.lr_txt)
    if _is_coreset(params, cell) and _trains_encoder(params, cell):
        rates = (params.evaluate.encoder_coresets.lr_img, params.evaluate.encoder_coresets.lr_txt)
    return Recipe(*rates, params.evaluate.momentum, params.evaluate.weight_decay, synthetic.metadata["loss"],
                  params.evaluate.temperature, published_decay_start(epochs))
