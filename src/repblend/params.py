"""`params.yaml`, read once at the edge into frozen, typed classes: everything that can change a number.

Parsed by the YAML 1.2 rules that DVC uses (`1e-3` is a number, `on` is text). Types are strict: a string where a
number is expected is an error, never converted, and so is a key that no field knows. Library functions take single
values from here, not these objects.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError

from repblend.data_params import KINDS_OF_DATA, Data
from repblend.sections import Count, Fraction, Positive, PositiveReal, Section
from repblend.sections import optional as optional

Model = TypeVar("Model", bound=Section)
AugmentOp = Literal["Identity", "AutoContrast", "Equalize", "Brightness", "Sharpness", "ShearX", "ShearY", "TranslateX",
                    "TranslateY", "Rotate"]
LossName = Literal["kl", "bce", "wbce", "infonce", "cwcl", "mse"]


class Compute(Section):
    """How numbers are computed. These change the last bits of results, so they are parameters."""

    threads: Positive
    """CPU threads of every tensor operation; the order of sums, and so the last bits, depend on it."""
    encoder_chunk: Positive
    """Images that pass through an image encoder at once."""
    device: Literal["cpu", "cuda"] = optional("cpu")
    """Where encoders run and heads are trained and matched; cuda is the first GPU. Random draws, coresets, ranks and
    measures of collapse stay on the CPU. A GPU has other last bits than a CPU, and than a GPU of another kind."""
    tf32: bool = optional(False)
    """Let a GPU round the factors of its products to ten bits: faster, less precise."""


class RandAugment(Section):
    """Random operations on a view after its crop and flip (PAPER.md section 3)."""

    num_ops: Positive
    """Operations drawn per view, each applied with probability one half."""
    magnitude: Annotated[int, Field(ge=0, le=10)]
    ops: Annotated[list[AugmentOp], Field(min_length=1)]
    """What is drawn from, with replacement. RepBlend's list lacks AutoContrast, that of LoRS and MTT-VL has it."""


class Views(Section):
    """Augmented views of the training images (DESIGN section 6)."""

    num: Positive
    """Views per training image that are encoded once. View 0 is the image itself."""
    crop_scale_min: Annotated[float, Field(gt=0, le=1)]
    """Smallest share of the image's area that a random crop keeps."""
    flip: Fraction
    """Chance of a left-right flip."""
    crop: Literal["square", "published"] = optional("square")
    """Crop the square image, bilinear; or, as published, the image as it is, bicubic."""
    rand_augment: RandAugment | None = optional(None)
    """Only with published crops; null for none."""

    @model_validator(mode="after")
    def _operations_need_a_published_crop(self) -> Self:
        if self.rand_augment and self.crop == "square":
            raise ValueError("rand_augment works on published crops; set crop: published, or rand_augment: null")
        return self


class Encode(Section):
    """Frozen encoders, by their name in `repblend.encoders.registry`, and the feature caches made with them."""

    image_encoder: str
    text_encoder: str
    views: Views
    storage: Literal["float32", "float16"] = optional("float32")
    """Type in which features of training images and captions are kept; float16 takes half the disk."""


class Heads(Section):
    """Projection heads of both modalities."""

    width: Positive
    """Output and hidden width of both heads."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = optional(0.0)
    """Share of the hidden units that are dropped wherever heads are trained: experts, students, matching, and the
    warm-up of coresets. Released: 0.1."""


class ImportFrom(Section):
    """What a stage takes from files of the official release instead of computing it."""

    path: str
    """A folder of expert buffers, or a file of a distilled set; relative to the repository, or absolute."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = optional(None)
    """SHA-256 of what is there. The stage names it where it is left out: without it, other files would go unnoticed."""


class Experts(Section):
    """Expert trajectories (PAPER.md section 5.4)."""

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
    text_mode: Literal["eval", "train"] = optional("eval")
    """How the frozen text encoder computes while experts train. Released: train, its own dropout drawn anew in every
    batch; all other text features come from evaluation mode. It then encodes every batch."""
    views: Literal["cached", "fresh"] = optional("cached")
    """Every draw shows one of `encode.views.num` views; or, as published, one that was never shown before."""
    import_from: ImportFrom | None = optional(None)
    """Where to take the first `num` trajectories from; nothing is trained, and the fields above say how they were."""
    cached_views: Count = optional(0)
    """A pair whose image is among this many last ones shows the view that it showed then. The released Flickr30K loader
    keeps 100 augmented images, so that captions of one image can share a view; which ones it keeps is this project's
    reading: the least recently shown leaves first, and an epoch starts with none."""

    def steps_between_snapshots(self, num_pairs: int) -> int:
        """Return `snapshots_every` in steps, for that many training pairs."""
        if self.snapshots_every == "epoch":
            return num_pairs // min(self.batch_size, num_pairs)
        return self.snapshots_every


