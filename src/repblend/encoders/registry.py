"""All encoders by name: the packaged ones, the paper's (PAPER.md section 4), and whatever the three libraries know.

A name is one of the declared names, or a library's own name behind its prefix: `timm:NAME` (images, pooled features),
`transformers:NAME` (texts, the first token) and `open_clip:NAME` (images and texts), where NAME may be a hub
repository, for open_clip also `ARCHITECTURE/WEIGHTS` as in `open_clip:ViT-B-32/openai`, or a local folder of the hub's
layout: `timm:local-dir:/path`, `transformers:/path`, `open_clip:local-dir:/path`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from repblend.encoders import packaged
from repblend.encoders.image import ImageEncoder
from repblend.encoders.text import BATCH_SIZE, Pool, TextEncoder, first_token, unit_first_token, unit_mean
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
    return lambda image_size: _from_timm(name, image_size, num_classes=0)


def _timm_with_classifier(name: str) -> Callable[[int], nn.Module]:
    return lambda image_size: _from_timm(name, image_size)


def _transformers(name: str) -> Callable[[], tuple[nn.Module, Callable]]:
    return lambda: _from_transformers(name)


IMAGE_ENCODERS = {
    **{f"efficientnet_lite{size}": ImageEntry(_efficientnet_lite(size), 1280)
       for size in packaged.EFFICIENTNET_LITE_SHA256},
    "nfnet_l0": ImageEntry(_timm("nfnet_l0.ra2_in1k"), 2304),
    "nf_resnet50": ImageEntry(_timm("nf_resnet50.ra2_in1k"), 2048),
    "nf_regnet_b1": ImageEntry(_timm("nf_regnet_b1.ra2_in1k"), 960),
    # The released code keeps the classifier of this one, so its "features" are the scores of 1,000 classes.
    "vit_tiny_patch16_224": ImageEntry(_timm_with_classifier("vit_tiny_patch16_224.augreg_in21k_ft_in1k"), 1000),
    # The paper says DINOv2; the released code's `dinov2` loads the first DINO. Both are here, under their own names.
    "dino_vit_b16": ImageEntry(_timm("vit_base_patch16_224.dino"), 768),
    "dinov2_vit_b14": ImageEntry(_timm("vit_base_patch14_dinov2.lvd142m"), 768),
}
TEXT_ENCODERS = {
    "all-MiniLM-L6-v2": TextEntry(packaged.minilm, unit_mean),
    "bert-base-uncased": TextEntry(_transformers("google-bert/bert-base-uncased"), first_token),
    "distilbert-base-uncased": TextEntry(_transformers("distilbert/distilbert-base-uncased"), first_token),
    "bge-base-en-v1.5": TextEntry(_transformers("BAAI/bge-base-en-v1.5"), unit_first_token),
}


def load_image_encoder(name: str, image_size: int) -> ImageEncoder:
    """Load a frozen image encoder.

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
        module = _from_timm(rest, image_size, num_classes=0)
        return _checked(name, module, image_size, module.num_features)
    if library == "open_clip" and rest:
        module = _from_open_clip("encode.image_encoder", rest, force_image_size=image_size)[0].visual
        return _checked(name, module, image_size, module.output_dim)
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
                         f"expected (1, {feature_dim}); it cannot be used, choose another")
    if (difference := ((found - expected).abs().max() / expected.abs().max()).item()) > FOLDING_TOLERANCE:
        raise ValueError(f"encode.image_encoder: {name!r} changes by {difference:.1e} when its BatchNorm layers are "
                         f"folded, expected at most {FOLDING_TOLERANCE:.0e}; its layers are not applied in the order "
                         "in which they are declared, choose another")
    return encoder


def load_text_encoder(name: str) -> TextEncoder:
    """Load a frozen text encoder; names and errors as `load_image_encoder`."""
    library, _, rest = name.partition(":")
    if name in TEXT_ENCODERS:
        entry = TEXT_ENCODERS[name]
        return TextEncoder(*entry.load(), entry.pool)
    if library == "transformers" and rest:
        return TextEncoder(*_from_transformers(rest), first_token)
    if library == "open_clip" and rest:
        return OpenClipTextEncoder(*_from_open_clip("encode.text_encoder", rest))
    raise ValueError(f"encode.text_encoder: no encoder is called {name!r}; expected one of "
                     f"{', '.join(TEXT_ENCODERS)}, or transformers:NAME, or open_clip:NAME")


class OpenClipTextEncoder:
    """The text tower of an open_clip model."""

    def __init__(self, module: nn.Module, tokenizer: Callable) -> None:
        self._module, self._tokenizer = module.eval().requires_grad_(False), tokenizer

    def encode(self, captions: list[str]) -> Tensor:
        """Return (len(captions), D) float32 embeddings, in the order given; all captions have the model's length."""
        batches = progress(self._tokenizer(list(captions)).split(BATCH_SIZE), "encode captions", "batch")
        with torch.no_grad():
            return torch.cat([self._module.encode_text(batch_BT) for batch_BT in batches])


def _from_timm(name: str, image_size: int, **settings: int) -> nn.Module:
    """Load a timm model; one made for a single image size gets its position embeddings resampled to ours."""
    import timm

    try:
        module = timm.create_model(name, pretrained=True, **settings)
    except Exception as error:  # timm, the hub and the file system each raise their own kind
        raise _not_at_hand("encode.image_encoder", f"timm:{name}", error) from error
    if module.pretrained_cfg.get("fixed_input_size") and hasattr(module, "set_input_size"):
        module.set_input_size(img_size=image_size)
    return module


def _from_transformers(name: str) -> tuple[nn.Module, Callable]:
    from transformers import AutoModel, AutoTokenizer

    try:
        return AutoModel.from_pretrained(name, use_safetensors=True), AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, SafetensorError) as error:
        raise _not_at_hand("encode.text_encoder", f"transformers:{name}", error) from error


def _from_open_clip(setting: str, name: str, **settings: int) -> tuple[nn.Module, Callable]:
    import open_clip

    is_folder_or_hub = name.startswith(("local-dir:", "hf-hub:"))
    architecture, _, weights = (name, "", "") if is_folder_or_hub else name.partition("/")
    try:
        model = open_clip.create_model_from_pretrained(architecture, weights or None, return_transform=False,
                                                       **settings)
        return model, open_clip.get_tokenizer(architecture)
    except Exception as error:  # open_clip, the hub and the file system each raise their own kind
        raise _not_at_hand(setting, f"open_clip:{name}", error) from error


def _not_at_hand(setting: str, name: str, error: Exception) -> ValueError:
    return ValueError(f"{setting}: cannot load {name!r} ({type(error).__name__}: {error}). Stages do not use the "
                      "network: check the name, and fetch the weights into the hub's cache before the run")
