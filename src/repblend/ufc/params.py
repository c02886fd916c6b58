"""Parameters of the unimodal pipeline (UFC), read once at the edge into frozen, typed sections.

A section is a recipe: the function that follows it takes it whole. Whatever the released scripts do that a reader
would not expect from the paper has a name here: the iterate that is kept, the layer that is left out, the JPEG.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from repblend.params import Count, Fraction, Positive, PositiveReal, Section, explain, optional, read_yaml

DatasetName = Literal["digits", "cifar10", "cifar100", "tiny-imagenet", "imagenet"]
LabelKind = Literal["static", "dynamic"]
Iterate = Literal["last-evaluated", "last", "best"]
Quantisation = Literal["jpeg", "png", "tensor"]


class UfcCompute(Section):
    """How numbers are computed. These change the last bits of results, so they are parameters."""

    threads: Positive
    """CPU threads of every tensor operation."""
    device: Literal["cpu", "cuda"] = optional("cpu")
    """Where networks run. Random numbers are drawn on the CPU in either case."""


class UfcData(Section):
    """Which images, and what is held out."""

    name: DatasetName
    image_size: Positive
    """Height and width in pixels."""
    num_val: Positive
    """Images held out of the training set to choose the best epoch on: the same number of every class."""
    num_test: Positive | None = optional(None)
    """Test images, for a set that brings no split of its own (digits); null for the others."""
    folder: str | None = optional(None)
    """Where the official archives were unpacked; null for digits, which come with scikit-learn."""

    @model_validator(mode="after")
    def _digits_are_cut_here(self) -> Self:
        if (self.num_test is None) == (self.name == "digits"):
            raise ValueError("give num_test with 'digits', and null with a set that has a test split")
        if (self.folder is None) != (self.name == "digits"):
            raise ValueError("give folder with every set but 'digits'")
        return self


class Augmentation(Section):
    """What training sees of an image; the released recipes pad by 4 pixels and flip half of the images."""

    crop_padding: Count
    """Black pixels around an image before it is cropped to its size again."""
    flip: Fraction
    """Chance of a left-right flip."""


class Teachers(Section):
    """The M networks that compensators are made with, and how they are trained ("squeeze")."""

    architectures: Annotated[list[str], Field(min_length=1)]
    """Names in `repblend.ufc.networks`, in the order of the slots they fill."""
    weights: Literal["trained", "torchvision"] = optional("trained")
    """Train them by the recipe below, or take torchvision's ImageNet weights (`IMAGENET1K_V1`)."""
    epochs: Positive
    batch_size: Positive
    lr: PositiveReal
    """Of SGD at the start; lowered to zero along half a cosine, epoch by epoch."""
    momentum: Fraction
    weight_decay: Annotated[float, Field(ge=0)]
    augmentation: Augmentation
    checkpoint_every: Positive
    """Epochs between two checkpoints."""


class Generation(Section):
    """The compensators: one image-sized tensor per architecture and image index, added to an image of each class."""

    iterations: Positive
    lr: PositiveReal
    """Of Adam at the start; lowered to zero along half a cosine."""
    betas: Annotated[list[Fraction], Field(min_length=2, max_length=2)] = optional([0.5, 0.9])
    """Of Adam."""
    lambda_bn: Annotated[float, Field(ge=0)]
    """Weight of the BatchNorm statistics in the objective (released option `--r-bn`)."""
    first_layer_weight: PositiveReal = optional(10.0)
    """Of the first BatchNorm layer among them (released option `--first-bn-multiplier`)."""
    skipped_layers: dict[str, list[Count]] = optional({})
    """Architecture -> BatchNorm layers, counted from 0 in the order of the network's modules, that are left out.
    The CIFAR variant of EfficientNet-B0 has one that never runs, layer 1."""
    transform: Literal["shift", "crop-flip-shift"]
    """T: the released CIFAR script shifts; the ImageNet script crops at random, flips and shifts."""
    max_shift: Count
    """Largest circular shift in pixels, in both directions (released option `--jitter`)."""
    classes_per_compensator: Positive | None = optional(None)
    """Classes that share a compensator; null for all. The released scripts share it within `--batch-size` classes."""
    compensators_at_once: Positive
    """Compensators that pass through the teacher together; statistics stay those of each."""
    images_at_once: Positive | None = optional(None)
    """Images with a graph in memory at once; null for all. Fewer cost a second forward pass, for the same gradient."""
    iterate: Iterate = optional("last-evaluated")
    """Which compensator is kept: the one that the last loss was measured at, before the last step (as released); the
    one after it; or the one with the lowest loss."""
    quantisation: Quantisation = optional("jpeg")
    """How integrated images are stored: 8-bit JPEG (as released), 8-bit PNG (exact), or 32-bit tensors."""
    jpeg_quality: Annotated[int, Field(ge=1, le=95)] = optional(75)
    """Pillow's quality; the released scripts leave its default, 75."""
    rounding: Literal["down", "nearest"] = optional("down")
    """How pixels become whole numbers; the released scripts cut the fraction off."""
    checkpoint_every: Positive
    """Iterations between two checkpoints."""


