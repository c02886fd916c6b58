"""Section `distill` of `params.yaml`: settings that all distillations share, those of a method, those of a cell."""

from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, model_validator

from repblend.params.experts import ImportFrom
from repblend.params.grid import base_method, seed_apart
from repblend.sections import Count, Fraction, Name, Positive, PositiveReal, Section

LossName = Literal["kl", "bce", "wbce", "infonce", "cwcl", "mse"]
LearnedPart = Literal["images", "texts", "similarity", "rates"]


class ImportSetFrom(ImportFrom):
    """A distilled set of the official release. Its file does not say what it was made with, and nothing is guessed."""

    loss: LossName | None = None
    """The loss that it was distilled with, which students train with as well."""
    temperature: PositiveReal | None = None
    """What cosines are divided by while students train on it; the released evaluation has 0.07."""

    @model_validator(mode="after")
    def _says_what_it_was_made_with(self) -> Self:
        if absent := [name for name in ("loss", "temperature") if getattr(self, name) is None]:
            raise ValueError(f"{' and '.join(absent)}: not given. A released file does not say which loss it was "
                             "distilled with, and students that train with another one lose up to a third of the "
                             "recall. Take both from the command that made the file, for example {path: ..., loss: "
                             "wbce, temperature: 0.07}")
        return self


class OuterLearningRates(Section):
    """Learning rates of the outer optimiser."""

    images: PositiveReal
    texts: PositiveReal
    similarity: PositiveReal
    rates: PositiveReal
    """Of the inner learning rates, in the space that `rate_space` names."""


class OuterMomenta(Section):
    """Momenta of the outer SGD."""

    synthetic: Fraction
    """Of images and texts."""
    similarity: Fraction
    rates: Fraction


class OuterOptimiser(Section):
    """How the synthetic set is updated (`paper/METHOD.md`, section 7)."""

    name: Literal["adam", "sgd"]
    lr: OuterLearningRates
    momentum: OuterMomenta | None
    """Only for SGD; null with Adam."""
    warm_up: Count
    """Iterations over which the outer learning rates rise from zero to their values."""
    schedule: Literal["constant", "cosine"]
    """Course of the outer learning rates over the iterations."""

    @model_validator(mode="after")
    def _momentum_is_for_sgd(self) -> Self:
        if (self.momentum is None) == (self.name == "sgd"):
            raise ValueError("give momentum with 'sgd', and null with 'adam'")
        return self


