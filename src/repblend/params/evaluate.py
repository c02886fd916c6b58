"""Sections of `params.yaml` about sets that are there: coresets, how students train and are scored, and transfer."""

from typing import Annotated, Literal

from pydantic import Field

from repblend.params.distill import LossName
from repblend.sections import Count, EncoderName, Fraction, Name, Positive, PositiveReal, Section


class StudentSchedule(Section):
    """How long students train, and how often they are scored."""

    epochs: Positive
    """E: students train epochs 0 .. E, at a tenth of the learning rate from E // 2 + 1 on."""
    scored_intervals: Count
    """Students are scored after epochs 0, E // n, 2 (E // n), ... and E; after E alone for n = 0."""


BatchKind = Literal["subsets", "partition", "slices"]


class MethodSchedule(StudentSchedule):
    """The students of one method, where they train in another way than all others."""

    batch_size: Positive
    batches: BatchKind
    rates: Literal["own", "image"]
    """Whether each head has the set's learning rate for it, or both have that of the image side."""
    decay: bool
    """Whether the rates fall to a tenth after half of the epochs."""


class WarmUp(Section):
    """Training of the heads whose joint features herding and k-center look at."""

    epochs: Positive
    """Passes over the training pairs."""
    batch_size: Positive
    lr: PositiveReal
    temperature: PositiveReal


class Select(Section):
    """Coresets, and what students that train on them need because the set does not bring it."""

    warm_up: WarmUp
    forgetting_epochs: Annotated[int, Field(ge=2)]
    """Passes over the training pairs in which forgetting counts what is forgotten."""
    loss: LossName
    lr_img: dict[Name, PositiveReal]
    """Coreset method -> learning rate of its students' image head, tuned on validation."""
    lr_txt: dict[Name, PositiveReal]


class Transfer(Section):
    """Students on other encoders and other tasks (the paper's Tables 4 and 5)."""

    architectures: list[EncoderName]
    """Image encoders that did not take part in the distillation, by their names in the registry."""
    num_icons: Positive
    """Images of the zero-shot retrieval task."""
    head_width: Literal["same", "image-features"] = "same"
    """Width of the heads on another image encoder: that of `heads.width`, or, as released heads have it, that of the
    encoder's features."""


class StudentRates(Section):
    """Learning rates of students."""

    lr_img: PositiveReal
    lr_txt: PositiveReal


class Evaluate(Section):
    """Students: heads trained on a set and scored by retrieval (`paper/METHOD.md`, section 8)."""

    num_seeds: Annotated[int, Field(ge=2)]
    """Students per set; one alone has no standard deviation."""
    batch_size: Positive
    momentum: Fraction
    weight_decay: Annotated[float, Field(ge=0)]
    temperature: PositiveReal
    """Of students, whatever the set was distilled with. Released: always 0.07."""
    protocol: Literal["held-out", "faithful", "last"] = "held-out"
    """The protocol that counts where one number is asked for: a student's epoch chosen on validation, on test (as
    released), or its last one. The first two are always measured and reported side by side."""
    candidates: Positive | None = None
    """A query's best candidates that keep their scores; null keeps all. Released: 128. No recall at 1, 5 or 10 depends
    on it unless fewer than 10 are kept."""
    batches: BatchKind = "subsets"
    """How students' batches are drawn: each a new random subset (as released, so that an epoch may miss pairs), or cut
    from one permutation per epoch, the last one filled up from its beginning (partition) or short (slices)."""
    distilled: StudentSchedule
    coresets: StudentSchedule
    full_data: StudentSchedule
    encoder_students: StudentSchedule
    """Students that train the whole image encoder."""
    encoder_coresets: StudentRates
    """Such students on a coreset, tuned on validation; a distilled set brings rates of its own."""
    methods: dict[str, MethodSchedule] = Field(default_factory=dict)
    """Distillation method -> its students, if they have a schedule of their own. Released: MTT-VL's have."""
