"""Training of experts as stages do it: one after the other, resumable, their trajectories and a summary of each."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from repblend.evaluation.protocol import Split, score
from repblend.evaluation.towers import Towers
from repblend.experts.training import (
    ExpertBatch,
    Pairs,
    StepResult,
    draw_epoch,
    train_expert,
    with_cached_views,
    with_dropout,
    with_texts,
)
from repblend.experts.trajectories import TrajectoryStore, trajectory_files, trajectory_path, write_trajectory
from repblend.matching.step import Device, PerModality, on
from repblend.params import Experts
from repblend.progress import progress
from repblend.stages.context import StageContext
from repblend.stages.provenance import provenance
from repblend.stages.resume import work_fingerprint
from repblend.stages.students import TrainingCaptions
from repblend.store import JSON, atomic_path, write_json
from repblend.streams import stream


@dataclass(frozen=True)
class ExpertProblem:
    """What experts are trained on, and how."""

    purpose: str
    """First name of the experts' random streams."""
    settings: Experts
    pairs: Pairs
    val: Split
    towers: Towers
    captions: TrainingCaptions | None = None
    """Encodes every batch's captions anew; None takes their cached features."""


def train_experts(context: StageContext, sections: list[str], problem: ExpertProblem, folder: Path,
                  inputs: list[Path]) -> None:
    """Train all experts that are not finished; write their trajectories and `metrics/<stage>.json`.

    Args:
        sections: parameter sections that decide the trajectories.
        folder: where the trajectories go; replaced if it exists.
        inputs: the files that the problem was read from.
    """
    paths, seed, device = context.paths, context.params.seed, context.params.compute.device
    unfinished = paths.checkpoint(context.stage, work_fingerprint(context, sections, inputs))
    files = [trajectory_path(unfinished, number) for number in range(problem.settings.num)]
    missing = [number for number, path in enumerate(files) if not path.is_file()]
    for number in progress(missing, context.stage, "expert", start=len(files) - len(missing)):
        _train_one(number, files[number], problem, seed, device)
    _copy(files, folder)
    write_json(paths.metrics(context.stage), summary(folder, problem.towers, problem.val, device) | {
        "provenance": provenance(context, sections, inputs)})
    shutil.rmtree(unfinished)


def summary(folder: Path, towers: Towers, val: Split, device: Device) -> JSON:
    """Return what the metrics say of a folder of trajectories: of each what it says of itself, and the validation
    recall of its last snapshot; and the size of the largest.
    """
    trajectories = TrajectoryStore(folder)
    recalls = [_recall(on(device, trajectories.last(number)), towers, val) for number in range(len(trajectories))]
    return {"experts": [trajectories.metadata(number) | {"val": recall} for number, recall in enumerate(recalls)],
            "trajectory_bytes": max(path.stat().st_size for path in trajectory_files(folder))}


def _recall(heads: PerModality, towers: Towers, val: Split) -> JSON:
    return score(PerModality(heads.img[None], heads.txt[None]), towers.student, val)[0]


def _train_one(number: int, path: Path, problem: ExpertProblem, seed: int, device: Device) -> None:
    settings, towers, purpose = problem.settings, problem.towers, problem.purpose
    initial = towers.initial(stream(seed, purpose, number, "image head"), stream(seed, purpose, number, "text head"))
    steps = train_expert(problem.pairs, on(device, initial), _draws(number, problem, seed), towers.student, settings.lr,
                         settings.momentum, settings.weight_decay, settings.temperature)
    snapshots, results = [initial], []
    every = settings.steps_between_snapshots(len(problem.pairs.texts))
    for step, (result, after) in enumerate(steps, start=1):
        results.append(result)
        if step % every == 0:
            snapshots.append(on("cpu", after))
    write_trajectory(path, snapshots, {"expert": number, "curves": _curves(results, every)})


def _draws(number: int, problem: ExpertProblem, seed: int) -> Iterator[ExpertBatch]:
    pairs, settings = problem.pairs, problem.settings
    for epoch in range(settings.epochs):
        order, masks, texts = (stream(seed, problem.purpose, number, purpose, epoch)
                               for purpose in ("epoch", "dropout", "text dropout"))
        draws = iter(draw_epoch(len(pairs.texts), pairs.num_views, settings.batch_size, order))
        if settings.cached_views:
            draws = with_cached_views(draws, pairs.image_index, settings.cached_views)
        if problem.captions:
            draws = with_texts(draws, partial(problem.captions.encode_in_training, generator=texts))
        yield from with_dropout(draws, problem.towers.draw_masks, masks)


def _curves(results: list[StepResult], every: int) -> JSON:
    """Mean loss and accuracy of the steps before each snapshot; steps after the last snapshot are left out."""
    parts = [results[start:start + every] for start in range(0, len(results) // every * every, every)]
    return {"loss": [sum(r.loss for r in part) / every for part in parts],
            "accuracy": [sum(r.accuracy for r in part) / every for part in parts]}


def _copy(files: list[Path], folder: Path) -> None:
    with atomic_path(folder) as aside:
        aside.mkdir()
        for path in files:
            shutil.copyfile(path, aside / path.name)
