"""Stage `experts`: train the expert heads on the cached features and keep their trajectories (PAPER.md section 5.4).

Resumes after the last expert that was finished; every expert draws from streams of its own, so the bytes are the same.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

from repblend.data.features import Features, read_features
from repblend.encoders.heads import init_head
from repblend.evaluation.protocol import HeadPair, score
from repblend.experts.training import ExpertBatch, StepResult, TrainingPairs, draw_epoch, train_expert
from repblend.experts.trajectories import TrajectoryStore, write_trajectory
from repblend.matching.gradient import PerModality
from repblend.params import Experts
from repblend.progress import progress
from repblend.stages.context import StageContext
from repblend.stages.provenance import provenance
from repblend.stages.resume import work_fingerprint
from repblend.stages.students import head_pair, training_pairs
from repblend.store import JSON, atomic_path, write_json
from repblend.streams import stream

SECTIONS = ["compute", "heads", "experts"]


def run(context: StageContext) -> None:
    """Train all experts; write `experts/` and `metrics/experts.json`."""
    params, paths = context.params, context.paths
    features = read_features(paths.features)
    pairs, heads = training_pairs(features), head_pair(features, params.heads.width)
    inputs = sorted(paths.features.glob("*.safetensors"))
    unfinished = paths.checkpoint("experts", work_fingerprint(context, SECTIONS, inputs))
    files = [unfinished / f"expert-{number:03d}.safetensors" for number in range(params.experts.num)]
    missing = [number for number, path in enumerate(files) if not path.is_file()]
    for number in progress(missing, "experts", "expert", start=len(files) - len(missing)):
        _train_one(number, files[number], pairs, heads, params.experts, params.seed)
    _copy(files, paths.experts)
    trajectories = TrajectoryStore(paths.experts)
    results = [_summary(number, trajectories, features, heads) for number in range(len(trajectories))]
    write_json(paths.metrics("experts"), {"experts": results, "provenance": provenance(context, SECTIONS, inputs)})
    shutil.rmtree(unfinished)


def _train_one(number: int, path: Path, pairs: TrainingPairs, heads: HeadPair, settings: Experts, seed: int) -> None:
    initial = PerModality(init_head(heads.img, stream(seed, "expert", number, "image head")),
                          init_head(heads.txt, stream(seed, "expert", number, "text head")))
    steps = train_expert(pairs, initial, _draws(number, pairs, settings, seed), heads.student, settings.lr,
                         settings.momentum, settings.weight_decay, settings.temperature)
    snapshots, results = [initial], []
    for step, (result, after) in enumerate(steps, start=1):
        results.append(result)
        if step % settings.snapshots_every == 0:
            snapshots.append(after)
    write_trajectory(path, snapshots, {"expert": number, "curves": _curves(results, settings.snapshots_every)})


def _draws(number: int, pairs: TrainingPairs, settings: Experts, seed: int) -> Iterator[ExpertBatch]:
    for epoch in range(settings.epochs):
        generator = stream(seed, "expert", number, "epoch", epoch)
        yield from draw_epoch(len(pairs.texts), len(pairs.views), settings.batch_size, generator)


def _curves(results: list[StepResult], every: int) -> JSON:
    """Mean loss and accuracy of the steps before each snapshot; steps after the last snapshot are left out."""
    parts = [results[start:start + every] for start in range(0, len(results) // every * every, every)]
    return {"loss": [sum(r.loss for r in part) / every for part in parts],
            "accuracy": [sum(r.accuracy for r in part) / every for part in parts]}


def _summary(number: int, trajectories: TrajectoryStore, features: Features, heads: HeadPair) -> JSON:
    """What the metrics say of one expert: its curves, and the validation recall of its last snapshot."""
    last = trajectories.snapshot(number, trajectories.num_snapshots - 1)
    stacked = PerModality(last.img[None], last.txt[None])
    return trajectories.metadata(number) | {"val": score(stacked, heads.student, features.val)[0]}


def _copy(files: list[Path], folder: Path) -> None:
    with atomic_path(folder) as aside:
        aside.mkdir()
        for path in files:
            shutil.copyfile(path, aside / path.name)
