"""Stage `encoder-experts`: experts that train the whole image encoder and a text head (PAPER.md sections 2 and 5.4).

What MTT-VL, TESLA-VL and LoRS match. The experts see the same augmented views as those of stage `experts`, as pixels.
Trained on all real pairs, they are the upper bound of students of their kind as well, with an expert as a seed and a
snapshot as an epoch.
"""

import torch

from repblend.data.features import Features, feature_files, read_features
from repblend.data.image_store import open_images
from repblend.data.images import normalise, read_images
from repblend.data.karpathy import read_annotations
from repblend.data.views import make_view
from repblend.encoders.image import ImageEncoder
from repblend.encoders.registry import load_image_encoder
from repblend.evaluation.protocol import Scores
from repblend.experts.training import TrainingPairs
from repblend.experts.trajectories import TrajectoryStore
from repblend.matching.step import PerModality
from repblend.stages.context import ENCODER_STUDENTS, StageContext
from repblend.stages.expert_training import ExpertProblem, train_experts
from repblend.stages.provenance import provenance
from repblend.stages.students import StudentModel, encoder_students
from repblend.store import write_json

SECTIONS = ["compute", "data", "encode", "evaluate", "encoder_experts"]


def run(context: StageContext) -> None:
    """Train all experts; write `encoder-experts/`, `metrics/encoder-experts.json`, and, as what they reach on the test
    split, `metrics/evaluate/full-data+encoder-students.json`.
    """
    params, paths = context.params, context.paths
    features = read_features(paths.features)
    encoder = load_image_encoder(params.encode.image_encoder, params.data.image_size)
    model = encoder_students(encoder, params, paths, features)
    problem = ExpertProblem("encoder expert", params.encoder_experts, _pixel_pairs(context, features, encoder),
                            model.val, model.towers)
    inputs = [*sorted(feature_files(paths.features)), paths.data / "manifest.json"]
    train_experts(context, SECTIONS, problem, paths.encoder_experts, inputs)
    num_pairs = len(features.train_texts)
    method = f"full-data{ENCODER_STUDENTS}"
    write_json(paths.metrics("evaluate", method), _scores(context, model).to_json() | {
        "cell": {"method": method, "budget": num_pairs}, "num_pairs": num_pairs,
        "stored_bytes": None, "provenance": provenance(context, SECTIONS, inputs)})


def _scores(context: StageContext, model: StudentModel) -> Scores:
    """Score every snapshot of every expert."""
    trajectories = TrajectoryStore(context.paths.encoder_experts)
    every = context.params.encoder_experts.snapshots_every
    scores = Scores(model.towers.student, {"val": model.val, "test": model.test},
                    [every * index for index in range(trajectories.num_snapshots)])
    for index, step in enumerate(scores.epochs):
        experts = [trajectories.snapshot(expert, index) for expert in range(len(trajectories))]
        scores.record(step, PerModality(*map(torch.stack, zip(*experts, strict=True))), torch.zeros(()))
    return scores


def _pixel_pairs(context: StageContext, features: Features, encoder: ImageEncoder) -> TrainingPairs:
    """The real training set with every view of every image as normalised pixels, (V, I, 3, H, W)."""
    params, views = context.params, context.params.encode.views
    train = read_annotations(context.paths.data, params.data.name, params.data.max_caption_words).train
    store = open_images(context.paths.data, context.paths.repository)
    images = read_images(store, [image.image for image in train], params.data.image_size)
    shown = [normalise(make_view(images, view, views.crop_scale_min, views.flip, params.seed), encoder.mean,
                       encoder.std) for view in range(views.num)]
    return TrainingPairs(torch.stack(shown), features.train_texts, features.train_image_index)
