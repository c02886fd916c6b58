"""Students of a cell: what they train, how they are optimised and scored, and how what they reach is written.

Stages `distill`, `evaluate`, `bounds`, `transfer` and `encoder-experts` have theirs from here (`paper/METHOD.md`,
section 8).
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor

from repblend.data.features import Features, SplitFeatures
from repblend.data.karpathy import AnnotatedImage
from repblend.encoders.heads import HeadSpec
from repblend.encoders.image import ImageEncoder, encode_in_chunks
from repblend.evaluation.protocol import Evaluator
from repblend.evaluation.student import Recipe, published_decay_start
from repblend.evaluation.towers import EncoderAndHead, HeadPair, Towers
from repblend.grid import Cell, schedule_of
from repblend.params import Params
from repblend.params.evaluate import MethodSchedule
from repblend.records.results import Evaluation, flat_metrics
from repblend.runtime.context import Paths, csv_of, write_cell
from repblend.runtime.provenance import write_metric
from repblend.stages.setup import annotations_of, read_pixels
from repblend.streams import seed_of_set


@dataclass(frozen=True)
class StudentModel:
    """A kind of student, and what it needs of sets and splits."""

    towers: Towers
    inputs: Callable[[Tensor], Tensor]
    """From normalised images (N, 3, H, W) to what students see of them."""
    val: SplitFeatures
    test: SplitFeatures

    @property
    def splits(self) -> dict[str, SplitFeatures]:
        return {"val": self.val, "test": self.test}


def student_model(cell: Cell, encoder: ImageEncoder, params: Params, paths: Paths, features: Features) -> StudentModel:
    """Return the students of a cell, on the encoder that the features come from."""
    if cell.trains_encoder:
        return encoder_students(encoder, params, paths, features)
    heads = HeadPair.of_widths(*features.widths, params.heads.width, params.heads.dropout)
    inputs = partial(encode_in_chunks, encoder, chunk=params.compute.encoder_chunk)
    return StudentModel(heads, inputs, features.val, features.test)


def encoder_students(encoder: ImageEncoder, params: Params, paths: Paths, features: Features) -> StudentModel:
    """Return students that train the whole image encoder and a text head on pixels (MTT-VL, TESLA-VL, LoRS)."""
    annotations = annotations_of(params, paths)

    def with_pixels(split: SplitFeatures, images: tuple[AnnotatedImage, ...]) -> SplitFeatures:
        pixels = read_pixels(paths, images, params.data.image_size, encoder.mean, encoder.std)
        return replace(split, images=pixels)

    head = HeadSpec(features.train_texts.shape[-1], encoder.feature_dim, params.heads.dropout)
    return StudentModel(EncoderAndHead(encoder, head), lambda images: images,
                        with_pixels(features.val, annotations.val), with_pixels(features.test, annotations.test))


def recipe_of(cell: Cell, lr_img: float, lr_txt: float, loss: str, params: Params,
              temperature: float | None = None) -> Recipe:
    """Return how students are optimised on a cell's set, which brings its rates and its loss, and, if it was imported,
    its temperature.

    Students that train the encoder on a coreset have other rates: a coreset brings those of heads.
    """
    evaluate, schedule = params.evaluate, schedule_of(cell, params.evaluate)
    if cell.is_coreset and cell.trains_encoder:
        lr_img, lr_txt = evaluate.encoder_coresets.lr_img, evaluate.encoder_coresets.lr_txt
    return Recipe(lr_img, lr_txt if schedule.rates == "own" else lr_img, evaluate.momentum, evaluate.weight_decay, loss,
                  temperature or evaluate.temperature,
                  published_decay_start(schedule.epochs) if schedule.decay else None)


def make_evaluator(schedule: MethodSchedule, params: Params, splits: dict[str, SplitFeatures], towers: Towers,
                   num_seeds: int, set_number: int = 0) -> Evaluator:
    """Return how sets are evaluated on the given splits.

    Students of further sets of the same settings (`Cell.seed`) have draws of their own, so that a set with its students
    is one independent draw; those of one number are the same for all methods, which pairs them.
    """
    evaluate, seed = params.evaluate, seed_of_set(params.seed, set_number)
    return Evaluator(splits, towers, seed, num_seeds, schedule.epochs, schedule.scored_intervals,
                     schedule.batch_size, schedule.batches, evaluate.protocol, evaluate.candidates,
                     params.compute.device)


def write_evaluation(evaluation: Evaluation, name: str, paths: Paths) -> None:
    """Write what students reached: `records/evaluate/<name>/` with the plot of their mean recall by epoch, and the flat
    metrics of both protocols.
    """
    curves = ([round(statistics.fmean(students), 4) for students in zip(*curves, strict=True)]
              for curves in (evaluation.curves.val_mean_recall, evaluation.curves.test_mean_recall))
    write_cell(paths.record("evaluate", name), evaluation, {"recall.csv": csv_of(
        ("epoch", "val_mean_recall", "test_mean_recall"), zip(evaluation.scored_epochs, *curves, strict=True))})
    for protocol, found in (("held-out", evaluation.protocols.held_out), ("faithful", evaluation.protocols.faithful)):
        write_metric(paths.metric(protocol, name), flat_metrics(found.mean, found.std), evaluation.provenance)
