"""How much a stage computes and writes, counted from the parameters: multiply-accumulates and bytes.

Work is only ever compared with work of the same stage at other parameters (`repro.plan_times`), so what all of them
have in common cancels out. Bytes are exact up to the headers of files.
"""

from collections.abc import Callable
from dataclasses import dataclass

from repblend.params import DistillSettings, Experts, Params, StudentSchedule
from repblend.stages.cell_rules import schedule_of, trains_encoder
from repblend.stages.context import Cell
from repblend.store import JSON
from repro.plan_encoders import TOKENS_PER_CAPTION, ImageCost, TextCost, image_cost, text_cost

TRAINING_PASSES = 3
"""A training step computes about three times what a forward pass does."""
MATCHING_PASSES = 9
"""A matched inner step: a training step, and the derivative of one."""
FLOAT_BYTES = 4
FEATURE_BYTES = {"float32": FLOAT_BYTES, "float16": 2}
"""By `encode.storage`, which is for the features of training images and captions."""
NUM_CHANNELS = 3


@dataclass(frozen=True)
class Counts:
    """Images and captions of the splits."""

    train_images: int
    train_captions: int
    val_images: int
    val_captions: int
    test_images: int
    test_captions: int

    @classmethod
    def of(cls, counts: JSON) -> "Counts":
        """Read what `metrics/prepare.json` has under `counts`."""
        return cls(*(counts[split][kind] for split in ("train", "val", "test") for kind in ("images", "captions")))


@dataclass(frozen=True)
class Workload:
    """The parameters of a pipeline, the size of its dataset, and what its encoders cost."""

    params: Params
    counts: Counts

    @property
    def image(self) -> ImageCost:
        return image_cost(self.params.encode.image_encoder)

    @property
    def text(self) -> TextCost:
        return text_cost(self.params.encode.text_encoder)

    @property
    def image_macs(self) -> float:
        """Of one image through the encoder."""
        return self.image.macs_at(self.params.data.image_size)

    @property
    def head_parameters(self) -> int:
        """Of both projection heads: two linear layers and a normalisation each."""
        return _head(self.image.feature_dim, self.params.heads.width) + _head(
            self.text.feature_dim, self.params.heads.width)

    @property
    def encoder_student_parameters(self) -> int:
        """Of the whole image encoder and a text head as wide as its features."""
        return self.image.num_parameters + _head(self.text.feature_dim, self.image.feature_dim)


def _head(inputs: int, width: int) -> int:
    return inputs * width + width * width + 4 * width


def work(stage: str, cell: Cell | None, load: Workload) -> float:
    """Return the multiply-accumulates of a stage.

    Args:
        stage: the module that runs it, for example `distill`.

    Raises:
        ValueError: the cost of an encoder is not known.
    """
    return _WORK[stage](load, cell)


def _encode(load: Workload, cell: Cell | None) -> float:
    counts = load.counts
    images = counts.train_images * load.params.encode.views.num + counts.val_images + counts.test_images
    captions = counts.train_captions + counts.val_captions + counts.test_captions
    return images * load.image_macs + captions * TOKENS_PER_CAPTION * load.text.macs_per_token


def _experts(load: Workload, cell: Cell | None) -> float:
    experts = load.params.experts
    encoding = load.image_macs if experts.views == "fresh" else 0
    one_draw = encoding + TRAINING_PASSES * load.head_parameters
    return experts.num * experts.epochs * load.counts.train_captions * one_draw + _captions_of_experts(load, experts)


def _captions_of_experts(load: Workload, experts: Experts) -> float:
    """Of captions that experts encode in every batch, with the text encoder in training mode."""
    if experts.text_mode == "eval":
        return 0
    return experts.num * experts.epochs * load.counts.train_captions * TOKENS_PER_CAPTION * load.text.macs_per_token


def _encoder_experts(load: Workload, cell: Cell | None) -> float:
    experts, counts = load.params.encoder_experts, load.counts
    one = experts.epochs * counts.train_captions * TRAINING_PASSES * load.image_macs
    return (experts.num * (one + _encoder_scores(load, load.params.evaluate.full_data))
            + _captions_of_experts(load, experts))


def _select(load: Workload, cell: Cell | None) -> float:
    epochs = load.params.select.forgetting_epochs if cell.method == "forgetting" else load.params.select.warm_up.epochs
    return load.counts.train_captions * (1 if cell.method == "random" else
                                         epochs * TRAINING_PASSES * load.head_parameters)


