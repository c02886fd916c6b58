"""All encoders by name: the packaged ones, the paper's (PAPER.md section 4), and whatever the three libraries know.

A name is one of the declared names, or a repository of the hub behind a library's prefix: `timm:OWNER/NAME` (images,
pooled features; `timm:NAME` for timm's own, as in `timm:resnet18.a1_in1k`), `transformers:OWNER/NAME` (texts, the first
token) and `open_clip:OWNER/NAME` (images and texts); or a local folder of the hub's layout: `timm:local-dir:/path`,
`transformers:/path`, `open_clip:local-dir:/path`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from repblend.encoders import packaged
from repblend.encoders.image import ImageEncoder
from repblend.encoders.libraries import open_clip_model, timm_model, transformers_model
from repblend.encoders.text import (
    BATCH_SIZE,
    CaptionEncoder,
    Pool,
    TextEncoder,
    first_token,
    unit_first_token,
    unit_mean,
)
from repblend.progress import progress

PUBLISHED_MEAN = (0.48145466, 0.4578275, 0.40821073)
PUBLISHED_STD = (0.26862954, 0.26130258, 0.27577711)
"""CLIP's normalisation; the released code applies it for every image encoder."""
FOLDING_TOLERANCE = 1e-3
"""Largest difference that folding BatchNorm layers may make to float32 features, relative to the largest feature."""


@dataclass(frozen=True)
class ImageEntry:
    """A declared image encoder."""

    load: Callable[[int], nn.Module]
    """From the image size to images (B, 3, H, H) -> (B, feature_dim)."""
    feature_dim: int


@dataclass(frozen=True)
class TextEntry:
    """A declared text encoder."""

    load: Callable[[], tuple[nn.Module, Callable]]
    pool: Pool


def _efficientnet_lite(size: int) -> Callable[[int], nn.Module]:
    return lambda image_size: packaged.efficientnet_lite(size)


def _timm(name: str) -> Callable[[int], nn.Module]:
    return lambda image_size: timm_model(name, image_size, num_classes=0)


def _timm_with_classifier(name: str) -> Callable[[int], nn.Module]:
    return lambda image_size: timm_model(name, image_size)


def _transformers(name: str) -> Callable[[], tuple[nn.Module, Callable]]:
    return lambda: transformers_model(name)


IMAGE_ENCODERS = {
    **{f"efficientnet_lite{size}": ImageEntry(_efficientnet_lite(size), 1280)
       for size in packaged.EFFICIENTNET_LITE_SHA256},
    "nfnet_l0": ImageEntry(_timm("nfnet_l0"), 2304),
    "nf_resnet50": ImageEntry(_timm("nf_resnet50"), 2048),
    "nf_regnet_b1": ImageEntry(_timm("nf_regnet_b1"), 960),
    # The released code keeps the classifier of this one, so its "features" are the scores of 1,000 classes.
    "vit_tiny_patch16_224": ImageEntry(_timm_with_classifier("vit_tiny_patch16_224"), 1000),
    "vit_tiny_patch16_224_pooled": ImageEntry(_timm("vit_tiny_patch16_224_pooled"), 192),
    # The paper says DINOv2; the released code's `dinov2` loads the first DINO. Both are here, under their own names.
    "dino_vit_b16": ImageEntry(_timm("dino_vit_b16"), 768),
    "dinov2_vit_b14": ImageEntry(_timm("dinov2_vit_b14"), 768),
    "clip_vit_b32": ImageEntry(lambda image_size: _clip_images("clip_vit_b32", image_size), 512),
}
TEXT_ENCODERS = {
    "all-MiniLM-L6-v2": TextEntry(packaged.minilm, unit_mean),
    "bert-base-uncased": TextEntry(_transformers("bert-base-uncased"), first_token),
    "distilbert-base-uncased": TextEntry(_transformers("distilbert-base-uncased"), first_token),
    "bge-base-en-v1.5": TextEntry(_transformers("bge-base-en-v1.5"), unit_first_token),
}
CLIP_TEXT_ENCODERS = ("clip_vit_b32",)
"""Text towers of open_clip models, which tokenize and pool in their own way."""