class EpochsOfKind(Section):
    """Passes over the integrated images, by the kind of labels."""

    static: Positive
    dynamic: Positive


class Validation(Section):
    """Students that train on a set and are tested on real images."""

    labels: Annotated[list[LabelKind], Field(min_length=1)]
    """Kinds of labels: `static`, one stored per image; `dynamic`, the teachers' on every augmented batch."""
    students: Annotated[list[str], Field(min_length=1)]
    """Names in `repblend.ufc.networks`."""
    epochs: EpochsOfKind
    """The paper divides epochs by M+1, since there are M+1 times more images; its scripts do so for dynamic labels."""
    batch_size: Positive
    lr: PositiveReal
    """Of AdamW at the start; lowered to zero along half a cosine, epoch by epoch."""
    weight_decay: Annotated[float, Field(ge=0)]
    temperature: PositiveReal
    """Of both softmaxes in the KL divergence."""
    mixup_alpha: PositiveReal
    """Images of a batch are mixed with a weight drawn from Beta(alpha, alpha)."""
    augmentation: Augmentation
    score_every: Positive
    """Students are scored after epochs 0, n, 2n, ... and after the last."""
    num_seeds: Annotated[int, Field(ge=2)]
    """Students per set; one alone has no standard deviation."""
    checkpoint_every: Positive = optional(50)
    """Epochs between two checkpoints of a student."""


class UfcParams(Section):
    """All parameters of a UFC profile."""

    seed: int
    compute: UfcCompute
    data: UfcData
    teachers: Teachers
    budgets: Annotated[list[Positive], Field(min_length=1)]
    """Images per class (ipc) that compensators and images together may take."""
    generation: Generation
    validation: Validation

    @model_validator(mode="after")
    def _imagenet_has_ready_made_teachers(self) -> Self:
        if self.data.name == "imagenet" and self.teachers.weights != "torchvision":
            raise ValueError("teachers.weights: 'imagenet' takes torchvision's weights; set it to 'torchvision'")
        return self

    @model_validator(mode="after")
    def _skips_layers_of_teachers(self) -> Self:
        if unknown := set(self.generation.skipped_layers) - set(self.teachers.architectures):
            raise ValueError(f"generation.skipped_layers: {sorted(unknown)} are not in teachers.architectures; "
                             "take them out or add the teachers")
        return self


def parse_ufc_params(content: Any, path: Path) -> UfcParams:
    """Check parameters that were read already; `path` is named in errors.

    Raises:
        ValueError: a key is unknown, absent or of the wrong type or range; every such key is listed.
    """
    try:
        return UfcParams.model_validate(content)
    except ValidationError as error:
        raise ValueError(explain(path, error)) from error


def read_ufc_params(path: Path) -> UfcParams:
    """Read and check the parameters of a UFC profile.

    Raises:
        ValueError: the file is missing or not YAML, or as `parse_ufc_params`.
    """
    return parse_ufc_params(read_yaml(path), path)
