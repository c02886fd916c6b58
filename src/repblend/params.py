"""`params.yaml`, read once at the edge into frozen, typed classes: everything that can change a number.

Parsed by the YAML 1.2 rules that DVC uses (`1e-3` is a number, `on` is text). Types are strict: a string where a
number is expected is an error, never converted, and so is a key that no field knows. Library functions take single
values from here, not these objects.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from re import fullmatch
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

from pydantic import Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent

from repblend.data.params import KINDS_OF_DATA, Data
from repblend.sections import Count, EncoderName, FilePath, Fraction, Name, Positive, PositiveReal, Section, Seed
from repblend.store import quoted

Model = TypeVar("Model", bound=Section)
AugmentOp = Literal["Identity", "AutoContrast", "AutoContrast-lors", "AutoContrast-mtt-vl", "Equalize", "Brightness",
                    "Sharpness", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"]
LossName = Literal["kl", "bce", "wbce", "infonce", "cwcl", "mse"]
LearnedPart = Literal["images", "texts", "similarity", "rates"]


class Compute(Section):
    """How numbers are computed. These change the last bits of results, so they are parameters."""

    threads: Positive
    """CPU threads of every tensor operation; the order of sums, and so the last bits, depend on it."""
    encoder_chunk: Positive
    """Images that pass through an image encoder at once."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where encoders run and heads are trained and matched; cuda is the first GPU. Random draws, coresets, ranks and
    measures of collapse stay on the CPU. A GPU has other last bits than a CPU, and than a GPU of another kind."""
    arithmetic: Literal["float32", "tf32-convolutions", "tf32", "bf16"] = "float32"
    """Where a GPU rounds the factors of its products to ten bits (TF32): nowhere, in convolutions (PyTorch's default,
    so released), or everywhere. Or bf16: encoders compute in bfloat16 by autocast, also on a CPU; the rest in float32.
    """
    compile: bool = False
    """Whether frozen image encoders go through `torch.compile`: a minute for each, other last bits, less time."""


class RandAugment(Section):
    """Random operations on a view after its crop and flip, as the released code applies them."""

    num_ops: Positive
    """Operations drawn per view, each applied with probability one half."""
    magnitude: Annotated[int, Field(ge=0, le=10)]
    ops: Annotated[list[AugmentOp], Field(min_length=1)]
    """What is drawn from, with replacement. RepBlend's list lacks AutoContrast; LoRS and MTT-VL have their own."""


class Views(Section):
    """Augmented views of the training images, which experts see."""

    num: Positive
    """Views per training image that are encoded once. View 0 is the image itself."""
    crop_scale_min: Annotated[float, Field(gt=0, le=1)]
    """Smallest share of the image's area that a random crop keeps."""
    flip: Fraction
    """Chance of a left-right flip."""
    crop: Literal["square", "published"] = "square"
    """Crop the square image, bilinear; or, as published, the image as it is, bicubic."""
    rand_augment: RandAugment | None = None
    """Only with published crops; null for none."""

    @model_validator(mode="after")
    def _operations_need_a_published_crop(self) -> Self:
        if self.rand_augment and self.crop == "square":
            raise ValueError("rand_augment works on published crops; set crop: published, or rand_augment: null")
        return self


class Encode(Section):
    """Frozen encoders, by their name in `repblend.encoders.registry`, and the feature caches made with them."""

    image_encoder: EncoderName
    text_encoder: EncoderName
    views: Views
    storage: Literal["float32", "float16"] = "float32"
    """Type in which features of training images and captions are kept; float16 takes half the disk."""


class Heads(Section):
    """Projection heads of both modalities."""

    width: Positive
    """Output and hidden width of both heads."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the hidden units that are dropped wherever heads are trained: experts, students, matching, and the
    warm-up of coresets. Released: 0.1."""


