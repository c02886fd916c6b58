"""What the files must hold that not every run has: transfer to other encoders and tasks, embeddings, efficiency.

Recalls, accuracies and their chance levels are in percent. Keys that the report does not use are let through.
"""

import math
import statistics
from typing import Annotated, Literal

from pydantic import Field, model_validator

from repblend.report.schema import (
    CellName,
    Count,
    Percent,
    Protocol,
    Protocols,
    Provenance,
    Recalls,
    Record,
    Traced,
    check_close,
)

MEASURES = ("intra_modal_similarity_img", "intra_modal_similarity_txt", "concentration_ratio_img",
            "concentration_ratio_txt", "effective_rank_img", "effective_rank_txt", "modality_gap")
"""Measures of collapse, in the order of the table."""
RADIUS_TOLERANCE = 1e-2
"""How far a point may be from the unit sphere that it is drawn on."""

Positive = Annotated[float, Field(gt=0)]


class Prepared(Traced):
    """`metrics/prepare.json`."""

    name: str
    """The data set's name, as in `params.yaml`."""


class Encoders(Record):
    """The names of the frozen encoders, as in `params.yaml`."""

    image_encoder: str
    text_encoder: str


class EncodeParameters(Record):
    """The part of the parameters of `encode` that the report shows."""

    encode: Encoders


class EncodeProvenance(Provenance):
    """Where the features come from."""

    parameters: EncodeParameters  # type: ignore[assignment]


class Encoded(Record):
    """`metrics/encode.json`."""

    provenance: EncodeProvenance


class Accuracy(Record):
    """An accuracy in percent."""

    accuracy: Percent


class SeedAccuracy(Accuracy):
    """What one student reached at the epoch that its protocol chose."""

    epoch: Count


class AccuracyProtocol(Record):
    """Every student's accuracy under one protocol, with mean and sample standard deviation."""

    seeds: list[SeedAccuracy] = Field(min_length=1)
    mean: Accuracy
    std: Accuracy

    @model_validator(mode="after")
    def _agree(self) -> "AccuracyProtocol":
        values = [seed.accuracy for seed in self.seeds]
        check_close("mean.accuracy", self.mean.accuracy, statistics.fmean(values))
        if len(values) > 1:
            check_close("std.accuracy", self.std.accuracy, statistics.stdev(values))
        return self


class TaskProtocols(Record):
    """A task of classes has accuracies, one of retrieval the six recalls."""

    held_out: AccuracyProtocol | Protocol = Field(alias="held-out")
    faithful: AccuracyProtocol | Protocol | None = None


class Architecture(Record):
    """Students on one other image encoder."""

    protocols: Protocols


class ZeroShotTask(Record):
    """One task that the sets were not distilled for."""

    metric: str
    chance: Percent | Recalls
    protocols: TaskProtocols


class Transfer(Traced):
    """`metrics/transfer/<cell>.json`."""

    cell: CellName
    unit: Literal["percent"]
    architectures: dict[str, Architecture]
    zero_shot: dict[str, ZeroShotTask]


class Measure(Record):
    """A measure in the embedding of each reference model, with mean and sample standard deviation over them."""

    values: list[float] = Field(min_length=1)
    mean: float
    std: float | None

    @model_validator(mode="after")
    def _agree(self) -> "Measure":
        check_close("mean", self.mean, statistics.fmean(self.values))
        if len(self.values) > 1 and self.std is not None:
            check_close("std", self.std, statistics.stdev(self.values))
        return self


Point = Annotated[list[float], Field(min_length=3, max_length=3)]


class Sphere(Record):
    """The embeddings of a set's images and texts, projected to the unit sphere."""

    images: list[Point]
    texts: list[Point]

    @model_validator(mode="after")
    def _on_the_sphere(self) -> "Sphere":
        for name in ("images", "texts"):
            for number, point in enumerate(getattr(self, name)):
                if abs(math.hypot(*point) - 1) > RADIUS_TOLERANCE:
                    raise ValueError(f"{name}.{number} has length {math.hypot(*point):.3f}, expected 1")
        return self


class Embedding(Traced):
    """`metrics/embed/<cell>.json`."""

    cell: CellName
    num_references: Count
    measures: dict[str, Measure]
    sphere: Sphere
    definitions: dict[str, str]


class Seconds(Record):
    """Times of one thing, in seconds, over the benchmark's rounds."""

    median: Positive
    min: Positive
    max: Positive
    rounds: Annotated[int, Field(ge=1)]


class MethodCost(Record):
    """What a method costs."""

    seconds_per_iteration: Seconds
    peak_memory_mib: Positive
    trajectory_bytes: Annotated[int, Field(ge=1)]
    seconds_per_trajectory: Positive


class Efficiency(Record):
    """`benchmarks/efficiency.json`, which the benchmark writes and git keeps."""

    machine: str
    threads: Annotated[int, Field(ge=1)]
    budget: Annotated[int, Field(ge=1)]
    image_size: Annotated[int, Field(ge=1)]
    methods: dict[str, MethodCost]
