"""Stage `experts`: train expert heads on frozen features and keep their trajectories (`paper/METHOD.md`, section 5).

The features are those that stage `encode` cached; with `experts.views: fresh`, as published, images are augmented anew
and encoded whenever they are drawn. Resumes after the last expert that was finished; every expert draws from streams of
its own, so the bytes are the same. With `experts.import_from`, the trajectories are the official release's instead.
"""

import shutil
import statistics
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from torch import Tensor

from repblend.data.features import Features, SplitFeatures, feature_files, read_features
from repblend.data.images import normalise
from repblend.data.views import UNLIMITED
from repblend.encoders.image import ImageEncoder, encode_in_chunks
from repblend.evaluation.protocol import score
from repblend.evaluation.towers import HeadPair, Towers
from repblend.experts.training import (
    ExpertBatch,
    Pairs,
    PairsFromFiles,
    TrainingPairs,
    draw_epoch,
    train_expert,
    with_cached_views,
    with_dropout,
    with_texts,
)
from repblend.experts.trajectories import TrajectoryStore, trajectory_files, trajectory_path, write_trajectory
from repblend.files import confirmed
from repblend.matching.student import Device, PerModality, on
from repblend.params import Params
from repblend.params.experts import Experts
from repblend.progress import progress
from repblend.records.base import RECALLS, Imported, Recalls
from repblend.records.outputs import Expert, ExpertCurves, RecallSummary, Trajectories
from repblend.released_files import Layouts, buffer_pairs, import_buffers
from repblend.runtime.context import Paths
from repblend.runtime.provenance import provenance, work_fingerprint
from repblend.stages.pipeline import Context
from repblend.stages.setup import (
    annotations_of,
    captions_in,
    identify,
    image_encoder_of,
    located,
    text_encoder_of,
    view_source,
)
from repblend.store import atomic_path
from repblend.streams import CounterStream, stream

Splits = Mapping[str, SplitFeatures]
"""`val` and `test`."""


def run(context: Context) -> None:
    """Train or import all experts; write `experts/` and `records/experts.json`."""
    params, paths, settings = context.params, context.paths, context.params.experts
    inputs = inputs_of(params, paths)
    if settings.import_from:
        features = read_features(paths.features)
        heads = HeadPair.of_widths(*features.widths, params.heads.width, params.heads.dropout)
        import_experts(context, settings, Layouts(heads.img, heads.txt), heads, held_out(features), paths.experts,
                       inputs)
        return
    train_experts(context, problem_of(params, paths), paths.experts, inputs)


def run_part(context: Context) -> None:
    """Train one expert, `context.part`, of those that stage `experts` then finds and does not train again."""
    params, paths = context.params, context.paths
    train_one_expert(context, problem_of(params, paths), inputs_of(params, paths))


def inputs_of(params: Params, paths: Paths) -> list[Path]:
    """Return the files that experts of both heads are trained on."""
    inputs = sorted(feature_files(paths.features))
    if params.experts.views == "fresh" or params.experts.text_mode == "train":
        inputs.append(paths.data / "manifest.json")
    return inputs


def problem_of(params: Params, paths: Paths) -> "ExpertProblem":
    """Read what experts of both heads are trained on."""
    features, settings = read_features(paths.features), params.experts
    heads = HeadPair.of_widths(*features.widths, params.heads.width, params.heads.dropout)
    pairs: Pairs = TrainingPairs.of(features)
    if settings.views == "fresh":
        encoder = image_encoder_of(params)
        encode = partial(encode_in_chunks, encoder, chunk=params.compute.encoder_chunk)
        pairs = pairs_from_files(settings, params, paths, features, encoder, encode)
    return ExpertProblem("expert", settings, pairs, held_out(features), heads,
                         training_captions(settings, params, paths))


def held_out(features: Features) -> Splits:
    """Return the splits that experts of both heads are scored on."""
    return {"val": features.val, "test": features.test}