class ImportFrom(Section):
    """What a stage takes from files of the official release instead of computing it."""

    path: FilePath
    """A folder of expert buffers, or a file of a distilled set; relative to the repository, or absolute."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    """SHA-256 of what is there. The stage names it where it is left out: without it, other files would go unnoticed."""


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


class Experts(Section):
    """Expert trajectories (`paper/METHOD.md`, section 5)."""

    num: Positive
    """Experts, each from its own initial heads."""
    epochs: Positive
    """Passes over the training pairs."""
    batch_size: Positive
    """Pairs per step; a last partial batch is dropped, as published."""
    lr: PositiveReal
    momentum: Fraction
    weight_decay: Annotated[float, Field(ge=0)]
    temperature: PositiveReal
    snapshots_every: Positive | Literal["epoch"]
    """Steps from one snapshot to the next, or `epoch`: those of one epoch, as released."""
    min_steps: Count
    """Steps at least: a small training set is passed more often than `epochs` says. 0, as published: never."""
    text_mode: Literal["eval", "train"] = "eval"
    """How the frozen text encoder computes while experts train. Released: train, its own dropout drawn anew in every
    batch; all other text features come from evaluation mode. It then encodes every batch."""
    views: Literal["cached", "fresh"] = "cached"
    """Every draw shows one of `encode.views.num` views; or, as published, one that was never shown before."""
    import_from: ImportFrom | None = None
    """Where to take the first `num` trajectories from; nothing is trained, and the fields above say how they were."""
    cached_views: Count = 0
    """A pair whose image is among this many last ones shows the view that it showed then. The released Flickr30K loader
    keeps 100 augmented images, so that captions of one image can share a view; which ones it keeps is this project's
    reading: the least recently shown leaves first, and an epoch starts with none."""

    def steps_per_epoch(self, num_pairs: int) -> int:
        """Return the steps of one pass over that many training pairs."""
        return num_pairs // min(self.batch_size, num_pairs)

    def epochs_of(self, num_pairs: int) -> int:
        """Return the passes over that many training pairs: `epochs`, or what `min_steps` takes."""
        return max(self.epochs, -(-self.min_steps // self.steps_per_epoch(num_pairs)))

    def num_steps(self, num_pairs: int) -> int:
        """Return the steps of all passes."""
        return self.epochs_of(num_pairs) * self.steps_per_epoch(num_pairs)

    def steps_between_snapshots(self, num_pairs: int) -> int:
        """Return `snapshots_every` in steps."""
        return self.steps_per_epoch(num_pairs) if self.snapshots_every == "epoch" else self.snapshots_every

    def num_snapshots(self, num_pairs: int) -> int:
        """Return how many snapshots a trajectory has, the one at the start among them."""
        return 1 + self.num_steps(num_pairs) // self.steps_between_snapshots(num_pairs)


class EncoderExperts(Experts):
    """Experts that train the whole image encoder and a text head."""

    head_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """That of their text head. As `heads.dropout`: stated again because this stage reads nothing else of `heads`."""


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


def base_method(method: str) -> str:
    """Return the method of `<method>+<variant>`, or the method itself."""
    return method.partition("+")[0]


def seed_apart(method: str) -> tuple[str, int]:
    """Split `<method>+seed-<number>` into the method, with its variant if it has one, and the number; 0 without it."""
    found = fullmatch(r"(.+)\+seed-([1-9][0-9]{0,8})", method)
    return (found[1], int(found[2])) if found else (method, 0)


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return base | {key: _merged(base[key], value) if isinstance(value, dict) and isinstance(base.get(key), dict)
                   else value for key, value in changes.items()}


class EncoderPair(Section):
    """A further pair of encoders, by their names in `repblend.encoders.registry`."""

    image_encoder: EncoderName
    text_encoder: EncoderName


class Grid(Section):
    """The cells that the whole pipeline runs: every method at every budget, and variants at one."""

    budgets: list[Positive]
    coresets: list[Name]
    encoder_distilled: list[Name]
    """Methods that match the whole image encoder."""
    distilled: list[Name]
    """Methods that match both projection heads."""
    encoder_coresets: list[Name]
    """Coresets that also train the students of `encoder_distilled`: the baselines of those."""
    compared_budgets: list[Positive]
    """Budgets at which embeddings, other encoders and other tasks are looked at."""
    variants: dict[Name, list[Name]]
    """What is varied -> variants `<method>+<variant>`, set up in `distill.cells`."""
    all_variants: list[Name]
    """The variants of all families: a matrix of the pipeline needs one list."""
    encoder_variants: list[Name]
    """Those of the families, after all others, whose methods match the whole image encoder."""
    variants_budget: Positive
    regimes: list[Name]
    """Variants that change most settings at once, as another paper's do; of methods that match heads."""
    regime_budgets: list[Positive]
    """Their budgets; at those of `budgets` each stands beside its method as it is."""
    pairs: dict[Name, EncoderPair]
    """Further pairs of encoders: each gets features and experts of its own (the paper's Figures 6 and 7)."""
    encoder_pairs: list[Name]
    """Their names in that order: a matrix of the pipeline needs a list."""
    larger_pairs: list[Name]
    """Those of them whose image encoder is larger than the pipeline's: they stand for the paper's Table 3."""
    pair_distilled: list[Name]
    """Methods whose sets are distilled with every further pair, as `<method>+<pair>`: those that match heads."""
    pair_encoder_distilled: list[Name]
    """Those that match the whole image encoder."""
    pair_budgets: list[Positive]
    seeds: list[Positive]
    """Further sets, each drawn with a seed of its own: every coreset, and every method, is there once more as
    `<method>+seed-<number>`. Features and experts are the same."""
    seed_budgets: list[Positive]
    """At which budgets."""
    regime_seed_budgets: list[Positive]
    """At which budgets regimes have them too."""
    caveats: dict[Name, str] = Field(default_factory=dict)
    """Cell -> what is publicly known of its settings; the plan and the report say it."""

    def seeded(self, methods: Sequence[str]) -> list[str]:
        """Return the names of the further sets of methods."""
        return [f"{method}+seed-{seed}" for method in methods for seed in self.seeds]

    def pair_cells(self, methods: list[str]) -> list[str]:
        """Return the cells of methods with every further pair of encoders."""
        return _cells([f"{method}+{pair}" for method in methods for pair in self.encoder_pairs], self.pair_budgets)

    @model_validator(mode="after")
    def _every_cell_stands_once(self) -> Self:
        for name, values in self:
            if isinstance(values, list) and len(set(values)) < len(values):
                twice = next(value for value in values if values.count(value) > 1)
                raise ValueError(f"{name}: {twice} stands there twice; take one out")
        return self

    @model_validator(mode="after")
    def _every_regime_is_a_variant_of_its_own(self) -> Self:
        for name in self.regimes:
            if base_method(name) == name or name in self.all_variants:
                raise ValueError(f"regimes: {name} is also the name of a method or variant; expected <method>+<regime>")
        return self

    @model_validator(mode="after")
    def _every_pair_is_listed(self) -> Self:
        if self.encoder_pairs != list(self.pairs):
            raise ValueError(f"encoder_pairs: expected the names of grid.pairs in their order, {list(self.pairs)}")
        if unknown := set(self.larger_pairs) - set(self.pairs):
            raise ValueError(f"larger_pairs: {min(unknown)} is none of grid.pairs; take it out")
        variants = [*self.regimes, *(name for names in self.variants.values() for name in names)]
        if twice := {name.partition("+")[2] for name in variants} & set(self.pairs):
            raise ValueError(f"pairs: {min(twice)} is also the name of a variant; rename one")
        return self

    @model_validator(mode="after")
    def _seeds_have_names_of_their_own(self) -> Self:
        for names in ([*self.all_variants, *self.encoder_variants], [f"x+{pair}" for pair in self.pairs]):
            if taken := [name for name in names if seed_apart(name)[1]]:
                raise ValueError(f"{taken[0].removeprefix('x+')}: is named like a set of grid.seeds; rename it")
        return self

    @model_validator(mode="after")
    def _every_variant_is_listed(self) -> Self:
        of_families = [variant for family in self.variants.values() for variant in family]
        if [*self.all_variants, *self.encoder_variants] != of_families:
            raise ValueError("all_variants and encoder_variants: expected together those of grid.variants in their "
                             f"order, {of_families}")
        return self


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


