"""All encoders by name: the packaged ones, the paper's (PAPER.md section 4), and whatever the three libraries know.

A name is one of the declared names, or a library's own name behind its prefix: `timm:NAME` (images),
`transformers:NAME` (texts) and `open_clip:NAME` (images and texts), where NAME may be a hub repository or, as
`timm:local-dir:/path`, `transformers:/path` and `open_clip:local-dir:/path`, a local folder of the hub's layout.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from repblend.encoders import packaged
from repblend.encoders.image import ImageEncoder
from repblend.encoders.text import Pool, TextEncoder, first_token, unit_first_token, unit_mean

PUBLISHED_MEAN = (0.48145466, 0.4578275, 0.40821073)
PUBLISHED_STD = (0.26862954, 0.26130258, 0.27577711)
"""CLIP's normalisation; the released code applies it for every image encoder."""


@dataclass(frozen=True)
class ImageEntry:
    """A declared image encoder."""

    load: Callable[[], nn.Module]
    feature_dim: int


@dataclass(frozen=True)
class TextEntry:
    """A declared text encoder."""

    load: Callable[[], tuple[nn.Module, Callable]]
    pool: Pool


def _timm(name: str) -> Callable[[], nn.Module]:
    return lambda: _from_timm(name)


def _transformers(name: str) -> Callable[[], tuple[nn.Module, Callable]]:
    return lambda: _from_transformers(name)


IMAGE_ENCODERS = {
    "efficientnet_lite0": ImageEntry(packaged.efficientnet_lite0, 1280),
    "nfnet_l0": ImageEntry(_timm("nfnet_l0.ra2_in1k"), 2304),
    "nf_resnet50": ImageEntry(_timm("nf_resnet50.ra2_in1k"), 2048),
    "nf_regnet_b1": ImageEntry(_timm("nf_regnet_b1.ra2_in1k"), 960),
    "vit_tiny": ImageEntry(_timm("vit_tiny_patch16_224.augreg_in21k_ft_in1k"), 192),
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
        return _checked(name, entry.load(), image_size, entry.feature_dim)
    if library == "timm" and rest:
        module = _from_timm(rest)
        return _checked(name, module, image_size, module.num_features)
    if library == "open_clip" and rest:
        module = _from_open_clip(rest)[0].visual
        return _checked(name, module, image_size, module.output_dim)
    raise ValueError(f"encode.image_encoder: no encoder is called {name!r}; expected one of "
                     f"{', '.join(IMAGE_ENCODERS)}, or timm:NAME, or open_clip:NAME")


def _checked(name: str, module: nn.Module, image_size: int, feature_dim: int) -> ImageEncoder:
    """Wrap a module after one image has passed through it."""
    encoder = ImageEncoder(module, feature_dim, PUBLISHED_MEAN, PUBLISHED_STD)
    try:
        with torch.no_grad():
            shape = encoder.encode(torch.zeros(1, 3, image_size, image_size)).shape
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"data.image_size: encoder {name!r} cannot take images of {image_size} x {image_size} "
                         f"pixels ({error}); choose the size it was made for") from error
    if shape != (1, feature_dim):
        raise ValueError(f"encode.image_encoder: {name!r} gives features of shape {tuple(shape)} for one image, "
                         f"expected (1, {feature_dim})")
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
        return OpenClipTextEncoder(*_from_open_clip(rest))
    raise ValueError(f"encode.text_encoder: no encoder is called {name!r}; expected one of "
                     f"{', '.join(TEXT_ENCODERS)}, or transformers:NAME, or open_clip:NAME")


class OpenClipTextEncoder:
    """The text tower of an open_clip model."""

    def __init__(self, module: nn.Module, tokenizer: Callable) -> None:
        self._module, self._tokenizer = module.eval().requires_grad_(False), tokenizer

    def encode(self, captions: list[str]) -> Tensor:
        """Return (len(captions), D) float32 embeddings, in the order given."""
        with torch.no_grad():
            return torch.cat([self._module.encode_text(self._tokenizer([caption])) for caption in captions])


def _from_timm(name: str) -> nn.Module:
    import timm

    try:
        return timm.create_model(name, pretrained=True, num_classes=0)
    except Exception as error:  # timm, the hub and the file system each raise their own kind
        raise _not_at_hand("encode.image_encoder", f"timm:{name}", error) from error


def _from_transformers(name: str) -> tuple[nn.Module, Callable]:
    from transformers import AutoModel, AutoTokenizer

    try:
        return AutoModel.from_pretrained(name), AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise _not_at_hand("encode.text_encoder", f"transformers:{name}", error) from error


def _from_open_clip(name: str) -> tuple[nn.Module, Callable]:
    import open_clip

    try:
        return open_clip.create_model_from_pretrained(name, return_transform=False), open_clip.get_tokenizer(name)
    except Exception as error:  # open_clip, the hub and the file system each raise their own kind
        raise _not_at_hand("encode.image_encoder", f"open_clip:{name}", error) from error


def _not_at_hand(setting: str, name: str, error: Exception) -> ValueError:
    return ValueError(f"{setting}: cannot load {name!r} ({type(error).__name__}: {error}). Stages do not use the "
                      "network: check the name, and fetch the weights into the hub's cache before the run")
