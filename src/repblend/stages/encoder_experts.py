"""Stage `encoder-experts`: experts that train the whole image encoder and a text head.

What MTT-VL, TESLA-VL and LoRS match. The experts see augmented views as those of stage `experts` do, but as pixels that
are read from the files when they are drawn. Trained on all real pairs, they are the upper bound of students of their
kind as well, with an expert as a seed and a snapshot as an epoch.
"""

from functools import partial
from pathlib import Path

import torch

from repblend.data.features import Features, feature_files, read_features
from repblend.encoders.image import ImageEncoder
from repblend.evaluation.protocol import Scores
from repblend.evaluation.towers import EncoderAndHead
from repblend.experts.trajectories import TrajectoryStore
from repblend.grid import ENCODER_STUDENTS
from repblend.matching.student import Device, PerModality, on
from repblend.params import Params
from repblend.params.evaluate import Evaluate
from repblend.records.base import CellName
from repblend.records.results import Evaluation
from repblend.released_files import Layouts
from repblend.runtime.context import Paths
from repblend.runtime.provenance import provenance
from repblend.stages.experts import (
    ExpertProblem,
    import_experts,
    pairs_from_files,
    train_experts,
    train_one_expert,
    training_captions,
)
from repblend.stages.pipeline import Context
from repblend.stages.setup import image_encoder_of
from repblend.stages.students import StudentModel, encoder_students, write_evaluation

FULL_DATA = f"full-data{ENCODER_STUDENTS}"


def run(context: Context) -> None:
    """Train or import all experts; write `encoder-experts/`, `records/encoder-experts.json`, and, as what they reach on
    the test split, records and metrics of `full-data+encoder-students`.
    """
    params, paths, settings = context.params, context.paths, context.params.encoder_experts
    features, encoder = read_features(paths.features), image_encoder_of(params)
    model = encoder_students(encoder, params, paths, features)
    inputs = inputs_of(paths)
    if settings.import_from:
        assert isinstance(model.towers, EncoderAndHead)
        layouts = Layouts.of_encoder(params.encode.image_encoder, encoder, model.towers.txt)
        import_experts(context, settings, layouts, model.towers, model.splits, paths.encoder_experts, inputs)
    else:
        problem = problem_of(params, paths, features, encoder, model)
        train_experts(context, problem, paths.encoder_experts, inputs)
    num_pairs = len(features.train_texts)
    scores = _scores(TrajectoryStore(paths.encoder_experts), model, settings.steps_between_snapshots(num_pairs),
                     params.evaluate, params.compute.device)
    name = paths.full_data(FULL_DATA)
    write_evaluation(Evaluation(**scores.to_json(), cell=CellName(method=name, budget=num_pairs), num_pairs=num_pairs,
                                stored_bytes=None, provenance=provenance(context, inputs)), name, paths)


def run_part(context: Context) -> None:
    """Train one expert, `context.part`, of those that stage `encoder-experts` then finds and does not train again."""
    params, paths = context.params, context.paths
    features, encoder = read_features(paths.features), image_encoder_of(params)
    model = encoder_students(encoder, params, paths, features)
    train_one_expert(context, problem_of(params, paths, features, encoder, model), inputs_of(paths))


def inputs_of(paths: Paths) -> list[Path]:
    """Return the files that these experts are trained on."""
    return [*sorted(feature_files(paths.features)), paths.data / "manifest.json"]


def problem_of(params: Params, paths: Paths, features: Features, encoder: ImageEncoder,
               model: StudentModel) -> ExpertProblem:
    """Return what experts of the whole image encoder are trained on."""
    settings = params.encoder_experts
    pairs = pairs_from_files(settings, params, paths, features, encoder, lambda pixels: pixels)
    return ExpertProblem("encoder expert", settings, pairs, model.splits, model.towers,
                         training_captions(settings, params, paths))


def _scores(trajectories: TrajectoryStore, model: StudentModel, steps_between: int, evaluate: Evaluate,
            device: Device) -> Scores:
    """Score every snapshot of every expert on both splits."""
    scores = Scores(model.towers.student, model.splits,
                    [steps_between * index for index in range(trajectories.num_snapshots)],
                    protocol=evaluate.protocol, candidates=evaluate.candidates)
    for index, step in enumerate(scores.epochs):
        experts = [trajectories.snapshot(expert, index) for expert in range(len(trajectories))]
        stacked = PerModality(*map(torch.stack, zip(*experts, strict=True)))
        scores.record(step, partial(on, device, stacked), torch.zeros(()))
    return scores
