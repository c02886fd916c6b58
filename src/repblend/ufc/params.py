"""Parameters of the unimodal pipeline (UFC), read once at the edge into frozen, typed sections.

A section is a recipe: the function that follows it takes it whole. Whatever the released scripts do that a reader
would not expect from the paper has a name here: the iterate that is kept, the layer that is left out, the JPEG.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from repblend.params.experts import ImportFrom
from repblend.params.reading import read_yaml, validated
from repblend.sections import Count, FilePath, Fraction, ImageSize, Name, Positive, PositiveReal, Section, Seed

DatasetName = Literal["digits", "glyphs", "cifar10", "cifar100", "tiny-imagenet", "imagenet"]
PACKAGED = ("digits", "glyphs")
"""Sets that come as packages of Python: nothing to fetch."""
LabelKind = Literal["static", "dynamic"]
Iterate = Literal["last-evaluated", "last", "best"]
Quantisation = Literal["jpeg", "png"]


class UfcCompute(Section):
    """How numbers are computed. These change the last bits of results, so they are parameters."""

    threads: Positive
    """CPU threads of every tensor operation."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where networks run. Random numbers are drawn on the CPU in either case."""
    arithmetic: Literal["float32", "tf32-convolutions", "tf32"] = "float32"
    """How a GPU multiplies: float32 as it is, or with the factors rounded to ten bits, in convolutions alone, as
    PyTorch does by default and so the release, or in all products. On a CPU nothing is rounded."""


class UfcData(Section):
    """Which images, and what is held out."""

    name: DatasetName
    image_size: ImageSize
    """Height and width in pixels."""
    num_val: Positive
    """Images held out of the training set to choose the best epoch on: the same number of every class. Of the glyphs,
    as many as their held-out typefaces have."""
    training_images: Literal["without-val", "all"] = "without-val"
    """Whether teachers and sets leave the held-out images alone, or take all of the training set, as released: then the
    best epoch is chosen on images that the teachers, and some of the sets, have seen."""
    num_test: Positive | None = None
    """Test images, for a set that comes as a package (`PACKAGED`); null for the others, which bring their split."""
    folder: FilePath | None = None
    """Where the official archives were unpacked; null for a set that comes as a package."""
    initial_from: ImportFrom | None = None
    """Released real images to start from in place of a draw: a folder of `tensor_0.pt`, `tensor_1.pt` and so on, or one
    that has a folder of images per class."""

    @model_validator(mode="after")
    def _packaged_sets_are_cut_here(self) -> Self:
        if (self.num_test is None) == (self.name in PACKAGED):
            raise ValueError(f"give num_test with {' and '.join(PACKAGED)}, and null with a set that has a test split")
        if (self.folder is None) != (self.name in PACKAGED):
            raise ValueError(f"give folder with every set but {' and '.join(PACKAGED)}")
        if self.name == "glyphs" and self.training_images == "all":
            raise ValueError("training_images: the glyphs' held-out typefaces stay apart; set it to 'without-val'")
        return self


class Augmentation(Section):
    """What training sees of an image; the released recipes pad by 4 pixels and flip half of the images."""

    crop: Literal["padded", "resized"] = "padded"
    """Of the size of an image after padding it, as released; or a random share of 8 to 100 % of it, resized, as SRe2L
    validates on ImageNet, for which no script is released."""
    crop_padding: Count
    """Black pixels around an image before it is cropped to its size again."""
    flip: Fraction
    """Chance of a left-right flip."""


class Teachers(Section):
    """The M networks that compensators are made with, and how they are trained ("squeeze")."""

    architectures: Annotated[list[Name], Field(min_length=1)]
    """Names in `repblend.ufc.networks`, in the order of the slots they fill."""
    weights: Literal["trained", "torchvision"] = "trained"
    """Train them by the recipe below, or take torchvision's ImageNet weights (`IMAGENET1K_V1`)."""
    import_from: ImportFrom | None = None
    """Released checkpoints in place of training, `resnet18_E200/ckpt.pth` and so on; or another workspace, whose
    `teachers/` are taken."""
    epochs: Positive
    batch_size: Positive
    lr: PositiveReal
    """Of SGD at the start; lowered to zero along half a cosine, epoch by epoch."""
    momentum: Fraction
    weight_decay: Annotated[float, Field(ge=0)]
    augmentation: Augmentation
    std: Annotated[list[PositiveReal], Field(min_length=3, max_length=3)] | None = None
    """Standard deviations per channel that images are divided by while teachers train, in place of the data set's.
    Released: CIFAR-10's teachers come from code with others than everything that follows has, so that they see images
    a fifth to a third larger than they learned from."""
    checkpoint_every: Positive
    """Epochs between two checkpoints."""


