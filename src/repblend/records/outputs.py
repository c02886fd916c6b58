"""Records of the stages that make data, features, experts and sets; `base` says how records are written and read."""

import statistics
from typing import Self

from pydantic import model_validator

from repblend.records.base import (
    RECALLS,
    CellName,
    Imported,
    Percent,
    Recalls,
    Record,
    Sha256,
    Traced,
    check_close,
)
from repblend.sections import Count, EncoderName, Name, Positive


class PairCounts(Record):
    """Rows of a split."""

    images: Count
    captions: Count


class Prepared(Traced):
    """`records/prepare.json`."""

    name: Name
    """The data set's name, as in `params.yaml`."""
    counts: dict[str, PairCounts]
    packages: dict[str, str]
    """Packages that the embedded set was made with -> version."""
    sha256: dict[str, Sha256]


class TrainingShapes(Record):
    """Shapes of the training features: (V, I, D_img) of views and (M, D_txt) of captions."""

    views: list[Count]
    captions: list[Count]


class SplitShapes(Record):
    """Shapes of a split's features: (I, D_img) and (M, D_txt)."""

    images: list[Count]
    captions: list[Count]


class Encoded(Traced):
    """`records/encode.json`."""

    image_encoder: EncoderName
    text_encoder: EncoderName
    train: TrainingShapes
    val: SplitShapes
    test: SplitShapes
    sha256: dict[str, Sha256]


class ExpertCurves(Record):
    """Means over the steps before each snapshot."""

    loss: list[float]
    accuracy: list[float]


class Expert(Record):
    """One trajectory, and what its last snapshot reaches."""

    expert: Count
    num_snapshots: Count
    val: Recalls
    test: Recalls | None = None
    """None in records that are older than this key."""
    curves: ExpertCurves | None = None
    """None of an imported trajectory."""
    imported: dict[str, str] | None = None
    """Side -> the file of the release that it was imported from."""


class RecallSummary(Record):
    """What the experts reach on the test split at the end of training: mean and sample standard deviation."""

    mean: Recalls
    std: Recalls | None
    """None of a single expert."""


class Trajectories(Traced):
    """`records/experts.json` and `records/encoder-experts.json`."""

    experts: list[Expert]
    test: RecallSummary | None = None
    """Nothing was chosen by it: the released training prints it, and the paper's full-data row is one such expert's.
    None in records that are older than this key."""
    trajectory_bytes: Positive
    """Of the largest file."""
    imported: Imported | None = None

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.test is None:
            return self
        for name in RECALLS:
            values = [getattr(expert.test, name) for expert in self.experts]
            check_close(f"test.mean.{name}", getattr(self.test.mean, name), statistics.fmean(values))
            if len(values) > 1:
                check_close(f"test.std.{name}", getattr(self.test.std, name), statistics.stdev(values))
        return self


class RealPair(Record):
    """A pair of the training set."""

    image: str
    caption: str


class Selected(Traced):
    """`records/select/<cell>/record.json`."""

    cell: CellName
    pairs: list[RealPair]


# Stage `distill`: the course of a distillation, and some pairs to look at.


class Series(Record):
    """Lists of one length, an entry per iteration; None for what was not measured."""

    iteration: list[Count]

    @model_validator(mode="after")
    def _equal_lengths(self) -> Self:
        for name in type(self).model_fields:
            values = getattr(self, name)
            if values is not None and len(values) != len(self.iteration):
                raise ValueError(f"{name} has {len(values)} entries, iteration has {len(self.iteration)}")
        return self


class Curves(Series):
    """What a distillation logs in every iteration, before its update."""

    matching_loss: list[float]
    matching_loss_img: list[float]
    matching_loss_txt: list[float]
    lr_img: list[float]
    lr_txt: list[float]


class Checkpoints(Series):
    """What a distillation measures where it validates its set."""

    val_mean_recall: list[Percent]
    test_mean_recall: list[Percent] | None = None
    """Only where the test split chooses the iteration."""
    intra_modal_similarity_img: list[float]
    intra_modal_similarity_txt: list[float]
    concentration_ratio_img: list[float]
    concentration_ratio_txt: list[float]
    effective_rank_img: list[float]
    effective_rank_txt: list[float]
    modality_gap: list[float]


class Course(Record):
    """A distillation from its first iteration to its last."""

    iterations: Count
    chosen_iteration: Count
    curves: Curves
    checkpoints: Checkpoints

    @model_validator(mode="after")
    def _chosen_was_measured(self) -> Self:
        if self.chosen_iteration not in self.checkpoints.iteration:
            raise ValueError(f"chosen_iteration is {self.chosen_iteration}, which is not in checkpoints.iteration")
        return self


class NearestCaption(Record):
    """A training caption near a learned text."""

    caption: str
    cosine: float


class Specimen(Record):
    """One pair before and after distillation; its pictures lie beside the record."""

    index: Count
    initial_caption: str | None
    """None of an imported set, of which it is not known."""
    nearest_captions: list[NearestCaption]

    @property
    def distilled_png(self) -> str:
        """Name of the file with the distilled image."""
        return f"pair-{self.index}-distilled.png"

    @property
    def initial_png(self) -> str | None:
        """Name of the file with the real image that the pair started from; None where that is not known."""
        return None if self.initial_caption is None else f"pair-{self.index}-initial.png"


class Distilled(Traced):
    """`records/distill/<cell>/record.json`; the whole learned similarity lies beside it, `similarity.npy`."""

    cell: CellName
    num_pairs: Count
    course: Course | None = None
    """None of an imported set."""
    imported: Imported | None = None
    specimens: list[Specimen]
    definitions: dict[str, str]

    @model_validator(mode="after")
    def _distilled_or_imported(self) -> Self:
        if (self.course is None) == (self.imported is None):
            raise ValueError("a set has either a course or files that it was imported from")
        return self