class EncoderExperts(Experts):
    """Experts that train the whole image encoder and a text head."""

    head_dropout: Annotated[float, Field(ge=0, lt=1)] = optional(0.0)
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
    """How the synthetic set is updated (parity/README.md section 1.5)."""

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
    """One distillation: a cell of the grid (PAPER.md section 5.1)."""

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
    initial_images: Literal["plain", "augmented"] = optional("plain")
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
    initial_pairs: Literal["one-per-image", "any"] = optional("one-per-image")
    """Which random pairs the set starts from: one of every image, as all methods here, or any of the captions.
    Released: any, so that an image may come twice."""
    choose: Literal["best-validation", "best-test", "last"] = optional("best-validation")
    """Which of the validated iterations is the result. The paper does not say which enters its tables. The released
    code scores each on the test split; best-test is the best of these, chosen with the very split it is reported on."""
    dropout_masks: Literal["same", "different"] = optional("same")
    """Whether the second pass over the inner steps, which differentiates them, has the first one's dropout or draws its
    own. Released: different, so that its gradient is of other functions than those whose gradients were summed. Nothing
    changes for MTT-VL, which has one pass, or without dropout."""
    optimiser: OuterOptimiser
    encoder_graph: Literal["keep", "recompute"]
    """Keep the encoder's graph between encoding and pull-back, or compute it again to save memory."""
    validate_every: Positive
    """Iterations between two validations of the set; the best one on validation is the result."""
    validation_seeds: Positive
    """Students per validation."""
    checkpoint_every: Positive
    """Iterations between two checkpoints."""
    import_from: ImportFrom | None = optional(None)
    """Where to take the set from, as it is; nothing is distilled. For single cells."""


class Distill(Section):
    """Settings that all cells share, what a method changes, and what single cells change."""

    common: DistillSettings
    methods: dict[str, dict[str, Any]]
    """Method -> fields of `DistillSettings` that differ from the common ones."""
    cells: dict[str, dict[str, Any]]
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
        if cell not in self.cells:
            raise ValueError(f"distill.cells has no '{cell}'; add it (an empty mapping takes the common settings)")
        method = base_method(cell.rpartition("-")[0])
        if method not in self.methods:
            raise ValueError(f"distill.methods has no '{method}'; add it (an empty mapping takes the common settings)")
        changed = _merged(self.common.model_dump(), self.methods[method])
        return DistillSettings.model_validate(_merged(changed, self.cells[cell]))


def base_method(method: str) -> str:
    """Return the method of `<method>+<variant>`, or the method itself."""
    return method.partition("+")[0]


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    return base | {key: _merged(base[key], value) if isinstance(value, dict) and isinstance(base.get(key), dict)
                   else value for key, value in changes.items()}


class Grid(Section):
    """The cells that the whole pipeline runs: every method at every budget, and variants at one."""

    budgets: list[Positive]
    coresets: list[str]
    encoder_distilled: list[str]
    """Methods that match the whole image encoder."""
    distilled: list[str]
    """Methods that match both projection heads."""
    encoder_coresets: list[str]
    """Coresets that also train the students of `encoder_distilled`: the baselines of those."""
    compared_budgets: list[Positive]
    """Budgets at which embeddings, other encoders and other tasks are looked at."""
    variants: dict[str, list[str]]
    """What is varied -> variants `<method>+<variant>` of methods that match heads, set up in `distill.cells`."""
    all_variants: list[str]
    """The variants of all families: a matrix of the pipeline needs one list."""
    variants_budget: Positive

    @model_validator(mode="after")
    def _every_variant_is_listed(self) -> Self:
        of_families = [variant for family in self.variants.values() for variant in family]
        if self.all_variants != of_families:
            raise ValueError(f"all_variants: expected those of grid.variants in their order, {of_families}")
        return self


class Quickstart(Section):
    """The cells of the grid that `repro run` runs unless it is told to run all."""

    budgets: list[Positive]
    coresets: list[str]
    distilled: list[str]


class StudentSchedule(Section):
    """How long students train, and how often they are scored."""

    epochs: Positive
    """E: students train epochs 0 .. E, at a tenth of the learning rate from E // 2 + 1 on."""
    scored_intervals: Positive
    """Students are scored after epochs 0, E // n, 2 (E // n), ... and E."""


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
    lr_img: dict[str, PositiveReal]
    """Coreset method -> learning rate of its students' image head, tuned on validation."""
    lr_txt: dict[str, PositiveReal]


