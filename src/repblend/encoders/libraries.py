"""Models of timm, transformers and open_clip from checked snapshots of the hub, or from a user's own local folders.

Nothing is ever read from a pickle, and no weight is left at random: a checkpoint that does not fill the model is
refused. The libraries are imported where they are used: each takes a second or two.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from repblend.encoders.hub import checked_snapshot
from repblend.encoders.pins import OPEN_CLIP_WEIGHTS, WEIGHTS, checkpoint_of

LOCAL = "local-dir:"
UNUSED = "pooler."
"""Layers of BERT that no embedding here passes through; some checkpoints lack them."""


def timm_model(encoder: str, image_size: int, **settings: int) -> nn.Module:
    """Load a timm model; one made for a single image size gets its position embeddings resampled to ours.

    Args:
        encoder: a name of the registry.
        image_size: height and width in pixels of the images that it will get.
        settings: `num_classes=0` leaves the classifier out.

    Raises:
        ValueError: the weights are not at hand, are damaged, or are not this model's.
    """
    import timm

    try:
        name, overlay = _timm_source(encoder)
        module = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **settings)
    except Exception as error:  # timm and the file system each raise their own kind
        raise _cannot_load("encode.image_encoder", encoder, error) from error
    if module.pretrained_cfg.get("fixed_input_size") and hasattr(module, "set_input_size"):
        module.set_input_size(img_size=image_size)
    return module


def _timm_source(encoder: str) -> tuple[str, dict[str, str] | None]:
    """The name that timm builds the model by, and the weights file if that name does not lead to it."""
    folder = checked_snapshot(encoder, Path.cwd())
    if folder is None:
        return _local(encoder.removeprefix("timm:"), WEIGHTS), None
    architecture = checkpoint_of(encoder).architecture
    return (architecture, {"file": str(folder / WEIGHTS)}) if architecture else (f"{LOCAL}{folder}", None)


def transformers_model(encoder: str) -> tuple[nn.Module, Callable]:
    """Load a transformer (float32) and its tokenizer; errors as `timm_model`."""
    from transformers import AutoModel, AutoTokenizer

    try:
        folder = checked_snapshot(encoder, Path.cwd()) or encoder.removeprefix("transformers:")
        module, report = AutoModel.from_pretrained(folder, use_safetensors=True, local_files_only=True,
                                                   dtype=torch.float32, output_loading_info=True)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers, safetensors and the file system each raise their own kind
        raise _cannot_load("encode.text_encoder", encoder, error) from error
    if missing := sorted(name for name in report["missing_keys"] if not name.startswith(UNUSED)):
        raise ValueError(f"encode.text_encoder: the weights of {encoder!r} lack {len(missing)} tensors of the model "
                         f"that its config.json describes, {missing[0]} for one; they are not its own")
    return module, tokenizer


def open_clip_model(setting: str, encoder: str, **settings: int) -> tuple[nn.Module, Callable]:
    """Load both towers of an open_clip model and its tokenizer; errors as `timm_model`.

    Args:
        setting: the parameter that names it, for messages.
        encoder: a name of the registry.
        settings: `force_image_size`, in pixels.
    """
    import open_clip

    try:
        name, weights = _open_clip_source(encoder)
        module = open_clip.create_model_from_pretrained(name, weights, return_transform=False, **settings)
        return module, open_clip.get_tokenizer(name)
    except Exception as error:  # open_clip and the file system each raise their own kind
        raise _cannot_load(setting, encoder, error) from error


def _open_clip_source(encoder: str) -> tuple[str, str | None]:
    """As `_timm_source`."""
    folder = checked_snapshot(encoder, Path.cwd())
    if folder is None:
        return _local(encoder.removeprefix("open_clip:"), OPEN_CLIP_WEIGHTS), None
    architecture = checkpoint_of(encoder).architecture
    return (architecture, str(folder / OPEN_CLIP_WEIGHTS)) if architecture else (f"{LOCAL}{folder}", None)


def _local(name: str, weights: str) -> str:
    """Return the name of a user's own folder; these libraries would read a pickle if there were nothing else."""
    path = Path(name.removeprefix(LOCAL)) / weights
    if not path.is_file():
        raise ValueError(f"{path}: no such file; expected the weights as safetensors")
    return name


def _cannot_load(setting: str, encoder: str, error: Exception) -> ValueError:
    reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
    return ValueError(f"{setting}: cannot load {encoder!r}: {reason}")
