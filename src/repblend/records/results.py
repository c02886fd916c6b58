"""Records of the stages that measure sets: students' recalls, transfer, embeddings; and the flat metrics.

`base` says how records are written and read.
"""

import math
import statistics
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from repblend.records.base import (
    RECALLS,
    CellName,
    Percent,
    RecallName,
    Recalls,
    Record,
    Traced,
    check_close,
)
from repblend.sections import Count, EncoderName, Name, Positive, PositiveReal

MEASURES = ("intra_modal_similarity_img", "intra_modal_similarity_txt", "concentration_ratio_img",
            "concentration_ratio_txt", "effective_rank_img", "effective_rank_txt", "modality_gap")
"""Measures of collapse, in the order of the table."""
RADIUS_TOLERANCE = 1e-2
"""How far a point may be from the unit sphere that it is drawn on."""


# Stages `evaluate` and `bounds`: students, and what they reach by both protocols.


class SeedRecalls(Recalls):
    """What one student reached at the epoch that its protocol chose."""

    epoch: Count


class Protocol(Record):
    """Every student under one protocol, with mean and sample standard deviation."""

    selected_on: Literal["val", "test"] | None
    """The split that chose the epochs; None if every student's last one counts."""
    seeds: list[SeedRecalls] = Field(min_length=1)
    mean: Recalls
    std: Recalls

    @model_validator(mode="after")
    def _agree(self) -> Self:
        for name in RECALLS:
            values = [getattr(seed, name) for seed in self.seeds]
            check_close(f"mean.{name}", getattr(self.mean, name), statistics.fmean(values))
            if len(values) > 1:
                check_close(f"std.{name}", getattr(self.std, name), statistics.stdev(values))
        return self


class Protocols(Record):
    """Ways of choosing the epoch: on validation, on the test split as released, and not at all."""

    held_out: Protocol = Field(alias="held-out")
    faithful: Protocol
    last: Protocol | None = None
    """Only where `evaluate.protocol` asks for it."""


class StudentCurves(Record):
    """Student -> scored epoch -> mean recall."""

    val_mean_recall: list[list[Percent]]
    test_mean_recall: list[list[Percent]]


class StudentScores(Record):
    """What the students of one set reach."""

    unit: Literal["percent"] = "percent"
    num_seeds: Positive
    scored_epochs: list[Count]
    protocols: Protocols
    curves: StudentCurves
    protocol: Literal["held-out", "faithful", "last"] = "held-out"
    """The one that counts where one number is asked for."""


class Evaluation(StudentScores, Traced):
    """`records/evaluate/<cell>/record.json`, and that of `full-data`, where nothing is stored."""

    cell: CellName
    num_pairs: Count
    stored_bytes: Count | None


class Chance(Traced):
    """`records/evaluate/chance/record.json`: the expected recalls of a random ranking, in closed form."""

    unit: Literal["percent"] = "percent"
    expected: Recalls


# Stage `transfer`: other encoders and other tasks.


class Accuracy(Record):
    """An accuracy in percent."""

    accuracy: Percent


class SeedAccuracy(Accuracy):
    """What one student reached at the epoch that its protocol chose."""

    epoch: Count


class AccuracyProtocol(Record):
    """Every student's accuracy under one protocol, with mean and sample standard deviation."""

    selected_on: Literal["val", "test"]
    seeds: list[SeedAccuracy] = Field(min_length=1)
    mean: Accuracy
    std: Accuracy

    @model_validator(mode="after")
    def _agree(self) -> Self:
        values = [seed.accuracy for seed in self.seeds]
        check_close("mean.accuracy", self.mean.accuracy, statistics.fmean(values))
        if len(values) > 1:
            check_close("std.accuracy", self.std.accuracy, statistics.stdev(values))
        return self


class IconRetrieval(Record):
    """Zero-shot retrieval of images by their names."""

    metric: Literal["retrieval"] = "retrieval"
    num_images: Count
    chance: Recalls
    protocols: Protocols