class DistillSettings(Section):
    """One distillation: a cell of the grid (`paper/METHOD.md`, sections 3 to 7)."""

    iterations: Positive
    """Outer iterations."""
    segments: Positive
    """Expert segments matched per iteration, each by a student of its own; 1 as published."""
    inner_steps: Positive
    """Steps of the student per iteration (K, `syn_steps`)."""
    batch_size: Positive
    """Pairs of an inner step (n, `mini_batch_size`)."""
    expert_span: Positive
    """Snapshots from the start of a matched segment to its target (M, `expert_epochs`)."""
    max_start: Positive
    """Segments start at snapshots 0 .. max_start - 1 (`max_start_epoch`)."""
    loss: LossName
    """The student's loss; also of the students that evaluate the set."""
    temperature: PositiveReal
    logit_scale: Literal["reciprocal", "log"]
    """Students multiply cosines by 1 / temperature, or by ln(1 / temperature) as the released MTT-VL does."""
    normaliser: Literal["separate", "joint"]
    """Whether data gradients are divided by each modality's own expert distance or by the sum of both."""
    blend_alpha: PositiveReal
    """Parameter of the Beta distribution of blending weights; unused by methods without blending."""
    noise_level: PositiveReal
    """Noise on representations, in units of their root mean square; only for the method with noise for blending."""
    initial_images: Literal["plain", "augmented"] = "plain"
    """Whether the set starts from training images as they are (`no_aug`), or from a view of each, as published."""
    similarity_rank: Positive
    similarity_alpha: PositiveReal
    """Weight of the low-rank part (`lora_alpha`)."""
    initial_lr_img: PositiveReal
    initial_lr_txt: PositiveReal
    rate_space: Literal["linear", "log"]
    """Space in which the inner learning rates are optimised."""
    min_rate: Annotated[float, Field(ge=0)]
    """The inner learning rates never fall below this."""
    initial_pairs: Literal["one-per-image", "any"] = "one-per-image"
    """Which random pairs the set starts from: one of every image, as all methods here, or any of the captions.
    Released: any, so that an image may come twice."""
    choose: Literal["best-validation", "best-test", "last"] = "best-validation"
    """Which of the validated iterations is the result. The paper does not say which enters its tables. The released
    code scores each on the test split; best-test is the best of these, chosen with the very split it is reported on."""
    dropout_masks: Literal["same", "different"] = "same"
    """Whether the second pass over the inner steps, which differentiates them, has the first one's dropout or draws its
    own. Released: different, so that its gradient is of other functions than those whose gradients were summed. Nothing
    changes for MTT-VL, which has one pass, or without dropout."""
    learned: list[LearnedPart] = Field(min_length=1, default_factory=lambda: [*get_args(LearnedPart)])
    """What is learned of a set; all else stays as it starts. Images are pixels, rates the students' learning rates."""
    expert_sides: Literal["same-expert", "shuffled"] = "same-expert"
    """Whether the image and the text side of a segment come from one expert, or the text side from another, by one
    permutation for all of a run. Released: LoRS takes the files of each side in the order that the disk lists them in,
    so on some disks most sides are of different experts; which disk the authors had is not known."""
    optimiser: OuterOptimiser
    encoder_graph: Literal["keep", "recompute"]
    """Keep the encoder's graph between encoding and pull-back, or compute it again to save memory."""
    validate_every: Positive
    """Iterations between two validations of the set; the best one on validation is the result."""
    validation_seeds: Positive
    """Students per validation."""
    checkpoint_every: Positive
    """Iterations between two checkpoints."""
    import_from: ImportSetFrom | None = None
    """Where to take the set from, as it is; nothing is distilled. For single cells."""

    @model_validator(mode="after")
    def _every_part_stands_once(self) -> Self:
        if len(set(self.learned)) < len(self.learned):
            raise ValueError(f"learned: {', '.join(self.learned)} names a part twice; take one out")
        return self


class Distill(Section):
    """Settings that all cells share, what a method changes, and what single cells change."""

    common: DistillSettings
    methods: dict[Name, dict[str, Any]]
    """Method -> fields of `DistillSettings` that differ from the common ones."""
    cells: dict[Name, dict[str, Any]]
    """Cell name (`<method>-<budget>` or `<method>+<variant>-<budget>`) -> fields that differ from its method's."""

    @model_validator(mode="after")
    def _cells_are_right(self) -> Self:
        for cell in self.cells:
            self.settings(cell)
        return self

    def settings(self, cell: str) -> DistillSettings:
        """Return the settings of one cell; a changed field replaces the one before, a changed section its keys.

        Raises:
            ValueError: there is no such cell, or a field is unknown or of the wrong type or range.
        """
        name, _, budget = cell.rpartition("-")
        cell = f"{seed_apart(name)[0]}-{budget}"  # a further set has the plain one's settings
        if cell not in self.cells:
            raise ValueError(f"distill.cells has no '{cell}'; add it (an empty mapping takes the common settings)")
        method = base_method(name)
        if method not in self.methods:
            raise ValueError(f"distill.methods has no '{method}'; add it (an empty mapping takes the common settings)")
        changed = _merged(self.common.model_dump(), self.methods[method])
        return DistillSettings.model_validate(_merged(changed, self.cells[cell]))


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return base | {key: _merged(base[key], value) if isinstance(value, dict) and isinstance(base.get(key), dict)
                   else value for key, value in changes.items()}
