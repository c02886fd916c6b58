"""Stage `encoder-experts`: experts that train the whole image encoder and a text head (PAPER.md sections 2 and 5.4).

What MTT-VL, TESLA-VL and LoRS match. The experts see augmented views as those of stage `experts` do, but as pixels that
are read from the files when they are drawn.
Trained on all real pairs, they are the upper bound of students of their kind as well, with an expert as a seed and a
snapshot as an epoch.
"""

import torch

from repblend.data.features import Features, feature_files, read_features
from repblend.encoders.image import ImageEncoder
from repblend.encoders.registry import load_image_encoder
from repblend.evaluation.protocol import Scores
from repblend.experts.from_files import PairsFromFiles
from repblend.experts.trajectories import TrajectoryStore
from repblend.matching.step import PerModality, on
from repblend.release.official_buffers import Layouts
from repblend.stages.context import ENCODER_STUDENTS, StageContext
from repblend.stages.drawn_pairs import pairs_from_files
from repblend.stages.expert_training import ExpertProblem, train_experts
from repblend.stages.import_experts import ExpertImport, import_experts
from repblend.stages.provenance import provenance
from repblend.stages.students import StudentModel, captions_of, encoder_students
from repblend.store import write_json

SECTIONS = ["compute", "data", "encode", "evaluate", "encoder_experts"]


def run(context: StageContext) -> None:
    """Train or import all experts; write `encoder-experts/`, `metrics/encoder-experts.json`, and, as what they reach
    on the test split, `metrics/evaluate/full-data+encoder-students.json`.
    """
    params, paths = context.params, context.paths
    features = read_features(paths.features)
    encoder = load_image_encoder(params.encode.image_encoder, params.data.image_size).to(params.compute.device)
    model = encoder_students(encoder, params, paths, features)
    inputs = [*sorted(feature_files(paths.features)), paths.data / "manifest.json"]
    if params.encoder_experts.import_from:
        import_experts(context, SECTIONS, _import(context, encoder, model), paths.encoder_experts, inputs)
    else:
        problem = ExpertProblem("encoder expert", params.encoder_experts, _pairs(context, features, encoder),
                                model.val, model.towers, captions_of(params.encoder_experts, params, paths))
        train_experts(context, SECTIONS, problem, paths.encoder_experts, inputs)
    num_pairs = len(features.train_texts)
    method = f"full-data{ENCODER_STUDENTS}"
    write_json(paths.metrics("evaluate", method), _scores(context, model, num_pairs).to_json() | {
        "cell": {"method": method, "budget": num_pairs}, "num_pairs": num_pairs,
        "stored_bytes": None, "provenance": provenance(context, SECTIONS, inputs)})


def _import(context: StageContext, encoder: ImageEncoder, model: StudentModel) -> ExpertImport:
    """What is imported in place of training; raises `ValueError` as `Layouts.of_encoder`."""
    layouts = Layouts.of_encoder(context.params.encode.image_encoder, encoder, model.towers.txt)
    return ExpertImport("encoder_experts", context.params.encoder_experts, model.towers, layouts, model.val)


def _scores(context: StageContext, model: StudentModel, num_pairs: int) -> Scores:
    """Score every snapshot of every expert."""
    trajectories = TrajectoryStore(context.paths.encoder_experts)
    every, evaluate = context.params.encoder_experts.steps_between_snapshots(num_pairs), context.params.evaluate
    scores = Scores(model.towers.student, {"val": model.val, "test": model.test},
                    [every * index for index in range(trajectories.num_snapshots)],
                    protocol=evaluate.protocol, candidates=evaluate.candidates)
    for index, step in enumerate(scores.epochs):
        experts = [trajectories.snapshot(expert, index) for expert in range(len(trajectories))]
        stacked = PerModality(*map(torch.stack, zip(*experts, strict=True)))
        scores.record(step, on(context.params.compute.device, stacked), torch.zeros(()))
    return scores


def _pairs(context: StageContext, features: Features, encoder: ImageEncoder) -> PairsFromFiles:
    return pairs_from_files(context, context.params.encoder_experts, features, encoder, lambda pixels: pixels)
