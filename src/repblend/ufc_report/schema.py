"""What the unimodal pipeline's metrics files must hold, as strict types. Keys that the report does not use
are let through.

Accuracies are top-1, in percent.
"""

import statistics
from typing import Annotated, Literal

from pydantic import Field, model_validator

from repblend.report.schema import CellName, Count, Percent, Png, Record, Traced, check_close

MEASURES = ("best", "last", "best_on_test")
"""The epoch that is best on held-out images; the last; and the one that is best on the test images themselves."""


class Accuracies(Record):
    """Top-1 accuracy on the test images, by the epoch that is taken."""

    best: Percent
    last: Percent
    best_on_test: Percent


class StudentCurves(Record):
    """What was measured of a student at every scoring."""

    epoch: list[float]
    val_accuracy: list[Percent]
    test_accuracy: list[Percent]


class Student(Accuracies):
    """One student."""

    curves: StudentCurves


class Deviations(Record):
    """Standard deviations of accuracies, in percentage points."""

    best: float = Field(ge=0)
    last: float = Field(ge=0)
    best_on_test: float = Field(ge=0)


class StudentCellName(Record):
    """Whose students a file is about."""

    set: str
    labels: Literal["static", "dynamic", "hard"]
    student: str
    budget: Count


class Cost(Record):
    """What labels cost."""

    label_bytes: Count
    teacher_passes: Count


class Validated(Traced):
    """`metrics/validate/<cell>.json`."""

    cell: StudentCellName
    unit: Literal["percent"]
    num_images: Count
    epochs: Count
    seeds: list[Student] = Field(min_length=2)
    mean: Accuracies
    std: Deviations
    cost: Cost

    @model_validator(mode="after")
    def _agree(self) -> "Validated":
        for name in MEASURES:
            values = [getattr(seed, name) for seed in self.seeds]
            check_close(f"mean.{name}", getattr(self.mean, name), statistics.fmean(values))
            check_close(f"std.{name}", getattr(self.std, name), statistics.stdev(values))
        return self


class SplitAccuracies(Record):
    """A teacher's accuracy by split."""

    val: Percent
    test: Percent


class Teacher(Traced):
    """`metrics/teacher/<architecture>.json`."""

    architecture: str
    num_parameters: Count
    accuracy: SplitAccuracies


class LossCurves(Record):
    """Means over compensators, by iteration."""

    iteration: list[Count]
    cross_entropy: list[float]
    bn: list[float]
    loss: list[float]


class Generated(Traced):
    """`metrics/generate/<architecture>.json`."""

    architecture: str
    num_compensators: Count
    curves: LossCurves


class StoredBytes(Record):
    """What a set takes, by its parts, and as files."""

    real_images: Count
    compensators: Count
    integrated: Count
    static_labels: Count


class SlotPictures(Record):
    """One slot of several classes."""

    architecture: str | None
    image: Count
    png: list[Png]


class CompensatorPicture(Record):
    """One compensator as a picture."""

    architecture: str
    image: Count
    png: Png


class SetPictures(Record):
    """What a set looks like."""

    slots: list[SlotPictures]
    compensators: list[CompensatorPicture]
    largest_change: float


class MadeSet(Traced):
    """`metrics/sets/<cell>.json`; only UFC's has pictures."""

    cell: CellName
    num_images: Count
    num_counted: Count
    num_allowed: Count
    stored_bytes: StoredBytes
    specimens: SetPictures | None = None


class Regions(Traced):
    """`metrics/regions/<cell>.json`."""

    cell: StudentCellName
    labels: list[Count]
    predicted: list[Count]
    plane: list[Annotated[list[float], Field(min_length=2, max_length=2)]]
    disagreement: Percent
    definitions: dict[str, str]

    @model_validator(mode="after")
    def _equal_lengths(self) -> "Regions":
        if not len(self.labels) == len(self.predicted) == len(self.plane):
            raise ValueError(f"labels, predicted and plane have {len(self.labels)}, {len(self.predicted)} and "
                             f"{len(self.plane)} entries")
        return self


class PreparedImages(Traced):
    """`metrics/prepare.json`."""

    name: str
    num_classes: Count
    num_images: dict[str, Count]