# What experts are trained on when it is not cached: captions in the encoder's training mode, images as they are drawn.

EncodeCaptions = Callable[[Tensor, CounterStream], Tensor]
"""Rows of the training captions (B,) -> features (B, D_txt), with dropout drawn from the stream."""


def training_captions(experts: Experts, params: Params, paths: Paths) -> EncodeCaptions | None:
    """Return what encodes captions in every batch; None where these settings take the cached features."""
    if experts.text_mode == "eval":
        return None
    captions = captions_in(annotations_of(params, paths).train)
    encoder = text_encoder_of(params)
    return lambda rows, draws: encoder.encode_in_training([captions[row] for row in rows.tolist()], draws)


def pairs_from_files(experts: Experts, params: Params, paths: Paths, features: Features, encoder: ImageEncoder,
                     represent: Callable[[Tensor], Tensor]) -> PairsFromFiles:
    """Return the training set for experts that see images as they are drawn.

    Args:
        represent: from normalised pixels (B, 3, H, H) to what these experts are trained on.
    """
    num_views = UNLIMITED if experts.views == "fresh" else params.encode.views.num
    return PairsFromFiles(view_source(params, paths, annotations_of(params, paths).train),
                          partial(normalise, mean=encoder.mean, std=encoder.std), represent, features.train_texts,
                          features.train_image_index, num_views)


# Training: one expert after the other, resumable, and a summary of each. Stage `encoder-experts` trains its own so too.


@dataclass(frozen=True)
class ExpertProblem:
    """What experts are trained on, and how."""

    purpose: str
    """First name of the experts' random streams."""
    settings: Experts
    pairs: Pairs
    splits: Splits
    towers: Towers
    encode_captions: EncodeCaptions | None
    """Encodes every batch's captions anew; None takes their cached features."""


def train_experts(context: Context, problem: ExpertProblem, folder: Path, inputs: list[Path]) -> None:
    """Train all experts that are not finished; write their trajectories and `records/<stage>.json`.

    Args:
        folder: where the trajectories go; replaced if it exists.
        inputs: the files that the problem was read from.
    """
    paths, seed, device = context.paths, context.params.seed, context.params.compute.device
    unfinished = paths.checkpoint(context.stage, work_fingerprint(context, inputs))
    files = [trajectory_path(unfinished, number) for number in range(problem.settings.num)]
    missing = [number for number, path in enumerate(files) if not path.is_file()]
    for number in progress(missing, context.stage, "expert", start=len(files) - len(missing)):
        _train_one(number, files[number], problem, seed, device)
    with atomic_path(folder) as aside:
        aside.mkdir()
        for path in files:
            shutil.copyfile(path, aside / path.name)
    _record(context, folder, problem.towers, problem.splits, inputs)
    shutil.rmtree(unfinished)


def train_one_expert(context: Context, problem: ExpertProblem, inputs: list[Path]) -> None:
    """Train the expert that a part of the stage is, unless it is finished; `train_experts` finds it there."""
    assert context.part is not None
    unfinished = context.paths.checkpoint(context.stage, work_fingerprint(context, inputs))
    path = trajectory_path(unfinished, context.part)
    for number in progress([context.part] * (not path.is_file()), context.name, "expert"):
        _train_one(number, path, problem, context.params.seed, context.params.compute.device)