class Params(Section):
    """All of `params.yaml`."""

    seed: Seed
    compute: Compute
    data: Data
    encode: Encode
    heads: Heads
    experts: Experts
    encoder_experts: EncoderExperts
    grid: Grid
    select: Select
    distill: Distill
    evaluate: Evaluate
    transfer: Transfer

    @property
    def encoders(self) -> list[str]:
        """Names of all encoders that the stages use, each once."""
        of_pairs = [name for pair in self.grid.pairs.values() for name in (pair.image_encoder, pair.text_encoder)]
        return list(dict.fromkeys([self.encode.image_encoder, self.encode.text_encoder, *self.transfer.architectures,
                                   *of_pairs]))

    def with_pair(self, name: str) -> "Params":
        """Return these parameters with a further pair of encoders, by its name, in the place of the first."""
        return self.model_copy(update={"encode": self.encode.model_copy(update=dict(self.grid.pairs[name]))})

    @model_validator(mode="after")
    def _coresets_have_rates(self) -> Self:
        for name in ("lr_img", "lr_txt"):
            missing = set(self.grid.coresets) - set(getattr(self.select, name))
            if missing:
                raise ValueError(f"select.{name} lacks {sorted(missing)}, which grid.coresets asks for; add a rate")
        return self

    @model_validator(mode="after")
    def _students_are_of_methods(self) -> Self:
        if unknown := sorted(set(self.evaluate.methods) - set(self.distill.methods)):
            raise ValueError(f"evaluate.methods has {unknown}, which distill.methods has not; expected some of "
                             f"{sorted(self.distill.methods)}")
        return self

    @model_validator(mode="after")
    def _heads_drop_alike(self) -> Self:
        if self.encoder_experts.head_dropout != self.heads.dropout:
            raise ValueError(f"encoder_experts.head_dropout is {self.encoder_experts.head_dropout:g}, but "
                             f"heads.dropout is {self.heads.dropout:g}; give both the same, or leave both out")
        return self

    def check_sizes(self, images: int, pairs: int) -> None:
        """Check what these parameters ask of a training set of so many images, and pairs of image and caption.

        Raises:
            ValueError: sets are larger than it or too small to learn, experts have too few snapshots, or cells build
                on sets that no cell makes; the message says what would fit.
        """
        if problems := [*self._unfit_budgets(images), *self._missing_snapshots(pairs), *self._missing_sets()]:
            raise ValueError("\n  ".join(["params.yaml does not fit the data set:", *problems]))

    def _unfit_budgets(self, images: int) -> Iterator[str]:
        grid = self.grid
        budgets = {"grid.budgets": grid.budgets,
                   "grid.variants_budget": [grid.variants_budget] * bool(grid.all_variants or grid.encoder_variants),
                   "grid.regime_budgets": grid.regime_budgets * bool(grid.regimes),
                   "grid.pair_budgets": grid.pair_budgets}  # those of grid.seed_budgets are of grid.budgets
        learned = (grid.distilled or grid.encoder_distilled or grid.all_variants or grid.encoder_variants
                   or grid.regimes or grid.pair_distilled or grid.pair_encoder_distilled)
        for key, values in budgets.items():
            for budget in values:
                if budget > images:
                    yield (f"{key}: {budget} is more than the {images} training images, of which a set has a pair "
                           f"each; take {images} at most")
                if learned and budget < LEAST_PAIRS:
                    yield (f"{key}: {budget} leaves a distilled set a single pair, as a learned similarity counts for "
                           f"one; take {LEAST_PAIRS} at least")

    def _missing_snapshots(self, pairs: int) -> Iterator[str]:
        for section, needed in self.needed_snapshots().items():
            experts: Experts = getattr(self, section)
            steps, last = experts.num_steps(pairs), experts.num_snapshots(pairs) - 1
            if last < needed:
                fewer = f"lower {section}.snapshots_every to {steps // needed}, or " if 0 < needed <= steps else ""
                epochs = -(-needed * experts.steps_between_snapshots(pairs) // experts.steps_per_epoch(pairs))
                yield (f"{section}: {steps} steps on {pairs} pairs give snapshots 0 to {last}, but distill needs "
                       f"snapshot {needed} (max_start - 1 + expert_span); {fewer}raise {section}.epochs to {epochs}")

    def needed_snapshots(self) -> dict[str, int]:
        """Return the last snapshot that a distillation of the grid asks for, of experts that are trained here: 7 for
        `max_start` 3 and `expert_span` 5. By section, `experts` or `encoder_experts`; none where no cell matches them.
        """
        grid = self.grid
        cells = {"experts": [*_cells(grid.distilled, grid.budgets), *_cells(grid.all_variants, [grid.variants_budget]),
                             *_cells(grid.regimes, grid.regime_budgets), *grid.pair_cells(grid.pair_distilled)],
                 "encoder_experts": [*_cells(grid.encoder_distilled, grid.budgets),
                                     *_cells(grid.encoder_variants, [grid.variants_budget]),
                                     *grid.pair_cells(grid.pair_encoder_distilled)]}
        needed = {section: [found.max_start - 1 + found.expert_span for found in map(self.distill.settings, names)
                            if not found.import_from] for section, names in cells.items()}
        return {section: max(last) for section, last in needed.items()
                if last and not getattr(self, section).import_from}

    def _missing_sets(self) -> Iterator[str]:
        """What stages `embed`, `transfer` and `evaluate` read that no other stage writes."""
        grid = self.grid
        if alone := [budget for budget in grid.compared_budgets if budget not in grid.budgets]:
            yield f"grid.compared_budgets: no set has {alone[0]} pairs; take some of grid.budgets, {grid.budgets}"
        if grid.compared_budgets and "random" not in grid.coresets:
            yield ("grid.compared_budgets: sets are compared with random pairs, which grid.coresets lacks; add random "
                   "there, or compare no budget")
        if alone := [budget for budget in grid.seed_budgets if budget not in grid.budgets]:
            yield (f"grid.seed_budgets: no set has {alone[0]} pairs that further ones could stand beside; take some of "
                   f"grid.budgets, {grid.budgets}")
        if alone := [budget for budget in grid.regime_seed_budgets if budget not in grid.regime_budgets]:
            yield (f"grid.regime_seed_budgets: no regime's set has {alone[0]} pairs that further ones could stand "
                   f"beside; take some of grid.regime_budgets, {grid.regime_budgets}")
        if missing := [coreset for coreset in grid.encoder_coresets if coreset not in grid.coresets]:
            yield f"grid.encoder_coresets: grid.coresets has no {missing[0]}; add it there"
        if grid.encoder_variants and not grid.encoder_distilled:
            yield (f"grid.encoder_distilled: is empty, so no stage trains the experts that {grid.encoder_variants[0]} "
                   "is distilled from; add its method there, or empty grid.encoder_variants")


LEAST_PAIRS = 3
"""Of a budget that is distilled."""


def _cells(methods: list[str], budgets: list[int]) -> list[str]:
    return [f"{method}-{budget}" for method in methods for budget in budgets]


SHOWN_PROBLEMS, SHOWN_KEY = 40, 200
"""Lines of an error, and signs of a key in it."""
YAML_BYTES, YAML_VALUES, YAML_DEPTH = 2**20, 100_000, 50
"""What a YAML file may have: bytes; values, those of an alias counted again wherever it stands; levels. The largest
dvc.lock has a quarter of a megabyte and 20,000 values."""


def read_yaml(path: Path) -> Any:
    """Parse a YAML 1.2 file, with DVC's own parser, after its size was looked at.

    Raises:
        ValueError: the file is missing, too large or not YAML; the message names the line.
    """
    try:
        if (size := path.stat().st_size) > YAML_BYTES or not path.is_file():
            raise ValueError(f"{path}: has {size:,} bytes, expected a file of at most {YAML_BYTES:,}. Put one there")
        try:
            text = path.read_text("utf-8-sig")
            _check_size(text)
            return YAML(typ="safe").load(text)
        except (ValueError, TypeError) as error:  # also a number of 5,000 digits, or a thirteenth month
            raise ValueError(f"{path}: expected YAML, {error}") from error
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such file. Run in the repository's folder") from error
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise ValueError(f"{path}{line}: expected YAML, {getattr(error, 'problem', None) or error}") from error


def _check_size(text: str) -> None:
    """Raise `ValueError` if a text has too many levels or values, before anything is made of it."""
    values, depth = 0, 0
    begun: list[Any] = []
    sizes: dict[Any, int] = {}
    for event in YAML(typ="safe").parse(text):
        if isinstance(event, AliasEvent):  # one that stands inside of what it names has no end
            values += sizes.get(event.anchor, 0 if event.anchor not in dict(begun) else YAML_VALUES)
        elif isinstance(event, CollectionStartEvent):
            depth += 1
            begun.append((event.anchor, values))
        elif isinstance(event, CollectionEndEvent):
            depth -= 1
            anchor, before = begun.pop()
            sizes[anchor] = values - before
        values += 1
        if values > YAML_VALUES or depth > YAML_DEPTH:
            raise ValueError(f"with at most {YAML_VALUES:,} values, those of an alias counted wherever it stands, and "
                             f"{YAML_DEPTH} levels; line {event.start_mark.line + 1} has more. Take out aliases")


def read_params(path: Path) -> Params:
    """Read and check `params.yaml`.

    Raises:
        ValueError: the file is missing or not YAML, or a key is unknown, absent or of the wrong type or range;
            the message lists every such key with the value found and the rule it breaks.
    """
    return validated(Params, read_yaml(path), str(path))


def validated(model: type[Model], content: Any, origin: str) -> Model:
    """Return parsed parameters as the typed class of a pipeline; `origin` says in messages where they come from.

    Raises:
        ValueError: as `read_params`.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise ValueError(explain(origin, error)) from error


def explain(origin: Path | str, error: ValidationError) -> str:
    """Return a message that lists every parameter to mend, with the value found and the rule it breaks."""
    lines = [f"{origin}: {error.error_count()} parameter(s) to mend"]
    for problem in error.errors(include_url=False)[:SHOWN_PROBLEMS]:
        key = ".".join(str(part) for part in problem["loc"] if part not in KINDS_OF_DATA) or "(the whole file)"
        key = "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in key[:SHOWN_KEY])
        told = problem["type"] == "missing" or isinstance(problem["input"], dict)
        found = "" if told else f" (found {quoted(problem['input'])})"
        lines.append(f"  {key}: {problem['msg']}{found}")
    if error.error_count() > SHOWN_PROBLEMS:
        lines.append(f"  and {error.error_count() - SHOWN_PROBLEMS} more")
    return "\n".join(lines)