class Transfer(Section):
    """Students on other encoders and other tasks (the paper's Tables 4 and 5)."""

    architectures: list[str]
    """Image encoders that did not take part in the distillation, by their names in the registry."""
    num_icons: Positive
    """Images of the zero-shot retrieval task."""
    head_width: Literal["same", "image-features"] = optional("same")
    """Width of the heads on another image encoder: that of `heads.width`, or, as released heads have it, that of the
    encoder's features."""


class StudentRates(Section):
    """Learning rates of students."""

    lr_img: PositiveReal
    lr_txt: PositiveReal


class Evaluate(Section):
    """Students: heads trained on a set and scored by retrieval (PAPER.md section 6)."""

    num_seeds: Annotated[int, Field(ge=2)]
    """Students per set; one alone has no standard deviation."""
    batch_size: Positive
    momentum: Fraction
    weight_decay: Annotated[float, Field(ge=0)]
    temperature: PositiveReal
    """Of students, whatever the set was distilled with. Released: always 0.07."""
    protocol: Literal["held-out", "faithful", "last"] = optional("held-out")
    """The protocol that counts where one number is asked for: a student's epoch chosen on validation, on test (as
    released), or its last one. The first two are always measured and reported side by side."""
    candidates: Positive | None = optional(None)
    """A query's best candidates that keep their scores; null keeps all. Released: 128. No recall at 1, 5 or 10 depends
    on it unless fewer than 10 are kept."""
    batches: Literal["subsets", "partition"] = optional("subsets")
    """How students' batches are drawn: each a new random subset (as released, so that an epoch may miss pairs), or cut
    from one permutation per epoch, the last one filled up from its beginning."""
    distilled: StudentSchedule
    coresets: StudentSchedule
    full_data: StudentSchedule
    encoder_students: StudentSchedule
    """Students that train the whole image encoder."""
    encoder_coresets: StudentRates
    """Such students on a coreset, tuned on validation; a distilled set brings rates of its own."""


class Params(Section):
    """All of `params.yaml`."""

    seed: int
    compute: Compute
    data: Data
    encode: Encode
    heads: Heads
    experts: Experts
    encoder_experts: EncoderExperts
    grid: Grid
    quickstart: Quickstart
    select: Select
    distill: Distill
    evaluate: Evaluate
    transfer: Transfer

    @property
    def encoders(self) -> list[str]:
        """Names of all encoders that the stages use, each once."""
        return list(dict.fromkeys([self.encode.image_encoder, self.encode.text_encoder, *self.transfer.architectures]))

    @model_validator(mode="after")
    def _coresets_have_rates(self) -> Self:
        for name in ("lr_img", "lr_txt"):
            missing = set(self.grid.coresets) - set(getattr(self.select, name))
            if missing:
                raise ValueError(f"select.{name} lacks {sorted(missing)}, which grid.coresets asks for; add a rate")
        return self

    @model_validator(mode="after")
    def _heads_drop_alike(self) -> Self:
        if self.encoder_experts.head_dropout != self.heads.dropout:
            raise ValueError(f"encoder_experts.head_dropout is {self.encoder_experts.head_dropout:g}, but "
                             f"heads.dropout is {self.heads.dropout:g}; give both the same, or leave both out")
        return self

    @model_validator(mode="after")
    def _quickstart_is_part_of_the_grid(self) -> Self:
        for name in Quickstart.model_fields:
            extra = set(getattr(self.quickstart, name)) - set(getattr(self.grid, name))
            if extra:
                raise ValueError(f"quickstart.{name}: {sorted(extra)} is not in grid.{name}; add it there")
        return self


def read_yaml(path: Path) -> Any:
    """Parse a YAML 1.2 file, with DVC's own parser.

    Raises:
        ValueError: the file is missing or not YAML; the message names the line.
    """
    try:
        return YAML(typ="safe", pure=True).load(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such file. Run in the repository's folder") from error
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise ValueError(f"{path}, line {line}: expected YAML, {error.problem}") from error


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
    for problem in error.errors(include_url=False):
        key = ".".join(str(part) for part in problem["loc"] if part not in KINDS_OF_DATA) or "(the whole file)"
        told = problem["type"] == "missing" or isinstance(problem["input"], dict)
        found = "" if told else f" (found {problem['input']!r})"
        lines.append(f"  {key}: {problem['msg']}{found}")
    return "\n".join(lines)
