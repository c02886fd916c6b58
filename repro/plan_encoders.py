"""What encoders cost, for `repro plan`: known here so that a plan needs neither torch nor weights.

Multiply-accumulates of one forward pass; a test counts them again on models without weights.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class ImageCost:
    """Cost of an image encoder."""

    macs: float
    """Multiply-accumulates of one image of `size` x `size` pixels."""
    size: int
    feature_dim: int
    num_parameters: int

    def macs_at(self, size: int) -> float:
        """Multiply-accumulates of one image of another size: proportional to its area."""
        return self.macs * (size / self.size) ** 2


@dataclass(frozen=True)
class TextCost:
    """Cost of a text encoder."""

    macs_per_token: float
    feature_dim: int


IMAGE_COSTS = {
    "efficientnet_lite0": ImageCost(31.34e6, 64, 1280, 3_371_008),
    "efficientnet_lite1": ImageCost(40.91e6, 64, 1280, 4_135_680),
    "efficientnet_lite2": ImageCost(46.96e6, 64, 1280, 4_811_072),
    "nfnet_l0": ImageCost(4.253e9, 224, 2304, 32_769_488),
    "nf_resnet50": ImageCost(4.087e9, 224, 2048, 23_508_032),
    "nf_regnet_b1": ImageCost(605.7e6, 224, 960, 9_262_984),
    "vit_tiny_patch16_224": ImageCost(1.254e9, 224, 1000, 5_717_416),
    "vit_tiny_patch16_224_pooled": ImageCost(1.254e9, 224, 192, 5_524_416),
    "dino_vit_b16": ImageCost(17.56e9, 224, 768, 85_798_656),
    "dinov2_vit_b14": ImageCost(23.16e9, 224, 768, 85_724_928),
}
TEXT_COSTS = {
    "all-MiniLM-L6-v2": TextCost(10.70e6, 384),
    "bert-base-uncased": TextCost(85.27e6, 768),
    "distilbert-base-uncased": TextCost(42.61e6, 768),
    "bge-base-en-v1.5": TextCost(85.27e6, 768),
}
TOKENS_PER_CAPTION = 16
"""A caption of ten words and its special tokens: what plans count with."""


def image_cost(name: str) -> ImageCost:
    """Return the cost of a declared image encoder.

    Raises:
        ValueError: it is none of `IMAGE_COSTS`.
    """
    if name not in IMAGE_COSTS:
        raise ValueError(f"encode.image_encoder: what {name!r} costs is not known, so nothing can be estimated; known "
                         f"are {', '.join(IMAGE_COSTS)}")
    return IMAGE_COSTS[name]


def text_cost(name: str) -> TextCost:
    """Return the cost of a declared text encoder; raises as `image_cost`."""
    if name not in TEXT_COSTS:
        raise ValueError(f"encode.text_encoder: what {name!r} costs is not known, so nothing can be estimated; known "
                         f"are {', '.join(TEXT_COSTS)}")
    return TEXT_COSTS[name]