def _distill(load: Workload, cell: Cell | None) -> float:
    settings = load.params.distill.settings(str(cell))
    per_iteration = (_matched_encoder if trains_encoder(cell, load.params) else _matched_heads)(load, cell, settings)
    validations = settings.iterations / settings.validate_every
    return (settings.iterations * per_iteration
            + validations * settings.validation_seeds * _one_student(load, cell, load.counts.val_images))


def _matched_heads(load: Workload, cell: Cell, settings: DistillSettings) -> float:
    """Each distinct image passes through the encoder once, forward and backward; the rest is in the heads."""
    draws = settings.segments * settings.inner_steps * settings.batch_size
    return min(cell.budget, draws) * TRAINING_PASSES * load.image_macs + draws * MATCHING_PASSES * load.head_parameters


def _matched_encoder(load: Workload, cell: Cell, settings: DistillSettings) -> float:
    return settings.segments * settings.inner_steps * settings.batch_size * MATCHING_PASSES * load.image_macs


def _evaluate(load: Workload, cell: Cell | None) -> float:
    return load.params.evaluate.num_seeds * _one_student(load, cell, load.counts.val_images + load.counts.test_images)


def _one_student(load: Workload, cell: Cell, num_scored: int) -> float:
    schedule = schedule_of(cell, load.params)
    if trains_encoder(cell, load.params):
        training = (schedule.epochs + 1) * cell.budget * TRAINING_PASSES * load.image_macs
        return training + (schedule.scored_intervals + 1) * num_scored * load.image_macs
    return (schedule.epochs + 1) * cell.budget * TRAINING_PASSES * load.head_parameters + _head_scores(load, schedule)


def _head_scores(load: Workload, schedule: StudentSchedule) -> float:
    counts = load.counts
    scores = counts.val_images * counts.val_captions + counts.test_images * counts.test_captions
    return (schedule.scored_intervals + 1) * scores * load.params.heads.width


def _encoder_scores(load: Workload, schedule: StudentSchedule) -> float:
    return (schedule.scored_intervals + 1) * (load.counts.val_images + load.counts.test_images) * load.image_macs


def _bounds(load: Workload, cell: Cell | None) -> float:
    schedule = load.params.evaluate.full_data
    training = (schedule.epochs + 1) * load.counts.train_captions * TRAINING_PASSES * load.head_parameters
    return load.params.evaluate.num_seeds * (training + _head_scores(load, schedule))


def _transfer(load: Workload, cell: Cell | None) -> float:
    """Other encoders encode or train, score, and so does the one that the set was distilled with."""
    return (1 + len(load.params.transfer.architectures)) * (
        _evaluate(load, cell) + (load.counts.val_images + load.counts.test_images) * load.image_macs)


_WORK: dict[str, Callable[[Workload, Cell | None], float]] = {
    "prepare": lambda load, cell: load.counts.train_images + load.counts.val_images + load.counts.test_images,
    "encode": _encode, "experts": _experts, "encoder-experts": _encoder_experts, "select": _select,
    "distill": _distill, "evaluate": _evaluate, "bounds": _bounds, "transfer": _transfer,
    "embed": lambda load, cell: load.params.experts.num * cell.budget * load.image_macs,
}


def output_bytes(stage: str, cell: Cell | None, load: Workload) -> float | None:
    """Return the bytes of a stage's large outputs, or None where they are not counted (small files, metrics)."""
    counts, params, text_dim = load.counts, load.params, load.text.feature_dim
    match stage:
        case "encode":
            training = (counts.train_images * params.encode.views.num, counts.train_captions)
            others = (counts.val_images + counts.test_images, counts.val_captions + counts.test_captions)
            return sum(bytes_each * (images * load.image.feature_dim + captions * text_dim)
                       for bytes_each, (images, captions) in ((FEATURE_BYTES[params.encode.storage], training),
                                                              (FLOAT_BYTES, others)))
        case "experts":
            return FLOAT_BYTES * params.experts.num * _snapshots(params.experts, counts) * load.head_parameters
        case "encoder-experts":
            settings = params.encoder_experts
            return FLOAT_BYTES * settings.num * _snapshots(settings, counts) * load.encoder_student_parameters
        case "distill" | "select":
            return FLOAT_BYTES * cell.budget * (NUM_CHANNELS * params.data.image_size ** 2 + text_dim)
    return None


def _snapshots(experts: Experts, counts: Counts) -> int:
    steps = experts.epochs * (counts.train_captions // experts.batch_size)
    return 1 + steps // experts.steps_between_snapshots(counts.train_captions)