def _train_one(number: int, path: Path, problem: ExpertProblem, seed: int, device: Device) -> None:
    settings, towers, purpose = problem.settings, problem.towers, problem.purpose
    initial = towers.initial(stream(seed, purpose, number, "image head"), stream(seed, purpose, number, "text head"))
    steps = train_expert(problem.pairs, on(device, initial), draws_of(number, problem, seed), towers.student,
                         settings.lr, settings.momentum, settings.weight_decay, settings.temperature)
    snapshots, results = [initial], []
    every = settings.steps_between_snapshots(len(problem.pairs.texts))
    for step, (result, after) in enumerate(steps, start=1):
        results.append(result)
        if step % every == 0:
            snapshots.append(on("cpu", after))
    # Steps after the last snapshot are left out.
    parts = [results[start:start + every] for start in range(0, len(results) // every * every, every)]
    curves = ExpertCurves(loss=[sum(r.loss for r in part) / every for part in parts],
                          accuracy=[sum(r.accuracy for r in part) / every for part in parts])
    write_trajectory(path, snapshots, {"expert": number, "curves": curves.to_json()})


def draws_of(number: int, problem: ExpertProblem, seed: int) -> Iterator[ExpertBatch]:
    """Yield the draws of all steps of an expert."""
    pairs, settings = problem.pairs, problem.settings
    for epoch in range(settings.epochs_of(len(pairs.texts))):
        order, masks = (stream(seed, problem.purpose, number, purpose, epoch) for purpose in ("epoch", "dropout"))
        draws = iter(draw_epoch(len(pairs.texts), pairs.num_views, settings.batch_size, order))
        if settings.cached_views:
            draws = with_cached_views(draws, pairs.image_index, settings.cached_views)
        if problem.encode_captions:
            draws = with_texts(draws, problem.encode_captions,
                               CounterStream(seed, problem.purpose, number, "text dropout", epoch))
        yield from with_dropout(draws, problem.towers.draw_masks, masks)


def _record(context: Context, folder: Path, towers: Towers, splits: Splits, inputs: list[Path],
            imported: Imported | None = None) -> None:
    """Write the record of a folder of trajectories: what each says of itself, what its last snapshot recalls on
    held-out splits, and the size of the largest.
    """
    trajectories, experts = TrajectoryStore(folder), []
    for number in range(len(trajectories)):
        last = on(context.params.compute.device, trajectories.last(number))
        stacked = PerModality(last.img[None], last.txt[None])
        recalls = {name: Recalls(**score(stacked, towers.student, split)[0]) for name, split in splits.items()}
        experts.append(Expert(**trajectories.metadata(number), val=recalls["val"], test=recalls["test"]))
    Trajectories(experts=experts, test=_summary([expert.test for expert in experts if expert.test]),
                 trajectory_bytes=max(path.stat().st_size for path in trajectory_files(folder)), imported=imported,
                 provenance=provenance(context, inputs)).write(context.paths.record(context.stage))


def _summary(recalls: list[Recalls]) -> RecallSummary:
    columns = {name: [getattr(each, name) for each in recalls] for name in RECALLS}
    std = Recalls(**{name: statistics.stdev(column) for name, column in columns.items()}) if len(recalls) > 1 else None
    return RecallSummary(mean=Recalls(**{name: statistics.fmean(column) for name, column in columns.items()}), std=std)


def import_experts(context: Context, settings: Experts, layouts: Layouts, towers: Towers, splits: Splits,
                   folder: Path, inputs: list[Path]) -> None:
    """Take the first `settings.num` trajectories of the official release's buffers; write `records/<stage>.json`.

    Nothing is trained: they are checked against the heads and encoders of the parameters, and the record names the
    files with their SHA-256.

    Args:
        settings: their `import_from` is given.
        folder: where the trajectories go; replaced if it exists.
        inputs: the files that towers and splits were read from.

    Raises:
        ValueError: the buffers are missing, damaged, too few, of other shapes, or not what `sha256` says.
    """
    source, imported = settings.import_from, list[Imported]()
    assert source is not None
    pairs = buffer_pairs(located(source, context.paths))

    def check() -> None:
        imported.append(identify(f"{context.stage.replace('-', '_')}.import_from", source,
                                 [path for pair in pairs for path in pair]))

    import_buffers(pairs, layouts, settings.num, folder, lambda work: confirmed(source.sha256, check, work))
    _record(context, folder, towers, splits, inputs, imported[0])
