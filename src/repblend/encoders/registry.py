"""All encoders by name: the packaged ones, the paper's (NFNet with BERT; Tables 3 and 4: others), and whatever timm,
transformers and open_clip know.

A name is one of the declared names, or a repository of the hub behind a library's prefix: `timm:OWNER/NAME` (images,
pooled features; `timm:NAME` for timm's own, as in `timm:resnet18.a1_in1k`), `transformers:OWNER/NAME` (texts, the first
token) and `open_clip:OWNER/NAME` (images and texts); or a local folder of the hub's layout: `timm:local-dir:/path`,
`transformers:/path`, `open_clip:local-dir:/path`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import nn

from repblend.encoders.efficientnet_lite import FEATURES, LITE, efficientnet_lite
from repblend.encoders.image import ImageEncoder
from repblend.encoders.libraries import minilm, open_clip_model, timm_model, transformers_model
from repblend.encoders.text import (
    CaptionEncoder,
    OpenClipTextEncoder,
    Pool,
    TextEncoder,
    Tokenizer,
    first_token,
    unit_first_token,
    unit_mean,
)

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


def _timm(name: str, **settings: Any) -> Callable[[int], nn.Module]:
    return lambda image_size: timm_model(name, image_size, **settings)


def _clip_images(name: str, image_size: int) -> nn.Module:
    towers: Any = open_clip_model("encode.image_encoder", name, force_image_size=image_size)[0]
    return cast(nn.Module, towers.visual)


def _packaged(size: int, image_size: int) -> nn.Module:
    return efficientnet_lite(size)


POOLED = {"num_classes": 0}
"""Leaves a timm model's classifier out."""
IMAGE_ENCODERS = {
    **{f"efficientnet_lite{size}": ImageEntry(partial(_packaged, size), FEATURES) for size in LITE},
    "nfnet_l0": ImageEntry(_timm("nfnet_l0", **POOLED), 2304),
    "nf_resnet50": ImageEntry(_timm("nf_resnet50", **POOLED), 2048),
    "nf_regnet_b1": ImageEntry(_timm("nf_regnet_b1", **POOLED), 960),
    # The released code keeps the classifier of this one, so its "features" are the scores of 1,000 classes.
    "vit_tiny_patch16_224": ImageEntry(_timm("vit_tiny_patch16_224"), 1000),
    "vit_tiny_patch16_224_pooled": ImageEntry(_timm("vit_tiny_patch16_224_pooled", **POOLED), 192),
    # The paper says DINOv2; the released code's `dinov2` loads the first DINO. Both are here, under their own names.
    "dino_vit_b16": ImageEntry(_timm("dino_vit_b16", **POOLED), 768),
    "dinov2_vit_b14": ImageEntry(_timm("dinov2_vit_b14", **POOLED), 768),
    "clip_vit_b32": ImageEntry(partial(_clip_images, "clip_vit_b32"), 512),
}
TEXT_ENCODERS: dict[str, tuple[Callable[[], tuple[nn.Module, Tokenizer]], Pool]] = {
    "all-MiniLM-L6-v2": (minilm, unit_mean),
    # The same transformer read as the paper reads its text encoders: no other one comes as a package.
    "all-MiniLM-L6-v2_first-token": (minilm, unit_first_token),
    "bert-base-uncased": (partial(transformers_model, "bert-base-uncased"), first_token),
    "distilbert-base-uncased": (partial(transformers_model, "distilbert-base-uncased"), first_token),
    "bge-base-en-v1.5": (partial(transformers_model, "bge-base-en-v1.5"), unit_first_token),
    # As the released code uses it: not at length one.
    "bge-base-en-v1.5_first-token": (partial(transformers_model, "bge-base-en-v1.5"), first_token),
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
    if library in ("timm", "open_clip") and rest:
        module: Any = timm_model(name, image_size, **POOLED) if library == "timm" else _clip_images(name, image_size)
        return _checked(name, module, image_size, module.num_features if library == "timm" else module.output_dim)
    raise ValueError(f"encode.image_encoder: no encoder is called {name!r}; expected one of "
                     f"{', '.join(IMAGE_ENCODERS)}, or timm:NAME, or open_clip:NAME")


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
                         f"expected (1, {feature_dim}); choose another")
    if (difference := ((found - expected).abs().max() / expected.abs().max()).item()) > FOLDING_TOLERANCE:
        raise ValueError(f"encode.image_encoder: {name!r} changes by {difference:.1e} when its BatchNorm layers are "
                         f"folded, expected at most {FOLDING_TOLERANCE:.0e}; its layers are not applied in the order "
                         "in which they are declared, choose another")
    return encoder


def load_text_encoder(name: str) -> CaptionEncoder:
    """Load a frozen text encoder; names and errors as `load_image_encoder`."""
    library, _, rest = name.partition(":")
    if name in TEXT_ENCODERS:
        load, pool = TEXT_ENCODERS[name]
        return TextEncoder(*load(), pool)
    if library == "transformers" and rest:
        return TextEncoder(*transformers_model(name), first_token)
    if name in CLIP_TEXT_ENCODERS or (library == "open_clip" and rest):
        return OpenClipTextEncoder(*open_clip_model("encode.text_encoder", name))
    raise ValueError(f"encode.text_encoder: no encoder is called {name!r}; expected one of "
                     f"{', '.join((*TEXT_ENCODERS, *CLIP_TEXT_ENCODERS))}, or transformers:NAME, or open_clip:NAME")
