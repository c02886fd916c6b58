"""Sections of `params.yaml` up to trained experts: arithmetic, encoders and augmented views, heads, experts."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from repblend.sections import Count, EncoderName, FilePath, Fraction, Positive, PositiveReal, Section

AugmentOp = Literal["Identity", "AutoContrast", "AutoContrast-lors", "AutoContrast-mtt-vl", "Equalize", "Brightness",
                    "Sharpness", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"]


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
    """A pair whose image is among this many last ones shows the view that it showed then; the least recently shown
    leaves first, and an epoch starts with none. The Flickr30K loaders of RepBlend and LoRS keep 100 augmented images in
    each of four processes, so that captions of one image can share a view; MTT-VL's keeps none."""

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