class Generation(Section):
    """The compensators: one image-sized tensor per architecture and image index, added to an image of each class."""

    iterations: Positive
    lr: PositiveReal
    """Of Adam at the start; lowered to zero along half a cosine."""
    betas: Annotated[list[Fraction], Field(min_length=2, max_length=2)] = Field(default=[0.5, 0.9])
    """Of Adam."""
    lambda_bn: Annotated[float, Field(ge=0)]
    """Weight of the BatchNorm statistics in the objective (released option `--r-bn`)."""
    first_layer_weight: PositiveReal = 10.0
    """Of the first BatchNorm layer among them (released option `--first-bn-multiplier`)."""
    skipped_layers: dict[Name, list[Count]] = Field(default_factory=dict)
    """Architecture -> BatchNorm layers, counted from 0 in the order of the network's modules, that are left out.
    The CIFAR variant of EfficientNet-B0 has one that never runs, layer 1."""
    transform: Literal["shift", "crop-flip-shift"]
    """T: the released CIFAR script shifts; the ImageNet script crops at random, flips and shifts."""
    max_shift: Count
    """Largest circular shift in pixels, in both directions (released option `--jitter`)."""
    compensators_at_once: Positive
    """Compensators that pass through the teacher together; statistics stay those of each."""
    images_at_once: Positive | None = None
    """Images with a graph in memory at once; null for all. Fewer cost a second forward pass, for the same gradient."""
    iterate: Iterate = "last-evaluated"
    """Which compensator is kept: the one that the last loss was measured at, before the last step (as released); the
    one after it; or the one with the lowest loss."""
    quantisation: Quantisation = "jpeg"
    """How integrated images are stored: 8-bit JPEG of quality 75 (as released), or 8-bit PNG (exact)."""
    rounding: Literal["released", "down"] = "down"
    """How pixels become whole numbers, with the fraction cut off: `released` after normalising and back, which makes a
    fifth of a real image's values one less, `down` with the tolerance that brings them back."""
    import_from: ImportFrom | None = None
    """A set that the release's own code wrote, `new000/class000_id000.jpg` and so on, in place of UFC's: one budget."""
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
    students: Annotated[list[Name], Field(min_length=1)]
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
    last_image: Literal["skip", "train"] = "skip"
    """What becomes of a last batch of one image, which has no variance; released students train on it."""
    num_seeds: Positive
    """Students per set; one alone has no standard deviation."""
    checkpoint_every: Positive = 50
    """Epochs between two checkpoints of a student."""


class UfcParams(Section):
    """All parameters of a UFC profile."""

    seed: Seed
    compute: UfcCompute
    data: UfcData
    teachers: Teachers
    budgets: Annotated[list[Positive], Field(min_length=1)]
    """Images per class (ipc) that compensators and images together may take."""
    seeds: list[Positive] = Field(default_factory=list)
    """Further draws of real images, of UFC's set and of those it is compared with: each takes as many images of a class
    as the largest budget, none of which another has."""
    generation: Generation
    validation: Validation

    @model_validator(mode="after")
    def _imported_files_fit(self) -> Self:
        if self.data.name == "imagenet" and self.teachers.weights != "torchvision":
            raise ValueError("teachers.weights: 'imagenet' takes torchvision's weights; set it to 'torchvision'")
        if self.teachers.import_from and self.teachers.weights != "trained":
            raise ValueError("teachers.import_from: torchvision's weights are ready-made; give one of the two")
        if self.generation.import_from and len(self.budgets) > 1:
            raise ValueError(f"generation.import_from: a set is of one budget, found {self.budgets}; give its own")
        if self.seeds and (self.generation.import_from or self.data.initial_from):
            raise ValueError(f"seeds: released images are one draw, found {self.seeds}; leave the list empty")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: {self.seeds} has one twice; name each draw once")
        return self

    @property
    def num_draws(self) -> int:
        """Draws of real images, the first one counted, that have places among a class's images."""
        return 1 + max(self.seeds, default=0)

    @model_validator(mode="after")
    def _skips_layers_of_teachers(self) -> Self:
        if unknown := set(self.generation.skipped_layers) - set(self.teachers.architectures):
            raise ValueError(f"generation.skipped_layers: {sorted(unknown)} are not in teachers.architectures; "
                             "take them out or add the teachers")
        return self


def read_ufc_params(path: Path) -> UfcParams:
    """Read and check the parameters of a UFC profile; raises `ValueError` as `repblend.params.read_params`."""
    return validated(UfcParams, read_yaml(path), str(path))