def load_image_encoder(name: str, image_size: int) -> ImageEncoder:
    """Load a frozen image encoder; weights from the hub lie in the clone that the working directory belongs to.

    Args:
        name: as in the head of this module.
        image_size: height and width in pixels that it will be given.

    Raises:
        ValueError: no encoder has this name, or its weights are not at hand.
    """
    library, _, rest = name.partition(":")
    if name in IMAGE_ENCODERS:
        entry = IMAGE_ENCODERS[name]
        return _checked(name, entry.load(image_size), image_size, entry.feature_dim)
    if library == "timm" and rest:
        module = timm_model(name, image_size, num_classes=0)
        return _checked(name, module, image_size, module.num_features)
    if library == "open_clip" and rest:
        module = _clip_images(name, image_size)
        return _checked(name, module, image_size, module.output_dim)
    raise ValueError(f"encode.image_encoder: no encoder is called {name!r}; expected one of "
                     f"{', '.join(IMAGE_ENCODERS)}, or timm:NAME, or open_clip:NAME")


def _clip_images(name: str, image_size: int) -> nn.Module:
    return open_clip_model("encode.image_encoder", name, force_image_size=image_size)[0].visual


def _checked(name: str, module: nn.Module, image_size: int, feature_dim: int) -> ImageEncoder:
    """Wrap a module after one image has passed through it, before and after it was prepared for speed."""
    encoder = ImageEncoder(module, feature_dim, PUBLISHED_MEAN, PUBLISHED_STD)
    image = torch.randn(1, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad():
            expected, found = module.eval()(image), encoder.encode(image)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"data.image_size: encoder {name!r} cannot take images of {image_size} x {image_size} "
                         f"pixels ({error}); choose the size it was made for") from error
    if found.shape != (1, feature_dim):
        raise ValueError(f"encode.image_encoder: {name!r} gives features of shape {tuple(found.shape)} for one image, "
                         f"expected (1, {feature_dim}); it cannot be used, choose another")
    if (difference := ((found - expected).abs().max() / expected.abs().max()).item()) > FOLDING_TOLERANCE:
        raise ValueError(f"encode.image_encoder: {name!r} changes by {difference:.1e} when its BatchNorm layers are "
                         f"folded, expected at most {FOLDING_TOLERANCE:.0e}; its layers are not applied in the order "
                         "in which they are declared, choose another")
    return encoder


def load_text_encoder(name: str) -> CaptionEncoder:
    """Load a frozen text encoder; names and errors as `load_image_encoder`."""
    library, _, rest = name.partition(":")
    if name in TEXT_ENCODERS:
        entry = TEXT_ENCODERS[name]
        return TextEncoder(*entry.load(), entry.pool)
    if library == "transformers" and rest:
        return TextEncoder(*transformers_model(name), first_token)
    if name in CLIP_TEXT_ENCODERS or (library == "open_clip" and rest):
        return OpenClipTextEncoder(*open_clip_model("encode.text_encoder", name))
    raise ValueError(f"encode.text_encoder: no encoder is called {name!r}; expected one of "
                     f"{', '.join((*TEXT_ENCODERS, *CLIP_TEXT_ENCODERS))}, or transformers:NAME, or open_clip:NAME")


class OpenClipTextEncoder(CaptionEncoder):
    """The text tower of an open_clip model."""

    def __init__(self, module: nn.Module, tokenizer: Callable) -> None:
        self._module, self._tokenizer = module.eval().requires_grad_(False), tokenizer

    def to(self, device: torch.device | str) -> "OpenClipTextEncoder":
        self._module, self.device = self._module.to(device), device
        return self

    @property
    def feature_dim(self) -> int:
        return self._embed(["a"]).shape[-1]

    def encode_batches(self, captions: Sequence[str], first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches in the order given; all captions have the model's length."""
        starts = range(0, len(captions), BATCH_SIZE)[first:]
        for start in progress(starts, "encode captions", "batch", start=first):
            batch = captions[start:start + BATCH_SIZE]
            yield torch.arange(start, start + len(batch)), self._embed(batch)

    def _embed(self, captions: Sequence[str]) -> Tensor:
        with torch.no_grad():
            return self._module.encode_text(self._tokenizer(list(captions)).to(self.device)).cpu()

    def encode_in_training(self, captions: Sequence[str], generator: torch.Generator) -> Tensor:
        """Return what `encode` does: these towers have no dropout."""
        return self._embed(captions)
