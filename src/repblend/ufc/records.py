"""Records of the unimodal pipeline: what its stages write beside their outputs, as strict types that its report reads.

`repblend.records.base` says how records are written and read. Accuracies are top-1, in percent. Beside the record of a
cell lie its pictures (PNG) and plots (CSV).
"""

import statistics
from typing import Literal, Self

from pydantic import Field, model_validator

from repblend.records.base import CellName, Percent, Record, Sha256, Traced, check_close
from repblend.sections import Count, Name, Positive

MEASURES = ("best", "last", "best_on_test")
"""The epoch that is best on held-out images; the last; and the one that is best on the test images themselves."""
METRIC_DECIMALS = 4


class PreparedImages(Traced):
    """`records/prepare.json`: the data set, pinned by the hashes of its splits."""

    name: Name
    num_classes: Positive
    image_size: Positive
    num_images: dict[str, Count]
    sha256: dict[str, Sha256]


class BudgetCounts(Record):
    """What a budget allows, in images; `repblend.ufc.integration.Budget` has the definitions."""

    ipc: Positive
    num_real: Positive
    num_slots: Positive
    num_compensators: Count
    num_stored: Positive
    num_allowed: Positive


class DrawnImages(Traced):
    """`records/initial.json`: the real images that compensators are added to."""

    num_per_class: Positive
    sha256: dict[str, Sha256]
    budgets: list[BudgetCounts]


# Teachers, and what is made with them.


class SplitAccuracies(Record):
    """A teacher's accuracy by split."""

    val: Percent
    test: Percent


class TeacherCurves(Record):
    """A value per epoch; none of a teacher that was not trained here."""

    epoch: list[Count]
    loss: list[float]


class TaughtNetwork(Traced):
    """`records/teacher/<architecture>/record.json`; beside it `loss.csv`."""

    architecture: Name
    unit: Literal["percent"] = "percent"
    num_parameters: Count
    accuracy: SplitAccuracies
    curves: TeacherCurves


class GenerationCurves(Record):
    """Means over compensators, at some iterations."""

    iteration: list[Count]
    cross_entropy: list[float]
    bn: list[float]
    loss: list[float]


class Generated(Traced):
    """`records/generate/<architecture>/record.json`; beside it `loss.csv`."""

    architecture: Name
    num_compensators: Count
    curves: GenerationCurves


class Labelled(Traced):
    """`records/label/<set>-<budget>/record.json`: one stored label per image."""

    cell: CellName
    unit: Literal["percent"] = "percent"
    agreement: Percent
    """Images whose largest logit is their class's."""
    stored_bytes: Count


# Sets.


class StoredBytes(Record):
    """What a set takes, counted in the two ways that there are: its parts, and the files of the integrated images."""

    real_images: Count
    """n0 real images per class, 8 bits per channel."""
    compensators: Count
    """M * n0 compensators as they are learned, 32 bits per channel: the budget counts each of them as one image."""
    integrated: Count
    """The files of all integrated images, which is what the release stores."""
    static_labels: Count
    """One label (C logits) for every integrated image; dynamic labels store nothing and cost teacher passes instead."""


class SlotPicture(Record):
    """One slot of the first classes, side by side in one file."""

    architecture: Name | None
    """Whose compensator is added; None for real images as they are."""
    image: Count

    @property
    def png(self) -> str:
        """Name of the file beside the record."""
        return f"{self.architecture or 'real'}-{self.image}.png"


class CompensatorPicture(SlotPicture):
    """One compensator as a picture: 0 is mid-grey."""

    @property
    def png(self) -> str:
        return f"compensator-{super().png}"


class SetPictures(Record):
    """What a set looks like."""

    num_classes: Positive
    """Classes side by side in the file of a slot."""
    slots: list[SlotPicture]
    compensators: list[CompensatorPicture]
    largest_change: float
    """Of the pixels that are shown, between 0 and 1: what reaches black or white."""


class MadeSet(Traced):
    """`records/sets/<set>-<budget>/record.json`; only UFC's has pictures."""

    cell: CellName
    set_sha256: Sha256
    num_images: Count
    num_counted: Count
    num_allowed: Count
    stored_bytes: StoredBytes
    pictures: SetPictures | None = None


# Students.


class StudentCellName(Record):
    """Whose students a record is about."""

    set: Name
    labels: Literal["static", "dynamic", "hard"]
    student: Name
    budget: Count


class Accuracies(Record):
    """Top-1 accuracy on the test images, by the epoch that is taken."""

    best: Percent
    last: Percent
    best_on_test: Percent


class AccuracyCurves(Record):
    """What was measured of a student at every scoring."""

    epoch: list[Count]
    loss: list[float]
    val_accuracy: list[Percent]
    test_accuracy: list[Percent]


class OneStudent(Accuracies):
    """One student."""

    curves: AccuracyCurves


class LabelCost(Record):
    """What labels cost a student."""

    label_bytes: Count
    """Stored beside the images."""
    teacher_passes: Count
    """Images through a teacher."""


class Validated(Traced):
    """`records/validate/<cell>/record.json`; beside it `accuracy.csv`."""

    cell: StudentCellName
    unit: Literal["percent"] = "percent"
    num_images: Count
    epochs: Count
    seeds: list[OneStudent] = Field(min_length=1)
    mean: Accuracies
    std: Accuracies | None
    """Standard deviations, in percentage points; none of one student alone."""
    cost: LabelCost

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if (self.std is None) != (len(self.seeds) == 1):
            raise ValueError("std: expected of several students, null of one alone")
        for name in MEASURES:
            values = [getattr(seed, name) for seed in self.seeds]
            check_close(f"mean.{name}", getattr(self.mean, name), statistics.fmean(values))
            if self.std:
                check_close(f"std.{name}", getattr(self.std, name), statistics.stdev(values))
        return self


class DecisionRegions(Traced):
    """`records/regions/<cell>/record.json`; beside it `plane.csv`, a row per test image."""

    cell: StudentCellName
    perplexity: float
    disagreement: Percent
    definitions: dict[str, str]