class WordProtocols(Record):
    """The task of words is scored at the epochs that validation recall chose."""

    held_out: AccuracyProtocol = Field(alias="held-out")


class WordAccuracy(Record):
    """Zero-shot classification of images by words."""

    metric: Literal["top-1 accuracy"] = "top-1 accuracy"
    words: list[str]
    num_images: Count
    chance: Percent
    majority: Percent
    protocols: WordProtocols


class ZeroShot(Record):
    """Tasks that a set was not distilled for."""

    icons: IconRetrieval
    ten_words: WordAccuracy | None = Field(alias="ten-words")
    """None where the test captions have no ten fit words."""


class Transferred(Traced):
    """`records/transfer/<cell>/record.json`."""

    cell: CellName
    unit: Literal["percent"] = "percent"
    architectures: dict[EncoderName, StudentScores]
    """Other image encoder -> what its students reach."""
    zero_shot: ZeroShot


# Stage `embed`: measures of collapse, and embeddings on the sphere.


class Measure(Record):
    """A measure in the embedding of each reference model, with mean and sample standard deviation over them."""

    values: list[float] = Field(min_length=1)
    mean: float
    std: float | None

    @model_validator(mode="after")
    def _agree(self) -> Self:
        check_close("mean", self.mean, statistics.fmean(self.values))
        if len(self.values) > 1 and self.std is not None:
            check_close("std", self.std, statistics.stdev(self.values))
        return self


Point = Annotated[list[float], Field(min_length=3, max_length=3)]


class Sphere(Record):
    """The embeddings of a set's images and texts, projected to the unit sphere."""

    images: list[Point]
    texts: list[Point]
    perplexity: PositiveReal
    iterations: Positive

    @model_validator(mode="after")
    def _on_the_sphere(self) -> Self:
        for name in ("images", "texts"):
            for number, point in enumerate(getattr(self, name)):
                if abs(math.hypot(*point) - 1) > RADIUS_TOLERANCE:
                    raise ValueError(f"{name}.{number} has length {math.hypot(*point):.3f}, expected 1")
        return self


class Embedding(Traced):
    """`records/embed/<cell>/record.json`."""

    cell: CellName
    num_pairs: Count
    num_references: Count
    measures: dict[str, Measure]
    sphere: Sphere
    definitions: dict[str, str]


# Flat metrics: what `dvc metrics show` prints.

METRIC_NAMES: dict[RecallName, str] = {"mean_recall": "mean", "ir_at_1": "ir1", "ir_at_5": "ir5", "ir_at_10": "ir10",
                                       "tr_at_1": "tr1", "tr_at_5": "tr5", "tr_at_10": "tr10"}
"""Recall -> its key in flat metrics; `<key>_std` is its deviation."""
METRIC_DECIMALS = 4


def flat_metrics(mean: Recalls, std: Recalls | None = None) -> dict[str, float]:
    """Return recalls, and their deviations where there are any, as one flat mapping in percent."""
    found: dict[str, float] = {}
    for recall, key in METRIC_NAMES.items():
        found[key] = round(getattr(mean, recall), METRIC_DECIMALS)
        if std is not None:
            found[f"{key}_std"] = round(getattr(std, recall), METRIC_DECIMALS)
    return found


# The benchmark of efficiency, which git keeps: times are not the pipeline's to reproduce.


class Seconds(Record):
    """Times of one thing, in seconds, over the benchmark's rounds."""

    median: PositiveReal
    min: PositiveReal
    max: PositiveReal
    rounds: Positive


class MethodCost(Record):
    """What a method costs."""

    seconds_per_iteration: Seconds
    peak_memory_mib: PositiveReal
    trajectory_bytes: Positive
    seconds_per_trajectory: PositiveReal


class Efficiency(Record):
    """`benchmarks/efficiency.json`."""

    machine: str
    threads: Positive
    budget: Positive
    image_size: Positive
    methods: dict[Name, MethodCost]
